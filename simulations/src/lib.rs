//! The same `Host` that ships, under virtual time, network, disk and TPM. One seed draws everything.

pub mod checkers;
mod clients;
pub mod disk;
pub mod gossip;
mod latecomers;
pub mod liar;
mod looking;
pub mod machine;
pub mod overhearing;
mod peace;
pub mod random;
mod registers;
pub mod run;
pub mod scenario;
pub mod tpm;
pub mod world;

//! Real daemons with a software TPM each, on one machine: loopback sockets, real disk, real `kill -9`.
//!
//! It runs the built binaries and imports no code of theirs. One binary here is built from it: `taped`, a daemon that a
//! scenario lets withhold and repeat what it says.

pub mod bench;
pub mod children;
pub mod command;
pub mod demo;
pub mod machine;
pub mod mesh;
pub mod network;
pub mod proxy;
pub mod scenario;
pub mod tpm;

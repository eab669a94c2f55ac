//! Real daemons with a software TPM each, on one machine: loopback sockets, real disk, real `kill -9`.
//!
//! It runs the built binaries and imports no code of theirs.

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

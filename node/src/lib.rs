//! The host daemon and its command line: real disk, sockets and TPM around the rules of `spec`. Nothing here decides.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod driver;
pub mod identity;
pub mod maps;
pub mod network;
pub mod reports;
pub mod ssh;
pub mod store;
pub mod tpm;
pub mod workers;

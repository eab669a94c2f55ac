//! The rules of vouchsafe: what a mesh of attested hosts does, and when it refuses.
//!
//! This crate touches nothing: no file, no socket, no clock, no generator of the operating system. Time and randomness
//! are arguments, the TPM and the disk are actions whose answers come back as events. A daemon and a simulator drive
//! the very same [`host::Host`]. The protocol in words: `README.md` beside this crate.

pub mod attest;
pub mod attester;
pub mod beacon;
pub mod budget;
pub mod changing;
pub mod client;
pub mod cms;
pub mod credential;
pub mod error;
pub mod founding;
pub mod genesis;
pub mod gossip;
pub mod header;
pub mod holder;
pub mod host;
pub mod instance;
pub mod joining;
pub mod limits;
pub mod membership;
pub mod period;
pub mod relay;
pub mod signing;
pub mod suite;
pub mod text;
pub mod ticket;
pub mod tree;
pub mod types;
pub mod view;
pub mod whereabouts;
pub mod wire;
pub mod witness;

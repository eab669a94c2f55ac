//! The coordinating role: the records and the service that writes them.

pub mod command;
pub mod committee;
pub mod credentials;
pub mod election;
pub mod groups;
mod leaving;
pub mod log;
pub mod members;
pub mod records;
pub mod seating;
pub mod service;
pub mod snapshot;
mod unclosed;
pub mod version;

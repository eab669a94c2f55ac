//! What a run does, read from a scenario file; the seed draws the rest.

use serde::Deserialize;
use thiserror::Error;

/// A scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is about.
    pub about: String,
    /// Length of an epoch in virtual milliseconds.
    pub epoch_ms: u64,
    /// Epochs with faults.
    pub epochs: u64,
    /// Puts in that time.
    pub puts: u64,
    /// Credentials whose histories are checked,
    #[serde(default)]
    pub registers: u64,
    /// and operations on them in that time.
    #[serde(default)]
    pub operations: u64,
    /// Messages lost, in a hundred.
    pub loss_percent: u64,
    /// Crashes in that time; each host comes back.
    pub crashes: u64,
    /// Hosts that are away for so long that their seats are given to others.
    #[serde(default)]
    pub absences: u64,
    /// Hosts that join in the first half of that time, and not before.
    #[serde(default)]
    pub late: u64,
    /// Partitions in that time: some hosts are cut off from the others for a while.
    #[serde(default)]
    pub partitions: u64,
    /// Epochs after which a partition is over at the latest; 0 where it lasts until the next one.
    #[serde(default)]
    pub partition_epochs: u64,
    /// Wall clocks that jump ahead in that time, and back.
    #[serde(default)]
    pub clock_jumps: u64,
    /// The seed draws nothing: it is the number of the action before which its host crashes, in a run that is otherwise
    /// the same each time.
    #[serde(default)]
    pub boundaries: bool,
    /// Delay of a message, from and to.
    pub delay_ms: [u64; 2],
    /// Time of a write, from and to.
    pub flush_ms: [u64; 2],
    /// Time of a TPM's quote, from and to.
    pub quote_ms: [u64; 2],
}

/// A scenario that is not there or does not parse.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// No scenario of that name.
    #[error("no scenario `{0}`; there are: {known}", known = names().join(", "))]
    Unknown(String),
    /// The file does not parse.
    #[error("scenario `{0}`: {1}")]
    Form(String, toml::de::Error),
}

const SCENARIOS: [(&str, &str); 7] = [
    ("boundaries", include_str!("../scenarios/boundaries.toml")),
    ("calm", include_str!("../scenarios/calm.toml")),
    ("crash", include_str!("../scenarios/crash.toml")),
    ("registers", include_str!("../scenarios/registers.toml")),
    ("partition", include_str!("../scenarios/partition.toml")),
    ("seats", include_str!("../scenarios/seats.toml")),
    ("snapshots", include_str!("../scenarios/snapshots.toml")),
];

/// Names of all scenarios.
pub fn names() -> Vec<&'static str> {
    SCENARIOS.iter().map(|(name, _)| *name).collect()
}

impl Scenario {
    /// The scenario of this name.
    ///
    /// # Errors
    /// Where there is none or its file does not parse.
    pub fn named(name: &str) -> Result<Self, ScenarioError> {
        let (_, text) = SCENARIOS
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| ScenarioError::Unknown(name.to_owned()))?;
        toml::from_str(text).map_err(|error| ScenarioError::Form(name.to_owned(), error))
    }
}

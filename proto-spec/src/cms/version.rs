//! The version by which the records are read. It rises by one, and only on the word of every voter: one leader alone
//! could otherwise stop every binary that does not know the next.

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::election::LogEntry;
use super::records::{Effect, Records};
use crate::error::Check;
use crate::limits::{COMMITTEE_MAX, ENTRY_MAX, EPOCHS_KEPT};
use crate::suite::Suite;
use crate::types::{Ed25519Signature, HostId, MeshId, Purpose, Round, SecretBytes};
use crate::wire;

/// A member's word for the newest version that its binary reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionWord {
    /// The member.
    pub host: HostId,
    /// The version; it reads the one before it too.
    pub version: u16,
    /// The round in which it said so: whoever goes back to an older binary is not held to it for long.
    pub round: Round,
    /// Signature of its transport key.
    pub signature: Ed25519Signature,
}

impl VersionWord {
    /// A member says what it reads. `None` where its key is none.
    pub fn give(
        suite: &dyn Suite,
        mesh: &MeshId,
        host: HostId,
        version: u16,
        round: Round,
        key: &SecretBytes,
    ) -> Option<Self> {
        let mut word = Self { host, version, round, signature: Ed25519Signature::ZERO };
        word.signature = suite.ed25519_sign(key, &word.signed_bytes(mesh))?;
        Some(word)
    }

    fn signed_bytes(&self, mesh: &MeshId) -> Vec<u8> {
        let said = [self.host.0.as_slice(), &self.version.to_be_bytes(), &self.round.0.to_be_bytes()].concat();
        Purpose::Version.signed_bytes(mesh, &said)
    }
}

impl Records {
    /// The version by which the records are read; 0 before there is a mesh.
    pub fn protocol_version(&self) -> u16 {
        self.protocol_version
    }

    /// Everybody reads the records by the next version from here on: rules that differ ask for it.
    pub(super) fn raise_version(
        &mut self,
        suite: &dyn Suite,
        version: u16,
        words: &[VersionWord],
    ) -> Result<Effect, Check> {
        self.check_version(suite, version, words)?;
        self.protocol_version = version;
        Ok(Effect::VersionRaised(version))
    }

    /// Whether the records may be read by a version: the next one, on the fresh word of every voter.
    ///
    /// # Errors
    /// [`Check::Record`] where it is not the next, [`Check::Version`] where a voter has not said that it reads it.
    pub fn check_version(&self, suite: &dyn Suite, version: u16, words: &[VersionWord]) -> Result<(), Check> {
        let (Some(mesh), Some(committee)) = (self.mesh(), self.committee()) else { return Err(Check::Record) };
        if self.protocol_version.checked_add(1) != Some(version) || words.len() > COMMITTEE_MAX {
            return Err(Check::Record);
        }
        let is_fresh = |word: &VersionWord| word.round.0.saturating_add(EPOCHS_KEPT) >= self.round().0;
        let has_said = |voter: &HostId| {
            let key = self.member(voter).map(|member| &member.record().transport);
            let mut own = words.iter().filter(|word| word.host == *voter && word.version == version && is_fresh(word));
            key.zip(own.next())
                .is_some_and(|(key, word)| suite.ed25519_holds(key, &word.signed_bytes(mesh), &word.signature))
        };
        if committee.voters().iter().all(has_said) { Ok(()) } else { Err(Check::Version) }
    }

    /// The version to which the next entry raises these records: a binary must know it before it applies the entry.
    pub fn raised_by(&self, suite: &dyn Suite, entry: &LogEntry) -> Option<u16> {
        match wire::decode::<Command>(&entry.command, ENTRY_MAX) {
            Ok(Command::Version { version, words }) if entry.change.is_none() => {
                self.check_version(suite, version, &words).is_ok().then_some(version)
            }
            _ => None,
        }
    }
}

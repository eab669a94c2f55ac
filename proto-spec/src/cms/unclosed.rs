//! The end of the log that no header closes yet. Whoever leads could make it grow for ever, since nothing is cut before a
//! header is signed: so whoever takes entries takes only so many of them. Behind those there is room for what closes the
//! next header, and for the entry with which a leader begins its term: the beat goes on whatever stands before it.

use super::command::Command;
use super::election::LogEntry;
use super::records::Records;
use crate::beacon::EpochVerified;
use crate::limits::{ENTRY_MAX, UNCLOSED_MAX, UNCLOSED_RESERVE, UNCLOSED_TAKEN_MAX};
use crate::suite::Suite;
use crate::wire;

impl Records {
    /// Index of the record that closed the newest header.
    fn closed(&self) -> u64 {
        self.headers.last().map_or(0, |header| header.record)
    }

    /// Whether a leader whose log ends with this record proposes nothing more of this kind before the next header. A few
    /// places are left to what takes rights away and to the committee; the beat always has room.
    pub fn is_unclosed_full_at(&self, last: u64, command: &Command) -> bool {
        let room = match command {
            Command::Epoch { .. } => return false,
            Command::Change { .. } | Command::Committee(_) => UNCLOSED_MAX + UNCLOSED_RESERVE,
            _ => UNCLOSED_MAX,
        };
        last.saturating_sub(self.closed()) >= room
    }

    /// Whether a follower takes an entry with this index: no honest log goes on so far without a header.
    pub fn follows_up_to(&self, index: u64) -> bool {
        index <= self.closed().saturating_add(UNCLOSED_TAKEN_MAX)
    }

    /// How many of these entries a voter takes behind one of this term; they are in order. Behind the bound it takes what
    /// closes the next header, and the entry with which a leader begins its term: else a log that somebody filled could never
    /// be closed. So many of those as are left of its budget, whether they hold or not.
    pub fn room_for(&self, suite: &dyn Suite, before: u64, entries: &[LogEntry], budget: &mut u32) -> usize {
        let mut term = before;
        let takes = |entry: &&LogEntry| {
            let begins_term = entry.command.is_empty() && entry.change.is_none() && entry.term > term;
            term = entry.term;
            if self.follows_up_to(entry.index) {
                return true;
            }
            let is_within = *budget > 0;
            *budget = budget.saturating_sub(1);
            is_within && (begins_term || self.closes(suite, entry))
        };
        entries.iter().take_while(takes).count()
    }

    /// Whether an entry closes a header that is not here yet: of each round the mesh key signs one beacon.
    fn closes(&self, suite: &dyn Suite, entry: &LogEntry) -> bool {
        let Ok(Command::Epoch { beacon }) = wire::decode::<Command>(&entry.command, ENTRY_MAX) else { return false };
        let is_new = self.headers.last().is_none_or(|last| beacon.round > last.round);
        let is_signed = || self.mesh_key().and_then(|key| EpochVerified::check(suite, &key, &beacon)).is_some();
        is_new && is_signed()
    }
}

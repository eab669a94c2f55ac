//! The log that Raft reads: every entry in memory, in the library's own form. What is on disk is written by the host
//! before anything that depends on it leaves.

use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use super::election::{LogEntry, SeatChange};
use crate::limits::PAGE_ENTRIES_MAX;

/// Entries from index 1 on, without a gap.
pub(super) struct Log {
    entries: Vec<Entry>,
    hard: HardState,
    seats: ConfState,
}

fn position(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX).saturating_sub(1)
}

impl Log {
    pub(super) fn new(entries: Vec<Entry>, hard: HardState, seats: ConfState) -> Self {
        Self { entries, hard, seats }
    }

    /// Takes entries in; what stood from the first one's index on is replaced.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        if let Some(first) = entries.first() {
            self.entries.truncate(position(first.index));
            self.entries.extend(entries);
        }
    }

    pub(super) fn set_hard(&mut self, hard: HardState) {
        self.hard = hard;
    }

    pub(super) fn set_seats(&mut self, seats: ConfState) {
        self.seats = seats;
    }

    /// All entries up to an index.
    pub(super) fn through(&self, index: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().take_while(move |entry| entry.index <= index)
    }

    fn last(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.index)
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.seats.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let found = self.entries.get(position(low)..position(high));
        let found = found.ok_or(Error::Store(StorageError::Unavailable))?;
        // No message carries more: small entries would pass the bound on bytes by the thousand.
        let mut found: Vec<Entry> = found.iter().take(PAGE_ENTRIES_MAX).cloned().collect();
        raft::util::limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == 0 {
            return Ok(0);
        }
        self.entries.get(position(index)).map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // Nothing is ever cut off the log, so nobody needs one.
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

/// What precedes the command in the context of an entry that changes seats.
const CHANGE_BYTES: usize = 9;

pub(super) fn change_bytes(change: SeatChange, command: &[u8]) -> Vec<u8> {
    let (kind, id) = match change {
        SeatChange::Learner(id) => (1_u8, id),
        SeatChange::Voter(id) => (2, id),
        SeatChange::Remove(id) => (3, id),
    };
    [&[kind], id.to_be_bytes().as_slice(), command].concat()
}

fn change_of(context: &[u8]) -> Option<(SeatChange, &[u8])> {
    let (change, command) = context.split_at_checked(CHANGE_BYTES)?;
    let (kind, id) = change.split_first()?;
    let id = u64::from_be_bytes(id.try_into().ok()?);
    match kind {
        1 => Some((SeatChange::Learner(id), command)),
        2 => Some((SeatChange::Voter(id), command)),
        3 => Some((SeatChange::Remove(id), command)),
        _ => None,
    }
}

/// The library's form of an entry. The library never reads the data of a change that is replicated; ours stands in the
/// context.
pub(super) fn entry_of(ours: &LogEntry) -> Entry {
    let mut entry = Entry { index: ours.index, term: ours.term, ..Entry::default() };
    match ours.change {
        None => entry.data = ours.command.clone().into(),
        Some(change) => {
            entry.set_entry_type(EntryType::EntryConfChange);
            entry.context = change_bytes(change, &ours.command).into();
        }
    }
    entry
}

/// Our form of an entry.
pub(super) fn ours_of(entry: &Entry) -> LogEntry {
    let (change, command) = match change_of(&entry.context) {
        Some((change, command)) if entry.get_entry_type() == EntryType::EntryConfChange => {
            (Some(change), command.to_vec())
        }
        _ => (None, entry.data.to_vec()),
    };
    LogEntry { index: entry.index, term: entry.term, change, command }
}

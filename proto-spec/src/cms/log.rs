//! The log: a stretch of entries in our own form, for hosts without a seat and on disk; and the form that Raft reads. What
//! is on disk is written by the host before anything that depends on it leaves.

use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use super::election::{LogEntry, SeatChange};
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};

/// Entries without a gap, from behind an index on: what stood before is in a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stretch {
    /// The index behind which it begins.
    pub after: u64,
    /// The term of the entry with that index.
    pub after_term: u64,
    /// The entries.
    pub entries: Vec<LogEntry>,
}

impl Stretch {
    /// Reads it from rows: the first entry that is there, unless it is the first of all or follows on what is known,
    /// only tells its term. `None` where there is a gap.
    pub fn of_rows(mut entries: Vec<LogEntry>, after: u64, after_term: u64) -> Option<Self> {
        let first = entries.first().map_or(after + 1, |entry| entry.index);
        let follows = first == after + 1 || first == 1;
        let stretch = match (follows, first == 1) {
            (_, true) => Self { after: 0, after_term: 0, entries },
            (true, _) => Self { after, after_term, entries },
            _ => {
                let base = entries.remove(0);
                Self { after: base.index, after_term: base.term, entries }
            }
        };
        (stretch.is_whole() && stretch.after <= after && stretch.last() >= after).then_some(stretch)
    }

    /// Whether no entry is missing.
    pub fn is_whole(&self) -> bool {
        self.entries.iter().zip(self.after + 1..).all(|(entry, index)| entry.index == index)
    }

    /// Index of the last entry.
    pub fn last(&self) -> u64 {
        self.entries.last().map_or(self.after, |entry| entry.index)
    }

    /// Term of the last entry.
    pub fn last_term(&self) -> u64 {
        self.entries.last().map_or(self.after_term, |entry| entry.term)
    }

    /// Term of the entry with this index, where it is here.
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.after {
            return Some(self.after_term);
        }
        let entry = self.entries.get(place(index, self.after)?)?;
        Some(entry.term)
    }

    /// Entries behind an index and up to another, as many as fit a page.
    pub fn page(&self, after: u64, newest: u64) -> Vec<LogEntry> {
        let mut bytes = 0;
        let fits = |entry: &&LogEntry| {
            bytes += entry.command.len();
            entry.index <= newest && bytes <= PAGE_BYTES_MAX
        };
        let begin = usize::try_from(after.saturating_sub(self.after)).unwrap_or(usize::MAX);
        self.entries.iter().skip(begin).take(PAGE_ENTRIES_MAX).take_while(fits).cloned().collect()
    }

    /// Forgets the entries up to an index.
    pub fn forget_through(&mut self, index: u64) {
        if let Some(term) = self.term(index) {
            self.entries.retain(|entry| entry.index > index);
            (self.after, self.after_term) = (index, term);
        }
    }

    /// Forgets the entries behind an index.
    pub fn truncate(&mut self, index: u64) {
        self.entries.retain(|entry| entry.index <= index);
    }

    /// What stands behind an index that a snapshot names, where this log has the entry that it names; else nothing.
    pub fn behind(mut self, record: u64, term: u64) -> Self {
        if self.term(record) == Some(term) {
            self.forget_through(record);
            return self;
        }
        Self { after: record, after_term: term, entries: Vec::new() }
    }
}

/// The place of an index among entries that begin behind another.
fn place(index: u64, after: u64) -> Option<usize> {
    usize::try_from(index.checked_sub(after)?.checked_sub(1)?).ok()
}

/// The log in the form that Raft reads.
pub(super) struct Log {
    after: u64,
    after_term: u64,
    entries: Vec<Entry>,
    hard: HardState,
    seats: ConfState,
}

impl Log {
    pub(super) fn new(stretch: &Stretch, hard: HardState, seats: ConfState) -> Self {
        let Stretch { after, after_term, entries } = stretch;
        let entries = entries.iter().map(entry_of).collect();
        Self { after: *after, after_term: *after_term, entries, hard, seats }
    }

    /// Takes entries in; what stood from the first one's index on is replaced.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let from = entries.first().and_then(|first| place(first.index, self.after));
        if let Some(from) = from {
            self.entries.truncate(from);
            self.entries.extend(entries);
        }
    }

    pub(super) fn set_hard(&mut self, hard: HardState) {
        self.hard = hard;
    }

    pub(super) fn set_seats(&mut self, seats: ConfState) {
        self.seats = seats;
    }

    /// Forgets the entries up to an index.
    pub(super) fn forget_through(&mut self, index: u64) {
        let Some(place) = place(index, self.after).filter(|place| *place < self.entries.len()) else { return };
        self.after_term = self.entries.get(place).map_or(self.after_term, |entry| entry.term);
        self.after = index;
        self.entries.drain(..=place);
    }

    /// All entries up to an index.
    pub(super) fn through(&self, index: u64) -> Stretch {
        let entries = self.entries.iter().take_while(|entry| entry.index <= index).map(ours_of).collect();
        Stretch { after: self.after, after_term: self.after_term, entries }
    }

    fn last(&self) -> u64 {
        self.entries.last().map_or(self.after, |entry| entry.index)
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
        let low = place(low, self.after).ok_or(Error::Store(StorageError::Compacted))?;
        let high = place(high, self.after).ok_or(Error::Store(StorageError::Compacted))?;
        let found = self.entries.get(low..high).ok_or(Error::Store(StorageError::Unavailable))?;
        // No message carries more: small entries would pass the bound on bytes by the thousand.
        let mut found: Vec<Entry> = found.iter().take(PAGE_ENTRIES_MAX).cloned().collect();
        raft::util::limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.after {
            return Ok(self.after_term);
        }
        let place = place(index, self.after).ok_or(Error::Store(StorageError::Compacted))?;
        self.entries.get(place).map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.after + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Only its name, the least that is missing: whoever is offered it pulls a state by itself, with the seats in it.
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.after == 0 {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (self.after, self.after_term);
        metadata.set_conf_state(self.seats.clone());
        Ok(snapshot)
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

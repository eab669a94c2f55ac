//! The newest snapshot goes to disk in slices; once all of it is there, the log behind it is cut.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Action, ActionId, Actions, Host, Lane, Report, Table, Write};
use crate::cms::records::Records;
use crate::cms::snapshot::Snapshot;
use crate::error::DecodeError;
use crate::header::SignedHeader;
use crate::limits::{ENTRY_MAX, PAGE_BYTES_MAX};
use crate::types::Now;
use crate::wire;

/// Key of the row that says which snapshot is whole.
const MARK: &[u8] = b"\xffwhole";

/// Which snapshot is whole on disk. Two slots are written in turn: a crash between leaves the last one as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedState {
    slot: u8,
    /// A header that names it: without one nobody would take it from this host.
    header: SignedHeader,
}

/// A snapshot that is on disk, to be shown to others.
pub(super) struct Kept {
    pub(super) saved: SavedState,
    pub(super) state: Arc<Records>,
}

impl SavedState {
    /// What is on disk says which snapshot is whole; nothing where none is.
    ///
    /// # Errors
    /// Where the row that says so does not read back.
    pub(super) fn read(saved: &[(Vec<u8>, Vec<u8>)]) -> Result<Option<Self>, DecodeError> {
        let mark = saved.iter().find(|(key, _)| key == MARK);
        mark.map(|(_, mark)| wire::decode(mark, ENTRY_MAX)).transpose()
    }

    /// Its rows, in order.
    pub(super) fn rows(&self, saved: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<Vec<u8>> {
        let count = usize::try_from(self.snapshot().rows).unwrap_or(usize::MAX);
        saved.into_iter().filter(|(key, _)| key.first() == Some(&self.slot)).map(|(_, row)| row).take(count).collect()
    }

    /// The snapshot.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.header.header.snapshot
    }

    /// The header that names it.
    pub(super) fn header(&self) -> &SignedHeader {
        &self.header
    }

    /// Takes the mark away.
    pub(super) fn erase() -> Write {
        Write { table: Table::State, key: MARK.to_vec(), value: None }
    }

    /// The slot in which it lies.
    pub(super) fn slot(&self) -> u8 {
        self.slot
    }

    fn write(&self) -> Write {
        Write { table: Table::State, key: MARK.to_vec(), value: Some(wire::encode(self)) }
    }
}

/// A snapshot on its way to disk.
pub(super) struct Saving {
    snapshot: Snapshot,
    state: Arc<Records>,
    /// A header that names it, once one is signed.
    header: Option<SignedHeader>,
    written: u64,
    waits_for: Option<ActionId>,
    /// It was pulled, and takes the place of the records once it is there.
    pub(super) installs: bool,
}

impl Host {
    /// Writes a state that was pulled, from its first row on.
    pub(super) fn save_pulled(&mut self, header: &SignedHeader, state: Arc<Records>) {
        let (snapshot, header) = (header.header.snapshot, Some(header.clone()));
        self.saving = Some(Saving { snapshot, state, header, written: 0, waits_for: None, installs: true });
    }

    /// Takes up the newest snapshot of the records, where it is neither on disk nor on its way.
    fn begin_saving(&mut self) {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.saved.snapshot().record);
        let Some((snapshot, state)) = self.ground.records.snapshot() else { return };
        // One that nobody signed a header for gives way to the next.
        let is_open = |saving: &Saving| saving.installs || saving.header.is_some() || saving.snapshot == snapshot;
        if snapshot.record > kept && !self.saving.as_ref().is_some_and(is_open) {
            let state = state.clone();
            self.saving = Some(Saving { snapshot, state, header: None, written: 0, waits_for: None, installs: false });
        }
    }

    /// Writes the next slice, once the one before is on disk; and not before it is said which slot is whole.
    pub(super) fn tick_saving(&mut self, now: Now, actions: &mut Actions) {
        self.begin_saving();
        let id = self.fresh_id();
        let slot = 1 - self.slot.min(1);
        if self.disk_failed || self.marking.is_some() {
            return;
        }
        let Some(saving) = self.saving.as_mut().filter(|saving| saving.waits_for.is_none()) else { return };
        let newest = self.header.as_ref().map(|(header, _)| header.signed());
        if let Some(header) = newest.filter(|header| header.header.snapshot == saving.snapshot) {
            saving.header.get_or_insert_with(|| header.clone());
        }
        if saving.written >= saving.snapshot.rows {
            return self.end_saving(now, slot, actions);
        }
        let rows = saving.state.page(saving.written, PAGE_BYTES_MAX);
        let write = |(number, row): (u64, Vec<u8>)| {
            let key = [[slot].as_slice(), &number.to_be_bytes()].concat();
            Write { table: Table::State, key, value: Some(row) }
        };
        let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        let writes = (saving.written..).zip(rows).map(write).collect();
        saving.written = saving.written.saturating_add(count.max(1));
        saving.waits_for = Some(id);
        actions.push(Action::Persist { lane: Lane::State, writes });
        actions.push(Action::Confirm { lane: Lane::State, id });
    }

    /// A slice is on disk, or which slot is whole.
    pub(super) fn slice_persisted(&mut self, id: ActionId) {
        self.marking.take_if(|marking| *marking == id);
        if let Some(saving) = self.saving.as_mut().filter(|saving| saving.waits_for == Some(id)) {
            saving.waits_for = None;
        }
    }

    /// All rows are on disk. The log is cut only where others could be shown what takes its place.
    fn end_saving(&mut self, now: Now, slot: u8, actions: &mut Actions) {
        let Some(header) = self.saving.as_ref().and_then(|saving| saving.header.clone()) else { return };
        let Some(Saving { state, installs, .. }) = self.saving.take() else { return };
        let kept = Kept { saved: SavedState { slot, header }, state };
        if installs {
            return self.install(now, kept, actions);
        }
        let through = self.ground.records.dispensable(&kept.saved.snapshot());
        self.keep_state(kept, through, Vec::new(), actions);
        match &mut self.seated {
            Some(seated) => seated.election.forget_through(through),
            None => self.log.forget_through(through),
        }
    }

    /// In one write: this snapshot is whole, and what of the log nobody needs is gone. The last entry that is cut off
    /// stays on disk, for its term.
    pub(super) fn keep_state(&mut self, kept: Kept, through: u64, mut writes: Vec<Write>, actions: &mut Actions) {
        writes.push(kept.saved.write());
        let gone = self.first_row..through.min(self.last_row + 1);
        writes.extend(gone.map(|index| Self::entry_row(index, None)));
        self.first_row = self.first_row.max(through);
        self.slot = kept.saved.slot;
        actions.push(Action::Report(Report::Snapshot(kept.saved.snapshot().record)));
        self.kept = Some(kept);
        self.mark(writes, actions);
    }

    /// Writes which slot is whole, or that none is: until that is on disk no row of the other may be touched.
    pub(super) fn mark(&mut self, writes: Vec<Write>, actions: &mut Actions) {
        let id = self.fresh_id();
        self.marking = Some(id);
        actions.push(Action::Persist { lane: Lane::Records, writes });
        actions.push(Action::Confirm { lane: Lane::Records, id });
    }
}

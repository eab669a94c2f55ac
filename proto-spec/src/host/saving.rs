//! The newest snapshot goes to disk in slices; once all of it is there, the log behind it is cut.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Action, ActionId, Actions, Host, Lane, Report, Table, Write};
use crate::cms::records::Records;
use crate::cms::snapshot::Snapshot;
use crate::error::DecodeError;
use crate::limits::{ENTRY_MAX, PAGE_BYTES_MAX};
use crate::types::Now;
use crate::wire;

/// Key of the row that says which snapshot is whole.
const MARK: &[u8] = b"\xffwhole";

/// Which snapshot is whole on disk. Two slots are written in turn: a crash between leaves the last one as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedState {
    slot: u8,
    snapshot: Snapshot,
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
        let count = usize::try_from(self.snapshot.rows).unwrap_or(usize::MAX);
        saved.into_iter().filter(|(key, _)| key.first() == Some(&self.slot)).map(|(_, row)| row).take(count).collect()
    }

    /// The snapshot.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.snapshot
    }

    /// Takes the mark away.
    pub(super) fn erase() -> Write {
        Write { table: Table::State, key: MARK.to_vec(), value: None }
    }

    fn write(&self) -> Write {
        Write { table: Table::State, key: MARK.to_vec(), value: Some(wire::encode(self)) }
    }
}

/// A snapshot on its way to disk.
pub(super) struct Saving {
    pub(super) snapshot: Snapshot,
    pub(super) state: Arc<Records>,
    slot: u8,
    written: u64,
    waits_for: Option<ActionId>,
    /// It was pulled, and takes the place of the records once it is there.
    pub(super) installs: bool,
}

impl Host {
    /// Writes a snapshot, from its first row on.
    pub(super) fn begin_saving(&mut self, snapshot: Snapshot, state: Arc<Records>, installs: bool) {
        let slot = self.saved.map_or(0, |saved| 1 - saved.slot.min(1));
        self.saving = Some(Saving { snapshot, state, slot, written: 0, waits_for: None, installs });
    }

    /// Writes the next slice, once the one before is on disk.
    pub(super) fn tick_saving(&mut self, now: Now, actions: &mut Actions) {
        if self.saving.is_none() {
            let kept = self.saved.map_or(0, |saved| saved.snapshot.record);
            let newest = self.ground.records.snapshot().filter(|(snapshot, _)| snapshot.record > kept);
            let Some((snapshot, state)) = newest.map(|(snapshot, state)| (snapshot, state.clone())) else { return };
            self.begin_saving(snapshot, state, false);
        }
        let id = self.fresh_id();
        let Some(saving) = self.saving.as_mut().filter(|saving| saving.waits_for.is_none() && !self.disk_failed) else {
            return;
        };
        let rows = saving.state.page(saving.written, PAGE_BYTES_MAX);
        if rows.is_empty() {
            return self.end_saving(now, actions);
        }
        let write = |(number, row): (u64, Vec<u8>)| {
            let key = [[saving.slot].as_slice(), &number.to_be_bytes()].concat();
            Write { table: Table::State, key, value: Some(row) }
        };
        let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        let writes = (saving.written..).zip(rows).map(write).collect();
        saving.written += count;
        saving.waits_for = Some(id);
        actions.push(Action::Persist { lane: Lane::State, writes });
        actions.push(Action::Confirm { lane: Lane::State, id });
    }

    /// A slice is on disk.
    pub(super) fn slice_persisted(&mut self, id: ActionId) {
        if let Some(saving) = self.saving.as_mut().filter(|saving| saving.waits_for == Some(id)) {
            saving.waits_for = None;
        }
    }

    fn end_saving(&mut self, now: Now, actions: &mut Actions) {
        let Some(saving) = self.saving.take() else { return };
        let saved = SavedState { slot: saving.slot, snapshot: saving.snapshot };
        if saving.installs {
            return self.install(now, saving, saved, actions);
        }
        let through = self.ground.records.dispensable(&saved.snapshot);
        self.keep_state(saved, through, Vec::new(), actions);
        match &mut self.seated {
            Some(seated) => seated.election.forget_through(through),
            None => self.log.forget_through(through),
        }
    }

    /// In one write: this snapshot is whole, and what of the log nobody needs is gone. The last entry that is cut off
    /// stays on disk, for its term.
    pub(super) fn keep_state(
        &mut self,
        saved: SavedState,
        through: u64,
        mut writes: Vec<Write>,
        actions: &mut Actions,
    ) {
        writes.push(saved.write());
        writes.extend((self.first_row..through).map(|index| Self::entry_row(index, None)));
        self.first_row = self.first_row.max(through);
        self.saved = Some(saved);
        actions.push(Action::Persist { lane: Lane::Records, writes });
        actions.push(Action::Report(Report::Snapshot(saved.snapshot.record)));
    }
}

//! A host as it was saved: what is on disk becomes a host again, or says why it cannot.

use std::sync::Arc;

use super::committee::RaftRow;
use super::gathering::FormingRow;
use super::own::Own;
use super::saving::{Kept, SavedState};
use super::{Config, Ground, Host, Identity, Membership, Saved};
use crate::beacon::{Calendar, Epochs};
use crate::cms::election::LogEntry;
use crate::cms::log::Stretch;
use crate::cms::records::Records;
use crate::holder::StoredShare;
use crate::limits::{ENTRY_MAX, HEAD_MAX, SSHSIG_MAX};
use crate::suite::{Seed, Suite};
use crate::types::{Digest, Now, TicketSerial, Time};
use crate::wire;

/// Why a host does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The identity's keys do not parse.
    #[error("the keys of this host do not parse")]
    Identity,
    /// The membership row does not read back.
    #[error("the membership does not read back")]
    Membership,
    /// The log has a gap, or its row of what a voter must not forget does not read back.
    #[error("the log does not read back")]
    Log,
    /// The snapshot of the records does not read back.
    #[error("the snapshot of the records does not read back")]
    State,
    /// This binary reads the newest version of the records and the one before: the mesh is at an older one.
    #[error("the records are two or more versions behind this binary; update by one version at a time")]
    Version,
    /// A share does not read back.
    #[error("a share does not read back")]
    Share,
}

/// Bound of one row of [`super::Table::Shares`].
const STORED_SHARE_MAX: usize = HEAD_MAX + SSHSIG_MAX + 8 * 1024;

impl Host {
    /// A host as it was saved.
    ///
    /// # Errors
    /// What does not read back.
    pub fn restore(
        config: Config,
        identity: Identity,
        suite: Arc<dyn Suite>,
        seed: &Seed,
        saved: Saved,
    ) -> Result<Self, RestoreError> {
        let own = Own::new(suite.as_ref(), identity).ok_or(RestoreError::Identity)?;
        let raft = saved.raft.map(|bytes| wire::decode::<RaftRow>(&bytes, ENTRY_MAX)).transpose();
        let raft = raft.map_err(|_| RestoreError::Log)?;
        let hard = raft.as_ref().map(|row| row.hard).unwrap_or_default();
        let (kept, mut records) = restore_state(suite.as_ref(), saved.state)?;
        let (first_row, log) = restore_log(&saved.records, &records)?;
        let outgrown = replay(suite.as_ref(), &mut records, &log, hard.commit, config.newest);
        if records.genesis().is_some() && records.protocol_version().saturating_add(1) < config.newest {
            return Err(RestoreError::Version);
        }
        let membership = saved
            .membership
            .map(|bytes| wire::decode::<Membership>(&bytes, ENTRY_MAX).map_err(|_| RestoreError::Membership))
            .transpose()?;
        let (floor, vouched) = super::epochs::restored(&saved.epoch);
        let calendar = records.genesis().map(|genesis| Calendar::of(genesis.genesis()));
        let ground = Ground { suite, records, epochs: Epochs::above(floor), calendar };
        let mut host = Self::empty(config, own, ground, seed);
        (host.membership, host.vouched) = (membership, vouched);
        host.restore_book();
        (host.first_row, host.last_row) = (first_row, log.last());
        host.log = log;
        host.slot = kept.as_ref().map_or(host.slot, |kept| kept.saved.slot());
        host.kept = kept;
        host.resting = saved.keys.into_iter().collect();
        host.tickets = saved.tickets.iter().filter_map(|(serial, digest)| ticket_of(serial, digest)).collect();
        host.restore_shares(saved.shares)?;
        host.load_share();
        // A seat under another id was lost with its hard state: this host must not vote as if it had not.
        let seat = host.ground.records.committee().and_then(|committee| committee.seat_of(&host.own.host));
        host.taken = raft.as_ref().map_or(0, |row| row.taken);
        if outgrown.is_none() && raft.is_some_and(|row| seat.is_some_and(|seat| seat.id == row.seat)) {
            host.take_seat(Now { monotonic: Time(0), wall_ms: 0 }, hard);
        } else {
            // What was not committed is Raft's alone.
            host.log.truncate(hard.commit);
        }
        outgrown.into_iter().for_each(|version| host.stop_at(version));
        if let Some(bytes) = saved.forming {
            let row: FormingRow = wire::decode(&bytes, ENTRY_MAX).map_err(|_| RestoreError::Membership)?;
            host.restore_forming(&row).ok_or(RestoreError::Membership)?;
        }
        Ok(host)
    }

    /// Where others are. What does not hold is of a mesh before this one.
    fn restore_book(&mut self) {
        let mesh = self.mesh();
        for word in self.membership.iter().flat_map(|membership| &membership.book) {
            let _left_out = self.book.take(self.ground.suite.as_ref(), &mesh, word);
        }
    }

    fn restore_shares(&mut self, shares: Vec<Vec<u8>>) -> Result<(), RestoreError> {
        // It may have dropped its records, and not have pulled them anew yet.
        let mesh = self.mesh();
        let (suite, records) = (self.ground.suite.as_ref(), &self.ground.records);
        for bytes in shares {
            let stored: StoredShare = wire::decode(&bytes, STORED_SHARE_MAX).map_err(|_| RestoreError::Share)?;
            self.holder.restore(suite, &mesh, records, stored).map_err(|_| RestoreError::Share)?;
        }
        Ok(())
    }
}

/// The state as it was saved, without what the log adds to it.
fn restore_state(suite: &dyn Suite, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(Option<Kept>, Records), RestoreError> {
    let Some(saved) = SavedState::read(&rows).map_err(|_| RestoreError::State)? else {
        return Ok((None, Records::default()));
    };
    let records = Records::of_rows(suite, &saved.rows(rows), &saved.snapshot()).ok_or(RestoreError::State)?;
    Ok((Some(Kept { saved, state: Arc::new(records.clone()) }), records))
}

/// The log that goes on where the state ends, and the index of its first row.
fn restore_log(rows: &[Vec<u8>], state: &Records) -> Result<(u64, Stretch), RestoreError> {
    let log = rows.iter().map(|bytes| wire::decode::<LogEntry>(bytes, ENTRY_MAX + 64));
    let log = log.collect::<Result<Vec<_>, _>>().map_err(|_| RestoreError::Log)?;
    let first = log.first().map_or(state.applied() + 1, |entry| entry.index);
    let log = Stretch::of_rows(log, state.applied(), state.term()).ok_or(RestoreError::Log)?;
    Ok((first, log))
}

/// Applies what is committed; gives the version at which this binary had to stop.
fn replay(suite: &dyn Suite, records: &mut Records, log: &Stretch, commit: u64, newest: u16) -> Option<u16> {
    let applied = records.applied();
    let committed = log.entries.iter().filter(|entry| entry.index > applied && entry.index <= commit);
    for entry in committed {
        let outgrown = records.raised_by(suite, entry).filter(|version| *version > newest);
        if outgrown.is_some() {
            return outgrown;
        }
        let _refused_by_all = records.apply(suite, entry);
    }
    None
}

/// A row of [`super::Table::Tickets`].
fn ticket_of(serial: &[u8], digest: &[u8]) -> Option<(TicketSerial, Digest)> {
    Some((TicketSerial::from_slice(serial)?, Digest::from_slice(digest)?))
}

//! Snapshots: the replicated state as rows in a fixed order, under a root that stands in every header. Whoever is too
//! far behind the log pulls the rows and checks them against what the mesh key signed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::committee::Committee;
use super::credentials::CredentialRow;
use super::groups::Group;
use super::records::{Founded, Records};
use crate::genesis::{GenesisVerified, SignedGenesis};
use crate::header::Header;
use crate::limits::{
    ENTRY_MAX, LOG_KEPT, SNAPSHOT_ENTRIES, STATE_PAGE_ROWS_MAX, STATE_ROWS_MAX, TESTNET_LOG_KEPT,
    TESTNET_SNAPSHOT_ENTRIES,
};
use crate::membership::{Admission, MemberRecord};
use crate::suite::Suite;
use crate::tree;
use crate::types::{Digest, HostId, Purpose, Round, TicketSerial};
use crate::wire;

/// Names the state as it stood behind a record: what a header says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Index of the record; 0 where there is no snapshot yet.
    pub record: u64,
    /// The term of that record.
    pub term: u64,
    /// Number of rows.
    pub rows: u64,
    /// Bytes of all rows together: a liar can make nobody keep more.
    pub bytes: u64,
    /// Root over the rows.
    pub root: Digest,
}

impl Default for Snapshot {
    /// There is none yet.
    fn default() -> Self {
        Self { record: 0, term: 0, rows: 0, bytes: 0, root: Digest::ZERO }
    }
}

/// One row of the state, in the order of the kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Row {
    /// What there is once.
    Base(Box<Base>),
    /// A member.
    Member {
        /// Its admission.
        admission: Admission,
        /// Whether it said that it leaves.
        leaving: bool,
        /// The number of its unlock.
        unlock: u64,
        /// The round since which it is.
        since: Round,
    },
    /// A host that left.
    Departed {
        /// Its record.
        record: MemberRecord,
        /// Index of the record by which it left.
        at: u64,
    },
    /// A ticket that was used.
    Ticket {
        /// Its serial.
        serial: TicketSerial,
        /// Whom it let in.
        host: HostId,
    },
    /// A group.
    Group(Group),
    /// A credential.
    Credential(Box<CredentialRow>),
    /// A head of the last hour.
    Made {
        /// Index of its record.
        record: u64,
        /// Round of the header before it.
        round: Round,
        /// Digest of the head.
        head: Digest,
    },
}

/// What of the state there is once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Base {
    pub(super) applied: u64,
    pub(super) term: u64,
    pub(super) root: Digest,
    pub(super) protocol_version: u16,
    pub(super) genesis: SignedGenesis,
    pub(super) committee: Committee,
    pub(super) headers: Vec<Header>,
    pub(super) before: Snapshot,
}

/// Rows that are to be passed over still.
pub(super) struct Skip(usize);

impl Skip {
    /// How many of a kind are passed over that has so many.
    pub(super) fn of(&mut self, rows: usize) -> usize {
        let skipped = self.0.min(rows);
        self.0 -= skipped;
        skipped
    }
}

/// Rows under the root that was named: whoever recorded them has checked what stands in them.
pub struct RowsProven(Vec<Row>);

impl RowsProven {
    /// Checks rows against their snapshot.
    fn check(rows: &[Vec<u8>], snapshot: &Snapshot) -> Option<Self> {
        let leaves: Vec<Digest> = rows.iter().map(|row| leaf(row)).collect();
        let bytes: u64 = rows.iter().map(|row| length(row)).sum();
        if bytes != snapshot.bytes || root(&leaves, bytes) != snapshot.root {
            return None;
        }
        let rows = rows.iter().map(|row| wire::decode::<Row>(row, ENTRY_MAX).ok());
        rows.collect::<Option<Vec<Row>>>().map(Self)
    }
}

fn length(row: &[u8]) -> u64 {
    u64::try_from(row.len()).unwrap_or(u64::MAX)
}

fn leaf(row: &[u8]) -> Digest {
    Purpose::StateRow.digest(&[row])
}

fn root(leaves: &[Digest], bytes: u64) -> Digest {
    let rows = u64::try_from(leaves.len()).unwrap_or(u64::MAX);
    Purpose::State.digest(&[&rows.to_be_bytes(), &bytes.to_be_bytes(), &tree::root(leaves).0])
}

impl Records {
    fn row_count(&self) -> u64 {
        let rows = 1 + self.members.row_count() + self.groups.len() + self.credentials.row_count();
        u64::try_from(rows).unwrap_or(u64::MAX)
    }

    /// The rows from this number on.
    fn rows_from(&self, number: u64) -> impl Iterator<Item = Row> {
        let mut skip = Skip(usize::try_from(number).unwrap_or(usize::MAX));
        let base = self.base().into_iter().skip(skip.of(1));
        let members = self.members.rows(&mut skip);
        let groups = self.groups.values().skip(skip.of(self.groups.len())).cloned().map(Row::Group);
        base.chain(members).chain(groups).chain(self.credentials.rows(&mut skip))
    }

    fn base(&self) -> Option<Row> {
        let founded = self.founded.as_ref()?;
        Some(Row::Base(Box::new(Base {
            applied: self.applied,
            term: self.term,
            root: self.root(),
            protocol_version: self.protocol_version,
            genesis: founded.genesis.signed().clone(),
            committee: founded.committee.clone(),
            headers: self.headers.clone(),
            before: self.snapshot,
        })))
    }

    /// Encoded rows from this number on, as many as fit a page or a write.
    pub fn page(&self, number: u64, bytes_max: usize) -> Vec<Vec<u8>> {
        let (mut page, mut bytes) = (Vec::new(), 0);
        for row in self.rows_from(number).take(STATE_PAGE_ROWS_MAX) {
            let row = wire::encode(&row);
            bytes += row.len();
            if bytes > bytes_max {
                break;
            }
            page.push(row);
        }
        page
    }

    /// Before a header is closed: where the log has grown long enough, the state as it stands is the next snapshot.
    /// Everybody takes it behind the same record.
    pub(super) fn take_snapshot(&mut self) {
        let since = self.applied.saturating_sub(self.snapshot.record);
        let (entries, _) = self.lengths();
        // No entry pays for more than four rows.
        if since < entries.max(self.row_count() / 4) {
            return;
        }
        let state = Self { frozen: None, ..self.clone() };
        let (mut leaves, mut bytes) = (Vec::new(), 0);
        for row in state.rows_from(0) {
            let row = wire::encode(&row);
            bytes += length(&row);
            leaves.push(leaf(&row));
        }
        let (record, term, rows) = (self.applied, self.term, self.row_count());
        self.snapshot = Snapshot { record, term, rows, bytes, root: root(&leaves, bytes) };
        self.frozen = Some(Arc::new(state));
    }

    /// Entries after which a snapshot is taken, and how many are kept behind it.
    fn lengths(&self) -> (u64, u64) {
        if self.is_testnet() { (TESTNET_SNAPSHOT_ENTRIES, TESTNET_LOG_KEPT) } else { (SNAPSHOT_ENTRIES, LOG_KEPT) }
    }

    /// Index of the newest entry that nobody needs once this snapshot is kept: who is a little behind gets entries, not
    /// the state.
    pub fn dispensable(&self, snapshot: &Snapshot) -> u64 {
        snapshot.record.saturating_sub(self.lengths().1)
    }

    /// The newest snapshot, and the state that it names.
    pub fn snapshot(&self) -> Option<(Snapshot, &Arc<Self>)> {
        self.frozen.as_ref().map(|frozen| (self.snapshot, frozen))
    }

    /// The state from its rows: `None` unless they are those that the snapshot names.
    pub fn of_rows(suite: &dyn Suite, rows: &[Vec<u8>], snapshot: &Snapshot) -> Option<Self> {
        let proven = RowsProven::check(rows, snapshot)?;
        let mut state = Self::default();
        for row in &proven.0 {
            state.take_row(suite, row, &proven)?;
        }
        // The order of the rows, too, is that which this state gives.
        let same =
            state.row_count() == snapshot.rows && (state.applied, state.term) == (snapshot.record, snapshot.term);
        same.then_some(state)
    }

    fn take_row(&mut self, suite: &dyn Suite, row: &Row, proven: &RowsProven) -> Option<()> {
        match row {
            Row::Base(base) => {
                let genesis = GenesisVerified::check(suite, &base.genesis).ok()?;
                let committee = base.committee.clone();
                let mesh_key = committee.key.mesh_key();
                self.founded = Some(Founded { genesis, committee, mesh_key });
                (self.applied, self.term, self.root) = (base.applied, base.term, Some(base.root));
                self.protocol_version = base.protocol_version;
                self.headers.clone_from(&base.headers);
                self.snapshot = base.before;
            }
            Row::Member { .. } | Row::Departed { .. } | Row::Ticket { .. } => {
                let founded = self.founded.as_ref()?;
                self.members.take_row(suite, founded.genesis.mesh(), &founded.mesh_key, row)?;
            }
            Row::Group(group) => {
                self.groups.insert(group.id, group.clone());
            }
            Row::Credential(_) | Row::Made { .. } => self.credentials.take_row(row, proven)?,
        }
        Some(())
    }
}

impl Snapshot {
    /// Whether it is within what a state may ever be: what is pulled for it is bounded by what it says.
    pub fn within_bounds(&self) -> bool {
        let most = self.rows.saturating_mul(u64::try_from(ENTRY_MAX).unwrap_or(u64::MAX));
        self.record > 0 && self.rows > 0 && self.rows <= STATE_ROWS_MAX && self.bytes <= most
    }
}

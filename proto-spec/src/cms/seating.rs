//! Who sits, under the mesh key: for whoever missed the record that says so, and for whom the word of one voter is not
//! enough.

use serde::{Deserialize, Serialize};

use super::committee::{Committee, Seat, digest_of};
use super::members::MemberProof;
use super::records::Records;
use crate::header::{HeaderVerified, SignedHeader};
use crate::suite::{MeshKey, Suite};
use crate::types::{Digest, HostId, MeshId, TransportKey};

/// The seats that a header covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seating {
    /// The header.
    pub header: SignedHeader,
    /// All seats; at most [`crate::limits::COMMITTEE_MAX`] and one that follows.
    pub seats: Vec<Seat>,
    /// Digest of the shares that sign, which the header covers too.
    pub key: Digest,
}

impl Seating {
    /// The seats now, where this header covers them.
    pub fn under(header: &SignedHeader, committee: &Committee) -> Option<Self> {
        let covered = header.header.committee == committee.digest();
        covered.then(|| Self { header: header.clone(), seats: committee.seats.clone(), key: committee.key.digest() })
    }

    /// Whether this seat is among them.
    pub fn has(&self, id: u64) -> bool {
        self.seats.iter().any(|seat| seat.id == id)
    }

    /// The seat of a host.
    pub fn seat_of(&self, host: &HostId) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.host == *host && seat.lost.is_none())
    }

    /// Whether the mesh key signed it behind an index.
    fn holds_behind(&self, suite: &dyn Suite, mesh: &MeshId, key: &MeshKey, index: u64) -> bool {
        self.header.header.record > index
            && self.header.header.committee == digest_of(&self.seats, &self.key)
            && HeaderVerified::check(suite, mesh, key, &self.header).is_some()
    }

    /// Whether it proves that a seat which stood at an index was given up behind it. Ids are given once, so an old
    /// header proves it as well as a new one.
    pub fn proves_gone(&self, suite: &dyn Suite, mesh: &MeshId, key: &MeshKey, id: u64, index: u64) -> bool {
        !self.has(id) && self.holds_behind(suite, mesh, key, index)
    }
}

/// A host's own seat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeatProof {
    /// The seats, its own among them.
    pub seating: Seating,
    /// The host as a member under the same header: its keys are those that it has now.
    pub member: MemberProof,
}

/// A seat that the mesh key speaks of and the records here do not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatProven {
    id: u64,
    transport: TransportKey,
    record: u64,
}

impl SeatProof {
    /// Whether it is of this seat.
    pub fn is_of(&self, id: u64) -> bool {
        self.seating.seat_of(&self.member.record.host).is_some_and(|seat| seat.id == id)
    }

    /// Shows a host's seat, where this header covers the committee and the members as they are now.
    pub fn under(header: &SignedHeader, mesh: &MeshId, records: &Records, host: &HostId) -> Option<Self> {
        let seating = Seating::under(header, records.committee()?)?;
        seating.seat_of(host)?;
        let member = records.roll().prove(mesh, host)?;
        member.holds(mesh, &header.header.member_root).then_some(Self { seating, member })
    }

    /// Checks it where the records stand at an index: what is older they know better.
    pub fn check(&self, suite: &dyn Suite, mesh: &MeshId, key: &MeshKey, index: u64) -> Option<SeatProven> {
        let seat = self.seating.seat_of(&self.member.record.host)?;
        let header = &self.seating.header.header;
        let holds = self.member.holds(mesh, &header.member_root) && self.seating.holds_behind(suite, mesh, key, index);
        holds.then_some(SeatProven { id: seat.id, transport: self.member.record.transport, record: header.record })
    }
}

impl SeatProven {
    /// The seat's Raft id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The transport key of who sits there.
    pub fn transport(&self) -> &TransportKey {
        &self.transport
    }

    /// Index of the record that the header closes: records that come so far know the seat, or that it is gone.
    pub fn record(&self) -> u64 {
        self.record
    }
}

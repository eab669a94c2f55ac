//! Seats that one side of a ballot does not know. Records reach a voter by Raft, and Raft by those whose seats are
//! recorded: who missed a seat's record hears nothing of whoever sits there, and who missed its own end votes for ever.
//! Each shows the other what the mesh key says.

use std::collections::BTreeMap;

use super::{Actions, Host, Lane};
use crate::cms::election::Ballot;
use crate::cms::seating::{SeatProof, Seating};
use crate::limits::COMMITTEE_MAX;
use crate::types::{Now, TransportKey};
use crate::wire::Message;

/// Seats that the mesh key speaks of and this voter's records do not yet: transport key → Raft id, and the record that
/// knows better.
#[derive(Default)]
pub(super) struct Newcomers(BTreeMap<TransportKey, (u64, u64)>);

impl Newcomers {
    fn id_of(&self, transport: &TransportKey) -> Option<u64> {
        self.0.get(transport).map(|(id, _)| *id)
    }

    fn transport_of(&self, id: u64) -> Option<TransportKey> {
        self.0.iter().find(|(_, (other, _))| *other == id).map(|(transport, _)| *transport)
    }
}

impl Host {
    /// The Raft id under which this key votes: as the records say, or as the mesh key says before they do.
    pub(super) fn seat_id_of(&self, transport: &TransportKey) -> Option<u64> {
        let records = &self.ground.records;
        let host = records.member_by_transport(transport).map(|member| member.record().host);
        let recorded = host.and_then(|host| records.committee()?.seat_of(&host)).map(|seat| seat.id);
        recorded.or_else(|| self.seated.as_ref()?.newcomers.id_of(transport))
    }

    /// Who votes under a Raft id.
    pub(super) fn transport_of_seat(&self, id: u64) -> Option<TransportKey> {
        let records = &self.ground.records;
        let host = records.committee().and_then(|committee| committee.host_of(id));
        let recorded = host.and_then(|host| records.member(host)).map(|member| member.record().transport);
        recorded.or_else(|| self.seated.as_ref()?.newcomers.transport_of(id))
    }

    /// A header came: what it says of the seats can be shown from here on, as long as these records have it so.
    pub(super) fn keep_seating(&mut self) {
        let (Some((header, _)), Some(mesh)) = (&self.header, self.ground.records.mesh()) else { return };
        if self.seated.is_none() {
            return;
        }
        let (header, records) = (header.signed(), &self.ground.records);
        let Some(seating) = records.committee().and_then(|committee| Seating::under(header, committee)) else { return };
        self.seating = Some(seating);
        // A path over all members: anew only where one of the two roots is.
        let roots =
            |proof: &SeatProof| (proof.seating.header.header.committee, proof.seating.header.header.member_root);
        let known = self.own_seat.as_ref().map(roots);
        if known != Some((header.header.committee, header.header.member_root)) {
            self.own_seat = SeatProof::under(header, mesh, records, &self.own.host);
        }
    }

    /// Somebody votes under a seat that is not recorded here: it may have missed the record by which it lost it, or this
    /// host the one that gave it.
    pub(super) fn show_seats(&self, to: TransportKey, ballot: &Ballot, actions: &mut Actions) {
        if let Some(seating) = self.seating.as_ref().filter(|seating| !seating.has(ballot.from)) {
            self.send(Lane::Records, to, Message::Unseated(Box::new(seating.clone())), actions);
        }
        self.send(Lane::Direct, to, Message::SeatPull, actions);
    }

    /// A voter does not know this host's seat.
    pub(super) fn on_seat_pull(&self, from: TransportKey, actions: &mut Actions) {
        if let Some(proof) = self.seated.as_ref().and(self.own_seat.as_ref()) {
            self.send(Lane::Direct, from, Message::SeatProof(Box::new(proof.clone())), actions);
        }
    }

    /// The mesh key says that somebody has a seat, given by a record that is not here yet.
    pub(super) fn on_seat_proof(&mut self, from: TransportKey, proof: &SeatProof) {
        let (records, suite) = (&self.ground.records, self.ground.suite.as_ref());
        let applied = records.applied();
        let (Some(seated), Some((mesh, key))) = (&mut self.seated, records.mesh().zip(records.mesh_key())) else {
            return;
        };
        let Some(proven) = proof.check(suite, mesh, &key, applied) else { return };
        seated.newcomers.0.retain(|_, (_, record)| *record > applied);
        if *proven.transport() == from && seated.newcomers.0.len() < COMMITTEE_MAX {
            seated.newcomers.0.insert(from, (proven.id(), proven.record()));
        }
    }

    /// The mesh key says that this host's seat was given up while it did not hear: it follows from here on.
    pub(super) fn on_unseated(&mut self, now: Now, seating: &Seating, actions: &mut Actions) {
        let (records, suite) = (&self.ground.records, self.ground.suite.as_ref());
        let Some(id) = self.seated.as_ref().map(|seated| seated.election.id()) else { return };
        let Some((mesh, key)) = records.mesh().zip(records.mesh_key()) else { return };
        if seating.proves_gone(suite, mesh, &key, id, records.applied()) {
            self.give_up_seat(now, actions);
        }
    }
}

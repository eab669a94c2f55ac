//! Seats that one side of a ballot does not know. Records reach a voter by Raft, and Raft by those whose seats are
//! recorded: who missed a seat's record hears nothing of whoever sits there, and who missed its own end votes for ever.
//! Each shows the other what the mesh key says.

use std::collections::BTreeMap;

use super::{Action, Actions, Host, Lane, Membership};
use crate::budget::Budget;
use crate::cms::election::Ballot;
use crate::cms::seating::{SeatProof, SeatProven, Seating};
use crate::limits::{COMMITTEE_MAX, SEAT_ASK_MS, SEATS_ASKED_MAX};
use crate::types::{Now, Time, TransportKey};
use crate::wire::Message;

/// Seats that the mesh key speaks of and this voter's records do not yet.
#[derive(Default)]
pub(super) struct Newcomers {
    proven: Vec<SeatProven>,
    /// Who was asked for a proof, when, and whether it is awaited still.
    asked: BTreeMap<TransportKey, (Time, bool)>,
    /// For what others say of this voter's seat.
    budget: Budget,
}

impl Newcomers {
    /// Those of which records that stand at an index say nothing yet.
    fn ahead_of(&self, applied: u64) -> impl Iterator<Item = &SeatProven> {
        self.proven.iter().filter(move |one| one.record() > applied)
    }

    /// Takes a proof in. Of several the one under the newest header knows whose seat is gone.
    fn take(&mut self, proven: SeatProven, seating: &Seating, applied: u64) {
        let is_older = |one: &SeatProven| one.record() < proven.record();
        let same = |one: &SeatProven| one.id() == proven.id() || one.transport() == proven.transport();
        if self.proven.iter().any(|one| same(one) && !is_older(one)) {
            return;
        }
        self.proven.retain(|one| one.record() > applied && !same(one) && (!is_older(one) || seating.has(one.id())));
        if self.proven.len() < COMMITTEE_MAX {
            self.proven.push(proven);
        }
    }

    /// Whether this key is to be asked now: not with each of its ballots.
    fn may_ask(&mut self, now: Now, key: TransportKey) -> bool {
        self.asked.retain(|_, (at, _)| now.monotonic < at.plus(SEAT_ASK_MS));
        let is_new = !self.asked.contains_key(&key) && self.asked.len() < SEATS_ASKED_MAX;
        if is_new {
            self.asked.insert(key, (now.monotonic, true));
        }
        is_new
    }

    /// Whether a proof of this key is awaited: one for each question.
    fn expects(&mut self, key: &TransportKey) -> bool {
        self.asked.get_mut(key).is_some_and(|(_, awaited)| std::mem::take(awaited))
    }
}

impl Host {
    /// The Raft id under which this key votes: as the mesh key says, where that is ahead of the records, or as they say.
    pub(super) fn seat_id_of(&self, transport: &TransportKey) -> Option<u64> {
        let records = &self.ground.records;
        let newer = self.newcomers().find(|one| one.transport() == transport).map(SeatProven::id);
        let host = records.member_by_transport(transport).map(|member| member.record().host);
        newer.or_else(|| Some(records.committee()?.seat_of(&host?)?.id))
    }

    /// Who votes under a Raft id.
    pub(super) fn transport_of_seat(&self, id: u64) -> Option<TransportKey> {
        let records = &self.ground.records;
        let newer = self.newcomers().find(|one| one.id() == id).map(|one| *one.transport());
        let host = records.committee().and_then(|committee| committee.host_of(id));
        newer.or_else(|| Some(records.member(host?)?.record().transport))
    }

    fn newcomers(&self) -> impl Iterator<Item = &SeatProven> {
        let applied = self.ground.records.applied();
        self.seated.iter().flat_map(move |seated| seated.newcomers.ahead_of(applied))
    }

    /// A header came, or a seat: what it says of the seats can be shown from here on. The proof of this host's own is
    /// kept, also over a restart, until there is a newer one: a seat has one id, and an old header proves it as well.
    pub(super) fn keep_seating(&mut self, actions: &mut Actions) {
        let Some((header, _)) = &self.header else { return };
        let (header, records) = (header.signed(), &self.ground.records);
        let Some((mesh, committee)) = records.mesh().zip(records.committee()) else { return };
        let Some(seating) = Seating::under(header, committee) else { return };
        self.seating = Some(seating);
        let (Some(membership), Some(seated)) = (&self.membership, &self.seated) else { return };
        let id = seated.election.id();
        if membership.seat.as_ref().is_some_and(|proof| proof.is_of(id)) {
            return;
        }
        let proof = SeatProof::under(header, mesh, records, &self.own.host).filter(|proof| proof.is_of(id));
        if let Some(proof) = proof {
            let row = self.remember(Membership { seat: Some(Box::new(proof)), ..membership.clone() });
            actions.push(Action::Persist { lane: Lane::Records, writes: vec![row] });
        }
    }

    /// Somebody votes under a seat that is not recorded here: it may have missed the record by which it lost it, or this
    /// host the one that gave it.
    pub(super) fn show_seats(&mut self, now: Now, to: TransportKey, ballot: &Ballot, actions: &mut Actions) {
        if !self.seated.as_mut().is_some_and(|seated| seated.newcomers.may_ask(now, to)) {
            return;
        }
        if let Some(seating) = self.seating.as_ref().filter(|seating| !seating.has(ballot.from)) {
            self.send(Lane::Records, to, Message::Unseated(Box::new(seating.clone())), actions);
        }
        self.send(Lane::Direct, to, Message::SeatPull, actions);
    }

    /// A voter does not know this host's seat.
    pub(super) fn on_seat_pull(&self, from: TransportKey, actions: &mut Actions) {
        let proof = self.membership.as_ref().and_then(|membership| membership.seat.as_ref());
        let (Some(proof), Some(seated)) = (proof, &self.seated) else { return };
        if proof.is_of(seated.election.id()) {
            self.send(Lane::Direct, from, Message::SeatProof(proof.clone()), actions);
        }
    }

    /// The mesh key says that somebody has a seat, given by a record that is not here yet.
    pub(super) fn on_seat_proof(&mut self, from: TransportKey, proof: &SeatProof) {
        let (records, suite) = (&self.ground.records, self.ground.suite.as_ref());
        let applied = records.applied();
        let (Some(seated), Some((mesh, key))) = (&mut self.seated, records.mesh().zip(records.mesh_key())) else {
            return;
        };
        // One proof for one question: whoever is not asked buys no work.
        if !seated.newcomers.expects(&from) {
            return;
        }
        let proven = proof.check(suite, mesh, &key, applied).filter(|proven| *proven.transport() == from);
        if let Some(proven) = proven {
            seated.newcomers.take(proven, &proof.seating, applied);
        }
    }

    /// The mesh key says that this host's seat was given up while it did not hear: it follows from here on.
    pub(super) fn on_unseated(&mut self, now: Now, seating: &Seating, actions: &mut Actions) {
        let (records, suite) = (&self.ground.records, self.ground.suite.as_ref());
        let Some(id) = self.seated.as_ref().map(|seated| seated.election.id()) else { return };
        let Some((mesh, key)) = records.mesh().zip(records.mesh_key()) else { return };
        let applied = records.applied();
        // Anybody may send this, and may be somebody of whom this voter has not heard: of what does not hold a few a second
        // are checked.
        let may_check = self.seated.as_mut().is_some_and(|seated| seated.newcomers.budget.allows(now.monotonic));
        if !may_check {
            return;
        }
        if seating.proves_gone(suite, mesh, &key, id, applied) {
            self.give_up_seat(now, actions);
        } else if let Some(seated) = &mut self.seated {
            seated.newcomers.budget.failed();
        }
    }
}

//! As the leader: who sits next, and when the mesh key moves. One change at a time: seat → promote → deal → activate →
//! unseat; each step is a record, so that the next leader goes on where this one stopped.

use std::collections::BTreeMap;

use super::committee::Then;
use super::{Actions, Host};
use crate::cms::committee::{FOUNDERS, Seat, Step, next_seat, wanted};
use crate::cms::records::Command;
use crate::limits::{ABSENT_EPOCHS, SEAT_NEAR, SEATS_MS};
use crate::membership::{Member, MemberRecord, Role};
use crate::types::{HostId, Now, Time};

/// What a leader watches.
#[derive(Default)]
pub(super) struct Watch {
    /// When it looks again.
    pub(super) look_at: Option<Time>,
    /// Seated hosts without current evidence, and since when: as long as this host has led.
    absent: BTreeMap<HostId, Time>,
}

impl Host {
    /// Looks what the committee wants next.
    pub(super) fn tick_seats(&mut self, now: Now, actions: &mut Actions) {
        if !self.leads() {
            self.watch = Watch::default();
            return;
        }
        if self.watch.look_at.is_some_and(|at| now.monotonic < at) {
            return;
        }
        self.watch.look_at = Some(now.monotonic.plus(SEATS_MS));
        self.note_absent(now);
        if let Some(step) = self.next_step(now) {
            // Another step may be on its way: the records take one of them.
            let _not_leading = self.propose(now, &Command::Committee(step), Then::Nothing, actions);
        }
    }

    fn note_absent(&mut self, now: Now) {
        let Some(view) = self.ground.view(now, self.header.as_ref()) else { return };
        // Without an epoch of its own this host cannot tell who is absent.
        if view.epochs.current(view.calendar, now).is_none() {
            return self.watch.absent.clear();
        }
        let seats = view.records.committee().map(|committee| committee.seats.as_slice()).unwrap_or_default();
        let gone: Vec<HostId> =
            seats.iter().map(|seat| seat.host).filter(|host| !self.coordinator.stands(view, host)).collect();
        self.watch.absent.retain(|host, _| gone.contains(host));
        for host in gone {
            self.watch.absent.entry(host).or_insert(now.monotonic);
        }
    }

    fn is_long_gone(&self, now: Now, host: &HostId) -> bool {
        let grace = self.ground.calendar.map_or(u64::MAX, |calendar| calendar.epoch_ms().saturating_mul(ABSENT_EPOCHS));
        self.watch.absent.get(host).is_some_and(|since| now.monotonic >= since.plus(grace))
    }

    fn next_step(&self, now: Now) -> Option<Step> {
        let view = self.view(now)?;
        let committee = view.records.committee()?;
        if let Some(ceremony) = &committee.dealing {
            return self.end_of_dealing(now, view, ceremony);
        }
        if let Some(learner) = committee.seats.iter().find(|seat| !seat.votes) {
            return self.step_of_learner(now, learner);
        }
        let is_leaving = |host: &HostId| *host != self.own.host && self.is_long_gone(now, host);
        let staying: Vec<HostId> = committee.voters().into_iter().filter(|host| !is_leaving(host)).collect();
        let hosts = || view.records.members().map(Member::record).filter(|record| record.role == Role::Host);
        let wanted = wanted(hosts().count());
        if staying.len() < wanted {
            let seated: Vec<&MemberRecord> = hosts().filter(|r| committee.seat_of(&r.host).is_some()).collect();
            let standing = hosts().filter(|record| self.coordinator.may_hold(view, &record.host));
            let next = next_seat(&seated, standing)?;
            return Some(Step::Seat { host: next.host, id: committee.next_id });
        }
        let all_stand = staying.iter().all(|host| self.coordinator.stands(view, host));
        if staying != committee.key.holders && staying.len() >= FOUNDERS && all_stand {
            return Some(Step::Redeal(committee.next_dealing(staying)));
        }
        let gone = |seat: &&Seat| is_leaving(&seat.host) && committee.key.index_of(&seat.host).is_none();
        committee.seats.iter().find(gone).map(|seat| Step::Unseat { id: seat.id })
    }

    /// A learner votes once it has the log nearly to its end; one that went away is let go.
    fn step_of_learner(&self, now: Now, learner: &Seat) -> Option<Step> {
        let election = &self.seated.as_ref()?.election;
        let matched = election.matched().into_iter().find(|(id, _)| *id == learner.id).map_or(0, |(_, index)| index);
        if matched.saturating_add(SEAT_NEAR) >= election.last_index() {
            return Some(Step::Promote { id: learner.id });
        }
        self.is_long_gone(now, &learner.host).then_some(Step::Unseat { id: learner.id })
    }

    /// Seats changed: this host may have got one, or lost its own.
    pub(super) fn follow_seats(&mut self, now: Now) {
        let has_seat = self.ground.records.committee().is_some_and(|c| c.seat_of(&self.own.host).is_some());
        if !has_seat && let Some(seated) = self.seated.take() {
            self.log = seated.election.entries(self.ground.records.applied());
            self.pull_at = now.monotonic;
        }
    }

    /// Whether the records give this host a seat that it has not taken.
    pub(super) fn has_new_seat(&self) -> Option<u64> {
        let seat = self.ground.records.committee()?.seat_of(&self.own.host)?;
        self.seated.is_none().then_some(seat.id)
    }
}

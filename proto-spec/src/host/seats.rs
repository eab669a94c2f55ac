//! As the leader: who sits next, and when the mesh key moves. One change at a time: seat → promote → deal → activate →
//! unseat; each step is a record, so that the next leader goes on where this one stopped.

use std::collections::{BTreeMap, BTreeSet};

use super::committee::{RaftRow, Seated, Then};
use super::{Action, Actions, Host, Lane};
use crate::cms::command::Command;
use crate::cms::committee::{Committee, FOUNDERS, Seat, Step, next_seat};
use crate::cms::election::Hard;
use crate::limits::{
    ABSENT_MS, COMMITTEE_MAX, MUTE_MS, REDEAL_EPOCHS, SEAT_NEAR, SEATS_MS, TESTNET_ABSENT_EPOCHS,
    TESTNET_REDEAL_EPOCHS, UNFIT_EPOCHS, WRITE_STALLED_MS,
};
use crate::membership::{Member, MemberRecord};
use crate::types::{Digest, HostId, Now, Time};
use crate::view::View;

/// What a leader watches.
#[derive(Default)]
pub(super) struct Watch {
    /// When it looks again.
    pub(super) look_at: Option<Time>,
    /// Seated hosts without current evidence, or that do not vote, and since when: as long as this host has led.
    absent: BTreeMap<HostId, Time>,
    /// Receivers through whom a dealing had to be given up since this host leads: the next ones do without them.
    mute: BTreeMap<HostId, Mute>,
    /// The dealing that was given up last.
    given_up: Option<Digest>,
    /// Hosts that were given a seat since this host leads and never followed the log: others come first.
    idle: BTreeSet<HostId>,
    /// Since when this host leads and does not stand itself.
    unfit: Option<Time>,
}

/// A receiver without whom dealings are begun for a while.
struct Mute {
    until: Time,
    times: u32,
}

impl Mute {
    /// One more dealing was given up through it: it is left out twice as long as the last time. A host that was starting
    /// gets its share a few minutes later; one that lies holds up ever fewer dealings, though it come and go.
    fn again(before: Option<&Self>, now: Time) -> Self {
        let times = before.map_or(0, |mute| mute.times.saturating_add(1));
        let doubled = 1_u64.checked_shl(times).unwrap_or(u64::MAX);
        Self { until: now.plus(MUTE_MS.saturating_mul(doubled)), times }
    }
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
        self.coordinator.silent = self.silent_seats(now);
        self.note_absent(now);
        self.hand_lead_on(now);
        // While the lead was being handed on nothing could be proposed; where nobody took it, this is the next try. Not
        // while one is under way: a slow disk would only get more to write.
        if self.seated.as_ref().is_some_and(|seated| !seated.is_closing()) {
            self.close_round(now, actions);
        }
        self.let_go(now, actions);
        self.raise_version(now, actions);
        if let Some(step) = self.next_step(now) {
            self.blame(now, &step);
            // Another step may be on its way: the records take one of them.
            let _not_leading = self.propose(now, &Command::Committee(step), Then::Nothing, actions);
        }
    }

    /// Through whom a step is needed at all: others come first from now on.
    fn blame(&mut self, now: Now, step: &Step) {
        let Some(committee) = self.ground.records.committee() else { return };
        match step {
            // Once for each dealing: that it is given up is proposed until it is recorded.
            Step::Abort { ceremony } if self.watch.given_up != Some(*ceremony) => {
                self.watch.given_up = Some(*ceremony);
                let needed = usize::from(committee.key.t);
                let mute = self.redealing.as_ref().map(|redealing| redealing.mute(needed)).unwrap_or_default();
                for host in mute {
                    let marked = Mute::again(self.watch.mute.get(&host), now.monotonic);
                    self.watch.mute.insert(host, marked);
                }
            }
            Step::Unseat { id } => {
                let learner = committee.seats.iter().find(|seat| seat.id == *id && !seat.votes);
                self.watch.idle.extend(learner.map(|seat| seat.host));
            }
            _ => {}
        }
    }

    fn note_absent(&mut self, now: Now) {
        let Some(view) = self.ground.view(now, self.header.as_ref()) else { return };
        // Without an epoch of its own this host cannot tell who is absent.
        if view.epochs.current(view.calendar, now).is_none() {
            return self.watch.absent.clear();
        }
        let seats = view.records.committee().map(|committee| committee.seats.as_slice()).unwrap_or_default();
        // Evidence without a vote is no seat that is filled.
        let is_gone = |host: &HostId| !self.coordinator.stands(view, host) || self.coordinator.silent.contains(host);
        let gone: Vec<HostId> = seats.iter().map(|seat| seat.host).filter(is_gone).collect();
        self.watch.absent.retain(|host, _| gone.contains(host));
        for host in gone {
            self.watch.absent.entry(host).or_insert(now.monotonic);
        }
    }

    fn is_long_gone(&self, now: Now, host: &HostId) -> bool {
        let epoch_ms = self.ground.calendar.map_or(u64::MAX, |calendar| calendar.epoch_ms());
        let testnet_ms = epoch_ms.saturating_mul(TESTNET_ABSENT_EPOCHS);
        let grace = if self.ground.records.is_testnet() { testnet_ms } else { ABSENT_MS };
        self.watch.absent.get(host).is_some_and(|since| now.monotonic >= since.plus(grace))
    }

    /// What comes next: of what is to be done the first that the records take, since what they refuse must not stand before
    /// the rest for ever.
    fn next_step(&self, now: Now) -> Option<Step> {
        let view = self.view(now)?;
        let committee = view.records.committee()?;
        if let Some(ceremony) = &committee.dealing {
            return self.end_of_dealing(now, view, ceremony);
        }
        if let Some(learner) = committee.seats.iter().find(|seat| !seat.votes) {
            return self.step_of_learner(now, learner);
        }
        let keep = self.keeping(now, view, committee);
        let receivers = self.receivers(now, view, committee, &keep);
        let unseat = |seat: &Seat| Step::Unseat { id: seat.id };
        // Where it holds no share and is not wanted it makes a majority harder to find, and nothing else.
        let is_gone = |seat: &&Seat| {
            let stays = keep.contains(&seat.host) || receivers.contains(&seat.host);
            (seat.lost.is_some() || !stays) && !committee.may_sign(seat)
        };
        let seat = |host: HostId| Step::Seat { host, id: committee.next_id };
        let mut steps: Vec<Step> = committee.seats.iter().filter(is_gone).map(unseat).collect();
        steps.extend(self.newcomer(now, view, &keep, false).map(seat));
        steps.extend(self.moving(now, view, &keep, receivers));
        // Whoever had a seat and never took it comes behind all that can be done without it.
        steps.extend(self.newcomer(now, view, &keep, true).map(seat));
        steps.into_iter().find(|step| view.records.takes(view.suite, step))
    }

    /// The mesh key moves. Where it may not move to these, since the hosts of a few domains could sign, another host must come
    /// first; and whoever votes in vain without a share goes again: nothing is to depend on it.
    fn moving(&self, now: Now, view: View<'_>, keep: &[HostId], receivers: Vec<HostId>) -> Option<Step> {
        let committee = view.records.committee()?;
        let all_stand = receivers.iter().all(|host| self.coordinator.stands(view, host));
        let changes = receivers != committee.key.holders || has_lost_share(committee);
        let moves = changes && self.may_move(view, committee, keep);
        if !(moves || is_old(view, committee)) || receivers.len() < FOUNDERS || !all_stand {
            return None;
        }
        let ceremony = committee.next_dealing(receivers);
        if view.records.stays_spread(&ceremony) {
            return Some(Step::Redeal(ceremony));
        }
        let has_none = |seat: &&Seat| seat.host != self.own.host && committee.key.index_of(&seat.host).is_none();
        // First those through whom dealings failed.
        let vain = committee.seats.iter().filter(has_none).max_by_key(|seat| self.is_mute(now, &seat.host));
        vain.map(|seat| Step::Unseat { id: seat.id })
    }

    fn is_mute(&self, now: Now, host: &HostId) -> bool {
        self.watch.mute.get(host).is_some_and(|mute| now.monotonic < mute.until)
    }

    /// To whom the key would be dealt: to those that are kept and take shares; and, where these are no majority of those that
    /// vote now, to some that leave: they keep shares until the others' seats are gone.
    fn receivers(&self, now: Now, view: View<'_>, committee: &Committee, keep: &[HostId]) -> Vec<HostId> {
        let voters = committee.voters();
        let stays_for_now = |host: &HostId| {
            let leaves = view.records.roll().is_leaving(host) && !self.is_long_gone(now, host);
            leaves && !self.is_mute(now, host) && self.coordinator.stands(view, host)
        };
        let leaving: Vec<&MemberRecord> =
            voters.iter().filter(|host| stays_for_now(host)).filter_map(|host| record_of(view, host)).collect();
        let taking = keep.iter().filter(|host| !self.is_mute(now, host));
        let mut receiving: Vec<&MemberRecord> = taking.filter_map(|host| record_of(view, host)).collect();
        while receiving.len() <= voters.len() / 2
            && let Some(next) = next_seat(&receiving, leaving.iter().copied())
        {
            receiving.push(next);
        }
        let mut receivers: Vec<HostId> = receiving.into_iter().map(|record| record.host).collect();
        receivers.sort_unstable();
        receivers
    }

    /// Who is to sit beside those that are kept: where a seat is free and the key may move to it, or where a few domains hold
    /// too many of them and need not. One of those that had a seat and never took it, or one of the others.
    fn newcomer(&self, now: Now, view: View<'_>, keep: &[HostId], idle: bool) -> Option<HostId> {
        let committee = view.records.committee()?;
        let may_come = |host: &HostId| {
            let is_new = committee.seat_of(host).is_none() && self.watch.idle.contains(host) == idle;
            is_new && !self.is_mute(now, host) && self.coordinator.may_hold(view, host)
        };
        let standing: Vec<&MemberRecord> =
            view.records.roll().staying_hosts().filter(|record| may_come(&record.host)).collect();
        let kept: Vec<&MemberRecord> = keep.iter().filter_map(|host| record_of(view, host)).collect();
        let next = next_seat(&kept, standing.iter().copied())?;
        let has_place = self.can_be_dealt_to(now, view, &kept, &standing) || spreads(view, committee, &kept, next);
        has_place.then_some(next.host)
    }

    /// Whether with some of those that stand the committee comes nearer to what is wanted, and the key may be dealt to it then:
    /// a voter that could hold no share is one more on whom everything depends. An even number of seats bears no more losses
    /// than one fewer: only where somebody goes it is better than none.
    fn can_be_dealt_to(&self, now: Now, view: View<'_>, kept: &[&MemberRecord], standing: &[&MemberRecord]) -> bool {
        let Some(committee) = view.records.committee() else { return false };
        let is_kept = |host: &HostId| kept.iter().any(|record| record.host == *host);
        let replaces = committee.seats.iter().any(|seat| seat.lost.is_some() || !is_kept(&seat.host));
        let wanted = view.records.wanted_seats();
        // As many as there is room for before a seat must go.
        let room = (COMMITTEE_MAX + 1).saturating_sub(committee.seats.len());
        let mut sitting = kept.to_vec();
        while sitting.len() < wanted.min(kept.len() + room)
            && let Some(next) = next_seat(&sitting, standing.iter().copied())
        {
            sitting.push(next);
        }
        let fits = |size: usize| {
            let hosts = sitting.iter().take(size).map(|record| record.host).filter(|host| !self.is_mute(now, host));
            let hosts: Vec<HostId> = hosts.collect();
            let is_of_use = replaces || size == wanted || !size.is_multiple_of(2);
            is_of_use && hosts.len() >= FOUNDERS && view.records.stays_spread(&committee.next_dealing(hosts))
        };
        (kept.len() + 1..=sitting.len()).rev().any(fits)
    }

    /// Voters that are to stay, in the order of their identities: not who leaves, who is long gone, or is too many.
    fn keeping(&self, now: Now, view: View<'_>, committee: &Committee) -> Vec<HostId> {
        let is_long_gone = |host: &HostId| *host != self.own.host && self.is_long_gone(now, host);
        let stays =
            |seat: &&Seat| seat.votes && !view.records.roll().is_leaving(&seat.host) && !is_long_gone(&seat.host);
        let stays = |seat: &&Seat| seat.lost.is_none() && stays(seat);
        let mut keep: Vec<HostId> = committee.seats.iter().filter(stays).map(|seat| seat.host).collect();
        // No fewer at once than a majority of those that vote now: the records take no dealing to fewer.
        let fewest = committee.voters().len() / 2 + 1;
        while keep.len() > view.records.wanted_seats().max(fewest)
            && let Some(at) = self.surplus(view, &keep)
        {
            keep.remove(at);
        }
        keep.sort_unstable();
        keep
    }

    /// Which seat is one too many: of the domain with the most, the newest (ids are given in order).
    fn surplus(&self, view: View<'_>, keep: &[HostId]) -> Option<usize> {
        let domain = |host: &HostId| view.records.member(host).map(|member| member.record().domain.as_str());
        let fullness = |host: &HostId| keep.iter().filter(|other| domain(other) == domain(host)).count();
        let others = keep.iter().enumerate().filter(|(_, host)| **host != self.own.host);
        others.max_by_key(|(at, host)| (fullness(host), *at)).map(|(at, _)| at)
    }

    /// The key moves once every seat that is wanted is taken; or where nobody else can take one and somebody leaves, or votes
    /// without a share: a share does not move twice for one change.
    fn may_move(&self, view: View<'_>, committee: &Committee, keep: &[HostId]) -> bool {
        let leaves = |host: &HostId| view.records.roll().is_leaving(host);
        let was_lost = |host: &HostId| {
            committee.seats.iter().any(|seat| seat.host == *host && seat.lost.is_some() && committee.may_sign(seat))
        };
        let has_none = |host: &HostId| committee.key.index_of(host).is_none() || was_lost(host);
        keep.len() >= view.records.wanted_seats()
            || committee.key.holders.iter().any(leaves)
            || keep.iter().any(has_none)
    }

    /// A leader that leaves hands the lead on: it cannot take its own seat away. So does one that cannot do what a leader is
    /// for: Raft hears its heartbeats and would keep it for ever.
    fn hand_lead_on(&mut self, now: Now) {
        let leaves = self.ground.records.roll().is_leaving(&self.own.host);
        if leaves || self.is_unfit(now) {
            self.give_lead(now);
        }
    }

    /// Whether this leader's disk hangs; or whether for a while now its own evidence has not held, since its clock is wrong,
    /// its chip fails, or what it measured changed.
    fn is_unfit(&mut self, now: Now) -> bool {
        let Some(view) = self.ground.view(now, self.header.as_ref()) else { return false };
        let patience = view.calendar.epoch_ms().saturating_mul(UNFIT_EPOCHS);
        if self.coordinator.stands(view, &self.own.host) {
            self.watch.unfit = None;
        } else if self.watch.unfit.is_none() {
            self.watch.unfit = Some(now.monotonic);
        }
        let is_stuck =
            |seated: &Seated| seated.writes_since().is_some_and(|at| now.monotonic >= at.plus(WRITE_STALLED_MS));
        self.seated.as_deref().is_some_and(is_stuck)
            || self.watch.unfit.is_some_and(|since| now.monotonic >= since.plus(patience))
    }

    /// As the leader: another voter that stands is to lead; where this host knows no current epoch it cannot tell who does,
    /// and whoever was heard a moment ago is to lead.
    pub(super) fn give_lead(&mut self, now: Now) {
        let Some(view) = self.ground.view(now, self.header.as_ref()) else { return };
        let Some(committee) = view.records.committee() else { return };
        let silent = self.silent_seats(now);
        let is_blind = view.epochs.current(view.calendar, now).is_none();
        let hears = |seat: &&Seat| {
            let leaves = seat.host == self.own.host || view.records.roll().is_leaving(&seat.host);
            let is_there = (is_blind || self.coordinator.stands(view, &seat.host)) && !silent.contains(&seat.host);
            seat.votes && seat.lost.is_none() && !leaves && is_there
        };
        let matched: BTreeMap<u64, u64> =
            self.seated.as_ref().map(|seated| seated.election.matched().into_iter().collect()).unwrap_or_default();
        // Whoever has most of the log needs the least to go on.
        let next = committee.seats.iter().filter(hears).max_by_key(|seat| matched.get(&seat.id)).map(|seat| seat.id);
        if let (Some(seated), Some(next)) = (&mut self.seated, next) {
            seated.election.transfer(next);
        }
    }

    /// A learner votes once it has the log nearly to its end; one that went away is let go.
    fn step_of_learner(&self, now: Now, learner: &Seat) -> Option<Step> {
        if learner.lost.is_some() {
            return Some(Step::Unseat { id: learner.id });
        }
        let election = &self.seated.as_ref()?.election;
        let matched = election.matched().into_iter().find(|(id, _)| *id == learner.id).map_or(0, |(_, index)| index);
        // One that has not taken its seat yet is not counted on, however short the log.
        if matched > 0 && matched.saturating_add(SEAT_NEAR) >= election.last_index() {
            return Some(Step::Promote { id: learner.id });
        }
        self.is_long_gone(now, &learner.host).then_some(Step::Unseat { id: learner.id })
    }

    /// Seats changed: this host may have got one, or lost its own.
    pub(super) fn follow_seats(&mut self, now: Now, actions: &mut Actions) {
        let has_seat = self.ground.records.committee().is_some_and(|c| c.seat_of(&self.own.host).is_some());
        if !has_seat {
            self.give_up_seat(now, actions);
        }
    }

    /// A voter goes on as a follower, also after a restart.
    pub(super) fn give_up_seat(&mut self, now: Now, actions: &mut Actions) {
        if let Some(seated) = self.seated.take() {
            self.log = seated.election.stretch(self.ground.records.applied());
            self.pull_at = now.monotonic;
            let hard = Hard { term: self.log.last_term(), vote: 0, commit: self.log.last() };
            let row = RaftRow { seat: 0, taken: self.taken, hard }.write();
            actions.push(Action::Persist { lane: Lane::Records, writes: vec![row] });
        }
    }

    /// Whether the records give this host a seat that it has not taken.
    pub(super) fn has_new_seat(&self) -> Option<u64> {
        // A seat that its records give to keys that it had before, and lost, is not its own.
        self.own_member()?;
        // Nor one that only a voter speaks of: the mesh key does.
        let (header, _) = self.header.as_ref()?;
        let committee = self.ground.records.committee().map(Committee::digest);
        let confirmed = self.confirmed.map(|(round, _)| round);
        if confirmed != Some(header.header().round) || committee != Some(header.header().committee) {
            return None;
        }
        let seat = self.ground.records.committee()?.seat_of(&self.own.host)?;
        (self.seated.is_none() && self.outgrown.is_none() && seat.id > self.taken).then_some(seat.id)
    }
}

/// Whether a share that signs went with its holder's state.
fn has_lost_share(committee: &Committee) -> bool {
    committee.seats.iter().any(|seat| seat.lost.is_some() && committee.may_sign(seat))
}

fn record_of<'a>(view: View<'a>, host: &HostId) -> Option<&'a MemberRecord> {
    view.records.member(host).map(Member::record)
}

/// Whether a host beside those that are kept takes seats from a domain that has too many.
fn spreads(view: View<'_>, committee: &Committee, kept: &[&MemberRecord], next: &MemberRecord) -> bool {
    let keep: Vec<HostId> = kept.iter().map(|record| record.host).collect();
    let of_domain = |domain: &str| kept.iter().filter(|record| record.domain == domain).count();
    let fullest = kept.iter().map(|record| of_domain(&record.domain)).max().unwrap_or(0);
    let t = u8::try_from(keep.len() / 2 + 1).unwrap_or(u8::MAX);
    let is_whole = committee.seats.len() == keep.len() && view.records.spread_seats() == Some(keep.len());
    is_whole && !view.records.are_spread(t, &keep) && of_domain(&next.domain) + 1 < fullest
}

/// Whether the shares of the mesh key are due to be dealt anew, though nobody comes or goes.
fn is_old(view: View<'_>, committee: &Committee) -> bool {
    let after = if view.records.is_testnet() { TESTNET_REDEAL_EPOCHS } else { REDEAL_EPOCHS };
    view.records.round().0 > committee.dealt.0.saturating_add(after)
}

//! This host as a voter: drives Raft, writes what it must not forget, applies what is committed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::recording::Wanted;
use super::seating::Newcomers;
use super::{Action, ActionId, Actions, Host, Lane, Report, Table, Write};
use crate::cms::command::Command;
use crate::cms::election::{Ballot, BallotKind, Election, Hard, LogEntry, NotStepped, Ready};
use crate::cms::records::Effect;
use crate::credential::head::HeadVerified;
use crate::error::{Check, Misbehaved};
use crate::limits::{
    ELECTION_TICKS, PROPOSALS_MAX, QUESTIONS_PER_SENDER_MAX, REQUESTS_OPEN_MAX, TICK_MS, UNCLOSED_BEATS,
    WRITES_UNDER_WAY_MAX,
};
use crate::types::{CredentialId, Digest, HostId, Now, RequestId, Time, TransportKey};
use crate::wire::{self, Message, Placing, Shown};

/// What follows when a proposal is applied.
pub(super) enum Then {
    /// Nobody waits.
    Nothing,
    /// A round is closed.
    Closed,
    /// A joiner is told.
    Admitted(TransportKey, RequestId),
    /// The order gets its bundle.
    Bundle(TransportKey, Box<Placing>),
    /// The leaving host is told.
    Leaving(TransportKey, RequestId),
    /// The head is acknowledged.
    Recorded(TransportKey, RequestId, Box<HeadVerified>),
}

/// A read that waits until it is linearizable.
pub(super) enum Question {
    /// A reader's map.
    Map(TransportKey, RequestId, CredentialId, Box<Shown>),
    /// The owner's map.
    OwnerMap(TransportKey, RequestId, CredentialId),
    /// Where an order may go, and which head it follows.
    Order(TransportKey, Box<Placing>),
    /// The newest head.
    Head(TransportKey, RequestId, CredentialId),
    /// A head that is about to be refused.
    Record(TransportKey, Box<Wanted>),
}

impl Question {
    /// Who asks.
    fn asker(&self) -> &TransportKey {
        match self {
            Self::Map(from, ..)
            | Self::OwnerMap(from, ..)
            | Self::Order(from, _)
            | Self::Head(from, ..)
            | Self::Record(from, _) => from,
        }
    }
}

/// This host's seat.
pub(super) struct Seated {
    pub(super) election: Election,
    tick_at: Time,
    /// Writes under way: their number, and when they were begun.
    writing: BTreeMap<ActionId, (u64, Time)>,
    proposals: BTreeMap<u64, (u64, Then)>,
    questions: BTreeMap<u64, (Question, Option<u64>)>,
    next_question: u64,
    /// The term in which this host told everybody that it leads, and since when.
    announced: (u64, Time),
    /// When each seat was heard last.
    heard: BTreeMap<u64, Time>,
    pub(super) newcomers: Newcomers,
    /// Entries that it takes now behind the bound of a log that nobody closes.
    beats: u32,
}

/// The row of what a voter must not forget.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RaftRow {
    /// The seat's Raft id; 0 where this host only follows.
    pub(super) seat: u64,
    /// The highest id that this host ever had: it takes none of them again, since it may have forgotten their votes.
    pub(super) taken: u64,
    /// What it must not forget.
    pub(super) hard: Hard,
}

impl RaftRow {
    pub(super) fn write(&self) -> Write {
        Write { table: Table::Raft, key: b"hard".to_vec(), value: Some(wire::encode(self)) }
    }
}

impl Seated {
    pub(super) fn new(election: Election, now: Time) -> Self {
        Self {
            election,
            tick_at: now,
            writing: BTreeMap::new(),
            proposals: BTreeMap::new(),
            questions: BTreeMap::new(),
            next_question: 0,
            announced: (0, Time(0)),
            heard: BTreeMap::new(),
            newcomers: Newcomers::default(),
            beats: UNCLOSED_BEATS,
        }
    }

    /// Since when this host leads, where it does.
    pub(super) fn leads_since(&self) -> Time {
        self.announced.1
    }

    /// Whether a round's close that this host proposed waits to be applied.
    pub(super) fn is_closing(&self) -> bool {
        self.proposals.values().any(|(_, then)| matches!(then, Then::Closed))
    }

    /// Since when the oldest write is under way.
    pub(super) fn writes_since(&self) -> Option<Time> {
        self.writing.values().map(|(_, since)| *since).min()
    }

    pub(super) fn tick_at(&self) -> Time {
        self.tick_at
    }
}

impl Host {
    /// Whether this host leads and has applied all that was acknowledged before it did.
    pub(super) fn leads(&self) -> bool {
        let applied = self.ground.records.applied();
        !self.disk_failed && self.seated.as_ref().is_some_and(|seated| seated.election.leads(applied))
    }

    /// Whether all that is known to be committed is applied here.
    pub(super) fn has_applied_all(&self) -> bool {
        let applied = self.ground.records.applied();
        self.seated.as_ref().is_some_and(|seated| seated.election.committed() <= applied)
    }

    /// Takes the seat that the records give it, from what is on disk.
    pub(super) fn take_seat(&mut self, now: Now, hard: Hard) {
        let Some(committee) = self.ground.records.committee() else { return };
        let Some(seat) = committee.seat_of(&self.own.host) else { return };
        let (voters, learners) = (committee.ids(true), committee.ids(false));
        let seed = self.generator.bytes();
        let log = std::mem::take(&mut self.log);
        match Election::new(seat.id, &voters, &learners, &log, hard, seed) {
            Some(election) => {
                self.taken = self.taken.max(election.id());
                self.seated = Some(Box::new(Seated::new(election, now.monotonic)));
            }
            None => self.log = log,
        }
    }

    pub(super) fn on_ballot(&mut self, now: Now, from: TransportKey, ballot: &Ballot, actions: &mut Actions) {
        let seat = self.seat_id_of(&from);
        let Some(seated) = self.seated.as_mut().filter(|_| !self.disk_failed) else { return };
        if seated.writing.len() >= WRITES_UNDER_WAY_MAX {
            return;
        }
        let mut ballot = Cow::Borrowed(ballot);
        if ballot.kind == BallotKind::Append && seat == Some(ballot.from) {
            let (suite, records) = (self.ground.suite.as_ref(), &self.ground.records);
            let room = records.room_for(suite, ballot.log_term, &ballot.entries, &mut seated.beats);
            // An honest leader stops long before: what goes on is taken for lost on the way.
            if room < ballot.entries.len() {
                ballot.to_mut().entries.truncate(room);
            }
        }
        let ballot = ballot.as_ref();
        let stepped = seat.ok_or(NotStepped::Seat).and_then(|seat| seated.election.step(seat, ballot));
        match stepped {
            Ok(()) => {
                seated.heard.insert(ballot.from, now.monotonic);
                self.drive(now, actions);
            }
            Err(NotStepped::TooFarBehind) => self.ask_state(now, from, actions),
            // Else it is for an id that this host had before.
            Err(NotStepped::Seat) if seat == Some(ballot.from) => {}
            Err(NotStepped::Seat) => self.show_seats(now, from, ballot, actions),
            Err(NotStepped::Nonsense) => {
                actions.push(Action::Disconnect { peer: from, why: Misbehaved::Ballot });
            }
        }
    }

    pub(super) fn tick_election(&mut self, now: Now, actions: &mut Actions) {
        let Some(seated) = self.seated.as_mut().filter(|_| !self.disk_failed) else { return };
        if now.monotonic < seated.tick_at {
            return;
        }
        // Time that passed while nobody called is one tick, not many: a sleeper does not stand for election at once.
        seated.tick_at = now.monotonic.plus(TICK_MS);
        seated.beats = seated.beats.saturating_add(1).min(UNCLOSED_BEATS);
        seated.election.tick();
        self.drive(now, actions);
    }

    pub(super) fn on_persisted(&mut self, now: Now, id: ActionId, actions: &mut Actions) {
        self.slice_persisted(id);
        self.rewrapped_persisted(id);
        let Some(seated) = &mut self.seated else { return };
        if let Some((number, _)) = seated.writing.remove(&id) {
            seated.election.persisted(number);
            self.drive(now, actions);
        }
    }

    /// As the leader: seats that have said nothing for as long as an election takes, or since this host leads. They may
    /// be cut off, and nothing else says so as soon.
    pub(super) fn silent_seats(&self, now: Now) -> BTreeSet<HostId> {
        let Some((seated, committee)) = self.seated.as_ref().zip(self.ground.records.committee()) else {
            return BTreeSet::new();
        };
        let patience = TICK_MS * u64::try_from(ELECTION_TICKS).unwrap_or(u64::MAX);
        let since = seated.announced.1.max(Time(now.monotonic.0.saturating_sub(patience)));
        let is_silent = |id: &u64| seated.heard.get(id).is_none_or(|heard| *heard < since);
        let others = committee.seats.iter().filter(|seat| seat.host != self.own.host && seat.lost.is_none());
        others.filter(|seat| is_silent(&seat.id)).map(|seat| seat.host).collect()
    }

    /// Proposes a command as the leader. What follows is done once it is applied.
    pub(super) fn propose(
        &mut self,
        now: Now,
        command: &Command,
        then: Then,
        actions: &mut Actions,
    ) -> Result<(), Check> {
        if !self.leads() {
            return Err(Check::NotLeader);
        }
        let Some(seated) = &mut self.seated else { return Err(Check::NotLeader) };
        // What would only be refused when it is applied is not written down either.
        let (records, last) = (&self.ground.records, seated.election.last_index());
        let is_beat = matches!(command, Command::Epoch { .. });
        let is_full = command.grows() && records.is_log_full_at(last);
        if is_full || (seated.proposals.len() >= PROPOSALS_MAX && !is_beat) {
            return Err(Check::Capacity);
        }
        // The next header makes room: whoever asks, asks again.
        if records.is_unclosed_full_at(last, command) {
            return Err(Check::NotReady);
        }
        let proposed = seated.election.propose(wire::encode(command), command.change());
        let (index, term) = proposed.ok_or(Check::NotLeader)?;
        seated.proposals.insert(index, (term, then));
        self.drive(now, actions);
        Ok(())
    }

    /// Answers a question once what is committed now is applied here, and a majority still follows this leader.
    pub(super) fn ask_log(&mut self, now: Now, question: Question, actions: &mut Actions) -> Result<(), Check> {
        if !self.leads() {
            return Err(Check::NotLeader);
        }
        let Some(seated) = &mut self.seated else { return Err(Check::NotLeader) };
        // Whoever asks much waits for itself; and who is not answered now is asked to come again.
        let of_sender = seated.questions.values().filter(|(other, _)| other.asker() == question.asker()).count();
        if of_sender >= QUESTIONS_PER_SENDER_MAX || seated.questions.len() >= REQUESTS_OPEN_MAX {
            return Err(Check::NotReady);
        }
        seated.next_question += 1;
        let name = seated.next_question;
        seated.questions.insert(name, (question, None));
        seated.election.read(&name.to_be_bytes());
        self.drive(now, actions);
        Ok(())
    }

    /// Does all that Raft wants done.
    pub(super) fn drive(&mut self, now: Now, actions: &mut Actions) {
        loop {
            let Some(seated) = &mut self.seated else { return };
            if !seated.election.has_ready() {
                break;
            }
            let ready = seated.election.take_ready();
            self.perform_ready(now, ready, actions);
        }
        self.answer_questions(now, actions);
        self.follow_lead(now, actions);
    }

    fn perform_ready(&mut self, now: Now, ready: Ready, actions: &mut Actions) {
        let Ready { at_once, entries, hard, after_write, number, committed, reads } = ready;
        self.send_ballots(Lane::Direct, at_once, actions);
        let mut writes = self.entry_rows(&entries);
        if let (Some(hard), Some(seated)) = (hard, &self.seated) {
            let seat = seated.election.id();
            writes.push(RaftRow { seat, taken: seat, hard }.write());
        }
        if !writes.is_empty() {
            actions.push(Action::Persist { lane: Lane::Records, writes });
        }
        self.send_ballots(Lane::Records, after_write, actions);
        let id = self.fresh_id();
        if let Some(seated) = &mut self.seated {
            seated.writing.insert(id, (number, now.monotonic));
        }
        actions.push(Action::Confirm { lane: Lane::Records, id });
        let applies = !committed.is_empty();
        for entry in committed {
            self.apply_committed(now, &entry, actions);
        }
        if applies {
            self.hand_on_early(now, actions);
        }
        if let Some(seated) = &mut self.seated {
            for (name, index) in reads {
                let name = name.try_into().map(u64::from_be_bytes).unwrap_or(0);
                if let Some((_, ready_at)) = seated.questions.get_mut(&name) {
                    *ready_at = Some(index);
                }
            }
        }
    }

    fn send_ballots(&self, lane: Lane, ballots: Vec<Ballot>, actions: &mut Actions) {
        for ballot in ballots {
            if let Some(to) = self.transport_of_seat(ballot.to) {
                self.send(lane, to, Message::Ballot(ballot), actions);
            }
        }
    }

    /// The rows of new entries. A shorter log takes the rows behind it away.
    pub(super) fn entry_rows(&mut self, entries: &[LogEntry]) -> Vec<Write> {
        let mut writes: Vec<Write> =
            entries.iter().map(|entry| Self::entry_row(entry.index, Some(wire::encode(entry)))).collect();
        if let Some(last) = entries.last() {
            writes.extend((last.index + 1..=self.last_row).map(|index| Self::entry_row(index, None)));
            self.last_row = last.index;
        }
        writes
    }

    pub(super) fn entry_row(index: u64, value: Option<Vec<u8>>) -> Write {
        Write { table: Table::Records, key: index.to_be_bytes().to_vec(), value }
    }

    fn apply_committed(&mut self, now: Now, entry: &LogEntry, actions: &mut Actions) {
        let outcome = self.apply_entry(now, entry, actions);
        let Some(seated) = &mut self.seated else { return };
        if entry.change.is_some() {
            seated.election.apply_change(entry.change.filter(|_| outcome.is_ok()));
        }
        seated.election.applied(entry.index);
        if let Some((term, then)) = seated.proposals.remove(&entry.index) {
            // Another leader's entry stands at this index: what was proposed is lost, and whoever waits asks again.
            let outcome = if term == entry.term { outcome } else { Err(Check::NotLeader) };
            self.after_record(now, outcome, entry.index, then, actions);
        }
    }

    fn after_record(
        &mut self,
        now: Now,
        outcome: Result<Effect, Check>,
        index: u64,
        then: Then,
        actions: &mut Actions,
    ) {
        match then {
            Then::Nothing | Then::Closed => {}
            Then::Admitted(joiner, request) => self.tell_admitted(joiner, request, outcome.map(|_| ()), actions),
            Then::Bundle(to, placing) => self.answer_order(now, to, &placing, outcome.err(), actions),
            Then::Leaving(to, request) => {
                self.answer_record(to, request, outcome.map(|_| (Digest::ZERO, index)), actions);
            }
            Then::Recorded(to, request, head) => {
                // Proposed twice, since its answer was slow: the first was recorded.
                let known = self.ground.records.credentials().made_of(head.digest());
                let outcome = outcome.map(|_| index).or_else(|check| known.ok_or(check));
                self.answer_record(to, request, outcome.map(|record| (*head.digest(), record)), actions);
            }
        }
    }

    fn answer_questions(&mut self, now: Now, actions: &mut Actions) {
        let applied = self.ground.records.applied();
        let Some(seated) = &mut self.seated else { return };
        let ready: Vec<u64> = seated
            .questions
            .iter()
            .filter(|(_, (_, index))| index.is_some_and(|index| index <= applied))
            .map(|(name, _)| *name)
            .collect();
        let leads = seated.election.is_leader();
        let mut answers: Vec<Question> = Vec::new();
        for name in ready {
            answers.extend(seated.questions.remove(&name).map(|(question, _)| question));
        }
        if !leads {
            // Whoever asked, asks the next leader.
            seated.questions.clear();
        }
        for question in answers {
            self.answer_question(now, question, actions);
        }
    }

    /// Who leads may have changed.
    fn follow_lead(&mut self, now: Now, actions: &mut Actions) {
        let applied = self.ground.records.applied();
        let Some(seated) = &mut self.seated else { return };
        let term = seated.election.term();
        if seated.election.leads(applied) && seated.announced.0 < term {
            seated.announced = (term, now.monotonic);
            self.leader = Some((term, self.own.transport));
            actions.push(Action::Report(Report::Leads(term)));
            self.begin_lead(now, actions);
            return;
        }
        let leader = seated.election.leader().filter(|_| !seated.election.is_leader());
        // Whatever was announced: the election knows.
        let transport = leader.and_then(|id| self.transport_of_seat(id));
        if let Some(known) = transport.map(|transport| (term, transport)).filter(|known| self.leader != Some(*known)) {
            self.leader = Some(known);
            self.ask_leader_again(now, actions);
        }
    }
}

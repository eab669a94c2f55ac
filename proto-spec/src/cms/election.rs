//! Raft under the records (Ongaro, "Consensus: Bridging Theory and Practice", 2014): who leads, and in which order
//! commands stand. The one place that names the Raft library, with its log.
//!
//! The library authenticates nobody and panics on nonsense: whose connection a message came over, and whether its
//! indexes, terms and commit can be, is checked here before it is stepped.

use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, HardState, Message, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole, Storage as _};
use serde::{Deserialize, Serialize};

use super::log::{Log, Stretch, change_bytes, entry_of, ours_of};
use crate::limits::{
    CONTEXT_MAX, ELECTION_TICKS, HEARTBEAT_TICKS, LEASE_TICKS, NUMBER_MAX, PAGE_BYTES_MAX, PAGE_ENTRIES_MAX,
    RAFT_INFLIGHT_MAX, TERM_JUMP_MAX, TERM_STEP_MAX,
};
use crate::types::Purpose;

/// A change of one seat. Raft ids are given once and never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeatChange {
    /// It follows the log and does not vote.
    Learner(u64),
    /// It votes.
    Voter(u64),
    /// It leaves.
    Remove(u64),
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// Its index, from 1.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// The seat that it changes.
    pub change: Option<SeatChange>,
    /// Canonical bytes of a record command; empty where a leader only began its term.
    #[serde(with = "serde_bytes")]
    pub command: Vec<u8>,
}

/// What a voter must not forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hard {
    /// The highest term seen.
    pub term: u64,
    /// For whom it voted in that term (0: nobody).
    pub vote: u64,
    /// Entries up to here are committed.
    pub commit: u64,
}

/// The kinds of message between voters. What else the library knows is never taken from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BallotKind {
    /// Would you vote for me?
    PreVote,
    /// Answer to that.
    PreVoteReply,
    /// Vote for me.
    Vote,
    /// Answer to that.
    VoteReply,
    /// Entries of the log.
    Append,
    /// Answer to that.
    AppendReply,
    /// The leader is there.
    Heartbeat,
    /// Answer to that.
    HeartbeatReply,
    /// The leader steps down in your favour.
    TimeoutNow,
    /// The log no longer begins where you stop: the state behind this index comes first.
    Snapshot,
}

const KINDS: [(BallotKind, MessageType); 10] = [
    (BallotKind::PreVote, MessageType::MsgRequestPreVote),
    (BallotKind::PreVoteReply, MessageType::MsgRequestPreVoteResponse),
    (BallotKind::Vote, MessageType::MsgRequestVote),
    (BallotKind::VoteReply, MessageType::MsgRequestVoteResponse),
    (BallotKind::Append, MessageType::MsgAppend),
    (BallotKind::AppendReply, MessageType::MsgAppendResponse),
    (BallotKind::Heartbeat, MessageType::MsgHeartbeat),
    (BallotKind::HeartbeatReply, MessageType::MsgHeartbeatResponse),
    (BallotKind::TimeoutNow, MessageType::MsgTimeoutNow),
    (BallotKind::Snapshot, MessageType::MsgSnapshot),
];

/// A message between voters, in our own form (Raft dissertation, figure 3.1 and chapters 4 and 9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ballot {
    /// What it is.
    pub kind: BallotKind,
    /// Raft id of the sender.
    pub from: u64,
    /// Raft id of the receiver.
    pub to: u64,
    /// The sender's term.
    pub term: u64,
    /// Term of the entry at `index`.
    pub log_term: u64,
    /// Index that it speaks of.
    pub index: u64,
    /// Entries behind that index.
    pub entries: Vec<LogEntry>,
    /// What the sender knows to be committed.
    pub commit: u64,
    /// Term of that entry.
    pub commit_term: u64,
    /// Whether the answer is no.
    pub reject: bool,
    /// Where the logs may agree.
    pub reject_hint: u64,
    /// Names a read.
    #[serde(with = "serde_bytes")]
    pub context: Vec<u8>,
}

impl Ballot {
    /// Whether every list is within its bound.
    pub fn within_bounds(&self) -> bool {
        self.entries.len() <= PAGE_ENTRIES_MAX && self.context.len() <= CONTEXT_MAX
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStepped {
    /// It cannot have been sent by a host that keeps to the protocol.
    Nonsense,
    /// It came from or for a seat that is not there; after a change of seats that passes.
    Seat,
    /// The leader no longer has the entries that are missing here: the state must be pulled.
    TooFarBehind,
}

/// What is to be done after a step, in the order of the fields.
#[derive(Debug, Default)]
pub struct Ready {
    /// Leaves at once.
    pub at_once: Vec<Ballot>,
    /// Entries to write; they replace what stands from the first one's index on.
    pub entries: Vec<LogEntry>,
    /// To write with them.
    pub hard: Option<Hard>,
    /// Leaves when that is on disk.
    pub after_write: Vec<Ballot>,
    /// To confirm when that is on disk.
    pub number: u64,
    /// Committed: to apply.
    pub committed: Vec<LogEntry>,
    /// Reads that are linearizable once this index is applied.
    pub reads: Vec<(Vec<u8>, u64)>,
}

/// One seat's Raft.
pub struct Election {
    raw: RawNode<Log>,
    seed: [u8; 32],
    /// Ticks until it goes far ahead with a term again.
    jumps_in: usize,
}

impl Election {
    /// Starts from what is on disk: every entry up to `hard.commit` is applied already.
    ///
    /// `None` where what is on disk cannot be: the host then has lost its hard state.
    pub fn new(id: u64, voters: &[u64], learners: &[u64], log: &Stretch, hard: Hard, seed: [u8; 32]) -> Option<Self> {
        let is_sound = hard.term <= NUMBER_MAX && log.last_term() <= NUMBER_MAX;
        if !is_sound || !log.is_whole() || hard.commit > log.last() || hard.commit < log.after {
            return None;
        }
        let config = raft::Config {
            id,
            election_tick: LEASE_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            min_election_tick: ELECTION_TICKS,
            max_election_tick: ELECTION_TICKS + ELECTION_TICKS / 2,
            applied: hard.commit,
            max_size_per_msg: u64::try_from(PAGE_BYTES_MAX).unwrap_or(u64::MAX),
            max_inflight_msgs: RAFT_INFLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let mut state = HardState::default();
        (state.term, state.vote, state.commit) = (hard.term, hard.vote, hard.commit);
        let log = Log::new(log, state, seats(voters, learners));
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &logger).ok()?;
        let mut election = Self { raw, seed, jumps_in: 0 };
        election.draw();
        Some(election)
    }

    /// The library draws its timeouts from global randomness: ours, from the host's seed, takes their place.
    fn draw(&mut self) {
        let raft = &mut self.raw.raft;
        let role = match raft.state {
            StateRole::Follower => 0,
            StateRole::PreCandidate => 1,
            StateRole::Candidate => 2,
            StateRole::Leader => 3,
        };
        let digest = Purpose::Timeout.digest(&[&self.seed, &raft.term.to_be_bytes(), &[role]]);
        let drawn = usize::from(u16::from_be_bytes([digest.0[0], digest.0[1]]));
        let span = (ELECTION_TICKS / 2).max(1);
        raft.set_randomized_election_timeout(ELECTION_TICKS + drawn % span);
    }

    /// A tick of time passed.
    pub fn tick(&mut self) {
        self.jumps_in = self.jumps_in.saturating_sub(1);
        self.raw.tick();
        self.draw();
    }

    /// Takes a message of the seat whose transport key the connection proved.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn step(&mut self, seat: u64, ballot: &Ballot) -> Result<(), NotStepped> {
        let raft = &self.raw.raft;
        let numbers =
            [ballot.term, ballot.log_term, ballot.index, ballot.commit, ballot.commit_term, ballot.reject_hint];
        // Term zero is the library's sign for a message of its own.
        if ballot.term == 0 || numbers.iter().any(|number| *number > NUMBER_MAX) || !ballot.within_bounds() {
            return Err(NotStepped::Nonsense);
        }
        // Under an id that it had before, or for one that this host had.
        if ballot.from != seat || ballot.to != raft.id || seat == raft.id {
            return Err(NotStepped::Seat);
        }
        if ballot.kind == BallotKind::TimeoutNow && ballot.from != raft.leader_id {
            // As if it were lost on the way: a voter that has just started does not know who leads its term, and of two that
            // say so it cannot tell which of them lies.
            return Ok(());
        }
        let asks = ballot.kind == BallotKind::PreVote || (ballot.kind == BallotKind::PreVoteReply && !ballot.reject);
        if ballot.term > raft.term.saturating_add(TERM_STEP_MAX) && !asks {
            if self.jumps_in > 0 {
                return Ok(()); // as if it were lost on the way
            }
            self.jumps_in = ELECTION_TICKS;
        }
        let raft = &mut self.raw.raft;
        if ballot.term > raft.term.saturating_add(TERM_JUMP_MAX) {
            // Somebody speaks of a term that is far ahead. One seat can bring a few voters there; did the others not follow, the
            // two parts would never hear each other again. So this one goes a part of the way where the library would go all
            // of it, and nobody uses the terms up.
            if !asks {
                raft.become_follower(raft.term.saturating_add(TERM_JUMP_MAX), raft::INVALID_ID);
                self.draw();
            }
            return Ok(());
        }
        let raft = &self.raw.raft;
        // Whoever wins takes its whole log for written: votes that come before it is are asked for again.
        let is_vote = matches!(ballot.kind, BallotKind::PreVoteReply | BallotKind::VoteReply);
        if is_vote && raft.raft_log.persisted < raft.raft_log.last_index() {
            return Ok(());
        }
        if ballot.term >= raft.term && !self.can_be(ballot) {
            return Err(NotStepped::Nonsense);
        }
        // The library would take the snapshot without the state.
        if ballot.kind == BallotKind::Snapshot && ballot.index > raft.raft_log.committed {
            return Err(NotStepped::TooFarBehind);
        }
        // What is left is a message that a voter may send. The library drops what is out of date.
        let _dropped = self.raw.step(message_of(ballot));
        self.draw();
        Ok(())
    }

    /// Whether the numbers in a message can be: the library takes them for granted.
    fn can_be(&self, ballot: &Ballot) -> bool {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        match ballot.kind {
            BallotKind::Append => {
                self.may_append(ballot) && (raft.state != StateRole::Leader || ballot.term > raft.term)
            }
            // A leader that restarted hears late answers to what it had not written yet: only who leads acts on them.
            BallotKind::AppendReply => {
                raft.state != StateRole::Leader || (ballot.index <= last && ballot.reject_hint <= last)
            }
            BallotKind::Heartbeat => {
                ballot.commit <= last && (raft.state != StateRole::Leader || ballot.term > raft.term)
            }
            BallotKind::Snapshot => {
                ballot.index > 0
                    && ballot.log_term > 0
                    && ballot.log_term <= ballot.term
                    && (raft.state != StateRole::Leader || ballot.term > raft.term)
            }
            BallotKind::PreVote
            | BallotKind::PreVoteReply
            | BallotKind::Vote
            | BallotKind::VoteReply
            | BallotKind::HeartbeatReply
            | BallotKind::TimeoutNow => true,
        }
    }

    /// Whether the entries of an append follow on each other, and on what is committed here for good.
    fn may_append(&self, ballot: &Ballot) -> bool {
        let log = &self.raw.raft.raft_log;
        let in_order = ballot.entries.iter().zip(ballot.index + 1..).all(|(entry, index)| entry.index == index);
        let terms = std::iter::once(ballot.log_term).chain(ballot.entries.iter().map(|entry| entry.term));
        let rising = terms.clone().is_sorted() && terms.last().is_none_or(|term| term <= ballot.term);
        // The library gives an entry that is not there term zero.
        let dated = (ballot.log_term == 0) == (ballot.index == 0) && ballot.entries.iter().all(|entry| entry.term > 0);
        // Of what was cut off nothing is known; the library never looks at an append that begins so early.
        let here = log.first_index()..=log.committed;
        let committed = ballot.entries.iter().filter(|entry| here.contains(&entry.index));
        let mut keeps = committed.map(|entry| log.term(entry.index).is_ok_and(|term| term == entry.term));
        in_order && rising && dated && keeps.all(|kept| kept)
    }

    /// Proposes a command; gives its index and term. It stands only once an entry of that index and term is committed.
    pub fn propose(&mut self, command: Vec<u8>, change: Option<SeatChange>) -> Option<(u64, u64)> {
        if !self.is_leader() || self.raw.raft.lead_transferee.is_some() {
            return None;
        }
        let before = self.last_index();
        let proposed = match change {
            None => self.raw.propose(Vec::new(), command),
            Some(change) => self.raw.propose_conf_change(change_bytes(change, &command), conf_change(change)),
        };
        // A second change of seats while one is in flight becomes an empty entry: that is no proposal.
        proposed.ok().filter(|()| self.last_index() > before).map(|()| (self.last_index(), self.term()))
    }

    /// Asks for a point from which a read is linearizable; it comes back in [`Ready::reads`] with this name.
    pub fn read(&mut self, context: &[u8]) {
        self.raw.read_index(context.to_vec());
    }

    /// A change of seats was applied; `None` where the records refused it.
    pub fn apply_change(&mut self, change: Option<SeatChange>) {
        let applied = match change {
            Some(change) => self.raw.apply_conf_change(&conf_change(change)),
            None => self.raw.apply_conf_change(&raft::eraftpb::ConfChangeV2::default()),
        };
        if let Ok(seats) = applied {
            self.raw.mut_store().set_seats(seats);
        }
    }

    /// Whether there is something to do.
    pub fn has_ready(&self) -> bool {
        self.raw.has_ready()
    }

    /// What there is to do. All of it must be done.
    pub fn take_ready(&mut self) -> Ready {
        let mut ready = self.raw.ready();
        let entries = ready.take_entries();
        let hard = ready.hs().cloned();
        let out = Ready {
            at_once: ready.take_messages().iter().filter_map(ballot_of).collect(),
            entries: entries.iter().map(ours_of).collect(),
            hard: hard.as_ref().map(|hard| Hard { term: hard.term, vote: hard.vote, commit: hard.commit }),
            after_write: ready.take_persisted_messages().iter().filter_map(ballot_of).collect(),
            number: ready.number(),
            committed: ready.take_committed_entries().iter().map(ours_of).collect(),
            reads: ready.take_read_states().into_iter().map(|read| (read.request_ctx, read.index)).collect(),
        };
        let log = self.raw.mut_store();
        log.append(entries);
        if let Some(hard) = hard {
            log.set_hard(hard);
        }
        self.raw.advance_append_async(ready);
        // Whoever was offered a snapshot says by itself when it has it; until then it is offered with each heartbeat.
        let offered = out.at_once.iter().chain(&out.after_write).filter(|one| one.kind == BallotKind::Snapshot);
        for seat in offered.map(|ballot| ballot.to).collect::<Vec<_>>() {
            self.raw.report_snapshot(seat, SnapshotStatus::Failure);
        }
        out
    }

    /// What was to be written is on disk.
    pub fn persisted(&mut self, number: u64) {
        self.raw.on_persist_ready(number);
        self.draw();
    }

    /// Everything up to this index is applied.
    pub fn applied(&mut self, index: u64) {
        self.raw.advance_apply_to(index);
    }

    /// Hands the lead to another voter.
    pub fn transfer(&mut self, to: u64) {
        self.raw.transfer_leader(to);
    }

    /// A seat cannot be reached now.
    pub fn unreachable(&mut self, seat: u64) {
        self.raw.report_unreachable(seat);
    }

    /// Whether this seat leads.
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Whether this seat leads and has applied an entry of its own term: only then it knows all that was acknowledged.
    pub fn leads(&self, applied: u64) -> bool {
        let raft = &self.raw.raft;
        self.is_leader() && raft.raft_log.term(applied).is_ok_and(|term| term == raft.term)
    }

    /// Index of the newest entry that is known to be committed. A leader whose disk is slow hears of it from the others'
    /// acknowledgements before it may apply it.
    pub fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// The seat that leads, where it is known.
    pub fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|leader| *leader != 0)
    }

    /// This seat's term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// This seat's Raft id.
    pub fn id(&self) -> u64 {
        self.raw.raft.id
    }

    /// The last entry's index.
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// How far each seat has the log, as the leader knows; empty elsewhere.
    pub fn matched(&self) -> Vec<(u64, u64)> {
        if !self.is_leader() {
            return Vec::new();
        }
        self.raw.raft.prs().iter().map(|(id, progress)| (*id, progress.matched)).collect()
    }

    /// All entries that are here, up to an index.
    pub fn stretch(&self, through: u64) -> Stretch {
        self.raw.store().through(through)
    }

    /// A snapshot is kept: entries up to an index before it are forgotten. All of them must be applied.
    pub fn forget_through(&mut self, index: u64) {
        self.raw.mut_store().forget_through(index);
    }

    /// For whom this seat voted in its term (0: nobody).
    pub fn vote(&self) -> u64 {
        self.raw.raft.vote
    }

    /// Index behind which the log begins.
    pub fn after(&self) -> u64 {
        self.raw.raft.raft_log.first_index().saturating_sub(1)
    }

    /// Committed entries behind an index, as many as fit a page.
    pub fn page(&self, after: u64, commit: u64) -> Vec<LogEntry> {
        let most = after.saturating_add(u64::try_from(PAGE_ENTRIES_MAX).unwrap_or(u64::MAX));
        let high = commit.min(most);
        if high <= after {
            return Vec::new();
        }
        let size = u64::try_from(PAGE_BYTES_MAX).unwrap_or(u64::MAX);
        let context = raft::GetEntriesContext::empty(false);
        let found = self.raw.store().entries(after + 1, high + 1, size, context);
        found.map(|entries| entries.iter().map(ours_of).collect()).unwrap_or_default()
    }
}

fn seats(voters: &[u64], learners: &[u64]) -> ConfState {
    ConfState { voters: voters.to_vec(), learners: learners.to_vec(), ..ConfState::default() }
}

fn conf_change(change: SeatChange) -> ConfChange {
    let (kind, id) = match change {
        SeatChange::Learner(id) => (ConfChangeType::AddLearnerNode, id),
        SeatChange::Voter(id) => (ConfChangeType::AddNode, id),
        SeatChange::Remove(id) => (ConfChangeType::RemoveNode, id),
    };
    let mut conf = ConfChange { node_id: id, ..ConfChange::default() };
    conf.set_change_type(kind);
    conf
}

fn message_of(ballot: &Ballot) -> Message {
    let kind = KINDS.iter().find(|(ours, _)| *ours == ballot.kind).map_or(MessageType::MsgHeartbeat, |(_, kind)| *kind);
    let mut message = Message {
        from: ballot.from,
        to: ballot.to,
        term: ballot.term,
        log_term: ballot.log_term,
        index: ballot.index,
        commit: ballot.commit,
        commit_term: ballot.commit_term,
        reject: ballot.reject,
        reject_hint: ballot.reject_hint,
        context: ballot.context.clone().into(),
        ..Message::default()
    };
    message.set_msg_type(kind);
    if ballot.kind == BallotKind::Snapshot {
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (ballot.index, ballot.log_term);
    }
    message.set_entries(ballot.entries.iter().map(entry_of).collect());
    message
}

fn ballot_of(message: &Message) -> Option<Ballot> {
    let (kind, _) = KINDS.iter().find(|(_, kind)| *kind == message.get_msg_type())?;
    let (log_term, index) = match kind {
        BallotKind::Snapshot => {
            let metadata = message.get_snapshot().get_metadata();
            (metadata.term, metadata.index)
        }
        _ => (message.log_term, message.index),
    };
    Some(Ballot {
        kind: *kind,
        from: message.from,
        to: message.to,
        term: message.term,
        log_term,
        index,
        entries: message.entries.iter().take(PAGE_ENTRIES_MAX).map(ours_of).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.to_vec(),
    })
}

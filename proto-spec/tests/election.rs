//! Raft under the records, three voters in one test: who leads, what stands, and that no ballot panics a voter (P8).

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use spec::cms::election::{Ballot, BallotKind, Election, Hard, LogEntry, NotStepped, SeatChange};
use spec::cms::log::Stretch;
use spec::limits::{ELECTION_TICKS, NUMBER_MAX, TERM_JUMP_MAX, TERM_STEP_MAX};

/// Voters 1, 2 and 3, their disks and what is under way between them.
struct Net {
    voters: Vec<Election>,
    committed: Vec<Vec<LogEntry>>,
    reads: Vec<Vec<(Vec<u8>, u64)>>,
    wire: Vec<Ballot>,
    cut: BTreeSet<u64>,
    /// Ballots for which a voter wants the state first.
    too_far_behind: usize,
}

fn voter(id: u64) -> Election {
    let first = LogEntry { index: 1, term: 1, change: None, command: b"founding".to_vec() };
    let hard = Hard { term: 1, vote: 0, commit: 1 };
    Election::new(
        id,
        &[1, 2, 3],
        &[],
        &Stretch { entries: vec![first], ..Stretch::default() },
        hard,
        [u8::try_from(id).expect("small"); 32],
    )
    .expect("a voter")
}

/// A voter whose log begins behind its third entry.
fn cut_voter(id: u64) -> Election {
    let entry = |index| LogEntry { index, term: 1, change: None, command: vec![1] };
    let log = Stretch { after: 3, after_term: 1, entries: vec![entry(4), entry(5)] };
    let hard = Hard { term: 1, vote: 0, commit: 4 };
    Election::new(id, &[1, 2, 3], &[], &log, hard, [u8::try_from(id).expect("small"); 32]).expect("a voter")
}

impl Net {
    fn new() -> Self {
        Self {
            voters: (1..=3).map(voter).collect(),
            committed: vec![Vec::new(); 3],
            reads: vec![Vec::new(); 3],
            wire: Vec::new(),
            cut: BTreeSet::new(),
            too_far_behind: 0,
        }
    }

    fn settle(&mut self) {
        loop {
            for at in 0..3 {
                while self.voters[at].has_ready() {
                    let ready = self.voters[at].take_ready();
                    self.wire.extend(ready.at_once);
                    self.wire.extend(ready.after_write);
                    for entry in &ready.committed {
                        self.voters[at].applied(entry.index);
                    }
                    self.committed[at].extend(ready.committed);
                    self.reads[at].extend(ready.reads);
                    self.voters[at].persisted(ready.number);
                }
            }
            if self.wire.is_empty() {
                return;
            }
            for ballot in std::mem::take(&mut self.wire) {
                if self.cut.contains(&ballot.from) || self.cut.contains(&ballot.to) {
                    continue;
                }
                let to = usize::try_from(ballot.to - 1).expect("small");
                match self.voters[to].step(ballot.from, &ballot) {
                    Err(NotStepped::TooFarBehind) => self.too_far_behind += 1,
                    stepped => assert_eq!(stepped, Ok(()), "{ballot:?}"),
                }
            }
        }
    }

    fn ticks(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.voters.iter_mut().for_each(Election::tick);
            self.settle();
        }
    }

    fn leader(&self) -> Option<usize> {
        (0..3).filter(|at| !self.cut.contains(&(u64::try_from(*at).expect("small") + 1))).find(|at| {
            let applied = self.committed[*at].last().map_or(1, |entry| entry.index);
            self.voters[*at].leads(applied)
        })
    }
}

#[test]
fn p4_a_leader_that_is_cut_off_steps_down_and_another_goes_on() {
    let mut net = Net::new();
    net.ticks(60);
    let first = net.leader().expect("somebody leads");
    let (index, term) = net.voters[first].propose(b"one".to_vec(), None).expect("a proposal");
    net.settle();
    for committed in &net.committed {
        assert!(committed.iter().any(|entry| entry.index == index && entry.term == term && entry.command == b"one"));
    }
    net.cut.insert(u64::try_from(first).expect("small") + 1);
    let lost = net.voters[first].propose(b"lost".to_vec(), None).expect("it does not know yet");
    net.ticks(60);
    let second = net.leader().expect("another leads");
    assert_ne!(first, second);
    assert!(!net.voters[first].is_leader(), "without a majority nobody leads for long");
    assert!(net.voters[first].propose(b"late".to_vec(), None).is_none());
    net.voters[second].propose(b"two".to_vec(), None).expect("a proposal");
    net.settle();
    net.cut.clear();
    net.ticks(60);
    let last = |at: usize| net.committed[at].iter().filter(|e| !e.command.is_empty()).map(|e| e.command.clone());
    assert_eq!(last(first).collect::<Vec<_>>(), [b"one".to_vec(), b"two".to_vec()]);
    assert!(net.committed[first].iter().all(|entry| (entry.index, entry.term) != lost));
}

#[test]
fn a_voter_that_missed_more_entries_than_one_message_carries_catches_up() {
    let mut net = Net::new();
    net.ticks(60);
    let leader = net.leader().expect("somebody leads");
    let absent = (leader + 1) % 3;
    net.cut.insert(u64::try_from(absent).expect("small") + 1);
    for number in 0..1_000_u32 {
        net.voters[leader].propose(number.to_be_bytes().to_vec(), None).expect("a proposal");
        net.settle();
    }
    net.cut.clear();
    net.ticks(60);
    let commands = |at: usize| net.committed[at].iter().filter(|e| !e.command.is_empty()).count();
    assert_eq!((commands(leader), commands(absent)), (1_000, 1_000));
}

#[test]
fn a_voter_that_lacks_what_was_cut_off_is_offered_the_state_until_it_has_it_and_then_gets_entries() {
    let mut net = Net::new();
    net.ticks(60);
    let leader = net.leader().expect("somebody leads");
    let absent = (leader + 1) % 3;
    net.cut.insert(u64::try_from(absent).expect("small") + 1);
    for number in 0..20_u32 {
        net.voters[leader].propose(number.to_be_bytes().to_vec(), None).expect("a proposal");
        net.settle();
    }
    let through = net.committed[leader].last().expect("entries").index - 5;
    net.voters[leader].forget_through(through);
    let log = net.voters[leader].stretch(through);
    assert!(log.entries.is_empty() && log.after == through);
    net.cut.clear();
    let offers = |net: &mut Net| {
        let refused = net.too_far_behind;
        net.ticks(30);
        net.too_far_behind - refused
    };
    assert!(offers(&mut net) > 1, "with each heartbeat, not once");
    // It pulled the state behind that entry.
    let id = u64::try_from(absent).expect("small") + 1;
    let (term, vote) = (net.voters[absent].term(), net.voters[absent].vote());
    let hard = Hard { term, vote, commit: through };
    net.voters[absent] = Election::new(id, &[1, 2, 3], &[], &log, hard, [9; 32]).expect("a voter");
    net.ticks(60);
    assert_eq!(net.voters[absent].last_index(), net.voters[leader].last_index());
    assert_eq!(offers(&mut net), 0);
    assert_eq!(net.committed[absent].last(), net.committed[leader].last());
}

#[test]
fn one_seat_cannot_use_up_the_terms() {
    let mut one = voter(1);
    let before = one.term();
    for kind in [BallotKind::Vote, BallotKind::Heartbeat, BallotKind::AppendReply] {
        let from = one.term();
        for _ in 0..10_000 {
            assert_eq!(one.step(2, &ballot(kind, 2, 1, NUMBER_MAX)), Ok(()));
        }
        assert_eq!(one.term(), from + TERM_JUMP_MAX, "{kind:?}: one jump, however many messages");
        (0..ELECTION_TICKS).for_each(|_| one.tick());
    }
    let there = one.term();
    assert_eq!(there, before + 3 * TERM_JUMP_MAX);
    assert_eq!(one.step(2, &ballot(BallotKind::PreVote, 2, 1, NUMBER_MAX)), Ok(()));
    assert_eq!(one.term(), there, "nobody goes anywhere for a question");
}

#[test]
fn voters_that_one_seat_brought_to_terms_far_ahead_and_the_others_find_each_other_again() {
    let mut net = Net::new();
    net.ticks(60);
    assert!(net.leader().is_some());
    // The third seat lies: it brings the first far away, and then says nothing more.
    net.cut.insert(3);
    let behind = net.voters[1].term();
    for jump in 1..=5 {
        let heartbeat = ballot(BallotKind::Heartbeat, 3, 1, behind + jump * TERM_JUMP_MAX);
        assert_eq!(net.voters[0].step(3, &heartbeat), Ok(()));
        (0..ELECTION_TICKS).for_each(|_| net.voters[0].tick());
    }
    assert!(net.voters[0].term() > net.voters[1].term() + 4 * TERM_JUMP_MAX);
    net.ticks(400);
    let leader = net.leader().expect("two of three elect");
    net.voters[leader].propose(b"on".to_vec(), None).expect("a proposal");
    net.settle();
    for voter in 0..2 {
        assert!(net.committed[voter].iter().any(|entry| entry.command == b"on"), "voter {voter}");
    }
}

#[test]
fn a_read_is_answered_only_while_a_majority_follows() {
    let mut net = Net::new();
    net.ticks(60);
    let leader = net.leader().expect("somebody leads");
    net.voters[leader].read(b"now");
    net.settle();
    assert_eq!(net.reads[leader].len(), 1);
    net.cut.insert(u64::try_from(leader).expect("small") + 1);
    net.voters[leader].read(b"later");
    net.ticks(60);
    assert_eq!(net.reads[leader].len(), 1, "a leader without a majority answers nothing");
}

#[test]
fn a_message_of_somebody_elses_seat_is_refused() {
    let mut one = voter(1);
    let vote = ballot(BallotKind::Vote, 2, 1, 5);
    assert_eq!(one.step(3, &vote), Err(NotStepped::Seat), "the connection proved seat 3");
    assert_eq!(one.step(2, &Ballot { to: 9, ..vote.clone() }), Err(NotStepped::Seat));
    let far = Ballot { term: u64::MAX, ..vote };
    assert_eq!(one.step(2, &far), Err(NotStepped::Nonsense), "a term that would run over");
}

#[test]
fn what_a_voter_cannot_have_seen_is_not_stepped() {
    let mut one = voter(1);
    let heartbeat = Ballot { commit: 99, ..ballot(BallotKind::Heartbeat, 2, 1, 2) };
    assert_eq!(one.step(2, &heartbeat), Err(NotStepped::Nonsense), "a commit beyond the log");
    let entry = |index, term| LogEntry { index, term, change: None, command: Vec::new() };
    let append = |index, entries| Ballot { index, log_term: 1, entries, ..ballot(BallotKind::Append, 2, 1, 2) };
    assert_eq!(one.step(2, &append(1, vec![entry(3, 2)])), Err(NotStepped::Nonsense), "a gap");
    assert_eq!(one.step(2, &append(1, vec![entry(2, 7)])), Err(NotStepped::Nonsense), "an entry of the future");
    let rewritten = Ballot { log_term: 0, ..append(0, vec![entry(1, 2)]) };
    assert_eq!(one.step(2, &rewritten), Err(NotStepped::Nonsense), "what is committed is committed");
    assert_eq!(one.step(2, &append(1, vec![entry(2, 2)])), Ok(()));
}

#[test]
fn a_voter_stands_at_the_word_of_whom_it_follows_alone_and_takes_no_offence_at_others() {
    let mut one = voter(1);
    assert_eq!(one.step(3, &ballot(BallotKind::TimeoutNow, 3, 1, one.term())), Ok(()), "it has just started");
    let term = one.term() + 1;
    assert_eq!(one.step(3, &ballot(BallotKind::TimeoutNow, 3, 1, term)), Ok(()), "of a term that it has not heard of");
    assert!(one.term() < term && !one.is_leader(), "nor does it stand");
    assert_eq!(one.step(2, &ballot(BallotKind::Heartbeat, 2, 1, term)), Ok(()));
    assert_eq!(one.step(3, &ballot(BallotKind::TimeoutNow, 3, 1, term)), Ok(()), "of two it is unknown which one lies");
    assert_eq!(one.term(), term, "it does not stand");
    assert_eq!(one.step(2, &ballot(BallotKind::TimeoutNow, 2, 1, term)), Ok(()));
    assert!(one.term() > term, "it stands");
}

#[test]
fn a_voter_that_is_told_to_stand_in_a_far_term_still_goes_to_one_that_others_name() {
    let mut one = voter(1);
    let far = one.term() + 2 * TERM_STEP_MAX;
    assert_eq!(one.step(3, &ballot(BallotKind::TimeoutNow, 3, 1, far)), Ok(()));
    assert_eq!(one.step(2, &ballot(BallotKind::Heartbeat, 2, 1, far)), Ok(()));
    assert_eq!(one.term(), far, "a word that does not count spends no jump");
}

#[test]
fn a_lost_hard_state_starts_no_voter() {
    let entry = LogEntry { index: 2, term: 1, change: None, command: Vec::new() };
    let log = Stretch { entries: vec![entry], ..Stretch::default() };
    assert!(Election::new(1, &[1, 2, 3], &[], &log, Hard::default(), [0; 32]).is_none(), "a gap");
    let hard = Hard { term: 3, vote: 0, commit: 7 };
    assert!(Election::new(1, &[1, 2, 3], &[], &Stretch::default(), hard, [0; 32]).is_none(), "the log is gone");
}

fn ballot(kind: BallotKind, from: u64, to: u64, term: u64) -> Ballot {
    Ballot {
        kind,
        from,
        to,
        term,
        log_term: 0,
        index: 0,
        entries: Vec::new(),
        commit: 0,
        commit_term: 0,
        reject: false,
        reject_hint: 0,
        context: Vec::new(),
    }
}

const KINDS: [BallotKind; 10] = [
    BallotKind::PreVote,
    BallotKind::PreVoteReply,
    BallotKind::Vote,
    BallotKind::VoteReply,
    BallotKind::Append,
    BallotKind::AppendReply,
    BallotKind::Heartbeat,
    BallotKind::HeartbeatReply,
    BallotKind::TimeoutNow,
    BallotKind::Snapshot,
];

/// Small numbers meet the log; the others are what a liar tries.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..8, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

fn change() -> impl Strategy<Value = Option<SeatChange>> {
    prop_oneof![
        3 => Just(None),
        1 => number().prop_map(|id| Some(SeatChange::Learner(id))),
        1 => number().prop_map(|id| Some(SeatChange::Voter(id))),
        1 => number().prop_map(|id| Some(SeatChange::Remove(id))),
    ]
}

fn entry() -> impl Strategy<Value = LogEntry> {
    (number(), number(), change()).prop_map(|(index, term, change)| LogEntry { index, term, change, command: vec![7] })
}

prop_compose! {
    fn hostile()(
        kind in 0_usize..10,
        from in 2_u64..=3,
        (term, log_term, index) in (number(), number(), number()),
        entries in proptest::collection::vec(entry(), 0..3),
        (commit, commit_term, reject, reject_hint) in (number(), number(), any::<bool>(), number()),
        context in proptest::collection::vec(any::<u8>(), 0..20),
    ) -> Ballot {
        Ballot { kind: KINDS[kind], from, to: 1, term, log_term, index, entries, commit, commit_term, reject,
            reject_hint, context }
    }
}

fn drain(voter: &mut Election) {
    while voter.has_ready() {
        let ready = voter.take_ready();
        for entry in &ready.committed {
            if entry.change.is_some() {
                voter.apply_change(None);
            }
            voter.applied(entry.index);
        }
        voter.persisted(ready.number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn p8_no_sequence_of_ballots_panics_a_voter(
        is_cut in any::<bool>(),
        ballots in proptest::collection::vec((hostile(), 0_usize..30), 1..12),
    ) {
        let mut one = if is_cut { cut_voter(1) } else { voter(1) };
        for (ballot, ticks) in ballots {
            let _taken_or_not = one.step(ballot.from, &ballot);
            drain(&mut one);
            for _ in 0..ticks {
                one.tick();
                drain(&mut one);
            }
        }
    }

    #[test]
    fn p8_no_sequence_of_ballots_panics_a_leader(
        is_cut in any::<bool>(),
        ballots in proptest::collection::vec((hostile(), 0_usize..4), 1..12),
    ) {
        let mut net = Net::new();
        net.ticks(60);
        let leader = net.leader().expect("somebody leads");
        let own = u64::try_from(leader).expect("small") + 1;
        if is_cut {
            for _ in 0..3 {
                net.voters[leader].propose(vec![1], None).expect("a proposal");
                net.settle();
            }
            net.voters[leader].forget_through(3);
        }
        for (ballot, ticks) in ballots {
            // Of the others, in the leader's own term where it is a small number: only that is acted on.
            let from = if ballot.from == own { 1 } else { ballot.from };
            let term = if ballot.term < 8 { net.voters[leader].term() } else { ballot.term };
            let one = &mut net.voters[leader];
            let _taken_or_not = one.step(from, &Ballot { from, to: own, term, ..ballot });
            drain(one);
            for _ in 0..ticks {
                one.tick();
                drain(one);
            }
        }
    }
}

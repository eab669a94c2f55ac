//! The mesh key stays out of the hands of a few domains, as the committee grows, shrinks and is given other members.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};

use spec::genesis::SignedGenesis;
use spec::host::{LocalCommand, LocalReply};
use spec::limits::{TESTNET_ABSENT_EPOCHS, TESTNET_REDEAL_EPOCHS};
use vouchsafe_sim::liar::{Liar, Lie};
use vouchsafe_sim::run::Run;
use vouchsafe_sim::scenario::Scenario;

const EPOCH_MS: u64 = 2_000;
const WAIT_MS: u64 = 100_000;

/// So many machines, of which none runs yet, in these domains.
fn machines(hosts: usize, domain_of: fn(usize) -> usize) -> (Run, SignedGenesis) {
    let scenario = Scenario::named("calm").expect("a scenario");
    let mut run = Run::new(&scenario, hosts, 11);
    run.domain_of = domain_of;
    run.set_up();
    let genesis = run.genesis(&scenario);
    (run, genesis)
}

/// How many shares of the mesh key each domain holds.
fn shares(run: &Run) -> BTreeMap<String, usize> {
    let records = run.records(0);
    let mut shares = BTreeMap::new();
    for host in &records.committee().expect("a committee").key.holders {
        *shares.entry(records.member(host).expect("a member").record().domain.clone()).or_default() += 1;
    }
    shares
}

fn crowded(run: &mut Run) -> Vec<String> {
    match run.ask(0, LocalCommand::Status, WAIT_MS) {
        Some(Ok(LocalReply::Status(status))) => status.key.expect("a key").crowded,
        other => panic!("no status: {other:?}"),
    }
}

#[test]
fn a_domain_that_sends_more_hosts_gets_no_majority_of_a_key_that_is_spread() {
    // North, east and south found it; then north sends two more.
    let (mut run, genesis) = machines(7, |number| [0, 1, 2, 0, 0, 1, 2][number % 7]);
    assert!((0..5).all(|number| run.enrol(number, &genesis)));
    run.settle(30 * EPOCH_MS);
    assert_eq!(shares(&run).into_values().collect::<Vec<_>>(), [1, 1, 1], "five seats could not be spread");
    assert!((5..7).all(|number| run.enrol(number, &genesis)));
    run.settle(30 * EPOCH_MS);
    let shares = shares(&run);
    assert_eq!(shares.values().sum::<usize>(), 5, "now they can");
    assert!(shares.values().all(|count| *count < 3), "{shares:?}");
    assert_eq!(crowded(&mut run), Vec::<String>::new());
}

#[test]
fn a_committee_that_was_crowded_is_spread_again_once_other_domains_are_there() {
    // South leaves, and no committee of three can be spread over two domains; then others come.
    let (mut run, genesis) = machines(6, |number| [0, 1, 2, 0, 3, 4][number % 6]);
    assert!((0..4).all(|number| run.enrol(number, &genesis)));
    run.settle(10 * EPOCH_MS);
    assert!(matches!(run.ask(2, LocalCommand::Leave, WAIT_MS), Some(Ok(LocalReply::Leaving))));
    run.settle(40 * EPOCH_MS);
    assert_eq!(crowded(&mut run), ["north"], "{:?}", shares(&run));
    assert!(run.enrol(4, &genesis));
    run.settle(40 * EPOCH_MS);
    assert_eq!(shares(&run).into_values().collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(crowded(&mut run), Vec::<String>::new());
    let committee = run.records(0).committee().expect("a committee");
    assert_eq!(committee.seats.len(), 3, "who made room is gone");
}

#[test]
fn a_committee_that_is_to_be_less_than_half_as_large_gets_there_in_steps() {
    // North has six hosts: of seven seats it takes all but one once south is gone, and three are enough when it is back.
    let (mut run, _) = machines(9, |number| [0, 1, 2, 0, 0, 0, 0, 0, 2][number % 9]);
    run.committee = 7;
    let genesis = run.genesis(&Scenario::named("calm").expect("a scenario"));
    assert!((0..8).all(|number| run.enrol(number, &genesis)));
    run.settle(10 * EPOCH_MS);
    assert!(matches!(run.ask(2, LocalCommand::Leave, WAIT_MS), Some(Ok(LocalReply::Leaving))));
    run.settle(60 * EPOCH_MS);
    assert_eq!(shares(&run).values().sum::<usize>(), 7, "no number can be spread over two domains");
    assert!(run.enrol(8, &genesis));
    run.settle(60 * EPOCH_MS);
    assert_eq!(shares(&run).into_values().collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(run.records(0).committee().expect("a committee").seats.len(), 3);
}

#[test]
fn whoever_never_takes_its_seat_keeps_nobody_else_from_it() {
    for liar in 3..6 {
        let (mut run, genesis) = machines(6, |number| number % 5);
        run.world.liar = Some(Liar::new(liar, Lie::NoSeat));
        assert!((0..6).all(|number| run.enrol(number, &genesis)));
        run.settle((TESTNET_ABSENT_EPOCHS + 40) * EPOCH_MS);
        let committee = run.records(0).committee().expect("a committee");
        let voters: BTreeSet<_> = committee.voters().into_iter().collect();
        assert_eq!(voters.len(), 5, "liar {liar}");
        let idle = run.host(liar).host();
        assert!(!voters.contains(idle), "liar {liar}");
    }
}

/// How many vote, and how many hold a share of the mesh key.
fn seats(run: &Run) -> (usize, usize) {
    let committee = run.records(0).committee().expect("a committee");
    (committee.voters().len(), committee.key.holders.len())
}

/// Two that sit crash, neither of them the first machine.
fn two_seated_die(run: &mut Run) -> Vec<usize> {
    let committee = run.records(0).committee().expect("a committee").voters();
    let hosts = 1..run.records(0).members().count();
    let dead: Vec<usize> = hosts.filter(|machine| committee.contains(run.host(*machine).host())).take(2).collect();
    dead.iter().for_each(|machine| run.world.crash(*machine));
    dead
}

#[test]
fn nobody_gets_a_vote_where_the_key_may_not_move_to_it() {
    // North, east and south found it; north sends another; then south is gone, and has not left.
    let (mut run, genesis) = machines(5, |number| [0, 1, 2, 0, 2][number % 5]);
    assert!((0..4).all(|number| run.enrol(number, &genesis)));
    run.settle(10 * EPOCH_MS);
    run.world.crash(2);
    run.settle((TESTNET_ABSENT_EPOCHS + 40) * EPOCH_MS);
    assert_eq!(seats(&run), (3, 3), "two of north could sign");
    // It has no share, and nothing depends on it.
    run.world.crash(3);
    let before = run.records(0).round();
    run.settle(10 * EPOCH_MS);
    assert!(run.records(0).round() > before, "two of the three that founded it go on");
    // After a power cut of all these two are enough.
    (0..2).for_each(|machine| run.world.crash(machine));
    (0..2).for_each(|machine| run.world.start(machine));
    let before = run.records(0).round();
    run.settle(20 * EPOCH_MS);
    assert!(run.records(0).round() > before, "after a power cut too");
    // South sends another, which takes the seat.
    assert!(run.enrol(4, &genesis));
    run.settle((TESTNET_ABSENT_EPOCHS + 40) * EPOCH_MS);
    let committee = run.records(0).committee().expect("a committee");
    let seated: Vec<_> = committee.seats.iter().map(|seat| seat.host).collect();
    assert!(seated.contains(run.host(4).host()), "{seated:?}");
    assert_eq!(seats(&run), (3, 3));
}

#[test]
fn where_fewer_can_sit_than_are_wanted_the_dead_go_all_the_same() {
    let (mut run, genesis) = machines(6, |number| number % 5);
    assert!((0..6).all(|number| run.enrol(number, &genesis)));
    run.settle(20 * EPOCH_MS);
    let dead = two_seated_die(&mut run);
    run.settle((TESTNET_ABSENT_EPOCHS + 40) * EPOCH_MS);
    // Of six, one more may be lost; with two dead voters beside them it may not.
    assert_eq!(seats(&run), (4, 4));
    dead.iter().for_each(|machine| run.world.start(*machine));
    run.settle(40 * EPOCH_MS);
    assert_eq!(seats(&run), (5, 5), "they are back");
    run.is_sound();
}

#[test]
fn while_one_takes_no_share_others_do_not_come_and_go_in_its_place() {
    // South is gone; north and east send one more each, and of four any two domains hold enough. East's takes no share.
    let (mut run, genesis) = machines(5, |number| [0, 1, 2, 0, 1][number % 5]);
    run.world.liar = Some(Liar::new(4, Lie::Mute));
    assert!((0..3).all(|number| run.enrol(number, &genesis)));
    run.world.crash(2);
    run.settle((TESTNET_ABSENT_EPOCHS + 10) * EPOCH_MS);
    for number in 3..5 {
        run.world.start(number);
        let command = run.joining(number, &genesis, |_| {}).expect("a ticket");
        assert!(matches!(run.ask(number, command, WAIT_MS), Some(Ok(LocalReply::Joined(_)))));
    }
    let half_an_hour = 1_800_000;
    run.settle(half_an_hour);
    let committee = run.records(0).committee().expect("a committee");
    // Both sit, fail, and go; again after two, four, eight and sixteen minutes.
    assert!(committee.attempts >= 2, "it was dealt to");
    assert!(committee.next_id <= 4 + 2 * 5, "{} seats were given", committee.next_id - 1);
    let before = run.records(0).round();
    run.settle(10 * EPOCH_MS);
    assert!(run.records(0).round() > before);
}

#[test]
fn the_largest_committee_replaces_two_at_once() {
    let (mut run, _) = machines(23, |number| number % 5);
    run.committee = 21;
    let genesis = run.genesis(&Scenario::named("calm").expect("a scenario"));
    // Each answers the challenges of a majority, one at a time, and is asked anew by all while it does.
    let outside: Vec<usize> = (0..23).filter(|number| !run.enrol(*number, &genesis)).collect();
    assert_eq!(outside, Vec::<usize>::new());
    let is_whole = |run: &mut Run| {
        run.settle(EPOCH_MS);
        seats(run) == (21, 21)
    };
    assert!((0..30).any(|_| is_whole(&mut run)));
    let before = run.records(0).committee().expect("a committee").clone();
    two_seated_die(&mut run);
    run.settle((TESTNET_ABSENT_EPOCHS + 20) * EPOCH_MS);
    let records = run.records(0);
    assert!(records.round().0 < before.dealt.0 + TESTNET_REDEAL_EPOCHS, "before the key moves since it is old");
    assert_eq!(seats(&run), (21, 21));
    let committee = records.committee().expect("a committee");
    assert_eq!(committee.seats.len(), 21);
    assert_eq!(before.voters().iter().filter(|host| committee.seat_of(host).is_none()).count(), 2, "the dead are gone");
}

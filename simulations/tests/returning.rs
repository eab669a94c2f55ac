//! A host whose disk is lost comes back with a ticket that names its machine: as itself, under new keys and a new seat.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::attest::tpm::EkPublic;
use spec::error::{Check, Failure};
use spec::genesis::SignedGenesis;
use spec::host::{LocalCommand, LocalReply, StatusReply};
use spec::limits::{TESTNET_ABSENT_EPOCHS, TESTNET_REDEAL_EPOCHS};
use spec::types::{CredentialId, Terms};
use vouchsafe_sim::run::Run;
use vouchsafe_sim::scenario::Scenario;

const EPOCH_MS: u64 = 2_000;

fn mesh(hosts: usize) -> (Run, SignedGenesis) {
    let scenario = Scenario::named("calm").expect("a scenario");
    let mut run = Run::new(&scenario, hosts, 41);
    run.set_up();
    let genesis = run.genesis(&scenario);
    let stranger = run.stranger();
    run.world.checkers.strangers.insert(stranger);
    assert!((0..=stranger).all(|number| run.enrol(number, &genesis)));
    run.settle(10 * EPOCH_MS);
    (run, genesis)
}

/// Loses a machine's disk and has it join again, with a ticket that names the machine or not.
fn comes_back(run: &mut Run, genesis: &SignedGenesis, machine: usize, named: bool) -> Result<LocalReply, Failure> {
    let mut random = vouchsafe_sim::random::Random::new(u64::try_from(99 + machine).expect("small"));
    run.world.machines[machine].wipe(&mut random);
    let ek = EkPublic::parse(&run.world.machines[machine].tpm.ek().public).expect("an EK").hash();
    let joining = run.joining(machine, genesis, |ticket| ticket.ek_hash = named.then_some(ek));
    run.world.start(machine);
    run.ask(machine, joining.expect("a ticket"), 100_000).expect("an answer")
}

fn applied(run: &Run, machine: usize) -> u64 {
    run.world.machines[machine].running.as_ref().map_or(0, |running| running.host.records().applied())
}

fn seats(run: &Run, machine: usize) -> Vec<(u64, bool)> {
    let records = run.records(0);
    let host = run.host(machine).host();
    let seats = records.committee().expect("a committee").seats.iter();
    seats.filter(|seat| seat.host == *host).map(|seat| (seat.id, seat.lost.is_some())).collect()
}

/// A host asks to leave; tells the check that keeps it, if one does.
fn kept(run: &mut Run, machine: usize) -> Option<Check> {
    match run.ask(machine, LocalCommand::Leave, 100_000).expect("an answer") {
        Ok(_) => None,
        Err(Failure::Refused(refused)) => Some(refused.check),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_host_does_not_leave_with_a_share_that_is_needed_because_another_came_back_without_its_own() {
    let (mut run, genesis) = mesh(7);
    let records = |run: &Run| run.records(0).clone();
    let host = |run: &Run, machine: usize| *run.host(machine).host();
    // 3 of 5 with all shares there: one may go.
    let terms = Terms::new(3, 5, 1).expect("sound terms");
    let signed = run.sign_value_under(terms, 0, "kept", b"what five hosts keep").expect("dealt");
    assert!(matches!(run.ask(0, signed.store(), 100_000), Some(Ok(LocalReply::Stored { .. }))));
    run.settle(4 * EPOCH_MS);
    let known = records(&run);
    let (_, credential) = known.credentials().iter().next().expect("a credential");
    assert_eq!(credential.flushed.len(), 5);
    let group = known.group(&credential.group).expect("a group").clone();
    let holders: Vec<usize> = (0..7).filter(|machine| group.holders.contains(&host(&run, *machine))).collect();
    let may_leave = |machine: &&usize| known.check_leaving(&host(&run, **machine)).is_ok();
    let leaves = *holders.iter().find(may_leave).expect("a holder that may leave");
    let lost = *holders.iter().find(|machine| **machine != leaves && **machine != 0).expect("another");
    comes_back(&mut run, &genesis, lost, true).expect("it is let in");
    run.settle(10 * EPOCH_MS);
    assert!(records(&run).credentials().iter().all(|(_, one)| one.group != group.id || one.flushed.len() < 5));
    assert_eq!(kept(&mut run, leaves), Some(Check::Floor), "three shares would be left of three");
}

/// Whether k hosts that did not lose their disks hold shares of it.
fn holders_left(run: &Run, id: &CredentialId, lost: &[usize]) -> bool {
    let host = |machine: usize| *run.host(machine).host();
    let lost: Vec<_> = lost.iter().map(|machine| host(*machine)).collect();
    let records = run.records(0);
    let credential = records.credential(id).expect("a credential");
    let group = records.group(&credential.group).expect("a group");
    let flushed = credential.flushed.iter().filter_map(|index| group.holder_of(*index));
    flushed.filter(|holder| !lost.contains(holder)).count() >= usize::from(group.terms.k)
}

#[test]
fn one_of_three_founders_comes_back_under_a_new_seat_and_the_key_moves() {
    let (mut run, genesis) = mesh(3);
    for _ in 0..6 {
        run.begin_put(0);
    }
    run.settle(2 * EPOCH_MS);
    let before = run.status(0);
    let old = seats(&run, 2);
    let back = comes_back(&mut run, &genesis, 2, true);
    assert!(matches!(back, Ok(LocalReply::Joined(_))), "{back:?}");
    run.settle(20 * EPOCH_MS);
    let (after, new) = (run.status(0), seats(&run, 2));
    assert!(new.len() == 1 && !new[0].1 && new[0].0 > old[0].0, "{new:?} after {old:?}");
    assert_eq!(after.committee.len(), 3);
    let epoch = |status: &StatusReply| status.key.as_ref().expect("a key").key_epoch;
    assert!(epoch(&after) > epoch(&before), "its share was lost: the key moved");
    assert_eq!(after.pins, before.pins, "and is the same");
    assert!(run.status(2).unlocked);
    // It votes and signs: with another away nothing goes on without it.
    run.world.crash(1);
    let recorded = applied(&run, 2);
    run.settle(10 * EPOCH_MS);
    assert!(applied(&run, 2) > recorded + 5, "{recorded} and {}", applied(&run, 2));
    run.world.start(1);
    run.settle(3 * EPOCH_MS);
    run.is_sound();
}

#[test]
fn hosts_come_back_one_after_the_other_and_what_was_stored_is_read_by_what_the_others_hold() {
    let (mut run, genesis) = mesh(7);
    for through in 0..6 {
        run.begin_put(through);
    }
    run.settle(2 * EPOCH_MS);
    let stored: Vec<_> = run.deposits.iter().filter(|one| one.acknowledged).map(|one| one.id).collect();
    assert!(stored.len() > 3);
    let voter = (1..7).find(|machine| !seats(&run, *machine).is_empty()).expect("a voter");
    let follower = (1..7).find(|machine| seats(&run, *machine).is_empty()).expect("a follower");
    for machine in [voter, follower] {
        let back = comes_back(&mut run, &genesis, machine, true);
        assert!(matches!(back, Ok(LocalReply::Joined(_))), "{back:?}");
        run.settle(20 * EPOCH_MS);
        assert!(run.status(machine).unlocked);
        assert!(seats(&run, machine).iter().all(|(_, lost)| !lost));
        assert_eq!(run.status(0).committee.len(), 5);
    }
    let left: Vec<_> = stored.iter().copied().filter(|id| holders_left(&run, id, &[voter, follower])).collect();
    assert!(!left.is_empty(), "what the others hold");
    for id in left {
        let read = run.ask(run.reader(), LocalCommand::Get(id), 50_000);
        assert!(matches!(read, Some(Ok(LocalReply::Secret(_)))), "{read:?}");
    }
    let before = run.deposits.len();
    for _ in 0..6 {
        run.begin_put(voter);
    }
    run.settle(5 * EPOCH_MS);
    assert!(run.deposits.iter().skip(before).any(|deposit| deposit.acknowledged));
    run.is_sound();
}

#[test]
fn a_ticket_that_names_no_machine_brings_no_member_back() {
    let (mut run, genesis) = mesh(5);
    let back = comes_back(&mut run, &genesis, 4, false);
    assert!(matches!(&back, Err(Failure::Refused(refused)) if refused.check == Check::EkKnown), "{back:?}");
}

#[test]
fn a_share_that_was_lost_is_dealt_anew_though_another_host_is_gone_and_nobody_takes_its_place() {
    let (mut run, genesis) = mesh(5);
    let before = run.records(0).committee().expect("a committee").dealt;
    // Who leads goes on leading: another would have to see for itself for how long somebody is absent.
    let followers: Vec<usize> = (1..5).filter(|machine| !run.status(*machine).coordinates).collect();
    run.world.crash(followers[0]);
    run.settle((TESTNET_ABSENT_EPOCHS + 2) * EPOCH_MS);
    comes_back(&mut run, &genesis, followers[1], true).expect("it is let in");
    run.settle(15 * EPOCH_MS);
    let records = run.records(0);
    let committee = records.committee().expect("a committee");
    assert!(
        committee.dealt > before && committee.dealt.0 < before.0 + TESTNET_REDEAL_EPOCHS,
        "{before:?}, {:?} in {:?}: not since it is old",
        committee.dealt,
        records.round()
    );
    assert!(committee.seats.iter().all(|seat| seat.lost.is_none()), "{:?}", committee.seats);
    assert_eq!((committee.voters().len(), committee.key.holders.len()), (4, 4));
}

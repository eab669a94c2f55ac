//! A leader that Raft would keep for ever, since its heartbeats are heard, and that is of no use: it hands the lead on. And
//! what wrong clocks cannot do.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::host::{LocalCommand, LocalReply};
use spec::limits::UNFIT_EPOCHS;
use vouchsafe_sim::run::Run;

const EPOCH_MS: u64 = 2_000;
const HOSTS: usize = 7;
/// Until a leader that does not stand has handed the lead on, and the next one is up to date.
const PATIENCE_MS: u64 = (UNFIT_EPOCHS + 4) * EPOCH_MS;

fn mesh(seed: u64) -> Run {
    Run::calm(HOSTS, seed, 20_000)
}

fn leaders(run: &mut Run) -> Vec<usize> {
    let leads = |run: &mut Run, machine: usize| match run.ask(machine, LocalCommand::Status, 20_000) {
        Some(Ok(LocalReply::Status(status))) => status.coordinates,
        other => panic!("no status: {other:?}"),
    };
    (0..HOSTS).filter(|machine| leads(run, *machine)).collect()
}

/// The newest round of which a header is known there, against the present one.
fn rounds_behind(run: &mut Run, machine: usize) -> u64 {
    let present = run.world.now_ms / EPOCH_MS + 1;
    let records = run.records(machine);
    present - records.header().expect("a header").round.0
}

fn puts_work(run: &mut Run, gateway: usize) {
    run.begin_put(gateway);
    run.settle(10_000);
    let last = run.deposits.last().expect("a put");
    assert!(last.acknowledged, "{:?}", last.failure);
}

/// Something happens to the leader that leaves its heartbeats alone.
fn goes_on_without_its_leader(seed: u64, what: impl FnOnce(&mut Run, usize)) {
    let mut run = mesh(seed);
    let leader = leaders(&mut run)[0];
    what(&mut run, leader);
    run.settle(PATIENCE_MS);
    assert!(!leaders(&mut run).contains(&leader), "seed {seed}");
    let other = (leader + 1) % HOSTS;
    assert!(rounds_behind(&mut run, other) <= 1, "seed {seed}");
    puts_work(&mut run, other);
    run.is_sound();
}

#[test]
fn a_leader_whose_clock_is_wrong_hands_the_lead_on() {
    for seed in 1..=3 {
        goes_on_without_its_leader(seed, |run, leader| {
            run.world.clocks_ahead_ms.insert(leader, 10 * EPOCH_MS);
        });
    }
}

#[test]
fn a_leader_whose_chip_fails_or_whose_measurements_changed_hands_the_lead_on() {
    for seed in 1..=3 {
        goes_on_without_its_leader(seed, |run, leader| run.world.machines[leader].tpm.fails = true);
        goes_on_without_its_leader(seed, |run, leader| run.world.machines[leader].tpm.extend(11));
    }
}

#[test]
fn a_leader_whose_disk_hangs_hands_the_lead_on() {
    for seed in 1..=3 {
        goes_on_without_its_leader(seed, |run, leader| {
            run.world.hanging_disks.insert(leader);
        });
    }
}

#[test]
fn whoever_has_no_seat_follows_the_next_leader_as_soon_as_there_is_one() {
    // At each tenth of a second of an epoch: what a follower asked of the one that is gone may have been lost with it.
    for phase in 0..20 {
        let mut run = mesh(4);
        run.settle(phase * 100);
        let leader = leaders(&mut run)[0];
        let records = |run: &Run, machine: usize| run.records(machine).clone();
        let committee = records(&run, leader).committee().expect("a committee").clone();
        let seated = |run: &Run, machine: usize| committee.seat_of(run.host(machine).host()).is_some();
        let before = records(&run, leader).header().expect("a header").round;
        // Nothing says that it is gone: what is sent to it is lost.
        run.world.cut_off.insert(leader);
        let voter = (0..HOSTS).find(|machine| *machine != leader && seated(&run, *machine)).expect("a voter");
        let closed = |run: &Run| records(run, voter).header().is_some_and(|header| header.round > before);
        while !closed(&run) {
            run.settle(20);
        }
        let record = records(&run, voter).applied();
        run.settle(300);
        for follower in (0..HOSTS).filter(|machine| !seated(&run, *machine)) {
            let applied = records(&run, follower).applied();
            assert!(applied >= record, "phase {phase}: host {follower} has {applied} of {record} records");
        }
    }
}

#[test]
fn most_clocks_jump_ahead_together_and_back_and_the_mesh_goes_on() {
    for seed in 1..=3 {
        let mut run = mesh(seed);
        for machine in 0..5 {
            run.world.clocks_ahead_ms.insert(machine, 3_600_000);
        }
        run.settle(10 * EPOCH_MS);
        run.world.clocks_ahead_ms.clear();
        run.settle(PATIENCE_MS);
        assert!(rounds_behind(&mut run, 0) <= 1, "seed {seed}: nobody signed a round of the wrong clocks");
        puts_work(&mut run, 0);
    }
}

#[test]
fn all_clocks_are_put_right_together_and_are_believed_after_a_while() {
    let mut run = mesh(1);
    for machine in 0..HOSTS + 2 {
        run.world.clocks_ahead_ms.insert(machine, 3_600_000);
    }
    run.settle(spec::limits::CLOCK_DOUBT_MS + PATIENCE_MS);
    let present = (run.world.now_ms + 3_600_000) / EPOCH_MS + 1;
    let records = run.records(0);
    assert!(present - records.header().expect("a header").round.0 <= 1);
}

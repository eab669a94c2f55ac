//! What a simulation must be able to show: the same run for the same seed, and a fault that was planted.

use vouchsafe_sim::run::{Run, run};
use vouchsafe_sim::scenario::Scenario;

#[allow(clippy::expect_used, reason = "a scenario that is not there is a failed test")]
fn outcome(scenario: &str, hosts: usize, seed: u64, planted: bool) -> vouchsafe_sim::run::Outcome {
    run(scenario, &Scenario::named(scenario).expect("a scenario of this name"), hosts, seed, planted)
}

#[test]
fn the_same_seed_twice_gives_the_same_trace_and_another_seed_another() {
    let (first, again) = (outcome("crash", 5, 7, false), outcome("crash", 5, 7, false));
    assert_eq!(first, again);
    assert_ne!(first.trace_hash, outcome("crash", 5, 8, false).trace_hash);
}

#[test]
fn without_faults_every_put_is_acknowledged() {
    for hosts in [5, 9, 20] {
        let calm = outcome("calm", hosts, 3, false);
        assert!(calm.ok, "{:?}", calm.findings);
        assert_eq!(calm.acknowledged, calm.puts);
    }
}

#[test]
fn p1_p3_hold_under_crashes_and_loss_for_100_seeds() {
    let mut acknowledged = 0;
    for seed in 1..=100 {
        let run = outcome("crash", 7, seed, false);
        assert!(run.ok, "sim run crash --hosts 7 --seed {seed}: {:?}", run.findings);
        acknowledged += run.acknowledged;
    }
    assert!(acknowledged > 800, "only {acknowledged} puts were acknowledged: the runs show nothing");
}

#[test]
fn p4_one_host_leads_a_term_and_nothing_is_lost_under_partitions_and_clock_jumps() {
    let mut acknowledged = 0;
    for seed in 1..=60 {
        let run = outcome("partition", 7, seed, false);
        assert!(run.ok, "sim run partition --hosts 7 --seed {seed}: {:?}", run.findings);
        acknowledged += run.acknowledged;
    }
    assert!(acknowledged > 800, "only {acknowledged} puts were acknowledged: the runs show nothing");
}

#[test]
fn nothing_is_lost_while_the_log_is_cut_again_and_again() {
    let mut acknowledged = 0;
    for seed in 1..=8 {
        let run = outcome("snapshots", 7, seed, false);
        assert!(run.ok, "sim run snapshots --hosts 7 --seed {seed}: {:?}", run.findings);
        acknowledged += run.acknowledged;
    }
    assert!(acknowledged > 300, "only {acknowledged} puts were acknowledged: the runs show nothing");
}

#[test]
fn the_committee_changes_and_the_key_moves_under_loss_and_partitions() {
    let (mut acknowledged, mut deals) = (0, 0);
    for seed in 1..=8 {
        let run = outcome("seats", 8, seed, false);
        assert!(run.ok, "sim run seats --hosts 8 --seed {seed}: {:?}", run.findings);
        acknowledged += run.acknowledged;
        deals += run.deals;
    }
    assert!(acknowledged > 400, "only {acknowledged} puts were acknowledged: the runs show nothing");
    assert!(deals >= 10, "the key moved {deals} times under faults: the runs show nothing");
}

#[test]
fn p3_holds_wherever_between_two_actions_a_host_crashes() {
    // Every 41st boundary here; `sim swarm boundaries` takes them all.
    let (mut crashed, mut acknowledged) = (0, 0);
    for boundary in (1..).step_by(41) {
        let run = outcome("boundaries", 5, boundary, false);
        assert!(run.ok, "sim run boundaries --hosts 5 --seed {boundary}: {:?}", run.findings);
        if run.crashes == 0 {
            break; // the load was over before that many actions
        }
        crashed += 1;
        acknowledged += run.acknowledged;
    }
    assert!(crashed > 20 && acknowledged > 20, "{crashed} crashes, {acknowledged} puts: the runs show nothing");
}

#[test]
fn a_host_that_acknowledges_before_the_flush_is_found() {
    let found = (1..=20).filter(|seed| !outcome("crash", 7, *seed, true).ok).count();
    assert!(found >= 4, "the planted fault was found by {found} of 20 seeds only");
}

#[test]
fn p3_finds_the_loss_itself_when_acknowledged_before_the_flush() {
    let lost = |seed| outcome("crash", 7, seed, true).findings.iter().any(|finding| finding.starts_with("P3"));
    assert!((1..=40).any(lost), "no seed shows a lost credential");
}

#[test]
fn some_order_explains_what_every_client_was_told() {
    let mut ended = 0;
    // In the next two the mesh key moved between a joiner's parts and its admission; in the last a voter that had just
    // started was told to stand for election.
    for seed in (1..=40).chain([50_019, 51_008, 80_632]) {
        let run = outcome("registers", 7, seed, false);
        assert!(run.ok, "sim run registers --hosts 7 --seed {seed}: {:?}", run.findings);
        ended += run.operations_ended;
    }
    assert!(ended > 1_600, "only {ended} operations ended: the histories show nothing");
}

#[test]
#[allow(clippy::expect_used, reason = "a scenario that is not there is a failed test")]
fn no_order_explains_a_history_with_an_acknowledged_write_that_was_lost() {
    let registers = Scenario::named("registers").expect("a scenario of this name");
    // Disks that lose the last two seconds, in order, and so many operations that somebody was told of what is lost.
    let slow_disks = Scenario { flush_ms: [2_000, 2_000], registers: 10, operations: 300, ..registers };
    let is_told = |seed| {
        let findings = run("registers", &slow_disks, 7, seed, true).findings;
        findings.iter().any(|finding| finding.contains("is not linearizable"))
    };
    let told = (1..=10).filter(|seed| is_told(*seed)).count();
    assert!(told >= 3, "{told} of 10 seeds show a history that nothing explains");
}

#[test]
fn hosts_that_have_more_under_way_than_any_mesh_are_a_finding() {
    let mut run = Run::calm(3, 1, 10_000);
    run.is_sound();
    run.world.under_way_max = 3;
    run.settle(10_000);
    let findings = run.world.checkers.findings();
    assert!(findings.iter().any(|finding| finding.starts_with("P8")), "{findings:?}");
}

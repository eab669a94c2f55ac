//! Binaries of two versions in one mesh: it goes on by the older one until everybody reads the next.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::genesis::PROTOCOL_VERSION;
use spec::host::{LocalCommand, LocalReply};
use vouchsafe_sim::run::Run;
use vouchsafe_sim::scenario::Scenario;

const HOSTS: usize = 5;
const NEXT: u16 = PROTOCOL_VERSION + 1;

fn mesh() -> Run {
    let scenario = Scenario::named("calm").expect("a scenario");
    let mut run = Run::new(&scenario, HOSTS, 21);
    assert!(run.enrol_all(&scenario));
    run
}

/// Stops a machine and starts it with another binary.
fn update(run: &mut Run, machine: usize, newest: u16) {
    run.world.crash(machine);
    run.world.machines[machine].newest = newest;
    run.settle(500);
    run.world.start(machine);
    run.settle(30_000);
}

/// By which version this machine reads the records, and up to which.
fn reads(run: &Run, machine: usize) -> (u16, u64) {
    let records = run.world.machines[machine].running.as_ref().expect("it runs").host.records();
    (records.protocol_version(), records.applied())
}

/// Of a few puts some want all five hosts, which are not always there.
fn put_and_get(run: &mut Run, through: usize) {
    let before = run.deposits.len();
    for _ in 0..12 {
        run.begin_put(through);
    }
    run.settle(10_000);
    let new = run.deposits.iter().skip(before).find(|deposit| deposit.acknowledged);
    let id = new.unwrap_or_else(|| panic!("nothing was stored through host {through}")).id;
    let read = run.ask(run.reader(), LocalCommand::Get(id), 100_000);
    assert!(matches!(read, Some(Ok(LocalReply::Secret(_)))), "{read:?}");
}

#[test]
fn a_mixed_pair_of_versions_works_by_the_older_one_until_everybody_reads_the_newer() {
    let mut run = mesh();
    for machine in 0..HOSTS + 2 {
        assert_eq!(reads(&run, (machine + 1) % HOSTS).0, PROTOCOL_VERSION, "{machine} of {HOSTS} are updated");
        put_and_get(&mut run, machine % HOSTS);
        update(&mut run, machine, NEXT);
    }
    run.settle(30_000);
    for machine in 0..HOSTS + 2 {
        assert_eq!(reads(&run, machine).0, NEXT);
    }
    put_and_get(&mut run, 2);
    let header = run.world.machines[0].running.as_ref().and_then(|running| running.host.records().header().cloned());
    assert_eq!(header.expect("a header").protocol_version, NEXT);
    assert!(run.world.checkers.findings().is_empty(), "{:?}", run.world.checkers.findings());
}

#[test]
fn a_binary_that_the_mesh_has_outgrown_stops_before_what_it_does_not_know() {
    let mut run = mesh();
    let old = 4;
    run.world.crash(old);
    for machine in (0..HOSTS + 2).filter(|machine| *machine != old) {
        update(&mut run, machine, NEXT);
    }
    assert_eq!(reads(&run, 0).0, PROTOCOL_VERSION, "a voter is away: it is waited for");
    run.settle(1_500_000);
    assert_eq!(reads(&run, 0).0, NEXT, "absent for long it has no seat: the others go on");
    // It does not guess what the newer records mean.
    let before = reads(&run, 1).1;
    run.world.start(old);
    run.settle(30_000);
    let (version, applied) = reads(&run, old);
    assert!(version == PROTOCOL_VERSION && applied < before, "it stopped at {applied}");
    match run.ask(old, LocalCommand::Status, 10_000) {
        Some(Ok(LocalReply::Status(status))) => assert_eq!(status.outgrown, Some(NEXT), "and says why"),
        other => panic!("no status: {other:?}"),
    }
    run.begin_put(old);
    put_and_get(&mut run, 1);
    assert!(!run.deposits[0].acknowledged, "nothing goes through it");
    update(&mut run, old, PROTOCOL_VERSION);
    assert_eq!(reads(&run, old), (version, applied), "nor after a restart");
    update(&mut run, old, NEXT);
    assert!(reads(&run, old).0 == NEXT && reads(&run, old).1 > before, "updated, it goes on");
    put_and_get(&mut run, old);
    assert!(run.world.checkers.findings().is_empty(), "{:?}", run.world.checkers.findings());
}

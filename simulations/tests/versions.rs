//! Binaries of two versions in one mesh: it goes on by the older one until everybody reads the next.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::cms::command::Command;
use spec::cms::election::LogEntry;
use spec::cms::records::{Effect, Records};
use spec::cms::version::VersionWord;
use spec::error::Check;
use spec::genesis::PROTOCOL_VERSION;
use spec::host::{LocalCommand, LocalReply};
use spec::suite::Fake;
use spec::types::{Ed25519Signature, HostId, Round};
use spec::wire;
use vouchsafe_sim::run::Run;

const HOSTS: usize = 5;
const NEXT: u16 = PROTOCOL_VERSION + 1;

fn mesh() -> Run {
    Run::calm(HOSTS, 21, 0)
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
    let records = run.records(machine);
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
    run.is_sound();
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
    run.is_sound();
}

/// A voter's word, as it gives it.
fn word(run: &Run, host: &HostId, version: u16, round: Round) -> VersionWord {
    let machines = &run.world.machines;
    let of = |machine: &&vouchsafe_sim::machine::Machine| {
        machine.running.as_ref().is_some_and(|running| running.host.host() == host)
    };
    let key = machines.iter().find(of).expect("its machine").transport_seed();
    let mesh = run.pins.as_ref().expect("pins").mesh;
    VersionWord::give(&Fake, &mesh, *host, version, round, &key).expect("a key")
}

/// What the records make of a leader's word that everybody reads the next version.
fn raise(records: &Records, version: u16, words: Vec<VersionWord>) -> Result<Effect, Check> {
    let mut records = records.clone();
    let entry = LogEntry {
        index: records.applied() + 1,
        term: records.term(),
        change: None,
        command: wire::encode(&Command::Version { version, words }),
    };
    let raised = records.raised_by(&Fake, &entry);
    let outcome = records.apply(&Fake, &entry);
    assert_eq!(raised.is_some(), outcome.is_ok(), "a binary stops before what would be applied, and nothing else");
    outcome
}

#[test]
fn a_leader_alone_does_not_raise_the_version() {
    let run = mesh();
    let records = run.records(0);
    let voters = records.committee().expect("a committee").voters();
    let round = records.round();
    let all = |version, round| voters.iter().map(|voter| word(&run, voter, version, round)).collect::<Vec<_>>();
    assert_eq!(raise(records, NEXT, all(NEXT, round)), Ok(Effect::VersionRaised(NEXT)));

    assert_eq!(raise(records, NEXT, Vec::new()), Err(Check::Version));
    let mut one_is_missing = all(NEXT, round);
    one_is_missing.pop();
    assert_eq!(raise(records, NEXT, one_is_missing.clone()), Err(Check::Version));
    let mut one_twice = one_is_missing;
    one_twice.push(one_twice[0].clone());
    assert_eq!(raise(records, NEXT, one_twice), Err(Check::Version));
    let mut one_forged = all(NEXT, round);
    one_forged[1].signature = Ed25519Signature([7; 64]);
    assert_eq!(raise(records, NEXT, one_forged), Err(Check::Version));
    let mut of_another = all(NEXT, round);
    of_another[1].signature = of_another[0].signature;
    assert_eq!(raise(records, NEXT, of_another), Err(Check::Version));
    assert_eq!(raise(records, NEXT, all(PROTOCOL_VERSION, round)), Err(Check::Version));
    let of_an_older_binary = all(NEXT, Round(round.0 - 4));
    assert_eq!(raise(records, NEXT, of_an_older_binary), Err(Check::Version));
    assert_eq!(raise(records, NEXT + 1, all(NEXT + 1, round)), Err(Check::Record));
}

//! What is asked twice is done once, whoever is asked the second time: a client whose answer got lost asks again.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::credential::head::{HeadVerified, SignedHead};
use spec::error::{Check, Failure};
use spec::host::{LocalCommand, LocalReply};
use spec::suite::Fake;
use spec::types::CredentialId;
use spec::wire::Message;
use vouchsafe_sim::run::Run;
use vouchsafe_sim::scenario::Scenario;

const WAIT_MS: u64 = 20_000;
const HOSTS: usize = 5;

fn mesh() -> Run {
    Run::calm(HOSTS, 7, WAIT_MS)
}

fn stored(run: &mut Run, through: usize, command: LocalCommand) -> u64 {
    match run.ask(through, command, WAIT_MS) {
        Some(Ok(LocalReply::Stored { version, .. })) => version,
        other => panic!("not stored: {other:?}"),
    }
}

/// Version and head number of what is recorded.
fn newest(run: &mut Run, id: &CredentialId) -> (u64, u64) {
    run.settle(5_000);
    let credential = run.records(0).credential(id).expect("it is there");
    (credential.head.head().version, credential.head.head().number)
}

fn id_of(run: &Run, head: &SignedHead) -> CredentialId {
    let mesh = run.pins.as_ref().expect("pins").mesh;
    HeadVerified::check(&Fake, &mesh, head).expect("a head").head().id()
}

#[test]
fn a_put_that_is_stored_through_two_hosts_is_one_version() {
    let mut run = mesh();
    let signed = run.sign_value(1, "twice", b"the first value of this").expect("dealt");
    let id = id_of(&run, &signed.head());
    assert_eq!(stored(&mut run, 1, signed.store()), 1);
    assert_eq!(stored(&mut run, 3, signed.store()), 1);
    assert_eq!(newest(&mut run, &id), (1, 1));
    let second = run.sign_value(2, "twice", b"and the second one").expect("dealt");
    assert_eq!(stored(&mut run, 2, second.store()), 2);
    // Whoever asks for the first once more hears that it was recorded, and it takes nothing back.
    let again = run.ask(4, signed.store(), WAIT_MS);
    assert!(!matches!(again, Some(Ok(LocalReply::Stored { version, .. })) if version != 1), "{again:?}");
    assert_eq!(newest(&mut run, &id), (2, 2));
}

#[test]
fn of_two_puts_that_replace_the_same_version_one_is_recorded_however_often_both_are_asked_for() {
    let mut run = mesh();
    let first = run.sign_value(1, "cas", b"the version that is there").expect("dealt");
    let id = id_of(&run, &first.head());
    stored(&mut run, 1, first.store());
    let one = run.sign_value(1, "cas", b"one that replaces it").expect("dealt");
    let other = run.sign_value(2, "cas", b"another that replaces it").expect("dealt");
    assert_eq!(stored(&mut run, 1, one.store()), 2);
    for through in [2, 3] {
        match run.ask(through, other.store(), WAIT_MS) {
            Some(Err(Failure::Refused(refused))) => assert_eq!(refused.check, Check::HeadOrder),
            reply => panic!("{reply:?}"),
        }
        assert_eq!(stored(&mut run, through, one.store()), 2);
    }
    assert_eq!(newest(&mut run, &id), (2, 2));
}

#[test]
fn a_removal_that_is_asked_for_through_two_hosts_is_one_head() {
    let mut run = mesh();
    let signed = run.sign_value(1, "gone", b"a value that goes").expect("dealt");
    let id = id_of(&run, &signed.head());
    stored(&mut run, 1, signed.store());
    let Some(LocalCommand::Change(removal)) = run.removal(&signed.head()) else { panic!("a head") };
    for through in [1, 3, 4] {
        let reply = run.ask(through, LocalCommand::Change(removal.clone()), WAIT_MS);
        assert!(matches!(reply, Some(Ok(LocalReply::Changed { .. }))), "{through}: {reply:?}");
    }
    run.settle(5_000);
    let head = run.records(0).credential(&id).expect("its head is kept").head.head().clone();
    assert!(head.removed);
    assert_eq!(head.number, 2);
}

#[test]
fn an_admission_that_is_brought_twice_is_one_member() {
    let scenario = Scenario::named("calm").expect("a scenario");
    let mut run = Run::new(&scenario, HOSTS, 7);
    run.set_up();
    let genesis = run.genesis(&scenario);
    assert!((0..4).all(|number| run.enrol(number, &genesis)));
    run.settle(WAIT_MS);
    run.world.start(4);
    let command = run.joining(4, &genesis, |_| {}).expect("a ticket");
    run.world.command(4, command).expect("it runs");
    let brought = run.overhear(|_, message| matches!(message, Message::EnrolAdmit { .. }).then_some(message));
    let admission = brought.expect("an admission");
    run.settle(WAIT_MS);
    let leads = |run: &mut Run, machine: usize| match run.ask(machine, LocalCommand::Status, WAIT_MS) {
        Some(Ok(LocalReply::Status(status))) => status.coordinates,
        other => panic!("no status: {other:?}"),
    };
    let leader = (0..4).find(|machine| leads(&mut run, *machine)).expect("somebody leads");
    let members = run.records(0).members().count();
    assert_eq!(members, 5);
    let applied = run.records(0).applied();
    let joiner = run.world.machines[4].transport;
    run.world.inject(leader, joiner, admission);
    let told = run.overhear(|to, message| (to == 4 && matches!(message, Message::EnrolAdmitted)).then_some(()));
    assert!(told.is_some(), "it hears the same again");
    assert_eq!(run.records(0).members().count(), members);
    assert!(run.records(0).applied() <= applied + 3, "headers of the meantime alone");
}

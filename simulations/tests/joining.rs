//! Who would join hears a committee of which one lies.

#![allow(clippy::expect_used, clippy::panic, reason = "a test stops at the first surprise")]

use spec::error::Failure;
use spec::genesis::SignedGenesis;
use spec::host::{LocalCommand, LocalReply};
use spec::types::{BlsSignature, RequestId, ShareIndex};
use spec::wire::Message;
use vouchsafe_sim::liar::{Liar, Lie};
use vouchsafe_sim::run::Run;
use vouchsafe_sim::scenario::Scenario;

const HOSTS: usize = 7;
const WAIT_MS: u64 = 100_000;

fn mesh_of_five() -> (Run, SignedGenesis) {
    let scenario = Scenario::named("calm").expect("a scenario");
    let mut run = Run::new(&scenario, HOSTS, 7);
    run.set_up();
    let genesis = run.genesis(&scenario);
    assert!((0..5).all(|number| run.enrol(number, &genesis)));
    run.settle(WAIT_MS);
    (run, genesis)
}

#[test]
fn no_single_one_of_the_committee_keeps_a_joiner_out() {
    for liar in 0..5 {
        let (mut run, genesis) = mesh_of_five();
        run.world.liar = Some(Liar::new(liar, Lie::KeepsOut));
        for joiner in 5..HOSTS {
            assert!(run.enrol(joiner, &genesis), "liar {liar}");
        }
        assert!((0..5).all(|machine| run.records(machine).members().count() == HOSTS), "liar {liar}");
    }
}

#[test]
fn whoever_was_told_falsely_that_it_is_in_may_join_again() {
    let (mut run, genesis) = mesh_of_five();
    run.world.start(5);
    let command = run.joining(5, &genesis, |_| {}).expect("a ticket");
    let LocalCommand::Join { ticket, .. } = &command else { panic!("a joining") };
    let again = || LocalCommand::Join { ticket: ticket.clone(), address: None };
    run.world.cut_off.insert(5);
    run.world.command(5, again()).expect("it runs");
    run.settle(1_000);
    let liar = ticket.ticket().expect("a ticket").contacts.first().expect("somebody to ask").transport;
    let pins = run.pins.clone().expect("pins");
    run.world.inject(5, liar, Message::EnrolCommittee { pins, committee: Vec::new() });
    run.world.inject(5, liar, Message::EnrolAdmitted);
    run.settle(WAIT_MS);
    run.world.crash(5);
    run.world.start(5);
    run.world.cut_off.remove(&5);
    let answer = run.ask(5, again(), WAIT_MS);
    assert!(matches!(answer, Some(Ok(LocalReply::Joined(_)))), "{answer:?}");
    let answer = run.ask(5, again(), WAIT_MS);
    assert!(matches!(answer, Some(Err(Failure::Membership(_)))), "{answer:?}");
}

#[test]
fn a_joiner_whose_ticket_pins_the_key_takes_nobodys_word_that_the_mesh_is_forming() {
    let (mut run, genesis) = mesh_of_five();
    run.world.start(5);
    let command = run.joining(5, &genesis, |_| {}).expect("a ticket");
    let LocalCommand::Join { ticket, .. } = &command else { panic!("a joining") };
    let ticket = ticket.clone();
    run.world.command(5, command).expect("it runs");
    for machine in 0..5 {
        let liar = run.world.machines.get(machine).expect("a machine").transport;
        run.world.inject(5, liar, Message::EnrolForming { genesis: genesis.clone(), known: 1 });
    }
    assert_eq!(run.status(5).forming, None);
    run.settle(WAIT_MS);
    assert!(run.records(0).members().count() == 6, "it is in all the same");
    let answer = run.ask(5, LocalCommand::Join { ticket, address: None }, WAIT_MS);
    assert!(matches!(answer, Some(Err(Failure::Membership(_)))), "{answer:?}");
}

#[test]
fn a_member_that_sends_false_parts_keeps_no_joiner_out() {
    let (mut run, genesis) = mesh_of_five();
    let liar = run.world.machines[1].transport;
    let joiner = 5;
    run.world.start(joiner);
    let command = run.joining(joiner, &genesis, |_| {}).expect("an identity");
    let asked = run.world.command(joiner, command).expect("it runs");
    let key_epoch = run.status(0).key.expect("a key").key_epoch;
    let mut admitted = false;
    for _ in 0..2_000 {
        for index in 1..=5 {
            let part = BlsSignature([index; 48]);
            let lie = Message::EnrolPart { key_epoch, t: 1, index: ShareIndex(index), part };
            run.world.inject(joiner, liar, lie);
        }
        let until = run.world.now_ms + 10;
        run.world.run_until(until);
        while let Some(answer) = run.world.answers.pop_front() {
            assert!(answer.id != asked || answer.reply.is_ok(), "{:?}", answer.reply);
            admitted |= answer.id == asked;
        }
    }
    assert!(admitted, "the joiner is in");
}

#[test]
fn an_admission_that_a_stranger_brings_is_refused() {
    let (mut run, _) = mesh_of_five();
    let records = run.records(0);
    let mut record = records.members().next().expect("a member").record().clone();
    let before = records.members().count();
    let key = run.world.machines[6].transport;
    (record.host.0[0], record.ticket.0[0], record.name) = (!record.host.0[0], !record.ticket.0[0], "new".to_owned());
    record.eks.clear();
    (record.transport, record.vote.0[0], record.ak[9]) = (key, !record.vote.0[0], !record.ak[9]);
    for machine in 0..5 {
        let (request, parts) = (RequestId([7; 16]), vec![(ShareIndex(1), BlsSignature::ZERO)]);
        let lie = Message::EnrolAdmit { request, record: Box::new(record.clone()), parts };
        run.world.inject(machine, key, lie);
    }
    run.settle(WAIT_MS);
    let after = run.records(0).members().count();
    assert_eq!(before, after);
}

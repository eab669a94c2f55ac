//! Hosts that leave: seat, share and duties go to others first; nobody is sent away by others, and nothing is left with
//! too few holders.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::cms::members::LeavingWord;
use spec::error::{Check, Failure};
use spec::host::{LocalCommand, LocalReply, StatusReply};
use spec::limits::HAND_ON_MS;
use spec::types::{Ed25519Signature, RequestId, Round};
use spec::wire::Message;
use vouchsafe_sim::run::Run;

const WAIT_MS: u64 = 100_000;

fn mesh(hosts: usize) -> Run {
    Run::calm(hosts, 7, 30_000)
}

fn leader(run: &mut Run) -> Option<usize> {
    (0..7).find(|machine| run.world.machines[*machine].running.is_some() && run.status(*machine).coordinates)
}

fn leave(run: &mut Run, machine: usize) -> Result<LocalReply, Failure> {
    run.ask(machine, LocalCommand::Leave, WAIT_MS).expect("an answer")
}

#[test]
fn seated_hosts_leave_one_after_the_other_the_leader_too_and_the_key_stays() {
    let mut run = mesh(7);
    let key = run.pins.as_ref().and_then(|pins| pins.key);
    for _ in 0..4 {
        let leader = leader(&mut run).expect("somebody leads");
        let epoch = run.status(leader).key.expect("a key").key_epoch;
        assert!(matches!(leave(&mut run, leader), Ok(LocalReply::Leaving)));
        run.settle(60_000);
        let gone = run.status(leader);
        assert!(gone.left && !gone.leaving, "host {leader} left");
        run.world.crash(leader);
        let next = self::leader(&mut run).expect("another leads");
        let next = run.status(next);
        assert!(gone.records + 10 < next.records, "who left learns nothing that came after");
        assert!(next.key.expect("a key").key_epoch > epoch, "old shares sign no more");
        assert_eq!(next.pins.and_then(|pins| pins.key), key);
    }
    // Three are left of seven: a mesh that small cannot spare another.
    let last = (0..7).find(|machine| run.world.machines[*machine].running.is_some()).expect("somebody is left");
    assert_eq!(run.status(last).committee.len(), 3);
    assert!(matches!(leave(&mut run, last), Err(Failure::Refused(refused)) if refused.check == Check::Floor));
    run.is_sound();
}

#[test]
fn hosts_that_leave_together_are_let_go_though_they_are_half_of_the_committee() {
    // Three of five seats; all of five whose places five others take; all three of the smallest mesh.
    for (hosts, gone) in [(7, 3), (10, 5), (6, 3)] {
        let mut run = mesh(hosts);
        let seated = run.status(0).committee;
        let name = |run: &mut Run, machine: usize| run.status(machine).member.expect("a member").name;
        let leaving: Vec<usize> =
            (0..hosts).filter(|machine| seated.contains(&name(&mut run, *machine))).take(gone).collect();
        for machine in &leaving {
            assert!(matches!(leave(&mut run, *machine), Ok(LocalReply::Leaving)), "{machine} of {hosts}");
        }
        run.settle(200_000);
        for machine in &leaving {
            assert!(run.status(*machine).left, "{machine} of {hosts}");
            run.world.crash(*machine);
        }
        let stays = (0..hosts).find(|machine| !leaving.contains(machine)).expect("somebody stays");
        let before = run.records(stays).round();
        run.settle(20_000);
        let records = run.records(stays);
        assert!(records.round() > before, "{hosts} hosts: the others go on");
        let committee = records.committee().expect("a committee");
        assert_eq!(committee.voters(), committee.key.holders, "{hosts} hosts");
        assert_eq!(committee.seats.len(), records.wanted_seats(), "{hosts} hosts");
        run.is_sound();
    }
}

#[test]
fn a_seated_host_that_was_replaced_while_it_was_away_comes_back_as_a_follower() {
    let mut run = mesh(6);
    let leads = leader(&mut run).expect("somebody leads");
    let seated = |status: &StatusReply| status.member.as_ref().is_some_and(|own| status.committee.contains(&own.name));
    let away = (0..6).find(|machine| *machine != leads && seated(&run.status(*machine))).expect("a voter");
    run.world.crash(away);
    // More records than one page holds before its seat goes: the first page that it pulls says that it sits there still.
    for number in 0..300 {
        run.begin_put((leads + number) % 6);
        run.settle(300);
    }
    run.settle(1_500_000);
    let before = run.status(leads);
    run.world.start(away);
    run.settle(60_000);
    let back = run.status(away);
    assert!(!seated(&back), "another has its seat");
    run.is_sound();
    assert!(back.records > before.records && back.unlocked && back.header == run.status(leads).header);
}

#[test]
fn a_leader_that_is_told_to_end_hands_its_lead_on_before() {
    let mut run = mesh(5);
    for _ in 0..3 {
        let old = leader(&mut run).expect("somebody leads");
        let asked = run.world.now_ms;
        assert!(matches!(run.ask(old, LocalCommand::End, WAIT_MS), Some(Ok(LocalReply::Ended))));
        run.world.crash(old);
        run.settle(400);
        assert!(run.world.now_ms - asked < HAND_ON_MS, "sooner than anybody would stand for election");
        let next = leader(&mut run).expect("another leads");
        run.begin_put((next + 1) % 5);
        run.world.start(old);
        run.settle(30_000);
    }
    // Who does not lead ends at once, and so does one whom nobody hears, a little later.
    let leads = leader(&mut run).expect("somebody leads");
    let asked = run.world.now_ms;
    assert!(matches!(run.ask((leads + 1) % 5, LocalCommand::End, WAIT_MS), Some(Ok(LocalReply::Ended))));
    assert_eq!(run.world.now_ms, asked);
    run.world.cut_off.insert(leads);
    assert!(matches!(run.ask(leads, LocalCommand::End, WAIT_MS), Some(Ok(LocalReply::Ended))));
    assert!(run.world.now_ms - asked <= HAND_ON_MS + 1);
}

#[test]
fn a_host_whose_share_is_needed_does_not_leave_until_the_credential_is_gone() {
    let mut run = mesh(5);
    for gateway in 0..5 {
        run.begin_put(gateway);
        run.settle(10_000);
    }
    assert!(run.deposits.iter().all(|deposit| deposit.acknowledged));
    let records = |machine: usize| run.records(machine);
    let falls = |group: &&spec::cms::groups::Group| group.holders.len() - 1 < usize::from(group.terms.k) + 1;
    let needed = records(0).groups().find(falls).expect("a group that can spare nobody").holders[0];
    let host = |machine: usize| *run.host(machine).host();
    let holder = (0..5).find(|machine| host(*machine) == needed).expect("a holder");
    let refused = leave(&mut run, holder);
    assert!(matches!(&refused, Err(Failure::Refused(refused)) if refused.check == Check::Floor), "{refused:?}");
}

#[test]
fn nobody_sends_another_away() {
    let mut run = mesh(5);
    let thief = run.world.machines[1].transport;
    for machine in 0..5 {
        let word = LeavingWord { round: Round(1), signature: Ed25519Signature([7; 64]) };
        run.world.inject(machine, thief, Message::LeaveRequest { request: RequestId([9; 16]), word });
    }
    run.settle(30_000);
    assert!((0..5).all(|machine| !run.status(machine).leaving));
    assert_eq!(run.records(0).members().count(), 7);
}

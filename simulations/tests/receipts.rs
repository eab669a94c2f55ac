//! Whoever leads records no value of which its holders have not said that they keep it, and keep it still.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::beacon::EpochVerified;
use spec::cms::command::Command;
use spec::cms::election::LogEntry;
use spec::cms::records::{Effect, Records};
use spec::credential::head::SignedHead;
use spec::credential::receipt::{Flushed, PutReceipt, Value};
use spec::error::Check;
use spec::host::{LocalCommand, LocalReply};
use spec::limits::{GROUPS_MAX, PUT_EPOCHS};
use spec::suite::Fake;
use spec::types::{Round, ShareIndex};
use spec::wire::{self, Message};
use vouchsafe_sim::run::Run;

fn mesh() -> Run {
    Run::calm(5, 7, 20_000)
}

/// What a leader could propose at any time.
fn recorded(records: &Records, command: &Command) -> Result<Effect, Check> {
    let (index, term) = (records.applied() + 1, records.term());
    records.clone().apply(&Fake, &LogEntry { index, term, change: None, command: wire::encode(command) })
}

/// A put whose gateway goes away before the record is asked for: what its holders signed.
fn failed_put(run: &mut Run) -> (SignedHead, Vec<PutReceipt>) {
    let gateway = run.reader();
    run.begin_put(gateway);
    let asked = run.overhear(|_, message| match message {
        Message::PutRecord { head, receipts, .. } => Some((head, receipts)),
        _ => None,
    });
    run.world.cut_off.insert(gateway);
    asked.expect("the record was asked for")
}

fn command(head: &SignedHead, receipts: &[PutReceipt], change: impl Fn(&mut Vec<Flushed>)) -> Command {
    let PutReceipt { group, generation, commitments, .. } = receipts[0];
    let mut flushed: Vec<Flushed> = receipts.iter().map(Flushed::from).collect();
    change(&mut flushed);
    Command::Head { head: head.clone(), value: Value { group, generation, commitments, flushed } }
}

#[test]
fn a_leader_records_a_put_only_on_the_word_of_its_holders() {
    let mut run = mesh();
    let (head, receipts) = failed_put(&mut run);
    let records = run.records(0);
    let made_up = |change: &dyn Fn(&mut Vec<Flushed>)| recorded(records, &command(&head, &receipts, change));
    assert!(matches!(made_up(&|_| {}), Ok(Effect::HeadRecorded(_))), "the holders' own words are good");
    assert_eq!(made_up(&|flushed| flushed[0].signature = flushed[1].signature), Err(Check::Receipts));
    assert_eq!(made_up(&|flushed| flushed[0].round = Round(flushed[0].round.0 + 1)), Err(Check::Receipts));
    assert_eq!(made_up(&|flushed| flushed.truncate(1)), Err(Check::Receipts));
    assert_eq!(made_up(&|flushed| flushed[1] = flushed[0].clone()), Err(Check::Receipts));
    assert_eq!(made_up(&|flushed| flushed[0].index = ShareIndex(32)), Err(Check::Receipts));
    assert_eq!(made_up(&Vec::clear), Err(Check::Expired));
}

#[test]
fn a_put_that_failed_cannot_be_recorded_once_its_holders_have_made_room() {
    let mut run = mesh();
    let (head, receipts) = failed_put(&mut run);
    let before = run.records(0).round();
    while run.records(0).round().0 <= before.0 + PUT_EPOCHS + 1 {
        run.settle(1_000);
    }
    let records = run.records(0);
    assert_eq!(recorded(records, &command(&head, &receipts, |_| {})), Err(Check::Expired));
    // A leader cannot make the receipts younger.
    let younger = |flushed: &mut Vec<Flushed>| flushed.iter_mut().for_each(|one| one.round = records.round());
    assert_eq!(recorded(records, &command(&head, &receipts, younger)), Err(Check::Receipts));
}

#[test]
fn a_group_in_which_no_value_lies_makes_room_for_the_next() {
    let mut run = mesh();
    run.begin_put(0);
    run.settle(10_000);
    assert!(run.deposits[0].acknowledged);
    let Some(Ok(LocalReply::Beacon(beacon))) = run.ask(0, LocalCommand::Beacon(None), 10_000) else {
        panic!("no beacon")
    };
    let mut records = run.records(0).clone();
    let key = records.mesh_key().expect("founded");
    let epoch = EpochVerified::check(&Fake, &key, &beacon).expect("its signature holds");
    let used = records.credential(&run.deposits[0].id).expect("a credential").group;
    let terms = records.group(&used).expect("a group").terms;
    let mut first = None;
    for _ in 0..=GROUPS_MAX {
        let group = records.draw(terms, &epoch, &[]).expect("there is room");
        first.get_or_insert(group.id);
        let command = wire::encode(&Command::Group { group, beacon: beacon.clone(), absent: Vec::new() });
        let (index, term) = (records.applied() + 1, records.term());
        let applied = records.apply(&Fake, &LogEntry { index, term, change: None, command });
        assert!(matches!(applied, Ok(Effect::GroupActive(_))), "{applied:?}");
    }
    assert_eq!(records.groups().count(), GROUPS_MAX);
    assert!(records.group(&used).is_some(), "a value lies in it");
    assert!(records.group(&first.expect("one was drawn")).is_none(), "the oldest that is empty goes");
}

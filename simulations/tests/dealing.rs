//! The mesh key moves though one of its holders lies: the liar is named, the honest rest finishes, nobody else is blamed.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;

use spec::credential::dealing::Ceremony;
use spec::error::Check;
use spec::host::{LocalCommand, LocalReply};
use spec::limits::DEALING_MS;
use vouchsafe_sim::liar::{Liar, Lie};
use vouchsafe_sim::run::Run;
use vouchsafe_sim::scenario::Scenario;

const HOSTS: usize = 5;
const EPOCH_MS: u64 = 2_000;

/// Five hosts; one of the three founders lies.
fn enrolled_with(lie: Lie, seed: u64, loss_percent: u64) -> Run {
    let mut scenario = Scenario::named("calm").expect("a scenario");
    scenario.loss_percent = loss_percent;
    let mut run = Run::new(&scenario, HOSTS, seed);
    run.world.liar = Some(Liar::new(usize::try_from(seed % 3).expect("a founder"), lie));
    assert!(run.enrol_all(&scenario), "{lie:?} {seed}");
    run.world.faults = loss_percent > 0;
    run
}

/// Three deal to five, and a day later five to five.
fn deal_with(lie: Lie, seed: u64, loss_percent: u64) -> Run {
    let mut run = enrolled_with(lie, seed, loss_percent);
    run.settle(100 * EPOCH_MS);
    run
}

fn key_epoch(run: &mut Run, machine: usize) -> u64 {
    match run.ask(machine, LocalCommand::Status, 10_000) {
        Some(Ok(LocalReply::Status(status))) => status.key.expect("a key").key_epoch,
        other => panic!("no status: {other:?}"),
    }
}

#[test]
fn a_lying_dealer_is_named_by_the_honest_receivers_and_the_rest_finish() {
    let lies = [
        (Lie::WrongShare, Check::Share),
        (Lie::WrongDegree, Check::Deal),
        (Lie::StaleShare, Check::Deal),
        (Lie::TwoDeals, Check::DealTwice),
    ];
    for ((lie, check), seed) in lies.into_iter().flat_map(|lie| (1..=3).map(move |seed| (lie, seed))) {
        let mut run = deal_with(lie, seed, 0);
        let liar = run.world.liar.as_ref().expect("a liar").machine;
        let honest: BTreeSet<usize> = (0..HOSTS).filter(|machine| *machine != liar).collect();
        let named: BTreeSet<usize> = run.world.named.iter().map(|(by, ..)| *by).collect();
        // One to whom the lie came when the dealing was over, without that dealer, has nothing to say of it.
        assert!(named.is_subset(&honest) && named.len() + 1 >= honest.len(), "{lie:?} {seed}: by {named:?}");
        // To itself it is honest: a leader to whom it acknowledges that deal sees two.
        let fits = |why: Check| why == check || why == Check::DealTwice;
        assert!(run.world.named.iter().all(|(.., why)| fits(*why)), "{lie:?} {seed}: {:?}", run.world.named);
        assert!(run.world.named.iter().any(|(.., why)| *why == check), "{lie:?} {seed}");
        assert!(run.world.checkers.findings().is_empty(), "{lie:?} {seed}: {:?}", run.world.checkers.findings());
        assert!(key_epoch(&mut run, (liar + 1) % 3) >= 3, "{lie:?} {seed}: the key moved twice");
    }
}

#[test]
fn a_receiver_that_does_not_say_what_it_holds_is_left_out_of_the_next_dealing() {
    for (lie, seed) in [Lie::Mute, Lie::HoldsOne].into_iter().flat_map(|lie| (1..=3).map(move |seed| (lie, seed))) {
        let mut run = deal_with(lie, seed, 0);
        let liar = run.world.liar.as_ref().expect("a liar").machine;
        assert!(run.world.checkers.findings().is_empty(), "{lie:?} {seed}: {:?}", run.world.checkers.findings());
        assert!(key_epoch(&mut run, (liar + 1) % 3) >= 2, "{lie:?} {seed}: the key moved");
    }
}

/// The dealing that is under way.
fn dealing(run: &Run, machine: usize) -> Option<Ceremony> {
    let running = run.world.machines[machine].running.as_ref().expect("it runs");
    running.host.records().committee().and_then(|committee| committee.dealing.clone())
}

#[test]
fn a_liar_that_goes_away_whenever_its_dealing_is_given_up_holds_up_ever_fewer() {
    let mut run = enrolled_with(Lie::Mute, 2, 0);
    let liar = run.world.liar.as_ref().expect("a liar").machine;
    let honest = (liar + 1) % 3;
    // One that leads tells itself what it holds: another is to lead.
    run.world.crash(liar);
    run.settle(10_000);
    run.world.start(liar);
    let mut given_up = 0;
    let until = run.world.now_ms + 600_000;
    while run.world.now_ms < until {
        run.settle(100);
        let Some(ceremony) = dealing(&run, honest) else { continue };
        run.settle(DEALING_MS - 3_000);
        if dealing(&run, honest).as_ref() == Some(&ceremony) {
            run.world.crash(liar);
            run.settle(5_000);
            run.world.start(liar);
            given_up += 1;
        }
    }
    assert!((1..=3).contains(&given_up), "{given_up} dealings in ten minutes");
    assert!(key_epoch(&mut run, honest) >= 4, "the key moves");
    run.is_sound();
}

#[test]
fn messages_that_get_lost_make_no_liar_of_an_honest_dealer() {
    let lies = [Lie::WrongShare, Lie::WrongDegree, Lie::StaleShare, Lie::TwoDeals, Lie::Silent, Lie::BadSeal];
    for (seed, lie) in (4..).zip(lies) {
        let mut run = deal_with(lie, seed, 10);
        let liar = run.world.liar.as_ref().expect("a liar").machine;
        assert!(run.world.checkers.findings().is_empty(), "{lie:?} {seed}: {:?}", run.world.checkers.findings());
        assert!(key_epoch(&mut run, (liar + 1) % 3) >= 3, "{lie:?} {seed}: the key moved twice");
    }
}

#[test]
fn a_dealer_that_says_nothing_or_nothing_that_opens_holds_nobody_up() {
    for (lie, seed) in [Lie::Silent, Lie::BadSeal].into_iter().flat_map(|lie| (1..=3).map(move |seed| (lie, seed))) {
        let mut run = deal_with(lie, seed, 0);
        let liar = run.world.liar.as_ref().expect("a liar").machine;
        assert!(run.world.named.is_empty(), "what was lost on the way looks the same: {:?}", run.world.named);
        assert!(key_epoch(&mut run, (liar + 1) % 3) >= 3, "{lie:?} {seed}: the key moved twice");
    }
}

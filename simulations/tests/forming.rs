//! A mesh that is forming, among faults, late hosts and strangers: in the end there is one mesh, or none yet.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;

use spec::cms::election::{Ballot, BallotKind};
use spec::error::{Check, Failure};
use spec::genesis::SignedGenesis;
use spec::host::{LocalCommand, LocalReply};
use spec::limits::{FOUNDING_MS, JOIN_RETRY_MS};
use spec::membership::Role;
use spec::ticket::Pins;
use spec::types::{MeshId, sha256};
use spec::wire::{EnrolHello, Message};
use vouchsafe_sim::liar::{Liar, Lie};
use vouchsafe_sim::run::Run;
use vouchsafe_sim::scenario::Scenario;
use vouchsafe_sim::world::WALL_START_MS;

const WAIT_MS: u64 = 60_000;

fn machines(hosts: usize, seed: u64) -> (Run, SignedGenesis) {
    let scenario = Scenario::named("calm").expect("a scenario");
    let mut run = Run::new(&scenario, hosts, seed);
    run.set_up();
    let genesis = run.genesis(&scenario);
    (run, genesis)
}

fn join(run: &mut Run, genesis: &SignedGenesis, machine: usize) -> Result<LocalReply, Failure> {
    run.world.start(machine);
    let command = run.joining(machine, genesis, |_| {}).expect("an identity");
    run.ask(machine, command, WAIT_MS).expect("an answer")
}

fn is_member(run: &mut Run, machine: usize) -> bool {
    let status = run.status(machine);
    status.member.is_some() && status.forming.is_none() && !status.joining
}

fn are_members(run: &mut Run, machines: &[usize]) {
    let outside: Vec<usize> = machines.iter().copied().filter(|machine| !is_member(run, *machine)).collect();
    assert!(outside.is_empty(), "hosts {outside:?} are not in");
}

/// The third comes, and the three found.
fn third_comes(run: &mut Run, genesis: &SignedGenesis) {
    assert!(join(run, genesis, 2).is_ok());
    run.settle(WAIT_MS);
    are_members(run, &[0, 1, 2]);
}

#[test]
fn a_strangers_ballot_to_a_forming_host_shows_it_no_ticket() {
    let (mut run, genesis) = machines(3, 1);
    for machine in 0..2 {
        assert!(join(&mut run, &genesis, machine).is_ok());
    }
    let stranger = 3;
    run.world.start(stranger);
    run.world.overheard = Some(Vec::new());
    let ballot = Ballot {
        kind: BallotKind::Vote,
        from: 1,
        to: 2,
        term: 1,
        log_term: 0,
        index: 0,
        entries: Vec::new(),
        commit: 0,
        commit_term: 0,
        reject: false,
        reject_hint: 0,
        context: Vec::new(),
    };
    let key = run.world.machines[stranger].transport;
    for machine in 0..2 {
        run.world.inject(machine, key, Message::Ballot(ballot.clone()));
    }
    run.settle(WAIT_MS);
    let heard = run.world.overheard.take().expect("what was overheard");
    assert!(heard.iter().any(|(to, ..)| *to == 0), "the founders talk");
    assert!(heard.iter().all(|(to, ..)| *to != stranger), "nobody talks to the stranger");
}

#[test]
fn three_hosts_of_which_two_are_of_one_domain_wait_for_another() {
    // Machines 0 and 5 are of one domain: together they would hold as many shares as sign.
    let (mut run, genesis) = machines(6, 2);
    for machine in [0, 5, 1] {
        assert!(join(&mut run, &genesis, machine).is_ok());
    }
    run.settle(WAIT_MS);
    assert!([0, 5, 1].into_iter().all(|machine| run.status(machine).forming.is_some()));
    assert!(join(&mut run, &genesis, 2).is_ok());
    run.settle(WAIT_MS);
    are_members(&mut run, &[0, 1, 2, 5]);
    let founders = run.status(0).committee;
    assert!(!founders.is_empty());
}

#[test]
fn two_machines_of_one_name_do_not_found_together_and_it_is_seen_why() {
    let (mut run, genesis) = machines(4, 20);
    for machine in 0..2 {
        assert!(join(&mut run, &genesis, machine).is_ok());
    }
    let named = |run: &mut Run, machine, name: &str| {
        run.world.start(machine);
        let command = run.joining(machine, &genesis, |ticket| name.clone_into(&mut ticket.name)).expect("an identity");
        run.ask(machine, command, WAIT_MS).expect("an answer")
    };
    assert!(named(&mut run, 2, "h1").is_ok());
    run.settle(WAIT_MS);
    let status = run.status(0);
    assert!(status.forming.is_some() && status.refusals.iter().any(|refused| refused.check == Check::NameTaken));
    let refused = named(&mut run, 3, "h0");
    assert!(matches!(&refused, Err(Failure::Refused(refused)) if refused.check == Check::NameTaken), "{refused:?}");
    assert!(join(&mut run, &genesis, 3).is_ok());
    run.settle(WAIT_MS);
    are_members(&mut run, &[0, 1, 3]);
}

#[test]
fn a_ticket_that_expires_while_the_mesh_forms_holds_nobody_else_up() {
    let (mut run, genesis) = machines(4, 3);
    assert!(join(&mut run, &genesis, 0).is_ok());
    run.world.start(1);
    let soon = WALL_START_MS + run.world.now_ms + 5_000;
    let command = run.joining(1, &genesis, |ticket| ticket.expires_ms = soon).expect("an identity");
    assert!(run.ask(1, command, WAIT_MS).is_some());
    run.settle(WAIT_MS);
    for machine in [2, 3] {
        assert!(join(&mut run, &genesis, machine).is_ok());
    }
    run.settle(WAIT_MS);
    are_members(&mut run, &[0, 2, 3]);
    // With a new ticket it is in; and that it once waited for the founding is past, also after a restart.
    assert!(join_again(&mut run, &genesis, 1));
    run.settle(WAIT_MS);
    run.world.crash(1);
    run.world.start(1);
    run.settle(WAIT_MS);
    assert_eq!(run.status(1).forming, None);
    let applied = run.records(1).applied();
    run.settle(WAIT_MS);
    assert!(is_member(&mut run, 1) && run.records(1).applied() > applied, "it follows the mesh");
}

/// Three of which the third has just voted: its share is on disk, and no founding anywhere. Its ticket lasts so long.
fn voted(seed: u64, hosts: usize, lasts_ms: u64) -> (Run, SignedGenesis) {
    let (mut run, genesis) = machines(hosts, seed);
    for machine in 0..2 {
        assert!(join(&mut run, &genesis, machine).is_ok());
    }
    run.world.start(2);
    let soon = WALL_START_MS + run.world.now_ms + lasts_ms;
    let command = run.joining(2, &genesis, |ticket| ticket.expires_ms = soon).expect("an identity");
    assert!(run.world.command(2, command).is_some());
    while run.world.machines[2].disk.saved().keys.is_empty() {
        run.settle(1);
    }
    assert!((0..3).all(|machine| run.records(machine).applied() == 0), "nobody has founded");
    (run, genesis)
}

#[test]
fn a_founder_that_voted_for_what_never_was_comes_in_with_a_new_ticket_when_its_own_is_past() {
    let (mut run, genesis) = voted(11, 4, WAIT_MS);
    run.world.crash(2);
    run.world.crash(0);
    run.world.start(0);
    assert!(join(&mut run, &genesis, 3).is_ok());
    run.settle(2 * WAIT_MS);
    assert!([0, 1, 3].into_iter().all(|machine| is_member(&mut run, machine)), "they founded without it");
    run.world.start(2);
    run.settle(WAIT_MS);
    assert!(!is_member(&mut run, 2), "its ticket is past");
    assert!(join_again(&mut run, &genesis, 2));
    run.settle(WAIT_MS);
    assert!(is_member(&mut run, 2));
    assert_eq!(run.records(2).applied(), run.records(0).applied());
}

#[test]
fn after_a_power_cut_that_outlasts_their_tickets_those_that_voted_found_with_new_ones() {
    let (mut run, genesis) = voted(12, 3, WAIT_MS);
    (0..3).for_each(|machine| run.world.crash(machine));
    run.settle(2 * WAIT_MS);
    (0..3).for_each(|machine| run.world.start(machine));
    run.settle(WAIT_MS);
    assert!(!is_member(&mut run, 2), "its ticket is past");
    assert!(join_again(&mut run, &genesis, 2));
    run.settle(WAIT_MS);
    are_members(&mut run, &[0, 1, 2]);
}

#[test]
fn a_founder_that_missed_the_end_and_comes_with_a_new_ticket_takes_its_seat() {
    let (mut run, genesis) = voted(13, 3, WAIT_MS);
    while run.records(0).applied() == 0 {
        run.settle(1);
    }
    assert_eq!(run.records(2).applied(), 0, "it has voted, and not heard more");
    run.world.crash(2);
    run.settle(2 * WAIT_MS);
    run.world.start(2);
    assert!(join_again(&mut run, &genesis, 2));
    run.settle(WAIT_MS);
    assert!(is_member(&mut run, 2));
    let host = *run.host(2).host();
    let committee = run.records(0).committee().expect("a committee");
    assert!(committee.key.index_of(&host).is_some(), "it holds the share that it voted for");
}

#[test]
fn a_founder_that_waits_and_is_given_a_ticket_that_does_not_hold_goes_on_waiting() {
    for crashes in [false, true] {
        let (mut run, genesis) = machines(3, 14);
        for machine in 0..2 {
            assert!(join(&mut run, &genesis, machine).is_ok());
        }
        let command = run.joining(1, &genesis, |ticket| ticket.expires_ms = WALL_START_MS).expect("an identity");
        if crashes {
            assert!(run.world.command(1, command).is_some());
            run.settle(5);
            run.world.crash(1);
            run.world.start(1);
        } else {
            let answer = run.ask(1, command, WAIT_MS).expect("an answer");
            assert!(
                matches!(&answer, Err(Failure::Refused(refused)) if refused.check == Check::TicketExpired),
                "{answer:?}"
            );
        }
        // Whoever does not say hello again is not called.
        run.settle(WAIT_MS);
        third_comes(&mut run, &genesis);
    }
}

/// Machine 3 gathers founders of another mesh. Makes tickets of it.
fn another_mesh(run: &mut Run) -> impl Fn(&mut Run, usize) -> LocalCommand + use<> {
    let mut scenario = Scenario::named("calm").expect("a scenario");
    scenario.epoch_ms *= 2;
    let genesis = run.genesis(&scenario);
    let pins = Pins { mesh: MeshId(sha256(&genesis.bytes).0), key: None };
    run.world.start(3);
    let Some(Ok(LocalReply::Identity(identity))) = run.ask(3, LocalCommand::Identity, WAIT_MS) else {
        panic!("no identity")
    };
    let ticket = move |run: &mut Run, machine| run.ticket(machine, Role::Host, pins.clone(), identity.contacts.clone());
    let own = ticket(run, 3);
    let begun = run.ask(3, LocalCommand::Found { genesis, ticket: own }, WAIT_MS);
    assert!(matches!(begun, Some(Ok(_))), "{begun:?}");
    move |run, machine| LocalCommand::Join { ticket: ticket(run, machine), address: None }
}

#[test]
fn a_founder_that_waits_may_found_another_mesh_instead() {
    let (mut run, genesis) = machines(5, 15);
    for machine in 0..2 {
        assert!(join(&mut run, &genesis, machine).is_ok());
    }
    let other = another_mesh(&mut run);
    for machine in [1, 4] {
        run.world.start(machine);
        let command = other(&mut run, machine);
        let answer = run.ask(machine, command, WAIT_MS);
        assert!(matches!(answer, Some(Ok(LocalReply::Joined(_)))), "host {machine}: {answer:?}");
    }
    run.settle(WAIT_MS);
    run.world.crash(1);
    run.world.start(1);
    run.settle(WAIT_MS);
    are_members(&mut run, &[1, 3, 4]);
    assert!(run.status(0).forming.is_some(), "the first mesh has one");
}

#[test]
fn a_founder_that_waits_and_finds_nobody_of_another_mesh_goes_on_waiting() {
    let (mut run, genesis) = machines(4, 16);
    for machine in 0..2 {
        assert!(join(&mut run, &genesis, machine).is_ok());
    }
    let command = another_mesh(&mut run)(&mut run, 1);
    run.world.crash(3);
    let answer = run.ask(1, command, 2 * WAIT_MS);
    assert!(matches!(answer, Some(Err(Failure::NoLeader))), "{answer:?}");
    run.settle(WAIT_MS);
    third_comes(&mut run, &genesis);
}

#[test]
fn where_the_host_that_gathers_moves_a_new_ticket_says_where_it_is_also_after_a_restart() {
    let (mut run, genesis) = machines(3, 18);
    for machine in 0..2 {
        assert!(join(&mut run, &genesis, machine).is_ok());
    }
    run.world.crash(0);
    "elsewhere".clone_into(&mut run.world.machines[0].name);
    run.world.start(0);
    run.settle(WAIT_MS);
    assert!(join_again(&mut run, &genesis, 1));
    run.world.crash(1);
    run.world.start(1);
    run.settle(WAIT_MS);
    third_comes(&mut run, &genesis);
}

#[test]
fn whoever_voted_is_called_by_nobody_else() {
    let (mut run, genesis) = voted(17, 4, 10 * WAIT_MS);
    run.world.crash(0);
    // Another that waits says that it gathers, and a ticket of an operator names that one.
    let Some(Ok(LocalReply::Identity(identity))) = run.ask(1, LocalCommand::Identity, WAIT_MS) else {
        panic!("no identity")
    };
    let pins = identity.pins.expect("pins");
    let ticket = run.ticket(2, Role::Host, pins, identity.contacts);
    run.world.crash(1);
    assert!(run.world.command(2, LocalCommand::Join { ticket, address: None }).is_some());
    run.settle(1_000);
    let one = run.world.machines[1].transport;
    run.world.inject(2, one, Message::EnrolForming { genesis: genesis.clone(), known: 1 });
    run.settle(WAIT_MS);
    (0..2).for_each(|machine| run.world.start(machine));
    run.settle(WAIT_MS);
    are_members(&mut run, &[0, 1, 2]);
}

const TICKET_OF_ANOTHER: &str = "the ticket of another";

/// What a machine says that has a ticket, and knows what the host that gathers and two others said.
struct Lies {
    gathers: EnrolHello,
    other: EnrolHello,
    third: EnrolHello,
    own: EnrolHello,
}

impl Lies {
    /// Its hello under a fresh transport key, the lowest of all.
    fn hello(&self, at: u8, lie: &str) -> EnrolHello {
        let mut hello = self.own.clone();
        (hello.request.0[0], hello.keys.transport.0) = (at, [0; 32]);
        hello.keys.transport.0[31] = at;
        match lie {
            "the AK of the host that gathers" => hello.keys.ak = self.gathers.keys.ak.clone(),
            "the EKs of the host that gathers" => hello.keys.eks = self.gathers.keys.eks.clone(),
            "the ticket of the host that gathers" => hello.ticket = self.gathers.ticket.clone(),
            TICKET_OF_ANOTHER => hello.ticket = self.other.ticket.clone(),
            "the AK of another" => hello.keys.ak = self.other.keys.ak.clone(),
            "the EKs of another" => hello.keys.eks = self.other.keys.eks.clone(),
            "something of each" => {
                (hello.keys.ak, hello.keys.eks) = (self.other.keys.ak.clone(), self.third.keys.eks.clone());
            }
            _ => assert_eq!(lie, "nothing but fresh keys"),
        }
        hello
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Befalls {
    /// It is down until the attempt to which both are called is over.
    Restart,
    /// That, and after a while an operator writes it a new ticket.
    RestartAndNewTicket,
}

/// Whether three found where a fourth lets the attempt that it is called to die, and says hello with this lie from then on.
/// And something may befall the other whom it knows.
fn found_despite(lie: &str, befalls: Option<Befalls>) -> bool {
    let (mut run, genesis) = machines(4, 19);
    assert!(join(&mut run, &genesis, 0).is_ok());
    run.world.start(2);
    let command = run.joining(2, &genesis, |_| {}).expect("an identity");
    assert!(run.world.command(2, command).is_some());
    let third = run.overhear(|to, message| match message {
        Message::EnrolHello(hello) if to == 0 => Some(hello),
        _ => None,
    });
    run.settle(WAIT_MS);
    run.world.crash(2);
    run.settle(WAIT_MS);
    assert!(join(&mut run, &genesis, 1).is_ok());
    run.world.start(3);
    let command = run.joining(3, &genesis, |_| {}).expect("an identity");
    assert!(run.world.command(3, command).is_some());
    let called = run.overhear(|to, message| match message {
        Message::FoundingCall { founders, .. } if to == 3 => Some(founders),
        _ => None,
    });
    run.world.crash(3);
    if befalls.is_some() {
        run.world.crash(1);
    }
    let called = called.expect("it is called");
    let hello_of = |machine: usize| {
        let key = run.world.machines[machine].transport;
        let mut hellos = called.iter().map(|founder| &founder.hello);
        hellos.find(|hello| hello.keys.transport == key).expect("one of three").clone()
    };
    let lies = Lies { gathers: hello_of(0), other: hello_of(1), third: third.expect("it came"), own: hello_of(3) };
    run.world.start(2);
    for at in 0..5_000_u32 {
        if at == 1_100 && befalls.is_some() {
            run.world.start(1);
        }
        if at == 2_000 && befalls == Some(Befalls::RestartAndNewTicket) {
            let command = run.joining(1, &genesis, |_| {}).expect("an identity");
            assert!(run.world.command(1, command).is_some());
        }
        let hello = lies.hello(at.to_le_bytes()[0], lie);
        run.world.inject(0, hello.keys.transport, Message::EnrolHello(hello));
        run.settle(20);
    }
    let founded = (0..3).all(|machine| is_member(&mut run, machine));
    let refused = run.status(0).refusals;
    assert!(founded || refused.iter().any(|refused| refused.check == Check::TicketUsed), "{lie}: nobody sees why");
    founded
}

#[test]
fn a_machine_with_a_ticket_that_shows_what_is_anothers_and_says_no_more_holds_up_no_founding() {
    let mut lies = vec![
        "the AK of the host that gathers",
        "the EKs of the host that gathers",
        "the ticket of the host that gathers",
        "the AK of another",
        "the EKs of another",
        "something of each",
        "nothing but fresh keys",
    ];
    lies.retain(|lie| !found_despite(lie, None) || !found_despite(lie, Some(Befalls::Restart)));
    lies.extend(Some(TICKET_OF_ANOTHER).filter(|lie| !found_despite(lie, None)));
    assert_eq!(lies, Vec::<&str>::new(), "what held them up");
}

#[test]
fn a_machine_that_came_first_with_anothers_ticket_holds_nobody_up_once_that_one_has_a_new_ticket() {
    assert!(!found_despite(TICKET_OF_ANOTHER, Some(Befalls::Restart)), "it came first");
    assert!(found_despite(TICKET_OF_ANOTHER, Some(Befalls::RestartAndNewTicket)));
}

#[test]
fn two_that_failed_often_are_soon_called_again_though_another_comes_and_is_silent() {
    let (mut run, genesis) = machines(4, 21);
    run.world.liar = Some(Liar::founder(1, Lie::Silent));
    for machine in 0..2 {
        assert!(join(&mut run, &genesis, machine).is_ok());
    }
    run.world.start(2);
    let command = run.joining(2, &genesis, |_| {}).expect("an identity");
    assert!(run.world.command(2, command).is_some());
    run.settle(20 * FOUNDING_MS);
    run.world.liar = None;
    run.world.start(3);
    let command = run.joining(3, &genesis, |_| {}).expect("an identity");
    assert!(run.world.command(3, command).is_some());
    let key = run.world.machines[3].transport;
    let silent = run.overhear(|_, message| match message {
        Message::EnrolHello(hello) if hello.keys.transport == key => Some(hello),
        _ => None,
    });
    run.world.crash(3);
    let silent = silent.expect("it comes");
    for _ in 0..5 * FOUNDING_MS / JOIN_RETRY_MS {
        run.world.inject(0, key, Message::EnrolHello(silent.clone()));
        run.settle(JOIN_RETRY_MS);
    }
    are_members(&mut run, &[0, 1, 2]);
}

#[test]
fn among_crashes_and_loss_there_is_one_founding_and_all_are_in_it() {
    let mut scenario = Scenario::named("calm").expect("a scenario");
    scenario.loss_percent = 8;
    for seed in 1..=40 {
        let mut run = Run::new(&scenario, 5, seed);
        run.set_up();
        let genesis = run.genesis(&scenario);
        run.world.faults = true;
        for machine in 0..5 {
            run.world.start(machine);
            let command = run.joining(machine, &genesis, |_| {}).expect("an identity");
            let asked = run.world.command(machine, command);
            assert!(asked.is_some());
            run.settle(200);
        }
        for _ in 0..12 {
            let wait = run.world.random.below(3_000);
            run.settle(wait);
            let machine = usize::try_from(run.world.random.below(5)).expect("small");
            run.world.crash(machine);
            run.settle(100);
            run.world.start(machine);
        }
        run.world.faults = false;
        run.settle(3 * WAIT_MS);
        // A joiner whose join was cut off by a crash before anything was on disk joins again.
        for machine in 1..5 {
            let status = run.status(machine);
            if status.member.is_none() && !status.joining {
                assert!(join_again(&mut run, &genesis, machine), "host {machine}, seed {seed}");
            }
        }
        run.settle(WAIT_MS);
        let members: Vec<bool> = (0..5).map(|machine| is_member(&mut run, machine)).collect();
        assert_eq!(members, [true; 5], "seed {seed}");
        let keys: BTreeSet<_> =
            (0..5).map(|machine| run.status(machine).pins).map(|pins| format!("{pins:?}")).collect();
        assert_eq!(keys.len(), 1, "seed {seed}: two foundings: {keys:?}");
        for machine in 0..5 {
            run.world.crash(machine);
            run.world.start(machine);
            assert!(is_member(&mut run, machine), "host {machine} after a restart, seed {seed}");
        }
    }
}

fn join_again(run: &mut Run, genesis: &SignedGenesis, machine: usize) -> bool {
    let command = run.joining(machine, genesis, |_| {}).expect("an identity");
    matches!(run.ask(machine, command, WAIT_MS), Some(Ok(LocalReply::Joined(_))))
}

#[test]
fn a_founder_whose_deal_is_a_lie_is_thrown_out_and_three_others_found() {
    let lies = [
        Lie::WrongShare,
        Lie::WrongDegree,
        Lie::TwoDeals,
        Lie::Apart,
        Lie::BadSeal,
        Lie::Silent,
        Lie::NoVote,
        Lie::Aside,
    ];
    for (lie, liar) in lies.into_iter().flat_map(|lie| [(lie, 1), (lie, 2)]) {
        let (mut run, genesis) = machines(4, 5);
        run.world.liar = Some(Liar::founder(liar, lie));
        run.world.thrown_out = Some(Vec::new());
        for machine in 0..4 {
            run.world.start(machine);
            let command = run.joining(machine, &genesis, |_| {}).expect("an identity");
            assert!(run.world.command(machine, command).is_some());
            run.settle(2_000);
        }
        run.settle(5 * WAIT_MS);
        let founded = (0..4).filter(|machine| *machine != liar).all(|machine| is_member(&mut run, machine));
        assert!(founded, "{lie:?} by host {liar}");
        let named = &run.world.thrown_out_machines;
        assert!(
            matches!(lie, Lie::Silent | Lie::NoVote | Lie::Aside) || !named.is_empty(),
            "{lie:?} by host {liar} was not named"
        );
        assert!(named.iter().all(|machine| *machine == liar), "{lie:?} by host {liar}: {named:?} are named");
    }
}

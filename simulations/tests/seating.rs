//! Voters that missed who sits: the mesh key tells them, not the word of whoever votes.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::cms::command::Command;
use spec::cms::committee::Step;
use spec::cms::election::{Ballot, BallotKind, LogEntry};
use spec::cms::records::{Effect, Records};
use spec::cms::seating::SeatProof;
use spec::error::{Check, Misbehaved};
use spec::host::{LocalCommand, LocalReply};
use spec::limits::SEAT_ASK_MS;
use spec::membership::{Member, MemberRecord};
use spec::suite::{Fake, Suite as _};
use spec::types::{BlsSignature, HostId, Round, SecretBytes, TransportKey};
use spec::whereabouts::Whereabouts;
use spec::wire::{self, Address, Message, Presence, Standing};
use vouchsafe_sim::liar::{Liar, Lie};
use vouchsafe_sim::overhearing::message_in;
use vouchsafe_sim::run::Run;
use vouchsafe_sim::scenario::Scenario;

const EPOCH_MS: u64 = 2_000;
/// A founder that is away while the committee grows.
const AWAY: usize = 2;

fn voters(run: &Run, machine: usize) -> usize {
    run.records(machine).committee().expect("a committee").voters().len()
}

fn leads(run: &mut Run, machine: usize) -> bool {
    match run.ask(machine, LocalCommand::Status, 20_000) {
        Some(Ok(LocalReply::Status(status))) => status.coordinates,
        other => panic!("no status: {other:?}"),
    }
}

/// Five hosts; the third founder was away since before the last two were admitted and seated.
fn grown_without_a_founder() -> Run {
    let scenario = Scenario::named("calm").expect("a scenario");
    let mut run = Run::new(&scenario, 5, 43);
    run.set_up();
    let genesis = run.genesis(&scenario);
    assert!((0..3).all(|number| run.enrol(number, &genesis)));
    run.settle(5 * EPOCH_MS);
    assert_eq!(voters(&run, AWAY), 3);
    run.world.crash(AWAY);
    run.settle(4 * EPOCH_MS);
    for number in [run.reader(), 3, 4] {
        run.world.start(number);
        let joining = run.joining(number, &genesis, |_| {}).expect("a ticket");
        assert!(matches!(run.ask(number, joining, 100_000), Some(Ok(LocalReply::Joined(_)))));
    }
    run.settle(20 * EPOCH_MS);
    assert_eq!(voters(&run, 0), 5, "the committee grew without it");
    run
}

#[test]
fn a_voter_that_missed_two_seats_elects_with_those_who_sit_there_though_nobody_else_is_left() {
    let mut run = grown_without_a_founder();
    run.world.crash(0);
    run.world.crash(1);
    run.world.start(AWAY);
    assert_eq!(voters(&run, AWAY), 3, "it does not know them");
    run.settle(10_000);
    let leaders = [2, 3, 4].into_iter().filter(|machine| leads(&mut run, *machine)).count();
    assert_eq!(leaders, 1, "three of five elect");
    assert_eq!(voters(&run, AWAY), 5, "and it has their records");
    run.world.start(0);
    run.world.start(1);
    run.settle(20 * EPOCH_MS);
    let applied = run.records(3).applied();
    assert!((0..5).all(|machine| run.records(machine).applied() == applied));
    run.is_sound();
}

/// What a host that sits shows to a voter that asks.
fn shown(run: &mut Run, by: usize, to: usize) -> SeatProof {
    run.world.overheard = Some(Vec::new());
    let asker = run.world.machines[to].transport;
    run.world.inject(by, asker, Message::SeatPull);
    run.settle(100);
    let heard = run.world.overheard.take().expect("listened");
    let mut proofs =
        heard.iter().filter(|(machine, ..)| *machine == to).filter_map(|(_, _, bytes)| match message_in(bytes) {
            Message::SeatProof(proof) => Some(*proof),
            _ => None,
        });
    proofs.next().expect("a proof")
}

#[test]
fn a_seat_is_shown_by_the_mesh_key_alone() {
    let mut run = grown_without_a_founder();
    let proof = shown(&mut run, 3, 0);
    let pins = run.pins.clone().expect("pins");
    let key = pins.mesh_key().expect("a key");
    let check = |proof: &SeatProof, index: u64| proof.check(&Fake, &pins.mesh, &key, index);

    let record = proof.seating.header.header.record;
    let proven = check(&proof, record - 1).expect("it holds");
    assert_eq!(*proven.transport(), run.world.machines[3].transport);
    assert!(proven.id() > 3, "an id that nobody had before");
    assert!(check(&proof, record).is_none(), "whose records have come as far knows better");

    let altered = |change: &dyn Fn(&mut SeatProof)| {
        let mut lie = proof.clone();
        change(&mut lie);
        check(&lie, 0)
    };
    assert!(altered(&|lie| lie.member.record.transport = TransportKey([7; 32])).is_none());
    assert!(altered(&|lie| lie.member.place += 1).is_none());
    assert!(altered(&|lie| lie.member.leaving = true).is_none());
    assert!(altered(&|lie| lie.member.path.truncate(1)).is_none());
    assert!(altered(&|lie| lie.seating.seats[0].id = 9).is_none());
    assert!(altered(&|lie| lie.seating.seats.clear()).is_none());
    assert!(altered(&|lie| lie.seating.header.header.record += 1).is_none());
    assert!(altered(&|lie| lie.seating.header.signature = BlsSignature([7; 48])).is_none());
    let reader = run.world.machines[run.reader()].transport;
    let of_a_reader = run.records(3).member_by_transport(&reader).expect("a member").record().host;
    let header = proof.seating.header.clone();
    let members = run.records(3).roll().prove(&pins.mesh, &of_a_reader).expect("a member");
    assert!(members.holds(&pins.mesh, &header.header.member_root), "it is a member, and sits nowhere");
    assert!(altered(&|lie| lie.member = members.clone()).is_none());
}

/// What a machine answers when this key asks for its vote under a Raft id.
fn answers(run: &mut Run, by: usize, from: usize, id: u64) -> Vec<&'static str> {
    // It asks each key once a second.
    run.settle(SEAT_ASK_MS);
    run.world.overheard = Some(Vec::new());
    let host = *run.host(by).host();
    let to = run.records(by).committee().and_then(|committee| committee.seat_of(&host)).expect("a seat").id;
    let ballot = Ballot {
        kind: BallotKind::PreVote,
        from: id,
        to,
        term: 50,
        log_term: 40,
        index: 1_000,
        entries: Vec::new(),
        commit: 0,
        commit_term: 0,
        reject: false,
        reject_hint: 0,
        context: Vec::new(),
    };
    let key = run.world.machines[from].transport;
    run.world.inject(by, key, Message::Ballot(ballot));
    run.settle(100);
    let own = run.world.machines[by].transport;
    let heard = run.world.overheard.take().expect("listened").into_iter();
    heard.filter(|(to, who, _)| *to == from && *who == own).map(|(_, _, bytes)| message_in(&bytes).name()).collect()
}

#[test]
fn a_seat_that_is_shown_by_another_is_not_taken_for_its_own() {
    let mut run = grown_without_a_founder();
    let proof = shown(&mut run, 3, 0);
    let id = proof.seating.seat_of(&proof.member.record.host).expect("a seat").id;
    for machine in [0, 1, 4] {
        run.world.crash(machine);
    }
    run.world.start(AWAY);
    let thief = run.reader();
    assert_eq!(answers(&mut run, AWAY, thief, id), ["seat-pull"], "a seat that its records do not know");
    let key = run.world.machines[thief].transport;
    run.world.inject(AWAY, key, Message::SeatProof(Box::new(proof.clone())));
    assert_eq!(answers(&mut run, AWAY, thief, id), ["seat-pull"], "it is another's");
    let key = run.world.machines[3].transport;
    run.world.inject(AWAY, key, Message::SeatProof(Box::new(proof)));
    assert_eq!(answers(&mut run, AWAY, thief, id), ["seat-pull"], "it is another's still");
    assert!(answers(&mut run, AWAY, 3, id).contains(&"ballot"), "whose it is, it answers");
}

/// Hosts that sit, as this machine knows.
fn seated(run: &Run, machine: usize) -> Vec<usize> {
    let committee = run.records(machine).committee().expect("a committee");
    let sits = |other: &usize| {
        run.world.machines[*other].running.as_ref().is_some_and(|one| committee.seat_of(one.host.host()).is_some())
    };
    (0..run.world.machines.len()).filter(sits).collect()
}

#[test]
fn a_host_finds_the_mesh_again_though_the_whole_committee_was_replaced_while_it_was_away() {
    let mut run = Run::calm(9, 47, 20 * EPOCH_MS);
    let old = seated(&run, 0);
    let away = (0..9).find(|machine| !old.contains(machine)).expect("a host without a seat");
    run.world.crash(away);
    for host in &old {
        assert!(matches!(run.ask(*host, LocalCommand::Leave, 100_000), Some(Ok(LocalReply::Leaving))));
        run.settle(40 * EPOCH_MS);
        run.world.crash(*host);
    }
    let left: Vec<usize> = (0..9).filter(|machine| *machine != away && !old.contains(machine)).collect();
    assert_eq!(seated(&run, left[0]), left, "three others sit");
    let before = run.records(left[0]).applied();
    run.world.start(away);
    run.settle(20_000);
    assert!(run.records(away).applied() > before, "it has the records of meanwhile, and new ones");
    match run.ask(away, LocalCommand::Status, 20_000) {
        Some(Ok(LocalReply::Status(status))) => assert!(status.unlocked && status.header.is_some(), "{status:?}"),
        other => panic!("no status: {other:?}"),
    }
    run.is_sound();
}

/// Where a host believes that the others are.
fn addresses(run: &mut Run, machine: usize) -> Vec<String> {
    match run.ask(machine, LocalCommand::Hosts, 20_000) {
        Some(Ok(LocalReply::Hosts(lines))) => lines.into_iter().map(|line| line.address.0).collect(),
        other => panic!("no hosts: {other:?}"),
    }
}

fn is_not_told(run: &mut Run, machine: usize) {
    assert!(!addresses(run, machine).contains(&"nowhere".to_owned()));
}

/// What a liar says of where all are, in each host's own name or under its own.
fn astray(run: &Run, named: impl Fn(&Member) -> TransportKey) -> Vec<Presence> {
    let key = SecretBytes::copy_of(&[9; 32]);
    let mesh = *run.records(0).mesh().expect("a mesh");
    let address = Address("nowhere".to_owned());
    let one = |member: &Member| {
        let word = Whereabouts::give(&Fake, &mesh, (named(member), &key), address.clone(), Round(1 << 40));
        Presence { host: member.record().host, standing: Standing::Good, whereabouts: word }
    };
    run.records(0).members().map(one).collect()
}

#[test]
fn not_even_a_leader_tells_others_where_a_host_is_that_did_not_say_so() {
    let mut run = grown_without_a_founder();
    run.settle(20 * EPOCH_MS);
    let seats = seated(&run, 0);
    let leader = seats.iter().copied().find(|machine| leads(&mut run, *machine)).expect("somebody leads");
    let key = run.world.machines[leader].transport;
    let term = run.records(leader).term();
    let told = seats.iter().copied().find(|machine| *machine != leader).expect("another voter");
    let say = |run: &mut Run, presence: Vec<Presence>| {
        let (leader, beacon, header, presence) = (None, None, None, Some(presence));
        run.world.inject(told, key, Message::Announce { term, leader, beacon, header, records: 0, presence });
    };
    let known = addresses(&mut run, told);
    assert!(known.iter().all(|address| address.starts_with('h')), "{known:?}");
    run.world.thrown_out = Some(Vec::new());
    let forged = astray(&run, |member| member.record().transport);
    say(&mut run, forged);
    assert_eq!(addresses(&mut run, told), known);
    assert_eq!(run.world.thrown_out.take(), Some(vec![(told, Misbehaved::ForgedAddress)]));
    // In a name of its own: nobody asks where that is.
    let own = Fake.ed25519_public(&SecretBytes::copy_of(&[9; 32])).expect("a key");
    let stranger = astray(&run, |_| own);
    say(&mut run, stranger);
    assert_eq!(addresses(&mut run, told), known);
    for machine in 0..5 {
        run.world.crash(machine);
    }
    for machine in 0..5 {
        run.world.start(machine);
    }
    run.settle(20_000);
    assert_eq!((0..5).filter(|machine| leads(&mut run, *machine)).count(), 1, "they find each other");
    run.is_sound();
}

#[test]
fn a_member_without_a_seat_tells_nobody_unasked_where_others_are() {
    let mut run = grown_without_a_founder();
    let liar = run.reader();
    run.world.start(AWAY);
    run.settle(20 * EPOCH_MS);
    for machine in 0..5 {
        run.world.crash(machine);
    }
    for machine in 0..5 {
        run.world.start(machine);
    }
    let presence = astray(&run, |member| member.record().transport);
    let key = run.world.machines[liar].transport;
    for _ in 0..100 {
        for machine in 0..5 {
            let (leader, beacon, header, presence) = (None, None, None, Some(presence.clone()));
            let lie = Message::Announce { term: 9, leader, beacon, header, records: u64::MAX, presence };
            run.world.inject(machine, key, lie);
            is_not_told(&mut run, machine);
        }
        run.settle(50);
    }
    assert_eq!((0..5).filter(|machine| leads(&mut run, *machine)).count(), 1, "they find each other");
    run.is_sound();
}

#[test]
fn a_leader_cannot_deal_the_mesh_key_to_one_domain_while_others_have_hosts() {
    let run = Run::calm(11, 59, 20 * EPOCH_MS);
    let mut known = run.records(0).clone();
    let take = |known: &mut Records, step: Step| {
        let command = Command::Committee(step);
        let (index, term, change) = (known.applied() + 1, known.term(), command.change());
        known.apply(&Fake, &LogEntry { index, term, change, command: wire::encode(&command) })
    };
    let domain = |record: &MemberRecord| record.domain.clone();
    let hosts = |of: &str| -> Vec<HostId> {
        known.roll().staying_hosts().filter(|one| one.domain == of).map(|one| one.host).collect()
    };
    let large = known.roll().staying_hosts().map(domain).find(|domain| hosts(domain).len() == 3);
    let own = hosts(&large.expect("a domain of three hosts"));
    // Seats are given by one leader's choice.
    for host in &own {
        if known.committee().expect("a committee").seat_of(host).is_none() {
            let id = known.committee().expect("a committee").next_id;
            assert_eq!(take(&mut known, Step::Seat { host: *host, id }), Ok(Effect::CommitteeChanged));
            assert_eq!(take(&mut known, Step::Promote { id }), Ok(Effect::CommitteeChanged));
        }
    }
    let voters = known.committee().expect("a committee").voters();
    let other = *voters.iter().find(|voter| !own.contains(voter)).expect("another");
    let mut receivers = [own.as_slice(), &[other]].concat();
    receivers.sort_unstable();
    let dealing = |known: &Records, receivers| known.committee().expect("a committee").next_dealing(receivers);
    // Of four shares three sign.
    let to_own = dealing(&known, receivers);
    assert_eq!(to_own.t, 3);
    assert_eq!(take(&mut known, Step::Redeal(to_own)), Err(Check::Record));
    let to_all = dealing(&known, voters);
    assert_eq!(take(&mut known, Step::Redeal(to_all)), Ok(Effect::CommitteeChanged), "three are not four of seven");
}

#[test]
fn a_voter_that_a_lying_leader_led_astray_follows_like_anybody_and_its_seat_goes_to_another() {
    let mut run = Run::calm(7, 53, 20 * EPOCH_MS);
    let seats = seated(&run, 0);
    let leader = seats.iter().copied().find(|machine| leads(&mut run, *machine)).expect("somebody leads");
    let astray = seats.iter().copied().find(|machine| *machine != leader).expect("another voter");
    // Nothing that it does from here on is a lie but the ballot below.
    run.world.liar = Some(Liar::new(leader, Lie::NoVote));
    run.world.thrown_out = Some(Vec::new());
    run.world.cut_off.insert(astray);
    run.settle(100);
    let id = |run: &Run, machine: usize| {
        let host = *run.host(machine).host();
        run.records(astray).committee().and_then(|committee| committee.seat_of(&host)).expect("a seat").id
    };
    let (index, term) = (run.records(astray).applied(), run.records(astray).term());
    let lie = LogEntry { index: index + 1, term, change: None, command: Vec::new() };
    let ballot = Ballot {
        kind: BallotKind::Append,
        from: id(&run, leader),
        to: id(&run, astray),
        term,
        log_term: term,
        index,
        entries: vec![lie],
        commit: index + 1,
        commit_term: term,
        reject: false,
        reject_hint: 0,
        context: Vec::new(),
    };
    let key = run.world.machines[leader].transport;
    run.world.inject(astray, key, Message::Ballot(ballot));
    run.settle(1_000);
    assert_eq!(run.records(astray).applied(), index + 1, "it took the lie");
    run.world.cut_off.clear();
    run.settle(10 * EPOCH_MS);
    let ahead = |run: &Run| run.records(leader).applied() - run.records(astray).applied();
    assert!(ahead(&run) < 3 && run.records(astray).term() >= term, "it has what the others have");
    run.settle(100 * EPOCH_MS);
    assert!(ahead(&run) < 3 && !seated(&run, leader).contains(&astray), "and another has its seat");
    run.is_sound();
}

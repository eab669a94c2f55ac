//! Hostile peers, joiners and readers against honest hosts: each is refused by the check that is there for it.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::cms::command::Command;
use spec::cms::election::LogEntry;
use spec::credential::head::SignedHead;
use spec::credential::receipt::{Flushed, PutReceipt, Value};
use spec::error::{Check, Failure, Misbehaved};
use spec::gossip::{News, Verdict};
use spec::host::{LocalCommand, LocalReply};
use spec::limits::{CHECKS_FAILED_MAX, CHECKS_FAILED_MS, DISK_FREE_MIN};
use spec::membership::Role;
use spec::suite::Fake;
use spec::ticket::{self, SignedTicket, Ticket};
use spec::types::{CredentialId, Digest, Purpose, RequestId, Round, ShareIndex, TransportKey};
use spec::wire::{self, Message};
use vouchsafe_sim::machine::Machine;
use vouchsafe_sim::overhearing::message_in;
use vouchsafe_sim::run::{Run, operator};
use vouchsafe_sim::scenario::Scenario;

const WAIT_MS: u64 = 100_000;

fn mesh() -> Run {
    let mut run = Run::calm(5, 11, 0);
    run.world.thrown_out = Some(Vec::new());
    run
}

/// A machine more, whose chip the genesis does not know.
fn newcomer(run: &mut Run) -> usize {
    let number = run.world.machines.len();
    let machine = Machine::new(format!("h{number}"), &mut run.world.random);
    run.world.machines.push(machine);
    run.world.start(number);
    number
}

fn join(run: &mut Run, machine: usize, ticket: SignedTicket) -> Result<LocalReply, Failure> {
    let command = LocalCommand::Join { ticket, address: None };
    run.ask(machine, command, WAIT_MS).expect("an answer")
}

fn good_ticket(run: &mut Run, machine: usize) -> SignedTicket {
    let mesh = run.pins.as_ref().expect("pins").mesh;
    let (pins, contacts) = run.pins_for(mesh).expect("an identity");
    run.ticket(machine, Role::Host, pins, contacts)
}

/// The host that leads.
fn leader(run: &mut Run) -> usize {
    let leads = |run: &mut Run, machine: usize| match run.ask(machine, LocalCommand::Status, WAIT_MS) {
        Some(Ok(LocalReply::Status(status))) => status.coordinates,
        other => panic!("no status: {other:?}"),
    };
    (0..3).find(|machine| leads(run, *machine)).expect("a host that leads")
}

fn refused(result: Result<LocalReply, Failure>) -> Check {
    match result {
        Err(Failure::Refused(refused)) => refused.check,
        other => panic!("not refused: {other:?}"),
    }
}

fn resigned(signed: &SignedTicket, domain: usize, change: impl FnOnce(&mut Ticket)) -> SignedTicket {
    let mut ticket = signed.ticket().expect("a ticket");
    change(&mut ticket);
    let bytes = wire::encode(&ticket);
    let signature = Fake::sshsig_sign(&operator(domain), ticket::NAMESPACE, &bytes);
    SignedTicket { bytes, signature }
}

#[test]
fn a_machine_with_a_good_ticket_and_an_unknown_chip_is_refused() {
    let mut run = mesh();
    let machine = newcomer(&mut run);
    let ticket = good_ticket(&mut run, machine);
    assert_eq!(refused(join(&mut run, machine, ticket)), Check::EkUntrusted);
}

#[test]
fn tickets_that_are_forged_past_used_or_for_another_chip_are_refused() {
    let mut run = mesh();
    let machine = newcomer(&mut run);
    let good = good_ticket(&mut run, machine);
    let domain = machine % 5;
    let forged = SignedTicket { signature: Fake::sshsig_sign(&operator(4), "x", &good.bytes), ..good.clone() };
    assert_eq!(refused(join(&mut run, machine, forged)), Check::TicketSignature);
    let of_another_domain = resigned(&good, (domain + 1) % 5, |_| {});
    assert_eq!(refused(join(&mut run, machine, of_another_domain)), Check::TicketSignature);
    let past = resigned(&good, domain, |ticket| ticket.expires_ms = 1);
    assert_eq!(refused(join(&mut run, machine, past)), Check::TicketExpired);
    let for_another = resigned(&good, domain, |ticket| ticket.ek_hash = Some(Digest([1; 32])));
    assert_eq!(refused(join(&mut run, machine, for_another)), Check::TicketEk);
    let bad_name = resigned(&good, domain, |ticket| ticket.name = "two words".to_owned());
    assert_eq!(refused(join(&mut run, machine, bad_name)), Check::TicketSignature);
    let serial = run.world.machines[1].running.as_ref().and_then(|running| {
        let records = running.host.records();
        records.members().find(|member| member.record().name == "h1").map(|member| member.record().ticket)
    });
    let used = resigned(&good, domain, |ticket| ticket.serial = serial.expect("the ticket of h1"));
    assert_eq!(refused(join(&mut run, machine, used)), Check::TicketUsed);
}

#[test]
fn a_chip_that_is_a_member_is_not_a_second_one() {
    let mut run = mesh();
    let machine = newcomer(&mut run);
    let chip = run.world.machines[2].tpm.clone();
    run.world.crash(machine);
    run.world.machines[machine].tpm = chip;
    run.world.start(machine);
    let ticket = good_ticket(&mut run, machine);
    assert_eq!(refused(join(&mut run, machine, ticket)), Check::EkKnown);
}

#[test]
fn who_is_no_member_may_ask_to_enrol_and_nothing_else() {
    let mut run = mesh();
    let stranger = TransportKey([0xcc; 32]);
    let pull = Message::RecordsPull { after: 0 };
    let leader = leader(&mut run);
    let before = run.world.messages;
    for machine in 0..5 {
        run.world.inject(machine, stranger, pull.clone());
    }
    assert_eq!(run.world.messages, before, "nobody answers");
    assert_eq!(run.world.thrown_out.take(), Some(vec![(leader, Misbehaved::NotMember)]));
}

#[test]
fn only_the_committee_speaks_as_the_committee() {
    let mut run = mesh();
    let member = run.world.machines[run.reader()].transport;
    let request = RequestId([1; 16]);
    let recorded = Message::Recorded { request, head: Digest::ZERO, record: 1 };
    let lies = [recorded, Message::MapReply { request, file: vec![1] }];
    for lie in lies {
        run.world.inject(1, member, lie);
        assert_eq!(run.world.thrown_out.replace(Vec::new()), Some(vec![(1, Misbehaved::NotCommittee)]));
    }
}

#[test]
fn a_beacon_that_the_mesh_key_did_not_sign_is_forged() {
    let mut run = mesh();
    let coordinator = run.world.machines[0].transport;
    let epoch = spec::beacon::SignedBeacon { round: Round(1_000_000), signature: spec::types::BlsSignature::ZERO };
    let lie =
        Message::Announce { term: 1, leader: None, beacon: Some(epoch), header: None, records: 0, presence: None };
    run.world.inject(3, coordinator, lie);
    assert_eq!(run.world.thrown_out, Some(vec![(3, Misbehaved::ForgedEpoch)]));
}

#[test]
fn news_that_does_not_hold_is_blamed_on_who_passed_it_on_and_old_news_on_nobody() {
    let mut run = mesh();
    run.world.judged = Some(Vec::new());
    let from = run.world.machines[1].transport;
    let mesh = run.host(3).mesh();
    let hear = |run: &mut Run, message: &Message| {
        run.world.hear(3, &from, wire::encode_message(&mesh, message));
        run.world.judged.replace(Vec::new())
    };
    let beacon = |round| spec::beacon::SignedBeacon { round: Round(round), signature: spec::types::BlsSignature::ZERO };
    let forged = hear(&mut run, &Message::News(News::Beacon(beacon(1_000_000))));
    assert_eq!(forged, Some(vec![(3, Verdict::Reject)]));
    let old = hear(&mut run, &Message::News(News::Beacon(beacon(1))));
    assert_eq!(old, Some(vec![(3, Verdict::Ignore)]), "whatever its signature: nobody looks at it any more");
    let no_news = hear(&mut run, &Message::RecordsPull { after: 0 });
    assert_eq!(no_news, Some(vec![(3, Verdict::Reject)]));
    run.world.hear(3, &from, vec![0xff; 40]);
    assert_eq!(run.world.judged.replace(Vec::new()), Some(vec![(3, Verdict::Reject)]), "no message at all");
    run.world.judged = Some(Vec::new());
    run.settle(5_000);
    let judged = run.world.judged.take().unwrap_or_default();
    let accepted = judged.iter().filter(|(_, verdict)| *verdict == Verdict::Accept).count();
    assert!(accepted > 0 && judged.iter().all(|(_, verdict)| *verdict != Verdict::Reject), "honest news goes on");
}

#[test]
fn p8_numbers_at_their_ends_panic_nobody() {
    let mut run = mesh();
    let member = run.world.machines[3].transport;
    for after in [u64::MAX, u64::MAX - 1, 0] {
        run.world.inject(0, member, Message::RecordsPull { after });
        run.world.inject(1, member, Message::RecordsPull { after });
    }
    let receipt = PutReceipt {
        holder: spec::types::HostId::ZERO,
        index: ShareIndex(0),
        head: Digest::ZERO,
        group: spec::types::GroupId::ZERO,
        generation: spec::types::Generation(u64::MAX),
        commitments: Digest::ZERO,
        round: Round(u64::MAX),
        signature: spec::types::Ed25519Signature::ZERO,
    };
    let request = RequestId([2; 16]);
    run.world.inject(0, member, Message::ShareStored { request, receipt });
    run.world.inject(0, member, Message::PayloadRequest { request, id: CredentialId::ZERO, head: Digest([0xff; 32]) });
    run.settle(10_000);
    run.is_sound();
}

#[test]
fn evidence_of_another_host_or_of_an_old_epoch_opens_no_share() {
    let mut run = mesh();
    run.begin_put(1);
    run.settle(10_000);
    let deposit = run.deposits.first().expect("a put").clone();
    assert!(deposit.acknowledged);
    let reader = run.reader();
    let shown = |run: &mut Run| match run.ask(reader, LocalCommand::Evidence, WAIT_MS) {
        Some(Ok(LocalReply::Evidence { evidence, .. })) => *evidence,
        other => panic!("no evidence: {other:?}"),
    };
    let evidence = shown(&mut run);
    // Another member shows the reader's evidence as its own: every holder refuses it, and so does the coordinator's map.
    let thief = run.stranger();
    let key = run.world.machines[thief].transport;
    run.world.checkers.strangers.insert(thief);
    let epoch =
        spec::beacon::SignedBeacon { round: evidence.evidence.round, signature: spec::types::BlsSignature::ZERO };
    let steal = |evidence| Message::ShareRequest {
        request: RequestId([3; 16]),
        id: deposit.id,
        generation: spec::types::Generation(1),
        shown: Box::new(wire::Shown { epoch: epoch.clone(), evidence }),
    };
    for machine in 0..5 {
        run.world.inject(machine, key, steal(evidence.clone()));
    }
    // The reader itself, just too late: round r + 2 has begun, and the holders still remember the epoch of r.
    let epoch_ms = Scenario::named("calm").expect("a scenario").epoch_ms;
    let too_late_ms = (evidence.evidence.round.0 + 1) * epoch_ms + 200;
    run.settle(too_late_ms.saturating_sub(run.world.now_ms));
    let old_reader = run.world.machines[reader].transport;
    run.world.checkers.strangers.insert(reader);
    for machine in 0..5 {
        run.world.inject(machine, old_reader, steal(evidence.clone()));
    }
    run.settle(5_000);
    run.is_sound();
}

#[test]
fn the_checker_of_the_test_above_sees_a_share_that_goes_to_whom_nobody_allows() {
    let mut run = mesh();
    run.begin_put(1);
    run.settle(10_000);
    let id = run.deposits.first().expect("a put").id;
    let reader = run.reader();
    run.world.checkers.strangers.insert(reader);
    assert!(matches!(run.ask(reader, LocalCommand::Get(id), WAIT_MS), Some(Ok(LocalReply::Secret(_)))));
    assert!(run.world.checkers.findings().iter().any(|finding| finding.starts_with("P1")));
}

#[test]
fn a_founder_whose_clock_ran_ahead_for_a_moment_goes_on_as_if_nothing_had_been() {
    let mut run = mesh();
    run.begin_put(1);
    run.settle(10_000);
    let deposit = run.deposits.first().expect("a put").clone();
    run.world.clocks_ahead_ms.insert(0, 3_600_000);
    run.settle(3_000);
    run.world.clocks_ahead_ms.clear();
    run.settle(10_000);
    let read = run.ask(run.reader(), LocalCommand::Get(deposit.id), WAIT_MS);
    assert!(matches!(read, Some(Ok(LocalReply::Secret(_)))), "{read:?}");
    run.begin_put(2);
    run.settle(10_000);
    assert!(run.deposits.last().is_some_and(|deposit| deposit.acknowledged), "puts go on too");
}

#[test]
fn hosts_whose_disks_are_nearly_full_take_no_new_share_and_give_those_that_they_have() {
    let mut run = mesh();
    run.begin_put(1);
    run.settle(10_000);
    let held = run.deposits.first().expect("a put").clone();
    let puts_with = |run: &mut Run, free: u64| {
        (0..5).for_each(|machine| run.world.has_room(machine, free));
        run.settle(1_000);
        run.begin_put(1);
        run.settle(20_000);
        let read = run.ask(run.reader(), LocalCommand::Get(held.id), WAIT_MS);
        assert!(matches!(read, Some(Ok(LocalReply::Secret(_)))), "{read:?}");
        run.deposits.last().expect("a put").clone()
    };
    assert!(held.acknowledged);
    let refused = puts_with(&mut run, DISK_FREE_MIN - 1).failure.expect("a failure");
    assert!(matches!(&refused, Failure::Refused(refused) if refused.check == Check::Capacity), "{refused:?}");
    assert!(puts_with(&mut run, DISK_FREE_MIN).acknowledged, "once there is room");
    run.is_sound();
}

#[test]
fn ten_readings_at_once_are_all_answered() {
    let mut run = mesh();
    run.begin_put(1);
    run.settle(10_000);
    let id = run.deposits.first().expect("a put").id;
    let reader = run.reader();
    let asked: Vec<_> = (0..10).filter_map(|_| run.world.command(reader, LocalCommand::Get(id))).collect();
    assert_eq!(asked.len(), 10);
    let mut answered = 0;
    let until = run.world.now_ms + 10_000;
    while run.world.now_ms < until {
        run.world.run_until(until);
        while let Some(answer) = run.world.answers.pop_front() {
            answered += usize::from(matches!(answer.reply, Ok(LocalReply::Secret(_))));
        }
    }
    assert_eq!(answered, 10);
}

#[test]
fn a_recorded_unlock_opens_nothing_after_a_restart() {
    let mut run = mesh();
    let unlocked = |run: &mut Run| match run.ask(4, LocalCommand::Status, WAIT_MS) {
        Some(Ok(LocalReply::Status(status))) => status.unlocked,
        other => panic!("no status: {other:?}"),
    };
    run.world.overheard = Some(Vec::new());
    run.world.crash(4);
    run.world.start(4);
    assert!(!unlocked(&mut run), "a start locks");
    run.settle(10_000);
    assert!(unlocked(&mut run), "its peers unlock it");
    let recorded = run.world.overheard.take().expect("what was overheard");
    assert!(recorded.iter().any(|(to, ..)| *to == 4));
    for machine in 0..5 {
        run.world.crash(machine);
    }
    run.world.start(4);
    for (_, from, bytes) in recorded.iter().filter(|(to, ..)| *to == 4) {
        run.world.deliver(4, *from, bytes);
    }
    run.settle(10_000);
    assert!(!unlocked(&mut run), "the session key of then is gone");
    for machine in 0..4 {
        run.world.start(machine);
    }
    run.settle(20_000);
    assert!(unlocked(&mut run), "its peers are back");
}

fn digest(head: &SignedHead) -> Digest {
    Purpose::Head.digest(&[&head.bytes])
}

/// Puts through a host; gives what was offered to another one of the holders, and by whom.
fn offered(run: &mut Run, through: usize, to: usize) -> Option<(TransportKey, Message)> {
    run.world.overheard = Some(Vec::new());
    run.begin_put(through);
    run.settle(5_000);
    let heard = run.world.overheard.take().expect("what was overheard");
    heard.into_iter().filter(|(target, ..)| *target == to).find_map(|(_, from, bytes)| {
        let body = message_in(&bytes);
        matches!(body, Message::ShareStore { .. }).then_some((from, body))
    })
}

#[test]
fn a_voter_that_holds_a_share_does_not_make_a_put_recorded_by_its_word() {
    let mut run = mesh();
    let leads = leader(&mut run);
    let gateway = (leads + 1) % 5;
    run.world.overheard = Some(Vec::new());
    run.begin_put(gateway);
    let mut open = None;
    for _ in 0..5_000 {
        run.settle(1);
        let heard = run.world.overheard.as_ref().expect("listened").iter();
        open = heard.filter(|(to, ..)| *to != gateway && *to != leads).find_map(|(to, _, bytes)| {
            match message_in(bytes) {
                Message::ShareStore { request, head, .. } => Some((*to, request, digest(&head))),
                _ => None,
            }
        });
        if open.is_some() {
            break;
        }
    }
    let (liar, request, head) = open.expect("a holder that hears the request");
    let key = run.world.machines[liar].transport;
    for _ in 0..5_000 {
        run.world.inject(gateway, key, Message::Recorded { request, head, record: 1 });
        run.settle(1);
        let recorded = run.records(leads);
        let is_recorded = recorded.credential(&run.deposits[0].id).is_some();
        assert!(is_recorded || !run.deposits[0].acknowledged, "nobody has recorded it");
        if run.deposits[0].acknowledged {
            return;
        }
    }
    panic!("what is recorded is acknowledged");
}

#[test]
fn a_put_is_acknowledged_on_the_word_of_a_majority_of_the_seats_not_on_records_that_one_of_them_made_up() {
    let mut run = mesh();
    run.settle(20_000);
    let (leads, gateway) = (leader(&mut run), run.reader());
    // Early in an epoch: the next header would deny what is made up.
    let round = |run: &Run| {
        let records = run.records(gateway);
        records.header().expect("a header").round
    };
    let before = round(&run);
    while round(&run) == before {
        run.settle(10);
    }
    run.begin_put(gateway);
    let asked = run.overhear(|_, message| match message {
        Message::PutRecord { head, receipts, .. } => Some((head, receipts)),
        _ => None,
    });
    let (head, receipts) = asked.expect("the record was asked for");
    // The leader is heard by nobody: what it is asked to record it cannot, and it lies instead.
    run.world.cut_off.insert(leads);
    run.settle(50);
    let records = run.records(gateway);
    let (index, term) = (records.applied() + 1, records.term());
    let command = wire::encode(&Command::Head {
        head: head.clone(),
        value: Value {
            group: receipts[0].group,
            generation: receipts[0].generation,
            commitments: receipts[0].commitments,
            flushed: receipts.iter().map(Flushed::from).collect(),
        },
    });
    let key = |run: &Run, machine: usize| run.world.machines[machine].transport;
    let lie = LogEntry { index, term, change: None, command };
    let liar = key(&run, leads);
    let (epoch, header, presence) = (None, None, None);
    let there_is_more = Message::Announce { term, leader: None, beacon: epoch, header, records: index, presence };
    run.world.inject(gateway, liar, there_is_more);
    run.world.inject(gateway, liar, Message::RecordsPage { entries: vec![lie], newest: index });
    let own = run.records(gateway);
    assert_eq!(own.credential(&run.deposits[0].id).map(|one| one.record), Some(index), "it took the lie");
    let request = own.credential(&run.deposits[0].id).expect("a credential").head.head().request;
    let says = Message::Recorded { request, head: digest(&head), record: index };
    let others: Vec<usize> = (0..5).filter(|machine| *machine != leads).collect();
    for machine in [leads, others[0]] {
        let from = key(&run, machine);
        run.world.inject(gateway, from, says.clone());
        run.settle(100);
        assert!(!run.deposits[0].acknowledged, "nobody has recorded it");
    }
    let third = key(&run, others[1]);
    run.world.inject(gateway, third, says);
    run.settle(1);
    assert!(run.deposits[0].acknowledged, "three of five are the mesh");
}

#[test]
fn a_share_that_the_owner_did_not_deal_is_not_taken_under_its_head() {
    let mut run = mesh();
    let gateway = 0;
    let (from, good) = (1..5)
        .find_map(|holder| offered(&mut run, gateway, holder).map(|one| (holder, one)))
        .map_or_else(|| panic!("no share was offered"), |(holder, (from, message))| ((holder, from), message));
    let (holder, from) = from;
    let Message::ShareStore { request, head, group, generation, index, sealed, commitments, pieces } = good.clone()
    else {
        panic!("another message");
    };
    let mut answer = |message: Message| {
        run.world.overheard = Some(Vec::new());
        run.world.inject(holder, from, message);
        run.settle(2_000);
        let heard = run.world.overheard.take().expect("what was overheard");
        let own = run.world.machines[holder].transport;
        heard.into_iter().filter(|(to, who, _)| *to == gateway && *who == own).find_map(
            |(_, _, bytes)| match message_in(&bytes) {
                Message::ShareStored { .. } => Some(Ok(())),
                Message::Refusal { refused, .. } => Some(Err(refused.check)),
                _ => None,
            },
        )
    };
    assert_eq!(answer(good), Some(Ok(())), "the owner's is acknowledged again");
    // Through g^s, and through any other point that its maker likes.
    let mut made_up = commitments;
    made_up[1] = spec::types::Commitment([9; 48]);
    let planted = Message::ShareStore { request, head, group, generation, index, sealed, commitments: made_up, pieces };
    assert_eq!(answer(planted), Some(Err(Check::HeadForm)));
}

#[test]
fn a_stranger_has_a_leader_check_a_few_forged_admissions_a_second() {
    let mut run = mesh();
    let (leads, stranger) = (leader(&mut run), newcomer(&mut run));
    let key = run.world.machines[stranger].transport;
    let known = run.records(0);
    let mut record = known.members().next().expect("a member").record().clone();
    record.host = spec::types::HostId([9; 32]);
    record.eks.iter_mut().for_each(|ek| ek[0] ^= 1);
    (record.name, record.transport, record.ticket) = ("thief".to_owned(), key, spec::types::TicketSerial([9; 16]));
    (record.vote, record.ak) = (spec::types::BlsPublic([9; 96]), vec![9; 10]);
    let flood = |run: &mut Run| {
        run.world.overheard = Some(Vec::new());
        for _ in 0..3 * CHECKS_FAILED_MAX {
            let parts = (1..=3).map(|index| (ShareIndex(index), spec::types::BlsSignature([index; 48]))).collect();
            let message = Message::EnrolAdmit { request: RequestId([1; 16]), record: Box::new(record.clone()), parts };
            run.world.inject(leads, key, message);
        }
        run.settle(300);
        let heard = run.world.overheard.take().expect("listened").into_iter();
        let heard = heard.filter(|(to, ..)| *to == stranger).filter_map(|(_, _, bytes)| match message_in(&bytes) {
            Message::EnrolRefused { refused, .. } => Some(refused.check),
            _ => None,
        });
        heard.filter(|check| *check == Check::Record).count()
    };
    assert_eq!(flood(&mut run), CHECKS_FAILED_MAX);
    assert_eq!(flood(&mut run), 0, "in the same second");
    run.settle(CHECKS_FAILED_MS);
    assert_eq!(flood(&mut run), CHECKS_FAILED_MAX);
}

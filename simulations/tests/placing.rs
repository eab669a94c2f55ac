//! Where new shares go: past hosts that failed a moment ago, and to no group whose hosts are not where its terms want them.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::attest::tpm::EkPublic;
use spec::cms::command::Command;
use spec::cms::election::LogEntry;
use spec::credential::placement::spread_holds;
use spec::credential::receipt::{Flushed, PutReceipt, Value};
use spec::credential::split::PutOrder;
use spec::error::Check;
use spec::host::{LocalCommand, LocalReply};
use spec::suite::Fake;
use spec::ticket;
use spec::types::{HostId, RequestId, SshKey, Terms};
use spec::wire::{self, DealBundle, Message, Placing};
use vouchsafe_sim::liar::{Liar, Lie};
use vouchsafe_sim::random::Random;
use vouchsafe_sim::run::{DOMAINS, Run, operator};

const WAIT_MS: u64 = 100_000;

fn mesh(hosts: usize) -> Run {
    Run::calm(hosts, 7, 20_000)
}

fn host(run: &Run, machine: usize) -> HostId {
    *run.host(machine).host()
}

fn machine(run: &Run, of: &HostId) -> usize {
    (0..run.world.machines.len()).find(|machine| host(run, *machine) == *of).expect("a machine")
}

fn order(number: u8) -> PutOrder {
    let terms = Terms::new(2, 3, 1).expect("sound terms");
    let name = format!("placed/{number}");
    PutOrder {
        request: RequestId([number; 16]),
        client: SshKey([5; 32]),
        name,
        terms,
        allow: Vec::new(),
        recipients: Vec::new(),
    }
}

fn holders(bundle: &DealBundle) -> Vec<HostId> {
    bundle.holders.iter().map(|holder| holder.admission.record.host).collect()
}

fn bundle(run: &mut Run, number: u8) -> DealBundle {
    match run.ask(0, LocalCommand::PutBegin(order(number)), WAIT_MS) {
        Some(Ok(LocalReply::Bundle(bundle))) => *bundle,
        other => panic!("no bundle: {other:?}"),
    }
}

/// A machine that left comes back under another domain.
fn comes_back_in(run: &mut Run, machine: usize, domain: usize) {
    let mut random = Random::new(99);
    run.world.machines[machine].wipe(&mut random);
    let ek = EkPublic::parse(&run.world.machines[machine].tpm.ek().public).expect("an EK").hash();
    let mesh = run.pins.as_ref().expect("pins").mesh;
    let (pins, contacts) = run.pins_for(mesh).expect("an identity");
    let signed = run.ticket(machine, spec::membership::Role::Host, pins, contacts);
    let mut own = signed.ticket().expect("a ticket");
    (own.domain, own.ek_hash) = (DOMAINS[domain].to_owned(), Some(ek));
    let bytes = wire::encode(&own);
    let signature = Fake::sshsig_sign(&operator(domain), ticket::NAMESPACE, &bytes);
    run.world.start(machine);
    let ticket = ticket::SignedTicket { bytes, signature };
    let joined = run.ask(machine, LocalCommand::Join { ticket, address: None }, WAIT_MS);
    assert!(matches!(joined, Some(Ok(LocalReply::Joined(_)))), "{joined:?}");
    run.settle(10_000);
}

#[test]
fn a_group_one_of_whose_hosts_came_back_in_the_domain_of_another_takes_no_more_values() {
    let mut run = mesh(7);
    let before = bundle(&mut run, 1);
    assert_eq!(bundle(&mut run, 2).group, before.group, "it takes as many as come");
    let group = run.records(0).group(&before.group).expect("a group").clone();
    let mut machines: Vec<usize> = group.holders.iter().map(|holder| machine(&run, holder)).collect();
    machines.sort_unstable();
    let (stays, leaves) = (machines[1], machines[2]);
    assert!(matches!(run.ask(leaves, LocalCommand::Leave, WAIT_MS), Some(Ok(LocalReply::Leaving))));
    run.settle(60_000);
    comes_back_in(&mut run, leaves, stays % DOMAINS.len());
    let known = run.records(0);
    assert!(known.group(&group.id).is_some_and(|known| known.holders == group.holders), "the group is known still");
    assert!(group.holders.iter().all(|holder| known.member(holder).is_some()), "and all of its hosts are here");
    let after = bundle(&mut run, 3);
    assert_ne!(after.group, group.id);
    let known = run.records(0);
    let domain = |holder: &HostId| known.member(holder).expect("a member").record().domain.clone();
    let domains: Vec<String> = holders(&after).iter().map(domain).collect();
    assert!(spread_holds(group.terms, domains.iter().map(String::as_str)), "{domains:?}");

    // Nor can a leader put a value there.
    run.begin_put(0);
    let asked = run.overhear(|_, message| match message {
        Message::PutRecord { head, receipts, .. } => Some((head, receipts)),
        _ => None,
    });
    let (head, receipts) = asked.expect("a put that is to be recorded");
    let PutReceipt { generation, commitments, .. } = receipts[0];
    let flushed: Vec<Flushed> = receipts.iter().map(Flushed::from).collect();
    let put_in = |run: &Run, group| {
        let value = Value { group, generation, commitments, flushed: flushed.clone() };
        let mut known = run.records(0).clone();
        let (index, term) = (known.applied() + 1, known.term());
        let command = wire::encode(&Command::Head { head: head.clone(), value });
        known.apply(&Fake, &LogEntry { index, term, change: None, command }).map(drop)
    };
    assert_eq!(put_in(&run, group.id), Err(Check::Spread));
    assert_ne!(put_in(&run, receipts[0].group), Err(Check::Spread), "only the place was wrong");
}

#[test]
fn where_not_all_that_failed_can_be_passed_over_it_is_those_that_failed_last() {
    let mut run = mesh(7);
    let all: Vec<HostId> = (0..7).map(|machine| host(&run, machine)).collect();
    let leader = (0..7).find(|machine| {
        let status = run.ask(*machine, LocalCommand::Status, WAIT_MS);
        matches!(status, Some(Ok(LocalReply::Status(status))) if status.coordinates)
    });
    let leader = leader.expect("somebody leads");
    let asks = (leader + 1) % 7;
    let transport = run.world.machines[asks].transport;
    for (number, last) in (1..).zip(&all) {
        let mut without: Vec<HostId> = all.iter().filter(|host| *host != last).copied().collect();
        without.push(*last);
        let placing = Placing { order: order(number), without };
        let request = placing.order.request;
        run.world.inject(leader, transport, Message::PutBegin(placing));
        let bundle = run.overhear(|_, message| match message {
            Message::PutBundle { request: of, bundle } if of == request => Some(bundle),
            _ => None,
        });
        let holders = holders(&bundle.expect("all together is nobody: some are asked all the same"));
        assert!(!holders.contains(last), "{number}");
    }
}

#[test]
fn a_holder_that_gives_no_receipts_holds_up_one_put_and_not_the_next_ones() {
    let mut run = mesh(9);
    for _ in 0..4 {
        run.begin_put(0);
        run.settle(10_000);
    }
    assert!(run.deposits.iter().all(|deposit| deposit.acknowledged));
    // Somebody whom puts need: all three of a 2-of-3 group must say that they keep their share.
    let group = run.records(0).groups().find(|group| group.terms.n == 3).expect("a group of three").clone();
    let mute = (1..9).find(|machine| group.holders.contains(&host(&run, *machine))).expect("a holder");
    run.world.liar = Some(Liar::new(mute, Lie::NoReceipts));
    for _ in 0..5 {
        run.begin_put(0);
        run.settle(10_000);
    }
    let (first, rest) = (&run.deposits[..4], &run.deposits[4..]);
    assert!(first.iter().all(|deposit| deposit.acknowledged));
    let failed = rest.iter().filter(|deposit| !deposit.acknowledged).count();
    assert_eq!(failed, 1, "{:?}", rest.iter().map(|deposit| &deposit.failure).collect::<Vec<_>>());
}

//! What a leader that lies could do to the records: show the committee another end of the log, or one without an end.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::client::Change;
use spec::cms::command::Command;
use spec::cms::election::{Ballot, BallotKind, LogEntry};
use spec::error::Failure;
use spec::gossip::{News, Verdict};
use spec::header::SignedHeader;
use spec::host::{LocalCommand, LocalReply, Table, Write};
use spec::limits::{PAGE_ENTRIES_MAX, UNCLOSED_BEATS, UNCLOSED_MAX, UNCLOSED_RESERVE, UNCLOSED_TAKEN_MAX};
use spec::suite::Fake;
use spec::wire::{Message, encode, encode_message};
use vouchsafe_sim::disk::Disk;
use vouchsafe_sim::run::Run;

const EPOCH_MS: u64 = 2_000;
const WAIT_MS: u64 = 20_000;
const HOSTS: usize = 5;

/// A disk as it was, with what another holds of shares.
fn with_shares_of(was: &Disk, now: &Disk) -> Disk {
    let of_shares = |table: &Table| matches!(table, Table::Shares | Table::Payloads);
    let rows = |disk: &Disk, keep: bool| -> Vec<Write> {
        let rows = disk.rows().filter(|((table, _), _)| of_shares(table));
        rows.map(|((table, key), value)| Write { table: *table, key: key.clone(), value: keep.then(|| value.clone()) })
            .collect()
    };
    let mut disk = was.clone();
    disk.apply(rows(was, false));
    disk.apply(rows(now, true));
    disk
}

#[test]
fn a_holder_that_said_that_a_revocation_binds_it_is_bound_though_all_records_are_turned_back() {
    let mut run = Run::calm(HOSTS, 3, WAIT_MS);
    run.begin_put(0);
    run.settle(WAIT_MS);
    let deposit = run.deposits.last().expect("a put");
    assert!(deposit.acknowledged, "{:?}", deposit.failure);
    let id = deposit.id;
    let before: Vec<Disk> = run.world.machines.iter().map(|machine| machine.disk.clone()).collect();

    let newest = run.records(0).credential(&id).expect("it is there").head.signed().clone();
    let revocation = run.change(&newest, Change::Allow(Vec::new())).expect("a head");
    match run.ask(1, revocation, WAIT_MS) {
        Some(Ok(LocalReply::Changed { certain, .. })) => assert!(certain),
        other => panic!("not revoked: {other:?}"),
    }
    // The word was given with what it binds on disk: nothing else is waited for.
    let after: Vec<Disk> = run.world.machines.iter().map(|machine| machine.disk.clone()).collect();

    let mut reads_from = |disks: Vec<Disk>| {
        for (machine, disk) in disks.into_iter().enumerate() {
            run.world.crash(machine);
            run.world.machines[machine].disk = disk;
        }
        (0..run.world.machines.len()).for_each(|machine| run.world.start(machine));
        run.settle(5 * EPOCH_MS);
        let number = run.records(0).credential(&id).expect("it is there").head.head().number;
        (number, run.ask(run.reader(), LocalCommand::Get(id), 60_000))
    };
    let bound = before.iter().zip(&after).map(|(was, now)| with_shares_of(was, now)).collect();
    let (number, read) = reads_from(bound);
    assert_eq!(number, 1, "no record speaks of the revocation");
    assert!(matches!(read, Some(Err(Failure::TooFewHolders { got: 0, .. }))), "{read:?}");
    let (number, read) = reads_from(before);
    assert_eq!(number, 1);
    assert!(matches!(read, Some(Ok(LocalReply::Secret(_)))), "without that word it is read: {read:?}");
}

/// A later header than the newest, that closes a record so much further on, under the mesh key.
fn next_header(run: &Run, hears: usize, further: i64) -> SignedHeader {
    let records = run.records(hears);
    let (mesh, key) = (records.mesh().expect("a mesh"), records.mesh_key().expect("a key"));
    let mut header = records.header().expect("a header").clone();
    header.round.0 = run.world.now_ms / EPOCH_MS + 1;
    header.record = header.record.checked_add_signed(further).expect("an index");
    let signature = Fake::bls_sign_as(key.public(), &header.signed_bytes(mesh)).expect("a signature");
    SignedHeader { header, signature }
}

#[test]
fn a_later_header_that_closes_an_earlier_record_is_a_split_and_one_that_closes_a_later_is_none() {
    for (further, splits) in [(-1, true), (0, true), (1, false)] {
        let mut run = Run::calm(HOSTS, 7, WAIT_MS);
        let hears = 3;
        // Nobody is left who could sign the next one.
        (0..HOSTS).filter(|machine| *machine != hears).for_each(|machine| run.world.crash(machine));
        run.settle(EPOCH_MS);
        let signed = next_header(&run, hears, further);
        let mesh = run.pins.as_ref().expect("pins").mesh;
        let from = run.world.machines[1].transport;
        run.world.judged = Some(Vec::new());
        run.world.hear(hears, &from, encode_message(&mesh, &Message::News(News::Header(Box::new(signed)))));
        let judged = run.world.judged.take().expect("verdicts");
        let verdict = judged.iter().find(|(machine, _)| *machine == hears).expect("a verdict").1;
        assert_eq!(verdict, Verdict::Accept, "{further}");
        assert_eq!(run.status(hears).split, splits, "{further}");
    }
}

#[test]
fn a_log_goes_on_without_a_header_only_so_far_and_behind_that_with_the_next_one_alone() {
    let mut run = Run::calm(HOSTS, 7, WAIT_MS);
    run.begin_put(0);
    run.settle(WAIT_MS);
    let id = run.deposits.last().expect("a put").id;
    let records = run.records(0).clone();
    let old = match run.ask(0, LocalCommand::Beacon(None), WAIT_MS) {
        Some(Ok(LocalReply::Beacon(beacon))) => beacon,
        other => panic!("no beacon: {other:?}"),
    };
    assert!(old.round <= records.header().expect("a header").round);
    run.settle(2 * EPOCH_MS);
    let new = match run.ask(0, LocalCommand::Beacon(None), WAIT_MS) {
        Some(Ok(LocalReply::Beacon(beacon))) => beacon,
        other => panic!("no beacon: {other:?}"),
    };
    let closed = records.header().expect("a header").record;
    let (at_bound, term) = (closed + UNCLOSED_TAKEN_MAX, records.term());
    let entry = |index, term, command| LogEntry { index, term, change: None, command };
    let takes = |entry: LogEntry| records.room_for(&Fake, term, &[entry], &mut 1) == 1;
    let of = |beacon: &spec::beacon::SignedBeacon| encode(&Command::Epoch { beacon: beacon.clone() });
    assert!(takes(entry(at_bound, term, vec![7; 100])));
    assert!(!takes(entry(at_bound + 1, term, vec![7; 100])));
    assert!(takes(entry(at_bound + 1, term, of(&new))), "what closes the next header");
    assert!(!takes(entry(at_bound + 1, term, of(&old))), "that round is closed");
    let mut forged = new.clone();
    forged.round.0 += 1;
    assert!(!takes(entry(at_bound + 1, term, of(&forged))));
    assert!(takes(entry(at_bound + 1, term + 1, Vec::new())), "a leader begins its term");
    assert!(!takes(entry(at_bound + 1, term, Vec::new())), "and does not begin it twice");
    assert!(records.follows_up_to(at_bound) && !records.follows_up_to(at_bound + 1));

    let copies: Vec<LogEntry> = (1..=200).map(|further| entry(at_bound + further, term, of(&new))).collect();
    let begins: Vec<LogEntry> =
        (1..=200).map(|further| entry(at_bound + further, term + further, Vec::new())).collect();
    for filler in [copies, begins] {
        assert_eq!(records.room_for(&Fake, term, &filler, &mut 64), 64, "though each of them could be the one");
        assert_eq!(records.room_for(&Fake, term, &filler, &mut 0), 0);
    }
    let beat = Command::Epoch { beacon: new };
    let change = run.records(0).credential(&id).expect("it is there").head.signed().clone();
    let revocation = Command::Change { head: change };
    for (command, room) in [
        (Command::Leave { host: *run.host(0).host() }, UNCLOSED_MAX),
        (revocation, UNCLOSED_MAX + UNCLOSED_RESERVE),
        (beat, 100 * UNCLOSED_MAX),
    ] {
        assert!(!records.is_unclosed_full_at(closed + room - 1, &command), "{command:?}");
        assert!(records.is_unclosed_full_at(closed + room, &command) || room > UNCLOSED_TAKEN_MAX, "{command:?}");
    }
}

#[test]
fn a_leader_that_never_closes_a_header_fills_no_voters_disk() {
    let mut run = Run::calm(HOSTS, 7, WAIT_MS);
    let liar = (0..HOSTS).find(|machine| run.status(*machine).coordinates).expect("somebody leads");
    let voter = (liar + 1) % HOSTS;
    let id_of = |run: &Run, machine: usize| {
        let host = *run.host(machine).host();
        run.records(voter).committee().and_then(|committee| committee.seat_of(&host)).expect("a seat").id
    };
    let (from, to) = (id_of(&run, liar), id_of(&run, voter));
    let key = run.world.machines[liar].transport;
    // Nobody else is there, who would lead and take the junk away again.
    (0..HOSTS).filter(|machine| *machine != voter).for_each(|machine| run.world.crash(machine));
    let (mut index, before) = (run.records(voter).applied(), run.records(voter).term());
    let (first, term, mut log_term) = (index, before + 1, before);
    let per_page = u64::try_from(PAGE_ENTRIES_MAX).expect("few");
    while index < first + UNCLOSED_TAKEN_MAX + 20 * per_page {
        let junk = |index| LogEntry { index, term, change: None, command: vec![7; 16] };
        let entries = (index + 1..=index + per_page).map(junk).collect();
        let append = Ballot {
            kind: BallotKind::Append,
            from,
            to,
            term,
            log_term,
            index,
            entries,
            commit: 0,
            commit_term: 0,
            reject: false,
            reject_hint: 0,
            context: Vec::new(),
        };
        run.world.inject(voter, key, Message::Ballot(append));
        (index, log_term) = (index + per_page, term);
    }
    // All of it is written by then, whatever is taken.
    run.settle(WAIT_MS);
    let rows = run.world.machines[voter].disk.rows().filter(|((table, _), _)| *table == Table::Records).count();
    let rows = u64::try_from(rows).expect("few");
    assert!(rows > UNCLOSED_MAX, "it takes a good many: {rows}");
    assert!(rows <= first + UNCLOSED_TAKEN_MAX + u64::from(UNCLOSED_BEATS), "{rows}");
}

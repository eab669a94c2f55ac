//! The log is cut behind a snapshot: whoever lacks what was cut off pulls the state, and nobody can show it another.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::cms::records::Records;
use spec::cms::snapshot::Snapshot;
use spec::error::Misbehaved;
use spec::host::{LocalCommand, LocalReply, Table};
use spec::limits::{PUT_EPOCHS, TESTNET_ABSENT_EPOCHS, TESTNET_LOG_KEPT, TESTNET_SNAPSHOT_ENTRIES};
use spec::suite::Fake;
use spec::types::Digest;
use vouchsafe_sim::liar::{Liar, Lie};
use vouchsafe_sim::run::Run;
use vouchsafe_sim::scenario::Scenario;

const EPOCH_MS: u64 = 2_000;

/// Who leads among so many hosts.
fn leader(run: &mut Run, hosts: usize) -> usize {
    (0..hosts).find(|machine| run.status(*machine).coordinates).expect("a leader")
}

fn applied(run: &Run, machine: usize) -> u64 {
    run.world.machines[machine].running.as_ref().map_or(0, |running| running.host.records().applied())
}

/// Index of the first entry on a machine's disk.
fn first_on_disk(run: &Run, machine: usize) -> u64 {
    let mut rows = run.world.machines[machine].disk.rows();
    let first = rows.find_map(|((table, key), _)| (*table == Table::Records).then(|| key.clone())).unwrap_or_default();
    u64::from_be_bytes(first.try_into().expect("an index"))
}

/// Puts through a machine until the log has grown by as many entries as a snapshot asks for, and some more.
fn grow_log(run: &mut Run, through: usize) {
    let until = applied(run, through) + TESTNET_SNAPSHOT_ENTRIES + TESTNET_LOG_KEPT + 20;
    while applied(run, through) < until {
        for _ in 0..8 {
            run.begin_put(through);
        }
        run.settle(EPOCH_MS);
    }
    run.settle(2 * EPOCH_MS);
}

fn reads_all(run: &mut Run) {
    let stored: Vec<_> = run.deposits.iter().filter(|one| one.acknowledged).map(|one| one.id).collect();
    assert!(!stored.is_empty());
    let ids = stored.iter().step_by(stored.len().div_ceil(5));
    for id in ids {
        let read = run.ask(run.reader(), LocalCommand::Get(*id), 100_000);
        assert!(matches!(read, Some(Ok(LocalReply::Secret(_)))), "{read:?}");
    }
}

#[test]
fn the_log_is_bounded_and_a_restart_begins_with_the_snapshot() {
    let mut run = Run::calm(5, 5, 3 * EPOCH_MS);
    for _ in 0..3 {
        grow_log(&mut run, 0);
    }
    for machine in 0..5 {
        let (first, last) = (first_on_disk(&run, machine), applied(&run, machine));
        let puts = u64::try_from(run.deposits.len()).expect("few");
        // A put makes two rows: its credential, and for an hour its request.
        let most = TESTNET_SNAPSHOT_ENTRIES.max(puts / 2 + 10) + TESTNET_LOG_KEPT + 20;
        assert!(first > 1 && last - first <= most, "machine {machine} keeps {first} to {last}");
    }
    let before = applied(&run, 0);
    for machine in 0..7 {
        run.world.crash(machine);
    }
    for machine in 0..7 {
        run.world.start(machine);
    }
    run.settle(3 * EPOCH_MS);
    assert!((0..7).all(|machine| applied(&run, machine) > before));
    reads_all(&mut run);
    run.is_sound();
}

#[test]
fn a_voter_and_a_follower_that_were_away_while_the_log_was_cut_pull_the_state_and_go_on() {
    let mut run = Run::calm(7, 5, 3 * EPOCH_MS);
    let seated = |run: &Run, machine: usize| {
        let host = run.host(machine).host();
        let records = run.records(0);
        records.committee().and_then(|committee| committee.seat_of(host)).map(|seat| seat.id)
    };
    let voter = (1..7).find(|machine| seated(&run, *machine).is_some()).expect("a voter");
    let follower = (1..7).find(|machine| seated(&run, *machine).is_none()).expect("a follower");
    let seat = seated(&run, voter);
    let left_at = applied(&run, voter);
    run.world.crash(voter);
    run.world.crash(follower);
    grow_log(&mut run, 0);
    assert!(first_on_disk(&run, 0) > left_at, "what they lack is gone");
    run.world.start(voter);
    run.world.start(follower);
    run.settle(4 * EPOCH_MS);
    for machine in [voter, follower] {
        assert_eq!(applied(&run, machine), applied(&run, 0), "machine {machine}");
        assert!(first_on_disk(&run, machine) > left_at);
    }
    assert_eq!(seated(&run, voter), seat, "it votes under the id that it had");
    // With one more voter away, nothing is recorded without the one that came back.
    let others: Vec<usize> = (1..7).filter(|one| *one != voter && seated(&run, *one).is_some()).take(2).collect();
    others.into_iter().for_each(|machine| run.world.crash(machine));
    let before = applied(&run, 0);
    run.settle(6 * EPOCH_MS);
    assert!(applied(&run, 0) > before + 3);
    run.world.crash(voter);
    run.world.start(voter);
    run.settle(3 * EPOCH_MS);
    assert!(applied(&run, voter) > before + 3, "and it starts again from what it pulled");
    run.is_sound();
}

#[test]
fn whoever_joins_behind_a_snapshot_gets_the_state() {
    let scenario = Scenario::named("calm").expect("a scenario");
    let mut run = Run::new(&scenario, 5, 6);
    run.set_up();
    let genesis = run.genesis(&scenario);
    let last = run.stranger();
    assert!((0..last).all(|number| run.enrol(number, &genesis)));
    run.settle(3 * EPOCH_MS);
    grow_log(&mut run, 0);
    assert!(first_on_disk(&run, 0) > 1);
    assert!(run.enrol(last, &genesis));
    run.settle(3 * EPOCH_MS);
    assert!(first_on_disk(&run, last) > 1, "it never saw the beginning");
    reads_all(&mut run);
    run.is_sound();
}

#[test]
fn a_founder_that_missed_the_end_of_the_founding_and_comes_back_behind_a_snapshot_is_in() {
    // The second time others have its seat by then.
    for away in [0, TESTNET_ABSENT_EPOCHS + 40] {
        let scenario = Scenario::named("calm").expect("a scenario");
        let mut run = Run::new(&scenario, 6, 7);
        run.set_up();
        let genesis = run.genesis(&scenario);
        assert!((0..2).all(|number| run.enrol(number, &genesis)));
        let founder = 2;
        run.world.start(founder);
        let joining = run.joining(founder, &genesis, |_| {}).expect("a ticket");
        assert!(run.world.command(founder, joining).is_some());
        while applied(&run, 0) == 0 {
            run.settle(1);
        }
        assert_eq!(applied(&run, founder), 0, "it has voted, and not heard more");
        run.world.crash(founder);
        run.settle(3 * EPOCH_MS);
        for number in 3..7 {
            run.world.start(number);
            let joining = run.joining(number, &genesis, |_| {}).expect("a ticket");
            assert!(matches!(run.ask(number, joining, 100_000), Some(Ok(LocalReply::Joined(_)))));
        }
        run.settle(away * EPOCH_MS);
        grow_log(&mut run, 0);
        assert!(first_on_disk(&run, 0) > 1, "nobody can show the founding any more");
        run.world.start(founder);
        run.settle(30 * EPOCH_MS);
        let status = run.status(founder);
        assert!(status.member.is_some() && status.forming.is_none(), "away for {away} epochs");
        assert_eq!(applied(&run, founder), applied(&run, 0), "away for {away} epochs");
        assert!(first_on_disk(&run, founder) > 1);
        let host = *run.host(founder).host();
        let committee = run.records(0).committee().expect("a committee");
        assert_eq!(committee.voters().len(), 5);
        assert_eq!(committee.seat_of(&host).is_some(), away == 0, "away for {away} epochs");
        assert_eq!(committee.key.index_of(&host).is_some(), away == 0, "away for {away} epochs");
        run.is_sound();
    }
}

#[test]
fn a_state_in_which_one_row_is_another_is_not_taken_and_another_host_is_asked() {
    let mut run = Run::calm(5, 5, 3 * EPOCH_MS);
    let reader = run.reader();
    run.world.crash(reader);
    grow_log(&mut run, 0);
    let liar = leader(&mut run, 5);
    run.world.liar = Some(Liar::new(liar, Lie::WrongRow));
    run.world.thrown_out = Some(Vec::new());
    run.world.start(reader);
    run.settle(6 * EPOCH_MS);
    assert_eq!(run.world.thrown_out.take(), Some(vec![(reader, Misbehaved::BadRecords)]), "whoever served it is named");
    assert_eq!(applied(&run, reader), applied(&run, 0));
    reads_all(&mut run);
    run.is_sound();
}

fn holds(run: &Run, machine: usize) -> bool {
    run.world.machines[machine].disk.rows().any(|((table, _), _)| *table == Table::Shares)
}

/// A mesh of seven with its leader, and a host without a seat that holds a share: the beacon draws who does.
fn with_a_holder_that_follows(seed: u64) -> Option<(Run, usize, usize)> {
    let mut run = Run::calm(7, seed, 3 * EPOCH_MS);
    let leader = leader(&mut run, 7);
    let seats = run.status(leader).committee;
    for _ in 0..3 {
        for through in 0..7 {
            run.begin_put(through);
        }
        run.settle(2 * EPOCH_MS);
    }
    let follower = (0..7).find(|one| !seats.contains(&format!("h{one}")) && holds(&run, *one))?;
    Some((run, leader, follower))
}

#[test]
fn records_that_the_mesh_key_denies_are_dropped_and_pulled_from_others() {
    let (mut run, liar, follower) =
        (5..30).find_map(with_a_holder_that_follows).expect("a follower that holds a share");
    run.world.liar = Some(Liar::new(liar, Lie::NoHeads));
    // It crashes with its records dropped, and shares on its disk.
    for at in 0..6 * EPOCH_MS {
        if at % EPOCH_MS == 0 {
            (0..8).for_each(|_| run.begin_put(0));
        }
        run.settle(1);
        let dropped = !run.world.machines[follower].disk.rows().any(|((table, _), _)| *table == Table::Records);
        if dropped {
            break;
        }
    }
    assert_eq!(applied(&run, follower), 0);
    assert!(holds(&run, follower));
    run.world.crash(follower);
    run.world.start(follower);
    run.settle(6 * EPOCH_MS);
    // Between two rounds, when nothing is on its way.
    while applied(&run, follower) < applied(&run, liar) {
        run.settle(EPOCH_MS / 8);
    }
    assert_eq!(known(&run, follower), known(&run, liar));
    reads_all(&mut run);
    run.world.crash(follower);
    run.world.start(follower);
    run.settle(3 * EPOCH_MS);
    reads_all(&mut run);
    run.is_sound();
}

fn shares(run: &Run, machine: usize) -> usize {
    run.world.machines[machine].disk.rows().filter(|((table, _), _)| *table == Table::Shares).count()
}

/// A mesh of seven with its leader, and a host without a seat that stored a share a moment ago and has not heard yet that
/// its head was recorded.
fn with_a_fresh_share(seed: u64) -> Option<(Run, usize, usize)> {
    let mut run = Run::calm(7, seed, 3 * EPOCH_MS);
    let leader = leader(&mut run, 7);
    let seats = run.status(leader).committee;
    let followers: Vec<usize> = (0..7).filter(|one| !seats.contains(&format!("h{one}"))).collect();
    for _ in 0..12 {
        run.begin_put(leader);
        for _ in 0..EPOCH_MS {
            run.settle(1);
            if let Some(holder) = followers.iter().copied().find(|one| shares(&run, *one) > 0) {
                return Some((run, leader, holder));
            }
        }
    }
    None
}

#[test]
fn a_share_is_not_erased_on_the_word_of_a_voter_that_hides_its_record() {
    let (mut run, liar, holder) = (5..30).find_map(with_a_fresh_share).expect("a follower that holds a share");
    run.world.crash(holder);
    run.settle((PUT_EPOCHS + 4) * EPOCH_MS);
    assert!(run.deposits.last().is_some_and(|deposit| deposit.acknowledged), "the others are enough");
    let before = shares(&run, holder);
    run.world.liar = Some(Liar::new(liar, Lie::NoHeads));
    run.world.start(holder);
    run.settle(6 * EPOCH_MS);
    assert_eq!(shares(&run, holder), before);
    reads_all(&mut run);
    run.is_sound();
}

/// How many credentials a machine knows of, and the digest over all its records.
fn known(run: &Run, machine: usize) -> (usize, Digest) {
    let records = run.records(machine);
    (records.credentials().iter().count(), records.root())
}

#[test]
fn rows_that_are_not_those_that_the_snapshot_names_are_no_state() {
    let mut run = Run::calm(5, 5, 3 * EPOCH_MS);
    grow_log(&mut run, 0);
    let running = run.world.machines[0].running.as_ref().expect("it runs");
    let (snapshot, state) = running.host.records().snapshot().expect("a snapshot");
    let mut rows = Vec::new();
    while let Some(next) = u64::try_from(rows.len()).ok().map(|next| state.page(next, 4_096)).filter(|p| !p.is_empty())
    {
        rows.extend(next);
    }
    let state = |rows: &[Vec<u8>], snapshot: &Snapshot| Records::of_rows(&Fake, rows, snapshot);
    let whole = state(&rows, &snapshot).expect("the state");
    assert_eq!((whole.applied(), whole.root()), (snapshot.record, state_root(&run)));
    let change = |change: fn(&mut Vec<Vec<u8>>)| {
        let mut rows = rows.clone();
        change(&mut rows);
        rows
    };
    let others = [
        change(|rows| drop(rows.pop())),
        change(|rows| drop(rows.remove(0))),
        change(|rows| rows.swap(1, 2)),
        change(|rows| rows.push(rows[1].clone())),
        change(|rows| rows[0][20] ^= 1),
        change(|rows| rows[3].push(0)),
        Vec::new(),
    ];
    for (number, rows) in others.iter().enumerate() {
        assert!(state(rows, &snapshot).is_none(), "change {number}");
    }
    for other in [
        Snapshot { record: snapshot.record + 1, ..snapshot },
        Snapshot { term: snapshot.term + 1, ..snapshot },
        Snapshot { rows: snapshot.rows + 1, ..snapshot },
        Snapshot { bytes: snapshot.bytes + 1, ..snapshot },
        Snapshot { root: Digest::ZERO, ..snapshot },
    ] {
        assert!(state(&rows, &other).is_none(), "{other:?}");
    }
}

/// The digest over all entries up to the newest snapshot, by the header that was closed behind it.
fn state_root(run: &Run) -> Digest {
    let records = run.records(0);
    records.snapshot().map(|(_, state)| state.root()).expect("a snapshot")
}

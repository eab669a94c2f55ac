//! Unlock numbers: shards move under the next unlock, and an earlier one is never given again.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::holder::StoredShare;
use spec::host::{LocalCommand, LocalReply, Table};
use spec::limits::TESTNET_REWRAP_EPOCHS;
use spec::wire;
use vouchsafe_sim::disk::Disk;
use vouchsafe_sim::run::Run;

const EPOCH_MS: u64 = 2_000;
const HOSTS: usize = 5;

fn mesh() -> Run {
    let mut run = Run::calm(HOSTS, 31, 0);
    for through in 0..HOSTS {
        run.begin_put(through);
        run.begin_put(through);
    }
    run.settle(2 * EPOCH_MS);
    run
}

/// The numbers under which the shards on a disk lie.
fn numbers(disk: &Disk) -> Vec<u64> {
    let rows = disk.rows().filter(|((table, _), _)| *table == Table::Shares);
    rows.map(|(_, row)| wire::decode::<StoredShare>(row, row.len()).expect("a share").unlock).collect()
}

fn read_all(run: &mut Run) -> usize {
    let stored: Vec<_> = run.deposits.iter().filter(|one| one.acknowledged).map(|one| one.id).collect();
    for id in &stored {
        let read = run.ask(run.reader(), LocalCommand::Get(*id), 100_000);
        assert!(matches!(read, Some(Ok(LocalReply::Secret(_)))), "{read:?}");
    }
    stored.len()
}

#[test]
fn shards_move_under_the_next_unlock_each_period_and_stay_readable_also_after_a_restart_of_all() {
    let mut run = mesh();
    let mut seen = 1;
    for _ in 0..3 {
        run.settle((TESTNET_REWRAP_EPOCHS + 3) * EPOCH_MS);
        let all: Vec<u64> = (0..HOSTS).flat_map(|host| numbers(&run.world.machines[host].disk)).collect();
        assert!(!all.is_empty() && all.iter().all(|number| *number > seen), "{all:?} after {seen}");
        seen = *all.iter().min().expect("some");
        assert!(read_all(&mut run) > 5);
    }
    for machine in 0..HOSTS + 2 {
        run.world.crash(machine);
    }
    for machine in 0..HOSTS + 2 {
        run.world.start(machine);
    }
    run.settle(4 * EPOCH_MS);
    assert!(read_all(&mut run) > 5);
    run.is_sound();
}

#[test]
fn an_old_copy_of_a_disk_opens_nowhere_not_even_on_its_own_machine() {
    let mut run = mesh();
    let old: Vec<Disk> = (0..HOSTS).map(|host| run.world.machines[host].disk.clone()).collect();
    run.settle((TESTNET_REWRAP_EPOCHS + 5) * EPOCH_MS);
    assert!(read_all(&mut run) > 5);
    // The shares of four of five hosts are set back to what they were: all terms need one of them at least.
    for (host, old) in old.iter().enumerate().take(4) {
        run.world.crash(host);
        let kept = run.world.machines[host].disk.clone();
        let shares = |disk: &Disk| -> Vec<spec::host::Write> {
            let rows = disk.rows().filter(|((table, _), _)| *table == Table::Shares);
            rows.map(|((table, key), value)| spec::host::Write {
                table: *table,
                key: key.clone(),
                value: Some(value.clone()),
            })
            .collect()
        };
        let mut disk = kept;
        disk.apply(shares(old));
        assert!(numbers(&disk).contains(&1));
        run.world.machines[host].disk = disk;
        run.world.start(host);
    }
    run.settle(4 * EPOCH_MS);
    let unlocked = match run.ask(0, LocalCommand::Status, EPOCH_MS) {
        Some(Ok(LocalReply::Status(status))) => status.unlocked,
        other => panic!("no status: {other:?}"),
    };
    assert!(unlocked, "the host itself is as good as before");
    let stored: Vec<_> = run.deposits.iter().filter(|one| one.acknowledged).map(|one| one.id).collect();
    let read = |id| matches!(run.ask(run.reader(), LocalCommand::Get(id), 20_000), Some(Ok(LocalReply::Secret(_))));
    let opened = stored.into_iter().map(read).filter(|opened| *opened).count();
    assert_eq!(opened, 0, "what lay under the earlier unlock is gone for good");
    run.is_sound();
}

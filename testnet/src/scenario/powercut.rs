//! Every daemon and every TPM stops at once, under a load of puts; they start in any order; reads work again with no
//! human. And one host alone: its shards stay shut until peers are there, and its store opens nowhere else.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::restart::{load_all, read_all};
use super::{Stage, must};
use crate::machine::Machine;
use crate::mesh::TestnetError;

/// A host that nobody unlocks is watched for so long: three epochs.
pub(super) const ALONE: Duration = Duration::from_secs(6);

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
    let mut slowest: f64 = 0.0;
    for round in 1..=stage.options.rounds {
        let pause = Duration::from_millis(u64::try_from(800 + stage.below(1_500)).unwrap_or(1_000));
        let load = load_all(stage, round, |load| {
            std::thread::sleep(pause);
            for id in stage.mesh.machines.iter().flat_map(|machine| [machine.daemon, machine.chip]).flatten() {
                crate::children::kill(id);
            }
            load.stop.store(true, Ordering::Relaxed);
        });
        kept.extend(load.acknowledged.into_inner().unwrap_or_default());
        must(!kept.is_empty(), "not one put was acknowledged: the load tested nothing")?;
        slowest = slowest.max(start_in_any_order(stage, &kept)?);
        stage.tell("power cut", &json!({ "round": round, "kept": kept.len(), "slowest_s": slowest }));
    }
    let alone = one_host_alone(stage, &kept)?;
    let mut figures = Map::new();
    figures.insert("rounds".to_owned(), json!(stage.options.rounds));
    figures.insert("puts_kept".to_owned(), json!(kept.len()));
    figures.insert("lost".to_owned(), json!(0));
    figures.insert("last_start_to_all_read_s".to_owned(), json!((slowest * 10.0).round() / 10.0));
    figures.insert("peers_back_to_unlocked_s".to_owned(), json!((alone * 10.0).round() / 10.0));
    Ok(figures)
}

/// Seconds from the last start until everything reads back.
fn start_in_any_order(stage: &mut Stage<'_>, kept: &[(String, Vec<u8>)]) -> Result<f64, TestnetError> {
    stage.mesh.kill_daemons();
    stage.mesh.machines.iter_mut().for_each(Machine::kill_chip);
    let mut order: Vec<usize> = (0..stage.mesh.machines.len()).collect();
    for last in (1..order.len()).rev() {
        let other = stage.below(last + 1);
        order.swap(last, other);
    }
    for at in order {
        if let Some(machine) = stage.mesh.machines.get_mut(at) {
            machine.start_chip()?;
            machine.start_daemon()?;
        }
    }
    let since = Instant::now();
    stage.mesh.revive()?;
    read_all(stage, kept)?;
    Ok(since.elapsed().as_secs_f64())
}

/// Without its peers a host opens nothing; with them it serves again. Gives the seconds between.
fn one_host_alone(stage: &mut Stage<'_>, kept: &[(String, Vec<u8>)]) -> Result<f64, TestnetError> {
    stage.mesh.kill_daemons();
    let alone = stage.mesh.founder()?.plan.name.clone();
    stage.mesh.machine_mut(&alone)?.start_daemon()?;
    stays_locked(stage.mesh.machine(&alone)?, "is alone")?;
    let since = Instant::now();
    stage.mesh.revive()?;
    let back = since.elapsed().as_secs_f64();
    read_all(stage, kept)?;
    stage.tell("alone", &json!({ "host": alone, "locked_for_s": ALONE.as_secs(), "unlocked_after_s": back }));
    a_copied_store_opens_nowhere(stage, &alone)?;
    Ok(back)
}

/// Watches a machine that was just started. Gives what it says of itself in the end.
pub(super) fn stays_locked(machine: &Machine, why: &str) -> Result<Value, TestnetError> {
    machine.wait_ready()?;
    let since = Instant::now();
    loop {
        let status = machine.vouchsafe(&["-o", "json", "status"], b"")?.json();
        let locked = status.get("unlocked") == Some(&Value::Bool(false));
        must(locked, format!("{} {why} and is not locked: {status}", machine.plan.name))?;
        if since.elapsed() >= ALONE {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// The store of one host under the TPM of another; and, so that it is known to be whole, under its own.
pub(super) fn a_copied_store_opens_nowhere(stage: &mut Stage<'_>, from: &str) -> Result<(), TestnetError> {
    let to = stage.mesh.reader()?.plan.name.clone();
    stage.mesh.kill_daemons();
    let folder = |name: &str| stage.mesh.folder.join(name).join("state");
    let (source, target) = (folder(from), folder(&to));
    let copy = source.with_extension("copy");
    copy_folder(&source, &copy)?;
    rename(&target, &target.with_extension("own"))?;
    copy_folder(&copy, &target)?;
    let refused = |stage: &Stage<'_>| log_of(stage, &to).matches(REFUSED).count();
    let before = refused(stage);
    must(!starts(stage, &to)?, format!("the store of {from} opened on {to}"))?;
    must(refused(stage) > before, format!("{to} did not start on the store of {from}, and not for want of its TPM"))?;
    rename(&source, &source.with_extension("own"))?;
    rename(&copy, &source)?;
    must(starts(stage, from)?, format!("the copy does not open on {from} itself: it shows nothing"))?;
    stage.tell("copied", &json!({ "store_of": from, "under_the_tpm_of": to, "opened": false, "under_its_own": true }));
    Ok(())
}

/// What the TPM's refusal to unseal what another sealed leaves in the log.
const REFUSED: &str = "the TPM refused loading a sealed object";

fn starts(stage: &mut Stage<'_>, name: &str) -> Result<bool, TestnetError> {
    let machine = stage.mesh.machine_mut(name)?;
    machine.start_daemon()?;
    let opened = machine.wait_ready().is_ok();
    machine.kill_daemon();
    Ok(opened)
}

fn log_of(stage: &Stage<'_>, name: &str) -> String {
    std::fs::read_to_string(stage.mesh.folder.join(name).join("daemon.log")).unwrap_or_default()
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), TestnetError> {
    std::fs::rename(from, to).map_err(|error| TestnetError::File(from.to_owned(), error))
}

pub(super) fn copy_folder(from: &Path, to: &Path) -> Result<(), TestnetError> {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    let copied = copied.map_err(|error| TestnetError::File(from.to_owned(), error))?;
    must(copied.success(), format!("{} was not copied", from.display()))
}

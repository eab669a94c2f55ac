//! One host stops and starts while it is cut off: its shards stay shut. Connected again its peers unlock it, with no human.
//! Its store opens under no other TPM, and what unlocked it once opens nothing after its next start.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::powercut::{ALONE, a_copied_store_opens_nowhere, stays_locked};
use super::{Stage, must};
use crate::machine::Machine;
use crate::mesh::TestnetError;

/// Credentials that are there.
const KEPT: usize = 5;
/// All five shares are needed and there: what is read has needed the share of the host that was away.
const TERMS: [&str; 8] = ["-k", "5", "-n", "5", "--tolerate-domains", "0", "--wait=complete", "--allow=role:host"];

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    let mut kept = Vec::new();
    for number in 0..KEPT {
        let (name, content) = (format!("kept/{number}"), stage.content(64));
        stage.mesh.put(stage.mesh.founder()?, &name, &TERMS, &content)?.ok("put")?;
        kept.push((name, content));
    }
    let mut slowest: f64 = 0.0;
    for round in 1..=stage.options.rounds {
        let hosts: Vec<String> = stage
            .mesh
            .machines
            .iter()
            .filter(|machine| machine.plan.role == "host")
            .map(|machine| machine.plan.name.clone())
            .collect();
        let at = stage.below(hosts.len());
        let Some(alone) = hosts.get(at) else { return Err(TestnetError::NotThere("no host".to_owned())) };
        slowest = slowest.max(stop_and_start(stage, round, alone, &kept)?);
    }
    a_recorded_unlock_opens_nothing(stage, "host5")?;
    a_copied_store_opens_nowhere(stage, "host1")?;
    let mut figures = Map::new();
    figures.insert("rounds".to_owned(), json!(stage.options.rounds));
    figures.insert("locked_while_cut_off".to_owned(), json!(true));
    figures.insert("connected_to_serving_s".to_owned(), json!((slowest * 10.0).round() / 10.0));
    figures.insert("opened_by_a_recorded_unlock".to_owned(), json!(false));
    figures.insert("opened_elsewhere".to_owned(), json!(false));
    Ok(figures)
}

/// Gives the seconds from its connection until it serves.
fn stop_and_start(
    stage: &mut Stage<'_>,
    round: u64,
    alone: &str,
    kept: &[(String, Vec<u8>)],
) -> Result<f64, TestnetError> {
    stage.mesh.cut_off(&[alone])?;
    stage.mesh.machine_mut(alone)?.kill_daemon();
    stage.mesh.machine_mut(alone)?.start_daemon()?;
    let machine = stage.mesh.machine(alone)?;
    stays_locked(machine, "is cut off")?;
    // It may read each: alone it gets nothing from nobody.
    let (name, content) = kept.first().ok_or_else(|| TestnetError::NotThere("nothing is kept".to_owned()))?;
    let read = stage.mesh.get(machine, name)?;
    must(read.code != 0, format!("{alone} is cut off and read {name}"))?;
    let since = Instant::now();
    stage.mesh.cut_off(&[])?;
    stage.mesh.wait_serving(machine)?;
    let seconds = since.elapsed().as_secs_f64();
    let read = stage.mesh.get(machine, name)?.ok("get")?;
    must(read.out == *content, format!("{name} reads back as something else"))?;
    stage.tell(
        "restarted",
        &json!({ "round": round, "host": alone, "cut_off_s": ALONE.as_secs(), "serving_after_s": seconds }),
    );
    kept.iter().try_for_each(|(name, content)| stage.expect(name, content))?;
    Ok(seconds)
}

/// All others keep their parts of a host's unlock to themselves: it stays locked. They send what they kept, and it opens:
/// what they have is good. It restarts, hears the same again, follows the mesh, and stays locked.
fn a_recorded_unlock_opens_nothing(stage: &mut Stage<'_>, of: &str) -> Result<(), TestnetError> {
    for machine in stage.mesh.machines.iter_mut().filter(|machine| machine.plan.name != of) {
        machine.kill_daemon();
        machine.start_taped()?;
    }
    stage.mesh.revive()?;
    let all = |stage: &Stage<'_>, mode: &str| {
        let mut tapes = stage.mesh.machines.iter().map(Machine::tape);
        tapes.try_for_each(|path| std::fs::write(&path, mode).map_err(|error| TestnetError::File(path, error)))
    };
    let restart = |stage: &mut Stage<'_>| {
        let machine = stage.mesh.machine_mut(of)?;
        machine.kill_daemon();
        machine.start_daemon()
    };
    all(stage, "keep")?;
    restart(stage)?;
    stays_locked(stage.mesh.machine(of)?, "was given no part")?;
    all(stage, "replay")?;
    stage.mesh.wait_serving(stage.mesh.machine(of)?)?;
    restart(stage)?;
    let status = stays_locked(stage.mesh.machine(of)?, "was given the parts of before its start")?;
    let follows = status.get("header_epoch").is_some_and(Value::is_u64);
    must(follows, format!("{of} heard nobody, which shows nothing: {status}"))?;
    all(stage, "pass")?;
    stage.mesh.wait_serving(stage.mesh.machine(of)?)?;
    let figures = json!({
        "of": of, "opened_when_late": true, "locked_after_the_next_start_s": ALONE.as_secs(), "opened_by_new_parts": true,
    });
    stage.tell("a recorded unlock", &figures);
    Ok(())
}

//! One host stops and starts while it is cut off: its shards stay shut. Connected again its peers unlock it, with no human.
//! Its store opens under no other TPM.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::powercut::a_copied_store_opens_nowhere;
use super::{Stage, must};
use crate::mesh::TestnetError;

/// A host that is cut off is watched for so long: three epochs.
const ALONE: Duration = Duration::from_secs(6);
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
    a_copied_store_opens_nowhere(stage, "host1")?;
    let mut figures = Map::new();
    figures.insert("rounds".to_owned(), json!(stage.options.rounds));
    figures.insert("locked_while_cut_off".to_owned(), json!(true));
    figures.insert("connected_to_serving_s".to_owned(), json!((slowest * 10.0).round() / 10.0));
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
    machine.wait_ready()?;
    let since = Instant::now();
    while since.elapsed() < ALONE {
        let status = machine.vouchsafe(&["-o", "json", "status"], b"")?.json();
        let locked = status.get("unlocked") == Some(&Value::Bool(false));
        must(locked, format!("{alone} is cut off and not locked: {status}"))?;
        std::thread::sleep(Duration::from_millis(250));
    }
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

//! Slow and sick chips: a slow one keeps up, a failing one takes its host out and nobody else, and brings it back when it
//! works again, with no restart and no human.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{Stage, must};
use crate::mesh::{EPOCH_MS, TestnetError};

/// TPM_RC_FAILURE: what a chip in failure mode answers to everything.
const FAILURE_MODE: &str = "error=101\n";

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    let content = stage.content(100);
    let more = ["-k", "2", "-n", "3"];
    stage.mesh.put(stage.mesh.founder()?, "chips/a", &more, &content)?.ok("put")?;

    set_faults(stage, "host2", "delay_ms=80\n")?;
    std::thread::sleep(Duration::from_millis(3 * EPOCH_MS));
    must(state(stage, "host2")? == "good", "a slow chip takes its host out")?;
    set_faults(stage, "host2", "")?;
    stage.tell("a slow chip", &json!({ "delay_ms_each_command": 80, "state": "good" }));

    set_faults(stage, "host3", FAILURE_MODE)?;
    let out = wait_for(stage, "host3", "absent")?;
    stage.expect("chips/a", &content)?;
    let refused = stage.mesh.put(stage.mesh.founder()?, "chips/b", &more, &content)?;
    must(refused.code == 5, format!("a put that needs the sick host ended with {}, not 5", refused.code))?;
    stage.tell("a chip in failure mode", &json!({ "absent_after_s": out, "reads": "go on", "put": "exit 5" }));

    set_faults(stage, "host3", "")?;
    let back = wait_for(stage, "host3", "good")?;
    stage.mesh.put(stage.mesh.founder()?, "chips/b", &more, &content)?.ok("put")?;
    stage.expect("chips/b", &content)?;
    stage.tell("the chip works again", &json!({ "good_after_s": back, "restarted": false }));
    let mut figures = Map::new();
    figures.insert("absent_after_s".to_owned(), json!(out));
    figures.insert("good_after_s".to_owned(), json!(back));
    Ok(figures)
}

fn set_faults(stage: &Stage<'_>, name: &str, faults: &str) -> Result<(), TestnetError> {
    let path = stage.mesh.machine(name)?.faults();
    std::fs::write(&path, faults).map_err(|error| TestnetError::File(path, error))
}

fn state(stage: &Stage<'_>, name: &str) -> Result<String, TestnetError> {
    let hosts = stage.mesh.hosts()?;
    let named = |host: &&Value| host.get("name").is_some_and(|of| of == name);
    let state = hosts.iter().find(named).and_then(|host| host.get("state")).and_then(Value::as_str);
    Ok(state.unwrap_or_default().to_owned())
}

/// Seconds until a host is in this state; at most ten epochs.
fn wait_for(stage: &Stage<'_>, name: &str, wanted: &str) -> Result<f64, TestnetError> {
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(10 * EPOCH_MS) {
        if state(stage, name)? == wanted {
            return Ok((since.elapsed().as_secs_f64() * 10.0).round() / 10.0);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(TestnetError::Wrong(format!("{name} does not become {wanted}")))
}

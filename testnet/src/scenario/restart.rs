//! SIGKILL to every daemon at random moments of a load of puts; what was acknowledged stays. At the end daemons and
//! TPMs stop and start, and everything is readable with no human.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::Stage;
use crate::machine::Machine;
use crate::mesh::{Mesh, TestnetError};

/// Loaders at once.
const LOADERS: usize = 2;

pub(super) struct Load {
    pub(super) stop: AtomicBool,
    tried: Mutex<usize>,
    pub(super) acknowledged: Mutex<Vec<(String, Vec<u8>)>>,
}

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
    let mut tried = 0;
    for round in 1..=stage.options.rounds {
        let pause = 400 + stage.below(2_600);
        let load = load_all(stage, round, |load| {
            std::thread::sleep(Duration::from_millis(u64::try_from(pause).unwrap_or(0)));
            // The daemons die under the load; the loaders see broken requests and count only what was acknowledged.
            for id in stage.mesh.machines.iter().filter_map(|machine| machine.daemon) {
                crate::children::kill(id);
            }
            load.stop.store(true, Ordering::Relaxed);
        });
        stage.mesh.kill_daemons();
        let since = Instant::now();
        stage.mesh.revive()?;
        let back = since.elapsed().as_secs_f64();
        let acknowledged = load.acknowledged.into_inner().unwrap_or_default();
        tried += load.tried.into_inner().unwrap_or(0);
        stage.tell(
            "killed and back",
            &json!({ "round": round, "after_ms": pause, "acknowledged": acknowledged.len(), "back_s": back }),
        );
        kept.extend(acknowledged);
        read_all(stage, &kept)?;
    }
    stage.mesh.kill_daemons();
    for machine in &mut stage.mesh.machines {
        machine.kill_chip();
    }
    let since = Instant::now();
    for machine in &mut stage.mesh.machines {
        machine.start_chip()?;
    }
    stage.mesh.revive()?;
    read_all(stage, &kept)?;
    let seconds = since.elapsed().as_secs_f64();
    stage.tell("all daemons and TPMs stopped and started", &json!({ "readable_after_s": seconds }));
    super::must(!kept.is_empty(), "not one put was acknowledged: the load tested nothing")?;
    let mut figures = Map::new();
    figures.insert("rounds".to_owned(), json!(stage.options.rounds));
    figures.insert("puts_tried".to_owned(), json!(tried));
    figures.insert("puts_acknowledged".to_owned(), json!(kept.len()));
    figures.insert("lost".to_owned(), json!(0));
    Ok(figures)
}

/// Puts through all hosts until `meanwhile` has told them to stop.
pub(super) fn load_all(stage: &Stage<'_>, round: u64, meanwhile: impl FnOnce(&Load)) -> Load {
    let load = Load { stop: AtomicBool::new(false), tried: Mutex::new(0), acknowledged: Mutex::new(Vec::new()) };
    let machines = stage.mesh.machines.clone();
    std::thread::scope(|scope| {
        for loader in 0..LOADERS {
            let (load, mesh, machines) = (&load, &stage.mesh, &machines);
            scope.spawn(move || put_until_stopped(load, mesh, machines, round, loader));
        }
        meanwhile(&load);
    });
    load
}

fn put_until_stopped(load: &Load, mesh: &Mesh, machines: &[Machine], round: u64, loader: usize) {
    let mut number = loader;
    while !load.stop.load(Ordering::Relaxed) {
        let name = format!("restart/{round}/{loader}/{number}");
        let content = format!("content of {name}").into_bytes();
        let Some(machine) = machines.get(number % machines.len().max(1)) else { return };
        number += 1;
        let said = mesh.put(machine, &name, &[], &content);
        if let Ok(mut tried) = load.tried.lock() {
            *tried += 1;
        }
        if said.is_ok_and(|said| said.code == 0)
            && let Ok(mut acknowledged) = load.acknowledged.lock()
        {
            acknowledged.push((name, content));
        }
    }
}

pub(super) fn read_all(stage: &Stage<'_>, kept: &[(String, Vec<u8>)]) -> Result<(), TestnetError> {
    kept.iter().try_for_each(|(name, content)| stage.expect(name, content))
}

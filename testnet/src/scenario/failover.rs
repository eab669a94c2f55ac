//! SIGKILL to the host that leads, under a load of puts and gets from three clients: how long until the next put is
//! acknowledged, and whether anything that was acknowledged is lost, doubled or read wrongly.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use spec::limits::{ELECTION_TICKS, TICK_MS};

use super::{Stage, must};
use crate::machine::Machine;
use crate::mesh::{Mesh, TestnetError};

/// The election timeout T: each voter draws its own in T·[1, 1.5).
const T: Duration = Duration::from_millis(TICK_MS * ELECTION_TICKS as u64);
/// Clients at once.
const CLIENTS: usize = 3;
/// An acknowledged put is waited for at most so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A put that was acknowledged.
#[derive(Clone)]
struct Acknowledged {
    name: String,
    content: Vec<u8>,
    version: u64,
    begun: Instant,
    ended: Instant,
}

/// What the clients share.
struct Load {
    stop: AtomicBool,
    /// The machine that is about to die: its own socket dies with it, and a client that asks it learns nothing.
    dying: Mutex<Option<String>>,
    acknowledged: Mutex<Vec<Acknowledged>>,
    wrong: Mutex<Vec<String>>,
    gets: Mutex<usize>,
}

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    let mut taken = Vec::new();
    let mut all: Vec<Acknowledged> = Vec::new();
    let mut gets = 0;
    for round in 1..=stage.options.rounds {
        let leader = stage.mesh.wait_leader()?;
        let pause = Duration::from_millis(u64::try_from(800 + stage.below(1_200)).unwrap_or(1_000));
        let (load, killed_at) = kill_under_load(stage, round, &leader, pause)?;
        stage.mesh.machine_mut(&leader)?.kill_daemon();
        let acknowledged = load.acknowledged.into_inner().unwrap_or_default();
        let wrong = load.wrong.into_inner().unwrap_or_default();
        must(wrong.is_empty(), wrong.join("; "))?;
        let first = acknowledged.iter().filter(|put| put.begun >= killed_at).map(|put| put.ended).min();
        let first = first.ok_or_else(|| TestnetError::NotThere("no put after the kill was acknowledged".to_owned()))?;
        let seconds = first.duration_since(killed_at).as_secs_f64();
        taken.push(seconds);
        gets += load.gets.into_inner().unwrap_or(0);
        let next = stage.mesh.wait_leader()?;
        must(next != leader, format!("{leader} is dead and leads"))?;
        let figures = json!({
            "round": round, "killed": leader, "leads": next, "acknowledged": acknowledged.len(),
            "seconds_to_next_put": (seconds * 1e3).round() / 1e3,
        });
        stage.tell("killed the leader", &figures);
        all.extend(acknowledged);
        stage.mesh.revive()?;
    }
    check_all(stage, &all)?;
    Ok(figures(&mut taken, all.len(), gets, stage.options.rounds))
}

/// Clients put and get; in the middle of it the leader dies.
fn kill_under_load(
    stage: &Stage<'_>,
    round: u64,
    leader: &str,
    pause: Duration,
) -> Result<(Load, Instant), TestnetError> {
    let load = Load {
        stop: AtomicBool::new(false),
        dying: Mutex::new(None),
        acknowledged: Mutex::new(Vec::new()),
        wrong: Mutex::new(Vec::new()),
        gets: Mutex::new(0),
    };
    let process = stage.mesh.machine(leader)?.daemon;
    let killed_at = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (load, mesh) = (&load, &stage.mesh);
            scope.spawn(move || put_and_get(load, mesh, round, client));
        }
        std::thread::sleep(pause);
        if let Ok(mut dying) = load.dying.lock() {
            *dying = Some(leader.to_owned());
        }
        if let Some(process) = process {
            crate::children::kill(process);
        }
        let killed_at = Instant::now();
        let has_next = || {
            let acknowledged = load.acknowledged.lock();
            acknowledged.is_ok_and(|all| all.iter().any(|put| put.begun >= killed_at))
        };
        while !has_next() && killed_at.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        load.stop.store(true, Ordering::Relaxed);
        killed_at
    });
    Ok((load, killed_at))
}

fn put_and_get(load: &Load, mesh: &Mesh, round: u64, client: usize) {
    let hosts: Vec<&Machine> = mesh.machines.iter().filter(|machine| machine.plan.role == "host").collect();
    let mut number = 0;
    while !load.stop.load(Ordering::Relaxed) {
        let name = format!("failover/{round}/{client}/{}", number / 2);
        let content = format!("content {number} of {name}").into_bytes();
        let through = (number + client * 2) % hosts.len().max(1);
        number += 1;
        let dying = load.dying.lock().ok().and_then(|dying| dying.clone());
        let Some(machine) = hosts.get(through).filter(|machine| Some(&machine.plan.name) != dying.as_ref()) else {
            continue;
        };
        let begun = Instant::now();
        let Ok(said) = mesh.put(machine, &name, &[], &content) else { continue };
        if said.code != 0 {
            continue;
        }
        let version = said.json().get("version").and_then(Value::as_u64).unwrap_or(0);
        let put = Acknowledged { name: name.clone(), content: content.clone(), version, begun, ended: Instant::now() };
        if let Ok(mut acknowledged) = load.acknowledged.lock() {
            acknowledged.push(put);
        }
        let Ok(read) = mesh.reader().and_then(|reader| mesh.get(reader, &name)) else { continue };
        if let Ok(mut gets) = load.gets.lock() {
            *gets += usize::from(read.code == 0);
        }
        // This client alone writes this name: what it reads is what it wrote last.
        if read.code == 0 && read.out != content {
            let what = format!("{name} reads back as {}", String::from_utf8_lossy(&read.out));
            if let Ok(mut wrong) = load.wrong.lock() {
                wrong.push(what);
            }
        }
    }
}

/// Nothing that was acknowledged is lost, and nothing was recorded twice.
fn check_all(stage: &Stage<'_>, all: &[Acknowledged]) -> Result<(), TestnetError> {
    let mut newest: std::collections::BTreeMap<&str, &Acknowledged> = std::collections::BTreeMap::new();
    for put in all {
        let known = newest.entry(&put.name).or_insert(put);
        if put.version > known.version {
            *known = put;
        } else if put.version == known.version && put.content != known.content {
            return Err(TestnetError::Wrong(format!("{} has two versions {}", put.name, put.version)));
        }
    }
    for (name, put) in newest {
        let shown = stage.mesh.founder()?.vouchsafe(&["-o", "json", "show", name], b"")?.json();
        let version = shown.get("version").and_then(Value::as_u64).unwrap_or(0);
        // A put whose client heard nothing may have been recorded after the one that was acknowledged.
        if version == put.version {
            stage.expect(name, &put.content)?;
        }
        must(version >= put.version, format!("{name}: version {} was acknowledged, {version} is there", put.version))?;
    }
    Ok(())
}

fn figures(taken: &mut [f64], puts: usize, gets: usize, rounds: u64) -> Map<String, Value> {
    taken.sort_by(f64::total_cmp);
    let at = |part: usize| taken.get(part.min(taken.len().saturating_sub(1))).copied().unwrap_or(0.0);
    let t = T.as_secs_f64();
    let ratio = |seconds: f64| (seconds / t * 100.0).round() / 100.0;
    let mut figures = Map::new();
    figures.insert("rounds".to_owned(), json!(rounds));
    figures.insert("puts_acknowledged".to_owned(), json!(puts));
    figures.insert("gets_right".to_owned(), json!(gets));
    figures.insert("lost".to_owned(), json!(0));
    figures.insert("doubled".to_owned(), json!(0));
    figures.insert("t_seconds".to_owned(), json!(t));
    figures.insert("next_put_p50_in_t".to_owned(), json!(ratio(at(taken.len() / 2))));
    figures.insert("next_put_max_in_t".to_owned(), json!(ratio(at(usize::MAX))));
    figures
}

//! A load of puts and gets from three clients, each of its own names: what was acknowledged, and what reads wrongly.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use spec::limits::{ELECTION_TICKS, TICK_MS};

use super::{Stage, must};
use crate::machine::Machine;
use crate::mesh::{Mesh, SETTLE, TestnetError};

/// The election timeout T: each voter draws its own in T·[1, 1.5).
pub(super) const T: Duration = Duration::from_millis(TICK_MS * ELECTION_TICKS as u64);
/// Clients at once.
const CLIENTS: usize = 3;
/// Each client waits so long after a put once the fault has been measured: all that was put is read back in the end.
const PACE: Duration = Duration::from_millis(500);
/// An acknowledged put is waited for at most so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// From a fault to the next acknowledged put half of the rounds may take so long, and all of them, in T.
const HALF_IN_T: f64 = 1.5;
const MOST_IN_T: f64 = 3.0;
/// Of fewer rounds that says little, on a machine that does something else as well.
const TIMED_ROUNDS: usize = 20;
/// Exit code of `get` where there is no such credential.
const NOT_FOUND: i32 = 3;

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
#[derive(Default)]
pub(super) struct Load {
    stop: AtomicBool,
    /// From the next acknowledged put on.
    is_measured: AtomicBool,
    /// Machines that nobody asks: dead, or cut off from the others.
    away: Mutex<Vec<String>>,
    /// All contents that were put, or may have been, by name.
    tried: Mutex<BTreeMap<String, Vec<Vec<u8>>>>,
    acknowledged: Mutex<Vec<Acknowledged>>,
    wrong: Mutex<Vec<String>>,
    gets: Mutex<usize>,
}

/// All that clients were told, over several loads.
pub(super) struct Told {
    /// Terms of their puts, as arguments.
    pub(super) terms: &'static [&'static str],
    puts: Vec<Acknowledged>,
    /// All contents that were put, or may have been, by name.
    tried: BTreeMap<String, Vec<Vec<u8>>>,
    gets: usize,
    /// Seconds from each fault to the end of the next acknowledged put that began after it.
    taken: Vec<f64>,
}

/// Runs the load; after `pause` the fault strikes, of which these machines are gone, and the load goes on until a put
/// that began after it is acknowledged. Then `meanwhile` is done, still under the load.
pub(super) fn strike<R>(
    mesh: &Mesh,
    told: &mut Told,
    prefix: &str,
    pause: Duration,
    away: &[&str],
    fault: impl FnOnce() -> Result<(), TestnetError>,
    meanwhile: impl FnOnce() -> Result<R, TestnetError>,
) -> Result<R, TestnetError> {
    let (load, terms) = (Load::default(), told.terms);
    let outcome = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let load = &load;
            scope.spawn(move || put_and_get(load, mesh, terms, prefix, client));
        }
        std::thread::sleep(pause);
        locked(&load.away).extend(away.iter().map(|name| (*name).to_owned()));
        let outcome = fault().and_then(|()| {
            let struck = Instant::now();
            // Those three may have puts open that end only with their epoch: one more begins now.
            scope.spawn(|| put_at_once(&load, mesh, terms, prefix));
            let next =
                || locked(&load.acknowledged).iter().filter(|put| put.begun >= struck).map(|put| put.ended).min();
            while next().is_none() && struck.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
            let next = next();
            let ended =
                next.ok_or_else(|| TestnetError::NotThere("no put after the fault was acknowledged".to_owned()))?;
            load.is_measured.store(true, Ordering::Relaxed);
            Ok((ended.duration_since(struck).as_secs_f64(), meanwhile()?))
        });
        load.stop.store(true, Ordering::Relaxed);
        outcome
    });
    told.tried.append(&mut locked(&load.tried));
    told.puts.append(&mut locked(&load.acknowledged));
    told.gets += *locked(&load.gets);
    let wrong = std::mem::take(&mut *locked(&load.wrong));
    must(wrong.is_empty(), wrong.join("; "))?;
    let (seconds, result) = outcome?;
    told.taken.push(seconds);
    Ok(result)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put_and_get(load: &Load, mesh: &Mesh, terms: &[&str], prefix: &str, client: usize) {
    let hosts: Vec<&Machine> = mesh.machines.iter().filter(|machine| machine.plan.role == "host").collect();
    let is_away = |name: &str| locked(&load.away).iter().any(|away| away == name);
    let mut number = 0;
    while !load.stop.load(Ordering::Relaxed) {
        if load.is_measured.load(Ordering::Relaxed) {
            std::thread::sleep(PACE);
        }
        let name = format!("{prefix}/{client}/{}", number / 2);
        let content = format!("content {number} of {name}").into_bytes();
        let through = (number + client * 2) % hosts.len().max(1);
        number += 1;
        let Some(machine) = hosts.get(through).filter(|machine| !is_away(&machine.plan.name)) else { continue };
        if !load.put(mesh, machine, terms, &name, &content) {
            continue;
        }
        let Ok(reader) = mesh.reader() else { return };
        if is_away(&reader.plan.name) {
            continue;
        }
        let Ok(read) = mesh.get(reader, &name) else { continue };
        *locked(&load.gets) += usize::from(read.code == 0);
        // This client alone writes this name: what it reads is what it wrote last.
        if read.code == 0 && read.out != content {
            locked(&load.wrong).push(format!("{name} reads back as {}", String::from_utf8_lossy(&read.out)));
        }
        if read.code == NOT_FOUND {
            locked(&load.wrong).push(format!("{name} was acknowledged and is not found: {}", read.err));
        }
    }
}

/// Puts one credential, through one host after the other until it is acknowledged.
fn put_at_once(load: &Load, mesh: &Mesh, terms: &[&str], prefix: &str) {
    let hosts = mesh.machines.iter().filter(|machine| machine.plan.role == "host");
    let away = locked(&load.away).clone();
    let there: Vec<&Machine> = hosts.filter(|machine| !away.contains(&machine.plan.name)).collect();
    for (number, machine) in there.iter().cycle().enumerate() {
        let name = format!("{prefix}/at-once/{number}");
        if load.stop.load(Ordering::Relaxed) || load.put(mesh, machine, terms, &name, name.as_bytes()) {
            return;
        }
    }
}

impl Load {
    /// Puts, and keeps what came of it; says whether it was acknowledged.
    fn put(&self, mesh: &Mesh, machine: &Machine, terms: &[&str], name: &str, content: &[u8]) -> bool {
        let begun = Instant::now();
        locked(&self.tried).entry(name.to_owned()).or_default().push(content.to_vec());
        let Some(said) = mesh.put(machine, name, terms, content).ok().filter(|said| said.code == 0) else {
            return false;
        };
        let version = said.json().get("version").and_then(Value::as_u64).unwrap_or(0);
        let (name, content, ended) = (name.to_owned(), content.to_vec(), Instant::now());
        locked(&self.acknowledged).push(Acknowledged { name, content, version, begun, ended });
        true
    }
}

/// The version that is recorded. A host that was cut off a moment ago may not have the records yet: it is lost only if it
/// does not come.
fn recorded_version(stage: &Stage<'_>, name: &str, at_least: u64) -> Result<u64, TestnetError> {
    let since = Instant::now();
    loop {
        let shown = stage.mesh.founder()?.vouchsafe(&["-o", "json", "show", name], b"")?.json();
        let version = shown.get("version").and_then(Value::as_u64).unwrap_or(0);
        if version >= at_least || since.elapsed() > SETTLE {
            return Ok(version);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Told {
    /// Nothing yet; puts will have these terms.
    pub(super) fn new(terms: &'static [&'static str]) -> Self {
        Self { terms, puts: Vec::new(), tried: BTreeMap::new(), gets: 0, taken: Vec::new() }
    }

    /// Seconds from the last fault to the next acknowledged put.
    pub(super) fn last_taken(&self) -> f64 {
        self.taken.last().map_or(0.0, |seconds| (seconds * 1e3).round() / 1e3)
    }

    /// Puts that were acknowledged.
    pub(super) fn puts(&self) -> usize {
        self.puts.len()
    }

    /// Nothing that was acknowledged is lost, and nothing was recorded twice.
    pub(super) fn check(&self, stage: &Stage<'_>) -> Result<(), TestnetError> {
        let mut newest: BTreeMap<&str, &Acknowledged> = BTreeMap::new();
        for put in &self.puts {
            let known = newest.entry(&put.name).or_insert(put);
            if put.version > known.version {
                *known = put;
            } else if put.version == known.version && put.content != known.content {
                return Err(TestnetError::Wrong(format!("{} has two versions {}", put.name, put.version)));
            }
        }
        for (name, put) in newest {
            let version = recorded_version(stage, name, put.version)?;
            let tried = self.tried.get(name).map(Vec::as_slice).unwrap_or_default();
            let acknowledged = self.puts.iter().filter(|other| other.name == name).count();
            must(
                version >= put.version,
                format!("{name}: version {} was acknowledged, {version} is there", put.version),
            )?;
            // A put whose client heard nothing was recorded once, or never.
            let recorded = usize::try_from(version).unwrap_or(usize::MAX);
            must(
                (acknowledged..=tried.len()).contains(&recorded),
                format!("{name}: {acknowledged} of {} puts were acknowledged, {recorded} recorded", tried.len()),
            )?;
            let may_be: Vec<&Vec<u8>> =
                if version == put.version { vec![&put.content] } else { tried.iter().collect() };
            stage.expect_one_of(name, &may_be)?;
        }
        Ok(())
    }

    /// How long it took from each fault to the next acknowledged put: half of them at most 1.5 T, none above 3 T, where
    /// there are enough to say so.
    pub(super) fn check_times(&self) -> Result<(), TestnetError> {
        let [half, most] = self.times_in_t();
        let few = self.taken.len() < TIMED_ROUNDS;
        must(few || (half <= HALF_IN_T && most <= MOST_IN_T), format!("the next put took {half} T, at most {most} T"))
    }

    /// The median and the maximum, in T.
    fn times_in_t(&self) -> [f64; 2] {
        let mut taken = self.taken.clone();
        taken.sort_by(f64::total_cmp);
        let at = |part: usize| taken.get(part.min(taken.len().saturating_sub(1))).copied().unwrap_or(0.0);
        let ratio = |seconds: f64| (seconds / T.as_secs_f64() * 100.0).round() / 100.0;
        [ratio(at(taken.len() / 2)), ratio(at(usize::MAX))]
    }

    /// What is printed of it. `check` found nothing lost and nothing doubled.
    pub(super) fn figures(&self) -> Map<String, Value> {
        let [half, most] = self.times_in_t();
        let mut figures = Map::new();
        figures.insert("rounds".to_owned(), json!(self.taken.len()));
        figures.insert("puts_acknowledged".to_owned(), json!(self.puts.len()));
        figures.insert("gets_right".to_owned(), json!(self.gets));
        figures.insert("lost".to_owned(), json!(0));
        figures.insert("doubled".to_owned(), json!(0));
        figures.insert("t_seconds".to_owned(), json!(T.as_secs_f64()));
        figures.insert("next_put_p50_in_t".to_owned(), json!(half));
        figures.insert("next_put_max_in_t".to_owned(), json!(most));
        figures
    }
}

//! A few credentials that six clients put, replace, remove and read all at once, through all hosts, while the leader or
//! another host is killed, or two hosts are cut off. What each client was told becomes a history, and other people's
//! checker says whether some order explains it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use histories::{History, Operation, OperationId, Outcome};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use super::{Stage, must};
use crate::command::Said;
use crate::machine::Machine;
use crate::mesh::{Mesh, SETTLE, TestnetError};

/// Credentials of one round.
const REGISTERS: usize = 8;
const CLIENTS: usize = 6;
/// Of the thirty operations on a credential so many must end, on average.
const ENDED_MIN: usize = 15;
/// A round ends after this time, or when every history is full.
const ROUND: Duration = Duration::from_secs(14);
/// From the begin of the load to the fault, at most.
const PAUSE_MS: usize = 2_500;
/// Two hosts are cut off for so long.
const CUT_OFF: Duration = Duration::from_secs(4);
/// One request of so many goes to a host that is cut off: it may say nothing, or the truth.
const AWAY: u64 = 12;

/// A credential with what happened to it.
struct Register {
    name: String,
    history: History,
    /// The newest version that some client was told of.
    version: u64,
}

/// What the clients of a round share.
struct Round {
    registers: Mutex<Vec<Register>>,
    /// Hosts that are dead, and hosts that are cut off.
    dead: Mutex<Vec<String>>,
    cut_off: Mutex<Vec<String>>,
    until: Instant,
}

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    stage.mesh.wait_committee(5, SETTLE)?;
    let (mut taken, mut ended) = (0, 0);
    for round in 1..=stage.options.rounds {
        let registers = one_round(stage, round)?;
        taken += registers.iter().map(|register| register.history.len()).sum::<usize>();
        ended += registers.iter().map(|register| register.history.ended()).sum::<usize>();
    }
    let histories = usize::try_from(stage.options.rounds).unwrap_or(usize::MAX).saturating_mul(REGISTERS);
    let enough = histories.saturating_mul(ENDED_MIN);
    must(ended > enough, format!("only {ended} operations of {histories} credentials ended: it shows nothing"))?;
    let mut figures = Map::new();
    figures.insert("rounds".to_owned(), json!(stage.options.rounds));
    figures.insert("histories".to_owned(), json!(histories));
    figures.insert("operations".to_owned(), json!(taken));
    figures.insert("operations_ended".to_owned(), json!(ended));
    figures.insert("linearizable".to_owned(), json!(histories));
    Ok(figures)
}

fn one_round(stage: &mut Stage<'_>, round: u64) -> Result<Vec<Register>, TestnetError> {
    let seed = stage.below(usize::MAX);
    let pause = Duration::from_millis(u64::try_from(stage.below(PAUSE_MS)).unwrap_or(0));
    let leader = stage.mesh.wait_leader()?;
    let other = another_host(stage, &leader)?;
    let name = |number| format!("registers/{}/{round}/{number}", stage.options.seed);
    let register = |number| Register { name: name(number), history: History::default(), version: 0 };
    let shared = Round {
        registers: Mutex::new((0..REGISTERS).map(register).collect()),
        dead: Mutex::default(),
        cut_off: Mutex::default(),
        until: Instant::now() + ROUND,
    };
    // The leader is hit in three rounds of four.
    let hit = if round % 4 == 3 { &other } else { &leader };
    let is_kill = round % 2 == 1;
    let mesh = &stage.mesh;
    let mut begun_before = 0_usize;
    let fault = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let shared = &shared;
            let random = ChaCha20Rng::seed_from_u64(u64::try_from(seed).unwrap_or(0) ^ client_seed(client));
            scope.spawn(move || serve_client(mesh, shared, random));
        }
        std::thread::sleep(pause);
        begun_before = locked(&shared.registers).iter().map(|register| register.history.len()).sum();
        if is_kill { kill(mesh, &shared, hit) } else { cut_off(mesh, &shared, &[hit, &second(mesh, hit)]) }
    });
    fault?;
    if is_kill {
        stage.mesh.machine_mut(hit)?.kill_daemon();
        stage.mesh.revive()?;
    }
    stage.mesh.machines.iter().try_for_each(|machine| stage.mesh.wait_serving(machine))?;
    let mut registers = shared.registers.into_inner().unwrap_or_else(PoisonError::into_inner);
    let last_of_all = stage.mesh.founder()?;
    for register in &mut registers {
        read_in_peace(&stage.mesh, last_of_all, register)?;
        let told = || format!("{} is not linearizable:\n{}", register.name, register.history.to_text());
        must(register.history.is_linearizable(), told())?;
    }
    let sum = |count: fn(&History) -> usize| registers.iter().map(|one| count(&one.history)).sum::<usize>();
    let figures = json!({
        "round": round, "fault": if is_kill { "SIGKILL" } else { "cut off" }, "host": hit, "led": leader,
        "begun_before": begun_before, "operations": sum(History::len), "ended": sum(History::ended),
    });
    stage.tell("histories hold", &figures);
    Ok(registers)
}

fn client_seed(client: usize) -> u64 {
    u64::try_from(client).unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn hosts(mesh: &Mesh) -> Vec<&Machine> {
    mesh.machines.iter().filter(|machine| machine.plan.role == "host").collect()
}

fn another_host(stage: &mut Stage<'_>, not: &str) -> Result<String, TestnetError> {
    let hosts = hosts(&stage.mesh);
    let others: Vec<String> =
        hosts.into_iter().map(|machine| machine.plan.name.clone()).filter(|name| name != not).collect();
    let at = stage.below(others.len());
    others.get(at).cloned().ok_or_else(|| TestnetError::NotThere("there is one host only".to_owned()))
}

fn second(mesh: &Mesh, first: &str) -> String {
    let found = hosts(mesh).into_iter().map(|machine| &machine.plan.name).find(|name| *name != first);
    found.cloned().unwrap_or_default()
}

fn kill(mesh: &Mesh, shared: &Round, name: &str) -> Result<(), TestnetError> {
    locked(&shared.dead).push(name.to_owned());
    mesh.machine(name)?.daemon.into_iter().for_each(crate::children::kill);
    Ok(())
}

fn cut_off(mesh: &Mesh, shared: &Round, names: &[&str]) -> Result<(), TestnetError> {
    locked(&shared.cut_off).extend(names.iter().map(|name| (*name).to_owned()));
    mesh.cut_off(names)?;
    std::thread::sleep(CUT_OFF);
    mesh.cut_off(&[])?;
    locked(&shared.cut_off).clear();
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client: one operation after the other, each on some credential through some host.
fn serve_client(mesh: &Mesh, shared: &Round, mut random: ChaCha20Rng) {
    let hosts = hosts(mesh);
    let mut below = |bound: usize| {
        let bound = u64::try_from(bound).unwrap_or(1).max(1);
        usize::try_from(random.next_u64() % bound).unwrap_or(0)
    };
    while Instant::now() < shared.until {
        let Some(machine) = hosts.get(below(hosts.len())) else { return };
        let is_away =
            locked(&shared.cut_off).contains(&machine.plan.name) && below(usize::try_from(AWAY).unwrap_or(1)) != 0;
        if is_away || locked(&shared.dead).contains(&machine.plan.name) {
            continue;
        }
        let (kind, value, behind) = (below(100), below(usize::MAX), below(5) == 0);
        let (chosen, begun) = (below(REGISTERS), Instant::now());
        let Some((name, what, id)) = begin(shared, chosen, kind, value, behind) else {
            if locked(&shared.registers).iter().all(|register| !register.history.has_room()) {
                return;
            }
            // Nothing else to do for a moment.
            std::thread::sleep(Duration::from_millis(5).saturating_sub(begun.elapsed()));
            continue;
        };
        let Ok(said) = act(mesh, machine, &name, what) else { continue };
        if let Some(register) = locked(&shared.registers).get_mut(chosen) {
            register.take(id, what, &said);
        }
    }
}

fn begin(
    shared: &Round,
    chosen: usize,
    kind: usize,
    value: usize,
    behind: bool,
) -> Option<(String, Operation, OperationId)> {
    let mut registers = locked(&shared.registers);
    let register = registers.get_mut(chosen).filter(|register| register.history.has_room())?;
    let value = u64::try_from(value).unwrap_or(0);
    // Most expect what was there last; some are behind.
    let expected = register.version.saturating_sub(u64::from(behind));
    let what = match kind {
        0..30 => Operation::Get,
        30..60 => Operation::Put(value),
        60..85 => Operation::Cas { expected, value },
        _ => Operation::Remove,
    };
    Some((register.name.clone(), what, register.history.begin(what)))
}

fn act(mesh: &Mesh, machine: &Machine, name: &str, what: Operation) -> Result<Said, TestnetError> {
    let terms = ["-k", "2", "-n", "3", "--allow", "role:host"];
    match what {
        Operation::Get => mesh.get(machine, name),
        Operation::Put(value) => mesh.put(machine, name, &terms, value.to_string().as_bytes()),
        Operation::Cas { expected, value } => {
            let expected = expected.to_string();
            mesh.put(machine, name, &[&terms[..], &["--cas", &expected]].concat(), value.to_string().as_bytes())
        }
        Operation::Remove => {
            machine.vouchsafe(&["-o", "json", "rm", name, "--key", &mesh.owner().display().to_string()], b"")
        }
    }
}

impl Register {
    /// What a client was told. Where nobody can know whether it happened, it stays open.
    fn take(&mut self, id: OperationId, what: Operation, said: &Said) {
        let answer = said.json();
        let is_about_version =
            answer.pointer("/error/check").and_then(Value::as_str).is_some_and(|check| check == "version");
        let outcome = match (what, said.code) {
            // What nobody wrote is read nevertheless, and no order explains it.
            (Operation::Get, 0) => Some(Outcome::Read(said.text().parse().unwrap_or(u64::MAX))),
            (Operation::Put(_) | Operation::Cas { .. }, 0) => {
                answer.get("version").and_then(Value::as_u64).map(Outcome::Stored)
            }
            // 7: it is recorded, and not every holder has said that it binds it.
            (Operation::Remove, 0 | 7) => Some(Outcome::Removed),
            (Operation::Get | Operation::Remove, 3) => Some(Outcome::NotFound),
            (Operation::Cas { .. }, 4) if is_about_version => Some(Outcome::OtherVersion),
            _ => None,
        };
        match outcome {
            Some(outcome) => {
                if let Outcome::Stored(version) = outcome {
                    self.version = self.version.max(version);
                }
                self.history.end(id, outcome);
            }
            // Nothing came of it, for certain: it only read, or it was refused.
            None if what == Operation::Get || said.code == 4 => self.history.leave_out(id),
            None => {}
        }
    }
}

/// In peace a read must succeed: what is there after all of it is part of the history.
fn read_in_peace(mesh: &Mesh, machine: &Machine, register: &mut Register) -> Result<(), TestnetError> {
    let since = Instant::now();
    loop {
        let id = register.history.begin(Operation::Get);
        let said = mesh.get(machine, &register.name)?;
        register.take(id, Operation::Get, &said);
        if said.code == 0 || said.code == 3 {
            return Ok(());
        }
        must(since.elapsed() < SETTLE, format!("{} does not read in peace: {}", register.name, said.err))?;
    }
}

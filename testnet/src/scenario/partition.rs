//! The leader is cut off from the majority, together with another holder and a reader: enough shares on its side for a
//! grant. The majority goes on and revokes; the leader must stop answering, not serve stale grants. Then all hear each
//! other again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::load::{T, Told, strike};
use super::{Stage, must};
use crate::command::Said;
use crate::mesh::{EPOCH_MS, Mesh, SETTLE, TestnetError};

/// How long the reader that is cut off goes on asking after the revocation.
const WATCHED: Duration = Duration::from_millis(4 * EPOCH_MS);
/// Between two reads.
const BETWEEN_READS: Duration = Duration::from_millis(250);
/// A leader that is cut off may take so long to notice: until then it can only answer what its majority confirmed before.
const HEARD: Duration = T;
/// Exit code of what passes by itself.
const TRY_AGAIN: i32 = 5;
/// Exit code of `revoke` where holders are missing.
const NOT_CERTAIN: i32 = 7;

/// What the side of the old leader did after the cut.
struct Watched {
    /// From the cut to the end of the last read that succeeded.
    last_read_s: f64,
    reads_refused: usize,
}

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    stage.mesh.wait_committee(5, SETTLE)?;
    let mut told = Told::new(&["-k", "2", "-n", "3"]);
    let mut last_read_s: f64 = 0.0;
    let mut refused = 0;
    for round in 1..=stage.options.rounds {
        let leader = stage.mesh.wait_leader()?;
        let other = other_host(stage, &leader)?;
        let name = format!("granted/{round}");
        // Every host holds a share, any two are enough: the side that is cut off has two.
        let through = stage.mesh.machine(&leader)?;
        let since = Instant::now();
        // Of those that were cut off in the last round some may not have shown evidence to the leader yet.
        while stage.mesh.put(through, &name, &["-k", "2", "-n", "5"], b"granted")?.code != 0 {
            must(since.elapsed() < SETTLE, format!("{name} is not stored with all hosts there"))?;
        }
        stage.expect(&name, b"granted")?;
        let pause = Duration::from_millis(u64::try_from(400 + stage.below(1_200)).unwrap_or(1_000));
        let watched = cut_off(&stage.mesh, &mut told, round, &leader, &other, &name, pause)?;
        let next = majority_leader(stage, &[&leader, &other])?;
        stage.mesh.cut_off(&[])?;
        let figures = json!({
            "round": round, "cut_off": [&leader, &other, "web1"], "leads": next,
            "seconds_to_next_put": told.last_taken(), "last_read_there_s": watched.last_read_s,
            "reads_refused_there": watched.reads_refused,
        });
        stage.tell("cut the leader off", &figures);
        last_read_s = last_read_s.max(watched.last_read_s);
        refused += watched.reads_refused;
        stage.mesh.wait_good(stage.mesh.machines.len())?;
        stage.mesh.machines.iter().try_for_each(|machine| stage.mesh.wait_serving(machine))?;
        let after = answer_to_reader(stage, &name)?;
        must(after.code == 4, format!("{name} was revoked, and get ends with {}: {}", after.code, after.err))?;
    }
    told.check(stage)?;
    told.check_times()?;
    let mut figures = told.figures();
    figures.insert(
        "last_read_of_the_cut_off_in_t".to_owned(),
        json!((last_read_s / T.as_secs_f64() * 100.0).round() / 100.0),
    );
    figures.insert("reads_refused_while_cut_off".to_owned(), json!(refused));
    figures.insert("stale_grants".to_owned(), json!(0));
    Ok(figures)
}

fn other_host(stage: &mut Stage<'_>, leader: &str) -> Result<String, TestnetError> {
    let hosts = stage.mesh.machines.iter().filter(|machine| machine.plan.role == "host");
    let others: Vec<String> = hosts.map(|machine| machine.plan.name.clone()).filter(|name| name != leader).collect();
    let at = stage.below(others.len());
    others.get(at).cloned().ok_or_else(|| TestnetError::NotThere("there is one host only".to_owned()))
}

/// What the reader is told. It asks again while it is told to: before its chip has quoted anew it has nothing to show.
fn answer_to_reader(stage: &Stage<'_>, name: &str) -> Result<Said, TestnetError> {
    let since = Instant::now();
    loop {
        let said = stage.mesh.get(stage.mesh.reader()?, name)?;
        if said.code != TRY_AGAIN || since.elapsed() >= SETTLE {
            return Ok(said);
        }
        std::thread::sleep(BETWEEN_READS);
    }
}

/// Who leads on the side of the majority.
fn majority_leader(stage: &Stage<'_>, away: &[&str]) -> Result<String, TestnetError> {
    let leads = |machine: &&crate::machine::Machine| {
        let status = machine.vouchsafe(&["-o", "json", "status"], b"");
        status.is_ok_and(|said| said.json().get("coordinates") == Some(&Value::Bool(true)))
    };
    let majority = stage.mesh.machines.iter().filter(|machine| !away.contains(&machine.plan.name.as_str()));
    let found = majority.filter(leads).map(|machine| machine.plan.name.clone()).next();
    found.ok_or_else(|| TestnetError::NotThere("nobody leads the majority".to_owned()))
}

fn cut_off(
    mesh: &Mesh,
    told: &mut Told,
    round: u64,
    leader: &str,
    other: &str,
    name: &str,
    pause: Duration,
) -> Result<Watched, TestnetError> {
    let reader = mesh.reader()?.plan.name.clone();
    let away = [leader, other, &reader];
    let stop = AtomicBool::new(false);
    let began = std::sync::OnceLock::new();
    std::thread::scope(|scope| {
        let fault = || {
            mesh.cut_off(&away)?;
            began.get_or_init(Instant::now);
            Ok(())
        };
        // On its side a reader goes on asking, and somebody goes on putting, all the time.
        let reads = scope.spawn(|| read_until(mesh, name, &stop));
        let puts = scope.spawn(|| put_until(mesh, leader, round, &began, &stop));
        let outcome = strike(mesh, told, &format!("partition/{round}"), pause, &away, fault, || {
            let revoked = revoke(mesh, &away, name)?;
            std::thread::sleep(WATCHED);
            Ok(revoked)
        });
        stop.store(true, Ordering::Relaxed);
        let reads = reads.join().unwrap_or_default();
        let puts = puts.join().unwrap_or_default();
        let revoked = outcome?;
        let acknowledged = puts.acknowledged;
        must(acknowledged == 0, format!("the leader that is cut off acknowledged {acknowledged} puts"))?;
        let late = reads.iter().filter(|read| read.code == 0 && read.begun >= revoked).count();
        must(late == 0, format!("{late} reads of {name} succeeded after its revocation was acknowledged"))?;
        let since = began.get().copied().unwrap_or(revoked);
        let after = |read: &&Read| read.begun >= since;
        // It shows something only where there were readers at all times: between the cut and the revocation, when a leader
        // that does not ask its majority would still grant, and after it.
        let between = reads.iter().filter(after).filter(|read| read.begun < revoked).count();
        let later = reads.iter().filter(|read| read.begun >= revoked).count();
        must(between > 0 && later > 0, format!("{between} reads before the revocation and {later} after it: too few"))?;
        must(puts.tried > 0, "nobody put through the leader that is cut off")?;
        let granted = || reads.iter().filter(|read| read.code == 0);
        let late = granted().map(|read| read.begun.saturating_duration_since(since)).max().unwrap_or_default();
        must(late <= HEARD, format!("a read that began {late:?} after the cut ended well"))?;
        let last = granted().map(|read| read.ended.saturating_duration_since(since)).max().unwrap_or_default();
        Ok(Watched {
            last_read_s: last.as_secs_f64(),
            reads_refused: reads.iter().filter(after).filter(|read| read.code != 0).count(),
        })
    })
}

/// Revokes on the side of the majority; it names who is missing. Gives when it was acknowledged.
fn revoke(mesh: &Mesh, away: &[&str], name: &str) -> Result<Instant, TestnetError> {
    let here = mesh.machines.iter().find(|machine| !away.contains(&machine.plan.name.as_str()));
    let here = here.ok_or_else(|| TestnetError::NotThere("nobody is left".to_owned()))?;
    let key = mesh.owner().display().to_string();
    let said = here.vouchsafe(&["-o", "json", "revoke", name, "instance:web1", "--key", &key], b"")?;
    let message = said.text();
    let missing = away.iter().take(2).all(|host| message.contains(host));
    must(said.code == NOT_CERTAIN && missing, format!("revoke ended with {}: {message}{}", said.code, said.err))?;
    Ok(Instant::now())
}

struct Read {
    begun: Instant,
    ended: Instant,
    code: i32,
}

/// Reads again and again, each beside those that have no answer yet: a request waits for ten seconds where nobody leads.
fn read_until(mesh: &Mesh, name: &str, stop: &AtomicBool) -> Vec<Read> {
    let Ok(reader) = mesh.reader() else { return Vec::new() };
    std::thread::scope(|scope| {
        let mut reads = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            reads.push(scope.spawn(|| {
                let begun = Instant::now();
                let code = mesh.get(reader, name).map_or(-1, |said| said.code);
                Read { begun, ended: Instant::now(), code }
            }));
            std::thread::sleep(BETWEEN_READS);
        }
        reads.into_iter().filter_map(|read| read.join().ok()).collect()
    })
}

/// Puts that began after the cut.
#[derive(Default)]
struct Puts {
    tried: usize,
    acknowledged: usize,
}

/// Puts through the leader that is cut off.
fn put_until(mesh: &Mesh, leader: &str, round: u64, began: &std::sync::OnceLock<Instant>, stop: &AtomicBool) -> Puts {
    let mut puts = Puts::default();
    let Ok(machine) = mesh.machine(leader) else { return puts };
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let since = Instant::now();
        let said = mesh.put(machine, &format!("there/{round}/{number}"), &["-k", "2", "-n", "3"], b"there");
        let after = began.get().is_some_and(|cut| since >= *cut);
        puts.tried += usize::from(after);
        puts.acknowledged += usize::from(after && said.is_ok_and(|said| said.code == 0));
    }
    puts
}

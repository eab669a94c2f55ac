//! One committee: how long after the tick its beacon was at the last host, and the CPU of a round. Both are read from
//! outside: the daemons' logs and the kernel's accounts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{quantile, rounded};
use crate::machine::Machine;
use crate::mesh::{EPOCH_MS, Mesh, TestnetError};

const DAY_MS: f64 = 86_400_000.0;
/// The kernel counts CPU in hundredths of a second (`USER_HZ` of every Linux on x86 and ARM).
const TICK_MS: f64 = 10.0;
/// A committee of 21 takes its seats one after the other.
const GROWTH: Duration = Duration::from_secs(600);

pub(super) fn measure(mesh: &Mesh, committee: usize, rounds: u32) -> Result<Map<String, Value>, TestnetError> {
    mesh.wait_committee(committee, GROWTH)?;
    let hosts: Vec<&Machine> = mesh.machines.iter().filter(|machine| machine.plan.role == "host").collect();
    let info = mesh.founder()?.vouchsafe(&["beacon", "--info"], b"")?.ok("beacon --info")?.json();
    let start_ms = info.get("genesis_time").and_then(Value::as_f64).unwrap_or(0.0) * 1e3;
    // What is still settling after the last change is not measured.
    std::thread::sleep(Duration::from_millis(3 * EPOCH_MS));
    let from = newest(mesh)?;
    let before = hosts.iter().map(|host| cpu_ms(host)).collect::<Result<Vec<f64>, _>>()?;
    std::thread::sleep(Duration::from_millis(EPOCH_MS) * rounds);
    let after = hosts.iter().map(|host| cpu_ms(host)).collect::<Result<Vec<f64>, _>>()?;
    let until = newest(mesh)?;
    let mut cpu: Vec<f64> = before.iter().zip(&after).map(|(one, other)| (other - one) / f64::from(rounds)).collect();
    let mut to_all = Vec::new();
    let logs = hosts.iter().map(|host| epochs(host)).collect::<Result<Vec<_>, _>>()?;
    let mut missed = 0;
    for round in from + 1..until {
        #[allow(clippy::cast_precision_loss, reason = "a round is far below 2^52")]
        let tick = start_ms + (round - 1) as f64 * millis(EPOCH_MS);
        let heard: Vec<f64> = logs.iter().filter_map(|log| log.get(&round)).copied().collect();
        missed += hosts.len() - heard.len();
        let late = |at: &f64| (at - tick).rem_euclid(DAY_MS);
        to_all.push(heard.iter().map(late).fold(0.0, f64::max));
    }
    let mut figures = Map::new();
    figures.insert("committee".to_owned(), json!(committee));
    figures.insert("rounds".to_owned(), json!(to_all.len()));
    figures.insert("epoch_ms".to_owned(), json!(EPOCH_MS));
    figures.insert("beacons_missed".to_owned(), json!(missed));
    figures.insert("tick_to_all_p50_ms".to_owned(), rounded(quantile(&mut to_all, 0.5)));
    figures.insert("tick_to_all_max_ms".to_owned(), rounded(quantile(&mut to_all, 1.0)));
    figures.insert("cpu_ms_per_round_p50_host".to_owned(), rounded(quantile(&mut cpu, 0.5)));
    figures.insert("cpu_ms_per_round_busiest_host".to_owned(), rounded(quantile(&mut cpu, 1.0)));
    Ok(figures)
}

fn millis(value: u64) -> f64 {
    u32::try_from(value).map_or(f64::MAX, f64::from)
}

fn newest(mesh: &Mesh) -> Result<u64, TestnetError> {
    let status = mesh.founder()?.vouchsafe(&["-o", "json", "status"], b"")?.ok("status")?.json();
    status.get("epoch").and_then(Value::as_u64).ok_or_else(|| TestnetError::NotThere("no epoch".to_owned()))
}

/// CPU that the daemon has used, by proc(5).
fn cpu_ms(machine: &Machine) -> Result<f64, TestnetError> {
    let gone = || TestnetError::NotThere(format!("{} does not run", machine.plan.name));
    let path = format!("/proc/{}/stat", machine.daemon.ok_or_else(gone)?);
    let text = std::fs::read_to_string(&path).map_err(|_| gone())?;
    // The command's name may hold anything; what follows its closing bracket are numbers: utime and stime are the 12th
    // and 13th of them.
    let fields = text.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() * TICK_MS)
}

/// When a host first had the beacon of each round: milliseconds of the day, by its log.
fn epochs(machine: &Machine) -> Result<BTreeMap<u64, f64>, TestnetError> {
    let path = machine.folder.join("daemon.log");
    let text = std::fs::read_to_string(&path).map_err(|error| TestnetError::File(path.clone(), error))?;
    Ok(text.lines().filter_map(epoch_of).collect())
}

/// `2026-01-01T12:00:00.000000Z DEBUG epoch round=7`.
fn epoch_of(line: &str) -> Option<(u64, f64)> {
    let round = line.split_once("DEBUG epoch round=")?.1.trim().parse().ok()?;
    let time = line.split_once('T')?.1.split_once('Z')?.0;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some((round, ((hours * 60.0 + minutes) * 60.0 + seconds) * 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_tells_the_round_and_its_time() {
        let line = "2026-01-01T01:00:02.500000Z DEBUG epoch round=7";
        assert_eq!(epoch_of(line), Some((7, 3_602_500.0)));
        assert_eq!(epoch_of("2026-01-01T01:00:02.500000Z  INFO ready"), None);
    }
}

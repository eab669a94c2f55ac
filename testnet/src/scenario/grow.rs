//! One host, three, five, nine, and back to five by leaves and kills, under a load of puts from three on. Committee and
//! mesh key follow; the mesh's public key never changes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::load::{Told, strike};
use super::powercut::{copy_folder, rename};
use super::{Stage, must};
use crate::mesh::{EPOCH_MS, SETTLE, TestnetError};

/// The committee may take so long: the seat of a dead host is given away after 60 epochs.
const MOVES: Duration = Duration::from_secs(240);
/// Terms of puts to three hosts, to five of which two may go, and to nine of which four may: seven shares over five
/// domains put two into some of them.
const TERMS: [&[&str]; 3] =
    [&["-k", "2", "-n", "3"], &["-k", "2", "-n", "5"], &["-k", "2", "-n", "7", "--tolerate-domains", "0"]];
/// Two holders of the mesh key and an old share are watched for so long: four epochs.
const UNSIGNED: Duration = Duration::from_millis(4 * EPOCH_MS);
/// Hosts at the most.
const MOST: usize = 9;
/// Hosts in the end.
const LEFT: usize = 5;

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    must(stage.mesh.machines.len() == MOST + 1, format!("this scenario has {MOST} hosts"))?;
    let [of_three, of_five, of_nine] = TERMS;
    let mut told = Told::new(of_three);
    let mut keys = BTreeSet::new();
    let mut epochs = Vec::new();
    stage.mesh.found()?;
    let forming = stage.mesh.founder()?.vouchsafe(&["-o", "json", "status"], b"")?.json();
    must(forming.get("forming") == Some(&json!(1)), format!("one host is a mesh: {forming}"))?;
    let refused = stage.mesh.put(stage.mesh.founder()?, "early", &["-k", "2", "-n", "3"], b"x")?;
    must(refused.code != 0, "a mesh that is forming took a credential")?;
    let mut old = None;
    for (hosts, seats, next) in [(3, 3, of_three), (5, 5, of_five), (9, 5, of_nine)] {
        grow_to(stage, &mut told, hosts)?;
        epochs.push(committee(stage, &mut keys, hosts, seats)?);
        told.terms = next;
        if old.is_none() {
            old = Some(keep_old_share(stage)?);
        }
    }
    shrink(stage, &mut told)?;
    epochs.push(committee(stage, &mut keys, LEFT, 5)?);
    // From five hosts to nine the seats stay as they are, and so does the key.
    let [third, fifth, ninth, last] = epochs.as_slice() else {
        return Err(TestnetError::NotThere("stages".to_owned()));
    };
    let moved = third < fifth && fifth <= ninth && ninth < last;
    must(moved, format!("the key was not dealt anew with the seats: {epochs:?}"))?;
    must(keys.len() == 1, format!("the mesh key changed: {keys:?}"))?;
    told.check(stage)?;
    if let Some(old) = old {
        an_old_share_does_not_sign(stage, &old)?;
    }
    let mut figures = told.figures();
    figures.retain(|name, _| !name.starts_with("next_put") && name != "rounds");
    figures.insert("key_epochs".to_owned(), json!(epochs));
    figures.insert("mesh_keys".to_owned(), json!(keys.len()));
    figures.insert("two_new_shares_and_an_old_one_sign".to_owned(), json!(false));
    Ok(figures)
}

/// Lets machines join until there are so many hosts; the reader comes with the third.
fn grow_to(stage: &mut Stage<'_>, told: &mut Told, hosts: usize) -> Result<(), TestnetError> {
    let present = stage.mesh.machines.iter().filter(|machine| is_member(machine)).count();
    let joins = |from: usize, to: usize| stage.mesh.machines.iter().take(to).skip(from);
    if present == 0 {
        for machine in joins(1, hosts) {
            stage.mesh.join(machine)?;
        }
        let reader = stage.mesh.reader()?;
        stage.mesh.join(reader)?;
        return stage.mesh.machines.iter().take(hosts).chain([reader]).try_for_each(|one| stage.mesh.wait_serving(one));
    }
    let away: Vec<&str> = joins(present - 1, MOST).map(|machine| machine.plan.name.as_str()).collect();
    // They join while everybody else goes on putting.
    let join = || joins(present - 1, hosts).try_for_each(|machine| stage.mesh.join(machine).map(drop));
    strike(&stage.mesh, told, &format!("grow/{hosts}"), Duration::ZERO, &away, || Ok(()), join)?;
    joins(present - 1, hosts).try_for_each(|machine| stage.mesh.wait_serving(machine))
}

fn is_member(machine: &crate::machine::Machine) -> bool {
    let status = machine.vouchsafe(&["-o", "json", "status"], b"").map(|said| said.json()).unwrap_or_default();
    status.get("member").is_some_and(|member| !member.is_null()) && status.get("left") == Some(&Value::Bool(false))
}

/// Waits for the committee; notes the mesh's key and gives the key epoch.
fn committee(stage: &Stage<'_>, keys: &mut BTreeSet<String>, hosts: usize, seats: usize) -> Result<u64, TestnetError> {
    let epoch = stage.mesh.wait_committee(seats, MOVES)?;
    let running = stage.mesh.machines.iter().filter(|machine| machine.daemon.is_some());
    for machine in running.filter(|machine| is_member(machine)) {
        let status = machine.vouchsafe(&["-o", "json", "status"], b"")?.json();
        keys.insert(status.get("mesh_key").and_then(Value::as_str).unwrap_or_default().to_owned());
    }
    stage.tell("committee", &json!({ "hosts": hosts, "seats": stage.mesh.committee()?, "key_epoch": epoch }));
    Ok(epoch)
}

/// Two hosts leave and two are killed, of each one that has a seat, while everybody else goes on putting.
fn shrink(stage: &mut Stage<'_>, told: &mut Told) -> Result<(), TestnetError> {
    let seated = stage.mesh.committee()?;
    // The first three hold what was put when there were no others: two of three are needed, so none of them can go.
    let hosts = stage.mesh.machines.iter().filter(|machine| machine.plan.role == "host").skip(3);
    let (sits, stands): (Vec<String>, Vec<String>) =
        hosts.map(|machine| machine.plan.name.clone()).partition(|name| seated.contains(name));
    let chosen =
        |list: &[String], at: usize| list.get(at).cloned().ok_or_else(|| TestnetError::NotThere("too few".to_owned()));
    let leaving = [chosen(&sits, 0)?, chosen(&stands, 0)?];
    let killed = [chosen(&sits, 1)?, chosen(&stands, 1)?];
    let away: Vec<&str> = leaving.iter().chain(&killed).map(String::as_str).collect();
    let pause = Duration::from_millis(500);
    let leave = || {
        for name in &leaving {
            // What it holds goes with it only where enough others hold it too.
            let said = stage.mesh.machine(name)?.vouchsafe(&["leave", "--wait", "200"], b"")?;
            stage.tell("leave", &json!({ "host": name, "exit_code": said.code, "said": said.text().lines().last() }));
            must(said.code == 0, format!("{name} did not leave: {}{}", said.err, said.text()))?;
        }
        Ok(())
    };
    strike(&stage.mesh, told, "leaves", pause, &away, || Ok(()), leave)?;
    let processes: Vec<u32> = killed.iter().filter_map(|name| stage.mesh.machine(name).ok()?.daemon).collect();
    let kill = || {
        processes.iter().copied().for_each(crate::children::kill);
        Ok(())
    };
    told.terms = TERMS.first().copied().unwrap_or_default();
    strike(&stage.mesh, told, "kills", pause, &away, kill, || Ok(()))?;
    for name in leaving.iter().chain(&killed) {
        stage.mesh.machine_mut(name)?.kill_daemon();
    }
    stage.mesh.wait_leader()?;
    stage.mesh.wait_good(LEFT + 1)?;
    wait_replaced(stage, &killed, SETTLE * 4)
}

/// Waits until none of these has a seat.
fn wait_replaced(stage: &Stage<'_>, gone: &[String], patience: Duration) -> Result<(), TestnetError> {
    let since = std::time::Instant::now();
    loop {
        let seated = stage.mesh.committee()?;
        if gone.iter().all(|name| !seated.contains(name)) {
            stage.tell("replaced", &json!({ "seconds": since.elapsed().as_secs(), "seats": seated }));
            return Ok(());
        }
        must(since.elapsed() < patience, format!("{gone:?} are dead and sit: {seated:?}"))?;
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A founder's store of the time when the committee had three seats, and the first shares of the mesh key signed.
struct OldShare {
    host: String,
    copy: PathBuf,
}

fn keep_old_share(stage: &mut Stage<'_>) -> Result<OldShare, TestnetError> {
    let host = stage.mesh.founder()?.plan.name.clone();
    let state = stage.mesh.folder.join(&host).join("state");
    let copy = state.with_extension("old");
    stage.mesh.machine_mut(&host)?.kill_daemon();
    copy_folder(&state, &copy)?;
    stage.mesh.machine_mut(&host)?.start_daemon()?;
    stage.mesh.machine(&host)?.wait_ready()?;
    stage.mesh.wait_serving(stage.mesh.machine(&host)?)?;
    Ok(OldShare { host, copy })
}

/// Of five seats three sign. Two holders and the founder with its old store elect somebody, and it catches up; but its old
/// share under the same mesh key makes no third, and no round is signed. Another holder comes, and they go on.
fn an_old_share_does_not_sign(stage: &mut Stage<'_>, old: &OldShare) -> Result<(), TestnetError> {
    let seated = stage.mesh.committee()?;
    must(seated.contains(&old.host), format!("{} has no seat: {seated:?}", old.host))?;
    let mut others = seated.iter().filter(|name| **name != old.host);
    let (Some(first), Some(second), Some(third)) = (others.next(), others.next(), others.next()) else {
        return Err(TestnetError::NotThere("five seats".to_owned()));
    };
    let gone: Vec<String> = stage
        .mesh
        .machines
        .iter()
        .map(|machine| machine.plan.name.clone())
        .filter(|name| name != first && name != second)
        .collect();
    for name in &gone {
        stage.mesh.machine_mut(name)?.kill_daemon();
    }
    let state = stage.mesh.folder.join(&old.host).join("state");
    rename(&state, &state.with_extension("own"))?;
    rename(&old.copy, &state)?;
    // What was signed before they were gone may still arrive.
    std::thread::sleep(Duration::from_millis(EPOCH_MS));
    let before = newest_round(stage, first)?;
    stage.mesh.machine_mut(&old.host)?.start_daemon()?;
    stage.mesh.machine(&old.host)?.wait_ready()?;
    let since = std::time::Instant::now();
    while since.elapsed() < UNSIGNED {
        let round = newest_round(stage, first)?;
        must(round == before, format!("round {round} was signed by two holders and an old share"))?;
        std::thread::sleep(Duration::from_millis(250));
    }
    let leads = stage.mesh.wait_leader()?;
    stage.mesh.machine_mut(third)?.start_daemon()?;
    let since = std::time::Instant::now();
    while newest_round(stage, first)? == before {
        must(since.elapsed() < SETTLE, "three holders do not sign")?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let figures = json!({
        "old_store_of": old.host, "holders": [first, second], "led_by": leads, "unsigned_s": UNSIGNED.as_secs(),
        "signs_again_with": third,
    });
    stage.tell("an old share does not sign", &figures);
    Ok(())
}

fn newest_round(stage: &Stage<'_>, on: &str) -> Result<u64, TestnetError> {
    let beacon = stage.mesh.machine(on)?.vouchsafe(&["-o", "json", "beacon"], b"")?.ok("beacon")?.json();
    beacon.get("round").and_then(Value::as_u64).ok_or_else(|| TestnetError::Wrong(format!("no round: {beacon}")))
}

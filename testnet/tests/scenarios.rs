//! The scenarios on real daemons, software TPMs, sockets and disks.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One at a time, also where the test runner knows nothing of groups.
static MACHINE: Mutex<()> = Mutex::new(());

#[allow(clippy::expect_used, reason = "a scenario that does not start is a failed test")]
fn run(scenario: &str, more: &[&str]) {
    let _one_at_a_time = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_testnet"))
        .args(["run", scenario])
        .args(more)
        .output()
        .expect("the built testnet starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last: serde_json::Value =
        text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    println!("{text}");
    assert_eq!(last.get("ok"), Some(&serde_json::Value::Bool(true)), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
}

#[test]
fn p3_credentials_of_every_size_and_terms_outlive_all_holders_that_may_be_lost() {
    run("keep", &[]);
}

#[test]
fn an_owner_grants_revokes_for_certain_replaces_hands_over_and_removes() {
    run("heads", &[]);
}

#[test]
fn p3_acknowledged_puts_survive_sigkill_of_all_and_a_power_cut_of_the_tpms() {
    run("restart", &["--rounds", "3"]);
}

#[test]
fn p10_after_a_power_cut_of_all_reads_work_again_with_no_human_and_a_host_alone_opens_nothing() {
    run("powercut", &["--rounds", "1"]);
}

#[test]
fn p4_when_the_leader_is_killed_another_goes_on_and_nothing_is_lost_or_doubled() {
    run("failover", &["--rounds", "2"]);
}

#[test]
fn a_leader_that_is_cut_off_answers_nobody_and_the_majority_goes_on() {
    run("partition", &["--rounds", "1"]);
}

#[test]
fn a_host_that_starts_while_it_is_cut_off_stays_locked_until_its_peers_hear_it() {
    run("restart-one", &["--rounds", "1"]);
}

#[test]
fn some_order_explains_what_clients_were_told_under_kills_and_partitions() {
    run("registers", &["--rounds", "2"]);
}

#[test]
fn a_slow_chip_keeps_up_and_a_sick_one_takes_out_its_own_host_until_it_works_again() {
    run("chips", &[]);
}

#[test]
fn tools_of_others_accept_what_we_make_and_we_accept_what_they_make() {
    run("outside", &[]);
}

#[test]
fn a_failed_scenario_says_so_and_leaves_no_process_behind() {
    let folder = std::env::temp_dir().join(format!("vouchsafe-none-{}", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_testnet"))
        .args(["run", "keep", "--hosts", "3", "--folder"])
        .arg(&folder)
        .output()
        .expect("the built testnet starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success(), "three hosts cannot keep anything 5-of-9");
    assert!(text.lines().last().is_some_and(|line| line.contains("\"ok\":false")), "{text}");
    let left = Command::new("pgrep").arg("-f").arg(&folder).output().expect("pgrep");
    assert!(left.stdout.is_empty(), "processes left: {}", String::from_utf8_lossy(&left.stdout));
    drop(std::fs::remove_dir_all(folder));
}

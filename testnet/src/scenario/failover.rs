//! SIGKILL to the host that leads, under a load of puts and gets from three clients: how long until the next put is
//! acknowledged, and whether anything that was acknowledged is lost, doubled or read wrongly.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::load::{Told, strike};
use super::{Stage, must};
use crate::mesh::{SETTLE, TestnetError};

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    stage.mesh.wait_committee(5, SETTLE)?;
    let mut told = Told::new(&["-k", "3", "-n", "5"]);
    for round in 1..=stage.options.rounds {
        let leader = stage.mesh.wait_leader()?;
        let pause = Duration::from_millis(u64::try_from(800 + stage.below(1_200)).unwrap_or(1_000));
        let process = stage.mesh.machine(&leader)?.daemon;
        let kill = || {
            process.into_iter().for_each(crate::children::kill);
            Ok(())
        };
        strike(&stage.mesh, &mut told, &format!("failover/{round}"), pause, &[&leader], kill, || Ok(()))?;
        stage.mesh.machine_mut(&leader)?.kill_daemon();
        let next = stage.mesh.wait_leader()?;
        must(next != leader, format!("{leader} is dead and leads"))?;
        let figures = json!({
            "round": round, "killed": leader, "leads": next, "acknowledged_so_far": told.puts(),
            "seconds_to_next_put": told.last_taken(),
        });
        stage.tell("killed the leader", &figures);
        stage.mesh.revive()?;
    }
    told.check(stage)?;
    told.check_times()?;
    Ok(told.figures())
}

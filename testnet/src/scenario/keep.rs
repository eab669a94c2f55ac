//! Puts and gets of every size, by both dealers, under all terms; then as many holders are killed as may be, one more,
//! and one comes back.

use serde_json::{Map, Value, json};

use super::{Stage, must};
use crate::mesh::TestnetError;

const TERMS: [(usize, usize); 3] = [(2, 3), (3, 5), (5, 9)];
const SIZES: [usize; 3] = [1, 1024, 1024 * 1024];

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    let mut puts = 0;
    for (k, n) in TERMS {
        for size in SIZES {
            for dealer in ["client", "cms"] {
                put_and_get(stage, k, n, size, dealer)?;
                puts += 1;
            }
        }
        stage.tell("byte-equal", &json!({ "k": k, "n": n, "sizes": SIZES, "dealers": ["client", "cms"] }));
    }
    for (k, n) in TERMS {
        lose_holders(stage, k, n)?;
    }
    let mut figures = Map::new();
    figures.insert("puts".to_owned(), json!(puts));
    figures.insert("terms".to_owned(), json!(TERMS));
    Ok(figures)
}

fn put_and_get(stage: &mut Stage<'_>, k: usize, n: usize, size: usize, dealer: &str) -> Result<(), TestnetError> {
    let name = format!("keep/{k}-of-{n}/{size}/{dealer}");
    let content = stage.content(size);
    let through = stage.below(stage.mesh.machines.len());
    put(stage, through, &name, k, n, dealer, &content)?;
    stage.expect(&name, &content)
}

/// Puts completely; gives the holders' names.
fn put(
    stage: &Stage<'_>,
    through: usize,
    name: &str,
    k: usize,
    n: usize,
    dealer: &str,
    content: &[u8],
) -> Result<Vec<String>, TestnetError> {
    let (k, n) = (k.to_string(), n.to_string());
    let more = ["-k", &k, "-n", &n, "--dealer", dealer, "--wait", "complete"];
    let machine = stage.mesh.machines.get(through).ok_or(TestnetError::Ports)?;
    let said = stage.mesh.put(machine, name, &more, content)?.ok(&format!("put {name}"))?.json();
    let holders = said.get("holders").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    Ok(holders.map(str::to_owned).collect())
}

fn lose_holders(stage: &mut Stage<'_>, k: usize, n: usize) -> Result<(), TestnetError> {
    let name = format!("keep/{k}-of-{n}/lose");
    let content = stage.content(4096);
    let holders = put(stage, 0, &name, k, n, "client", &content)?;
    let may_die = stage.mesh.spare_majority(&holders)?;
    // The draw may have given the shares to the very hosts that vote: with one holder more it cannot.
    let Some(last) = may_die.get(n - k) else { return lose_holders(stage, k + 1, n + 1) };
    for holder in may_die.iter().take(n - k) {
        stage.mesh.machine_mut(holder)?.kill_daemon();
    }
    stage.expect(&name, &content)?;
    stage.mesh.machine_mut(last)?.kill_daemon();
    let refused = stage.mesh.get(stage.mesh.reader()?, &name)?;
    must(refused.code == 5, format!("{name}: exit code {} with {} holders, not 5", refused.code, k - 1))?;
    must(refused.out.is_empty(), format!("{name}: something was written"))?;
    must(refused.err.contains(last.as_str()), format!("{name}: {last} is not named: {}", refused.err))?;
    let machine = stage.mesh.machine_mut(last)?;
    machine.start_daemon()?;
    let machine = stage.mesh.machine(last)?;
    machine.wait_ready()?;
    stage.mesh.wait_serving(machine)?;
    stage.expect(&name, &content)?;
    stage.tell("holders lost", &json!({ "k": k, "n": n, "killed": n - k, "one_more": "exit 5", "one_back": "read" }));
    stage.mesh.revive()
}

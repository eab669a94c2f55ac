//! What it takes: a put and a linearizable read on three daemons, beside a floor and a rival in the same run; then the
//! time of a beacon and the CPU of a round at growing committees. Only ratios within one run count.

mod etcd;
mod latency;
mod rounds;

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::mesh::{Cabling, Mesh, TestnetError, plans};

/// Options of the benchmark.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Sizes of the committees whose rounds are measured.
    #[arg(long, value_delimiter = ',', default_values_t = [3, 5, 11, 21])]
    pub committees: Vec<u8>,
    /// Rounds that are measured of each.
    #[arg(long, default_value_t = 15)]
    pub rounds: u32,
    /// Puts and reads that are timed.
    #[arg(long, default_value_t = 60)]
    pub requests: usize,
}

/// Runs all of it; one line of JSON for each figure.
///
/// # Errors
/// What did not run.
pub fn run(options: &Options) -> Result<(), TestnetError> {
    let mesh = started(3)?;
    say("three daemons", &latency::measure(&mesh, options.requests)?);
    drop(end(mesh));
    for committee in &options.committees {
        let mesh = started(*committee)?;
        say("rounds", &rounds::measure(&mesh, usize::from(*committee), options.rounds)?);
        drop(end(mesh));
    }
    Ok(())
}

fn started(committee: u8) -> Result<Mesh, TestnetError> {
    let folder = PathBuf::from(format!("/tmp/vouchsafe-bench-{committee}-{}", std::process::id()));
    let mut quiet = |_: &str| {};
    let mut mesh = Mesh::start(&folder, plans(usize::from(committee), 5, 3), Cabling::Loopback, &mut quiet)?;
    mesh.committee = committee;
    mesh.enrol_all(&mut quiet)?;
    Ok(mesh)
}

fn end(mesh: Mesh) -> std::io::Result<()> {
    crate::children::kill_all();
    std::fs::remove_dir_all(mesh.folder)
}

fn say(what: &str, figures: &Map<String, Value>) {
    println!("{}", json!({ "bench": what, "figures": figures }));
}

/// The value below which this share of them lies; they are sorted here.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank in a list that fits into memory"
    )]
    let rank = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(rank).copied().unwrap_or(0.0)
}

fn rounded(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}

//! Scenarios: each line of output one object, the last `{"scenario", "ok", …figures}`.

mod chips;
mod failover;
mod grow;
mod heads;
mod keep;
mod load;
mod outside;
mod partition;
mod powercut;
mod registers;
mod restart;
mod restart_one;

use std::path::PathBuf;
use std::time::Instant;

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use crate::mesh::{Cabling, Mesh, TestnetError, plans};

/// Options of a scenario.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Hosts, beside one reader; the scenario's own number where it is not given.
    #[arg(long)]
    pub hosts: Option<usize>,
    /// The seed that draws what is drawn.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Rounds, where the scenario has rounds.
    #[arg(long, default_value_t = 3)]
    pub rounds: u64,
    /// Its folder; one of its own below /tmp where it is not given, removed when all is well.
    #[arg(long)]
    pub folder: Option<PathBuf>,
}

/// A scenario under way.
pub(crate) struct Stage<'a> {
    mesh: Mesh,
    options: &'a Options,
    random: ChaCha20Rng,
    since: Instant,
}

type Script = fn(&mut Stage<'_>) -> Result<Map<String, Value>, TestnetError>;

/// What a scenario wants.
struct Scenario {
    name: &'static str,
    /// Hosts, where nobody says how many.
    hosts: usize,
    cabling: Cabling,
    /// Whether all machines are in the mesh when it begins.
    enrolled: bool,
    script: Script,
}

const fn scenario(name: &'static str, hosts: usize, cabling: Cabling, script: Script) -> Scenario {
    Scenario { name, hosts, cabling, enrolled: true, script }
}

const SCENARIOS: [Scenario; 11] = [
    scenario("keep", 9, Cabling::Loopback, keep::play),
    scenario("heads", 5, Cabling::Loopback, heads::play),
    scenario("restart", 5, Cabling::Loopback, restart::play),
    scenario("restart-one", 5, Cabling::Own, restart_one::play),
    scenario("powercut", 5, Cabling::Loopback, powercut::play),
    scenario("failover", 7, Cabling::Loopback, failover::play),
    scenario("partition", 5, Cabling::Own, partition::play),
    scenario("registers", 5, Cabling::Own, registers::play),
    Scenario { enrolled: false, ..scenario("grow", 9, Cabling::Loopback, grow::play) },
    scenario("outside", 3, Cabling::Loopback, outside::play),
    scenario("chips", 3, Cabling::Loopback, chips::play),
];

/// Runs a scenario; it is well only if every line of it was.
///
/// # Errors
/// What was not as it must be.
pub fn run(name: &str, options: &Options) -> Result<(), TestnetError> {
    let known = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    let scenario = SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| TestnetError::NotThere(format!("no scenario `{name}`; there are: {}", known())))?;
    let folder = options
        .folder
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/vouchsafe-{name}-{}-{}", options.seed, std::process::id())));
    let since = Instant::now();
    let outcome = play(options, scenario, &folder, since);
    let seconds = since.elapsed().as_secs_f64();
    let mut last = Map::new();
    last.insert("scenario".to_owned(), json!(name));
    last.insert("ok".to_owned(), json!(outcome.is_ok()));
    last.insert("seed".to_owned(), json!(options.seed));
    last.insert("seconds".to_owned(), json!((seconds * 10.0).round() / 10.0));
    let result = match outcome {
        Ok(figures) => {
            last.extend(figures);
            Ok(())
        }
        Err(error) => {
            last.insert("error".to_owned(), json!(error.to_string()));
            last.insert("logs".to_owned(), json!(folder.display().to_string()));
            Err(error)
        }
    };
    println!("{}", Value::Object(last));
    if result.is_ok() && options.folder.is_none() {
        // The processes that use it are ended right after; what stays behind is in /tmp.
        crate::children::kill_all();
        crate::network::remove_all();
        drop(std::fs::remove_dir_all(&folder));
    }
    result
}

fn play(
    options: &Options,
    scenario: &Scenario,
    folder: &std::path::Path,
    since: Instant,
) -> Result<Map<String, Value>, TestnetError> {
    let mut quiet = |_: &str| {};
    let hosts = options.hosts.unwrap_or(scenario.hosts);
    let mesh = Mesh::start(folder, plans(hosts, 5, 3), scenario.cabling, &mut quiet)?;
    if scenario.enrolled {
        mesh.enrol_all(&mut quiet)?;
    }
    let mut stage = Stage { mesh, options, random: ChaCha20Rng::seed_from_u64(options.seed), since };
    stage.tell("machines", &json!({ "run": stage.mesh.machines.len(), "enrolled": scenario.enrolled }));
    (scenario.script)(&mut stage)
}

impl Stage<'_> {
    /// One line of output.
    fn tell(&self, step: &str, figures: &Value) {
        let seconds = (self.since.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        println!("{}", json!({ "at": seconds, "step": step, "figures": figures }));
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(1).max(1);
        usize::try_from(self.random.next_u64() % bound).unwrap_or(0)
    }

    fn content(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    /// Reads on the reader and compares byte by byte.
    fn expect(&self, name: &str, content: &[u8]) -> Result<(), TestnetError> {
        self.expect_one_of(name, &[content])
    }

    /// Reads on the reader: it must be one of these.
    fn expect_one_of<C: AsRef<[u8]>>(&self, name: &str, contents: &[C]) -> Result<(), TestnetError> {
        let read = self.mesh.get(self.mesh.reader()?, name)?.ok(&format!("get {name}"))?;
        let is_right = contents.iter().any(|content| content.as_ref() == read.out);
        must(is_right, format!("{name} reads back as {} other bytes", read.out.len()))
    }
}

/// Fails with this sentence unless it holds.
fn must(holds: bool, what: impl Into<String>) -> Result<(), TestnetError> {
    if holds { Ok(()) } else { Err(TestnetError::Wrong(what.into())) }
}

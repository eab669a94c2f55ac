//! `sim`: runs scenarios over virtual time. The last line of output is the outcome.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vouchsafe_sim::run::{Outcome, run};
use vouchsafe_sim::scenario::{Scenario, names};

/// Not live: faults are over and something still does not work.
const NOT_LIVE: u8 = 128;
/// Not safe: something happened that must never happen.
const NOT_SAFE: u8 = 129;

/// Simulates a mesh: the same rules that ship, under virtual time, network, disk and TPM.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run one scenario with one seed.
    Run {
        /// Name of the scenario.
        scenario: String,
        #[command(flatten)]
        options: Options,
        /// The seed that draws everything.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run one scenario with many seeds; stops at the first that fails.
    Swarm {
        /// Name of the scenario.
        scenario: String,
        #[command(flatten)]
        options: Options,
        /// First seed.
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// Number of seeds.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
    },
    /// Name the scenarios.
    List,
}

#[derive(clap::Args)]
struct Options {
    /// Hosts (3 to 50), beside one reader and one stranger.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(3..=50))]
    hosts: u64,
    /// Print JSON only.
    #[arg(long)]
    json: bool,
    /// Plant a fault that the checkers must find: acknowledge before the write is durable.
    #[arg(long)]
    acknowledge_before_flush: bool,
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::List => {
            for name in names() {
                println!("{name}");
            }
            ExitCode::SUCCESS
        }
        Verb::Run { scenario, options, seed } => each(&scenario, &options, seed..=seed),
        Verb::Swarm { scenario, options, first, seeds } => {
            each(&scenario, &options, first..=first.saturating_add(seeds.saturating_sub(1)))
        }
    }
}

fn each(name: &str, options: &Options, seeds: std::ops::RangeInclusive<u64>) -> ExitCode {
    let scenario = match Scenario::named(name) {
        Ok(scenario) => scenario,
        Err(error) => {
            eprintln!("sim: {error}");
            return ExitCode::from(2);
        }
    };
    let hosts = usize::try_from(options.hosts).unwrap_or(usize::MAX);
    let (first, last) = (*seeds.start(), *seeds.end());
    for seed in seeds {
        let outcome = run(name, &scenario, hosts, seed, options.acknowledge_before_flush);
        if !outcome.ok || first == last || seed == last {
            print(&outcome, options, last - first + 1);
        }
        if !outcome.ok {
            return ExitCode::from(if outcome.not_live { NOT_LIVE } else { NOT_SAFE });
        }
    }
    ExitCode::SUCCESS
}

fn print(outcome: &Outcome, options: &Options, seeds: u64) {
    if !options.json {
        for finding in &outcome.findings {
            println!("{finding}");
        }
        let verdict = if outcome.ok { "held" } else { "FAILED" };
        println!(
            "{}: {verdict} · {seeds} seed(s) up to {} · {} hosts · {} of {} puts acknowledged · {} crashes",
            outcome.scenario, outcome.seed, outcome.hosts, outcome.acknowledged, outcome.puts, outcome.crashes
        );
        if !outcome.ok {
            println!("replay: sim run {} --hosts {} --seed {}", outcome.scenario, outcome.hosts, outcome.seed);
        }
    }
    if let Ok(line) = serde_json::to_string(outcome) {
        println!("{line}");
    }
}

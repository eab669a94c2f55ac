//! `testnet`: real daemons with a software TPM each, on this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vouchsafe_testnet::mesh::{Cabling, Mesh, TestnetError, plans};
use vouchsafe_testnet::scenario::{self, Options};
use vouchsafe_testnet::{bench, children, demo, proxy};

/// A mesh of real daemons on this machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a mesh and leave it running.
    Up {
        /// Hosts, beside one reader.
        #[arg(long, default_value_t = 5)]
        hosts: usize,
        /// Regions.
        #[arg(long, default_value_t = 3)]
        regions: usize,
        /// Administrative domains (1 to 5).
        #[arg(long, default_value_t = 5)]
        domains: usize,
        /// Its folder.
        #[arg(long, default_value = "/tmp/vouchsafe-testnet")]
        folder: PathBuf,
    },
    /// End a mesh that was left running.
    Down {
        /// Its folder.
        #[arg(long, default_value = "/tmp/vouchsafe-testnet")]
        folder: PathBuf,
    },
    /// Run a scenario: the last line of output is its outcome.
    Run {
        /// Its name.
        scenario: String,
        #[command(flatten)]
        options: Options,
    },
    /// Measure puts, reads, beacons and the CPU of a round; each line of output is one figure.
    Bench(bench::Options),
    /// Show the main job to a person.
    Demo {
        /// Leave the mesh running.
        #[arg(long)]
        keep: bool,
        /// A file to keep as the credential; a generated TLS key where it is not given.
        #[arg(long)]
        credential: Option<PathBuf>,
    },
    /// The proxy before a chip; started by the others.
    #[command(hide = true)]
    TpmProxy {
        #[arg(long)]
        listen: u16,
        #[arg(long)]
        chip: u16,
        #[arg(long)]
        faults: PathBuf,
    },
}

fn main() -> ExitCode {
    let verb = Arguments::parse().verb;
    if let Verb::TpmProxy { listen, chip, faults } = verb {
        return match proxy::serve(listen, chip, &faults) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("testnet: the TPM proxy cannot listen: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() else {
        return ExitCode::FAILURE;
    };
    // Whatever ends it, its children end with it, by their ids.
    let result = runtime.block_on(async {
        tokio::select! {
            result = tokio::task::spawn_blocking(move || run(verb)) => result.unwrap_or_else(|error| {
                Err(TestnetError::NotThere(format!("crashed: {error}")))
            }),
            name = told_to_end() => Err(TestnetError::NotThere(format!("ended by {name}; logs stay below /tmp"))),
        }
    });
    children::close();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testnet: {error}");
            std::process::exit(1); // not waiting for what an interrupted run still does
        }
    }
}

/// Waits for a signal that ends it: Ctrl-C, a cancelled job, a closed terminal.
async fn told_to_end() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let hear = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = hear(SignalKind::interrupt()) => "SIGINT",
        () = hear(SignalKind::terminate()) => "SIGTERM",
        () = hear(SignalKind::hangup()) => "SIGHUP",
    }
}

fn run(verb: Verb) -> Result<(), TestnetError> {
    match verb {
        Verb::Up { hosts, regions, domains, folder } => {
            let mut tell = |step: &str| println!("{step}");
            let mesh = Mesh::start(&folder, plans(hosts, domains, regions), Cabling::Loopback, &mut tell)?;
            mesh.enrol_all(&mut tell)?;
            mesh.leave_running()?;
            demo::say_how_to_play(&mesh);
            Ok(())
        }
        Verb::Down { folder } => {
            let ended = Mesh::read(&folder)?.end_left_behind();
            let kept = Mesh::set_aside(&folder)?;
            println!("ended {ended} processes; logs and state stay in {}", kept.display());
            Ok(())
        }
        Verb::Run { scenario, options } => scenario::run(&scenario, &options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Demo { keep, credential } => demo::run(keep, credential.as_deref()),
        Verb::TpmProxy { .. } => Ok(()),
    }
}

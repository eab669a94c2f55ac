//! `taped`: a daemon with a tape between it and its network, the hostile peer of a scenario. What it says to others passes,
//! but the parts that it gives of other hosts' unlocks go as a file says, read anew at each: `pass`; `keep`, on the tape
//! and not sent; `replay`, what is on the tape again and again and nothing new.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde::{Deserialize, Serialize};
use spec::limits::MESSAGE_MAX;
use spec::types::{MeshId, TransportKey};
use spec::wire::{self, Address, Message};
use tokio::sync::mpsc;
use vouchsafe::config::Config;
use vouchsafe::daemon;
use vouchsafe::network::{Ends, Order};

/// What is on the tape is sent so often.
const AGAIN: Duration = Duration::from_millis(500);

/// A daemon that can withhold and repeat its parts of unlocks.
#[derive(Parser)]
struct Arguments {
    /// The configuration of the daemon.
    #[arg(long)]
    config: PathBuf,
    /// The file that says what becomes of parts of unlocks.
    #[arg(long)]
    tape: PathBuf,
}

/// What becomes of parts of unlocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Keep,
    Replay,
}

impl Mode {
    fn read(path: &Path) -> Self {
        match std::fs::read_to_string(path).unwrap_or_default().trim() {
            "keep" => Self::Keep,
            "replay" => Self::Replay,
            _ => Self::Pass,
        }
    }
}

/// A message as it is on the wire.
#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u16,
    mesh: MeshId,
    body: Message,
}

fn is_unlock_part(bytes: &[u8]) -> bool {
    let envelope = wire::decode::<Envelope>(bytes, MESSAGE_MAX);
    envelope.is_ok_and(|envelope| matches!(envelope.body, Message::UnlockPart { .. }))
}

/// A message that was kept: to whom, where, what.
type Kept = (TransportKey, Address, Vec<u8>);

/// Puts the tape between a daemon and its network.
fn over_tape(ends: Ends, control: PathBuf) -> Ends {
    let Ends { orders: onward, arrivals } = ends;
    let (orders, said) = mpsc::channel(onward.max_capacity());
    tokio::spawn(run_tape(said, onward, control));
    Ends { orders, arrivals }
}

/// Runs until the daemon or its network ends.
async fn run_tape(mut said: mpsc::Receiver<Order>, onward: mpsc::Sender<Order>, control: PathBuf) {
    let mut kept: Vec<Kept> = Vec::new();
    let mut again = tokio::time::interval(AGAIN);
    loop {
        let sent = tokio::select! {
            order = said.recv() => match order {
                None => return,
                Some(Order::Send { to, address, bytes }) if is_unlock_part(&bytes) => match Mode::read(&control) {
                    Mode::Pass => onward.send(Order::Send { to, address, bytes }).await,
                    Mode::Keep => {
                        kept.push((to, address, bytes));
                        Ok(())
                    }
                    Mode::Replay => Ok(()),
                },
                Some(order) => onward.send(order).await,
            },
            _ = again.tick() => match Mode::read(&control) {
                Mode::Replay => replay(&kept, &onward).await,
                Mode::Pass | Mode::Keep => Ok(()),
            },
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn replay(kept: &[Kept], onward: &mpsc::Sender<Order>) -> Result<(), mpsc::error::SendError<Order>> {
    for (to, address, bytes) in kept.iter().cloned() {
        onward.send(Order::Send { to, address, bytes }).await?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let Arguments { config, tape } = Arguments::parse();
    let run = || -> Result<(), Box<dyn std::error::Error>> {
        Ok(daemon::run_through(Config::read(&config)?, Box::new(|ends| over_tape(ends, tape)))?)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("taped: {error}");
            ExitCode::FAILURE
        }
    }
}

//! A daemon's start, no step waiting for a later one: TPM → store → identity → host → network → local socket.

use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::Duration;

use spec::genesis::PROTOCOL_VERSION;
use spec::host::Host;
use spec::suite::{Real, Seed};
use spec::wire::Address;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::api::server;
use crate::config::Config;
use crate::driver::{Driver, DriverError, LocalRequest};
use crate::identity::{self, IdentityError};
use crate::network::{Ends, Network, NetworkError};
use crate::store::{Store, StoreError};
use crate::tpm::{Tpm, TpmError};
use crate::workers::Disk;

/// Requests of local clients that may wait for the driver.
const LOCAL_QUEUE: usize = 64;

/// A driver that is busy is given so long to end: the host itself takes at most a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a daemon does not run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What was saved.
    #[error(transparent)]
    Restore(#[from] spec::host::RestoreError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The driver.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// Nobody could reach this host.
    #[error(
        "the configuration listens on {0} and does not say where others reach this host: set address = \"HOST:PORT\""
    )]
    NoAddress(String),
    /// The operating system.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
    /// The local socket.
    #[error("the local socket {0}: {1}; choose another in the configuration (socket) or by --socket")]
    Socket(std::path::PathBuf, std::io::Error),
}

/// Where other hosts reach this one. An address that only means "everywhere on this machine" is nobody's.
fn advertised(config: &Config) -> Result<Address, DaemonError> {
    match &config.address {
        Some(address) => Ok(Address(address.clone())),
        None if config.listen.starts_with("0.0.0.0:") || config.listen.starts_with("[::]:") => {
            Err(DaemonError::NoAddress(config.listen.clone()))
        }
        None => Ok(Address(config.listen.clone())),
    }
}

/// Something between a daemon and its network.
pub type Between = Box<dyn FnOnce(Ends) -> Ends + Send>;

/// Runs a daemon until it is told to end.
///
/// # Errors
/// Why it cannot start or go on.
pub fn run(config: Config) -> Result<(), DaemonError> {
    run_through(config, Box::new(std::convert::identity))
}

/// The same with something between the daemon and its network: what a scenario's hostile peer does with its words.
///
/// # Errors
/// Why it cannot start or go on.
pub fn run_through(config: Config, between: Between) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| DaemonError::System("the runtime", error))?;
    let result = runtime.block_on(start(config, between));
    // A look-up that nobody answers does not hold up the end.
    runtime.shutdown_background();
    result
}

async fn start(config: Config, between: Between) -> Result<(), DaemonError> {
    let address = advertised(&config)?;
    // Whatever is made from here on is for this user alone; the socket is opened to its group by name.
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    // As many sockets as the machine allows: the usual soft limit is below what the network's own bounds are.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files)
        .map_err(|error| DaemonError::System("the limit of open files", error.into()))?;
    let folder = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.state);
    folder.map_err(|error| DaemonError::System("the state folder", error))?;
    let tpm = Tpm::start(&config.tpm)?;
    let mut store = Store::open(&config.state.join("store"))?;
    let loaded = identity::load(&tpm, &mut store).await?;
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| IdentityError::Randomness(error.to_string()))?;
    let (network, ends) = Network::listen(&loaded.identity.transport, &config.listen).await?;
    let saved = store.saved()?;
    let host = Host::restore(
        spec::host::Config { address, newest: PROTOCOL_VERSION },
        loaded.identity,
        Arc::new(Real),
        &Seed(seed),
        saved,
    )?;
    let (done, done_end) = mpsc::unbounded_channel();
    let disk = Disk::start(store, done).map_err(|error| DaemonError::System("the store's thread", error))?;
    let (requests, locals) = mpsc::channel(LOCAL_QUEUE);
    let end = requests.clone();
    let driver = Driver::new(host, between(ends), (disk, done_end), tpm, loaded.map_identity, locals);
    let ended = |error| DaemonError::System("signals", error);
    let terminate = signal(SignalKind::terminate()).map_err(ended)?;
    let interrupt = signal(SignalKind::interrupt()).map_err(ended)?;
    tokio::spawn(network.run());
    let listener = server::bind(&config.socket, config.socket_group.as_deref())
        .map_err(|error| DaemonError::Socket(config.socket.clone(), error))?;
    tracing::info!(listen = %config.listen, socket = %config.socket.display(), "ready");
    tokio::select! {
        result = driver.run() => result?,
        () = server::serve(&listener, requests) => {}
        () = told_to_end(terminate, interrupt, end) => {}
    }
    Ok(())
}

/// Waits for a signal, then until the host may end: it goes on meanwhile.
async fn told_to_end(mut terminate: Signal, mut interrupt: Signal, requests: mpsc::Sender<LocalRequest>) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("told to end");
    let (answer, ended) = oneshot::channel();
    let command = spec::host::LocalCommand::End;
    // A driver that does not answer any more has nothing to hand on; a second signal is not waited for either.
    let asked = async {
        if requests.send(LocalRequest { command, answer, place: None }).await.is_ok() {
            drop(ended.await);
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(PATIENCE, asked) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

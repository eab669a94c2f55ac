//! Processes that a testnet started. They are ended by their ids, and by nothing else, whatever happens.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::mesh::TestnetError;
use crate::network;

/// Set once everything ends: nothing is started any more.
static CLOSING: AtomicBool = AtomicBool::new(false);
/// Every child that runs, by its id.
static RUNNING: Mutex<BTreeMap<u32, Child>> = Mutex::new(BTreeMap::new());

fn running() -> std::sync::MutexGuard<'static, BTreeMap<u32, Child>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a process.
///
/// # Errors
/// Where it does not start.
pub fn spawn(command: &mut Command) -> Result<u32, TestnetError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut running = running();
    if CLOSING.load(Ordering::SeqCst) {
        return Err(TestnetError::NotThere("it ends: nothing is started any more".to_owned()));
    }
    let child = command.spawn().map_err(|error| TestnetError::Start(name, error))?;
    let id = child.id();
    running.insert(id, child);
    Ok(id)
}

/// Ends a process with SIGKILL and waits for its end.
pub fn kill(id: u32) {
    let child = running().remove(&id);
    if let Some(mut child) = child {
        // Either call fails only where the process has ended already, which is what is wanted.
        drop(child.kill());
        drop(child.wait());
    }
}

/// Whether a process still runs.
pub fn is_alive(id: u32) -> bool {
    running().get_mut(&id).is_some_and(|child| matches!(child.try_wait(), Ok(None)))
}

/// Ends all, and lets nothing start any more.
pub fn close() {
    // Under the lock: whoever starts a child either did so before, and it is ended here, or not at all.
    let guard = running();
    CLOSING.store(true, Ordering::SeqCst);
    drop(guard);
    kill_all();
    network::remove_all();
}

/// Ends all that run now.
pub fn kill_all() {
    let ids: Vec<u32> = running().keys().copied().collect();
    for id in ids {
        kill(id);
    }
}

/// Lets all go on after this process has ended: `testnet down` ends them.
pub fn release_all() {
    running().clear();
}

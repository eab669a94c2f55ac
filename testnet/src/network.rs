//! A network of its own for a mesh: every machine in a network namespace, with a cable to one switch. Parts of it can be
//! cut off from the rest; inside a part everybody goes on hearing each other.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::command::run;
use crate::mesh::TestnetError;

/// Namespaces that this process made: they go when it ends.
static MADE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The bridge on which everybody is in peace,
const TOGETHER: &str = "together";
/// and the one for those that are cut off.
const APART: &str = "apart";

/// The network of a mesh.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Network {
    switch: String,
    machines: Vec<String>,
}

impl Network {
    /// Lays cables for so many machines.
    ///
    /// # Errors
    /// Where namespaces cannot be made: it takes root.
    pub fn lay(machines: usize) -> Result<Self, TestnetError> {
        let own = std::process::id();
        let switch = format!("vouchsafe-{own}-switch");
        add_namespace(&switch)?;
        for bridge in [TOGETHER, APART] {
            ip(&["-n", &switch, "link", "add", bridge, "type", "bridge"])?;
            ip(&["-n", &switch, "link", "set", bridge, "up"])?;
        }
        let mut network = Self { switch, machines: Vec::new() };
        for number in 0..machines {
            network.plug_in(number, format!("vouchsafe-{own}-{number}"))?;
        }
        Ok(network)
    }

    fn plug_in(&mut self, number: usize, name: String) -> Result<(), TestnetError> {
        let (switch, port, address) = (&self.switch, port(number), format!("{}/24", address(number)));
        add_namespace(&name)?;
        ip(&["-n", switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
        ip(&["-n", switch, "link", "set", &port, "master", TOGETHER, "up"])?;
        ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        self.machines.push(name);
        Ok(())
    }

    /// The namespace of a machine.
    pub fn namespace(&self, number: usize) -> Option<&str> {
        self.machines.get(number).map(String::as_str)
    }

    /// Cuts these machines off from all others, not from each other.
    ///
    /// # Errors
    /// Where a cable cannot be moved.
    pub fn cut_off(&self, numbers: &[usize]) -> Result<(), TestnetError> {
        numbers.iter().try_for_each(|number| self.move_to(*number, APART))
    }

    /// Everybody hears everybody again.
    ///
    /// # Errors
    /// Where a cable cannot be moved.
    pub fn heal(&self) -> Result<(), TestnetError> {
        (0..self.machines.len()).try_for_each(|number| self.move_to(number, TOGETHER))
    }

    fn move_to(&self, number: usize, bridge: &str) -> Result<(), TestnetError> {
        ip(&["-n", &self.switch, "link", "set", &port(number), "master", bridge])
    }
}

/// The address of a machine.
pub fn address(number: usize) -> String {
    format!("10.77.0.{}", number + 1)
}

fn port(number: usize) -> String {
    format!("port{number}")
}

fn add_namespace(name: &str) -> Result<(), TestnetError> {
    ip(&["netns", "add", name])?;
    MADE.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    Ok(())
}

/// Removes what was made; the processes inside must have ended.
pub fn remove_all() {
    for name in std::mem::take(&mut *MADE.lock().unwrap_or_else(PoisonError::into_inner)) {
        // What cannot be removed stays until the machine restarts: nothing depends on it.
        drop(ip(&["netns", "del", &name]));
    }
}

fn ip(arguments: &[&str]) -> Result<(), TestnetError> {
    let said = run(Command::new("ip").args(arguments), b"")?;
    if said.code == 0 {
        return Ok(());
    }
    Err(TestnetError::Tool("ip", format!("ip {}: {}", arguments.join(" "), said.err)))
}

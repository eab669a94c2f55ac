//! A whole mesh: its machines, its operators' keys, its owner's key.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::children;
use crate::command::{Said, run};
use crate::machine::{Machine, PORTS, Plan, free_ports};
use crate::network::{self, Network};
use crate::tpm::Authority;

/// What goes wrong in a testnet.
#[derive(Debug, Error)]
pub enum TestnetError {
    /// A file.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// A process.
    #[error("cannot start {0}: {1}")]
    Start(String, std::io::Error),
    /// A tool.
    #[error("{0} failed:\n{1}")]
    Tool(&'static str, String),
    /// A command that was to succeed.
    #[error("{0} ended with exit code {1}:\n{2}")]
    Command(String, i32, String),
    /// No ports are free.
    #[error("no ports are free, or a port does not open")]
    Ports,
    /// A daemon does not answer.
    #[error("the daemon of {0} does not answer; its log: {1}")]
    NotReady(String, PathBuf),
    /// The mesh does not come to the state that was waited for.
    #[error("{0}")]
    NotThere(String),
    /// Something is not as it must be.
    #[error("NOT AS IT MUST BE: {0}")]
    Wrong(String),
}

/// Waited for at most: a mesh settles in a few epochs.
pub const SETTLE: Duration = Duration::from_secs(60);
/// Epoch of a local testnet.
pub const EPOCH_MS: u64 = 2_000;

/// Names of domains.
const DOMAINS: [&str; 5] = ["atlas", "borealis", "cygnus", "draco", "eridanus"];

/// How machines reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cabling {
    /// Over the loopback of this machine.
    Loopback,
    /// Over a network of their own, of which parts can be cut off.
    Own,
}

/// Seats of a committee, unless somebody wants another one.
const COMMITTEE: u8 = 5;

/// A mesh.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mesh {
    /// Its folder.
    pub folder: PathBuf,
    /// Its machines; the first is the founder.
    pub machines: Vec<Machine>,
    /// Their cables, where they have a network of their own.
    pub network: Option<Network>,
    /// Seats that its committee is to have.
    pub committee: u8,
    domains: usize,
}

/// Plans of N hosts over D domains and R regions, and one reader.
pub fn plans(hosts: usize, domains: usize, regions: usize) -> Vec<Plan> {
    let domain = |number: usize| DOMAINS.get(number % domains.clamp(1, DOMAINS.len())).copied().unwrap_or("atlas");
    let mut plans: Vec<Plan> = (0..hosts)
        .map(|number| Plan {
            name: format!("host{}", number + 1),
            role: "host".to_owned(),
            domain: domain(number).to_owned(),
            region: format!("region{}", number % regions.max(1) + 1),
        })
        .collect();
    plans.push(Plan {
        name: "web1".to_owned(),
        role: "reader".to_owned(),
        domain: domain(0).to_owned(),
        region: "region1".to_owned(),
    });
    plans
}

impl Mesh {
    /// Makes all chips and starts all machines; nobody belongs to a mesh yet. `tell` hears each step.
    ///
    /// # Errors
    /// What does not start.
    pub fn start(
        folder: &Path,
        plans: Vec<Plan>,
        cabling: Cabling,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self, TestnetError> {
        if folder.join("testnet.json").exists() {
            let folder = folder.display();
            return Err(TestnetError::NotThere(format!(
                "{folder} holds a testnet already: end it with `testnet down --folder {folder}`, or name another --folder"
            )));
        }
        std::fs::create_dir_all(folder).map_err(|error| TestnetError::File(folder.to_owned(), error))?;
        let folder = folder.canonicalize().map_err(|error| TestnetError::File(folder.to_owned(), error))?;
        let authority = Authority::new(&folder)?;
        let domains: std::collections::BTreeSet<&str> = plans.iter().map(|plan| plan.domain.as_str()).collect();
        let network = match cabling {
            Cabling::Loopback => None,
            Cabling::Own => Some(Network::lay(plans.len())?),
        };
        let (committee, domains) = (COMMITTEE, domains.len());
        let mut mesh = Self { machines: Vec::new(), domains, folder: folder.clone(), network, committee };
        // All at once, so that no two machines are given the same.
        let count = u16::try_from(plans.len()).map_err(|_| TestnetError::Ports)?;
        let first = free_ports(count.saturating_mul(PORTS))?;
        for ((number, plan), base) in plans.into_iter().enumerate().zip((first..).step_by(usize::from(PORTS))) {
            let path = folder.join(&plan.name);
            let namespace = mesh.network.as_ref().and_then(|network| network.namespace(number));
            let place = namespace.map(|namespace| (namespace.to_owned(), network::address(number)));
            mesh.machines.push(Machine::new(plan, path, base, place)?);
        }
        mesh.make_keys()?;
        make_chips(&authority, &mesh.machines, tell)?;
        for machine in &mut mesh.machines {
            machine.start_chip()?;
            machine.start_daemon()?;
        }
        for machine in &mesh.machines {
            machine.wait_ready()?;
            tell(&format!("{} runs", machine.plan.name));
        }
        Ok(mesh)
    }

    fn make_keys(&self) -> Result<(), TestnetError> {
        let operators = DOMAINS.iter().take(self.domains).map(|domain| self.operator(domain));
        for path in operators.chain([self.owner()]) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", &name, "-f"]).arg(&path), b"")?
                .ok("ssh-keygen")?;
        }
        Ok(())
    }

    /// Key of a domain's operator.
    pub fn operator(&self, domain: &str) -> PathBuf {
        self.folder.join(format!("operator-{domain}"))
    }

    /// Key of the owner of credentials.
    pub fn owner(&self) -> PathBuf {
        self.folder.join("owner")
    }

    /// The owner's public key.
    pub fn owner_public(&self) -> PathBuf {
        self.folder.join("owner.pub")
    }

    /// The founder.
    ///
    /// # Errors
    /// Where there is no machine.
    pub fn founder(&self) -> Result<&Machine, TestnetError> {
        self.machines.first().ok_or_else(|| TestnetError::NotThere("the mesh has no machine".to_owned()))
    }

    /// A machine by its name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn machine(&self, name: &str) -> Result<&Machine, TestnetError> {
        let found = self.machines.iter().find(|machine| machine.plan.name == name);
        found.ok_or_else(|| TestnetError::NotThere(format!("no machine {name}")))
    }

    /// A machine by its name, to change.
    ///
    /// # Errors
    /// Where there is none.
    pub fn machine_mut(&mut self, name: &str) -> Result<&mut Machine, TestnetError> {
        let found = self.machines.iter_mut().find(|machine| machine.plan.name == name);
        found.ok_or_else(|| TestnetError::NotThere(format!("no machine {name}")))
    }

    /// The reader.
    ///
    /// # Errors
    /// Where there is none.
    pub fn reader(&self) -> Result<&Machine, TestnetError> {
        self.machine("web1")
    }

    /// Begins the mesh on the first machine.
    ///
    /// # Errors
    /// What the command says.
    pub fn found(&self) -> Result<Said, TestnetError> {
        let founder = self.founder()?;
        let (epoch, committee) = (EPOCH_MS.to_string(), self.committee.to_string());
        let terms = ["init", "--mesh", "demo", "--testnet", "--epoch-ms", &epoch, "--committee", &committee];
        let mut arguments: Vec<String> = terms.map(str::to_owned).to_vec();
        let own = &founder.plan;
        arguments
            .extend(["--name", &own.name, "--region", &own.region, "--own-domain", &own.domain].map(str::to_owned));
        for domain in DOMAINS.iter().take(self.domains) {
            let key = self.operator(domain).display().to_string();
            arguments.extend([
                "--operator".to_owned(),
                format!("{key}.pub"),
                "--domain".to_owned(),
                (*domain).to_owned(),
            ]);
        }
        for root in Authority::new(&self.folder)?.roots() {
            arguments.extend(["--ek-root".to_owned(), root.display().to_string()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        founder.vouchsafe(&arguments, b"")?.ok("vouchsafe init")
    }

    /// Writes a ticket for a machine.
    ///
    /// # Errors
    /// What the command says.
    pub fn invite(&self, plan: &Plan) -> Result<PathBuf, TestnetError> {
        let path = self.folder.join(format!("{}.ticket", plan.name));
        let operator = self.operator(&plan.domain).display().to_string();
        let out = path.display().to_string();
        let arguments = [
            "invite",
            "--operator",
            &operator,
            "--name",
            &plan.name,
            "--role",
            &plan.role,
            "--region",
            &plan.region,
            "--out",
            &out,
        ];
        self.founder()?.vouchsafe(&arguments, b"")?.ok("vouchsafe invite")?;
        Ok(path)
    }

    /// Lets a machine join.
    ///
    /// # Errors
    /// What the commands say.
    pub fn join(&self, machine: &Machine) -> Result<Said, TestnetError> {
        let ticket = self.invite(&machine.plan)?.display().to_string();
        machine.vouchsafe(&["join", &ticket], b"")?.ok("vouchsafe join")
    }

    /// Founds the mesh with the first three and lets everybody else join; waits until all serve.
    ///
    /// # Errors
    /// What the commands say.
    pub fn enrol_all(&self, tell: &mut dyn FnMut(&str)) -> Result<(), TestnetError> {
        self.found()?;
        tell(&format!("{} gathers the founders", self.founder()?.plan.name));
        for (number, machine) in (2..).zip(self.machines.iter().skip(1)) {
            self.join(machine)?;
            let name = &machine.plan.name;
            match number {
                2 => tell(&format!("{name} came: two of three")),
                3 => tell(&format!("{name} came: the three checked each other's TPMs and dealt the mesh key")),
                _ => tell(&format!("{name} joined: its TPM answered the committee's challenges")),
            }
        }
        self.wait_good(self.machines.len())?;
        self.machines.iter().try_for_each(|machine| self.wait_serving(machine))
    }

    /// The table of hosts, as the founder sees it.
    ///
    /// # Errors
    /// What the command says.
    pub fn hosts(&self) -> Result<Vec<Value>, TestnetError> {
        let answer = self.founder()?.vouchsafe(&["-o", "json", "hosts"], b"")?.ok("vouchsafe hosts")?.json();
        Ok(answer.get("hosts").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Names of the committee, as the first machine that answers says.
    ///
    /// # Errors
    /// Where nobody answers.
    pub fn committee(&self) -> Result<Vec<String>, TestnetError> {
        for machine in self.machines.iter().filter(|machine| machine.daemon.is_some()) {
            let said = machine.vouchsafe(&["-o", "json", "status"], b"")?;
            let names = said.json().get("committee").and_then(Value::as_array).cloned().unwrap_or_default();
            if said.code == 0 && !names.is_empty() {
                return Ok(names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
            }
        }
        Err(TestnetError::NotThere("no daemon says who sits in the committee".to_owned()))
    }

    /// Waits until the committee has so many seats, and each holds a share of the mesh key. Gives which dealing it is.
    ///
    /// # Errors
    /// Where it has not in time.
    pub fn wait_committee(&self, seats: usize, patience: Duration) -> Result<u64, TestnetError> {
        let since = Instant::now();
        let mut last = Value::Null;
        while since.elapsed() < patience {
            for machine in self.machines.iter().filter(|machine| machine.daemon.is_some()) {
                last = machine.vouchsafe(&["-o", "json", "status"], b"")?.json();
                let seated = last.get("committee").and_then(Value::as_array).map_or(0, Vec::len);
                let shares = last.pointer("/key_shares/of").and_then(Value::as_u64);
                if seated == seats && shares == u64::try_from(seats).ok() {
                    return Ok(last.get("key_epoch").and_then(Value::as_u64).unwrap_or(0));
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(TestnetError::NotThere(format!("the committee has not {seats} seats with a share each: {last}")))
    }

    /// Name of the host that leads, as some daemon says that runs.
    pub fn leader(&self) -> Option<String> {
        let running = self.machines.iter().filter(|machine| machine.daemon.is_some());
        running
            .filter_map(|machine| machine.vouchsafe(&["-o", "json", "status"], b"").ok().map(|said| (machine, said)))
            .filter(|(_, said)| said.code == 0)
            .find(|(_, said)| said.json().get("coordinates") == Some(&Value::Bool(true)))
            .map(|(machine, _)| machine.plan.name.clone())
    }

    /// Waits until somebody leads.
    ///
    /// # Errors
    /// Where nobody does in time.
    pub fn wait_leader(&self) -> Result<String, TestnetError> {
        let since = Instant::now();
        while since.elapsed() < SETTLE {
            if let Some(leader) = self.leader() {
                return Ok(leader);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(TestnetError::NotThere("nobody leads".to_owned()))
    }

    /// Which of these hosts may die at once while a majority of the committee stays: first those without a seat.
    ///
    /// # Errors
    /// Where nobody says who sits in the committee.
    pub fn spare_majority(&self, names: &[String]) -> Result<Vec<String>, TestnetError> {
        let committee = self.committee()?;
        let (seated, others): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| committee.contains(name));
        let minority = committee.len().saturating_sub(1) / 2;
        Ok(others.into_iter().chain(seated.into_iter().take(minority)).cloned().collect())
    }

    /// Waits until so many members stand with good evidence.
    ///
    /// # Errors
    /// Where they do not in time.
    pub fn wait_good(&self, count: usize) -> Result<(), TestnetError> {
        let since = Instant::now();
        while since.elapsed() < SETTLE {
            let good =
                self.hosts()?.iter().filter(|host| host.get("state").is_some_and(|state| state == "good")).count();
            if good == count {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(TestnetError::NotThere(format!("not all of {count} members came to show good evidence")))
    }

    /// Waits until the daemon of a machine follows a current epoch with evidence of its own, unlocked by its peers.
    ///
    /// # Errors
    /// Where it does not in time.
    pub fn wait_serving(&self, machine: &Machine) -> Result<(), TestnetError> {
        let since = Instant::now();
        while since.elapsed() < SETTLE {
            let status = machine.vouchsafe(&["-o", "json", "status"], b"")?.json();
            let numbers = ["epoch", "evidence_epoch", "header_epoch"];
            let unlocked = machine.plan.role != "host" || status.get("unlocked") == Some(&Value::Bool(true));
            if unlocked && numbers.iter().all(|field| status.get(field).is_some_and(Value::is_u64)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(TestnetError::NotThere(format!("{} does not come back", machine.plan.name)))
    }

    /// Puts a credential through a machine.
    ///
    /// # Errors
    /// Where the command does not start.
    pub fn put(&self, through: &Machine, name: &str, more: &[&str], content: &[u8]) -> Result<Said, TestnetError> {
        let key = self.owner().display().to_string();
        let mut arguments = vec!["-o", "json", "put", name, "--key", &key, "--allow", "instance:web1"];
        arguments.extend(more);
        through.vouchsafe(&arguments, content)
    }

    /// Reads a credential on a machine.
    ///
    /// # Errors
    /// Where the command does not start.
    pub fn get(&self, on: &Machine, name: &str) -> Result<Said, TestnetError> {
        let owner = self.owner_public().display().to_string();
        on.vouchsafe(&["get", name, "--client", &owner], b"")
    }

    /// Cuts these machines off from all others, not from each other; nobody where none is named.
    ///
    /// # Errors
    /// Where the mesh has no network of its own.
    pub fn cut_off(&self, names: &[&str]) -> Result<(), TestnetError> {
        let network = self.network.as_ref();
        let network = network.ok_or_else(|| TestnetError::NotThere("the mesh is on loopback".to_owned()))?;
        network.heal()?;
        let is_named = |machine: &Machine| names.contains(&machine.plan.name.as_str());
        let numbers: Vec<usize> =
            self.machines.iter().enumerate().filter(|(_, m)| is_named(m)).map(|(n, _)| n).collect();
        network.cut_off(&numbers)
    }

    /// Ends all daemons with SIGKILL, at once.
    pub fn kill_daemons(&mut self) {
        for machine in &mut self.machines {
            machine.kill_daemon();
        }
    }

    /// Starts all daemons that do not run and waits until they serve.
    ///
    /// # Errors
    /// Where one does not come back.
    pub fn revive(&mut self) -> Result<(), TestnetError> {
        for machine in self.machines.iter_mut().filter(|machine| machine.daemon.is_none()) {
            machine.start_daemon()?;
        }
        for machine in &self.machines {
            machine.wait_ready()?;
        }
        self.wait_good(self.machines.len())?;
        self.machines.iter().try_for_each(|machine| self.wait_serving(machine))
    }

    /// Remembers the mesh for `testnet down`, and lets its processes go on.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn leave_running(&self) -> Result<(), TestnetError> {
        let path = self.folder.join("testnet.json");
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        std::fs::write(&path, text).map_err(|error| TestnetError::File(path, error))?;
        children::release_all();
        Ok(())
    }

    /// Reads a mesh that was left running.
    ///
    /// # Errors
    /// Where there is none.
    pub fn read(folder: &Path) -> Result<Self, TestnetError> {
        let path = folder.join("testnet.json");
        let text = std::fs::read_to_string(&path).map_err(|error| TestnetError::File(path, error))?;
        serde_json::from_str(&text).map_err(|error| TestnetError::NotThere(error.to_string()))
    }

    /// Moves the folder of a mesh that was ended out of the next one's way.
    ///
    /// # Errors
    /// Where it cannot be moved.
    pub fn set_aside(folder: &Path) -> Result<PathBuf, TestnetError> {
        let aside = folder.with_extension(format!("ended-{}", std::process::id()));
        std::fs::rename(folder, &aside).map_err(|error| TestnetError::File(folder.to_owned(), error))?;
        Ok(aside)
    }

    /// Ends the processes of a mesh that was left running: only those that still are what they were.
    pub fn end_left_behind(&self) -> usize {
        let folder = self.folder.display().to_string();
        let ids = self.machines.iter().flat_map(|machine| [machine.daemon, machine.proxy, machine.chip]);
        let ours = |id: &u32| {
            let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&folder)
        };
        let mut ended = 0;
        for id in ids.flatten().filter(ours) {
            let process = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(process) = process
                && rustix::process::kill_process(process, rustix::process::Signal::KILL).is_ok()
            {
                ended += 1;
            }
        }
        ended
    }
}

fn make_chips(authority: &Authority, machines: &[Machine], tell: &mut dyn FnMut(&str)) -> Result<(), TestnetError> {
    // The first makes the CA; the others come after it, two at a time.
    let mut left = machines.iter();
    if let Some(first) = left.next() {
        authority.make_chip(&first.chip_state())?;
        tell(&format!("{} has a TPM and a local certificate authority for it", first.plan.name));
    }
    let left: Vec<&Machine> = left.collect();
    for pair in left.chunks(2) {
        let results: Vec<Result<(), TestnetError>> = std::thread::scope(|scope| {
            let make = |machine: &&Machine| {
                let state = machine.chip_state();
                scope.spawn(move || authority.make_chip(&state))
            };
            let threads: Vec<_> = pair.iter().map(make).collect();
            let crashed = || Err(TestnetError::NotThere("making a chip crashed".to_owned()));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| crashed())).collect()
        });
        results.into_iter().collect::<Result<(), _>>()?;
        for machine in pair {
            tell(&format!("{} has a TPM", machine.plan.name));
        }
    }
    Ok(())
}

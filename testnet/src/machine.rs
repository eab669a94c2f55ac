//! One machine of a testnet: a chip, the proxy before it, a daemon, a folder.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::command::{Said, binary, run};
use crate::mesh::TestnetError;
use crate::{children, tpm};

/// Ports of one machine: chip, its control, the proxy, its control, the daemon.
pub const PORTS: u16 = 5;
/// What daemons log: all that they say themselves.
const LOG: &str = "info,vouchsafe=debug,libp2p=warn,sled=warn";
/// How long a daemon may take until its socket answers.
const START: Duration = Duration::from_secs(60);

/// What a machine is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// `host` or `reader`.
    pub role: String,
    /// Its domain.
    pub domain: String,
    /// Its region.
    pub region: String,
}

/// A machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// What it is.
    pub plan: Plan,
    /// Its folder.
    pub folder: PathBuf,
    /// Port of the chip.
    pub chip_port: u16,
    /// Port of the proxy before the chip.
    pub tpm_port: u16,
    /// Port of the daemon, UDP and TCP.
    pub port: u16,
    /// The namespace in which all of it runs, and its address there; on loopback where there is none.
    pub place: Option<(String, String)>,
    /// Process of the chip.
    pub chip: Option<u32>,
    /// Process of the proxy.
    pub proxy: Option<u32>,
    /// Process of the daemon.
    pub daemon: Option<u32>,
}

/// Finds a port where this many in a row are free for both UDP and TCP.
///
/// # Errors
/// Where none is found.
pub fn free_ports(count: u16) -> Result<u16, TestnetError> {
    for _ in 0..200 {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).map_err(|_| TestnetError::Ports)?;
        let first = 20_000 + u16::from_be_bytes(bytes) % 12_000;
        let is_free = |port| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
                && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        };
        if (first..first + count).all(is_free) {
            return Ok(first);
        }
    }
    Err(TestnetError::Ports)
}

impl Machine {
    /// Lays a machine out on the ports from this one on; nothing runs yet.
    ///
    /// # Errors
    /// Where its folder cannot be made.
    pub fn new(plan: Plan, folder: PathBuf, base: u16, place: Option<(String, String)>) -> Result<Self, TestnetError> {
        std::fs::create_dir_all(&folder).map_err(|error| TestnetError::File(folder.clone(), error))?;
        let machine = Self {
            plan,
            folder,
            chip_port: base,
            tpm_port: base + 2,
            port: base + 4,
            place,
            chip: None,
            proxy: None,
            daemon: None,
        };
        let config = format!(
            "tpm = \"{}\"\nlisten = \"{}\"\nstate = \"{}\"\nsocket = \"{}\"\n",
            machine.tcti(),
            machine.address(),
            machine.folder.join("state").display(),
            machine.socket().display(),
        );
        let path = machine.config();
        std::fs::write(&path, config).map_err(|error| TestnetError::File(path, error))?;
        Ok(machine)
    }

    /// How tools of the TPM stack name its chip.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.tpm_port)
    }

    /// Its daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("api.sock")
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// Its daemon's address.
    pub fn address(&self) -> String {
        let address = self.place.as_ref().map_or("127.0.0.1", |(_, address)| address);
        format!("{address}:{}", self.port)
    }

    /// State of its chip.
    pub fn chip_state(&self) -> PathBuf {
        self.folder.join("tpm")
    }

    /// The file of its chip's faults.
    pub fn faults(&self) -> PathBuf {
        self.folder.join("tpm.faults")
    }

    /// The file that says what a taped daemon does.
    pub fn tape(&self) -> PathBuf {
        self.folder.join("tape")
    }

    /// Powers the chip on and puts the proxy before it.
    ///
    /// # Errors
    /// Where either does not start.
    pub fn start_chip(&mut self) -> Result<(), TestnetError> {
        let log = self.folder.join("tpm.log");
        let chip = tpm::power_on(self.inside("swtpm".into()), &self.chip_state(), self.chip_port, &log)?;
        self.chip = Some(chip);
        wait_for_port(chip, self.chip_port)?;
        let proxy = children::spawn(
            self.inside(binary("testnet"))
                .arg("tpm-proxy")
                .arg("--listen")
                .arg(self.tpm_port.to_string())
                .arg("--chip")
                .arg(self.chip_port.to_string())
                .arg("--faults")
                .arg(self.faults())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(self.log("proxy.log")?),
        )?;
        self.proxy = Some(proxy);
        wait_for_port(proxy, self.tpm_port)
    }

    /// A command that runs in this machine's namespace.
    fn inside(&self, program: PathBuf) -> Command {
        match &self.place {
            None => Command::new(program),
            Some((namespace, _)) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
        }
    }

    /// Starts the daemon; `wait_ready` waits for it.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_daemon(&mut self) -> Result<(), TestnetError> {
        let mut command = self.inside(binary("vouchsafe"));
        command.arg("--config").arg(self.config()).arg("daemon");
        self.start_as(command)
    }

    /// Starts a daemon whose parts of unlocks go as the file `tape` says.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_taped(&mut self) -> Result<(), TestnetError> {
        let mut command = self.inside(binary("taped"));
        command.arg("--config").arg(self.config()).arg("--tape").arg(self.tape());
        self.start_as(command)
    }

    fn start_as(&mut self, mut command: Command) -> Result<(), TestnetError> {
        let daemon = children::spawn(
            command
                .env("TSS2_LOG", "all+none")
                .env("NO_COLOR", "1")
                .env("VOUCHSAFE_LOG", std::env::var("VOUCHSAFE_LOG").as_deref().unwrap_or(LOG))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(self.log("daemon.log")?),
        )?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Waits until the daemon answers.
    ///
    /// # Errors
    /// Where it ends or does not answer in time.
    pub fn wait_ready(&self) -> Result<(), TestnetError> {
        let since = Instant::now();
        while since.elapsed() < START {
            if self.daemon.is_some_and(|id| !children::is_alive(id)) {
                break;
            }
            if self.socket().exists() && self.vouchsafe(&["status"], b"")?.code == 0 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Err(TestnetError::NotReady(self.plan.name.clone(), self.folder.join("daemon.log")))
    }

    /// Ends the daemon with SIGKILL.
    pub fn kill_daemon(&mut self) {
        if let Some(id) = self.daemon.take() {
            children::kill(id);
        }
    }

    /// Ends the chip and the proxy with SIGKILL.
    pub fn kill_chip(&mut self) {
        for id in [self.proxy.take(), self.chip.take()].into_iter().flatten() {
            children::kill(id);
        }
    }

    fn log(&self, name: &str) -> Result<std::fs::File, TestnetError> {
        let path = self.folder.join(name);
        let open = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        open.map_err(|error| TestnetError::File(path, error))
    }

    /// Runs a command of `vouchsafe` against this machine's daemon.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn vouchsafe(&self, arguments: &[&str], input: &[u8]) -> Result<Said, TestnetError> {
        run(Command::new(binary("vouchsafe")).arg("--config").arg(self.config()).args(arguments), input)
    }

    /// Extends a PCR of its chip while its daemon runs: what booting something else does.
    ///
    /// # Errors
    /// Where the tool fails.
    pub fn extend_pcr(&self, pcr: u8) -> Result<(), TestnetError> {
        let value = "e".repeat(64);
        run(
            self.inside("tpm2_pcrextend".into())
                .env("TPM2TOOLS_TCTI", self.tcti())
                .env("TSS2_LOG", "all+none")
                .arg(format!("{pcr}:sha256={value}")),
            b"",
        )?
        .ok("tpm2_pcrextend")
        .map(drop)
    }
}

/// Waits until a process, or somebody else in its namespace, listens at this port: what is listening says so without
/// being connected to, and a software TPM serves one client at a time.
fn wait_for_port(process: u32, port: u16) -> Result<(), TestnetError> {
    let since = Instant::now();
    let listening = format!(":{port:04X} 00000000:0000 0A ");
    while since.elapsed() < START && children::is_alive(process) {
        let table = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap_or_default();
        if table.contains(&listening) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(TestnetError::Ports)
}

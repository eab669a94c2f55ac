//! The rival for what is replicated: three nodes of etcd on this machine, where it is installed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{Said, run};
use crate::machine::free_ports;
use crate::mesh::TestnetError;

const NODES: u16 = 3;
/// Until it has elected a leader.
const START: Duration = Duration::from_secs(20);

/// A cluster that runs.
pub(super) struct Etcd {
    endpoint: String,
}

impl Etcd {
    /// Starts it; none where etcd is not installed.
    pub(super) fn start(folder: &Path) -> Result<Option<Self>, TestnetError> {
        if run(Command::new("etcd").arg("--version"), b"").is_err() || run(&mut control("version", ""), b"").is_err() {
            return Ok(None);
        }
        let first = free_ports(2 * NODES)?;
        let [client, peer] = [first, first + NODES].map(|base| move |node| format!("http://127.0.0.1:{}", base + node));
        let members: Vec<String> = (0..NODES).map(|node| format!("n{node}={}", peer(node))).collect();
        for node in 0..NODES {
            let log = std::fs::File::create(folder.join(format!("etcd{node}.log")))
                .map_err(|error| TestnetError::File(folder.to_owned(), error))?;
            let mut command = Command::new("etcd");
            command.arg("--name").arg(format!("n{node}")).arg("--data-dir").arg(folder.join(format!("etcd{node}")));
            for (option, url) in [
                ("--listen-client-urls", client(node)),
                ("--advertise-client-urls", client(node)),
                ("--listen-peer-urls", peer(node)),
                ("--initial-advertise-peer-urls", peer(node)),
                ("--initial-cluster", members.join(",")),
            ] {
                command.arg(option).arg(url);
            }
            crate::children::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))?;
        }
        let etcd = Self { endpoint: client(0) };
        let since = Instant::now();
        while etcd.put("ready", b"ready")?.code != 0 {
            if since.elapsed() >= START {
                return Err(TestnetError::NotThere("etcd does not come up".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(Some(etcd))
    }

    pub(super) fn put(&self, key: &str, value: &[u8]) -> Result<Said, TestnetError> {
        run(control("put", &self.endpoint).arg(key), value)
    }

    /// A linearizable read: the default of etcdctl, named here all the same.
    pub(super) fn get(&self, key: &str) -> Result<Said, TestnetError> {
        run(control("get", &self.endpoint).arg("--consistency=l").arg(key), b"")
    }
}

fn control(verb: &str, endpoint: &str) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").arg("--endpoints").arg(endpoint).arg(verb);
    command
}

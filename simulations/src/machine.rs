//! One virtual machine: a chip and a disk that outlive its crashes, a host that does not.

use std::sync::Arc;

use spec::genesis::PROTOCOL_VERSION;
use spec::host::{Config, Host, Identity, Lanes, RestoreError};
use spec::suite::{Fake, Suite as _};
use spec::types::{SecretBytes, Time, TransportKey};
use spec::wire::Address;

use crate::disk::Disk;
use crate::gossip::Gossip;
use crate::random::Random;
use crate::tpm::Tpm;

/// A host that runs.
pub struct Running {
    /// The host.
    pub host: Host,
    /// What waits for its writes.
    pub lanes: Lanes,
    /// What it knows of the gossip.
    pub gossip: Gossip,
    /// The deadline for which it is woken already.
    pub wake_at: Option<Time>,
}

/// A machine.
pub struct Machine {
    /// Its name in tickets.
    pub name: String,
    /// Its chip.
    pub tpm: Tpm,
    /// Its disk.
    pub disk: Disk,
    /// Its host, while it runs.
    pub running: Option<Running>,
    /// Counts its starts: what was under way at a crash is not taken for the next start's.
    pub incarnation: u64,
    /// Its transport key.
    pub transport: TransportKey,
    /// Newest version of the records that its binary reads.
    pub newest: u16,
    secrets: [[u8; 32]; 3],
}

impl Machine {
    /// A machine with an empty disk, not started.
    pub fn new(name: String, random: &mut Random) -> Self {
        let secrets = [random.bytes(), random.bytes(), random.bytes()];
        let transport = Fake.ed25519_public(&SecretBytes::copy_of(&secrets[0])).unwrap_or(TransportKey::ZERO);
        Self {
            name,
            tpm: Tpm::new(random),
            disk: Disk::default(),
            running: None,
            incarnation: 0,
            transport,
            newest: PROTOCOL_VERSION,
            secrets,
        }
    }

    /// The seed of its transport key, for a host that is to lie.
    pub fn transport_seed(&self) -> SecretBytes {
        SecretBytes::copy_of(&self.secrets[0])
    }

    /// Starts from what is on disk.
    ///
    /// # Errors
    /// Where what is on disk does not read back.
    pub fn start(&mut self, random: &mut Random) -> Result<(), RestoreError> {
        let [transport, vote, tpm_bound] = self.secrets.each_ref().map(|secret| SecretBytes::copy_of(secret));
        let identity = Identity {
            transport,
            vote,
            tpm_bound,
            eks: vec![self.tpm.ek()],
            intermediates: Vec::new(),
            ak: self.tpm.ak(),
            map_recipient: format!("age1{}", self.name),
        };
        let config = Config { address: Address(self.name.clone()), newest: self.newest };
        let host = Host::restore(config, identity, Arc::new(Fake), &random.seed(), self.disk.saved())?;
        self.incarnation += 1;
        self.running = Some(Running { host, lanes: Lanes::default(), gossip: Gossip::default(), wake_at: None });
        Ok(())
    }

    /// Its disk is lost, and with it every key but the chip's own.
    pub fn wipe(&mut self, random: &mut Random) {
        self.running = None;
        self.disk = Disk::default();
        self.secrets = [random.bytes(), random.bytes(), random.bytes()];
        self.transport = Fake.ed25519_public(&self.transport_seed()).unwrap_or(TransportKey::ZERO);
    }

    /// Crashes: memory is gone, the disk keeps what was durable.
    pub fn crash(&mut self) {
        self.running = None;
    }
}

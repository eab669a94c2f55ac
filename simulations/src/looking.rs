//! What a test sees of a run. It stops where what it looks for is not there.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::cms::records::Records;
use spec::host::{Host, LocalCommand, LocalReply, StatusReply};

use crate::run::Run;
use crate::scenario::Scenario;

/// A host says at once how it is.
const STATUS_MS: u64 = 20_000;

impl Run {
    /// A mesh without faults: all its machines are in it, and this time has passed since.
    ///
    /// # Panics
    /// Where one of them does not get in.
    pub fn calm(hosts: usize, seed: u64, settle_ms: u64) -> Self {
        let scenario = Scenario::named("calm").expect("a scenario");
        let mut run = Self::new(&scenario, hosts, seed);
        assert!(run.enrol_all(&scenario), "seed {seed}: not all of {hosts} hosts are in");
        run.settle(settle_ms);
        run
    }

    /// The host that runs on a machine.
    ///
    /// # Panics
    /// Where none runs.
    pub fn host(&self, machine: usize) -> &Host {
        &self.world.machines[machine].running.as_ref().expect("it runs").host
    }

    /// Its records.
    ///
    /// # Panics
    /// Where no host runs there.
    pub fn records(&self, machine: usize) -> &Records {
        self.host(machine).records()
    }

    /// What a machine says of itself.
    ///
    /// # Panics
    /// Where it says nothing.
    pub fn status(&mut self, machine: usize) -> StatusReply {
        match self.ask(machine, LocalCommand::Status, STATUS_MS) {
            Some(Ok(LocalReply::Status(status))) => *status,
            other => panic!("machine {machine} shows no status: {other:?}"),
        }
    }

    /// No promise was broken.
    ///
    /// # Panics
    /// With what the checkers found.
    pub fn is_sound(&self) {
        let findings = self.world.checkers.findings();
        assert!(findings.is_empty(), "{findings:?}");
    }
}

//! After the faults: everything comes back by itself, is read back, and nobody gets what is not its own.

use std::collections::BTreeSet;

use spec::cms::committee::{Committee, wanted};
use spec::error::{Check, Failure};
use spec::host::{LocalCommand, LocalReply};
use spec::types::Digest;

use crate::machine::Machine;
use crate::run::{PEACE_MS, Run};

/// Looks at how far everybody is, and the time between two.
const CONVERGED_TRIES: usize = 50;
const CONVERGED_STEP_MS: u64 = 97;
/// A dealing that is under way is over by then, and what it left behind gone.
const DEALING_EPOCHS: u64 = 30;
/// From the record that ends a dealing to where the second header after it has confirmed it everywhere.
const ERASED_EPOCHS: u64 = 3;

impl Run {
    /// Faults end; everything must come back by itself.
    pub(crate) fn peace(&mut self) {
        self.world.faults = false;
        self.world.cut_off.clear();
        self.world.clocks_ahead_ms.clear();
        for number in 0..self.world.machines.len() {
            if self.world.machines.get(number).is_some_and(|machine| machine.running.is_none()) {
                self.world.start(number);
            }
        }
        self.try_joins();
        self.settle(PEACE_MS);
        // Records go on in each epoch: sooner or later all hosts are seen at the same one.
        let seen: Vec<BTreeSet<(u64, Digest)>> = (0..CONVERGED_TRIES)
            .map(|_| {
                self.settle(CONVERGED_STEP_MS);
                self.roots()
            })
            .collect();
        for roots in &seen {
            let indexes: BTreeSet<u64> = roots.iter().map(|(index, _)| *index).collect();
            if indexes.len() != roots.len() {
                self.world.checkers.broken(format!("two hosts applied different records: {roots:?}"));
            }
        }
        if !seen.iter().any(|roots| roots.len() == 1) {
            self.world.checkers.broken(format!("the records did not converge: {:?}", seen.last()));
        }
        self.committee_is_whole();
    }

    /// In peace the committee has all its seats, each holds a share of the mesh key, and the key is the first one.
    fn committee_is_whole(&mut self) {
        self.dealing_ends();
        let Some(committee) = self.committee_now() else { return };
        let (voters, wanted) = (committee.voters(), wanted(self.hosts, self.committee));
        if voters.len() != wanted || committee.key.holders != voters {
            let (seats, holders) = (committee.seats.len(), committee.key.holders.len());
            self.not_live.push(format!("{seats} seats and {holders} shares of the mesh key, and not {wanted}"));
        }
        let key = *committee.key.mesh_key().public();
        // Older shares are erased: whoever finds a disk finds nothing that signs.
        for (name, old) in self.old_shares(&committee) {
            self.world.checkers.broken(format!("{name} has {old} old shares of the mesh key at rest"));
        }
        if self.pins.as_ref().and_then(|pins| pins.key).is_some_and(|pinned| pinned != key) {
            self.world.checkers.broken("P4: the mesh key changed".to_owned());
        }
    }

    fn committee_now(&self) -> Option<Committee> {
        let running = self.world.machines.iter().find_map(|machine| machine.running.as_ref());
        running.and_then(|running| running.host.records().committee().cloned())
    }

    /// Who has how many rows of other dealings of the mesh key at rest.
    fn old_shares(&self, committee: &Committee) -> Vec<(String, usize)> {
        let current = committee.key.key_epoch.to_be_bytes();
        let old = |machine: &Machine| {
            let rows = machine.disk.saved().keys;
            (machine.name.clone(), rows.iter().filter(|(key, _)| key.get(..8) != Some(&current)).count())
        };
        self.world.machines.iter().map(old).filter(|(_, old)| *old > 0).collect()
    }

    /// The key moves in peace too, when its shares are old; what that makes superfluous goes once the mesh key has confirmed
    /// the records twice. A key that moves without end is not waited for.
    fn dealing_ends(&mut self) {
        for _ in 0..DEALING_EPOCHS {
            let running = self.world.machines.iter().find_map(|machine| machine.running.as_ref());
            let Some(round) = running.map(|running| running.host.records().round().0) else { return };
            let is_over = |committee: &Committee| {
                committee.dealing.is_none() && round > committee.dealt.0.saturating_add(ERASED_EPOCHS)
            };
            if self.committee_now().as_ref().is_none_or(is_over) {
                return;
            }
            self.settle(self.world.scenario.epoch_ms);
        }
        self.not_live.push(format!("the mesh key was still moving after {DEALING_EPOCHS} epochs of peace"));
    }

    /// How far each host is, and what it has applied.
    fn roots(&self) -> BTreeSet<(u64, Digest)> {
        self.world
            .machines
            .iter()
            .filter_map(|machine| machine.running.as_ref())
            .map(|running| (running.host.records().applied(), running.host.records().root()))
            .collect()
    }

    /// With the faults over, a put through any host must succeed.
    pub(crate) fn puts_work_again(&mut self) {
        for gateway in 0..self.hosts {
            self.begin_put(gateway);
            self.settle(PEACE_MS / 3);
            if !self.deposits.last().is_some_and(|deposit| deposit.acknowledged) {
                self.not_live.push(format!("a put through host {gateway} is not acknowledged in peace"));
            }
        }
    }

    pub(crate) fn read_all(&mut self) {
        let reader = self.reader();
        for number in 0..self.deposits.len() {
            let Some(deposit) = self.deposits.get(number).cloned() else { continue };
            let read = match self.ask(reader, LocalCommand::Get(deposit.id), PEACE_MS) {
                Some(Ok(LocalReply::Secret(secret))) => Ok(secret.expose().to_vec()),
                Some(Ok(_)) => Err("another answer".to_owned()),
                Some(Err(failure)) => Err(failure.to_string()),
                None => Err("no answer".to_owned()),
            };
            self.world.checkers.read_back(&deposit, read.as_deref().map_err(Clone::clone));
        }
    }

    /// Whom nobody allows, and whose measurements changed, is refused by everybody.
    pub(crate) fn strangers_get_nothing(&mut self) {
        let Some(deposit) = self.deposits.iter().find(|deposit| deposit.acknowledged).cloned() else { return };
        let stranger = self.stranger();
        match self.ask(stranger, LocalCommand::Get(deposit.id), PEACE_MS) {
            Some(Err(Failure::Refused(refused))) if refused.check == Check::Policy => {}
            other => self.world.checkers.broken(format!("P2: a stranger was not refused by the policy: {other:?}")),
        }
        let reader = self.reader();
        if let Some(machine) = self.world.machines.get_mut(reader) {
            machine.tpm.extend(11);
        }
        self.settle(PEACE_MS / 3);
        self.world.checkers.strangers.insert(reader);
        match self.ask(reader, LocalCommand::Get(deposit.id), PEACE_MS) {
            Some(Err(Failure::Refused(refused))) if refused.check == Check::Pcr(11) => {}
            other => self.world.checkers.broken(format!("P2: a reader that changed was not refused for it: {other:?}")),
        }
    }
}

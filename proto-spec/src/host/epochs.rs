//! The beat of a host: the coordinator begins each epoch, everybody verifies it and quotes over it.

use super::{Action, ActionId, Actions, Host, Lane, Report, Table, TpmReply, TpmRequest, TpmUse, Write};
use crate::epoch::{EpochVerified, SignedEpoch};
use crate::error::{LocalFault, Misbehaved};
use crate::suite::symmetric;
use crate::types::{Beacon, MeshId, Now, Purpose, Round, SecretBytes, Time, TransportKey};
use crate::wire::{self, Message, Presence};

impl Host {
    /// As the coordinator: signs the epoch of the present round. Skipped rounds stay skipped. What it signs follows from
    /// its key and the round, so that signing again after a restart gives the same bytes: there are never two epochs
    /// of one round, and a clock that ran ahead once locks nobody out.
    pub(super) fn tick_epoch(&mut self, now: Now, actions: &mut Actions) {
        if !self.coordinates() || self.disk_failed {
            return;
        }
        let (Some(calendar), Some(mesh)) = (self.ground.calendar, self.ground.records.mesh().copied()) else { return };
        let round = calendar.round_at(now.wall_ms);
        if self.signed_round == Some(round) {
            return;
        }
        let beacon = beacon_of(&self.own.identity.coordinator, &mesh, round);
        let suite = self.ground.suite.clone();
        let secret = &self.own.identity.coordinator;
        let Some(epoch) = SignedEpoch::sign(suite.as_ref(), &mesh, secret, round, beacon) else { return };
        self.signed_round = Some(round);
        self.take_epoch(now, &epoch, actions);
        self.announce_to_all(now, actions);
    }

    /// As the coordinator: tells every member the epoch, the newest record, and who is where.
    fn announce_to_all(&mut self, now: Now, actions: &mut Actions) {
        let Some(message) = self.announcement(now) else { return };
        self.presence = match &message {
            Message::EpochAnnounce { presence, .. } => by_host(presence),
            _ => return,
        };
        let members: Vec<TransportKey> =
            self.ground.records.members().map(|member| member.record().transport).collect();
        for to in members.into_iter().filter(|key| *key != self.own.transport) {
            self.send(Lane::Ring, to, message.clone(), actions);
        }
    }

    /// As the coordinator: the announcement of the current epoch, if there is one.
    pub(super) fn announcement(&self, now: Now) -> Option<Message> {
        let view = self.ground.view(now)?;
        let epoch = view.epochs.current(view.calendar, now)?.signed().clone();
        let presence = self.coordinator.presence(view);
        Some(Message::EpochAnnounce { epoch, records: self.ground.records.applied(), presence })
    }

    /// An announcement came.
    pub(super) fn on_announce(
        &mut self,
        now: Now,
        from: TransportKey,
        epoch: &SignedEpoch,
        records: u64,
        presence: &[Presence],
        actions: &mut Actions,
    ) {
        if self.membership.is_none() {
            return; // admitted a moment ago, and not told yet
        }
        if !self.is_coordinator(&from) {
            actions.push(Action::Disconnect { peer: from, why: Misbehaved::NotCoordinator });
            return;
        }
        if self.ground.view(now).is_some() && !self.take_epoch(now, epoch, actions) {
            actions.push(Action::Disconnect { peer: from, why: Misbehaved::ForgedEpoch });
            return;
        }
        self.presence = by_host(presence);
        // A page that is under way brings what is missing, or its time runs out.
        let applied = self.ground.records.applied();
        let on_its_way = self.pulled.is_some_and(|(after, until)| after == applied && now.monotonic < until);
        if records > applied && !on_its_way {
            self.pull(now, actions);
        }
    }

    /// Verifies an epoch and, where it is new, quotes over it. False where its signature does not hold.
    pub(super) fn take_epoch(&mut self, now: Now, epoch: &SignedEpoch, actions: &mut Actions) -> bool {
        let Some(view) = self.ground.view(now) else { return true };
        let newest = view.epochs.current(view.calendar, now).map(EpochVerified::round);
        if newest >= Some(epoch.round) {
            return true;
        }
        let Some(key) = view.records.coordinator_key() else { return true };
        let Some(verified) = EpochVerified::check(view.suite, view.mesh, key, epoch) else { return false };
        let calendar = *view.calendar;
        if !self.ground.epochs.accept(&calendar, now, verified.clone()) {
            return true;
        }
        actions.push(Action::Report(Report::Epoch(epoch.round)));
        if !self.coordinates() {
            actions.push(Action::Persist { lane: Lane::Ring, writes: vec![epoch_row(epoch)] });
        }
        self.pull_at = now.monotonic.plus(calendar.until_next(now.wall_ms) + calendar.epoch_ms() / 2);
        // A chip that is slower than an epoch finishes what it began: that quote is still current for a while.
        if self.attester.is_waiting() {
            self.attester.ask_again_at_once();
        } else {
            self.quote(now, &verified, actions);
        }
        true
    }

    fn quote(&mut self, now: Now, epoch: &EpochVerified, actions: &mut Actions) {
        let Some(view) = self.ground.view(now) else { return };
        let Some(genesis) = view.records.genesis() else { return };
        let pcrs = genesis.genesis().pcrs.clone();
        let qualifying = self.attester.begin(view, self.own.attester_keys(), &mut self.generator, epoch);
        self.ask_tpm(TpmUse::Evidence, TpmRequest::Quote { pcrs, qualifying }, actions);
    }

    pub(super) fn ask_tpm(&mut self, purpose: TpmUse, request: TpmRequest, actions: &mut Actions) {
        // One request per purpose: what a late answer is for has passed.
        self.tpm.retain(|_, other| *other != purpose);
        let id = self.fresh_id();
        self.tpm.insert(id, purpose);
        actions.push(Action::Tpm { id, request });
    }

    /// The TPM failed before: asks it again for the epoch that is current now.
    pub(super) fn tick_quote(&mut self, now: Now, actions: &mut Actions) {
        if self.attester.is_waiting() || self.attester.retry_at().is_none_or(|at| now.monotonic < at) {
            return;
        }
        let Some(view) = self.ground.view(now) else { return };
        match view.epochs.current(view.calendar, now).cloned() {
            Some(epoch) => self.quote(now, &epoch, actions),
            None => self.attester.failed(now),
        }
    }

    /// The TPM answered.
    pub(super) fn on_tpm(&mut self, now: Now, id: ActionId, reply: Option<TpmReply>, actions: &mut Actions) {
        let Some(purpose) = self.tpm.remove(&id) else { return };
        match (purpose, reply) {
            (TpmUse::Evidence, Some(TpmReply::Quote(quote))) => self.on_own_quote(now, quote, actions),
            (TpmUse::Evidence, _) => {
                self.attester.failed(now);
                actions.push(Action::Report(Report::Fault(LocalFault::Tpm)));
            }
            (TpmUse::Join, reply) => self.on_join_tpm(now, reply, actions),
        }
    }

    fn on_own_quote(&mut self, now: Now, quote: crate::attest::quote::Quote, actions: &mut Actions) {
        let Some(view) = self.ground.view(now) else { return };
        let Some(evidence) = self.attester.finish(view, self.own.attester_keys(), quote) else { return };
        let message = Message::EvidenceAnnounce { evidence, address: self.config.address.clone() };
        self.send_to_coordinator(Lane::Ring, message, actions);
    }

    /// Nothing was heard of this round by its middle: asks the coordinator.
    pub(super) fn tick_pull(&mut self, now: Now, actions: &mut Actions) {
        if self.membership.is_none() || self.coordinates() || now.monotonic < self.pull_at {
            return;
        }
        self.pull(now, actions);
    }

    /// Asks the coordinator for the records that are not here yet.
    pub(super) fn pull(&mut self, now: Now, actions: &mut Actions) {
        if self.coordinates() {
            return;
        }
        let again_ms = self.ground.calendar.map_or(crate::limits::JOIN_RETRY_MS, |calendar| calendar.epoch_ms() / 2);
        self.pull_at = Time(now.monotonic.0.saturating_add(again_ms));
        let after = self.ground.records.applied();
        self.pulled = Some((after, self.pull_at));
        self.send_to_coordinator(Lane::Direct, Message::RecordsPull { after }, actions);
    }

    pub(super) fn is_coordinator(&self, from: &TransportKey) -> bool {
        self.membership.as_ref().is_some_and(|membership| membership.pins.coordinator == *from)
    }
}

/// 32 bytes that nobody without the coordinator's key foretells.
fn beacon_of(secret: &SecretBytes, mesh: &MeshId, round: Round) -> Beacon {
    let bytes = symmetric::derive(secret, Purpose::Epoch, &[&mesh.0, &round.0.to_be_bytes()]);
    Beacon::from_slice(bytes.expose()).unwrap_or(Beacon::ZERO)
}

fn epoch_row(epoch: &SignedEpoch) -> Write {
    Write { table: Table::Epoch, key: b"newest".to_vec(), value: Some(wire::encode(epoch)) }
}

fn by_host(presence: &[Presence]) -> std::collections::BTreeMap<crate::types::HostId, Presence> {
    presence.iter().map(|one| (one.host, one.clone())).collect()
}

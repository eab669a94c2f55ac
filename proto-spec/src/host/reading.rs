//! What this host does for a local client that reads.

use super::{Action, ActionId, Actions, Host, Lane, LocalId, LocalReply};
use crate::credential::shard_map::MapHolder;
use crate::error::{Check, Failure, Refused, Subject};
use crate::holder::Release;
use crate::instance::{Next, Reading, SILENCE_MS, Stage};
use crate::limits::{REQUEST_MS, REQUESTS_OPEN_MAX};
use crate::types::{CredentialId, HostId, Now, RequestId, SecretBytes, TransportKey};
use crate::wire::{Message, Shown};

impl Host {
    /// Reads a credential: asks the coordinator for the map.
    pub(super) fn get(&mut self, now: Now, id: LocalId, credential: CredentialId, actions: &mut Actions) {
        if self.open_requests() >= REQUESTS_OPEN_MAX {
            return Self::reply(id, Err(Failure::Busy), actions);
        }
        let Some(view) = self.view(now) else {
            return Self::reply(id, Err(self.no_records()), actions);
        };
        let round = match self.attester.current(view) {
            Some(evidence) => evidence.evidence.round,
            None if view.epochs.current(view.calendar, now).is_none() => {
                return Self::reply(id, Err(Failure::NoLeader), actions);
            }
            None => {
                let refused = Refused::new(Check::EvidenceMissing, Subject::Host(self.own.host));
                let refused = self.refusal(refused, actions);
                return Self::reply(id, Err(Failure::Refused(refused)), actions);
            }
        };
        let request = RequestId(self.generator.bytes());
        let mut reading = Reading::new(credential, self.own.host, round, now.monotonic.plus(REQUEST_MS));
        reading.retry_at = Some(now.monotonic.plus(SILENCE_MS));
        self.readings.insert(request, (reading, id));
        self.ask_map(now, request, credential, actions);
    }

    fn ask_map(&mut self, now: Now, request: RequestId, id: CredentialId, actions: &mut Actions) {
        let Some(shown) = self.shown(now) else { return };
        self.send_to_leader(Message::MapRequest { request, id, shown }, actions);
    }

    /// The newest evidence and its epoch, to show.
    pub(super) fn shown(&self, now: Now) -> Option<Box<Shown>> {
        let view = self.view(now)?;
        let evidence = self.attester.current(view)?;
        let epoch = view.epochs.current_at(view.calendar, now, evidence.evidence.round)?;
        Some(Box::new(Shown { epoch: epoch.signed().clone(), evidence: evidence.clone() }))
    }

    pub(super) fn on_map_reply(&mut self, request: RequestId, file: Vec<u8>, actions: &mut Actions) {
        if let Some((reading, _)) = self.readings.get_mut(&request) {
            if matches!(reading.stage, Stage::AwaitingMap) {
                reading.stage = Stage::AwaitingOpening;
                let id = self.fresh_id();
                self.opening.insert(id, request);
                actions.push(Action::OpenMap { id, file });
            }
        } else {
            self.answered(&request, LocalReply::OwnerMap(file), actions);
        }
    }

    pub(super) fn on_map_opened(&mut self, now: Now, id: ActionId, plaintext: Option<Vec<u8>>, actions: &mut Actions) {
        let Some(request) = self.opening.remove(&id) else { return };
        let Some(view) = self.ground.view(now, self.header.as_ref()) else { return };
        let Some((reading, _)) = self.readings.get_mut(&request) else { return };
        let opened = plaintext.ok_or(Check::HeadForm).and_then(|bytes| reading.map_opened(view, &bytes));
        match opened {
            Ok(holders) => self.ask_shares(now, request, holders, actions),
            Err(check) => {
                let refused = self.refusal(Refused::new(check, Subject::Request), actions);
                self.end_reading(&request, Err(Failure::Refused(refused)), actions);
            }
        }
    }

    fn ask_shares(&mut self, now: Now, request: RequestId, holders: Vec<MapHolder>, actions: &mut Actions) {
        let Some((reading, _)) = self.readings.get_mut(&request) else { return };
        let (id, Some(generation)) = (reading.id, reading.generation()) else { return };
        let Some(shown) = self.shown(now) else { return };
        if let Some((reading, _)) = self.readings.get_mut(&request) {
            reading.rounds.insert(shown.evidence.evidence.round);
        }
        for holder in holders {
            let message = Message::ShareRequest { request, id, generation, shown: shown.clone() };
            self.send_to_holder(&holder, message, actions);
        }
    }

    /// What a host says of where it is goes before what the map says, which is the leader's word.
    fn send_to_holder(&self, holder: &MapHolder, message: Message, actions: &mut Actions) {
        let said = self.book.word_of(&holder.transport).map(|word| &word.address);
        let (to, address) = (holder.transport, said.unwrap_or(&holder.address).clone());
        actions.push(Action::Send { lane: Lane::Direct, to, address, message: Box::new(message) });
    }

    pub(super) fn on_share_reply(
        &mut self,
        now: Now,
        from: &TransportKey,
        request: RequestId,
        release: &Release,
        actions: &mut Actions,
    ) {
        let Some(view) = self.ground.view(now, self.header.as_ref()) else { return };
        let Some((reading, _)) = self.readings.get_mut(&request) else { return };
        let Some(holder) = reading.holder_by_transport(from) else { return };
        let sessions: Vec<&SecretBytes> =
            reading.rounds.iter().flat_map(|round| self.attester.sessions_of(*round)).collect();
        let next = reading.share(view, &sessions, holder, release);
        self.follow_reading(&request, next, actions);
    }

    pub(super) fn on_payload_reply(
        &mut self,
        from: &TransportKey,
        request: RequestId,
        pieces: &[Vec<u8>],
        actions: &mut Actions,
    ) {
        let Some((reading, _)) = self.readings.get_mut(&request) else { return };
        let Some(holder) = reading.holder_by_transport(from) else { return };
        let next = reading.payload(holder, pieces);
        self.follow_reading(&request, next, actions);
    }

    /// The coordinator refused the map, or a holder its share.
    pub(super) fn refused_reading(
        &mut self,
        now: Now,
        from: &TransportKey,
        request: &RequestId,
        refused: Refused,
        actions: &mut Actions,
    ) {
        let is_coordinator = self.is_seated(from);
        let Some((reading, _)) = self.readings.get_mut(request) else { return };
        if matches!(reading.stage, Stage::AwaitingMap | Stage::AwaitingOpening) {
            if !is_coordinator {
                return;
            }
            if refused.check.is_passing() {
                return; // the leader is a step behind, or leads no more: it is asked again
            }
            let unknown = refused.check == Check::Unknown;
            let failure = if unknown { Failure::NotFound } else { Failure::Refused(refused) };
            return self.end_reading(request, Err(failure), actions);
        }
        let Some(holder) = reading.holder_by_transport(from) else { return };
        let next = reading.refused(now.monotonic, holder, refused);
        self.follow_reading(request, next, actions);
    }

    pub(super) fn reading_unreachable(&mut self, now: Now, to: &TransportKey, actions: &mut Actions) {
        let requests: Vec<RequestId> = self.readings.keys().copied().collect();
        for request in requests {
            let Some((reading, _)) = self.readings.get_mut(&request) else { continue };
            let holder: Option<HostId> = reading.holder_by_transport(to);
            if let Some(holder) = holder {
                let next = reading.unreachable(holder, now.monotonic);
                self.follow_reading(&request, next, actions);
            }
        }
    }

    fn follow_reading(&mut self, request: &RequestId, next: Next, actions: &mut Actions) {
        match next {
            Next::Wait => {}
            Next::Again => {
                if let Some(reading) = self.readings.remove(request) {
                    self.readings.insert(RequestId(self.generator.bytes()), reading);
                }
            }
            Next::Fail(failure) => self.end_reading(request, Err(failure), actions),
            Next::Done(secret) => self.end_reading(request, Ok(LocalReply::Secret(secret)), actions),
            Next::AskPayload { holder, head } => {
                let Some((reading, _)) = self.readings.get(request) else { return };
                let message = Message::PayloadRequest { request: *request, id: reading.id, head };
                self.send_to_holder(&holder, message, actions);
            }
        }
    }

    fn end_reading(&mut self, request: &RequestId, reply: Result<LocalReply, Failure>, actions: &mut Actions) {
        if let Some((_, id)) = self.readings.remove(request) {
            Self::reply(id, reply, actions);
        }
    }

    pub(super) fn tick_readings(&mut self, now: Now, actions: &mut Actions) {
        let requests: Vec<RequestId> = self.readings.keys().copied().collect();
        for request in requests {
            let Some((reading, _)) = self.readings.get_mut(&request) else { continue };
            if now.monotonic >= reading.deadline {
                let failure = reading.expired();
                self.end_reading(&request, Err(failure), actions);
            } else if reading.retry_at.is_some_and(|at| now.monotonic >= at) {
                if let Some(next) = reading.look_again(now.monotonic) {
                    self.follow_reading(&request, next, actions);
                    continue;
                }
                let holders = reading.take_retries();
                reading.retry_at = Some(now.monotonic.plus(SILENCE_MS));
                let id = reading.id;
                match reading.stage {
                    Stage::AwaitingMap => self.ask_map(now, request, id, actions),
                    Stage::AwaitingShares => self.ask_shares(now, request, holders, actions),
                    Stage::AwaitingPayload { .. } => {
                        let next = reading.payload_again();
                        self.follow_reading(&request, next, actions);
                    }
                    Stage::AwaitingOpening => {}
                }
            }
        }
    }
}

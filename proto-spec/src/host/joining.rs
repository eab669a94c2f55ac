//! A host that becomes a member: of a mesh that it founds, or of one that it joins.

use super::{Actions, Host, Lane, LocalId, LocalReply, Membership, Report, TpmReply, TpmRequest, TpmUse};
use crate::attest::enroll::JoinerKeys;
use crate::attest::policy::DEFAULT_PCRS;
use crate::attest::tpm::CredentialBlob;
use crate::cms::records::Command;
use crate::epoch::Calendar;
use crate::error::{Check, Failure, LocalFault, Refused, Subject};
use crate::genesis::{GenesisVerified, SignedGenesis};
use crate::host::Action;
use crate::joining::{Joining, Stage};
use crate::limits::ENROLMENT_MS;
use crate::ticket::{Pins, SignedTicket};
use crate::types::{Now, TransportKey};
use crate::wire::{Address, EnrolAnswer, Message};
use serde_bytes::ByteBuf;

const ALREADY: &str = "this host belongs to a mesh already";

impl Host {
    /// Founds a mesh, then joins it by the very path that every later member takes.
    pub(super) fn found(
        &mut self,
        now: Now,
        id: LocalId,
        genesis: &SignedGenesis,
        ticket: SignedTicket,
        actions: &mut Actions,
    ) {
        let verified = match GenesisVerified::check(self.ground.suite.as_ref(), genesis) {
            Ok(verified) => verified,
            Err(_) => return Self::reply(id, Err(Failure::Local("the genesis does not hold")), actions),
        };
        let founded_before = self.ground.records.mesh().copied();
        if founded_before.is_some_and(|mesh| mesh != *verified.mesh()) || self.is_member() {
            return Self::reply(id, Err(Failure::Membership(ALREADY)), actions);
        }
        let pins = Pins {
            mesh: *verified.mesh(),
            coordinator: self.own.transport,
            coordinator_key: self.own.coordinator.0,
            coordinator_proof: self.own.coordinator.1,
        };
        if founded_before.is_none() {
            let command = Command::Found {
                genesis: genesis.clone(),
                coordinator: pins.coordinator,
                coordinator_key: pins.coordinator_key,
                coordinator_proof: pins.coordinator_proof,
            };
            self.remember(Membership { pins, address: self.config.address.clone() }, actions);
            if let Err(check) = self.commit(&command, actions) {
                let refused = self.refusal(Refused::new(check, Subject::Request), actions);
                return Self::reply(id, Err(Failure::Refused(refused)), actions);
            }
            self.ground.calendar = Some(Calendar::of(verified.genesis()));
        }
        self.join(now, id, ticket, self.config.address.clone(), actions);
    }

    /// Joins a mesh with a ticket.
    pub(super) fn join(
        &mut self,
        now: Now,
        id: LocalId,
        ticket: SignedTicket,
        address: Address,
        actions: &mut Actions,
    ) {
        if self.is_member() {
            return Self::reply(id, Err(Failure::Membership(ALREADY)), actions);
        }
        if self.joining.is_some() {
            return Self::reply(id, Err(Failure::Membership("this host is joining already; wait a minute")), actions);
        }
        match Joining::new(ticket, address, now.monotonic.plus(ENROLMENT_MS)) {
            Err(check) => {
                let refused = self.refusal(Refused::new(check, Subject::Request), actions);
                Self::reply(id, Err(Failure::Refused(refused)), actions);
            }
            Ok(joining) => {
                self.joining = Some((joining, id));
                let pcrs = self.measured_pcrs();
                self.ask_tpm(TpmUse::Join, TpmRequest::ReadPcrs(pcrs), actions);
            }
        }
    }

    fn is_member(&self) -> bool {
        self.ground.records.member(&self.own.host).is_some()
            || self.membership.as_ref().is_some_and(|membership| membership.pins.coordinator != self.own.transport)
    }

    /// A joiner cannot know the genesis yet and measures the default selection.
    fn measured_pcrs(&self) -> Vec<u8> {
        let of_genesis = self.ground.records.genesis().map(|genesis| genesis.genesis().pcrs.clone());
        of_genesis.unwrap_or_else(|| DEFAULT_PCRS.to_vec())
    }

    pub(super) fn on_join_tpm(&mut self, now: Now, reply: Option<TpmReply>, actions: &mut Actions) {
        let Some((joining, _)) = &mut self.joining else { return };
        match (joining.stage, reply) {
            (Stage::AwaitingPcrs, Some(TpmReply::Pcrs(pcrs))) => {
                let keys = JoinerKeys {
                    eks: self.own.identity.eks.clone(),
                    intermediates: self.own.identity.intermediates.iter().cloned().map(ByteBuf::from).collect(),
                    ak: self.own.identity.ak.clone(),
                    transport: self.own.transport,
                    vote: self.own.vote.0,
                    vote_proof: self.own.vote.1,
                    map_recipient: self.own.identity.map_recipient.clone(),
                    pcrs,
                };
                let hello = joining.hello(keys, now.monotonic);
                self.send_joining(Message::EnrolHello(hello), actions);
            }
            (Stage::AwaitingSecrets, Some(TpmReply::Secrets(secrets))) => {
                if let Some(qualifying) = joining.opened(&secrets) {
                    let pcrs = self.measured_pcrs();
                    self.ask_tpm(TpmUse::Join, TpmRequest::Quote { pcrs, qualifying }, actions);
                }
            }
            (Stage::AwaitingQuote, Some(TpmReply::Quote(quote))) => {
                joining.answered(now.monotonic);
                self.send_joining(Message::EnrolAnswer(EnrolAnswer { quote }), actions);
            }
            (_, None) => {
                actions.push(Action::Report(Report::Fault(LocalFault::Tpm)));
                self.end_joining(Failure::Local("the TPM did not answer; look at its device and try again"), actions);
            }
            _ => {}
        }
    }

    fn send_joining(&self, message: Message, actions: &mut Actions) {
        if let Some((joining, _)) = &self.joining {
            let (to, address) = (joining.ticket.pins.coordinator, joining.address.clone());
            actions.push(Action::Send { lane: Lane::Records, to, address, message: Box::new(message) });
        }
    }

    fn joins_with(&self, from: &TransportKey) -> bool {
        self.joining.as_ref().is_some_and(|(joining, _)| joining.ticket.pins.coordinator == *from)
    }

    pub(super) fn on_challenge(&mut self, from: &TransportKey, blobs: Vec<CredentialBlob>, actions: &mut Actions) {
        if !self.joins_with(from) {
            return;
        }
        if let Some((joining, _)) = &mut self.joining
            && joining.challenged()
        {
            self.ask_tpm(TpmUse::Join, TpmRequest::Activate(blobs), actions);
        }
    }

    pub(super) fn on_admitted(&mut self, now: Now, from: &TransportKey, actions: &mut Actions) {
        if !self.joins_with(from) {
            return;
        }
        let Some((joining, _)) = &self.joining else { return };
        if self.membership.is_none() {
            let membership = Membership { pins: joining.ticket.pins.clone(), address: joining.address.clone() };
            self.remember(membership, actions);
        }
        // The answer to the person waits until this host has seen its own record.
        self.pull(now, actions);
    }

    pub(super) fn on_enrol_refused(&mut self, from: &TransportKey, refused: Refused, actions: &mut Actions) {
        if !self.joins_with(from) {
            return;
        }
        // The challenge was forgotten meanwhile: the next hello, which is due, gets another.
        let again = self.joining.as_ref().is_some_and(|(joining, _)| joining.retry_at.is_some());
        if refused.check == Check::Challenge && again {
            return;
        }
        self.end_joining(Failure::Refused(refused), actions);
    }

    /// This host's own record was applied.
    pub(super) fn joined(&mut self, actions: &mut Actions) {
        actions.push(Action::Report(Report::Joined));
        if let Some((_, id)) = self.joining.take() {
            let reply = Ok(LocalReply::Joined(Box::new(self.status(None))));
            actions.push(Action::Reply { lane: Lane::Records, id, reply });
        }
    }

    fn end_joining(&mut self, failure: Failure, actions: &mut Actions) {
        if let Some((_, id)) = self.joining.take() {
            Self::reply(id, Err(failure), actions);
        }
    }

    pub(super) fn tick_joining(&mut self, now: Now, actions: &mut Actions) {
        let Some((joining, _)) = &mut self.joining else { return };
        if now.monotonic >= joining.deadline {
            return self.end_joining(Failure::NoCoordinator, actions);
        }
        if joining.retry_at.is_some_and(|at| now.monotonic >= at)
            && let Some(hello) = joining.hello_again(now.monotonic)
        {
            self.send_joining(Message::EnrolHello(hello), actions);
        }
    }

    /// As the coordinator: the refusal that a joiner is told.
    pub(super) fn refuse_joiner(&mut self, to: TransportKey, check: Check, actions: &mut Actions) {
        let refused = self.refusal(Refused::new(check, Subject::Request), actions);
        actions.push(Action::Send {
            lane: Lane::Direct,
            to,
            address: Address::default(),
            message: Box::new(Message::EnrolRefused(refused)),
        });
    }
}

//! A host that becomes a member: of a mesh that it joins, or, while that is forming, founds with two others.

use super::gathering::{Forming, no_longer_forming};
use super::{Actions, Host, Lane, LocalId, LocalReply, Membership, Report, TpmReply, TpmRequest, TpmUse};
use crate::attest::enroll::JoinerKeys;
use crate::attest::policy::DEFAULT_PCRS;
use crate::attest::tpm::CredentialBlob;
use crate::error::{Check, Failure, LocalFault, Refused, Subject};
use crate::host::Action;
use crate::joining::Joining;
use crate::limits::{CONTACTS_MAX, ENROLMENT_MS};
use crate::ticket::{Contact, Pins, SignedTicket};
use crate::types::{BlsSignature, MeshId, Now, RequestId, ShareIndex, TransportKey};
use crate::wire::{Address, EnrolAnswer, Message};
use serde_bytes::ByteBuf;

pub(super) const ALREADY: &str = "this host belongs to a mesh already";

impl Host {
    /// Joins a mesh with a ticket. An address that a person names is that of the host that wrote the ticket.
    pub(super) fn join(
        &mut self,
        now: Now,
        id: LocalId,
        ticket: SignedTicket,
        address: Option<Address>,
        actions: &mut Actions,
    ) {
        let founds = self.forming.as_ref().is_some_and(|forming| !forming.may_take(&ticket));
        if self.is_in(&ticket) || founds {
            return Self::reply(id, Err(Failure::Membership(ALREADY)), actions);
        }
        if self.joining.as_ref().is_some_and(|joining| !joining.waits()) {
            return Self::reply(id, Err(Failure::Membership("this host is joining already; wait a minute")), actions);
        }
        let request = RequestId(self.generator.bytes());
        match Joining::new(ticket, request, self.config.address.clone(), Some(now.monotonic.plus(ENROLMENT_MS))) {
            Err(check) => {
                let refused = self.refusal(Refused::new(check, Subject::Request), actions);
                Self::reply(id, Err(Failure::Refused(refused)), actions);
            }
            Ok(mut joining) => {
                if let (Some(address), Some(contact)) = (address, joining.contacts.first_mut()) {
                    contact.address = address;
                }
                // The ticket with which this host waits to found may be past. Its row stays until the new one comes to
                // something; of another mesh it says and hears nothing meanwhile.
                let is_other = |forming: &Forming| *forming.genesis.mesh() != joining.ticket.pins.mesh;
                if self.forming.as_deref().is_some_and(is_other) {
                    self.abandon_attempt();
                }
                self.joining = Some(joining);
                if let Some(waiting) = self.join_reply.replace(id) {
                    let failure = Failure::Membership("another ticket took the place of this one");
                    Self::reply(waiting, Err(failure), actions);
                }
                self.measure(actions);
            }
        }
    }

    /// Whether this host is in a mesh already. That one of its committee said so is not enough: where no record says it, the
    /// same mesh may be joined again.
    fn is_in(&self, ticket: &SignedTicket) -> bool {
        let same = |mesh: &MeshId| ticket.ticket().is_some_and(|ticket| ticket.pins.mesh == *mesh);
        let is_known = self.own_member().is_some() || self.ground.records.roll().departed(&self.own.host).is_some();
        self.membership.as_ref().is_some_and(|membership| is_known || !same(&membership.pins.mesh))
    }

    /// Asks the TPM for what it measured: the good values from now on.
    pub(super) fn measure(&mut self, actions: &mut Actions) {
        let pcrs = self.measured_pcrs();
        self.ask_tpm(TpmUse::Measure, TpmRequest::ReadPcrs(pcrs), actions);
    }

    /// A joiner cannot know the genesis yet and measures the default selection.
    fn measured_pcrs(&self) -> Vec<u8> {
        let genesis = self.genesis().filter(|genesis| *genesis.mesh() == self.mesh());
        genesis.map_or_else(|| DEFAULT_PCRS.to_vec(), |genesis| genesis.genesis().pcrs.clone())
    }

    pub(super) fn on_measured(&mut self, now: Now, reply: Option<TpmReply>, actions: &mut Actions) {
        let Some(TpmReply::Pcrs(pcrs)) = reply else {
            actions.push(Action::Report(Report::Fault(LocalFault::Tpm)));
            if self.forming.is_some() && self.joining.as_ref().is_none_or(Joining::waits) {
                self.measure_at = Some(now.monotonic.plus(crate::limits::QUOTE_RETRY_MS));
                return;
            }
            return self
                .end_joining(Failure::Local("the TPM did not answer; look at its device and try again"), actions);
        };
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
        if let Some(joining) = &mut self.joining {
            joining.measured(keys);
            self.send_joining(now, actions);
        } else if let Some(forming) = &mut self.forming {
            forming.keys = Some(keys);
        }
    }

    fn send_joining(&mut self, now: Now, actions: &mut Actions) {
        let messages = self.joining.as_mut().map(|joining| joining.messages(now.monotonic));
        Self::send_all(messages.unwrap_or_default(), actions);
    }

    fn send_all(messages: Vec<(Contact, Message)>, actions: &mut Actions) {
        for (Contact { transport, address }, message) in messages {
            actions.push(Action::Send { lane: Lane::Records, to: transport, address, message: Box::new(message) });
        }
    }

    fn joins_with(&self, from: &TransportKey) -> bool {
        self.joining.as_ref().is_some_and(|joining| joining.asks(from))
    }

    /// The committee that checks this joiner.
    pub(super) fn on_named(&mut self, from: &TransportKey, pins: Pins, committee: Vec<Contact>, actions: &mut Actions) {
        if let Some(joining) = self.joining.as_mut()
            && joining.named(from, pins, committee)
        {
            self.circle_changed = true;
            Self::send_all(joining.greetings(), actions);
        }
    }

    pub(super) fn on_challenge(&mut self, from: TransportKey, blobs: Vec<CredentialBlob>, actions: &mut Actions) {
        let is_under_way = self.tpm.values().any(|purpose| *purpose == TpmUse::Challenge(from));
        if let Some(joining) = self.joining.as_mut().filter(|joining| joining.asks(&from) && !is_under_way) {
            joining.challenged(from, blobs);
            self.next_challenge(actions);
        }
    }

    /// One challenge at a time goes to the TPM.
    fn next_challenge(&mut self, actions: &mut Actions) {
        if self.tpm.values().any(|purpose| matches!(purpose, TpmUse::Challenge(_))) {
            return;
        }
        if let Some((from, blobs)) = self.joining.as_mut().and_then(Joining::next_challenge) {
            self.ask_tpm(TpmUse::Challenge(from), TpmRequest::Activate(blobs), actions);
        }
    }

    /// The TPM answered on a challenge: of a founder, or of a committee member.
    pub(super) fn on_challenge_tpm(&mut self, from: TransportKey, reply: Option<TpmReply>, actions: &mut Actions) {
        self.answer_challenge(from, reply, actions);
        self.next_challenge(actions);
    }

    fn answer_challenge(&mut self, from: TransportKey, reply: Option<TpmReply>, actions: &mut Actions) {
        match reply {
            Some(TpmReply::Secrets(secrets)) => {
                let qualifying = match self.founding_digest(&from, &secrets) {
                    Some(digest) => Some(digest),
                    None => self.joining.as_ref().and_then(|joining| joining.opened(&secrets)),
                };
                if let Some(qualifying) = qualifying {
                    let pcrs = self.measured_pcrs();
                    self.ask_tpm(TpmUse::Challenge(from), TpmRequest::Quote { pcrs, qualifying }, actions);
                }
            }
            Some(TpmReply::Quote(quote)) if self.is_founding_with(&from) => {
                self.answer_founder(from, quote, actions);
            }
            Some(TpmReply::Quote(quote)) => {
                let address = self.joining.as_ref().and_then(|joining| {
                    joining.asked().into_iter().find(|contact| contact.transport == from).map(|contact| contact.address)
                });
                let Some(request) = self.joining.as_ref().map(|joining| joining.request) else { return };
                let message = Box::new(Message::EnrolAnswer(EnrolAnswer { request, quote }));
                let address = address.unwrap_or_default();
                actions.push(Action::Send { lane: Lane::Records, to: from, address, message });
            }
            // Asked again by whoever waits for it.
            _ => actions.push(Action::Report(Report::Fault(LocalFault::Tpm))),
        }
    }

    /// A committee member's part of the admission.
    pub(super) fn on_enrol_part(
        &mut self,
        now: Now,
        from: &TransportKey,
        (key_epoch, t): (u64, u8),
        (index, part): (ShareIndex, BlsSignature),
        actions: &mut Actions,
    ) {
        if !self.joins_with(from) {
            return;
        }
        if self.joining.as_mut().is_some_and(|joining| joining.part(*from, key_epoch, t, index, part)) {
            self.send_joining(now, actions);
        }
    }

    pub(super) fn on_admitted(&mut self, now: Now, from: &TransportKey, actions: &mut Actions) {
        // What another joining was told falsely does not stay: where no record says that this host is in, this one counts.
        let pins = self.joining.as_ref().and_then(|joining| joining.pins.as_ref());
        let known = self.membership.as_ref().is_some_and(|membership| Some(&membership.pins) == pins);
        if !self.joins_with(from) || known || self.own_member().is_some() {
            return;
        }
        // Whoever voted says hello again: the founding is shown to it. Either it has a seat to take, or what it voted for
        // never was. Where it is in and nobody shows it, the founding is cut from the log: the state has that seat.
        if self.forming.as_mut().is_some_and(|forming| forming.asks_for_founding()) {
            return self.joining.iter_mut().for_each(Joining::begin_again);
        }
        let Some(joining) = &self.joining else { return };
        let Some(pins) = joining.pins.clone() else { return };
        let contacts = joining.first_asked().into_iter().take(CONTACTS_MAX).collect();
        let mut writes = Vec::new();
        if self.forming.as_ref().is_some_and(|forming| *forming.genesis.mesh() != pins.mesh) {
            self.forming = None; // it waited for another
            writes.push(no_longer_forming());
        }
        writes.push(self.remember(Membership::new(pins, contacts)));
        actions.push(Action::Persist { lane: Lane::Records, writes });
        // The answer to the person waits until this host has seen its own record.
        self.pull(now, actions);
    }

    pub(super) fn on_enrol_refused(
        &mut self,
        from: &TransportKey,
        request: RequestId,
        refused: Refused,
        actions: &mut Actions,
    ) {
        let of_this = self.joining.as_ref().is_some_and(|joining| joining.request == request);
        if !of_this || !self.joins_with(from) {
            return;
        }
        let waits = self.joining.as_ref().is_some_and(Joining::waits);
        match refused.check {
            // The challenge was forgotten meanwhile, or the host is a step behind: the next hello gets another answer.
            Check::Challenge => {}
            Check::Record => self.joining.iter_mut().for_each(Joining::in_vain),
            check if check.is_passing() || waits => {}
            _ => {
                if self.joining.as_mut().is_some_and(|joining| joining.refused(*from)) {
                    self.end_joining(Failure::Refused(refused), actions);
                }
            }
        }
    }

    /// This host's own record was applied.
    pub(super) fn joined(&mut self, actions: &mut Actions) {
        actions.push(Action::Report(Report::Joined));
        self.circle_changed = true;
        self.joining = None;
        if self.forming.take().is_some() {
            actions.push(Action::Persist { lane: Lane::Records, writes: vec![no_longer_forming()] });
        }
        self.reply_joined(actions);
    }

    /// Tells the person at the socket how this host is now.
    pub(super) fn reply_joined(&mut self, actions: &mut Actions) {
        if let Some(id) = self.join_reply.take() {
            let reply = Ok(LocalReply::Joined(Box::new(self.status(None))));
            actions.push(Action::Reply { lane: Lane::Records, id, reply });
        }
    }

    /// A joining came to nothing. Whoever waited to found, with another ticket, waits again.
    pub(super) fn end_joining(&mut self, failure: Failure, actions: &mut Actions) {
        self.joining = None;
        if let Some(id) = self.join_reply.take() {
            Self::reply(id, Err(failure), actions);
        }
        let _gathers_itself = self.wait_to_found();
    }

    pub(super) fn tick_joining(&mut self, now: Now, actions: &mut Actions) {
        if self.measure_at.is_some_and(|at| now.monotonic >= at) {
            self.measure_at = None;
            self.measure(actions);
        }
        // The records that make this host a member were on disk before what ends its joining was: a crash may lie between.
        if self.forming.is_some() && self.own_member().is_some() {
            return self.joined(actions);
        }
        let Some(joining) = &mut self.joining else { return };
        if joining.gives_up_at().is_some_and(|at| now.monotonic >= at) {
            return self.end_joining(Failure::NoLeader, actions);
        }
        if joining.retry_at.is_some_and(|at| now.monotonic >= at) {
            self.send_joining(now, actions);
        }
    }

    /// The refusal that a joiner is told.
    pub(super) fn refuse_joiner(&mut self, to: TransportKey, request: RequestId, check: Check, actions: &mut Actions) {
        let refused = self.refusal(Refused::new(check, Subject::Request), actions);
        self.send_joiner(Lane::Direct, to, Message::EnrolRefused { request, refused }, actions);
    }

    /// Answers somebody who is no member: over the connection on which it came.
    pub(super) fn send_joiner(&self, lane: Lane, to: TransportKey, message: Message, actions: &mut Actions) {
        let address = Address::default();
        actions.push(Action::Send { lane, to, address, message: Box::new(message) });
    }
}

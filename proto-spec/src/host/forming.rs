//! A host whose mesh is forming: gathers founders, or waits for the call; then founds with two others.

use super::committee::RaftRow;
use super::gathering::{Forming, FormingRow, no_longer_forming};
use super::joining::ALREADY;
use super::{Action, Actions, Host, Lane, LocalId, LocalReply, Membership, Report, Table, TpmRequest, TpmUse, Write};
use crate::attest::enroll::answer_digest;
use crate::attest::quote::Quote;
use crate::attest::tpm::CredentialBlob;
use crate::cms::command::{Command, Founding};
use crate::cms::committee::FOUNDERS;
use crate::cms::election::{Hard, LogEntry};
use crate::cms::records::Records;
use crate::error::{Check, Failure, Misbehaved, Refused, Subject};
use crate::founding::{Attempt, Founder, SignedDeal, Vote, share_row};
use crate::genesis::{GenesisVerified, SignedGenesis};
use crate::joining::Joining;
use crate::limits::{FOUNDING_MS, JOIN_RETRY_MS};
use crate::suite::Suite;
use crate::ticket::{Contact, Pins, SignedTicket};
use crate::types::{Digest, HpkePublic, Now, RequestId, SecretBytes, Time, TransportKey};
use crate::wire::{self, EnrolHello, Message};

impl Host {
    /// Begins a mesh: this host gathers the founders.
    pub(super) fn found(&mut self, id: LocalId, genesis: &SignedGenesis, ticket: SignedTicket, actions: &mut Actions) {
        let Ok(verified) = GenesisVerified::check(self.ground.suite.as_ref(), genesis) else {
            return Self::reply(id, Err(Failure::Local("the genesis does not hold")), actions);
        };
        if self.membership.is_some() || self.joining.is_some() || self.forming.is_some() {
            return Self::reply(id, Err(Failure::Membership(ALREADY)), actions);
        }
        if ticket.ticket().is_none_or(|ticket| ticket.pins.mesh != *verified.mesh()) {
            let refused = self.refusal(Refused::new(Check::TicketMesh, Subject::Request), actions);
            return Self::reply(id, Err(Failure::Refused(refused)), actions);
        }
        let forming = Forming::new(verified, ticket, None);
        actions.push(Action::Persist { lane: Lane::Records, writes: vec![forming.row()] });
        self.forming = Some(Box::new(forming));
        self.measure(actions);
        let reply = Ok(LocalReply::Joined(Box::new(self.status(None))));
        actions.push(Action::Reply { lane: Lane::Records, id, reply });
    }

    /// Goes on where a restart interrupted.
    pub(super) fn restore_forming(&mut self, row: &FormingRow) -> Option<()> {
        let genesis = GenesisVerified::check(self.ground.suite.as_ref(), &row.genesis).ok()?;
        let mut forming = Forming::new(genesis, row.ticket.clone(), row.contact.clone());
        forming.voted = row.voted.clone();
        self.forming = Some(Box::new(forming));
        self.measure_at = Some(Time(0));
        row.contact.as_ref().map_or(Some(()), |_| self.wait_to_found())
    }

    /// Asks the gathering host, with the ticket that is at rest, until there is a mesh.
    pub(super) fn wait_to_found(&mut self) -> Option<()> {
        let forming = self.forming.as_ref()?;
        let contact = forming.contact.clone()?;
        let request = RequestId(self.generator.bytes());
        let mut joining = Joining::new(forming.ticket.clone(), request, self.config.address.clone(), None).ok()?;
        joining.contacts = vec![contact];
        self.joining = Some(joining);
        self.measure_at = Some(Time(0));
        Some(())
    }

    /// The mesh that this joiner came to is forming.
    pub(super) fn on_forming(
        &mut self,
        from: &TransportKey,
        genesis: &SignedGenesis,
        known: u8,
        actions: &mut Actions,
    ) {
        let Some(joining) = self.joining.as_ref().filter(|joining| joining.asks(from)) else { return };
        if !joining.waits() && self.begin_waiting(from, genesis, actions).is_none() {
            return;
        }
        if let Some(forming) = &mut self.forming {
            forming.known = known;
        }
        if usize::from(known) < FOUNDERS {
            self.reply_joined(actions);
        }
    }

    /// The host that gathers has taken this joiner's ticket: it waits for the call, also after a restart.
    fn begin_waiting(&mut self, from: &TransportKey, genesis: &SignedGenesis, actions: &mut Actions) -> Option<()> {
        let joining = self.joining.as_mut()?;
        // A ticket that pins the mesh key was written after the founding; who is not in the ticket gathers nobody; and what
        // comes before this ticket was shown is said of another.
        let contact = joining.contacts.iter().find(|contact| contact.transport == *from).cloned()?;
        if joining.ticket.pins.key.is_some() || !joining.has_greeted(from) {
            return None;
        }
        let verified = GenesisVerified::check(self.ground.suite.as_ref(), genesis).ok()?;
        if *verified.mesh() != joining.ticket.pins.mesh {
            return None;
        }
        let is_same = |before: &Forming| {
            let gathers = before.contact.as_ref().is_some_and(|known| known.transport == *from);
            gathers && before.genesis.mesh() == verified.mesh()
        };
        let ticket = joining.signed.clone();
        match &mut self.forming {
            Some(before) if is_same(before) => (before.ticket, before.contact) = (ticket, Some(contact.clone())),
            // What it voted for may have come to be, and one host alone decides that.
            Some(before) if before.voted.is_some() => return None,
            _ => self.forming = Some(Box::new(Forming::new(verified, ticket, Some(contact.clone())))),
        }
        joining.deadline = None;
        joining.contacts = vec![contact];
        let row = self.forming.as_ref()?.row();
        actions.push(Action::Persist { lane: Lane::Records, writes: vec![row] });
        Some(())
    }

    /// An attempt at a founding is not gone on with.
    pub(super) fn abandon_attempt(&mut self) {
        // What the chip is still at work on answers a challenge of it.
        self.tpm.retain(|_, purpose| !matches!(purpose, TpmUse::Challenge(_)));
        if let Some(forming) = &mut self.forming {
            forming.give_up();
        }
    }

    pub(super) fn tick_forming(&mut self, now: Now, actions: &mut Actions) {
        if let Some(forming) = &mut self.forming
            && forming.attempt.as_ref().is_some_and(|attempt| now.monotonic >= attempt.deadline)
        {
            forming.give_up();
        }
        self.call_founders(now, actions);
        let Some(forming) = &mut self.forming else { return };
        if now.monotonic >= forming.resend_at {
            forming.resend_at = now.monotonic.plus(JOIN_RETRY_MS);
            self.send_outbox(0, actions);
        }
    }

    fn send_outbox(&self, from: usize, actions: &mut Actions) {
        let Some(forming) = &self.forming else { return };
        let others = forming.attempt.as_ref().map(Attempt::others).unwrap_or_default();
        for (lane, to, message) in forming.outbox.iter().skip(from) {
            let address = others.iter().find(|(key, _)| key == to).map(|(_, address)| address.clone());
            let (address, message) = (address.unwrap_or_default(), Box::new(message.clone()));
            actions.push(Action::Send { lane: *lane, to: *to, address, message });
        }
    }

    /// Sends to both other founders, now and until the attempt ends.
    fn tell_founders(&mut self, lane: Lane, message: &Message, actions: &mut Actions) {
        let Some(forming) = &mut self.forming else { return };
        let others = forming.attempt.as_ref().map(Attempt::others).unwrap_or_default();
        let before = forming.outbox.len();
        forming.outbox.extend(others.into_iter().map(|(to, _)| (lane, to, message.clone())));
        self.send_outbox(before, actions);
    }

    /// As the gathering host: there are three, so they are called.
    fn call_founders(&mut self, now: Now, actions: &mut Actions) {
        let own_address = self.config.address.clone();
        let Some(forming) = &mut self.forming else { return };
        let Some(keys) = forming.keys.clone().filter(|_| forming.contact.is_none()) else { return };
        if forming.attempt.is_some() {
            return;
        }
        let Some(others) = forming.call(now.monotonic) else { return };
        let hello = EnrolHello { request: RequestId::ZERO, ticket: forming.ticket.clone(), keys, address: own_address };
        let founders: Vec<Founder> = std::iter::once(Founder { hello }).chain(others).collect();
        let attempt = RequestId(self.generator.bytes());
        let own = self.own.transport;
        self.on_call(now, own, attempt, &founders, actions);
        let message = Message::FoundingCall { attempt, founders };
        let Some(forming) = &mut self.forming else { return };
        let others = forming.attempt.as_ref().map(Attempt::others).unwrap_or_default();
        // The call goes before the challenges that this host has for them already.
        let calls = others.into_iter().map(|(to, _)| (Lane::Direct, to, message.clone()));
        forming.outbox.splice(0..0, calls);
        self.send_outbox(0, actions);
    }

    /// Three are called to found.
    pub(super) fn on_call(
        &mut self,
        now: Now,
        from: TransportKey,
        attempt: RequestId,
        founders: &[Founder],
        actions: &mut Actions,
    ) {
        let (suite, own) = (self.ground.suite.clone(), self.own.host);
        let own_key = self.own.transport;
        let Some(forming) = &mut self.forming else { return };
        let calls = forming.contact.as_ref().map_or(own_key, |contact| contact.transport);
        // Whoever voted may be called with others: the one that calls votes last, and once.
        if from != calls || forming.attempt.as_ref().is_some_and(|known| known.id == attempt) {
            return;
        }
        let deadline = now.monotonic.plus(FOUNDING_MS);
        let begun = Attempt::begin(
            suite.as_ref(),
            &mut self.generator,
            &forming.genesis,
            own,
            attempt,
            founders,
            now.wall_ms,
            deadline,
        );
        match begun {
            Ok(begun) => {
                // What the chip is still at work on answers a challenge of the attempt before.
                self.tpm.retain(|_, purpose| !matches!(purpose, TpmUse::Challenge(_)));
                forming.outbox.clear();
                for (to, _) in begun.others() {
                    let blobs = begun.blobs(&to).unwrap_or_default().to_vec();
                    forming.outbox.push((Lane::Direct, to, Message::FoundingChallenge { attempt, blobs }));
                }
                forming.attempt = Some(begun);
                if calls != own_key {
                    self.send_outbox(0, actions);
                }
            }
            Err((through, check)) => {
                // It is to come again; all are where it is this host that does not hold up.
                match through.filter(|key| *key != own_key) {
                    Some(key) => drop(forming.gathered.remove(&key)),
                    None => forming.gathered.clear(),
                }
                self.refusal(Refused::new(check, Subject::Request), actions);
            }
        }
    }

    fn attempt_of(&mut self, from: &TransportKey, attempt: &RequestId) -> Option<(crate::types::HostId, &mut Attempt)> {
        let known = self.forming.as_mut()?.attempt.as_mut().filter(|known| known.id == *attempt)?;
        let host = known.founder(from)?;
        Some((host, known))
    }

    /// Another founder challenges this one's chip.
    pub(super) fn on_founding_challenge(
        &mut self,
        from: TransportKey,
        attempt: RequestId,
        blobs: Vec<CredentialBlob>,
        actions: &mut Actions,
    ) {
        if self.attempt_of(&from, &attempt).is_none() {
            return;
        }
        let answered = self.forming.as_ref().is_some_and(|forming| {
            let is_answer = |message: &Message| matches!(message, Message::FoundingAnswer { .. });
            forming.outbox.iter().any(|(_, to, message)| *to == from && is_answer(message))
        });
        if !answered && !self.tpm.values().any(|purpose| *purpose == TpmUse::Challenge(from)) {
            self.ask_tpm(TpmUse::Challenge(from), TpmRequest::Activate(blobs), actions);
        }
    }

    pub(super) fn is_founding_with(&self, from: &TransportKey) -> bool {
        let attempt = self.forming.as_ref().and_then(|forming| forming.attempt.as_ref());
        attempt.is_some_and(|attempt| attempt.founder(from).is_some())
    }

    /// What the answer to a founder's challenge quotes over.
    pub(super) fn founding_digest(&self, from: &TransportKey, secrets: &[SecretBytes]) -> Option<Digest> {
        let forming = self.forming.as_ref()?;
        let attempt = forming.attempt.as_ref().filter(|attempt| attempt.founder(from).is_some())?;
        Some(answer_digest(forming.genesis.mesh(), secrets, &attempt.own_bound()?))
    }

    /// The quote over a founder's secrets is here.
    pub(super) fn answer_founder(&mut self, to: TransportKey, quote: Quote, actions: &mut Actions) {
        let Some(forming) = &mut self.forming else { return };
        let Some(attempt) = &forming.attempt else { return };
        let message = Message::FoundingAnswer { attempt: attempt.id, session: *attempt.session(), quote };
        let before = forming.outbox.len();
        forming.outbox.push((Lane::Direct, to, message));
        self.send_outbox(before, actions);
    }

    pub(super) fn on_founding_answer(
        &mut self,
        from: TransportKey,
        attempt: RequestId,
        session: HpkePublic,
        quote: &Quote,
        actions: &mut Actions,
    ) {
        let suite = self.ground.suite.clone();
        let Some((host, known)) = self.attempt_of(&from, &attempt) else { return };
        match known.answered(suite.as_ref(), &host, session, quote) {
            Ok(false) => {}
            Ok(true) => self.deal_founding(actions),
            Err(check) => self.founding_failed(from, check, actions),
        }
    }

    /// Both others have proven their chips: only now this founder deals.
    fn deal_founding(&mut self, actions: &mut Actions) {
        let suite = self.ground.suite.clone();
        let Some(forming) = &mut self.forming else { return };
        let dealt = forming.outbox.iter().any(|(_, _, message)| matches!(message, Message::FoundingDeal { .. }));
        let Some(known) = forming.attempt.as_ref().filter(|_| !dealt) else { return };
        let transport = &self.own.identity.transport;
        let Some((deal, signature)) = known.deal(suite.as_ref(), &mut self.generator, transport) else { return };
        let attempt = known.id;
        self.tell_founders(Lane::Direct, &Message::FoundingDeal { attempt, deal: deal.clone(), signature }, actions);
        let own = self.own.transport;
        self.on_founding_deal(own, attempt, &(deal, signature), actions);
    }

    pub(super) fn on_founding_deal(
        &mut self,
        from: TransportKey,
        attempt: RequestId,
        deal: &SignedDeal,
        actions: &mut Actions,
    ) {
        let suite = self.ground.suite.clone();
        let Some((host, known)) = self.attempt_of(&from, &attempt) else { return };
        match known.dealt(suite.as_ref(), &host, deal) {
            Ok(false) => {}
            Ok(true) => self.vote_founding(actions),
            Err(check) => self.founding_failed(from, check, actions),
        }
    }

    /// All deals add up: this founder's share is written, and only then its vote leaves. The gathering host votes last.
    fn vote_founding(&mut self, actions: &mut Actions) {
        let suite = self.ground.suite.clone();
        let Some(forming) = self.forming.as_mut().filter(|forming| forming.contact.is_some()) else { return };
        let voted = forming.outbox.iter().any(|(_, _, message)| matches!(message, Message::FoundingVote { .. }));
        let Some(known) = forming.attempt.as_ref().filter(|_| !voted) else { return };
        let Some(outcome) = known.outcome() else { return };
        let Some(resting) = self.own.seal_share(&outcome.setup, &outcome.share) else { return };
        let Some(vote) = known.vote(suite.as_ref(), &self.own.identity.transport) else { return };
        let (attempt, key) = (known.id, share_row(&outcome.setup));
        self.resting.insert(key.clone(), resting.to_bytes());
        let write = Write { table: Table::Keys, key, value: Some(resting.to_bytes()) };
        let own = self.own.transport;
        let Some(forming) = &mut self.forming else { return };
        let mut voted: Vec<TransportKey> =
            forming.attempt.iter().flat_map(Attempt::others).map(|(key, _)| key).collect();
        voted.push(own);
        voted.sort_unstable();
        forming.voted = Some(voted);
        actions.push(Action::Persist { lane: Lane::Records, writes: vec![write, forming.row()] });
        self.tell_founders(Lane::Records, &Message::FoundingVote { attempt, vote: vote.clone() }, actions);
        // This founder's own word comes the same way as the others': when it is on disk.
        let (to, message) = (self.own.transport, Box::new(Message::FoundingVote { attempt, vote }));
        actions.push(Action::Send { lane: Lane::Records, to, address: self.config.address.clone(), message });
    }

    pub(super) fn on_founding_vote(
        &mut self,
        now: Now,
        from: TransportKey,
        attempt: RequestId,
        vote: &Vote,
        actions: &mut Actions,
    ) {
        let suite = self.ground.suite.clone();
        let Some(genesis) = self.forming.as_ref().map(|forming| forming.genesis.clone()) else { return };
        let Some((host, known)) = self.attempt_of(&from, &attempt) else { return };
        match known.voted(suite.as_ref(), &genesis, &host, vote) {
            Ok(Some(founding)) => self.end_forming(now, &founding, actions),
            Ok(None) if known.awaits_own_vote() => self.close_founding(now, &genesis, actions),
            Ok(None) => {}
            Err((through, check)) => {
                let through = known.transport_of(&through).unwrap_or(from);
                self.founding_failed(through, check, actions);
            }
        }
    }

    /// As the gathering host: the others have voted, so its own vote makes the founding. It leaves this host as part of
    /// the record alone, once that is on disk: what this host did not found, nobody can show.
    fn close_founding(&mut self, now: Now, genesis: &GenesisVerified, actions: &mut Actions) {
        let (suite, host) = (self.ground.suite.clone(), self.own.host);
        let Some(forming) = self.forming.as_mut().filter(|forming| forming.contact.is_none()) else { return };
        let Some(known) = &mut forming.attempt else { return };
        let Some(vote) = known.vote(suite.as_ref(), &self.own.identity.transport) else { return };
        let Ok(Some(founding)) = known.voted(suite.as_ref(), genesis, &host, &vote) else { return };
        let Some(outcome) = known.outcome() else { return };
        let Some(resting) = self.own.seal_share(&outcome.setup, &outcome.share) else { return };
        let key = share_row(&outcome.setup);
        self.rest(key, resting.to_bytes(), actions);
        self.end_forming(now, &founding, actions);
    }

    /// A founded host takes this one for a founder that voted: shown this host's ticket, it shows the founding.
    pub(super) fn greet_founder(&self, to: TransportKey, actions: &mut Actions) {
        let founded_with = |voted: &Vec<TransportKey>| voted.contains(&to);
        let Some(forming) = self.forming.as_ref().filter(|forming| forming.voted.as_ref().is_some_and(founded_with))
        else {
            return; // a ticket is shown to nobody else
        };
        let hello = match (&self.joining, &forming.keys) {
            (Some(joining), _) => joining.hello(),
            (None, Some(keys)) => {
                let address = self.config.address.clone();
                let (request, ticket) = (RequestId::ZERO, forming.ticket.clone());
                Some(EnrolHello { request, ticket, keys: keys.clone(), address })
            }
            (None, None) => None,
        };
        if let Some(hello) = hello {
            self.send_joiner(Lane::Records, to, Message::EnrolHello(hello), actions);
        }
    }

    /// Another founder ended the forming while this one missed a vote.
    pub(super) fn on_founding_done(&mut self, now: Now, founding: &Founding, actions: &mut Actions) {
        let Some(forming) = &self.forming else { return };
        let same = crate::types::sha256(&founding.genesis.bytes).0 == forming.genesis.mesh().0;
        let mine = founding.founders.iter().any(|founder| founder.record.transport == self.own.transport);
        if same && mine {
            self.end_forming(now, founding, actions);
        } else if same {
            self.founded_without(founding, actions);
        }
    }

    /// The gathering host founded with others. As it founds once, what this host voted for never was: it joins like
    /// everybody else.
    fn founded_without(&mut self, founding: &Founding, actions: &mut Actions) {
        let Some(gathered) = self.forming.as_ref().and_then(|forming| forming.contact.as_ref()) else { return };
        let founds = founding.founders.iter().any(|founder| founder.record.transport == gathered.transport);
        if !founds || !holds(self.ground.suite.as_ref(), &founding_entry(founding)) {
            return;
        }
        if let Some(forming) = &mut self.forming {
            forming.voted = None;
            actions.push(Action::Persist { lane: Lane::Records, writes: vec![forming.row()] });
        }
    }

    fn founding_failed(&mut self, from: TransportKey, check: Check, actions: &mut Actions) {
        if let Some(forming) = &mut self.forming {
            forming.give_up();
            forming.gathered.remove(&from); // it is to say hello again
        }
        let subject = Subject::Request;
        self.refusal(Refused::new(check, subject), actions);
        if from != self.own.transport {
            actions.push(Action::Disconnect { peer: from, why: Misbehaved::BadDeal });
        }
    }

    /// The record that ends the forming: the first of the log, the same at all three.
    fn end_forming(&mut self, now: Now, founding: &Founding, actions: &mut Actions) {
        let entry = founding_entry(founding);
        if self.ground.records.applied() > 0 || !holds(self.ground.suite.as_ref(), &entry) {
            return;
        }
        let Some(forming) = self.forming.take() else { return };
        let others = forming.attempt.as_ref().map(Attempt::others).unwrap_or_default();
        let pins = Pins { mesh: *forming.genesis.mesh(), key: founding.key.commitments.first().copied() };
        let contacts: Vec<Contact> = others
            .iter()
            .map(|(transport, address)| Contact { transport: *transport, address: address.clone() })
            .collect();
        let fallback = forming.contact.clone().into_iter().collect();
        let contacts = if contacts.is_empty() { fallback } else { contacts };
        let membership = Membership::new(pins, contacts);
        let hard = Hard { term: 1, vote: 0, commit: 1 };
        let seat = founding.founders.iter().position(|founder| founder.record.host == self.own.host);
        let seat = seat.and_then(|at| u64::try_from(at + 1).ok()).unwrap_or(0);
        let mut writes = self.entry_rows(std::slice::from_ref(&entry));
        writes.push(RaftRow { seat, taken: seat, hard }.write());
        writes.push(self.remember(membership));
        writes.push(no_longer_forming());
        actions.push(Action::Persist { lane: Lane::Records, writes });
        actions.push(Action::Report(Report::Founded));
        let _applied_above = self.apply_entry(now, &entry, actions);
        self.take_seat(now, hard);
        for (to, address) in others {
            let message = Box::new(Message::FoundingDone(Box::new(founding.clone())));
            actions.push(Action::Send { lane: Lane::Records, to, address, message });
        }
    }
}

/// The first entry of the log.
fn founding_entry(founding: &Founding) -> LogEntry {
    let command = wire::encode(&Command::Found(Box::new(founding.clone())));
    LogEntry { index: 1, term: 1, change: None, command }
}

/// Whether a founding holds: it is applied to a state of its own before anything of this host's changes.
fn holds(suite: &dyn Suite, entry: &LogEntry) -> bool {
    Records::default().apply(suite, entry).is_ok()
}

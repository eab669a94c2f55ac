//! What this host does as a member of the committee, and as the one that leads it: each request is checked by the
//! service, then recorded, then answered.

use super::committee::{Question, Then};
use super::{Action, ActionId, Actions, Host, Lane, Table, Waiting, Write};
use crate::cms::command::Command;
use crate::cms::service::{Greeting, Placed};
use crate::cms::version::VersionWord;
use crate::credential::head::Dealer;
use crate::credential::seal::SealContext;
use crate::credential::split::{self, Deal, Placement, PutOrder, Receiver};
use crate::error::{Check, Misbehaved, Subject};
use crate::limits::{COMMITTEE_MAX, MESSAGE_MAX, REQUESTS_OPEN_MAX};
use crate::membership::{Admission, MemberRecord};
use crate::signing::{Memory, Parts, Signable, combine_unnamed};
use crate::ticket::Contact;
use crate::types::{
    BlsSignature, CredentialId, Digest, GroupId, HostId, Now, Purpose, RequestId, ShareIndex, TransportKey,
};
use crate::whereabouts::Whereabouts;
use crate::wire::{DealBundle, EnrolAnswer, EnrolHello, Entrusting, Message, Package, Placing, Shown};
use crate::{attest::evidence::SignedEvidence, credential::shard_map::ShardMap};

impl Host {
    /// Somebody would join.
    pub(super) fn on_hello(&mut self, now: Now, from: TransportKey, hello: &EnrolHello, actions: &mut Actions) {
        if self.forming.is_some() {
            return self.gather(now, from, hello, actions);
        }
        let Some(pins) = self.ground.records.pins() else {
            return self.refuse_joiner(from, hello.request, Check::NotReady, actions);
        };
        let committee = self.contacts();
        self.send_joiner(Lane::Direct, from, Message::EnrolCommittee { pins, committee }, actions);
        let Some(view) = self.ground.view(now, self.header.as_ref()).filter(|_| self.share.is_some()) else {
            return; // the committee does the rest
        };
        match self.coordinator.greet(view, &mut self.generator, &from, hello) {
            Ok(Greeting::AlreadyIn) => {
                self.tell_founding(from, actions);
                self.send_joiner(Lane::Records, from, Message::EnrolAdmitted, actions);
            }
            Ok(Greeting::Challenge(blobs)) => {
                self.send_joiner(Lane::Records, from, Message::EnrolChallenge { blobs }, actions);
            }
            Err(check) => self.refuse_joiner(from, hello.request, check, actions),
        }
    }

    /// The committee, with addresses. While one of its seats is given to another it may have one more than there are others
    /// take: who leads comes first, since nobody gets in without it.
    pub(super) fn contacts(&self) -> Vec<Contact> {
        let contact = |transport: TransportKey| Contact { address: self.address_of(&transport), transport };
        let is_leader = |seated: &TransportKey| self.leader.is_some_and(|(_, leader)| leader == *seated);
        let (leads, others): (Vec<_>, Vec<_>) = self.committee().into_iter().partition(is_leader);
        leads.into_iter().chain(others).take(COMMITTEE_MAX).map(contact).collect()
    }

    /// A founder that missed the end of the founding is shown it.
    pub(super) fn tell_founding(&mut self, to: TransportKey, actions: &mut Actions) {
        let first = self.seated.as_ref().and_then(|seated| seated.election.page(0, 1).into_iter().next());
        let is_member = self.ground.records.member_by_transport(&to).is_some();
        let Some(entry) = first.filter(|_| is_member) else { return };
        if let Ok(Command::Found(founding)) = crate::wire::decode(&entry.command, crate::limits::ENTRY_MAX) {
            self.send_joiner(Lane::Records, to, Message::FoundingDone(founding), actions);
        }
    }

    /// A joiner answered this member's challenge: it gets this member's part of its admission, once that is on disk.
    pub(super) fn on_answer(&mut self, now: Now, from: TransportKey, answer: &EnrolAnswer, actions: &mut Actions) {
        match self.admission_part(now, &from, answer) {
            Ok((message, row)) => {
                actions.push(Action::Persist { lane: Lane::Records, writes: vec![row] });
                self.send_joiner(Lane::Records, from, message, actions);
            }
            // The parts of others were enough meanwhile, and it is in.
            Err(_) if self.ground.records.member_by_transport(&from).is_some() => {
                self.send_joiner(Lane::Records, from, Message::EnrolAdmitted, actions);
            }
            Err(check) => self.refuse_joiner(from, answer.request, check, actions),
        }
    }

    fn admission_part(
        &mut self,
        now: Now,
        from: &TransportKey,
        answer: &EnrolAnswer,
    ) -> Result<(Message, Write), Check> {
        let view = self.ground.view(now, self.header.as_ref()).ok_or(Check::NotReady)?;
        let share = self.share.as_ref().ok_or(Check::NotLeader)?;
        view.follows_header()?;
        let record = self.coordinator.admit(view, from, &answer.quote)?;
        let digest = record.digest(view.mesh);
        // One machine a ticket, whatever a restart or another leader forgot.
        if self.tickets.get(&record.ticket).is_some_and(|signed| *signed != digest) {
            return Err(Check::TicketUsed);
        }
        self.tickets.insert(record.ticket, digest);
        let memory = Memory { records: None, tickets: Some(&self.tickets) };
        let part = Signable::Admission(&record).partial(view.suite, view.mesh, &share.secret, memory);
        let part = part.ok_or(Check::NotReady)?;
        let t = view.records.committee().map_or(0, |committee| committee.key.t);
        let row = Write { table: Table::Tickets, key: record.ticket.0.to_vec(), value: Some(digest.0.to_vec()) };
        Ok((Message::EnrolPart { key_epoch: share.key_epoch, t, index: share.index, part }, row))
    }

    /// As the leader: a joiner brings the parts of its admission.
    pub(super) fn on_enrol_admit(
        &mut self,
        now: Now,
        from: TransportKey,
        request: RequestId,
        record: &MemberRecord,
        parts: Vec<(ShareIndex, BlsSignature)>,
        actions: &mut Actions,
    ) {
        if !self.leads() {
            return; // it asks the whole committee
        }
        let admitted = self.ground.records.roll().admitted_by(&record.ticket);
        if admitted.is_some_and(|member| member.record() == record) {
            return self.send_joiner(Lane::Records, from, Message::EnrolAdmitted, actions);
        }
        let command = self.admission(now, &from, record, parts);
        let proposed = command.and_then(|command| self.propose(now, &command, Then::Admitted(from, request), actions));
        if let Err(check) = proposed {
            self.refuse_joiner(from, request, check, actions);
        }
    }

    fn admission(
        &mut self,
        now: Now,
        from: &TransportKey,
        record: &MemberRecord,
        parts: Vec<(ShareIndex, BlsSignature)>,
    ) -> Result<Command, Check> {
        let records = &self.ground.records;
        let (mesh, committee) = records.mesh().zip(records.committee()).ok_or(Check::NotReady)?;
        if record.transport != *from {
            return Err(Check::Transport);
        }
        // The parts are of members that have seen the ticket.
        let roll = records.roll();
        if roll.get(&record.host).is_some() { roll.check_return(record) } else { roll.check_newcomer(record) }?;
        // A stranger sends this: no more is checked than makes one signature, and of those that make none a few a second.
        // Whom this host challenged itself need not wait for others that flood it.
        let is_known = self.tickets.get(&record.ticket) == Some(&record.digest(mesh));
        if !is_known && !self.coordinator.admissions.allows(now.monotonic) {
            return Err(Check::NotReady);
        }
        let (t, holders) = (usize::from(committee.key.t), committee.key.holders.len());
        let parts = parts.into_iter().filter(|(index, _)| (1..=holders).contains(&usize::from(index.0)));
        let parts: Parts = parts.take(t).collect();
        let what = Signable::Admission(record);
        let signature = combine_unnamed(self.ground.suite.as_ref(), mesh, &committee.key, what, &parts);
        let Some(signature) = signature else {
            self.coordinator.admissions.failed();
            return Err(Check::Record);
        };
        Ok(Command::Admit(Box::new(Admission { record: record.clone(), signature })))
    }

    /// The admission was recorded, or refused by the records.
    pub(super) fn tell_admitted(
        &mut self,
        joiner: TransportKey,
        request: RequestId,
        outcome: Result<(), Check>,
        actions: &mut Actions,
    ) {
        match outcome {
            Ok(()) => self.send_joiner(Lane::Records, joiner, Message::EnrolAdmitted, actions),
            Err(Check::NotLeader) => {} // it asks again
            // It asked twice: the first was recorded.
            Err(_) if self.ground.records.member_by_transport(&joiner).is_some() => {
                self.send_joiner(Lane::Records, joiner, Message::EnrolAdmitted, actions);
            }
            Err(check) => self.refuse_joiner(joiner, request, check, actions),
        }
    }

    pub(super) fn on_evidence(
        &mut self,
        now: Now,
        from: TransportKey,
        host: HostId,
        evidence: &SignedEvidence,
        (whereabouts, word, full): (&Whereabouts, VersionWord, bool),
        actions: &mut Actions,
    ) {
        if evidence.evidence.host != host || word.host != host || whereabouts.transport != from {
            actions.push(Action::Disconnect { peer: from, why: Misbehaved::WrongName });
            return;
        }
        if !self.take_whereabouts(from, whereabouts, actions) {
            return;
        }
        if let Some(view) = self.ground.view(now, self.header.as_ref()) {
            self.coordinator.see(view, &host, evidence, (word, full));
        }
    }

    /// Where may an order go? Who leads says so once it knows that it still does.
    pub(super) fn on_put_begin(&mut self, now: Now, from: TransportKey, placing: Placing, actions: &mut Actions) {
        let request = placing.order.request;
        self.ask_log_for(now, from, request, Question::Order(from, Box::new(placing)), actions);
    }

    /// As the leader: where may this order go? Only who leads still knows which head it follows, and whom it hears.
    pub(super) fn place_order(&mut self, now: Now, from: TransportKey, placing: Placing, actions: &mut Actions) {
        let request = placing.order.request;
        let refused = match self.place(now, &placing) {
            Ok(Placed::Bundle(bundle)) => {
                return self.send(Lane::Records, from, Message::PutBundle { request, bundle }, actions);
            }
            Ok(Placed::New(new)) => {
                let command = Command::Group { group: new.group, beacon: new.beacon, absent: new.absent };
                self.propose(now, &command, Then::Bundle(from, Box::new(placing)), actions)
            }
            Err(check) => Err(check),
        };
        if let Err(check) = refused {
            let is_member = |host: &HostId| self.ground.records.member(host).is_some();
            let full = self.coordinator.full_hosts().find(is_member).filter(|_| check == Check::Capacity);
            self.refuse(Lane::Direct, from, request, check, full.map_or(Subject::Request, Subject::Host), actions);
        }
    }

    fn place(&mut self, now: Now, placing: &Placing) -> Result<Placed, Check> {
        self.coordinator.silent = self.silent_seats(now);
        let view = self.view(now).filter(|_| self.leads()).ok_or(Check::NotLeader)?;
        view.follows_header()?;
        self.coordinator.place(view, &self.own.host, placing)
    }

    /// The order's group was recorded, or another one was meanwhile.
    pub(super) fn answer_order(
        &mut self,
        now: Now,
        to: TransportKey,
        placing: &Placing,
        refused: Option<Check>,
        actions: &mut Actions,
    ) {
        let request = placing.order.request;
        match self.place(now, placing) {
            Ok(Placed::Bundle(bundle)) => {
                self.send(Lane::Records, to, Message::PutBundle { request, bundle }, actions);
            }
            Ok(Placed::New(_)) => {
                let check = refused.filter(|check| *check != Check::Group).unwrap_or(Check::NotReady);
                self.refuse(Lane::Direct, to, request, check, Subject::Request, actions);
            }
            Err(check) => self.refuse(Lane::Direct, to, request, check, Subject::Request, actions),
        }
    }

    /// Deals for a thin client: the one place where a coordinator sees a credential, because its owner asked for it.
    pub(super) fn on_entrust(&mut self, now: Now, from: TransportKey, entrusting: &Entrusting, actions: &mut Actions) {
        let request = entrusting.order.request;
        match self.deal_for(now, entrusting) {
            Ok(package) => {
                let message = Message::Entrusted { request, package: Box::new(package) };
                self.send(Lane::Records, from, message, actions);
            }
            Err(check) => self.refuse(Lane::Direct, from, request, check, Subject::Request, actions),
        }
    }

    fn deal_for(&mut self, now: Now, entrusting: &Entrusting) -> Result<Package, Check> {
        let Entrusting { order, group, round, sealed } = entrusting;
        let view = self.ground.view(now, self.header.as_ref()).filter(|_| self.leads()).ok_or(Check::NotLeader)?;
        if sealed.len() > MESSAGE_MAX {
            return Err(Check::Capacity);
        }
        let info = entrust_info(view.mesh, order, group, &self.own.host);
        let mut sessions = self.attester.sessions_of(*round).peekable();
        sessions.peek().ok_or(Check::EvidenceStale)?;
        let payload = sessions.find_map(|key| view.suite.hpke_open(key, &info.0, sealed)).ok_or(Check::Payload)?;
        let bundle = self.coordinator.bundle_of(view, &self.own.host, order, group)?;
        let DealBundle { holders, generation, .. } = bundle.as_ref();
        let receivers = holders.iter().map(|holder| Receiver {
            host: holder.admission.record.host,
            key: holder.evidence.evidence.share_receiving,
        });
        let placement = Placement { group: *group, generation: *generation, receivers: receivers.collect() };
        let previous = view.records.credential(&order.id()).map(|credential| &credential.head);
        let deal = Deal {
            mesh: view.mesh,
            dealer: Dealer::Coordinator(self.own.transport),
            order,
            placement: &placement,
            previous,
        };
        split::deal(view.suite, &mut self.generator, &deal, &payload)
    }

    pub(super) fn on_map_request(
        &mut self,
        now: Now,
        from: TransportKey,
        request: RequestId,
        id: &CredentialId,
        shown: &Shown,
        actions: &mut Actions,
    ) {
        if !self.take_beacon_of(now, from, &shown.epoch, actions) {
            return;
        }
        let question = Question::Map(from, request, *id, Box::new(shown.clone()));
        self.ask_log_for(now, from, request, question, actions);
    }

    /// Asks the log, or refuses.
    pub(super) fn ask_log_for(
        &mut self,
        now: Now,
        from: TransportKey,
        request: RequestId,
        question: Question,
        actions: &mut Actions,
    ) {
        if let Err(check) = self.ask_log(now, question, actions) {
            self.refuse(Lane::Direct, from, request, check, Subject::Request, actions);
        }
    }

    /// The read is linearizable now.
    pub(super) fn answer_question(&mut self, now: Now, question: Question, actions: &mut Actions) {
        let view = self.ground.view(now, self.header.as_ref()).ok_or(Check::NotReady);
        let view = view.and_then(|view| view.follows_header().map(|()| view));
        match question {
            Question::Map(from, request, id, shown) => {
                let map = view.and_then(|view| self.coordinator.map_for_reader(view, &self.book, &id, &shown.evidence));
                let subject = Subject::Host(shown.evidence.evidence.host);
                self.answer_with_map(from, request, map, subject, actions);
            }
            Question::OwnerMap(from, request, id) => {
                let map = view.and_then(|view| self.coordinator.map_for_owner(view, &self.book, &id));
                self.answer_with_map(from, request, map, Subject::Credential(id), actions);
            }
            Question::Head(from, request, id) => self.answer_head(from, request, &id, actions),
            Question::Order(from, placing) => self.place_order(now, from, *placing, actions),
            Question::Record(from, wanted) => self.record_or_refuse(now, from, &wanted, actions),
        }
    }

    fn answer_with_map(
        &mut self,
        to: TransportKey,
        request: RequestId,
        map: Result<(ShardMap, Vec<String>), Check>,
        subject: Subject,
        actions: &mut Actions,
    ) {
        match map {
            Err(check) => self.refuse(Lane::Direct, to, request, check, subject, actions),
            Ok(_) if self.sealing.len() >= REQUESTS_OPEN_MAX => {
                self.refuse(Lane::Direct, to, request, Check::Capacity, subject, actions);
            }
            Ok((map, recipients)) => {
                let id = self.fresh_id();
                self.sealing.insert(id, Waiting { to, request });
                actions.push(Action::SealMap { id, recipients, plaintext: map.to_bytes() });
            }
        }
    }

    pub(super) fn on_map_sealed(&mut self, id: ActionId, file: Option<Vec<u8>>, actions: &mut Actions) {
        let Some(Waiting { to, request }) = self.sealing.remove(&id) else { return };
        match file {
            Some(file) => self.send(Lane::Records, to, Message::MapReply { request, file }, actions),
            None => self.refuse(Lane::Direct, to, request, Check::HeadForm, Subject::Request, actions),
        }
    }
}

/// The `info` under which a credential is entrusted to a dealing coordinator.
pub(crate) fn entrust_info(
    mesh: &crate::types::MeshId,
    order: &PutOrder,
    group: &GroupId,
    coordinator: &HostId,
) -> Digest {
    let order_digest = Purpose::Entrust.digest(&[&crate::wire::encode(order), &group.0]);
    let context = SealContext {
        mesh,
        client: &order.client,
        id: &order.id(),
        version: 0,
        generation: crate::types::Generation(0),
        index: ShareIndex(0),
        sender: &order.client.0,
        receiver: coordinator,
        head: &order_digest,
    };
    context.info(Purpose::Entrust)
}

impl PutOrder {
    /// The credential.
    pub fn id(&self) -> CredentialId {
        crate::credential::head::credential_id(&self.client, &self.name)
    }
}

//! What this host does as the coordinator: each request is checked by the service, then recorded, then answered.

use super::{Action, ActionId, Actions, Host, Lane, Waiting};
use crate::cms::records::Command;
use crate::cms::service::{self, Greeting};
use crate::credential::head::{Dealer, HeadVerified, SignedHead};
use crate::credential::seal::SealContext;
use crate::credential::split::{self, Deal, Placement, Previous, PutOrder, Receiver};
use crate::error::{Check, Misbehaved, Subject};
use crate::limits::{MESSAGE_MAX, REQUESTS_OPEN_MAX};
use crate::types::{CredentialId, Digest, GroupId, HostId, Now, Purpose, RequestId, ShareIndex, TransportKey};
use crate::wire::{Address, EnrolAnswer, EnrolHello, Entrusting, Message, Package, PutReceipt, Shown};
use crate::{attest::evidence::SignedEvidence, credential::shard_map::ShardMap};

impl Host {
    pub(super) fn on_hello(&mut self, now: Now, from: TransportKey, hello: &EnrolHello, actions: &mut Actions) {
        let Some(view) = self.ground.view(now).filter(|_| self.coordinates()) else {
            return self.refuse_joiner(from, Check::NotCoordinator, actions);
        };
        let message = match self.coordinator.greet(view, &mut self.generator, &from, hello) {
            Ok(Greeting::AlreadyIn) => Message::EnrolAdmitted,
            Ok(Greeting::Challenge(blobs)) => Message::EnrolChallenge { blobs },
            Err(check) => return self.refuse_joiner(from, check, actions),
        };
        actions.push(Action::Send {
            lane: Lane::Records,
            to: from,
            address: Address::default(),
            message: Box::new(message),
        });
    }

    pub(super) fn on_answer(&mut self, now: Now, from: TransportKey, answer: &EnrolAnswer, actions: &mut Actions) {
        let Some(view) = self.ground.view(now).filter(|_| self.coordinates()) else {
            return self.refuse_joiner(from, Check::NotCoordinator, actions);
        };
        let admitted = self.coordinator.admit(view, &self.own.identity.coordinator, &from, &answer.quote);
        match admitted.and_then(|command| self.commit(&command, actions)) {
            Ok(_) => {
                let message = Message::EnrolAdmitted;
                actions.push(Action::Send {
                    lane: Lane::Records,
                    to: from,
                    address: Address::default(),
                    message: Box::new(message),
                });
            }
            Err(check) => self.refuse_joiner(from, check, actions),
        }
    }

    pub(super) fn on_evidence(
        &mut self,
        now: Now,
        from: TransportKey,
        host: HostId,
        evidence: &SignedEvidence,
        address: Address,
        actions: &mut Actions,
    ) {
        if evidence.evidence.host != host {
            actions.push(Action::Disconnect { peer: from, why: Misbehaved::WrongName });
            return;
        }
        if let Some(view) = self.ground.view(now) {
            self.coordinator.see(view, &host, evidence, address);
        }
    }

    pub(super) fn on_put_begin(&mut self, now: Now, from: TransportKey, order: &PutOrder, actions: &mut Actions) {
        let Some(view) = self.ground.view(now).filter(|_| self.coordinates()) else {
            return self.refuse(Lane::Direct, from, order.request, Check::NotCoordinator, Subject::Request, actions);
        };
        let placed = self.coordinator.place(view, &self.own.host, order);
        let recorded = placed.and_then(|placed| match &placed.group {
            Some(group) => self.commit(&Command::Group(group.clone()), actions).map(|_| placed),
            None => Ok(placed),
        });
        match recorded {
            Ok(placed) => {
                let message = Message::PutBundle { request: order.request, bundle: Box::new(placed.bundle) };
                self.send(Lane::Records, from, message, actions);
            }
            Err(check) => self.refuse(Lane::Direct, from, order.request, check, Subject::Request, actions),
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
        let view = self.ground.view(now).filter(|_| self.coordinates()).ok_or(Check::NotCoordinator)?;
        if sealed.len() > MESSAGE_MAX {
            return Err(Check::Capacity);
        }
        let session = self.attester.session(*round).ok_or(Check::EvidenceStale)?;
        let info = entrust_info(view.mesh, order, group, &self.own.host);
        let payload = view.suite.hpke_open(session, &info.0, sealed).ok_or(Check::Payload)?;
        let placed = self.coordinator.place(view, &self.own.host, order)?;
        if placed.group.is_some() || placed.bundle.group != *group {
            return Err(Check::Group);
        }
        let receivers = placed.bundle.holders.iter().map(|holder| Receiver {
            host: holder.admission.record.host,
            key: holder.evidence.evidence.share_receiving,
        });
        let placement =
            Placement { group: *group, generation: placed.bundle.generation, receivers: receivers.collect() };
        let previous = previous_of(view.records.credential(&order.id()).map(|credential| &credential.head));
        let deal = Deal {
            mesh: view.mesh,
            dealer: Dealer::Coordinator,
            sender: &self.own.transport.0,
            order,
            placement: &placement,
            previous,
        };
        split::deal(view.suite, &mut self.generator, &deal, &payload)
    }

    pub(super) fn on_put_record(
        &mut self,
        now: Now,
        from: TransportKey,
        request: RequestId,
        head: &SignedHead,
        receipts: &[PutReceipt],
        actions: &mut Actions,
    ) {
        match self.record_put(now, head, receipts, actions) {
            Ok(record) => self.send(Lane::Records, from, Message::PutRecorded { request, record }, actions),
            Err(check) => self.refuse(Lane::Direct, from, request, check, Subject::Request, actions),
        }
    }

    fn record_put(
        &mut self,
        now: Now,
        head: &SignedHead,
        receipts: &[PutReceipt],
        actions: &mut Actions,
    ) -> Result<u64, Check> {
        let view = self.ground.view(now).filter(|_| self.coordinates()).ok_or(Check::NotCoordinator)?;
        let verified = HeadVerified::check(view.suite, view.mesh, head)?;
        // Asked again after the answer was lost: the same request has the same record.
        if let Some(credential) = view.records.recorded_by(&verified.head().id(), &verified.head().request)
            && credential.head.digest() == verified.digest()
        {
            return Ok(credential.record);
        }
        let command = service::State::check_put(view, head, receipts)?;
        self.commit(&command, actions)
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
        self.take_epoch(now, &shown.epoch, actions);
        let evidence = &shown.evidence;
        let Some(view) = self.ground.view(now).filter(|_| self.coordinates()) else {
            return self.refuse(Lane::Direct, from, request, Check::NotCoordinator, Subject::Request, actions);
        };
        let map = self.coordinator.map_for_reader(view, id, evidence);
        let subject = Subject::Host(evidence.evidence.host);
        self.answer_with_map(from, request, map, subject, actions);
    }

    pub(super) fn on_owner_map(
        &mut self,
        now: Now,
        from: TransportKey,
        request: RequestId,
        id: &CredentialId,
        actions: &mut Actions,
    ) {
        let Some(view) = self.ground.view(now).filter(|_| self.coordinates()) else {
            return self.refuse(Lane::Direct, from, request, Check::NotCoordinator, Subject::Request, actions);
        };
        let map = self.coordinator.map_for_owner(view, id);
        self.answer_with_map(from, request, map, Subject::Credential(*id), actions);
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

/// What a new head needs of the one before.
pub(crate) fn previous_of(head: Option<&HeadVerified>) -> Option<Previous> {
    head.map(|head| Previous { number: head.head().number, version: head.head().version, digest: *head.digest() })
}

impl PutOrder {
    /// The credential.
    pub fn id(&self) -> CredentialId {
        crate::credential::head::credential_id(&self.client, &self.name)
    }
}

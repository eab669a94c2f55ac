//! Requests from the local socket.

use super::{Actions, Host, HostLine, IdentityReply, LocalCommand, LocalId, LocalReply, StatusReply};
use crate::epoch::EpochVerified;
use crate::error::{Check, Failure, Refused, Subject};
use crate::limits::PAYLOAD_MAX;
use crate::types::{CredentialId, Now, RequestId};
use crate::wire::{Entrusting, Message, Standing};

/// What a daemon without a mesh says.
pub(super) const NO_MESH: &str =
    "this host belongs to no mesh yet: found one (vouchsafe init) or join one (vouchsafe join)";

/// What HPKE adds to a plaintext, generously.
const SEAL_ROOM: usize = 256;

impl Host {
    pub(super) fn on_command(&mut self, now: Now, id: LocalId, command: LocalCommand, actions: &mut Actions) {
        let answer = match command {
            LocalCommand::Found { genesis, ticket } => return self.found(now, id, &genesis, ticket, actions),
            LocalCommand::Join { ticket, address } => return self.join(now, id, ticket, address, actions),
            // What a peer would throw this host out for is refused here, before it is sent.
            LocalCommand::PutBegin(order) | LocalCommand::Entrust(Entrusting { order, .. })
                if !order.within_bounds() =>
            {
                Err(Failure::Refused(self.refusal(Refused::new(Check::HeadForm, Subject::Request), actions)))
            }
            LocalCommand::Entrust(Entrusting { sealed, .. }) if sealed.len() > PAYLOAD_MAX + SEAL_ROOM => {
                Err(Failure::Refused(self.refusal(Refused::new(Check::Payload, Subject::Request), actions)))
            }
            LocalCommand::PutBegin(order) => {
                let request = order.request;
                return self.ask(now, id, request, Message::PutBegin(order), actions);
            }
            LocalCommand::Entrust(entrusting) => {
                let request = entrusting.order.request;
                return self.ask(now, id, request, Message::Entrust(entrusting), actions);
            }
            LocalCommand::PutStore { package, signature, wait } => {
                return self.put_store(now, id, package, signature, wait, actions);
            }
            LocalCommand::Get(credential) => return self.get(now, id, credential, actions),
            LocalCommand::OwnerMap(credential) => {
                let request = RequestId(self.generator.bytes());
                let message = Message::OwnerMapRequest { request, id: credential };
                return self.ask(now, id, request, message, actions);
            }
            LocalCommand::Identity => Ok(self.identity()),
            LocalCommand::Status => Ok(LocalReply::Status(Box::new(self.status(Some(now))))),
            LocalCommand::Hosts => Ok(LocalReply::Hosts(self.hosts())),
            LocalCommand::List => Ok(LocalReply::List(
                self.ground.records.credentials().map(|(_, credential)| credential.clone()).collect(),
            )),
            LocalCommand::Show(credential) => self.show(&credential),
            LocalCommand::Evidence => self.evidence(now, actions),
        };
        Self::reply(id, answer, actions);
    }

    fn identity(&self) -> LocalReply {
        use crate::attest::tpm::EkPublic;
        let hash = |ek: &crate::attest::enroll::EkOffer| EkPublic::parse(&ek.public).ok().map(|ek| ek.hash());
        LocalReply::Identity(Box::new(IdentityReply {
            transport: self.own.transport,
            coordinator_key: self.own.coordinator.0,
            coordinator_proof: self.own.coordinator.1,
            pins: self.ground.records.pins(),
            genesis: self.ground.records.genesis().map(|genesis| Box::new(genesis.signed().clone())),
            ek_hashes: self.own.identity.eks.iter().filter_map(hash).collect(),
        }))
    }

    /// How this host is; without clocks: as just after its admission.
    pub(super) fn status(&self, now: Option<Now>) -> StatusReply {
        let records = &self.ground.records;
        let round = now.and_then(|now| {
            let view = self.ground.view(now)?;
            view.epochs.current(view.calendar, now).map(EpochVerified::round)
        });
        StatusReply {
            member: records.member(&self.own.host).map(|member| member.record().clone()),
            pins: records.pins(),
            mesh_name: records.genesis().map(|genesis| genesis.genesis().name.clone()),
            coordinates: self.coordinates(),
            joining: self.joining.is_some(),
            round,
            epoch_ms: self.ground.calendar.map(|calendar| calendar.epoch_ms()),
            evidence: self.attester.newest().map(|signed| signed.evidence.round),
            records: records.applied(),
            shares: self.holder.len(),
            refusals: self.refusals.iter().cloned().collect(),
        }
    }

    fn hosts(&self) -> Vec<HostLine> {
        let records = &self.ground.records;
        let line = |member: &crate::membership::Member| {
            let record = member.record().clone();
            let presence = self.presence.get(&record.host);
            HostLine {
                standing: presence.map_or(Standing::Absent, |presence| presence.standing),
                address: presence.map(|presence| presence.address.clone()).unwrap_or_default(),
                coordinates: records.coordinator() == Some(&record.transport),
                record,
            }
        };
        records.members().map(line).collect()
    }

    fn show(&self, id: &CredentialId) -> Result<LocalReply, Failure> {
        let credential = self.ground.records.credential(id).ok_or(Failure::NotFound)?;
        let group = self.ground.records.group(&credential.group).ok_or(Failure::NotFound)?;
        Ok(LocalReply::Show { credential: Box::new(credential.clone()), group: group.clone() })
    }

    fn evidence(&mut self, now: Now, actions: &mut Actions) -> Result<LocalReply, Failure> {
        let found = self.ground.view(now).and_then(|view| {
            let evidence = self.attester.current(view)?;
            let epoch = view.epochs.current_at(view.calendar, now, evidence.evidence.round)?;
            Some((evidence.clone(), evidence.evidence.qualifying(view.mesh, epoch.beacon())))
        });
        match found {
            Some((evidence, qualifying)) => {
                Ok(LocalReply::Evidence { evidence: Box::new(evidence), qualifying, ak: self.own.identity.ak.clone() })
            }
            None if self.membership.is_none() => Err(Failure::Membership(NO_MESH)),
            None => {
                let refused = Refused::new(Check::EvidenceMissing, Subject::Host(self.own.host));
                Err(Failure::Refused(self.refusal(refused, actions)))
            }
        }
    }
}

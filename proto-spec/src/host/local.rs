//! Requests from the local socket.

use super::{Actions, Host, HostLine, IdentityReply, KeyLine, LocalCommand, LocalId, LocalReply, StatusReply};
use crate::beacon::{EpochVerified, SignedBeacon};
use crate::cms::committee::{Committee, crowded_domains};
use crate::error::{Check, Failure, Refused, Subject};
use crate::limits::{COMMITTEE_MAX, PAYLOAD_MAX};
use crate::ticket::{Contact, Pins};
use crate::types::{CredentialId, Now, RequestId, Round, TransportKey};
use crate::wire::{Entrusting, Message, Placing, Standing};

/// What a daemon without a mesh says.
pub(super) const NO_MESH: &str =
    "this host belongs to no mesh yet: found one (vouchsafe init) or join one (vouchsafe join)";

/// What a daemon says whose mesh is forming.
const FORMING: &str = "the mesh is forming: it holds nothing before three hosts have founded it (vouchsafe invite)";

/// What HPKE adds to a plaintext, generously.
const SEAL_ROOM: usize = 256;

impl Host {
    pub(super) fn on_command(&mut self, now: Now, id: LocalId, command: LocalCommand, actions: &mut Actions) {
        let answer = match command {
            LocalCommand::Found { genesis, ticket } => return self.found(id, &genesis, ticket, actions),
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
                let without = self.passed_over.hosts(now.monotonic);
                return self.ask(now, id, request, Message::PutBegin(Placing { order, without }), actions);
            }
            LocalCommand::Entrust(entrusting) => {
                let request = entrusting.order.request;
                return self.ask(now, id, request, Message::Entrust(entrusting), actions);
            }
            LocalCommand::PutStore { package, signature, wait } => {
                return self.put_store(now, id, package, signature, wait, actions);
            }
            LocalCommand::Change(head) => return self.change(now, id, &head, actions),
            LocalCommand::End => return self.begin_ending(now, id),
            LocalCommand::Leave => return self.begin_leaving(now, id, actions),
            LocalCommand::Get(credential) => return self.get(now, id, credential, actions),
            LocalCommand::Newest(credential) => {
                let request = RequestId(self.generator.bytes());
                return self.ask(now, id, request, Message::HeadRequest { request, id: credential }, actions);
            }
            LocalCommand::OwnerMap(credential) => {
                let request = RequestId(self.generator.bytes());
                let message = Message::OwnerMapRequest { request, id: credential };
                return self.ask(now, id, request, message, actions);
            }
            LocalCommand::Identity => Ok(self.identity()),
            LocalCommand::Status => Ok(LocalReply::Status(Box::new(self.status(Some(now))))),
            LocalCommand::Hosts => Ok(LocalReply::Hosts(self.hosts())),
            LocalCommand::List => Ok(LocalReply::List(
                self.ground.records.credentials().iter().map(|(_, credential)| credential.clone()).collect(),
            )),
            LocalCommand::Show(credential) => self.show(&credential),
            LocalCommand::Evidence => self.evidence(now, actions),
            LocalCommand::Beacon(round) => self.beacon(round),
        };
        Self::reply(id, answer, actions);
    }

    /// Domains that together could sign for the mesh, though so many of them may be hostile.
    fn crowded(&self, committee: &Committee) -> Vec<String> {
        let records = &self.ground.records;
        let tolerate = records.genesis().map_or(0, |genesis| genesis.genesis().tolerate);
        let domain = |host| records.member(host).map(|member| member.record().domain.as_str());
        let domains = committee.key.holders.iter().filter_map(domain);
        crowded_domains(committee.key.t, tolerate, domains).into_iter().map(str::to_owned).collect()
    }

    fn identity(&self) -> LocalReply {
        use crate::attest::tpm::EkPublic;
        let hash = |ek: &crate::attest::enroll::EkOffer| EkPublic::parse(&ek.public).ok().map(|ek| ek.hash());
        LocalReply::Identity(Box::new(IdentityReply {
            transport: self.own.transport,
            pins: self.pins(),
            contacts: self.ticket_contacts(),
            genesis: self.genesis().map(|genesis| Box::new(genesis.signed().clone())),
            ek_hashes: self.own.identity.eks.iter().filter_map(hash).collect(),
        }))
    }

    fn pins(&self) -> Option<Pins> {
        self.ground.records.pins().or_else(|| self.forming.as_ref().map(|forming| forming.pins()))
    }

    /// Whom a ticket written here names: this host, then the rest of the committee.
    fn ticket_contacts(&self) -> Vec<Contact> {
        let own = Contact { transport: self.own.transport, address: self.config.address.clone() };
        let others = self.contacts().into_iter().filter(|contact| contact.transport != own.transport);
        let named = others.filter(|contact| !contact.address.0.is_empty());
        std::iter::once(own.clone()).chain(named).take(COMMITTEE_MAX).collect()
    }

    /// Why nothing can be said of any record here: there is no mesh, or its records are on their way.
    pub(super) fn no_records(&self) -> Failure {
        if self.membership.is_none() {
            Failure::Membership(self.no_mesh())
        } else {
            Failure::Refused(Refused::new(Check::NotReady, Subject::Request))
        }
    }

    /// Why there is nothing to ask here.
    pub(super) fn no_mesh(&self) -> &'static str {
        if self.forming.is_some() { FORMING } else { NO_MESH }
    }

    fn name_of(&self, transport: &TransportKey) -> Option<String> {
        self.ground.records.member_by_transport(transport).map(|member| member.record().name.clone())
    }

    /// How this host is; without clocks: as just after its admission.
    pub(super) fn status(&self, now: Option<Now>) -> StatusReply {
        let records = &self.ground.records;
        let round = now.and_then(|now| {
            let view = self.view(now)?;
            view.epochs.current(view.calendar, now).map(EpochVerified::round)
        });
        StatusReply {
            member: self.own_member().map(|member| member.record().clone()),
            pins: self.pins(),
            mesh_name: self.genesis().map(|genesis| genesis.genesis().name.clone()),
            coordinates: self.leads(),
            leader: self.leader.and_then(|(_, leader)| self.name_of(&leader)),
            term: self.leader.map(|(term, _)| term),
            committee: self.committee().iter().filter_map(|transport| self.name_of(transport)).collect(),
            key: records.committee().map(|committee| KeyLine {
                needed: committee.key.t,
                holders: committee.key.holders.len(),
                key_epoch: committee.key.key_epoch,
                crowded: self.crowded(committee),
            }),
            forming: self.forming.as_ref().map(|forming| forming.known),
            joining: self.joining.is_some(),
            outgrown: self.outgrown,
            split: self.is_split(),
            leaving: records.roll().is_leaving(&self.own.host),
            left: records.roll().departed(&self.own.host).is_some(),
            unlocked: self.own.periods.has(self.unlock_number()),
            header: now.and_then(|now| Some(self.view(now)?.header?.header().round)),
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
            HostLine {
                standing: self.standings.get(&record.host).copied().unwrap_or(Standing::Absent),
                address: self.book.address_of(&record.transport),
                coordinates: self.leader.is_some_and(|(_, leader)| leader == record.transport),
                seated: self.is_seated(&record.transport),
                record,
            }
        };
        records.members().map(line).collect()
    }

    fn beacon(&self, round: Option<Round>) -> Result<LocalReply, Failure> {
        let wanted = |beacon: &&SignedBeacon| round.is_none_or(|round| beacon.round == round);
        self.beacons.iter().rev().find(wanted).cloned().map(LocalReply::Beacon).ok_or(Failure::NotFound)
    }

    fn show(&self, id: &CredentialId) -> Result<LocalReply, Failure> {
        let credential = self.ground.records.credential(id).ok_or(Failure::NotFound)?;
        let group = self.ground.records.group(&credential.group).ok_or(Failure::NotFound)?;
        Ok(LocalReply::Show { credential: Box::new(credential.clone()), group: group.clone() })
    }

    fn evidence(&mut self, now: Now, actions: &mut Actions) -> Result<LocalReply, Failure> {
        let found = self.view(now).and_then(|view| {
            let evidence = self.attester.current(view)?;
            let epoch = view.epochs.current_at(view.calendar, now, evidence.evidence.round)?;
            Some((evidence.clone(), evidence.evidence.qualifying(view.mesh, epoch.beacon())))
        });
        match found {
            Some((evidence, qualifying)) => {
                Ok(LocalReply::Evidence { evidence: Box::new(evidence), qualifying, ak: self.own.identity.ak.clone() })
            }
            None if self.membership.is_none() => Err(Failure::Membership(self.no_mesh())),
            None => {
                let refused = Refused::new(Check::EvidenceMissing, Subject::Host(self.own.host));
                Err(Failure::Refused(self.refusal(refused, actions)))
            }
        }
    }
}

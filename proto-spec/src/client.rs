//! The second door: a client that deals. No TPM, no store; what it is shown it checks itself, against the pins and its
//! own clock, before anything leaves it.

use crate::attest::evidence::Appraised;
use crate::beacon::{Calendar, EpochVerified};
use crate::credential::head::{Allow, Dealer, Head, HeadVerified, SignedHead, Succession, digest_of};
use crate::credential::placement::spread_holds;
use crate::credential::split::{self, Deal, Placement, PutOrder, Receiver};
use crate::error::Check;
use crate::genesis::GenesisVerified;
use crate::host::entrust_info;
use crate::limits::HEAD_MAX;
use crate::membership::{Member, Role};
use crate::suite::{Generator, MeshKey, Suite};
use crate::ticket::Pins;
use crate::types::{Digest, GroupId, HostId, HpkePublic, MeshId, RequestId, Round, SecretBytes, SshKey, TransportKey};
use crate::wire::{self, DealBundle, Holder, Package};

/// A deal bundle whose every signature, date, measurement and spread was checked.
pub struct BundleVerified {
    placement: Placement,
    names: Vec<String>,
    coordinator: Receiver,
    coordinator_round: Round,
    /// Transport key of the host that would deal.
    dealing: TransportKey,
    previous: Option<HeadVerified>,
}

/// A credential sealed to the coordinator that is to deal it.
#[derive(Debug)]
pub struct Entrusted {
    /// The group that the bundle named.
    pub group: GroupId,
    /// Round of the coordinator's evidence.
    pub round: Round,
    /// The sealed credential.
    pub sealed: Vec<u8>,
}

impl BundleVerified {
    /// Checks a bundle for an order: that the mesh is the pinned one, that each holder was admitted by it, that each
    /// one's evidence is of a current epoch and good, and that the group keeps the order's spread. A key that is not
    /// in good evidence gets nothing.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(
        suite: &dyn Suite,
        pins: &Pins,
        wall_ms: u64,
        order: &PutOrder,
        bundle: &DealBundle,
    ) -> Result<Self, Check> {
        let genesis = GenesisVerified::check(suite, &bundle.genesis).map_err(|_| Check::Record)?;
        if *genesis.mesh() != pins.mesh {
            return Err(Check::TicketMesh);
        }
        let key = pins.mesh_key().ok_or(Check::Forming)?;
        let look = Look { suite, pins, key, calendar: Calendar::of(genesis.genesis()), wall_ms, bundle };
        let holders = bundle.holders.iter().map(|holder| look.check(holder)).collect::<Result<Vec<_>, _>>()?;
        let domains = holders.iter().map(|(member, _)| member.record().domain.as_str());
        let distinct: std::collections::BTreeSet<HostId> =
            holders.iter().map(|(member, _)| member.record().host).collect();
        if distinct.len() != holders.len() || !spread_holds(order.terms, domains) {
            return Err(Check::Spread);
        }
        if holders.iter().any(|(member, _)| member.record().role != Role::Host) {
            return Err(Check::Role);
        }
        let (coordinator, evidence) = look.check(&bundle.coordinator)?;
        let previous = bundle
            .previous
            .as_ref()
            .map(|signed| HeadVerified::check(suite, &pins.mesh, signed))
            .transpose()?
            .map(|head| if head.head().id() == order.id() { Ok(head) } else { Err(Check::HeadOrder) })
            .transpose()?;
        let receivers = holders
            .iter()
            .map(|(_, evidence)| Receiver { host: evidence.evidence().host, key: evidence.evidence().share_receiving });
        Ok(Self {
            placement: Placement { group: bundle.group, generation: bundle.generation, receivers: receivers.collect() },
            names: holders.iter().map(|(member, _)| member.record().name.clone()).collect(),
            coordinator: Receiver { host: coordinator.record().host, key: evidence.evidence().session },
            coordinator_round: evidence.evidence().round,
            dealing: coordinator.record().transport,
            previous,
        })
    }

    /// Names of the holders, in the order of the share indexes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the credential has this version: 0 where there never was a value, or it was removed.
    ///
    /// # Errors
    /// [`Check::Version`] where it has another.
    pub fn check_version(&self, expected: u64) -> Result<(), Check> {
        let present = self.previous.as_ref().map(HeadVerified::head).filter(|head| !head.removed);
        if present.map_or(0, |head| head.version) == expected { Ok(()) } else { Err(Check::Version) }
    }

    /// The key that must sign the next head: the owner's, or the last that took over.
    pub fn signer<'a>(&'a self, order: &'a PutOrder) -> &'a SshKey {
        self.previous.as_ref().map_or(&order.client, |previous| previous.head().signer())
    }

    /// Deals on this side: no coordinator sees the credential.
    ///
    /// # Errors
    /// The check that rules the order or the payload out.
    pub fn deal(
        &self,
        suite: &dyn Suite,
        generator: &mut Generator,
        pins: &Pins,
        order: &PutOrder,
        payload: &SecretBytes,
    ) -> Result<Package, Check> {
        let deal = Deal {
            mesh: &pins.mesh,
            dealer: Dealer::Client,
            order,
            placement: &self.placement,
            previous: self.previous.as_ref(),
        };
        split::deal(suite, generator, &deal, payload)
    }

    /// Seals the credential to the coordinator, which is to deal it. That one will see it, once.
    ///
    /// # Errors
    /// [`Check::EvidenceMissing`] where its evidence carries no key.
    pub fn entrust(
        &self,
        suite: &dyn Suite,
        generator: &mut Generator,
        pins: &Pins,
        order: &PutOrder,
        payload: &SecretBytes,
    ) -> Result<Entrusted, Check> {
        let key: &HpkePublic = &self.coordinator.key;
        let info = entrust_info(&pins.mesh, order, &self.placement.group, &self.coordinator.host);
        let sealed = suite.hpke_seal(key, &info.0, payload.expose(), generator).ok_or(Check::EvidenceMissing)?;
        Ok(Entrusted { group: self.placement.group, round: self.coordinator_round, sealed })
    }

    /// Checks what a dealing coordinator sent back before the owner signs its head: it must say what was ordered.
    ///
    /// # Errors
    /// [`Check::HeadForm`] where the head says anything else.
    pub fn check_package(&self, pins: &Pins, order: &PutOrder, package: &Package) -> Result<(), Check> {
        let head: Head = wire::decode(&package.head, HEAD_MAX).map_err(|_| Check::HeadForm)?;
        let previous = self.previous.as_ref();
        let last = previous.map(HeadVerified::head);
        let holds = head.mesh == pins.mesh
            && head.client == order.client
            && head.name == order.name
            && head.request == order.request
            && head.terms == order.terms
            && head.allow == order.allow
            && head.recipients == order.recipients
            && head.dealer == Dealer::Coordinator(self.dealing)
            && !head.removed
            && head.successors == last.map(|last| last.successors.clone()).unwrap_or_default()
            && head.previous == previous.map(|last| *last.digest())
            && head.number == last.map_or(0, |last| last.number) + 1
            && head.version == last.map_or(0, |last| last.version) + 1
            && package.group == self.placement.group;
        if holds { Ok(()) } else { Err(Check::HeadForm) }
    }
}

/// What a bundle is checked against.
struct Look<'a> {
    suite: &'a dyn Suite,
    pins: &'a Pins,
    key: MeshKey,
    calendar: Calendar,
    wall_ms: u64,
    bundle: &'a DealBundle,
}

impl Look<'_> {
    fn check(&self, holder: &Holder) -> Result<(Member, Appraised), Check> {
        let mesh = &self.pins.mesh;
        let member = Member::check(self.suite, mesh, &self.key, holder.admission.clone()).ok_or(Check::Membership)?;
        let round = holder.evidence.evidence.round;
        let epoch = self.bundle.epochs.iter().find(|epoch| epoch.round == round).ok_or(Check::EvidenceStale)?;
        let epoch = EpochVerified::check(self.suite, &self.key, epoch).ok_or(Check::EvidenceStale)?;
        if !self.calendar.is_current(round, self.wall_ms) || self.calendar.is_ahead(round, self.wall_ms) {
            return Err(Check::EvidenceStale);
        }
        let evidence = Appraised::check(self.suite, mesh, &epoch, member.record(), &holder.evidence)?;
        Ok((member, evidence))
    }
}

/// What the owner signs: the bytes of the head, under the namespace of heads.
pub fn head_to_sign(package: &Package) -> (&'static str, &[u8]) {
    (crate::credential::head::NAMESPACE, &package.head)
}

/// Digest of a head that is about to be signed, for people to compare.
pub fn head_digest(package: &Package) -> Digest {
    digest_of(&package.head)
}

/// What an owner changes of a credential without a new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is gone: its holders erase their shares.
    Remove,
    /// Who may read from now on: whoever is not named any more is refused.
    Allow(Vec<Allow>),
    /// Another key signs from now on.
    HandOver(Succession),
}

/// The bytes of the head that follows on the newest one: what its signer signs, under the namespace of heads.
///
/// # Errors
/// What does not hold of the newest head; [`Check::Unknown`] where the credential is removed.
pub fn next_head(
    suite: &dyn Suite,
    mesh: &MeshId,
    newest: &SignedHead,
    request: RequestId,
    change: Change,
) -> Result<Vec<u8>, Check> {
    let last = HeadVerified::check(suite, mesh, newest)?;
    if last.head().removed {
        return Err(Check::Unknown);
    }
    let number = last.head().number + 1;
    let mut next = Head { number, request, previous: Some(*last.digest()), ..last.head().clone() };
    match change {
        Change::Remove => next.removed = true,
        Change::Allow(allow) => next.allow = allow,
        Change::HandOver(succession) => next.successors.push(succession),
    }
    let bytes = wire::encode(&next);
    if bytes.len() > HEAD_MAX { Err(Check::HeadForm) } else { Ok(bytes) }
}

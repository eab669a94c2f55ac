//! The one door: `Host::handle`. Here the parts of a host meet; each decides by itself, `Host` routes what comes in
//! and puts in order what goes out.

mod action;
mod coordinating;
mod epochs;
mod event;
mod following;
mod holding;
mod joining;
mod lanes;
mod local;
mod putting;
mod reading;
mod receive;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use action::{Action, HostLine, IdentityReply, Lane, LocalReply, Report, StatusReply, Table, TpmRequest, Write};
pub(crate) use coordinating::{entrust_info, previous_of};
pub use event::{ActionId, Event, LocalCommand, LocalId, TpmReply};
pub use lanes::Lanes;

use crate::attest::enroll::{EkOffer, host_id};
use crate::attest::tpm::EkPublic;
use crate::attester::{self, AttesterKeys};
use crate::cms;
use crate::cms::records::Records;
use crate::epoch::{Calendar, Epochs, SignedEpoch};
use crate::error::{Check, Failure, LocalFault, Misbehaved, Refused, Subject};
use crate::holder::{self, HolderKeys, StoredShare};
use crate::instance::Reading;
use crate::joining::Joining;
use crate::limits::{ENROLMENT_MESSAGE_MAX, ENTRY_MAX, HEAD_MAX, MESSAGE_MAX, REFUSALS_KEPT, SSHSIG_MAX};
use crate::relay::Putting;
use crate::suite::{Generator, Seed, Suite, symmetric};
use crate::ticket::Pins;
use crate::types::{
    BlsPublic, BlsSignature, HostId, HpkePublic, MeshId, Now, Purpose, RequestId, Round, SecretBytes, Time,
    TransportKey,
};
use crate::view::View;
use crate::wire::{self, Address, DealBundle, Message, Presence};

/// What comes out of `handle`.
pub type Actions = Vec<Action>;

/// What a host is told about itself.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where other hosts reach this one.
    pub address: Address,
}

/// The keys of a host. Made once by its driver, kept in its store and its TPM.
pub struct Identity {
    /// Seed of the transport key.
    pub transport: SecretBytes,
    /// The vote key.
    pub vote: SecretBytes,
    /// The key under which this host would sign epochs and admissions as the coordinator.
    pub coordinator: SecretBytes,
    /// The secret that is bound to this TPM: from it follow the period key and the share-receiving key.
    pub tpm_bound: SecretBytes,
    /// Endorsement keys of the chip with their certificates.
    pub eks: Vec<EkOffer>,
    /// Certificates between those and a root.
    pub intermediates: Vec<Vec<u8>>,
    /// TPMT_PUBLIC of the attestation key.
    pub ak: Vec<u8>,
    /// age recipient for shard maps.
    pub map_recipient: String,
}

/// What was saved before: all rows of the tables but the payloads.
#[derive(Debug, Default, Clone)]
pub struct Saved {
    /// The row of [`Table::Membership`].
    pub membership: Option<Vec<u8>>,
    /// The rows of [`Table::Records`] in the order of their indexes.
    pub records: Vec<Vec<u8>>,
    /// The row of [`Table::Epoch`].
    pub epoch: Option<Vec<u8>>,
    /// The rows of [`Table::Shares`].
    pub shares: Vec<Vec<u8>>,
}

/// Why a host does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The identity's keys do not parse.
    #[error("the keys of this host do not parse")]
    Identity,
    /// The membership row does not read back.
    #[error("the membership does not read back")]
    Membership,
    /// A record does not apply.
    #[error("record {0} does not apply: {name}", name = .1.name())]
    Record(u64, Check),
    /// A share does not read back.
    #[error("a share does not read back")]
    Share,
}

/// What a member keeps of the mesh that it joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Membership {
    pins: Pins,
    address: Address,
}

/// What every part may look at.
struct Ground {
    suite: Arc<dyn Suite>,
    records: Records,
    epochs: Epochs,
    calendar: Option<Calendar>,
}

impl Ground {
    fn view(&self, now: Now) -> Option<View<'_>> {
        Some(View {
            suite: self.suite.as_ref(),
            now,
            mesh: self.records.mesh()?,
            calendar: self.calendar.as_ref()?,
            records: &self.records,
            epochs: &self.epochs,
        })
    }
}

/// Public parts of the identity and what follows from it.
struct Own {
    identity: Identity,
    host: HostId,
    transport: TransportKey,
    vote: (BlsPublic, BlsSignature),
    coordinator: (BlsPublic, BlsSignature),
    period: SecretBytes,
    share_receiving: (SecretBytes, HpkePublic),
}

impl Own {
    fn new(suite: &dyn Suite, identity: Identity) -> Option<Self> {
        let eks: Vec<EkPublic> =
            identity.eks.iter().map(|offer| EkPublic::parse(&offer.public).ok()).collect::<Option<_>>()?;
        let pair = |secret| Some((suite.bls_public(secret)?, suite.bls_prove(secret)?));
        let period = symmetric::derive(&identity.tpm_bound, Purpose::Period, &[]);
        let material = symmetric::derive(&period, Purpose::ShareReceiving, &[]);
        Some(Self {
            host: host_id(&eks),
            transport: suite.ed25519_public(&identity.transport)?,
            vote: pair(&identity.vote)?,
            coordinator: pair(&identity.coordinator)?,
            share_receiving: suite.hpke_keys(&material),
            period,
            identity,
        })
    }

    fn attester_keys(&self) -> AttesterKeys<'_> {
        AttesterKeys { host: &self.host, transport: &self.identity.transport, share_receiving: &self.share_receiving.1 }
    }

    fn holder_keys(&self) -> HolderKeys<'_> {
        HolderKeys {
            host: &self.host,
            transport: &self.identity.transport,
            share_receiving: &self.share_receiving.0,
            period: &self.period,
        }
    }
}

/// What the answer of a TPM is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TpmUse {
    Evidence,
    Join,
}

/// A question to the coordinator whose answer goes to a local client as it is.
struct Asked {
    local: LocalId,
    deadline: Time,
    retry_at: Time,
    message: Message,
    /// A bundle that waits for the record of its group to arrive here.
    bundle: Option<Box<DealBundle>>,
}

/// Somebody waits for an action's answer.
struct Waiting {
    to: TransportKey,
    request: RequestId,
}

/// A host.
pub struct Host {
    config: Config,
    own: Own,
    ground: Ground,
    generator: Generator,
    membership: Option<Membership>,
    joining: Option<(Joining, LocalId)>,
    attester: attester::State,
    holder: holder::State,
    coordinator: cms::service::State,
    /// As the coordinator: the round that it signed last since its start.
    signed_round: Option<Round>,
    presence: BTreeMap<HostId, Presence>,
    /// As the coordinator: every command, to serve to those who follow.
    log: Vec<Vec<u8>>,
    pull_at: Time,
    /// The index behind which records were asked for last, and until when their page may be on its way.
    pulled: Option<(u64, Time)>,
    asked: BTreeMap<RequestId, Asked>,
    puts: BTreeMap<RequestId, (Putting, LocalId)>,
    readings: BTreeMap<RequestId, (Reading, LocalId)>,
    tpm: BTreeMap<ActionId, TpmUse>,
    blobs: BTreeMap<ActionId, Waiting>,
    sealing: BTreeMap<ActionId, Waiting>,
    opening: BTreeMap<ActionId, RequestId>,
    next_id: u64,
    refusals: VecDeque<Refused>,
    disk_failed: bool,
    /// Whether what a crash left behind was erased since the start.
    cleaned: bool,
}

impl Host {
    /// A host that belongs to no mesh yet.
    ///
    /// # Errors
    /// [`RestoreError::Identity`] where its keys do not parse.
    pub fn new(config: Config, identity: Identity, suite: Arc<dyn Suite>, seed: &Seed) -> Result<Self, RestoreError> {
        Self::restore(config, identity, suite, seed, Saved::default())
    }

    /// A host as it was saved.
    ///
    /// # Errors
    /// What does not read back.
    pub fn restore(
        config: Config,
        identity: Identity,
        suite: Arc<dyn Suite>,
        seed: &Seed,
        saved: Saved,
    ) -> Result<Self, RestoreError> {
        let own = Own::new(suite.as_ref(), identity).ok_or(RestoreError::Identity)?;
        let mut records = Records::default();
        for (index, command) in (1..).zip(&saved.records) {
            records.apply(suite.as_ref(), command).map_err(|check| RestoreError::Record(index, check))?;
        }
        let membership = saved
            .membership
            .map(|bytes| wire::decode::<Membership>(&bytes, ENTRY_MAX).map_err(|_| RestoreError::Membership))
            .transpose()?;
        let floor = saved
            .epoch
            .and_then(|bytes| wire::decode::<SignedEpoch>(&bytes, ENTRY_MAX).ok())
            .map_or(Round(0), |epoch| epoch.round);
        // The coordinator's own epochs follow from its key: it takes the present round, whatever its clock once said.
        let is_own = |membership: &Membership| membership.pins.coordinator == own.transport;
        let floor = if membership.as_ref().is_some_and(is_own) { Round(0) } else { floor };
        let calendar = records.genesis().map(|genesis| Calendar::of(genesis.genesis()));
        let ground = Ground { suite, records, epochs: Epochs::above(floor), calendar };
        let mut holder = holder::State::default();
        for bytes in saved.shares {
            let now = Now { monotonic: Time(0), wall_ms: 0 };
            let view = ground.view(now).ok_or(RestoreError::Share)?;
            let stored: StoredShare = wire::decode(&bytes, STORED_SHARE_MAX).map_err(|_| RestoreError::Share)?;
            holder.restore(view, stored).map_err(|_| RestoreError::Share)?;
        }
        Ok(Self {
            config,
            own,
            ground,
            generator: Generator::new(seed),
            membership,
            joining: None,
            attester: attester::State::default(),
            holder,
            coordinator: cms::service::State::default(),
            signed_round: None,
            presence: BTreeMap::new(),
            log: saved.records,
            pull_at: Time(0),
            pulled: None,
            asked: BTreeMap::new(),
            puts: BTreeMap::new(),
            readings: BTreeMap::new(),
            tpm: BTreeMap::new(),
            blobs: BTreeMap::new(),
            sealing: BTreeMap::new(),
            opening: BTreeMap::new(),
            next_id: 0,
            refusals: VecDeque::new(),
            disk_failed: false,
            cleaned: false,
        })
    }

    /// Takes one event in; what is to be done comes out in order. Never fails: a fault becomes a report or a refusal.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Actions) {
        match event {
            Event::Tick => {}
            Event::Message { from, message } => self.on_message(now, from, *message, actions),
            Event::Garbage { from, error } => {
                actions.push(Action::Disconnect { peer: from, why: Misbehaved::Undecodable(error) });
            }
            Event::Undeliverable { to } => self.on_undeliverable(now, &to, actions),
            Event::Tpm { id, reply } => self.on_tpm(now, id, reply, actions),
            Event::Blobs { id, blobs } => self.on_blobs(id, blobs, actions),
            Event::MapSealed { id, file } => self.on_map_sealed(id, file, actions),
            Event::MapOpened { id, plaintext } => self.on_map_opened(now, id, plaintext, actions),
            Event::PersistFailed { .. } => {
                self.disk_failed = true;
                actions.push(Action::Report(Report::Fault(LocalFault::Disk)));
            }
            Event::Command { id, command } => self.on_command(now, id, *command, actions),
        }
        self.on_time(now, actions);
    }

    /// Everything whose time has come.
    fn on_time(&mut self, now: Now, actions: &mut Actions) {
        if !std::mem::replace(&mut self.cleaned, true) {
            self.erase_leftovers(now, actions);
        }
        self.tick_epoch(now, actions);
        self.tick_quote(now, actions);
        self.tick_pull(now, actions);
        self.tick_joining(now, actions);
        self.tick_asked(now, actions);
        self.tick_puts(now, actions);
        self.tick_readings(now, actions);
    }

    /// When `handle` wants to be called next, at the latest.
    pub fn next_deadline(&self, now: Now) -> Option<Time> {
        let mut times: Vec<Time> = Vec::new();
        if let Some(calendar) = &self.ground.calendar {
            times.push(now.monotonic.plus(calendar.until_next(now.wall_ms)));
        }
        if self.membership.is_some() && !self.coordinates() {
            times.push(self.pull_at);
        }
        times.extend(self.attester.retry_at());
        if let Some((joining, _)) = &self.joining {
            times.push(joining.deadline);
            times.extend(joining.retry_at);
        }
        times.extend(self.asked.values().flat_map(|asked| [asked.deadline, asked.retry_at]));
        for (put, _) in self.puts.values() {
            times.push(put.deadline);
            times.extend(put.retry_at);
        }
        for (reading, _) in self.readings.values() {
            times.push(reading.deadline);
            times.extend(reading.retry_at);
        }
        times.into_iter().min()
    }

    /// The mesh whose messages this host takes: that which it belongs to or is joining.
    pub fn mesh(&self) -> MeshId {
        let of_member = self.membership.as_ref().map(|membership| membership.pins.mesh);
        let of_joiner = self.joining.as_ref().map(|(joining, _)| joining.ticket.pins.mesh);
        of_member.or(of_joiner).unwrap_or(MeshId::ZERO)
    }

    /// The largest message that this host takes from a peer: from somebody who is no member, an enrolment.
    pub fn message_max(&self, from: &TransportKey) -> usize {
        let known = self.ground.records.member_by_transport(from).is_some() || self.is_coordinator(from);
        if known { MESSAGE_MAX } else { ENROLMENT_MESSAGE_MAX }
    }

    /// The records that this host has applied.
    pub fn records(&self) -> &Records {
        &self.ground.records
    }

    /// This host's identity.
    pub fn host(&self) -> &HostId {
        &self.own.host
    }

    /// This host's transport key.
    pub fn transport(&self) -> &TransportKey {
        &self.own.transport
    }

    fn coordinates(&self) -> bool {
        self.membership.as_ref().is_some_and(|membership| membership.pins.coordinator == self.own.transport)
    }

    fn fresh_id(&mut self) -> ActionId {
        self.next_id += 1;
        ActionId(self.next_id)
    }

    /// Sends to a member where it was last heard.
    fn send(&self, lane: Lane, to: TransportKey, message: Message, actions: &mut Actions) {
        let address = self.address_of(&to);
        actions.push(Action::Send { lane, to, address, message: Box::new(message) });
    }

    fn address_of(&self, key: &TransportKey) -> Address {
        let of_member = self
            .ground
            .records
            .member_by_transport(key)
            .and_then(|member| self.presence.get(&member.record().host))
            .map(|presence| presence.address.clone())
            .filter(|address| !address.0.is_empty());
        let of_coordinator = self.membership.as_ref().filter(|m| m.pins.coordinator == *key).map(|m| m.address.clone());
        of_member.or(of_coordinator).unwrap_or_default()
    }

    /// Sends to the coordinator; says whether there is one to send to.
    fn send_to_coordinator(&self, lane: Lane, message: Message, actions: &mut Actions) -> bool {
        match &self.membership {
            Some(membership) => {
                self.send(lane, membership.pins.coordinator, message, actions);
                true
            }
            None => false,
        }
    }

    /// Gives a refusal its epoch and id and remembers it.
    fn refusal(&mut self, mut refused: Refused, actions: &mut Actions) -> Refused {
        refused.round = self.ground.epochs.newest().unwrap_or(Round(0));
        refused.refusal_id = u64::from_be_bytes(self.generator.bytes());
        self.refusals.push_back(refused.clone());
        if self.refusals.len() > REFUSALS_KEPT {
            self.refusals.pop_front();
        }
        actions.push(Action::Report(Report::Refused(refused.clone())));
        refused
    }

    fn refuse(
        &mut self,
        lane: Lane,
        to: TransportKey,
        request: RequestId,
        check: Check,
        subject: Subject,
        actions: &mut Actions,
    ) {
        let refused = self.refusal(Refused::new(check, subject), actions);
        self.send(lane, to, Message::Refusal { request, refused }, actions);
    }

    fn reply(id: LocalId, reply: Result<LocalReply, Failure>, actions: &mut Actions) {
        actions.push(Action::Reply { lane: Lane::Direct, id, reply });
    }

    fn on_undeliverable(&mut self, now: Now, to: &TransportKey, actions: &mut Actions) {
        if let Some((joining, _)) = self.joining.as_mut().filter(|(joining, _)| joining.ticket.pins.coordinator == *to)
        {
            joining.unreachable(now.monotonic);
        }
        self.put_unreachable(now, to, actions);
        self.reading_unreachable(now, to, actions);
    }
}

/// Bound of one row of [`Table::Shares`].
const STORED_SHARE_MAX: usize = HEAD_MAX + SSHSIG_MAX + 8 * 1024;

/// The key of a share's row; the keys of its payload's rows begin with it.
fn share_row((id, head): &holder::ShareKey) -> Vec<u8> {
    [id.0, head.0].concat()
}

fn piece_row(key: &holder::ShareKey, piece: u16) -> Vec<u8> {
    [share_row(key), piece.to_be_bytes().to_vec()].concat()
}

//! The replicated state: `apply(command) → effects`, the same everywhere. Nothing here asks a clock, a generator or
//! another host; a command that does not fit changes nothing.
//!
//! In this step the log has one writer, the founder, and every member follows it. Raft will come under it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::credential::head::{HeadVerified, SignedHead};
use crate::credential::placement::spread_holds;
use crate::credential::split::commitments_digest;
use crate::error::Check;
use crate::genesis::{GenesisVerified, PROTOCOL_VERSION, SignedGenesis};
use crate::limits::{CREDENTIALS_MAX, ENTRY_MAX, GROUPS_MAX, LOG_ENTRIES_MAX, MEMBERS_MAX};
use crate::membership::{Admission, Member, MemberRecord, Role};
use crate::suite::{Suite, VerifiedKey};
use crate::ticket::Pins;
use crate::types::{
    BlsPublic, BlsSignature, Commitment, CredentialId, Digest, Generation, GroupId, HostId, MeshId, Purpose, RequestId,
    ShareIndex, Terms, TicketSerial, TransportKey,
};
use crate::wire;

/// A command of the log. The order of the variants is that of the log: new ones go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Command {
    /// The first entry: what the mesh is and who coordinates it.
    Found {
        /// The genesis.
        genesis: SignedGenesis,
        /// Transport key of the founder.
        coordinator: TransportKey,
        /// The key under which it signs epochs and admissions.
        coordinator_key: BlsPublic,
        /// Proof of possession of that key.
        coordinator_proof: BlsSignature,
    },
    /// A member is let in.
    Admit(Box<Admission>),
    /// A shard group is active.
    Group(Group),
    /// A credential's head is recorded.
    Head {
        /// The head.
        head: SignedHead,
        /// The group that holds its shares.
        group: GroupId,
        /// The group's generation.
        generation: Generation,
        /// Digest of the commitments.
        commitments: Digest,
        /// Indexes whose holders had flushed their share when it was recorded.
        flushed: Vec<ShareIndex>,
    },
}

/// A shard group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its identity.
    pub id: GroupId,
    /// k, n and the spread.
    pub terms: Terms,
    /// Its generation.
    pub generation: Generation,
    /// Its holders, in the order of the share indexes.
    pub holders: Vec<HostId>,
}

impl Group {
    /// The index of a host's share.
    pub fn index_of(&self, host: &HostId) -> Option<ShareIndex> {
        let at = self.holders.iter().position(|holder| holder == host)?;
        u8::try_from(at + 1).ok().map(ShareIndex)
    }

    /// The holder of a share.
    pub fn holder_of(&self, index: ShareIndex) -> Option<&HostId> {
        self.holders.get(usize::from(index.0).checked_sub(1)?)
    }
}

/// A recorded credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The head.
    pub head: HeadVerified,
    /// Its group.
    pub group: GroupId,
    /// The group's generation.
    pub generation: Generation,
    /// Digest of the commitments.
    pub commitments: Digest,
    /// Indexes whose holders had flushed their share when it was recorded.
    pub flushed: Vec<ShareIndex>,
    /// Index of the record.
    pub record: u64,
}

/// What followed from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The mesh exists.
    Founded,
    /// A member was admitted.
    Admitted(HostId),
    /// A group became active.
    GroupActive(GroupId),
    /// A head was recorded.
    HeadRecorded(CredentialId),
}

/// The state after `Found`.
#[derive(Debug, Clone)]
struct Founded {
    genesis: GenesisVerified,
    coordinator: TransportKey,
    coordinator_key: VerifiedKey,
    coordinator_proof: BlsSignature,
}

/// The replicated state.
#[derive(Debug, Clone, Default)]
pub struct Records {
    applied: u64,
    protocol_version: u16,
    founded: Option<Founded>,
    members: BTreeMap<HostId, Member>,
    by_transport: BTreeMap<TransportKey, HostId>,
    names: BTreeMap<String, HostId>,
    ek_hashes: BTreeMap<Digest, HostId>,
    tickets: BTreeMap<TicketSerial, HostId>,
    groups: BTreeMap<GroupId, Group>,
    credentials: BTreeMap<CredentialId, Credential>,
    first_commitments: BTreeMap<Commitment, CredentialId>,
    /// Digest over all commands so far: two states with the same root have seen the same log.
    root: Option<Digest>,
}

impl Records {
    /// Applies the next command. Deterministic; a refused command leaves the state as it was.
    ///
    /// # Errors
    /// The check that rules the command out.
    pub fn apply(&mut self, suite: &dyn Suite, bytes: &[u8]) -> Result<Effect, Check> {
        if self.applied >= LOG_ENTRIES_MAX {
            return Err(Check::Capacity);
        }
        let command: Command = wire::decode(bytes, ENTRY_MAX).map_err(|_| Check::Record)?;
        if self.founded.is_some() && self.protocol_version != PROTOCOL_VERSION {
            return Err(Check::Record);
        }
        let effect = match command {
            Command::Found { genesis, coordinator, coordinator_key, coordinator_proof } => {
                self.found(suite, &genesis, coordinator, &coordinator_key, coordinator_proof)
            }
            Command::Admit(admission) => self.admit(suite, *admission),
            Command::Group(group) => self.activate(group),
            Command::Head { head, group, generation, commitments, flushed } => {
                self.record_head(suite, &head, group, generation, commitments, flushed)
            }
        }?;
        self.applied += 1;
        let before = self.root.unwrap_or(Digest::ZERO);
        self.root = Some(Purpose::Records.digest(&[&before.0, &self.applied.to_be_bytes(), bytes]));
        Ok(effect)
    }

    fn found(
        &mut self,
        suite: &dyn Suite,
        genesis: &SignedGenesis,
        coordinator: TransportKey,
        key: &BlsPublic,
        proof: BlsSignature,
    ) -> Result<Effect, Check> {
        if self.founded.is_some() {
            return Err(Check::Record);
        }
        let genesis = GenesisVerified::check(suite, genesis).map_err(|_| Check::Record)?;
        let coordinator_key = VerifiedKey::check(suite, key, &proof).ok_or(Check::Record)?;
        self.protocol_version = genesis.genesis().protocol_version;
        self.founded = Some(Founded { genesis, coordinator, coordinator_key, coordinator_proof: proof });
        Ok(Effect::Founded)
    }

    fn admit(&mut self, suite: &dyn Suite, admission: Admission) -> Result<Effect, Check> {
        let founded = self.founded.as_ref().ok_or(Check::Record)?;
        let mesh = *founded.genesis.mesh();
        let member = Member::check(suite, &mesh, &founded.coordinator_key, admission).ok_or(Check::Record)?;
        self.check_newcomer(member.record())?;
        let record = member.record();
        let host = record.host;
        self.by_transport.insert(record.transport, host);
        self.names.insert(record.name.clone(), host);
        self.tickets.insert(record.ticket, host);
        for hash in record.ek_hashes() {
            self.ek_hashes.insert(hash, host);
        }
        self.members.insert(host, member);
        Ok(Effect::Admitted(host))
    }

    /// Whether a joiner's identity, name, keys and ticket are all new.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_newcomer(&self, record: &MemberRecord) -> Result<(), Check> {
        if self.members.len() >= MEMBERS_MAX {
            return Err(Check::Capacity);
        }
        if self.tickets.contains_key(&record.ticket) {
            return Err(Check::TicketUsed);
        }
        if self.members.contains_key(&record.host) || record.ek_hashes().any(|ek| self.ek_hashes.contains_key(&ek)) {
            return Err(Check::EkKnown);
        }
        if self.names.contains_key(&record.name) {
            return Err(Check::NameTaken);
        }
        if self.by_transport.contains_key(&record.transport) {
            return Err(Check::Transport);
        }
        let known = |member: &Member| member.record().ak == record.ak || member.record().vote == record.vote;
        if self.members.values().any(known) {
            return Err(Check::AkAttributes);
        }
        Ok(())
    }

    fn activate(&mut self, group: Group) -> Result<Effect, Check> {
        if self.groups.len() >= GROUPS_MAX {
            return Err(Check::Capacity);
        }
        let distinct: BTreeSet<&HostId> = group.holders.iter().collect();
        let mut domains = Vec::new();
        for holder in &group.holders {
            let record = self.members.get(holder).map(Member::record).ok_or(Check::Membership)?;
            if record.role != Role::Host {
                return Err(Check::Role);
            }
            domains.push(record.domain.as_str());
        }
        if !group.terms.are_sound() || distinct.len() != group.holders.len() || !spread_holds(group.terms, domains) {
            return Err(Check::Spread);
        }
        if self.groups.contains_key(&group.id) {
            return Err(Check::Record);
        }
        let id = group.id;
        self.groups.insert(id, group);
        Ok(Effect::GroupActive(id))
    }

    fn record_head(
        &mut self,
        suite: &dyn Suite,
        head: &SignedHead,
        group: GroupId,
        generation: Generation,
        commitments: Digest,
        flushed: Vec<ShareIndex>,
    ) -> Result<Effect, Check> {
        let mesh = *self.mesh().ok_or(Check::Record)?;
        let head = HeadVerified::check(suite, &mesh, head)?;
        let id = head.head().id();
        self.check_head(&head)?;
        let of_group = self.groups.get(&group).ok_or(Check::Group)?;
        let distinct: BTreeSet<&ShareIndex> = flushed.iter().collect();
        let known = flushed.iter().all(|index| of_group.holder_of(*index).is_some());
        if of_group.generation != generation || of_group.terms != head.head().terms {
            return Err(Check::Group);
        }
        if !known || distinct.len() != flushed.len() || flushed.len() < usize::from(of_group.terms.quorum()) {
            return Err(Check::Receipts);
        }
        self.first_commitments.insert(head.head().c0, id);
        let record = self.applied + 1;
        self.credentials.insert(id, Credential { head, group, generation, commitments, flushed, record });
        Ok(Effect::HeadRecorded(id))
    }

    /// Whether a head may be the next of its credential.
    ///
    /// # Errors
    /// [`Check::HeadOrder`], [`Check::CommitmentReused`] or [`Check::Capacity`].
    pub fn check_head(&self, head: &HeadVerified) -> Result<(), Check> {
        let id = head.head().id();
        let recorded = self.credentials.get(&id);
        head.check_follows(recorded.map(|credential| &credential.head))?;
        if self.first_commitments.contains_key(&head.head().c0) {
            return Err(Check::CommitmentReused);
        }
        if recorded.is_none() && self.credentials.len() >= CREDENTIALS_MAX {
            return Err(Check::Capacity);
        }
        Ok(())
    }

    /// Number of commands applied: the index of the newest record.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Digest over all commands so far.
    pub fn root(&self) -> Digest {
        self.root.unwrap_or(Digest::ZERO)
    }

    /// The mesh, once founded.
    pub fn mesh(&self) -> Option<&MeshId> {
        self.founded.as_ref().map(|founded| founded.genesis.mesh())
    }

    /// The genesis, once founded.
    pub fn genesis(&self) -> Option<&GenesisVerified> {
        self.founded.as_ref().map(|founded| &founded.genesis)
    }

    /// The transport key of the coordinator.
    pub fn coordinator(&self) -> Option<&TransportKey> {
        self.founded.as_ref().map(|founded| &founded.coordinator)
    }

    /// The key under which epochs and admissions are signed.
    pub fn coordinator_key(&self) -> Option<&VerifiedKey> {
        self.founded.as_ref().map(|founded| &founded.coordinator_key)
    }

    /// What a joiner and an outsider pin.
    pub fn pins(&self) -> Option<Pins> {
        self.founded.as_ref().map(|founded| Pins {
            mesh: *founded.genesis.mesh(),
            coordinator: founded.coordinator,
            coordinator_key: *founded.coordinator_key.public(),
            coordinator_proof: founded.coordinator_proof,
        })
    }

    /// A member.
    pub fn member(&self, host: &HostId) -> Option<&Member> {
        self.members.get(host)
    }

    /// The member with this transport key.
    pub fn member_by_transport(&self, key: &TransportKey) -> Option<&Member> {
        self.members.get(self.by_transport.get(key)?)
    }

    /// All members, in the order of their identities.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Whom a ticket let in.
    pub fn admitted_by(&self, ticket: &TicketSerial) -> Option<&Member> {
        self.members.get(self.tickets.get(ticket)?)
    }

    /// A group.
    pub fn group(&self, id: &GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// A credential.
    pub fn credential(&self, id: &CredentialId) -> Option<&Credential> {
        self.credentials.get(id)
    }

    /// All credentials.
    pub fn credentials(&self) -> impl Iterator<Item = (&CredentialId, &Credential)> {
        self.credentials.iter()
    }

    /// The record that a request made, where it is the newest of its credential.
    pub fn recorded_by(&self, id: &CredentialId, request: &RequestId) -> Option<&Credential> {
        self.credentials.get(id).filter(|credential| credential.head.head().request == *request)
    }
}

/// Whether the commitments that came with a share are those that were recorded.
pub fn commitments_fit(recorded: &Digest, commitments: &[Commitment]) -> bool {
    commitments_digest(commitments) == *recorded
}

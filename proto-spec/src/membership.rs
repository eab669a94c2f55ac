//! Members: what the mesh knows of a machine, under whose signature it was let in.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::suite::{MeshKey, Suite};
use crate::types::{BlsPublic, BlsSignature, Digest, HostId, MeshId, Purpose, TicketSerial, TransportKey, sha256};
use crate::wire;

/// What a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Stores shards; may also read for its own workloads.
    Host,
    /// Reads only.
    Reader,
}

impl Role {
    /// The word in tickets and policies.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Reader => "reader",
        }
    }

    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Host, Self::Reader].into_iter().find(|role| role.word() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRecord {
    /// Its identity: its EKs.
    pub host: HostId,
    /// Its name, from the ticket.
    pub name: String,
    /// Its role, from the ticket.
    pub role: Role,
    /// Its administrative domain, from the ticket.
    pub domain: String,
    /// Its region, from the ticket.
    pub region: String,
    /// Its zone, from the ticket.
    pub zone: String,
    /// EK public areas, sorted.
    pub eks: Vec<ByteBuf>,
    /// AK public area.
    #[serde(with = "serde_bytes")]
    pub ak: Vec<u8>,
    /// Transport key.
    pub transport: TransportKey,
    /// Vote key.
    pub vote: BlsPublic,
    /// Proof of possession of the vote key.
    pub vote_proof: BlsSignature,
    /// age recipient for shard maps.
    pub map_recipient: String,
    /// PCR values at enrolment: the good ones.
    pub good_pcrs: BTreeMap<u8, Digest>,
    /// The ticket that let it in.
    pub ticket: TicketSerial,
}

impl MemberRecord {
    /// The digest that an enrolment's quote and the admission's signature cover.
    pub fn digest(&self, mesh: &MeshId) -> Digest {
        Purpose::Member.digest(&[&mesh.0, &wire::encode(self)])
    }

    /// SHA-256 of each EK's public area.
    pub fn ek_hashes(&self) -> impl Iterator<Item = Digest> {
        self.eks.iter().map(|area| sha256(area))
    }
}

/// A member record with the signature that admits it: the mesh key's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// The member.
    pub record: MemberRecord,
    /// Signature over its digest.
    pub signature: BlsSignature,
}

/// What the mesh key signs to admit a member.
pub fn admission_bytes(mesh: &MeshId, record: &MemberRecord) -> Vec<u8> {
    Purpose::Admission.signed_bytes(mesh, &record.digest(mesh).0)
}

/// A member whose admission's signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member(Admission);

impl Member {
    /// Checks the signature under the pinned key.
    pub fn check(suite: &dyn Suite, mesh: &MeshId, key: &MeshKey, admission: Admission) -> Option<Self> {
        let bytes = admission_bytes(mesh, &admission.record);
        key.holds(suite, &bytes, &admission.signature).then_some(Self(admission))
    }

    /// The record.
    pub fn record(&self) -> &MemberRecord {
        &self.0.record
    }

    /// The signed form, to show to others.
    pub fn admission(&self) -> &Admission {
        &self.0
    }
}

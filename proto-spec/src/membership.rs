//! Members: what the mesh knows of a machine, under whose signature it was let in.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::suite::{Suite, VerifiedKey};
use crate::types::{
    BlsPublic, BlsSignature, Digest, HostId, MeshId, Purpose, SecretBytes, TicketSerial, TransportKey, sha256,
};
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

/// A member record with the signature that admits it: the coordinator's in this step, the mesh key's later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// The member.
    pub record: MemberRecord,
    /// Signature over its digest.
    pub signature: BlsSignature,
}

impl Admission {
    /// Admits a member.
    pub fn sign(suite: &dyn Suite, mesh: &MeshId, secret: &SecretBytes, record: MemberRecord) -> Option<Self> {
        let bytes = Purpose::Admission.signed_bytes(mesh, &record.digest(mesh).0);
        let signature = suite.bls_sign(secret, &bytes)?;
        Some(Self { record, signature })
    }
}

/// A member whose admission's signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member(Admission);

impl Member {
    /// Checks the signature under the pinned key.
    pub fn check(suite: &dyn Suite, mesh: &MeshId, key: &VerifiedKey, admission: Admission) -> Option<Self> {
        let bytes = Purpose::Admission.signed_bytes(mesh, &admission.record.digest(mesh).0);
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

//! The header of an epoch: what the records say at one index, under the mesh key. Whoever pins that key can check a
//! member or a group against it; whoever follows the records checks itself against it.

use serde::{Deserialize, Serialize};

use crate::cms::snapshot::Snapshot;
use crate::suite::{MeshKey, Suite};
use crate::types::{BlsSignature, Digest, MeshId, Purpose, Round};
use crate::wire;

/// What the mesh key signs once in each round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The round.
    pub round: Round,
    /// Root over the members: leaf i = H(i ‖ record digest ‖ standing).
    pub member_root: Digest,
    /// Root over the domains' policies; zeros in this step.
    pub policy_root: Digest,
    /// Round of the newest certificate applied; zero in this step.
    pub certified: Round,
    /// Digest of the committee's seats.
    pub committee: Digest,
    /// Which shares of the mesh key sign.
    pub key_epoch: u64,
    /// Version of the replicated state.
    pub protocol_version: u16,
    /// Index of the record that this header closes.
    pub record: u64,
    /// Digest over all records before it.
    pub records_root: Digest,
    /// The newest snapshot of the state.
    pub snapshot: Snapshot,
    /// Root over the groups, their holders and their heads.
    pub group_root: Digest,
}

impl Header {
    /// The bytes that are signed.
    pub fn signed_bytes(&self, mesh: &MeshId) -> Vec<u8> {
        Purpose::Header.signed_bytes(mesh, &wire::encode(self))
    }
}

/// A header with the mesh key's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHeader {
    /// The header.
    pub header: Header,
    /// The signature.
    pub signature: BlsSignature,
}

/// A header whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderVerified(SignedHeader);

impl HeaderVerified {
    /// Checks the signature under the mesh key.
    pub fn check(suite: &dyn Suite, mesh: &MeshId, key: &MeshKey, signed: &SignedHeader) -> Option<Self> {
        let bytes = signed.header.signed_bytes(mesh);
        key.holds(suite, &bytes, &signed.signature).then(|| Self(signed.clone()))
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// The signed form, to show to others.
    pub fn signed(&self) -> &SignedHeader {
        &self.0
    }
}

//! Receipts: a holder's signed word that a share is checked and flushed. A record of a new value carries them: without
//! them whoever leads could record a put that failed, and the value that was acknowledged before would be erased for it.

use serde::{Deserialize, Serialize};

use crate::suite::Suite;
use crate::types::{
    Digest, Ed25519Signature, Generation, GroupId, HostId, MeshId, Purpose, Round, ShareIndex, TransportKey,
};

/// A holder's word that a share is checked and flushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutReceipt {
    /// The holder.
    pub holder: HostId,
    /// Index of the share.
    pub index: ShareIndex,
    /// Digest of the head.
    pub head: Digest,
    /// The group.
    pub group: GroupId,
    /// Its generation.
    pub generation: Generation,
    /// Digest of the commitments.
    pub commitments: Digest,
    /// Round of the newest header in the holder's records: the put must be recorded before too many others follow.
    pub round: Round,
    /// Signature of the holder's transport key.
    pub signature: Ed25519Signature,
}

impl PutReceipt {
    /// What its holder signs.
    pub fn signed_bytes(&self, mesh: &MeshId) -> Vec<u8> {
        let body = Purpose::Receipt.digest(&[
            &self.holder.0,
            &[self.index.0],
            &self.head.0,
            &self.group.0,
            &self.generation.0.to_be_bytes(),
            &self.commitments.0,
            &self.round.0.to_be_bytes(),
        ]);
        Purpose::Receipt.signed_bytes(mesh, &body.0)
    }

    /// Whether this transport key has signed it.
    pub fn holds(&self, suite: &dyn Suite, mesh: &MeshId, holder: &TransportKey) -> bool {
        suite.ed25519_holds(holder, &self.signed_bytes(mesh), &self.signature)
    }
}

/// What of a receipt stands in the record: the rest is the record's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flushed {
    /// Index of the share.
    pub index: ShareIndex,
    /// Round of the newest header in the holder's records.
    pub round: Round,
    /// Signature of the holder's transport key.
    pub signature: Ed25519Signature,
}

impl From<&PutReceipt> for Flushed {
    fn from(receipt: &PutReceipt) -> Self {
        Self { index: receipt.index, round: receipt.round, signature: receipt.signature }
    }
}

/// What a record of a new value says beside its head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// The group that holds its shares.
    pub group: GroupId,
    /// The group's generation.
    pub generation: Generation,
    /// Digest of the commitments.
    pub commitments: Digest,
    /// The word of each holder that has flushed its share, in the order of the indexes; at most n.
    pub flushed: Vec<Flushed>,
}

impl Value {
    /// The receipt that a holder gave for its share under a head.
    pub fn receipt(&self, head: &Digest, holder: &HostId, flushed: &Flushed) -> PutReceipt {
        PutReceipt {
            holder: *holder,
            index: flushed.index,
            head: *head,
            group: self.group,
            generation: self.generation,
            commitments: self.commitments,
            round: flushed.round,
            signature: flushed.signature,
        }
    }

    /// Round of the oldest receipt.
    pub fn round(&self) -> Option<Round> {
        self.flushed.iter().map(|flushed| flushed.round).min()
    }
}

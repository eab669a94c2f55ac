//! The commands of the log: what a record may say.

use serde::{Deserialize, Serialize};

use super::committee::{KeySetup, Step};
use super::election::SeatChange;
use super::groups::Group;
use super::members::LeavingWord;
use super::version::VersionWord;
use crate::beacon::SignedBeacon;
use crate::credential::head::SignedHead;
use crate::credential::receipt::Value;
use crate::genesis::SignedGenesis;
use crate::membership::{Admission, MemberRecord};
use crate::types::{BlsSignature, Digest, Ed25519Signature, HostId, MeshId, Purpose};
use crate::wire;

/// The record that ends the forming of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founding {
    /// What the mesh is.
    pub genesis: SignedGenesis,
    /// The three founders, in the order of their shares.
    pub founders: Vec<Admission>,
    /// The mesh key that they dealt.
    pub key: KeySetup,
    /// Digest of the three deals.
    pub deals: Digest,
    /// Signature of the new mesh key.
    pub signature: BlsSignature,
    /// Signatures of the founders' transport keys, in their order.
    pub consents: Vec<Ed25519Signature>,
}

impl Founding {
    /// What the founders and the new key sign.
    pub fn signed_bytes(mesh: &MeshId, founders: &[MemberRecord], key: &KeySetup, deals: &Digest) -> Vec<u8> {
        let records: Vec<u8> = founders.iter().flat_map(|record| record.digest(mesh).0).collect();
        let digest = Purpose::Founding.digest(&[&records, &wire::encode(key), &deals.0]);
        Purpose::Founding.signed_bytes(mesh, &digest.0)
    }
}

/// A command of the log. The order of the variants is that of the log: new ones go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Command {
    /// The first entry: what the mesh is, who founded it, and its key.
    Found(Box<Founding>),
    /// A member is let in.
    Admit(Box<Admission>),
    /// A shard group is active.
    Group {
        /// The group.
        group: Group,
        /// The beacon that drew it.
        beacon: SignedBeacon,
        /// Hosts that did not stand when it was drawn.
        absent: Vec<HostId>,
    },
    /// A new value of a credential is recorded.
    Head {
        /// The head.
        head: SignedHead,
        /// Who holds its shares, by their own word.
        value: Value,
    },
    /// A round's header is closed here.
    Epoch {
        /// The beacon of the round: it proves that the round has begun.
        beacon: SignedBeacon,
    },
    /// The committee changes.
    Committee(Step),
    /// A head that changes whom it allows, who signs it, or whether it is there.
    Change {
        /// The head.
        head: SignedHead,
    },
    /// A member says that it leaves.
    Leaving {
        /// The member.
        host: HostId,
        /// Its word.
        word: LeavingWord,
    },
    /// A member that said so has given up its seat and is gone.
    Leave {
        /// The member.
        host: HostId,
    },
    /// The records are read by the next version of the rules from here on.
    Version {
        /// That version.
        version: u16,
        /// The word of every voter that it reads it.
        words: Vec<VersionWord>,
    },
    /// All shards of a member lie under its next unlock: from here on it is unlocked by that, and never by an earlier
    /// one.
    Rewrapped {
        /// The member.
        host: HostId,
        /// Number of that unlock.
        number: u64,
        /// Signature of its transport key.
        signature: Ed25519Signature,
    },
}

impl Command {
    /// Whether a full log has no room for it. The beat goes on: without it nothing that is there could be read.
    pub fn grows(&self) -> bool {
        !matches!(self, Self::Epoch { .. } | Self::Committee(_) | Self::Version { .. })
    }

    /// The change that Raft makes with it.
    pub fn change(&self) -> Option<SeatChange> {
        match self {
            Self::Committee(step) => step.change(),
            _ => None,
        }
    }
}

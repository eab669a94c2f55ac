//! Newtypes that every other file shares: identities, keys and signatures as fixed-size bytes, time, secrets.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Declares a fixed-size byte type that prints as hex and travels as one CBOR byte string.
macro_rules! bytes_type {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(#[serde(with = "serde_bytes")] pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Reads exactly `LEN` bytes; anything else is `None`.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Reads lower- or upper-case hex of exactly `LEN` bytes.
            pub fn from_hex(text: &str) -> Option<Self> {
                hex::decode(text).ok().and_then(|bytes| Self::from_slice(&bytes))
            }

            /// All bytes zero: what stands where a later protocol step puts a value.
            pub const ZERO: Self = Self([0; $len]);
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = hex::encode(self.0);
                write!(f, "{}({}…)", stringify!($name), text.get(..8).unwrap_or(&text))
            }
        }
    };
}

bytes_type!(
    /// A SHA-256 digest.
    Digest, 32
);
bytes_type!(
    /// SHA-256 of the genesis record: stands in every signed byte of one mesh.
    MeshId, 32
);
bytes_type!(
    /// A member: SHA-256 of the canonical list of its EK public areas. Never an address.
    HostId, 32
);
bytes_type!(
    /// A credential: H(client key ‖ name).
    CredentialId, 32
);
bytes_type!(
    /// A shard group.
    GroupId, 32
);
bytes_type!(
    /// What nobody could know before a round began.
    Beacon, 32
);
bytes_type!(
    /// Public Ed25519 key of a host's transport (its libp2p identity).
    TransportKey, 32
);
bytes_type!(
    /// Public Ed25519 key inside an SSH key: a client or an operator.
    SshKey, 32
);
bytes_type!(
    /// Ed25519 signature.
    Ed25519Signature, 64
);
bytes_type!(
    /// ECDSA P-256 signature, r ‖ s, each 32 bytes big-endian.
    EcdsaSignature, 64
);
bytes_type!(
    /// BLS public key in G2, compressed. Not to be believed before its proof of possession was checked.
    BlsPublic, 96
);
bytes_type!(
    /// BLS signature in G1, compressed.
    BlsSignature, 48
);
bytes_type!(
    /// A Feldman commitment in G1, compressed.
    Commitment, 48
);
bytes_type!(
    /// X25519 public key for HPKE. All zeros means that there is none yet.
    HpkePublic, 32
);
bytes_type!(
    /// Names a request so that a repetition of it is recognised.
    RequestId, 16
);
bytes_type!(
    /// Serial number of a ticket: random, since whoever holds the ticket may use it.
    TicketSerial, 16
);

/// Number of an epoch: 1 + (wall clock - genesis) / epoch length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Round(pub u64);

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Generation of a shard group; shares of two generations never combine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// Index of a share, from 1 to n. Zero is the secret itself and no valid index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ShareIndex(pub u8);

/// A point on the monotonic clock (CLOCK_BOOTTIME), in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// This point and `milliseconds` more; saturates.
    #[must_use]
    pub fn plus(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }
}

/// Both clocks, read at once. Deadlines run by the first, rounds and dates by the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// CLOCK_BOOTTIME in milliseconds.
    pub monotonic: Time,
    /// Unix time in milliseconds.
    pub wall_ms: u64,
}

/// Terms of the secret sharing and of its spread over domains.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Shares that reconstruct; at least 2.
    pub k: u8,
    /// Shares that are dealt; at least k.
    pub n: u8,
    /// Hostile domains tolerated (*a*): together they hold at most k-1 shares, the others at least k.
    pub tolerate: u8,
}

impl Terms {
    /// The terms, where they can be met at all: 2 ≤ k ≤ n ≤ the bound of `limits`.
    pub fn new(k: u8, n: u8, tolerate: u8) -> Option<Self> {
        let fits = k >= 2 && k <= n && usize::from(n) <= crate::limits::SHARES_MAX;
        fits.then_some(Self { k, n, tolerate })
    }

    /// Whether `new` would accept these terms: they may have come from a peer.
    pub fn are_sound(self) -> bool {
        Self::new(self.k, self.n, self.tolerate).is_some()
    }

    /// Flushed shares without which a put is not acknowledged: w = k + ceil((n - k) / 2).
    pub fn quorum(self) -> u8 {
        self.k.saturating_add(self.n.saturating_sub(self.k).div_ceil(2))
    }
}

/// Bytes that wipe themselves. No Clone and no Serialize; its printed form is its length.
#[derive(Default)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes the bytes over; the caller's copy is gone with it.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Copies the bytes into a wiping home.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// A second home for the same secret: spelled out, so that each is seen in review.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::copy_of(&self.0)
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// What a signature or digest is for. The text stands in the signed bytes, so that bytes signed for one
/// purpose can never be shown for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// An admission of a member.
    Admission,
    /// Qualifying data of a quote.
    Evidence,
    /// The envelope of an evidence, signed by the transport key.
    EvidenceEnvelope,
    /// Digest of a member record.
    Member,
    /// Qualifying data of the quote that answers an enrolment challenge.
    Enrolment,
    /// Identity of a credential.
    Credential,
    /// Digest of a head.
    Head,
    /// A key hands a credential over to another.
    Succession,
    /// A member says that it leaves.
    Leaving,
    /// A member says that its shards lie under the next unlock.
    Rewrapped,
    /// A member says which version of the records it reads.
    Version,
    /// A host says where it is.
    Whereabouts,
    /// Digest of a payload's pieces.
    Payload,
    /// Key of a payload.
    PayloadKey,
    /// A share sealed by a dealer to its holder.
    Deal,
    /// A credential sent whole to the dealing coordinator.
    Entrust,
    /// A shard sealed by its holder to a reader.
    Release,
    /// A shard at rest.
    Shard,
    /// A holder's receipt for a stored share.
    Receipt,
    /// Digest of a vector of commitments.
    Commitments,
    /// Identity of a shard group.
    Group,
    /// Order in which placement walks the hosts.
    Placement,
    /// The share-receiving key of a host.
    ShareReceiving,
    /// The period key of a host.
    Period,
    /// Digest of the replicated state.
    Records,
    /// What a joint dealing is about.
    Ceremony,
    /// One dealer's part of a joint dealing.
    KeyDeal,
    /// A receiver holds its sub-share of a deal.
    KeyHeld,
    /// The record that ends the forming of a mesh.
    Founding,
    /// The header of an epoch.
    Header,
    /// The unlock of a host's period key.
    Unlock,
    /// A partial unlock, sealed to the host that asked.
    UnlockSeal,
    /// A share of the mesh key at rest.
    KeyShare,
    /// Leaf of a member in the header's tree.
    MemberLeaf,
    /// Leaf of a group in the header's tree.
    GroupLeaf,
    /// Leaf of a head in its group's tree.
    HeadLeaf,
    /// Inner node of a tree.
    TreeNode,
    /// A voter's election timeout.
    Timeout,
    /// The seats of the committee.
    Committee,
    /// A snapshot of the replicated state.
    State,
    /// One row of it.
    StateRow,
}

impl Purpose {
    /// The word that stands in the signed bytes.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Evidence => "evidence",
            Self::EvidenceEnvelope => "evidence-envelope",
            Self::Member => "member",
            Self::Enrolment => "enrolment",
            Self::Credential => "credential",
            Self::Head => "head",
            Self::Succession => "succession",
            Self::Leaving => "leaving",
            Self::Rewrapped => "rewrapped",
            Self::Version => "version",
            Self::Whereabouts => "whereabouts",
            Self::Payload => "payload",
            Self::PayloadKey => "payload-key",
            Self::Deal => "deal",
            Self::Entrust => "entrust",
            Self::Release => "release",
            Self::Shard => "shard",
            Self::Receipt => "receipt",
            Self::Commitments => "commitments",
            Self::Group => "group",
            Self::Placement => "placement",
            Self::ShareReceiving => "share-receiving",
            Self::Period => "period",
            Self::Records => "records",
            Self::Ceremony => "ceremony",
            Self::KeyDeal => "key-deal",
            Self::KeyHeld => "key-held",
            Self::Founding => "founding",
            Self::Header => "header",
            Self::Unlock => "unlock",
            Self::UnlockSeal => "unlock-seal",
            Self::KeyShare => "key-share",
            Self::MemberLeaf => "member-leaf",
            Self::GroupLeaf => "group-leaf",
            Self::HeadLeaf => "head-leaf",
            Self::TreeNode => "tree-node",
            Self::Timeout => "timeout",
            Self::Committee => "committee",
            Self::State => "state",
            Self::StateRow => "state-row",
        }
    }

    /// `vouchsafe/v1/<purpose>\0`, which opens everything that is signed or hashed.
    pub fn tag(self) -> Vec<u8> {
        let mut tag = format!("vouchsafe/v1/{}", self.word()).into_bytes();
        tag.push(0);
        tag
    }

    /// The bytes to sign: tag ‖ mesh ‖ body.
    pub fn signed_bytes(self, mesh: &MeshId, body: &[u8]) -> Vec<u8> {
        let mut bytes = self.tag();
        bytes.extend_from_slice(&mesh.0);
        bytes.extend_from_slice(body);
        bytes
    }

    /// SHA-256 over the tag and then each part behind its length (32 bits, big-endian), so that no two lists of
    /// parts share a digest.
    pub fn digest(self, parts: &[&[u8]]) -> Digest {
        let mut hash = Sha256::new();
        hash.update(self.tag());
        for part in parts {
            hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(part);
        }
        Digest(hash.finalize().into())
    }
}

/// Plain SHA-256 of some bytes, where a format of somebody else asks for exactly that.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_its_length_and_nothing_else() {
        let secret = SecretBytes::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "SecretBytes(7 bytes)");
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        assert_ne!(Purpose::Head.digest(&[b"ab", b"c"]), Purpose::Head.digest(&[b"a", b"bc"]));
        assert_ne!(Purpose::Head.digest(&[b"ab"]), Purpose::Group.digest(&[b"ab"]));
    }

    #[test]
    fn the_quorum_lies_half_way_between_k_and_n() {
        let quorum = |k, n| Terms::new(k, n, 1).map(Terms::quorum);
        assert_eq!((quorum(2, 3), quorum(3, 5), quorum(5, 9)), (Some(3), Some(4), Some(7)));
        assert_eq!((quorum(1, 3), quorum(4, 3), quorum(3, 3)), (None, None, Some(3)));
    }
}

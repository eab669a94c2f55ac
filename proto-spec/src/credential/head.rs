//! The head: what the client signs of a credential, only what a re-share never changes.

use serde::{Deserialize, Serialize};

use crate::error::Check;
use crate::limits::{ALLOW_MAX, HEAD_MAX, PIECES_MAX, RECIPIENT_TEXT_MAX, RECIPIENTS_MAX, SSHSIG_MAX};
use crate::membership::{MemberRecord, Role};
use crate::suite::Suite;
use crate::types::{Commitment, CredentialId, Digest, MeshId, Purpose, RequestId, SshKey, Terms, TransportKey};
use crate::{text, wire};

/// SSHSIG namespace of heads.
pub const NAMESPACE: &str = "vouchsafe.head.v1";

/// Whom a credential's owner allows to read it. Nobody who fits none of the rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Allow {
    /// The member of this name.
    Instance(String),
    /// Every member of this role.
    Role(Role),
    /// The machine with this EK (SHA-256 of its public area).
    Ek(Digest),
}

impl Allow {
    /// Reads `instance:NAME`, `role:ROLE` or `ek:HEX`.
    pub fn from_text(rule: &str) -> Option<Self> {
        match rule.split_once(':')? {
            ("instance", name) if text::is_name(name) => Some(Self::Instance(name.to_owned())),
            ("role", word) => Role::from_word(word).map(Self::Role),
            ("ek", hash) => Digest::from_hex(hash).map(Self::Ek),
            _ => None,
        }
    }

    /// The form that `from_text` reads.
    pub fn to_text(&self) -> String {
        match self {
            Self::Instance(name) => format!("instance:{name}"),
            Self::Role(role) => format!("role:{role}"),
            Self::Ek(hash) => format!("ek:{hash}"),
        }
    }

    /// Whether a rule that may come from a peer is one.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Instance(name) => text::is_name(name),
            Self::Role(_) | Self::Ek(_) => true,
        }
    }

    fn names(&self, reader: &MemberRecord) -> bool {
        match self {
            Self::Instance(name) => *name == reader.name,
            Self::Role(role) => *role == reader.role,
            Self::Ek(hash) => reader.ek_hashes().any(|of_reader| of_reader == *hash),
        }
    }
}

/// Who split the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dealer {
    /// The client's own side: no coordinator saw it.
    Client,
    /// The host that led when the client asked it to: that one saw it, once, and is named here.
    Coordinator(TransportKey),
}

impl Dealer {
    /// Who seals the shares.
    pub fn sender(self, client: &SshKey) -> [u8; 32] {
        match self {
            Self::Client => client.0,
            Self::Coordinator(transport) => transport.0,
        }
    }
}

/// A head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The mesh.
    pub mesh: MeshId,
    /// The owner's key.
    pub client: SshKey,
    /// The owner's name for it.
    pub name: String,
    /// Counts every change, from 1.
    pub number: u64,
    /// Counts every new value, from 1.
    pub version: u64,
    /// The request that made it.
    pub request: RequestId,
    /// k, n and the spread.
    pub terms: Terms,
    /// g^s: what combined shares are checked against.
    pub c0: Commitment,
    /// Digest over all pieces of the encrypted payload.
    pub payload: Digest,
    /// Pieces of the encrypted payload.
    pub pieces: u16,
    /// Who may read.
    pub allow: Vec<Allow>,
    /// age recipients that open the shard map.
    pub recipients: Vec<String>,
    /// Who split it.
    pub dealer: Dealer,
    /// Whether the credential is gone.
    pub removed: bool,
    /// Digest of the head before this one.
    pub previous: Option<Digest>,
    /// Key that takes over from the client's.
    pub successor: Option<SshKey>,
}

/// The identity of a credential: H(client key ‖ name).
pub fn credential_id(client: &SshKey, name: &str) -> CredentialId {
    CredentialId(Purpose::Credential.digest(&[&client.0, name.as_bytes()]).0)
}

/// Digest of a head's bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Purpose::Head.digest(&[bytes])
}

impl Head {
    fn check_form(&self, mesh: &MeshId) -> Result<(), Check> {
        let holds = self.mesh == *mesh
            && text::is_name(&self.name)
            && self.terms.are_sound()
            && self.number >= 1
            && (1..=self.number).contains(&self.version)
            && (self.number == 1) == self.previous.is_none()
            && (1..=PIECES_MAX).contains(&usize::from(self.pieces))
            && self.allow.len() <= ALLOW_MAX
            && self.allow.iter().all(Allow::is_sound)
            && self.recipients.len() <= RECIPIENTS_MAX
            && self.recipients.iter().all(|recipient| recipient.len() <= RECIPIENT_TEXT_MAX)
            // Not in this step: they are signed fields already, so that nothing signed has to change.
            && !self.removed
            && self.successor.is_none();
        if holds { Ok(()) } else { Err(Check::HeadForm) }
    }

    /// The credential.
    pub fn id(&self) -> CredentialId {
        credential_id(&self.client, &self.name)
    }

    /// Whether the owner allows this member to read.
    ///
    /// # Errors
    /// [`Check::Policy`] where no rule names it.
    pub fn check_reader(&self, reader: &MemberRecord) -> Result<(), Check> {
        if self.allow.iter().any(|rule| rule.names(reader)) { Ok(()) } else { Err(Check::Policy) }
    }
}

/// A head's bytes and the owner's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// Canonical bytes of the [`Head`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Armoured SSHSIG of the owner.
    pub signature: String,
}

/// A head whose form and signature hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadVerified {
    head: Head,
    digest: Digest,
    signed: SignedHead,
}

impl HeadVerified {
    /// Checks form and signature.
    ///
    /// # Errors
    /// [`Check::HeadForm`] or [`Check::HeadSignature`].
    pub fn check(suite: &dyn Suite, mesh: &MeshId, signed: &SignedHead) -> Result<Self, Check> {
        let head: Head = wire::decode(&signed.bytes, HEAD_MAX).map_err(|_| Check::HeadForm)?;
        head.check_form(mesh)?;
        if signed.signature.len() > SSHSIG_MAX
            || !suite.sshsig_holds(&head.client, NAMESPACE, &signed.bytes, &signed.signature)
        {
            return Err(Check::HeadSignature);
        }
        Ok(Self { head, digest: digest_of(&signed.bytes), signed: signed.clone() })
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Digest of its bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The signed form, to store and to show to others.
    pub fn signed(&self) -> &SignedHead {
        &self.signed
    }

    /// Whether this head may take the place of the one that is recorded.
    ///
    /// # Errors
    /// [`Check::HeadOrder`] unless it is the first, or the next and names the one before.
    pub fn check_follows(&self, recorded: Option<&Self>) -> Result<(), Check> {
        let follows = match recorded {
            None => self.head.number == 1,
            Some(last) => {
                self.head.number == last.head.number + 1
                    && self.head.version == last.head.version + 1
                    && self.head.previous == Some(last.digest)
            }
        };
        if follows { Ok(()) } else { Err(Check::HeadOrder) }
    }
}

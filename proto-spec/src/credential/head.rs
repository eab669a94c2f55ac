//! The head: what the client signs of a credential, only what a re-share never changes.

use serde::{Deserialize, Serialize};

use crate::cms::snapshot::RowsProven;
use crate::error::Check;
use crate::limits::{ALLOW_MAX, HEAD_MAX, PIECES_MAX, RECIPIENT_TEXT_MAX, RECIPIENTS_MAX, SSHSIG_MAX, SUCCESSIONS_MAX};
use crate::membership::{MemberRecord, Role};
use crate::suite::Suite;
use crate::types::{Commitment, CredentialId, Digest, MeshId, Purpose, RequestId, SshKey, Terms, TransportKey};
use crate::{text, wire};

/// SSHSIG namespace of heads.
pub const NAMESPACE: &str = "vouchsafe.head.v1";
/// SSHSIG namespace of successions.
pub const SUCCESSION_NAMESPACE: &str = "vouchsafe.succession.v1";

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
    /// Digest over all commitments of its deal: nobody but the owner says which shares belong to it.
    pub deal: Digest,
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
    /// Keys that took over from the owner's, each named by the one before it. The last signs.
    pub successors: Vec<Succession>,
}

/// A key hands a credential over to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Succession {
    /// The key that signs from now on.
    pub key: SshKey,
    /// Armoured SSHSIG of the key that signed before.
    pub signature: String,
}

impl Succession {
    /// What the key before signs: the mesh, the credential, which succession of it, and the new key.
    pub fn signed_bytes(mesh: &MeshId, id: &CredentialId, place: usize, key: &SshKey) -> Vec<u8> {
        let place = u64::try_from(place).unwrap_or(u64::MAX).to_be_bytes();
        Purpose::Succession.signed_bytes(mesh, &Purpose::Succession.digest(&[&id.0, &place, &key.0]).0)
    }
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
            && self.successors.len() <= SUCCESSIONS_MAX
            && !(self.removed && self.number == 1);
        if holds { Ok(()) } else { Err(Check::HeadForm) }
    }

    /// The credential.
    pub fn id(&self) -> CredentialId {
        credential_id(&self.client, &self.name)
    }

    /// The key that signs it: the owner's, or the last that took over.
    pub fn signer(&self) -> &SshKey {
        self.successors.last().map_or(&self.client, |succession| &succession.key)
    }

    /// Whether each key was named by the one before it.
    fn successions_hold(&self, suite: &dyn Suite) -> bool {
        let id = self.id();
        let before = std::iter::once(&self.client).chain(self.successors.iter().map(|succession| &succession.key));
        before.zip(&self.successors).enumerate().all(|(place, (before, Succession { key, signature }))| {
            let bytes = Succession::signed_bytes(&self.mesh, &id, place, key);
            signature.len() <= SSHSIG_MAX && suite.sshsig_holds(before, SUCCESSION_NAMESPACE, &bytes, signature)
        })
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
            || !head.successions_hold(suite)
            || !suite.sshsig_holds(head.signer(), NAMESPACE, &signed.bytes, &signed.signature)
        {
            return Err(Check::HeadSignature);
        }
        Ok(Self { head, digest: digest_of(&signed.bytes), signed: signed.clone() })
    }

    /// A head that stands in the records: whoever recorded it has checked its signature.
    pub fn recorded(signed: &SignedHead, _proven: &RowsProven) -> Option<Self> {
        let head: Head = wire::decode(&signed.bytes, HEAD_MAX).ok()?;
        Some(Self { head, digest: digest_of(&signed.bytes), signed: signed.clone() })
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

    /// Whether this head may bring the next value of its credential, or the first.
    ///
    /// # Errors
    /// [`Check::HeadOrder`] unless it is the first, or the next and names the one before.
    pub fn check_value(&self, recorded: Option<&Self>) -> Result<(), Check> {
        let follows = !self.head.removed
            && match recorded {
                None => self.head.number == 1,
                Some(last) => self.is_next_of(last) && self.head.version == last.head.version + 1,
            };
        if follows { Ok(()) } else { Err(Check::HeadOrder) }
    }

    /// Whether this head may change whom the last one allows, who signs it, or whether it is there: nothing of the
    /// value, which stays dealt as it is.
    ///
    /// # Errors
    /// [`Check::HeadOrder`] unless it is the next and names the one before, [`Check::HeadForm`] where it says anything
    /// else of the value.
    pub fn check_change(&self, last: &Self) -> Result<(), Check> {
        if !self.is_next_of(last) || last.head.removed {
            return Err(Check::HeadOrder);
        }
        let (new, old) = (&self.head, &last.head);
        let same = new.version == old.version
            && new.terms == old.terms
            && new.c0 == old.c0
            && new.deal == old.deal
            && new.payload == old.payload
            && new.pieces == old.pieces
            && new.dealer == old.dealer;
        if same { Ok(()) } else { Err(Check::HeadForm) }
    }

    /// The next number, naming the head before; and whoever took over before stays.
    fn is_next_of(&self, last: &Self) -> bool {
        self.head.number == last.head.number + 1
            && self.head.previous == Some(last.digest)
            && self.head.successors.starts_with(&last.head.successors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Fake;

    const OWNER: SshKey = SshKey([1; 32]);
    const OTHER: SshKey = SshKey([2; 32]);

    fn first() -> Head {
        Head {
            mesh: MeshId([7; 32]),
            client: OWNER,
            name: "a".to_owned(),
            number: 1,
            version: 1,
            request: RequestId([1; 16]),
            terms: Terms::new(2, 3, 0).unwrap(),
            c0: Commitment([2; 48]),
            deal: Digest([4; 32]),
            payload: Digest([3; 32]),
            pieces: 1,
            allow: vec![Allow::Role(Role::Host)],
            recipients: Vec::new(),
            dealer: Dealer::Client,
            removed: false,
            previous: None,
            successors: Vec::new(),
        }
    }

    fn verified(head: &Head) -> HeadVerified {
        let bytes = wire::encode(head);
        let signature = Fake::sshsig_sign(head.signer(), NAMESPACE, &bytes);
        HeadVerified::check(&Fake, &MeshId([7; 32]), &SignedHead { bytes, signature }).unwrap()
    }

    fn next(last: &HeadVerified, change: impl FnOnce(&mut Head)) -> HeadVerified {
        let mut head = last.head().clone();
        head.number += 1;
        head.previous = Some(*last.digest());
        change(&mut head);
        verified(&head)
    }

    fn succession(head: &Head, key: SshKey) -> Succession {
        let bytes = Succession::signed_bytes(&head.mesh, &head.id(), head.successors.len(), &key);
        Succession { key, signature: Fake::sshsig_sign(head.signer(), SUCCESSION_NAMESPACE, &bytes) }
    }

    #[test]
    fn a_change_keeps_the_value_and_a_value_is_the_next_version() {
        let last = verified(&first());
        assert_eq!(next(&last, |head| head.allow.clear()).check_change(&last), Ok(()));
        assert_eq!(next(&last, |head| head.removed = true).check_change(&last), Ok(()));
        assert_eq!(next(&last, |head| head.version = 2).check_value(Some(&last)), Ok(()));
        assert_eq!(next(&last, |_| {}).check_value(Some(&last)), Err(Check::HeadOrder), "the same version");
        for of_value in [
            |head: &mut Head| head.version = 2,
            |head: &mut Head| head.c0 = Commitment([9; 48]),
            |head: &mut Head| head.deal = Digest([9; 32]),
            |head: &mut Head| head.payload = Digest([9; 32]),
            |head: &mut Head| head.pieces = 2,
            |head: &mut Head| head.terms.k = 3,
            |head: &mut Head| head.dealer = Dealer::Coordinator(TransportKey([1; 32])),
        ] {
            assert_eq!(next(&last, of_value).check_change(&last), Err(Check::HeadForm));
        }
    }

    #[test]
    fn a_head_that_is_not_the_next_or_names_another_before_it_is_out_of_order() {
        let last = verified(&first());
        let skips = next(&last, |head| head.number = 3);
        let other = next(&last, |head| head.previous = Some(Digest([9; 32])));
        let again = verified(&first());
        for head in [&skips, &other, &again] {
            assert_eq!(head.check_change(&last), Err(Check::HeadOrder));
            assert_eq!(head.check_value(Some(&last)), Err(Check::HeadOrder));
        }
        assert_eq!(skips.check_value(None), Err(Check::HeadOrder), "the first has number 1");
    }

    #[test]
    fn after_a_removal_only_a_new_value_follows() {
        let last = verified(&first());
        let removed = next(&last, |head| head.removed = true);
        assert_eq!(next(&removed, |_| {}).check_change(&removed), Err(Check::HeadOrder));
        assert_eq!(next(&removed, |head| head.version = 2).check_value(Some(&removed)), Err(Check::HeadOrder));
        let back = next(&removed, |head| (head.version, head.removed) = (2, false));
        assert_eq!(back.check_value(Some(&removed)), Ok(()));
    }

    #[test]
    fn who_handed_a_credential_over_signs_no_more() {
        let last = verified(&first());
        let handed = next(&last, |head| head.successors.push(succession(head, OTHER)));
        assert_eq!(handed.check_change(&last), Ok(()));
        assert_eq!(handed.head().signer(), &OTHER);
        let by_owner = next(&handed, |head| head.successors.clear());
        assert_eq!(by_owner.head().signer(), &OWNER);
        assert_eq!(by_owner.check_change(&handed), Err(Check::HeadOrder));
        let to_another = next(&handed, |head| {
            head.successors.clear();
            head.successors.push(succession(head, SshKey([3; 32])));
        });
        assert_eq!(to_another.check_change(&handed), Err(Check::HeadOrder));
        assert_eq!(next(&handed, |head| head.removed = true).check_change(&handed), Ok(()));
    }
}

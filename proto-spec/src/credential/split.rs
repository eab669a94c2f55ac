//! One `deal`, whoever the dealer is: the client's own side, or the coordinator that a thin client asked.

use super::head::{self, Dealer, Head, HeadVerified};
use super::seal::{SealContext, encrypt_payload, payload_digest};
use crate::error::Check;
use crate::limits::{RECIPIENT_TEXT_MAX, RECIPIENTS_MAX};
use crate::suite::{Generator, Suite};
use crate::types::{
    Commitment, Digest, Generation, GroupId, HostId, HpkePublic, MeshId, Purpose, RequestId, SecretBytes, ShareIndex,
    SshKey, Terms,
};
use crate::wire::{self, Package};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// What the owner decides about a put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutOrder {
    /// Names the request: a repetition is recognised.
    pub request: RequestId,
    /// The owner's key.
    pub client: SshKey,
    /// Name of the credential.
    pub name: String,
    /// k, n and the spread.
    pub terms: Terms,
    /// Who may read.
    pub allow: Vec<head::Allow>,
    /// age recipients that open the shard map.
    pub recipients: Vec<String>,
}

impl PutOrder {
    /// Whether lists and texts are within their bounds: it may come from a peer.
    pub fn within_bounds(&self) -> bool {
        crate::text::is_name(&self.name)
            && self.terms.are_sound()
            && self.allow.len() <= crate::limits::ALLOW_MAX
            && self.allow.iter().all(head::Allow::is_sound)
            && self.recipients.len() <= RECIPIENTS_MAX
            && self.recipients.iter().all(|recipient| recipient.len() <= RECIPIENT_TEXT_MAX)
    }
}

/// A holder whose key a dealer may seal to: its evidence was appraised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// The holder.
    pub host: HostId,
    /// Its share-receiving key, from its quote.
    pub key: HpkePublic,
}

/// Where the shares go, in the order of their indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The group.
    pub group: GroupId,
    /// Its generation.
    pub generation: Generation,
    /// Its holders.
    pub receivers: Vec<Receiver>,
}

/// What is dealt, by whom, to whom.
#[derive(Debug, Clone, Copy)]
pub struct Deal<'a> {
    /// The mesh.
    pub mesh: &'a MeshId,
    /// Who deals.
    pub dealer: Dealer,
    /// The owner's order.
    pub order: &'a PutOrder,
    /// Where the shares go.
    pub placement: &'a Placement,
    /// The head that the new one follows.
    pub previous: Option<&'a HeadVerified>,
}

/// Splits a payload: draws a scalar, shares it, encrypts the payload under it, forms the head and seals each share
/// to its holder. The owner signs the head; nothing else is missing.
///
/// # Errors
/// [`Check::Payload`] for its size, [`Check::HeadForm`] for the order, [`Check::EvidenceMissing`] where a holder has
/// no key to seal to.
pub fn deal(
    suite: &dyn Suite,
    generator: &mut Generator,
    deal: &Deal<'_>,
    payload: &SecretBytes,
) -> Result<Package, Check> {
    let Deal { mesh, dealer, order, placement, previous } = *deal;
    let sender = dealer.sender(&order.client);
    if placement.receivers.len() != usize::from(order.terms.n) || !order.within_bounds() {
        return Err(Check::HeadForm);
    }
    let dealt = suite.deal(order.terms, generator).ok_or(Check::HeadForm)?;
    let c0 = *dealt.commitments.first().ok_or(Check::HeadForm)?;
    let id = head::credential_id(&order.client, &order.name);
    let last = previous.map(HeadVerified::head);
    let version = last.map_or(0, |last| last.version) + 1;
    let pieces = encrypt_payload(&dealt.secret, &id, version, payload)?;
    let head = Head {
        mesh: *mesh,
        client: order.client,
        name: order.name.clone(),
        number: last.map_or(0, |last| last.number) + 1,
        version,
        request: order.request,
        terms: order.terms,
        c0,
        deal: commitments_digest(&dealt.commitments),
        payload: payload_digest(&pieces),
        pieces: u16::try_from(pieces.len()).map_err(|_| Check::Payload)?,
        allow: order.allow.clone(),
        recipients: order.recipients.clone(),
        dealer,
        removed: false,
        previous: previous.map(|last| *last.digest()),
        successors: last.map(|last| last.successors.clone()).unwrap_or_default(),
    };
    let bytes = wire::encode(&head);
    let digest = head::digest_of(&bytes);
    let mut sealed = Vec::new();
    for ((index, share), receiver) in (1..).map(ShareIndex).zip(&dealt.shares).zip(&placement.receivers) {
        let context = SealContext {
            mesh,
            client: &order.client,
            id: &id,
            version,
            generation: placement.generation,
            index,
            sender: &sender,
            receiver: &receiver.host,
            head: &digest,
        };
        let info = context.info(Purpose::Deal);
        let one = suite.hpke_seal(&receiver.key, &info.0, share.expose(), generator).ok_or(Check::EvidenceMissing)?;
        sealed.push(ByteBuf::from(one));
    }
    Ok(Package {
        head: bytes,
        group: placement.group,
        generation: placement.generation,
        commitments: dealt.commitments,
        sealed,
        pieces: pieces.into_iter().map(ByteBuf::from).collect(),
    })
}

/// Digest of a vector of commitments: receipts agree on it, so that all holders were dealt the same polynomial.
pub fn commitments_digest(commitments: &[Commitment]) -> Digest {
    let parts: Vec<&[u8]> = commitments.iter().map(AsRef::as_ref).collect();
    Purpose::Commitments.digest(&parts)
}

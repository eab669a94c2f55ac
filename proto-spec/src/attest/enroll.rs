//! Enrolment: which chip, which key in it, and what it measured. The checks of one joiner, in the order in which
//! the coordinator makes them; each refusal names its check.

use std::collections::BTreeMap;

use super::chain::check_ek_certificate;
use super::quote::{Quote, QuoteVerified};
use super::tpm::{AkPublic, CredentialBlob, EkPublic};
use crate::error::Check;
use crate::genesis::GenesisVerified;
use crate::limits::{CERTIFICATE_MAX, EKS_MAX, INTERMEDIATES_MAX, PCRS_MAX, RECIPIENT_TEXT_MAX};
use crate::membership::MemberRecord;
use crate::suite::{Generator, Suite, VerifiedKey};
use crate::ticket::{Ticket, TicketVerified};
use crate::types::{BlsPublic, BlsSignature, Digest, HostId, MeshId, Purpose, SecretBytes, TransportKey, sha256};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// One endorsement key of the joiner's chip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EkOffer {
    /// TPMT_PUBLIC.
    #[serde(with = "serde_bytes")]
    pub public: Vec<u8>,
    /// X.509 DER; empty where the chip holds none.
    #[serde(with = "serde_bytes")]
    pub certificate: Vec<u8>,
}

/// What a joiner says of itself. Nothing of it is believed before the challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinerKeys {
    /// All endorsement keys of the chip.
    pub eks: Vec<EkOffer>,
    /// Certificates between the EK certificates and a root.
    pub intermediates: Vec<ByteBuf>,
    /// TPMT_PUBLIC of the attestation key.
    #[serde(with = "serde_bytes")]
    pub ak: Vec<u8>,
    /// Its transport key: that of the connection.
    pub transport: TransportKey,
    /// Its vote key.
    pub vote: BlsPublic,
    /// Proof of possession of the vote key.
    pub vote_proof: BlsSignature,
    /// age recipient for shard maps.
    pub map_recipient: String,
    /// PCR values now: what will be good for this machine.
    pub pcrs: BTreeMap<u8, Digest>,
}

impl JoinerKeys {
    /// Whether every list and text is within its bound.
    pub fn within_bounds(&self) -> bool {
        self.eks.len() <= EKS_MAX
            && self.eks.iter().all(|ek| ek.certificate.len() <= CERTIFICATE_MAX)
            && self.intermediates.len() <= INTERMEDIATES_MAX
            && self.intermediates.iter().all(|der| der.len() <= CERTIFICATE_MAX)
            && self.map_recipient.len() <= RECIPIENT_TEXT_MAX
            && self.pcrs.len() <= PCRS_MAX
    }
}

/// A joiner that passed every check but the challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    record: MemberRecord,
    eks: Vec<EkPublic>,
    ak: AkPublic,
}

/// A challenge that is open: the secrets that only the right chip recovers.
pub struct OpenChallenge {
    candidate: Candidate,
    secrets: Vec<SecretBytes>,
}

/// The identity of a chip: SHA-256 over the count and the sorted EK public areas, each behind its length.
pub fn host_id(eks: &[EkPublic]) -> HostId {
    let mut areas: Vec<&[u8]> = eks.iter().map(EkPublic::bytes).collect();
    areas.sort_unstable();
    let mut list = u32::try_from(areas.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    for area in areas {
        list.extend_from_slice(&u32::try_from(area.len()).unwrap_or(u32::MAX).to_be_bytes());
        list.extend_from_slice(area);
    }
    HostId(sha256(&list).0)
}

/// The record that a ticket and a joiner's keys give: both sides form it, so that the joiner's quote covers what it
/// agrees to.
pub fn member_record(ticket: &Ticket, keys: &JoinerKeys, eks: &[EkPublic]) -> MemberRecord {
    let mut areas: Vec<_> = eks.iter().map(|ek| ByteBuf::from(ek.bytes())).collect();
    areas.sort_unstable();
    MemberRecord {
        host: host_id(eks),
        name: ticket.name.clone(),
        role: ticket.role,
        domain: ticket.domain.clone(),
        region: ticket.region.clone(),
        zone: ticket.zone.clone(),
        eks: areas,
        ak: keys.ak.clone(),
        transport: keys.transport,
        vote: keys.vote,
        vote_proof: keys.vote_proof,
        map_recipient: keys.map_recipient.clone(),
        good_pcrs: keys.pcrs.clone(),
        ticket: ticket.serial,
    }
}

impl Candidate {
    /// Checks ticket, EKs, AK and keys of a joiner.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(
        suite: &dyn Suite,
        genesis: &GenesisVerified,
        ticket: &TicketVerified,
        keys: &JoinerKeys,
        wall_ms: u64,
    ) -> Result<Self, Check> {
        if !keys.within_bounds() {
            return Err(Check::Capacity);
        }
        let eks = check_eks(genesis, ticket, keys, wall_ms)?;
        let ak = AkPublic::parse(&keys.ak).map_err(|_| Check::AkAttributes)?;
        VerifiedKey::check(suite, &keys.vote, &keys.vote_proof).ok_or(Check::VoteKey)?;
        if keys.pcrs.keys().ne(genesis.genesis().pcrs.iter()) {
            return Err(Check::Quote);
        }
        let record = member_record(ticket.ticket(), keys, &eks);
        Ok(Self { record, eks, ak })
    }

    /// The record that is signed once the challenge is answered.
    pub fn record(&self) -> &MemberRecord {
        &self.record
    }

    /// One secret per EK, each wrapped so that only the chip with that EK and this AK gives it up.
    ///
    /// # Errors
    /// [`Check::EkPublic`] where an EK is not a usable key.
    pub fn challenge(
        self,
        suite: &dyn Suite,
        generator: &mut Generator,
    ) -> Result<(OpenChallenge, Vec<CredentialBlob>), Check> {
        let name = self.ak.name();
        let mut secrets = Vec::new();
        let mut blobs = Vec::new();
        for ek in &self.eks {
            let secret = generator.secret(32);
            blobs.push(suite.make_credential(ek, &name, &secret, generator).ok_or(Check::EkPublic)?);
            secrets.push(secret);
        }
        Ok((OpenChallenge { candidate: self, secrets }, blobs))
    }
}

impl OpenChallenge {
    /// Whose challenge it is.
    pub fn record(&self) -> &MemberRecord {
        &self.candidate.record
    }

    /// Checks the answer: a quote by the AK over all recovered secrets and what it was to bind: the record's digest, or
    /// a digest over that and more. A quote over the right qualifying data is the proof; the secrets themselves never
    /// travel back.
    ///
    /// # Errors
    /// [`Check::Challenge`] for another quote or other measurements than the record says.
    pub fn check_answer(
        self,
        suite: &dyn Suite,
        mesh: &MeshId,
        bound: &Digest,
        quote: &Quote,
    ) -> Result<MemberRecord, Check> {
        let qualifying = answer_digest(mesh, &self.secrets, bound);
        let quote =
            QuoteVerified::check(suite, quote, &self.candidate.ak, &qualifying).map_err(|_| Check::Challenge)?;
        if *quote.pcrs() != self.candidate.record.good_pcrs {
            return Err(Check::Challenge);
        }
        Ok(self.candidate.record)
    }
}

/// Qualifying data of the quote that answers a challenge.
pub fn answer_digest(mesh: &MeshId, secrets: &[SecretBytes], bound: &Digest) -> Digest {
    let mut parts: Vec<&[u8]> = vec![&mesh.0, &bound.0];
    parts.extend(secrets.iter().map(SecretBytes::expose));
    Purpose::Enrolment.digest(&parts)
}

fn check_eks(
    genesis: &GenesisVerified,
    ticket: &TicketVerified,
    keys: &JoinerKeys,
    wall_ms: u64,
) -> Result<Vec<EkPublic>, Check> {
    let eks = keys
        .eks
        .iter()
        .map(|offer| EkPublic::parse(&offer.public).map_err(|_| Check::EkPublic))
        .collect::<Result<Vec<_>, _>>()?;
    if eks.is_empty() || has_twins(&eks) {
        return Err(Check::EkPublic);
    }
    if let Some(wanted) = ticket.ticket().ek_hash
        && eks.iter().all(|ek| ek.hash() != wanted)
    {
        return Err(Check::TicketEk);
    }
    let roots: Vec<Vec<u8>> = genesis.genesis().ek_roots.iter().map(|root| root.to_vec()).collect();
    let intermediates: Vec<Vec<u8>> = keys.intermediates.iter().map(|der| der.to_vec()).collect();
    let mut trusted = false;
    for (ek, offer) in eks.iter().zip(&keys.eks) {
        if genesis.genesis().ek_hashes.contains(&ek.hash()) {
            trusted = true;
        } else if !offer.certificate.is_empty() {
            check_ek_certificate(ek, &offer.certificate, &intermediates, &roots, wall_ms)?;
            trusted = true;
        }
    }
    // One endorsed EK vouches for the chip: the challenge proves that the others sit in the same one.
    if trusted { Ok(eks) } else { Err(Check::EkUntrusted) }
}

fn has_twins(eks: &[EkPublic]) -> bool {
    eks.iter().enumerate().any(|(at, ek)| eks.iter().skip(at + 1).any(|other| other == ek))
}

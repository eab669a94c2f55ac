//! The genesis record: what a mesh is. Its digest names the mesh and stands in every signed byte.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use thiserror::Error;

use crate::limits::{
    CERTIFICATE_MAX, COMMITTEE_MAX, COMMITTEE_MIN, DOMAINS_MAX, EK_HASHES_MAX, EK_ROOTS_MAX, EPOCH_MS_MAX,
    EPOCH_MS_MIN, GENESIS_MAX, OPERATORS_MAX, PCRS_MAX, RECIPIENT_TEXT_MAX, RECIPIENTS_MAX, SSHSIG_MAX,
    TESTNET_EPOCH_MS_MIN,
};
use crate::suite::Suite;
use crate::types::{Digest, MeshId, SshKey, sha256};
use crate::{text, wire};

/// SSHSIG namespace under which operators sign the genesis.
pub const NAMESPACE: &str = "vouchsafe.genesis.v1";
/// Newest version of the replicated state that these rules know; a new mesh starts with it.
pub const PROTOCOL_VERSION: u16 = 1;

/// An administrative domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Keys of its operators.
    pub operators: Vec<SshKey>,
    /// age recipients of its recovery files.
    pub recovery: Vec<String>,
}

/// What the founders agree on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Version of the replicated state.
    pub protocol_version: u16,
    /// Name of the mesh, for people.
    pub name: String,
    /// Allows epochs shorter than 5 s.
    pub testnet: bool,
    /// Wall clock at the founding, in milliseconds: round 1 begins here.
    pub created_ms: u64,
    /// Length of an epoch in milliseconds.
    pub epoch_ms: u64,
    /// Hostile domains tolerated (*a*).
    pub tolerate: u8,
    /// Seats of the committee once there are hosts enough: odd, 3 to 21.
    pub committee: u8,
    /// The administrative domains.
    pub domains: Vec<Domain>,
    /// X.509 certificates (DER) at which an EK chain may end.
    pub ek_roots: Vec<ByteBuf>,
    /// SHA-256 of EK public areas that are taken without a certificate.
    pub ek_hashes: Vec<Digest>,
    /// PCRs that are measured: their values at enrolment are the good ones.
    pub pcrs: Vec<u8>,
}

/// What is wrong with a genesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GenesisError {
    /// Too long or not in canonical form.
    #[error("not a genesis record")]
    Form,
    /// A field is beyond its bound; the field is named.
    #[error("its field `{0}` is out of bounds")]
    Field(&'static str),
    /// An operator that it names has not signed it.
    #[error("it is not signed by every operator that it names")]
    Signatures,
    /// A version that this binary does not support.
    #[error("its protocol version is not supported here")]
    Version,
}

impl Genesis {
    /// Whether it is one that could be signed.
    ///
    /// # Errors
    /// The field that is out of bounds.
    pub fn check_bounds(&self) -> Result<(), GenesisError> {
        // drand's clients count rounds in whole seconds.
        let whole_seconds = self.epoch_ms.is_multiple_of(1_000);
        let shortest = if self.testnet { TESTNET_EPOCH_MS_MIN } else { EPOCH_MS_MIN };
        let domains = &self.domains;
        let names: std::collections::BTreeSet<&str> = domains.iter().map(|domain| domain.name.as_str()).collect();
        let operators: Vec<&SshKey> = self.operators().collect();
        let distinct: std::collections::BTreeSet<&&SshKey> = operators.iter().collect();
        let seats = COMMITTEE_MIN..=COMMITTEE_MAX;
        let checks = [
            ("name", text::is_name(&self.name)),
            ("epoch_ms", (shortest..=EPOCH_MS_MAX).contains(&self.epoch_ms) && (self.testnet || whole_seconds)),
            ("domains", !domains.is_empty() && domains.len() <= DOMAINS_MAX && names.len() == domains.len()),
            ("domain name", domains.iter().all(|domain| text::is_name(&domain.name))),
            ("operators", domains.iter().all(|d| !d.operators.is_empty() && d.operators.len() <= OPERATORS_MAX)),
            ("operators", distinct.len() == operators.len()),
            ("recovery", domains.iter().all(|domain| within(&domain.recovery, RECIPIENTS_MAX, RECIPIENT_TEXT_MAX))),
            ("tolerate", usize::from(self.tolerate) < domains.len() && (self.tolerate == 0 || domains.len() >= 3)),
            ("committee", self.committee % 2 == 1 && seats.contains(&usize::from(self.committee))),
            ("ek_roots", self.ek_roots.len() <= EK_ROOTS_MAX),
            ("ek_roots", self.ek_roots.iter().all(|root| root.len() <= CERTIFICATE_MAX)),
            ("ek_hashes", self.ek_hashes.len() <= EK_HASHES_MAX),
            ("ek_roots", !(self.ek_roots.is_empty() && self.ek_hashes.is_empty())),
            ("pcrs", !self.pcrs.is_empty() && self.pcrs.iter().all(|pcr| usize::from(*pcr) < PCRS_MAX)),
            ("pcrs", self.pcrs.is_sorted_by(|a, b| a < b)),
        ];
        match checks.into_iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(GenesisError::Field(field)),
            None => Ok(()),
        }
    }

    /// Every operator key, in the order of the record.
    pub fn operators(&self) -> impl Iterator<Item = &SshKey> {
        self.domains.iter().flat_map(|domain| &domain.operators)
    }

    /// The domain of an operator.
    pub fn domain_of(&self, operator: &SshKey) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.operators.contains(operator))
    }
}

fn within(texts: &[String], count: usize, length: usize) -> bool {
    texts.len() <= count && texts.iter().all(|text| text.len() <= length)
}

/// The record as bytes, with one SSHSIG per operator in the order of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedGenesis {
    /// Canonical bytes of the [`Genesis`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Armoured signatures.
    pub signatures: Vec<String>,
}

/// A genesis whose bounds and signatures hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenesisVerified {
    genesis: Genesis,
    mesh: MeshId,
    signed: SignedGenesis,
}

impl GenesisVerified {
    /// Checks form, bounds, version and the signature of every operator.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(suite: &dyn Suite, signed: &SignedGenesis) -> Result<Self, GenesisError> {
        let genesis: Genesis = wire::decode(&signed.bytes, GENESIS_MAX).map_err(|_| GenesisError::Form)?;
        if !(1..=PROTOCOL_VERSION).contains(&genesis.protocol_version) {
            return Err(GenesisError::Version);
        }
        genesis.check_bounds()?;
        if genesis.operators().count() != signed.signatures.len()
            || signed.signatures.iter().any(|signature| signature.len() > SSHSIG_MAX)
        {
            return Err(GenesisError::Signatures);
        }
        let all = genesis
            .operators()
            .zip(&signed.signatures)
            .all(|(operator, signature)| suite.sshsig_holds(operator, NAMESPACE, &signed.bytes, signature));
        if !all {
            return Err(GenesisError::Signatures);
        }
        Ok(Self { mesh: MeshId(sha256(&signed.bytes).0), genesis, signed: signed.clone() })
    }

    /// The record.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// SHA-256 of its bytes.
    pub fn mesh(&self) -> &MeshId {
        &self.mesh
    }

    /// The signed form, to show to others.
    pub fn signed(&self) -> &SignedGenesis {
        &self.signed
    }
}

//! A quote, checked in software: no TPM is needed to verify one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::tpm::{AkPublic, QuoteContent, parse_signature};
use crate::error::Check;
use crate::limits::PCRS_MAX;
use crate::suite::Suite;
use crate::types::Digest;

/// What a TPM answers to TPM2_Quote, with the PCR values that the daemon read beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quote {
    /// TPMS_ATTEST.
    #[serde(with = "serde_bytes")]
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE over it.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
    /// PCR number → value, SHA-256 bank: believed only as far as the quoted digest covers them.
    pub pcrs: BTreeMap<u8, Digest>,
}

/// A quote whose signature, qualifying data and PCR values hold. Only [`QuoteVerified::check`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteVerified {
    content: QuoteContent,
    pcrs: BTreeMap<u8, Digest>,
}

impl QuoteVerified {
    /// Checks that this AK signed this quote over this qualifying data, and that the PCR values beside it are those
    /// that were quoted.
    ///
    /// # Errors
    /// [`Check::EvidenceSignature`] for the signature, [`Check::Quote`] for everything else.
    pub fn check(suite: &dyn Suite, quote: &Quote, ak: &AkPublic, qualifying: &Digest) -> Result<Self, Check> {
        let content = QuoteContent::parse(&quote.attest).map_err(|_| Check::Quote)?;
        let signature = parse_signature(&quote.signature).map_err(|_| Check::EvidenceSignature)?;
        if !suite.ecdsa_holds(ak.point(), &quote.attest, &signature) {
            return Err(Check::EvidenceSignature);
        }
        let numbers: Vec<u8> = quote.pcrs.keys().copied().collect();
        let fits = content.extra_data == qualifying.0
            && quote.pcrs.len() <= PCRS_MAX
            && content.pcrs == numbers
            && content.pcr_digest == digest_of_pcrs(&quote.pcrs);
        if fits { Ok(Self { content, pcrs: quote.pcrs.clone() }) } else { Err(Check::Quote) }
    }

    /// What the TPM said.
    pub fn content(&self) -> &QuoteContent {
        &self.content
    }

    /// The quoted PCR values.
    pub fn pcrs(&self) -> &BTreeMap<u8, Digest> {
        &self.pcrs
    }
}

/// SHA-256 over the values in the order of their numbers, as TPM2_Quote forms it.
pub fn digest_of_pcrs(pcrs: &BTreeMap<u8, Digest>) -> Digest {
    let mut hash = Sha256::new();
    for value in pcrs.values() {
        hash.update(value.0);
    }
    Digest(hash.finalize().into())
}

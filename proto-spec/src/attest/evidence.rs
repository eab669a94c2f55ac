//! Evidence: one quote per epoch and host, over everything that the host shows in that epoch.

use serde::{Deserialize, Serialize};

use super::policy;
use super::quote::{Quote, QuoteVerified};
use super::tpm::AkPublic;
use crate::beacon::EpochVerified;
use crate::error::Check;
use crate::membership::MemberRecord;
use crate::suite::Suite;
use crate::types::{Beacon, Digest, Ed25519Signature, HostId, HpkePublic, MeshId, Purpose, Round, SecretBytes};
use crate::wire;

/// Log digests that one evidence may carry (boot log, IMA list).
const LOGS_MAX: usize = 4;

/// The fields that the quote covers, and the quote. Its qualifying data are final; zeros stand where the digests of
/// a certificate and of a statement and the root of the nonces will come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The epoch.
    pub round: Round,
    /// Whose evidence it is.
    pub host: HostId,
    /// Digest of the newest certificate that the host holds.
    pub certificate: Digest,
    /// Digest of its own last statement.
    pub statement: Digest,
    /// To this key releases of this epoch are sealed.
    pub session: HpkePublic,
    /// To this key dealers seal shares. Zeros: none yet.
    pub share_receiving: HpkePublic,
    /// Root of the nonces that arrived before the quote.
    pub nonce_root: Digest,
    /// Digests of the logs that explain the PCRs.
    pub logs: Vec<Digest>,
    /// The quote.
    pub quote: Quote,
}

/// Evidence with the transport key's signature over all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedEvidence {
    /// The evidence.
    pub evidence: Evidence,
    /// Signature of the host's transport key.
    pub signature: Ed25519Signature,
}

impl Evidence {
    /// The qualifying data: H(tag ‖ mesh ‖ r ‖ beacon ‖ host ‖ certificate ‖ statement ‖ session key ‖
    /// share-receiving key ‖ nonce root).
    pub fn qualifying(&self, mesh: &MeshId, beacon: &Beacon) -> Digest {
        qualifying(
            mesh,
            self.round,
            beacon,
            &self.host,
            &self.certificate,
            &self.statement,
            &self.session,
            &self.share_receiving,
            &self.nonce_root,
        )
    }

    /// Signs the whole with the transport key.
    pub fn sign(self, suite: &dyn Suite, mesh: &MeshId, transport_seed: &SecretBytes) -> Option<SignedEvidence> {
        let bytes = Purpose::EvidenceEnvelope.signed_bytes(mesh, &wire::encode(&self));
        let signature = suite.ed25519_sign(transport_seed, &bytes)?;
        Some(SignedEvidence { evidence: self, signature })
    }
}

/// The qualifying data of an evidence, before there is a quote.
#[allow(clippy::too_many_arguments, reason = "the fields of the protocol's formula, in its order")]
pub fn qualifying(
    mesh: &MeshId,
    round: Round,
    beacon: &Beacon,
    host: &HostId,
    certificate: &Digest,
    statement: &Digest,
    session: &HpkePublic,
    share_receiving: &HpkePublic,
    nonce_root: &Digest,
) -> Digest {
    Purpose::Evidence.digest(&[
        &mesh.0,
        &round.0.to_be_bytes(),
        &beacon.0,
        &host.0,
        &certificate.0,
        &statement.0,
        &session.0,
        &share_receiving.0,
        &nonce_root.0,
    ])
}

/// Evidence of a member whose signatures, epoch and measurements were found good. Only [`Appraised::check`] makes
/// one; whether its epoch is still current is asked again at each use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appraised {
    signed: SignedEvidence,
    quote: QuoteVerified,
}

impl Appraised {
    /// Appraises evidence against the member's record and the epoch that it names.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(
        suite: &dyn Suite,
        mesh: &MeshId,
        epoch: &EpochVerified,
        record: &MemberRecord,
        signed: &SignedEvidence,
    ) -> Result<Self, Check> {
        let evidence = &signed.evidence;
        if evidence.host != record.host {
            return Err(Check::Membership);
        }
        if evidence.round != epoch.round() || evidence.logs.len() > LOGS_MAX {
            return Err(Check::EvidenceStale);
        }
        let bytes = Purpose::EvidenceEnvelope.signed_bytes(mesh, &wire::encode(evidence));
        if !suite.ed25519_holds(&record.transport, &bytes, &signed.signature) {
            return Err(Check::EvidenceSignature);
        }
        let ak = AkPublic::parse(&record.ak).map_err(|_| Check::AkAttributes)?;
        let qualifying = evidence.qualifying(mesh, epoch.beacon());
        let quote = QuoteVerified::check(suite, &evidence.quote, &ak, &qualifying)?;
        policy::appraise(&quote, &record.good_pcrs)?;
        Ok(Self { signed: signed.clone(), quote })
    }

    /// The evidence.
    pub fn evidence(&self) -> &Evidence {
        &self.signed.evidence
    }

    /// The evidence with its signature, to show to others.
    pub fn signed(&self) -> &SignedEvidence {
        &self.signed
    }

    /// What the TPM said.
    pub fn quote(&self) -> &QuoteVerified {
        &self.quote
    }
}

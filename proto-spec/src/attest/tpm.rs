//! TPM 2.0 structures as bytes from outside: bounded, parsed once, refused when anything is left over.
//!
//! Sources: TPM 2.0 Library, Part 2 (Structures), 10.12 TPMS_ATTEST, 11.3 signatures, 12.2 public areas;
//! TCG EK Credential Profile 2.5, B.3 and B.4 (EK templates).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{ATTEST_MAX, PCRS_MAX, TPM_PUBLIC_MAX, TPM_SIGNATURE_MAX};
use crate::types::{Digest, EcdsaSignature, sha256};

const ALG_RSA: u16 = 0x0001;
const ALG_SHA256: u16 = 0x000b;
const ALG_SHA384: u16 = 0x000c;
const ALG_NULL: u16 = 0x0010;
const ALG_ECDSA: u16 = 0x0018;
const ALG_ECC: u16 = 0x0023;
const CURVE_P256: u16 = 0x0003;
const CURVE_P384: u16 = 0x0004;
const GENERATED: u32 = 0xff54_4347;
const ST_ATTEST_QUOTE: u16 = 0x8018;

const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;

/// What is wrong with a TPM structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TpmFormError {
    /// Longer than its bound; not parsed.
    #[error("longer than its bound")]
    TooLong,
    /// Ends early, or has bytes left over.
    #[error("wrong length")]
    Length,
    /// Not the structure that was asked for.
    #[error("not the expected kind of structure")]
    Kind,
    /// An algorithm or key size that is not taken.
    #[error("an algorithm that is not taken")]
    Algorithm,
    /// The key's attributes are not those of its purpose.
    #[error("wrong key attributes")]
    Attributes,
}

/// Reads big-endian TPM structures and never beyond their end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], TpmFormError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(TpmFormError::Length)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TpmFormError> {
        self.take(N)?.try_into().map_err(|_| TpmFormError::Length)
    }

    fn u8(&mut self) -> Result<u8, TpmFormError> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, TpmFormError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, TpmFormError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, TpmFormError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B: 16 bits of length, then so many bytes.
    fn sized(&mut self) -> Result<&'a [u8], TpmFormError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    fn expect(&mut self, value: u16) -> Result<(), TpmFormError> {
        if self.u16()? == value { Ok(()) } else { Err(TpmFormError::Algorithm) }
    }

    fn end(&self) -> Result<(), TpmFormError> {
        if self.0.is_empty() { Ok(()) } else { Err(TpmFormError::Length) }
    }
}

fn bounded(bytes: &[u8], max: usize) -> Result<Reader<'_>, TpmFormError> {
    if bytes.len() > max { Err(TpmFormError::TooLong) } else { Ok(Reader(bytes)) }
}

/// Big-endian integer of at most N bytes, padded on the left: TPMs drop leading zeros.
fn padded<const N: usize>(bytes: &[u8]) -> Result<[u8; N], TpmFormError> {
    let mut out = [0; N];
    let start = N.checked_sub(bytes.len()).ok_or(TpmFormError::Length)?;
    for (to, from) in out.iter_mut().skip(start).zip(bytes) {
        *to = *from;
    }
    Ok(out)
}

/// A point on P-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EccPoint {
    /// x, big-endian.
    pub x: [u8; 32],
    /// y, big-endian.
    pub y: [u8; 32],
}

impl EccPoint {
    /// SEC 1 uncompressed form.
    pub fn uncompressed(&self) -> Vec<u8> {
        [[4].as_slice(), &self.x, &self.y].concat()
    }
}

/// What TPM2_ActivateCredential takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialBlob {
    /// TPM2B_ID_OBJECT without its outer length.
    #[serde(with = "serde_bytes")]
    pub id_object: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET without its outer length.
    #[serde(with = "serde_bytes")]
    pub encrypted_seed: Vec<u8>,
}

/// The key inside an endorsement key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EkKey {
    /// RSA-2048 (template L-1).
    Rsa2048 {
        /// The modulus, big-endian; the exponent is 65537.
        modulus: Box<[u8; 256]>,
    },
    /// P-384 (template H-3).
    EccP384 {
        /// x, big-endian.
        x: [u8; 48],
        /// y, big-endian.
        y: [u8; 48],
    },
}

/// An endorsement key's public area, parsed and found to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EkPublic {
    bytes: Vec<u8>,
    key: EkKey,
}

impl EkPublic {
    /// Reads a TPMT_PUBLIC. The key must be a restricted decryption key that never left its TPM.
    ///
    /// # Errors
    /// Says what is wrong with the structure.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmFormError> {
        let mut read = bounded(bytes, TPM_PUBLIC_MAX)?;
        let kind = read.u16()?;
        let name_algorithm = read.u16()?;
        let attributes = read.u32()?;
        let wanted = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | DECRYPT;
        if attributes & wanted != wanted || attributes & SIGN != 0 {
            return Err(TpmFormError::Attributes);
        }
        read.sized()?; // the policy: whoever may use the EK, its possession is what the challenge proves
        let _symmetric = (read.u16()?, read.u16()?, read.u16()?);
        let key = match (kind, name_algorithm) {
            (ALG_RSA, ALG_SHA256) => Self::rsa_key(&mut read)?,
            (ALG_ECC, ALG_SHA384) => {
                read.expect(ALG_NULL)?;
                read.expect(CURVE_P384)?;
                read.expect(ALG_NULL)?;
                EkKey::EccP384 { x: padded(read.sized()?)?, y: padded(read.sized()?)? }
            }
            _ => return Err(TpmFormError::Algorithm),
        };
        read.end()?;
        Ok(Self { bytes: bytes.to_vec(), key })
    }

    fn rsa_key(read: &mut Reader<'_>) -> Result<EkKey, TpmFormError> {
        read.expect(ALG_NULL)?;
        let (bits, exponent) = (read.u16()?, read.u32()?);
        if bits != 2048 || (exponent != 0 && exponent != 65_537) {
            return Err(TpmFormError::Algorithm);
        }
        Ok(EkKey::Rsa2048 { modulus: Box::new(padded(read.sized()?)?) })
    }

    /// The public area as it came: what the identity of a host is a digest of.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key inside.
    pub fn key(&self) -> &EkKey {
        &self.key
    }

    /// SHA-256 of the public area: what EK-hash lists and tickets name.
    pub fn hash(&self) -> Digest {
        sha256(&self.bytes)
    }
}

/// An attestation key's public area, parsed and found to be a restricted ECDSA P-256 signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AkPublic {
    bytes: Vec<u8>,
    point: EccPoint,
}

impl AkPublic {
    /// Reads a TPMT_PUBLIC. Only a restricted key that was made in its TPM and cannot leave it is taken: such a key
    /// signs nothing that looks like an attestation but was not made by the TPM.
    ///
    /// # Errors
    /// Says what is wrong with the structure.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmFormError> {
        let mut read = bounded(bytes, TPM_PUBLIC_MAX)?;
        read.expect(ALG_ECC)?;
        read.expect(ALG_SHA256)?;
        let attributes = read.u32()?;
        let wanted = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | SIGN;
        if attributes & wanted != wanted || attributes & DECRYPT != 0 {
            return Err(TpmFormError::Attributes);
        }
        read.sized()?;
        read.expect(ALG_NULL)?;
        read.expect(ALG_ECDSA)?;
        read.expect(ALG_SHA256)?;
        read.expect(CURVE_P256)?;
        read.expect(ALG_NULL)?;
        let point = EccPoint { x: padded(read.sized()?)?, y: padded(read.sized()?)? };
        read.end()?;
        Ok(Self { bytes: bytes.to_vec(), point })
    }

    /// The public area as it came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key.
    pub fn point(&self) -> &EccPoint {
        &self.point
    }

    /// The TPM's name of the key: its name algorithm and the SHA-256 of its public area.
    pub fn name(&self) -> Vec<u8> {
        [ALG_SHA256.to_be_bytes().as_slice(), &sha256(&self.bytes).0].concat()
    }
}

/// A TPMS_ATTEST of a quote, parsed. Nothing in it is to be believed before the signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteContent {
    /// The qualifying data that the asker chose.
    pub extra_data: Vec<u8>,
    /// The TPM's clock in milliseconds.
    pub clock_ms: u64,
    /// How often the TPM was reset.
    pub reset_count: u32,
    /// How often it was restarted or resumed since.
    pub restart_count: u32,
    /// Whether the clock is known not to have gone back.
    pub clock_safe: bool,
    /// The selected PCRs of the SHA-256 bank, ascending.
    pub pcrs: Vec<u8>,
    /// SHA-256 over their values, in that order.
    pub pcr_digest: Digest,
}

impl QuoteContent {
    /// Reads a TPMS_ATTEST over exactly one bank, SHA-256.
    ///
    /// # Errors
    /// Says what is wrong with the structure.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmFormError> {
        let mut read = bounded(bytes, ATTEST_MAX)?;
        if read.u32()? != GENERATED || read.u16()? != ST_ATTEST_QUOTE {
            return Err(TpmFormError::Kind);
        }
        read.sized()?; // the signer's qualified name: says nothing that the signature does not
        let extra_data = read.sized()?.to_vec();
        let clock_ms = read.u64()?;
        let (reset_count, restart_count) = (read.u32()?, read.u32()?);
        let clock_safe = read.u8()? == 1;
        let _firmware_version = read.u64()?;
        if read.u32()? != 1 {
            return Err(TpmFormError::Algorithm);
        }
        read.expect(ALG_SHA256)?;
        let length = read.u8()?;
        let pcrs = selected(read.take(usize::from(length))?)?;
        let pcr_digest = Digest::from_slice(read.sized()?).ok_or(TpmFormError::Length)?;
        read.end()?;
        Ok(Self { extra_data, clock_ms, reset_count, restart_count, clock_safe, pcrs, pcr_digest })
    }
}

fn selected(bitmap: &[u8]) -> Result<Vec<u8>, TpmFormError> {
    let mut pcrs = Vec::new();
    for (number, byte) in (0_u8..).step_by(8).zip(bitmap) {
        pcrs.extend((0..8).filter(|bit| byte & (1 << bit) != 0).map(|bit| number + bit));
    }
    if bitmap.len() > PCRS_MAX / 8 { Err(TpmFormError::Length) } else { Ok(pcrs) }
}

/// Reads a TPMT_SIGNATURE: ECDSA with SHA-256.
///
/// # Errors
/// Says what is wrong with the structure.
pub fn parse_signature(bytes: &[u8]) -> Result<EcdsaSignature, TpmFormError> {
    let mut read = bounded(bytes, TPM_SIGNATURE_MAX)?;
    read.expect(ALG_ECDSA)?;
    read.expect(ALG_SHA256)?;
    let r: [u8; 32] = padded(read.sized()?)?;
    let s: [u8; 32] = padded(read.sized()?)?;
    read.end()?;
    let mut signature = EcdsaSignature::ZERO;
    for (to, from) in signature.0.iter_mut().zip(r.into_iter().chain(s)) {
        *to = from;
    }
    Ok(signature)
}

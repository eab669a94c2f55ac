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
const GENERATED: u32 = 0xff54_4347;
const ST_ATTEST_QUOTE: u16 = 0x8018;

/// What stands between the algorithms and the key of an RSA-2048 EK (TCG EK Credential Profile 2.5, B.3.3, L-1):
/// attributes, PolicySecret(endorsement) under SHA-256, AES-128-CFB, no scheme, 2048 bits, exponent 65537.
const TEMPLATE_L1: &[u8] = &[
    0x00, 0x03, 0x00, 0xb2, 0x00, 0x20, 0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46,
    0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
    0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00,
];
/// The same of a P-384 EK (B.4.5, H-3): attributes, PolicyB under SHA-384, AES-256-CFB, no scheme, P-384, no KDF.
const TEMPLATE_H3: &[u8] = &[
    0x00, 0x03, 0x00, 0xf2, 0x00, 0x30, 0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5,
    0xfd, 0x3a, 0x1a, 0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
    0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12, 0x00, 0x06, 0x01,
    0x00, 0x00, 0x43, 0x00, 0x10, 0x00, 0x04, 0x00, 0x10,
];

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

    /// This very number, or it is another kind of structure.
    fn constant(&mut self, value: u16) -> Result<(), TpmFormError> {
        if self.u16()? == value { Ok(()) } else { Err(TpmFormError::Algorithm) }
    }

    /// Exactly these bytes, or it is another kind of key.
    fn template(&mut self, template: &[u8]) -> Result<(), TpmFormError> {
        if self.take(template.len())? == template { Ok(()) } else { Err(TpmFormError::Attributes) }
    }

    /// A TPM2B of exactly this length.
    fn exactly<const N: usize>(&mut self) -> Result<[u8; N], TpmFormError> {
        self.sized()?.try_into().map_err(|_| TpmFormError::Length)
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
    /// Reads a TPMT_PUBLIC. Only the two templates of the TCG are taken, field by field: a chip could show one and the
    /// same key in many public areas otherwise, and be as many members.
    ///
    /// # Errors
    /// Says what is wrong with the structure.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmFormError> {
        let mut read = bounded(bytes, TPM_PUBLIC_MAX)?;
        let key = match (read.u16()?, read.u16()?) {
            (ALG_RSA, ALG_SHA256) => {
                read.template(TEMPLATE_L1)?;
                EkKey::Rsa2048 { modulus: Box::new(read.exactly()?) }
            }
            (ALG_ECC, ALG_SHA384) => {
                read.template(TEMPLATE_H3)?;
                EkKey::EccP384 { x: read.exactly()?, y: read.exactly()? }
            }
            _ => return Err(TpmFormError::Algorithm),
        };
        read.end()?;
        Ok(Self { bytes: bytes.to_vec(), key })
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
        read.constant(ALG_ECC)?;
        read.constant(ALG_SHA256)?;
        let attributes = read.u32()?;
        let wanted = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | SIGN;
        if attributes & wanted != wanted || attributes & DECRYPT != 0 {
            return Err(TpmFormError::Attributes);
        }
        read.sized()?;
        read.constant(ALG_NULL)?;
        read.constant(ALG_ECDSA)?;
        read.constant(ALG_SHA256)?;
        read.constant(CURVE_P256)?;
        read.constant(ALG_NULL)?;
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
        read.constant(ALG_SHA256)?;
        let length = read.u8()?;
        let pcrs = selected(read.take(usize::from(length))?)?;
        let pcr_digest = Digest::from_slice(read.sized()?).ok_or(TpmFormError::Length)?;
        read.end()?;
        Ok(Self { extra_data, clock_ms, reset_count, restart_count, clock_safe, pcrs, pcr_digest })
    }
}

fn selected(bitmap: &[u8]) -> Result<Vec<u8>, TpmFormError> {
    if bitmap.len() > PCRS_MAX / 8 {
        return Err(TpmFormError::Length);
    }
    let mut pcrs = Vec::new();
    for (number, byte) in (0_u8..).step_by(8).zip(bitmap) {
        pcrs.extend((0..8).filter(|bit| byte & (1 << bit) != 0).map(|bit| number + bit));
    }
    Ok(pcrs)
}

/// Reads a TPMT_SIGNATURE: ECDSA with SHA-256.
///
/// # Errors
/// Says what is wrong with the structure.
pub fn parse_signature(bytes: &[u8]) -> Result<EcdsaSignature, TpmFormError> {
    let mut read = bounded(bytes, TPM_SIGNATURE_MAX)?;
    read.constant(ALG_ECDSA)?;
    read.constant(ALG_SHA256)?;
    let r: [u8; 32] = padded(read.sized()?)?;
    let s: [u8; 32] = padded(read.sized()?)?;
    read.end()?;
    let mut signature = EcdsaSignature::ZERO;
    for (to, from) in signature.0.iter_mut().zip(r.into_iter().chain(s)) {
        *to = from;
    }
    Ok(signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ek(template: &[u8], tail: &[u8]) -> Vec<u8> {
        [[0, 1, 0, 0x0b].as_slice(), template, &[1, 0], &[0xc3; 256], tail].concat()
    }

    #[test]
    fn an_ek_has_one_form_only() {
        assert!(EkPublic::parse(&ek(TEMPLATE_L1, &[])).is_ok());
        assert_eq!(EkPublic::parse(&ek(TEMPLATE_L1, &[0])), Err(TpmFormError::Length));
        for at in 0..TEMPLATE_L1.len() {
            let mut other = TEMPLATE_L1.to_vec();
            other[at] ^= 1;
            assert_eq!(EkPublic::parse(&ek(&other, &[])), Err(TpmFormError::Attributes), "byte {at}");
        }
        assert_eq!(EkPublic::parse(&[]), Err(TpmFormError::Length));
        assert_eq!(EkPublic::parse(&vec![0; TPM_PUBLIC_MAX + 1]), Err(TpmFormError::TooLong));
    }

    fn attest(bitmap: &[u8]) -> Vec<u8> {
        let head = [0xff, 0x54, 0x43, 0x47, 0x80, 0x18, 0, 0, 0, 0];
        let length = [u8::try_from(bitmap.len()).unwrap()];
        [head.as_slice(), &[0; 25], &[0, 0, 0, 1, 0, 0x0b], &length, bitmap, &[0, 32], &[0; 32]].concat()
    }

    #[test]
    fn a_quote_over_more_pcrs_than_there_are_is_refused() {
        assert_eq!(QuoteContent::parse(&attest(&[1, 0, 0x80])).unwrap().pcrs, [0, 23]);
        for length in [4, 32, 33, 255] {
            assert_eq!(QuoteContent::parse(&attest(&vec![0; length])), Err(TpmFormError::Length), "{length}");
        }
    }

    #[test]
    fn no_cut_or_flip_of_a_quote_panics() {
        let whole = attest(&[0xff, 0x48, 0x00]);
        for at in 0..whole.len() {
            assert!(QuoteContent::parse(&whole[..at]).is_err());
            for bit in 0..8 {
                let mut other = whole.clone();
                other[at] ^= 1 << bit;
                drop(QuoteContent::parse(&other));
            }
        }
    }
}

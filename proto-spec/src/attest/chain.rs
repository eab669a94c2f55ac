//! EK certificates. Webpki-style verifiers refuse them (critical directoryName SAN, EKU 2.23.133.8.1), so the chain
//! is walked by hand: parse with `x509-cert`, check each signature, end at a certificate of the genesis.

use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::BasicConstraints;

use super::tpm::{EkKey, EkPublic};
use crate::error::Check;
use crate::limits::{CERTIFICATE_MAX, INTERMEDIATES_MAX};
use crate::suite::{Algorithm, verify_certificate_signature};

/// Whether an EK certificate is for this EK and leads to one of the roots at this time.
///
/// # Errors
/// [`Check::EkCertificate`] where the certificate does not parse or is for another key, [`Check::EkUntrusted`] where
/// no path of certificates valid now ends at a root.
pub fn check_ek_certificate(
    ek: &EkPublic,
    certificate: &[u8],
    intermediates: &[Vec<u8>],
    roots: &[Vec<u8>],
    wall_ms: u64,
) -> Result<(), Check> {
    let leaf = parse(certificate).ok_or(Check::EkCertificate)?;
    if !is_for(&leaf, ek) {
        return Err(Check::EkCertificate);
    }
    let intermediates: Vec<Certificate> = intermediates.iter().filter_map(|der| parse(der)).collect();
    let roots: Vec<Certificate> = roots.iter().filter_map(|der| parse(der)).collect();
    let mut current = &leaf;
    for _ in 0..=INTERMEDIATES_MAX {
        if !is_valid_at(current, wall_ms) {
            return Err(Check::EkUntrusted);
        }
        if roots.iter().any(|root| is_valid_at(root, wall_ms) && has_signed(root, current)) {
            return Ok(());
        }
        match intermediates.iter().find(|issuer| has_signed(issuer, current)) {
            Some(issuer) => current = issuer,
            None => return Err(Check::EkUntrusted),
        }
    }
    Err(Check::EkUntrusted)
}

/// Parses strict DER after cutting the padding that some chips leave behind a certificate in NV.
fn parse(der: &[u8]) -> Option<Certificate> {
    let length = outer_length(der)?;
    if length > CERTIFICATE_MAX {
        return None;
    }
    Certificate::from_der(der.get(..length)?).ok()
}

/// Length of the outer SEQUENCE with its header (two bytes of length: certificates are 256 to 65535 bytes long).
fn outer_length(der: &[u8]) -> Option<usize> {
    match der {
        [0x30, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

fn is_for(certificate: &Certificate, ek: &EkPublic) -> bool {
    let key = certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes();
    match ek.key() {
        EkKey::Rsa2048 { modulus } => {
            // RSAPublicKey of RFC 8017 for a 2048-bit modulus (its top bit is set) and the exponent 65537.
            const HEAD: [u8; 9] = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
            const TAIL: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
            key == [HEAD.as_slice(), modulus.as_slice(), &TAIL].concat()
        }
        EkKey::EccP384 { x, y } => key == [[4].as_slice(), x, y].concat(),
    }
}

fn is_valid_at(certificate: &Certificate, wall_ms: u64) -> bool {
    let validity = certificate.tbs_certificate().validity();
    let at = u128::from(wall_ms);
    let (from, until) = (validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration());
    from.as_millis() <= at && at <= until.as_millis()
}

fn has_signed(issuer: &Certificate, subject: &Certificate) -> bool {
    let (issuer, signed) = (issuer.tbs_certificate(), subject.tbs_certificate());
    let may_sign = issuer.get_extension::<BasicConstraints>().ok().flatten().is_some_and(|(_, basic)| basic.ca);
    if !may_sign || issuer.subject() != signed.issuer() {
        return false;
    }
    // The algorithm inside and outside the signed part must agree (RFC 5280, 4.1.1.2).
    let inside = signed.signature();
    if inside.oid != subject.signature_algorithm().oid {
        return false;
    }
    let algorithm = match inside.oid.to_string().as_str() {
        "1.2.840.113549.1.1.11" => Algorithm::RsaSha256,
        "1.2.840.113549.1.1.12" => Algorithm::RsaSha384,
        "1.2.840.113549.1.1.13" => Algorithm::RsaSha512,
        "1.2.840.10045.4.3.2" => Algorithm::EcdsaSha256,
        "1.2.840.10045.4.3.3" => Algorithm::EcdsaSha384,
        _ => return false,
    };
    let key = issuer.subject_public_key_info().subject_public_key.raw_bytes();
    match signed.to_der() {
        Ok(bytes) => verify_certificate_signature(algorithm, key, &bytes, subject.signature().raw_bytes()),
        Err(_) => false,
    }
}

//! Signatures of X.509 certificates: RSA and ECDSA, as TPM makers use them.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};

/// How an issuer signed, read from the certificate's OID and the issuer's curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// sha256WithRSAEncryption.
    RsaSha256,
    /// sha384WithRSAEncryption.
    RsaSha384,
    /// sha512WithRSAEncryption.
    RsaSha512,
    /// ecdsa-with-SHA256.
    EcdsaSha256,
    /// ecdsa-with-SHA384.
    EcdsaSha384,
}

/// Whether the issuer's key (the content of its SubjectPublicKeyInfo's bit string) signed these bytes.
pub(crate) fn verify_certificate_signature(
    algorithm: Algorithm,
    issuer_key: &[u8],
    signed: &[u8],
    signature: &[u8],
) -> bool {
    let tries: &[&'static dyn VerificationAlgorithm] = match algorithm {
        Algorithm::RsaSha256 => &[&RSA_PKCS1_2048_8192_SHA256],
        Algorithm::RsaSha384 => &[&RSA_PKCS1_2048_8192_SHA384],
        Algorithm::RsaSha512 => &[&RSA_PKCS1_2048_8192_SHA512],
        // The curve follows from the key's length; ring refuses a key of the other curve.
        Algorithm::EcdsaSha256 => &[&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA256_ASN1],
        Algorithm::EcdsaSha384 => &[&ECDSA_P384_SHA384_ASN1, &ECDSA_P256_SHA384_ASN1],
    };
    tries.iter().any(|algorithm| UnparsedPublicKey::new(*algorithm, issuer_key).verify(signed, signature).is_ok())
}

//! BLS12-381 with signatures in G1: blsful signs, blst verifies the same bytes several times faster.

use blsful::{Bls12381G1Impl, SecretKey, SignatureSchemes};
use blst::BLST_ERROR;
use blst::min_sig::{PublicKey, Signature};

use crate::suite::Generator;
use crate::types::{BlsPublic, BlsSignature, SecretBytes};

/// The tag of the proof-of-possession scheme (draft-irtf-cfrg-bls-signature, 4.2.3).
const POP_TAG: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
/// The tag of the proofs themselves.
const PROOF_TAG: &[u8] = b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

/// The tag of drand's quicknet (Basic scheme): other people's verifiers accept no other.
const BEACON_TAG: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";

type Key = SecretKey<Bls12381G1Impl>;

fn key(secret: &SecretBytes) -> Option<Key> {
    Key::from_be_bytes(secret.expose().try_into().ok()?).into_option()
}

pub(super) fn secret(generator: &mut Generator) -> SecretBytes {
    SecretBytes::copy_of(&Key::random(generator).to_be_bytes())
}

pub(super) fn public(secret: &SecretBytes) -> Option<BlsPublic> {
    let bytes: Vec<u8> = (&key(secret)?.public_key()).into();
    BlsPublic::from_slice(&bytes)
}

pub(super) fn sign(secret: &SecretBytes, message: &[u8]) -> Option<BlsSignature> {
    let signature = key(secret)?.sign(SignatureSchemes::ProofOfPossession, message).ok()?;
    Some(BlsSignature(signature.as_raw_value().to_compressed()))
}

pub(super) fn sign_beacon(share: &SecretBytes, message: &[u8]) -> Option<BlsSignature> {
    let signature = key(share)?.sign(SignatureSchemes::Basic, message).ok()?;
    Some(BlsSignature(signature.as_raw_value().to_compressed()))
}

pub(super) fn beacon_holds(key: &BlsPublic, message: &[u8], signature: &BlsSignature) -> bool {
    verify(key, message, signature, BEACON_TAG)
}

pub(super) fn holds(key: &BlsPublic, message: &[u8], signature: &BlsSignature) -> bool {
    verify(key, message, signature, POP_TAG)
}

pub(super) fn prove(secret: &SecretBytes) -> Option<BlsSignature> {
    let proof = key(secret)?.proof_of_possession().ok()?;
    Some(BlsSignature(proof.0.to_compressed()))
}

pub(super) fn proof_holds(key: &BlsPublic, proof: &BlsSignature) -> bool {
    verify(key, &key.0, proof, PROOF_TAG)
}

fn verify(key: &BlsPublic, message: &[u8], signature: &BlsSignature, tag: &[u8]) -> bool {
    // key_validate refuses the identity and points outside the subgroup; so does verify for the signature.
    match (PublicKey::key_validate(&key.0), Signature::from_bytes(&signature.0)) {
        (Ok(key), Ok(signature)) => signature.verify(true, message, tag, &[], &key, false) == BLST_ERROR::BLST_SUCCESS,
        _ => false,
    }
}

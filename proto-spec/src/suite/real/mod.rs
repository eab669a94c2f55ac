//! The suite that ships.

mod bls;
mod certificate;
mod credential;
mod edwards;
mod hpke;
mod sharing;
mod threshold;

pub(crate) use certificate::{Algorithm, verify_certificate_signature};

use super::{Dealt, Generator, KeyDealt, Suite};
use crate::attest::tpm::{CredentialBlob, EccPoint, EkPublic};
use crate::types::{
    BlsPublic, BlsSignature, Commitment, EcdsaSignature, Ed25519Signature, HpkePublic, SecretBytes, ShareIndex, SshKey,
    Terms, TransportKey,
};

/// blsful and vsss-rs over BLS12-381 (verification by blst), HPKE over X25519, Ed25519 and ECDSA by ring.
#[derive(Debug, Clone, Copy, Default)]
pub struct Real;

impl Suite for Real {
    fn bls_secret(&self, generator: &mut Generator) -> SecretBytes {
        bls::secret(generator)
    }
    fn bls_public(&self, secret: &SecretBytes) -> Option<BlsPublic> {
        bls::public(secret)
    }
    fn bls_sign(&self, secret: &SecretBytes, message: &[u8]) -> Option<BlsSignature> {
        bls::sign(secret, message)
    }
    fn bls_holds(&self, key: &BlsPublic, message: &[u8], signature: &BlsSignature) -> bool {
        bls::holds(key, message, signature)
    }
    fn bls_prove(&self, secret: &SecretBytes) -> Option<BlsSignature> {
        bls::prove(secret)
    }
    fn bls_proof_holds(&self, key: &BlsPublic, proof: &BlsSignature) -> bool {
        bls::proof_holds(key, proof)
    }
    fn deal(&self, terms: Terms, generator: &mut Generator) -> Option<Dealt> {
        sharing::deal(terms, generator)
    }
    fn share_fits(&self, k: u8, commitments: &[Commitment], index: ShareIndex, share: &SecretBytes) -> bool {
        sharing::share_fits(k, commitments, index, share)
    }
    fn combine(&self, k: u8, shares: &[(ShareIndex, &SecretBytes)], c0: &Commitment) -> Option<SecretBytes> {
        sharing::combine(k, shares, c0)
    }
    fn beacon_sign(&self, share: &SecretBytes, message: &[u8]) -> Option<BlsSignature> {
        bls::sign_beacon(share, message)
    }
    fn beacon_holds(&self, key: &BlsPublic, message: &[u8], signature: &BlsSignature) -> bool {
        bls::beacon_holds(key, message, signature)
    }
    fn key_deal(&self, t: u8, n: u8, constant: Option<&SecretBytes>, generator: &mut Generator) -> Option<KeyDealt> {
        threshold::deal(t, n, constant, generator)
    }
    fn key_share_fits(&self, t: u8, commitments: &[BlsPublic], index: ShareIndex, share: &SecretBytes) -> bool {
        threshold::share_fits(t, commitments, index, share)
    }
    fn key_sum_shares(&self, dealers: Option<&[ShareIndex]>, shares: &[&SecretBytes]) -> Option<SecretBytes> {
        threshold::sum_shares(dealers, shares)
    }
    fn key_sum_commitments(
        &self,
        dealers: Option<&[ShareIndex]>,
        commitments: &[&[BlsPublic]],
    ) -> Option<Vec<BlsPublic>> {
        threshold::sum_commitments(dealers, commitments)
    }
    fn key_public_of(&self, commitments: &[BlsPublic], index: ShareIndex) -> Option<BlsPublic> {
        threshold::public_of(commitments, index)
    }
    fn bls_combine(&self, partials: &[(ShareIndex, BlsSignature)]) -> Option<BlsSignature> {
        threshold::combine(partials)
    }
    fn hpke_keys(&self, material: &SecretBytes) -> (SecretBytes, HpkePublic) {
        hpke::keys(material)
    }
    fn hpke_seal(&self, to: &HpkePublic, info: &[u8], plaintext: &[u8], generator: &mut Generator) -> Option<Vec<u8>> {
        hpke::seal(to, info, plaintext, generator)
    }
    fn hpke_open(&self, secret: &SecretBytes, info: &[u8], sealed: &[u8]) -> Option<SecretBytes> {
        hpke::open(secret, info, sealed)
    }
    fn ed25519_public(&self, seed: &SecretBytes) -> Option<TransportKey> {
        edwards::public(seed)
    }
    fn ed25519_sign(&self, seed: &SecretBytes, message: &[u8]) -> Option<Ed25519Signature> {
        edwards::sign(seed, message)
    }
    fn ed25519_holds(&self, key: &TransportKey, message: &[u8], signature: &Ed25519Signature) -> bool {
        edwards::holds(&key.0, message, &signature.0)
    }
    fn ecdsa_holds(&self, key: &EccPoint, message: &[u8], signature: &EcdsaSignature) -> bool {
        let public = key.uncompressed();
        ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, public)
            .verify(message, &signature.0)
            .is_ok()
    }
    fn make_credential(
        &self,
        ek: &EkPublic,
        ak_name: &[u8],
        secret: &SecretBytes,
        generator: &mut Generator,
    ) -> Option<CredentialBlob> {
        credential::make(ek, ak_name, secret, generator)
    }
    fn sshsig_holds(&self, key: &SshKey, namespace: &str, message: &[u8], armoured: &str) -> bool {
        edwards::sshsig_holds(key, namespace, message, armoured)
    }
}

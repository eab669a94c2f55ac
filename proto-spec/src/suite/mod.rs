//! Cryptography behind one object-safe trait. [`Real`] is what ships; [`Fake`] has the same sizes, costs next to
//! nothing and protects nothing, and drives large simulations.
//!
//! Keys and signatures cross this border as fixed-size bytes, secrets as [`SecretBytes`]. Hashes and symmetric
//! ciphers are the same in both suites and stand in [`symmetric`].

mod fake;
mod generator;
mod real;
pub mod symmetric;

pub use fake::Fake;
pub use generator::{Generator, Seed};
pub use real::Real;
pub(crate) use real::{Algorithm, verify_certificate_signature};

use crate::attest::tpm::{CredentialBlob, EccPoint, EkPublic};
use crate::types::{
    BlsPublic, BlsSignature, Commitment, EcdsaSignature, Ed25519Signature, HpkePublic, SecretBytes, ShareIndex, SshKey,
    Terms, TransportKey,
};

/// A secret scalar dealt k-of-n.
pub struct Dealt {
    /// The scalar, 32 bytes big-endian.
    pub secret: SecretBytes,
    /// C_0 … C_{k-1}.
    pub commitments: Vec<Commitment>,
    /// Shares 1 to n, in that order.
    pub shares: Vec<SecretBytes>,
}

/// The public-key operations of the protocol.
pub trait Suite: Send + Sync {
    /// A fresh BLS secret key.
    fn bls_secret(&self, generator: &mut Generator) -> SecretBytes;
    /// Its public key; `None` where the bytes are no key.
    fn bls_public(&self, secret: &SecretBytes) -> Option<BlsPublic>;
    /// Signs under the POP tag; `None` where the bytes are no key.
    fn bls_sign(&self, secret: &SecretBytes, message: &[u8]) -> Option<BlsSignature>;
    /// Whether the signature holds under the POP tag. Callers hold a [`VerifiedKey`].
    fn bls_holds(&self, key: &BlsPublic, message: &[u8], signature: &BlsSignature) -> bool;
    /// A proof that the signer has the secret key (a rogue key has none).
    fn bls_prove(&self, secret: &SecretBytes) -> Option<BlsSignature>;
    /// Whether the proof of possession holds.
    fn bls_proof_holds(&self, key: &BlsPublic, proof: &BlsSignature) -> bool;

    /// Deals a fresh random scalar (Feldman over G1).
    fn deal(&self, terms: Terms, generator: &mut Generator) -> Option<Dealt>;
    /// Whether the share of that index fits exactly k commitments.
    fn share_fits(&self, k: u8, commitments: &[Commitment], index: ShareIndex, share: &SecretBytes) -> bool;
    /// Combines k shares and checks g^s = C_0: without that check too few or bad shares give a wrong secret.
    fn combine(&self, k: u8, shares: &[(ShareIndex, &SecretBytes)], c0: &Commitment) -> Option<SecretBytes>;

    /// The X25519 key pair of some key material.
    fn hpke_keys(&self, material: &SecretBytes) -> (SecretBytes, HpkePublic);
    /// RFC 9180 base mode: encapsulated key ‖ ciphertext. `None` where the key is none.
    fn hpke_seal(&self, to: &HpkePublic, info: &[u8], plaintext: &[u8], generator: &mut Generator) -> Option<Vec<u8>>;
    /// Opens what `hpke_seal` made under the same `info`.
    fn hpke_open(&self, secret: &SecretBytes, info: &[u8], sealed: &[u8]) -> Option<SecretBytes>;

    /// The public key of an Ed25519 seed.
    fn ed25519_public(&self, seed: &SecretBytes) -> Option<TransportKey>;
    /// Signs with an Ed25519 seed.
    fn ed25519_sign(&self, seed: &SecretBytes, message: &[u8]) -> Option<Ed25519Signature>;
    /// Whether the signature holds.
    fn ed25519_holds(&self, key: &TransportKey, message: &[u8], signature: &Ed25519Signature) -> bool;

    /// Whether a TPM's ECDSA P-256 signature over SHA-256 of the message holds.
    fn ecdsa_holds(&self, key: &EccPoint, message: &[u8], signature: &EcdsaSignature) -> bool;
    /// TPM2_MakeCredential in software (TPM 2.0 Part 1, 24): a secret that only the chip with this EK gives up, and
    /// only while it holds the key of this name.
    fn make_credential(
        &self,
        ek: &EkPublic,
        ak_name: &[u8],
        secret: &SecretBytes,
        generator: &mut Generator,
    ) -> Option<CredentialBlob>;

    /// Whether an armoured SSHSIG over the message holds under this key and namespace.
    fn sshsig_holds(&self, key: &SshKey, namespace: &str, message: &[u8], armoured: &str) -> bool;
}

/// A BLS key whose proof of possession was checked. Only [`VerifiedKey::check`] makes one; aggregation and
/// verification take nothing else, since a rogue key passes every other check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedKey(BlsPublic);

impl VerifiedKey {
    /// Checks the proof of possession.
    pub fn check(suite: &dyn Suite, key: &BlsPublic, proof: &BlsSignature) -> Option<Self> {
        suite.bls_proof_holds(key, proof).then_some(Self(*key))
    }

    /// The key.
    pub fn public(&self) -> &BlsPublic {
        &self.0
    }

    /// Whether the signature over the message holds.
    pub fn holds(&self, suite: &dyn Suite, message: &[u8], signature: &BlsSignature) -> bool {
        suite.bls_holds(&self.0, message, signature)
    }
}

#[cfg(test)]
mod tests;

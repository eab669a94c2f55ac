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

/// A BLS secret dealt t-of-n, with commitments where BLS keys live.
pub struct KeyDealt {
    /// The constant term, 32 bytes big-endian.
    pub secret: SecretBytes,
    /// C_0 … C_{t-1} in G2; C_0 is the public key of the constant term.
    pub commitments: Vec<BlsPublic>,
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

    /// Signs as drand's quicknet does (Basic scheme, NUL tag, signature in G1); with a share: a partial signature.
    fn beacon_sign(&self, share: &SecretBytes, message: &[u8]) -> Option<BlsSignature>;
    /// Whether such a signature holds.
    fn beacon_holds(&self, key: &BlsPublic, message: &[u8], signature: &BlsSignature) -> bool;
    /// Deals a BLS secret t-of-n (2 ≤ t): the given constant term, or a fresh one.
    fn key_deal(&self, t: u8, n: u8, constant: Option<&SecretBytes>, generator: &mut Generator) -> Option<KeyDealt>;
    /// Whether the share of that index fits exactly t commitments.
    fn key_share_fits(&self, t: u8, commitments: &[BlsPublic], index: ShareIndex, share: &SecretBytes) -> bool;
    /// The sum of sub-shares that one receiver got: plain, or weighted by Lagrange at 0 over the dealers.
    fn key_sum_shares(&self, dealers: Option<&[ShareIndex]>, shares: &[&SecretBytes]) -> Option<SecretBytes>;
    /// The same sum over the dealers' commitments.
    fn key_sum_commitments(
        &self,
        dealers: Option<&[ShareIndex]>,
        commitments: &[&[BlsPublic]],
    ) -> Option<Vec<BlsPublic>>;
    /// The public key of the share of that index: partial signatures are checked under it.
    fn key_public_of(&self, commitments: &[BlsPublic], index: ShareIndex) -> Option<BlsPublic>;
    /// Combines partial signatures. Too few or wrong ones give a wrong signature: check it under the key.
    fn bls_combine(&self, partials: &[(ShareIndex, BlsSignature)]) -> Option<BlsSignature>;

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

/// The mesh key, believed because it is pinned (by a ticket, a configuration or a record that was checked), not
/// because it was proven: it is never aggregated with keys of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeshKey(BlsPublic);

impl MeshKey {
    /// The key that somebody pins.
    pub fn pinned(key: BlsPublic) -> Self {
        Self(key)
    }

    /// The key.
    pub fn public(&self) -> &BlsPublic {
        &self.0
    }

    /// Whether the signature over the message holds, for every purpose but the beacon.
    pub fn holds(&self, suite: &dyn Suite, message: &[u8], signature: &BlsSignature) -> bool {
        suite.bls_holds(&self.0, message, signature)
    }
}

#[cfg(test)]
mod tests;

//! A suite with the sizes of the real one that costs next to nothing and protects nothing: for simulations and
//! for fuzzing what stands behind the cryptography. Whoever knows a public key can forge under it.
//!
//! Sharing keeps its algebra (Feldman in a small Schnorr group), so that thresholds, wrong shares and mixed
//! generations behave as they do on the curve.

use sha2::{Digest as _, Sha256};

use super::{Dealt, Generator, KeyDealt, Suite};
use crate::attest::tpm::{CredentialBlob, EccPoint, EkPublic};
use crate::types::{
    BlsPublic, BlsSignature, Commitment, EcdsaSignature, Ed25519Signature, HpkePublic, SecretBytes, ShareIndex, SshKey,
    Terms, TransportKey,
};

/// Order of the small group, a prime.
const ORDER: u64 = 2_305_843_009_213_688_669;
/// Its modulus 2·ORDER + 1, a prime: squares form the group of that order.
const MODULUS: u64 = 4_611_686_018_427_377_339;
/// A square, so of that order.
const BASE: u64 = 4;

/// The suite of simulations.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fake;

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0xff]);
    }
    hash.finalize().into()
}

fn stretch<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    for (number, block) in (0_u8..).zip(out.chunks_mut(32)) {
        let bytes = hash(&[&[number], &hash(parts)]);
        for (to, from) in block.iter_mut().zip(bytes) {
            *to = from;
        }
    }
    out
}

fn times(a: u64, b: u64, modulus: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) % u128::from(modulus);
    u64::try_from(product).unwrap_or(0)
}

fn power(mut base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, base, modulus);
        }
        base = times(base, base, modulus);
        exponent >>= 1;
    }
    result
}

fn number(bytes: &[u8]) -> Option<u64> {
    let tail = bytes.get(bytes.len().checked_sub(8)?..)?;
    Some(u64::from_be_bytes(tail.try_into().ok()?))
}

fn wide<const N: usize>(value: u64) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().rev().zip(value.to_le_bytes()) {
        *to = from;
    }
    out
}

fn scalar_bytes(value: u64) -> SecretBytes {
    SecretBytes::copy_of(&wide::<32>(value))
}

fn commitment(exponent: u64) -> Commitment {
    Commitment(wide(power(BASE, exponent, MODULUS)))
}

fn evaluate(coefficients: &[u64], at: u64) -> u64 {
    coefficients.iter().rev().fold(0, |sum, c| (times(sum, at, ORDER) + c) % ORDER)
}

/// The weights of a sum: ones, or Lagrange's at 0; `None` where two indexes are the same.
fn weights(dealers: Option<&[ShareIndex]>, count: usize) -> Option<Vec<u64>> {
    let Some(dealers) = dealers else { return Some(vec![1; count]) };
    let distinct: std::collections::BTreeSet<u8> = dealers.iter().map(|dealer| dealer.0).collect();
    if dealers.len() != count || distinct.len() != count || distinct.contains(&0) {
        return None;
    }
    Some(dealers.iter().map(|dealer| lagrange(u64::from(dealer.0), dealers)).collect())
}

fn lagrange(i: u64, dealers: &[ShareIndex]) -> u64 {
    let (mut top, mut bottom) = (1, 1);
    for j in dealers.iter().map(|dealer| u64::from(dealer.0)).filter(|j| *j != i) {
        top = times(top, j, ORDER);
        bottom = times(bottom, (ORDER + j - i) % ORDER, ORDER);
    }
    times(top, power(bottom, ORDER - 2, ORDER), ORDER)
}

/// A signature is the key to the power of the message's digest: linear in the secret, as a real one is.
fn sign(key: &BlsPublic, tag: &[u8], message: &[u8]) -> Option<BlsSignature> {
    let exponent = number(&hash(&[tag, message]))? % ORDER;
    Some(BlsSignature(wide(power(number(&key.0)? % MODULUS, exponent, MODULUS))))
}

fn evaluate_commitments(points: &[u64], index: ShareIndex) -> u64 {
    let (mut product, mut exponent) = (1, 1);
    for point in points {
        product = times(product, power(point % MODULUS, exponent, MODULUS), MODULUS);
        exponent = times(exponent, u64::from(index.0), ORDER);
    }
    product
}

fn fits(k: u8, points: &[u64], index: ShareIndex, share: &SecretBytes) -> bool {
    let Some(share) = number(share.expose()) else { return false };
    points.len() == usize::from(k)
        && index.0 != 0
        && share < ORDER
        && evaluate_commitments(points, index) == power(BASE, share, MODULUS)
}

fn keystream(key: &[u8; 32], bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for (block, chunk) in (0_u64..).zip(bytes.chunks(32)) {
        let mask = hash(&[key, &block.to_be_bytes()]);
        out.extend(chunk.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    }
    out
}

impl Fake {
    /// What a virtual TPM signs with.
    pub fn ecdsa_sign(key: &EccPoint, message: &[u8]) -> EcdsaSignature {
        EcdsaSignature(stretch(&[b"ecdsa", &key.x, &key.y, message]))
    }

    /// What a virtual TPM does on ActivateCredential.
    pub fn activate_credential(ek: &EkPublic, ak_name: &[u8], blob: &CredentialBlob) -> Option<SecretBytes> {
        let key = hash(&[b"credential", ek.bytes(), ak_name, &blob.encrypted_seed]);
        let (sealed, tag) = blob.id_object.split_at_checked(blob.id_object.len().checked_sub(32)?)?;
        let secret = keystream(&key, sealed);
        (tag == hash(&[&key, sealed])).then(|| SecretBytes::new(secret))
    }

    /// What the holders of a key can sign together: with a real one it takes enough of them that lie.
    pub fn bls_sign_as(key: &BlsPublic, message: &[u8]) -> Option<BlsSignature> {
        sign(key, b"bls", message)
    }

    /// What a dealer could deal to one receiver alone: another polynomial with the same value there, and its proof.
    pub fn deal_apart(commitments: &[BlsPublic], index: ShareIndex) -> Option<(Vec<BlsPublic>, BlsSignature)> {
        // x - index: nothing at that receiver, something at all others.
        let mut coefficients = vec![ORDER - u64::from(index.0), 1];
        coefficients.resize(commitments.len(), 0);
        let apart: Vec<BlsPublic> = coefficients.iter().map(|c| BlsPublic(wide(power(BASE, *c, MODULUS)))).collect();
        let sum = Self.key_sum_commitments(None, &[commitments, &apart])?;
        let proof = sign(sum.first()?, b"proof", b"possession")?;
        Some((sum, proof))
    }

    /// What a virtual client's SSH key does.
    pub fn sshsig_sign(key: &SshKey, namespace: &str, message: &[u8]) -> String {
        hex::encode(stretch::<64>(&[b"sshsig", &key.0, namespace.as_bytes(), message]))
    }
}

impl Suite for Fake {
    fn bls_secret(&self, generator: &mut Generator) -> SecretBytes {
        generator.secret(32)
    }
    fn bls_public(&self, secret: &SecretBytes) -> Option<BlsPublic> {
        Some(BlsPublic(wide(power(BASE, number(secret.expose())? % ORDER, MODULUS))))
    }
    fn bls_sign(&self, secret: &SecretBytes, message: &[u8]) -> Option<BlsSignature> {
        sign(&self.bls_public(secret)?, b"bls", message)
    }
    fn bls_holds(&self, key: &BlsPublic, message: &[u8], signature: &BlsSignature) -> bool {
        sign(key, b"bls", message).as_ref() == Some(signature)
    }
    fn bls_prove(&self, secret: &SecretBytes) -> Option<BlsSignature> {
        sign(&self.bls_public(secret)?, b"proof", b"possession")
    }
    fn bls_proof_holds(&self, key: &BlsPublic, proof: &BlsSignature) -> bool {
        sign(key, b"proof", b"possession").as_ref() == Some(proof)
    }

    fn beacon_sign(&self, share: &SecretBytes, message: &[u8]) -> Option<BlsSignature> {
        sign(&self.bls_public(share)?, b"beacon", message)
    }
    fn beacon_holds(&self, key: &BlsPublic, message: &[u8], signature: &BlsSignature) -> bool {
        sign(key, b"beacon", message).as_ref() == Some(signature)
    }
    fn key_deal(&self, t: u8, n: u8, constant: Option<&SecretBytes>, generator: &mut Generator) -> Option<KeyDealt> {
        if t < 2 || n < t {
            return None;
        }
        let mut coefficients: Vec<u64> = (0..t).map(|_| u64::from_be_bytes(generator.bytes()) % ORDER).collect();
        if let (Some(constant), Some(first)) = (constant, coefficients.first_mut()) {
            *first = number(constant.expose())? % ORDER;
        }
        Some(KeyDealt {
            secret: scalar_bytes(*coefficients.first()?),
            commitments: coefficients.iter().map(|c| BlsPublic(wide(power(BASE, *c, MODULUS)))).collect(),
            shares: (1..=n).map(|i| scalar_bytes(evaluate(&coefficients, u64::from(i)))).collect(),
        })
    }
    fn key_share_fits(&self, t: u8, commitments: &[BlsPublic], index: ShareIndex, share: &SecretBytes) -> bool {
        let points: Option<Vec<u64>> = commitments.iter().map(|one| number(&one.0)).collect();
        points.is_some_and(|points| fits(t, &points, index, share))
    }
    fn key_sum_shares(&self, dealers: Option<&[ShareIndex]>, shares: &[&SecretBytes]) -> Option<SecretBytes> {
        let values = shares.iter().map(|share| number(share.expose())).collect::<Option<Vec<u64>>>()?;
        let weights = weights(dealers, values.len())?;
        let sum =
            weights.iter().zip(values).fold(0, |sum, (weight, value)| (sum + times(*weight, value, ORDER)) % ORDER);
        Some(scalar_bytes(sum))
    }
    fn key_sum_commitments(
        &self,
        dealers: Option<&[ShareIndex]>,
        commitments: &[&[BlsPublic]],
    ) -> Option<Vec<BlsPublic>> {
        let weights = weights(dealers, commitments.len())?;
        let sum = |at: usize| {
            let powers = commitments
                .iter()
                .zip(&weights)
                .map(|(one, weight)| Some(power(number(&one.get(at)?.0)? % MODULUS, *weight, MODULUS)));
            let product = powers.into_iter().try_fold(1, |product, power| Some(times(product, power?, MODULUS)))?;
            Some(BlsPublic(wide(product)))
        };
        (0..commitments.first()?.len()).map(sum).collect()
    }
    fn key_public_of(&self, commitments: &[BlsPublic], index: ShareIndex) -> Option<BlsPublic> {
        let points = commitments.iter().map(|one| number(&one.0)).collect::<Option<Vec<u64>>>()?;
        Some(BlsPublic(wide(evaluate_commitments(&points, index))))
    }
    fn bls_combine(&self, partials: &[(ShareIndex, BlsSignature)]) -> Option<BlsSignature> {
        let dealers: Vec<ShareIndex> = partials.iter().map(|(index, _)| *index).collect();
        let weights = weights(Some(&dealers), partials.len())?;
        let product = partials.iter().zip(weights).try_fold(1, |product, ((_, partial), weight)| {
            Some(times(product, power(number(&partial.0)? % MODULUS, weight, MODULUS), MODULUS))
        })?;
        Some(BlsSignature(wide(product)))
    }

    fn deal(&self, terms: Terms, generator: &mut Generator) -> Option<Dealt> {
        if !terms.are_sound() {
            return None;
        }
        let coefficients: Vec<u64> = (0..terms.k).map(|_| u64::from_be_bytes(generator.bytes()) % ORDER).collect();
        Some(Dealt {
            secret: scalar_bytes(*coefficients.first()?),
            commitments: coefficients.iter().map(|c| commitment(*c)).collect(),
            shares: (1..=terms.n).map(|i| scalar_bytes(evaluate(&coefficients, u64::from(i)))).collect(),
        })
    }
    fn share_fits(&self, k: u8, commitments: &[Commitment], index: ShareIndex, share: &SecretBytes) -> bool {
        let points: Option<Vec<u64>> = commitments.iter().map(|one| number(&one.0)).collect();
        points.is_some_and(|points| fits(k, &points, index, share))
    }
    fn combine(&self, k: u8, shares: &[(ShareIndex, &SecretBytes)], c0: &Commitment) -> Option<SecretBytes> {
        let shares = shares.get(..usize::from(k))?;
        let indexes: Vec<ShareIndex> = shares.iter().map(|(index, _)| *index).collect();
        let values: Vec<&SecretBytes> = shares.iter().map(|(_, share)| *share).collect();
        let secret = self.key_sum_shares(Some(&indexes), &values)?;
        (commitment(number(secret.expose())?) == *c0).then_some(secret)
    }

    fn hpke_keys(&self, material: &SecretBytes) -> (SecretBytes, HpkePublic) {
        let secret = hash(&[b"hpke-secret", material.expose()]);
        (SecretBytes::copy_of(&secret), HpkePublic(hash(&[b"hpke-public", &secret])))
    }
    fn hpke_seal(&self, to: &HpkePublic, info: &[u8], plaintext: &[u8], generator: &mut Generator) -> Option<Vec<u8>> {
        if *to == HpkePublic::ZERO {
            return None;
        }
        let ephemeral: [u8; 32] = generator.bytes();
        let key = hash(&[b"hpke", &to.0, info, &ephemeral]);
        let sealed = keystream(&key, plaintext);
        let tag = hash(&[&key, &sealed]);
        Some([ephemeral.as_slice(), &sealed, tag.get(..16)?].concat())
    }
    fn hpke_open(&self, secret: &SecretBytes, info: &[u8], sealed: &[u8]) -> Option<SecretBytes> {
        let public = hash(&[b"hpke-public", secret.expose()]);
        let (ephemeral, rest) = sealed.split_at_checked(32)?;
        let (sealed, tag) = rest.split_at_checked(rest.len().checked_sub(16)?)?;
        let key = hash(&[b"hpke", &public, info, ephemeral]);
        hash(&[&key, sealed]).starts_with(tag).then(|| SecretBytes::new(keystream(&key, sealed)))
    }

    fn ed25519_public(&self, seed: &SecretBytes) -> Option<TransportKey> {
        Some(TransportKey(hash(&[b"ed25519", seed.expose()])))
    }
    fn ed25519_sign(&self, seed: &SecretBytes, message: &[u8]) -> Option<Ed25519Signature> {
        Some(Ed25519Signature(stretch(&[b"ed25519", &self.ed25519_public(seed)?.0, message])))
    }
    fn ed25519_holds(&self, key: &TransportKey, message: &[u8], signature: &Ed25519Signature) -> bool {
        signature.0 == stretch::<64>(&[b"ed25519", &key.0, message])
    }

    fn ecdsa_holds(&self, key: &EccPoint, message: &[u8], signature: &EcdsaSignature) -> bool {
        *signature == Self::ecdsa_sign(key, message)
    }
    fn make_credential(
        &self,
        ek: &EkPublic,
        ak_name: &[u8],
        secret: &SecretBytes,
        generator: &mut Generator,
    ) -> Option<CredentialBlob> {
        let encrypted_seed = generator.bytes::<32>().to_vec();
        let key = hash(&[b"credential", ek.bytes(), ak_name, &encrypted_seed]);
        let mut id_object = keystream(&key, secret.expose());
        let tag = hash(&[&key, &id_object]);
        id_object.extend_from_slice(&tag);
        Some(CredentialBlob { id_object, encrypted_seed })
    }

    fn sshsig_holds(&self, key: &SshKey, namespace: &str, message: &[u8], armoured: &str) -> bool {
        armoured == Self::sshsig_sign(key, namespace, message)
    }
}

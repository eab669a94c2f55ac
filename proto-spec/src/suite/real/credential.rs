//! TPM2_MakeCredential in software: TPM 2.0 Library, Part 1, clause 24 and annexes B.10.3 (RSA) and C.6.1 (ECC).
//! No crate does it, and asking a TPM would make every verifier need one.

use aes::{Aes128, Aes256};
use cfb_mode::Encryptor;
use cfb_mode::cipher::KeyIvInit as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use p384::elliptic_curve::sec1::ToSec1Point as _;
use rsa::rand_core::{CryptoRng as OldCryptoRng, RngCore as OldRngCore};
use rsa::{BigUint, Oaep, RsaPublicKey};
use sha2::{Digest as _, Sha256, Sha384};
use zeroize::Zeroizing;

use crate::attest::tpm::{CredentialBlob, EkKey, EkPublic};
use crate::suite::Generator;
use crate::types::SecretBytes;

/// The EK's name algorithm and its symmetric cipher always come as one of these two pairs.
#[derive(Clone, Copy)]
enum Strength {
    /// SHA-256 and AES-128 (RSA-2048).
    Low,
    /// SHA-384 and AES-256 (P-384).
    High,
}

impl Strength {
    fn digest_bytes(self) -> usize {
        match self {
            Self::Low => 32,
            Self::High => 48,
        }
    }

    fn cipher_bytes(self) -> usize {
        match self {
            Self::Low => 16,
            Self::High => 32,
        }
    }

    fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Option<Zeroizing<Vec<u8>>> {
        macro_rules! run {
            ($hash:ty) => {{
                let mut mac = Hmac::<$hash>::new_from_slice(key).ok()?;
                for part in parts {
                    mac.update(part);
                }
                mac.finalize().into_bytes().to_vec()
            }};
        }
        Some(Zeroizing::new(match self {
            Self::Low => run!(Sha256),
            Self::High => run!(Sha384),
        }))
    }
}

pub(super) fn make(
    ek: &EkPublic,
    ak_name: &[u8],
    secret: &SecretBytes,
    generator: &mut Generator,
) -> Option<CredentialBlob> {
    let (strength, seed, encrypted_seed) = match ek.key() {
        EkKey::Rsa2048 { modulus } => {
            let (seed, encrypted) = seed_for_rsa(modulus, generator)?;
            (Strength::Low, seed, encrypted)
        }
        EkKey::EccP384 { x, y } => {
            let (seed, encrypted) = seed_for_p384(x, y, generator)?;
            (Strength::High, seed, encrypted)
        }
    };
    let key = kdfa(strength, &seed, b"STORAGE", ak_name, strength.cipher_bytes())?;
    let mac_key = kdfa(strength, &seed, b"INTEGRITY", &[], strength.digest_bytes())?;
    let mut identity = sized(secret.expose())?;
    encrypt_cfb(strength, &key, &mut identity)?;
    let mac = strength.hmac(&mac_key, &[&identity, ak_name])?;
    let mut id_object = sized(&mac)?;
    id_object.extend_from_slice(&identity);
    Some(CredentialBlob { id_object, encrypted_seed })
}

/// A TPM2B: 16 bits of length, then the bytes.
fn sized(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = u16::try_from(bytes.len()).ok()?.to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    Some(out)
}

fn encrypt_cfb(strength: Strength, key: &[u8], bytes: &mut [u8]) -> Option<()> {
    let iv = [0; 16];
    match strength {
        Strength::Low => Encryptor::<Aes128>::new_from_slices(key, &iv).ok()?.encrypt(bytes),
        Strength::High => Encryptor::<Aes256>::new_from_slices(key, &iv).ok()?.encrypt(bytes),
    }
    Some(())
}

/// KDFa (Part 1, 11.4.10.2): SP 800-108 in counter mode over HMAC; one or two blocks are ever needed here.
fn kdfa(strength: Strength, key: &[u8], label: &[u8], context: &[u8], bytes: usize) -> Option<Zeroizing<Vec<u8>>> {
    let bits = u32::try_from(bytes.checked_mul(8)?).ok()?.to_be_bytes();
    let mut out = strength.hmac(key, &[&1_u32.to_be_bytes(), label, &[0], context, &bits])?;
    if out.len() < bytes {
        return None;
    }
    out.truncate(bytes);
    Some(out)
}

/// KDFe (Part 1, 11.4.10.3) with SHA-384 for one block.
fn kdfe_sha384(z: &[u8], label: &[u8], party_u: &[u8], party_v: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut hash = Sha384::new();
    for part in [&1_u32.to_be_bytes(), z, label, &[0], party_u, party_v] {
        hash.update(part);
    }
    Zeroizing::new(hash.finalize().to_vec())
}

/// Lends our generator to the older random-number interface of the RSA crate.
struct Lent<'a>(&'a mut Generator);

impl OldRngCore for Lent<'_> {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(self.0.bytes())
    }
    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(self.0.bytes())
    }
    fn fill_bytes(&mut self, destination: &mut [u8]) {
        destination.copy_from_slice(self.0.secret(destination.len()).expose());
    }
    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), rsa::rand_core::Error> {
        self.fill_bytes(destination);
        Ok(())
    }
}

impl OldCryptoRng for Lent<'_> {}

fn seed_for_rsa(modulus: &[u8; 256], generator: &mut Generator) -> Option<(Zeroizing<Vec<u8>>, Vec<u8>)> {
    let seed = Zeroizing::new(generator.secret(32).expose().to_vec());
    let key = RsaPublicKey::new(BigUint::from_bytes_be(modulus), BigUint::from(65_537_u32)).ok()?;
    // The TPM counts the label's terminating zero as part of it.
    let padding = Oaep::new_with_label::<rsa::sha2::Sha256, _>("IDENTITY\0");
    let encrypted = key.encrypt(&mut Lent(generator), padding, &seed).ok()?;
    Some((seed, encrypted))
}

fn seed_for_p384(x: &[u8; 48], y: &[u8; 48], generator: &mut Generator) -> Option<(Zeroizing<Vec<u8>>, Vec<u8>)> {
    let mut point = vec![4];
    point.extend_from_slice(x);
    point.extend_from_slice(y);
    // Refuses a point that is not on the curve.
    let ek = p384::PublicKey::from_sec1_bytes(&point).ok()?;
    let ephemeral = ephemeral_p384(generator)?;
    let shared = p384::ecdh::diffie_hellman(ephemeral.to_nonzero_scalar(), ek.as_affine());
    let public = ephemeral.public_key().to_sec1_point(false);
    let bytes = public.as_bytes();
    let (own_x, own_y) = (bytes.get(1..49)?, bytes.get(49..97)?);
    let seed = kdfe_sha384(shared.raw_secret_bytes(), b"IDENTITY", own_x, x);
    let mut encrypted = sized(own_x)?;
    encrypted.extend_from_slice(&sized(own_y)?);
    Some((seed, encrypted))
}

/// A uniform secret key: bytes at or above the group order are drawn again (2^-190 of them are).
fn ephemeral_p384(generator: &mut Generator) -> Option<p384::SecretKey> {
    (0..8).find_map(|_| p384::SecretKey::from_slice(generator.secret(48).expose()).ok())
}

//! RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem as _, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal_with_rng};

use crate::suite::Generator;
use crate::types::{HpkePublic, SecretBytes};

type Kem = X25519HkdfSha256;
type Private = <Kem as hpke::Kem>::PrivateKey;
type Public = <Kem as hpke::Kem>::PublicKey;
type Encapsulated = <Kem as hpke::Kem>::EncappedKey;

const ENCAPSULATED_BYTES: usize = 32;

pub(super) fn keys(material: &SecretBytes) -> (SecretBytes, HpkePublic) {
    let (private, public) = Kem::derive_keypair(material.expose());
    (SecretBytes::copy_of(&private.to_bytes()), HpkePublic(public.to_bytes().into()))
}

pub(super) fn seal(to: &HpkePublic, info: &[u8], plaintext: &[u8], generator: &mut Generator) -> Option<Vec<u8>> {
    if *to == HpkePublic::ZERO {
        return None;
    }
    let public = Public::from_bytes(&to.0).ok()?;
    let (encapsulated, ciphertext) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, Kem>(
        &OpModeS::Base,
        &public,
        info,
        plaintext,
        &[],
        generator,
    )
    .ok()?;
    let mut sealed = encapsulated.to_bytes().to_vec();
    sealed.extend_from_slice(&ciphertext);
    Some(sealed)
}

pub(super) fn open(secret: &SecretBytes, info: &[u8], sealed: &[u8]) -> Option<SecretBytes> {
    let private = Private::from_bytes(secret.expose()).ok()?;
    let (encapsulated, ciphertext) = sealed.split_at_checked(ENCAPSULATED_BYTES)?;
    let encapsulated = Encapsulated::from_bytes(encapsulated).ok()?;
    single_shot_open::<AesGcm256, HkdfSha256, Kem>(&OpModeR::Base, &private, &encapsulated, info, ciphertext, &[])
        .ok()
        .map(SecretBytes::new)
}

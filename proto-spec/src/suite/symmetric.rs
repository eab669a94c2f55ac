//! Keys derived with HKDF-SHA256 and sealed with AES-256-GCM: the same in every suite.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::types::{Purpose, SecretBytes};

/// A 32-byte key for one purpose, from a secret and public context.
pub fn derive(secret: &SecretBytes, purpose: Purpose, context: &[&[u8]]) -> SecretBytes {
    let info = purpose.digest(context);
    let mut key = Zeroizing::new([0; 32]);
    // 32 bytes are one block of SHA-256: expand cannot fail, and an all-zero key is never handed out if it did.
    match Hkdf::<Sha256>::new(None, secret.expose()).expand(&info.0, key.as_mut()) {
        Ok(()) => SecretBytes::copy_of(key.as_ref()),
        Err(_) => SecretBytes::default(),
    }
}

/// Seals with AES-256-GCM. A key must never see the same nonce twice. `None` where the key is not 32 bytes long.
pub fn seal(key: &SecretBytes, nonce: [u8; 12], associated: &[u8], plaintext: &[u8]) -> Option<Vec<u8>> {
    cipher(key)?.encrypt(&Nonce::from(nonce), Payload { msg: plaintext, aad: associated }).ok()
}

/// Opens what `seal` made.
pub fn open(key: &SecretBytes, nonce: [u8; 12], associated: &[u8], sealed: &[u8]) -> Option<SecretBytes> {
    cipher(key)?.decrypt(&Nonce::from(nonce), Payload { msg: sealed, aad: associated }).ok().map(SecretBytes::new)
}

fn cipher(key: &SecretBytes) -> Option<Aes256Gcm> {
    let key = Key::<Aes256Gcm>::try_from(key.expose()).ok()?;
    Some(Aes256Gcm::new(&key))
}

//! Shard maps as age files. The only place that names age: it draws its own randomness, so sealing is an action.

use std::io::{Read as _, Write as _};
use std::str::FromStr as _;

use age::secrecy::ExposeSecret as _;
use age::x25519::{Identity, Recipient};
use age::{Decryptor, Encryptor};
use spec::limits::SHARD_MAP_MAX;
use spec::types::SecretBytes;

/// A fresh identity: its secret form and its recipient.
pub fn fresh_identity() -> (SecretBytes, String) {
    let identity = Identity::generate();
    (SecretBytes::copy_of(identity.to_string().expose_secret().as_bytes()), identity.to_public().to_string())
}

/// The recipient of an identity; `None` where the text is none.
pub fn recipient_of(identity: &SecretBytes) -> Option<String> {
    parse(identity).map(|identity| identity.to_public().to_string())
}

/// Whether a text is an age X25519 recipient.
pub fn is_recipient(text: &str) -> bool {
    Recipient::from_str(text).is_ok()
}

/// Seals to all recipients; `None` where one of them is none.
pub fn seal(recipients: &[String], plaintext: &[u8]) -> Option<Vec<u8>> {
    let recipients = recipients.iter().map(|text| Recipient::from_str(text).ok()).collect::<Option<Vec<_>>>()?;
    let encryptor = Encryptor::with_recipients(recipients.iter().map(|one| one as &dyn age::Recipient)).ok()?;
    let mut file = Vec::new();
    let mut writer = encryptor.wrap_output(&mut file).ok()?;
    writer.write_all(plaintext).ok()?;
    writer.finish().ok()?;
    Some(file)
}

/// Opens a file; `None` where this identity does not open it.
pub fn open(identity: &SecretBytes, file: &[u8]) -> Option<Vec<u8>> {
    let identity = parse(identity)?;
    let decryptor = Decryptor::new(file).ok()?;
    let reader = decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)).ok()?;
    let mut plaintext = Vec::new();
    let limit = u64::try_from(SHARD_MAP_MAX).unwrap_or(u64::MAX);
    reader.take(limit).read_to_end(&mut plaintext).ok()?;
    Some(plaintext)
}

fn parse(identity: &SecretBytes) -> Option<Identity> {
    Identity::from_str(std::str::from_utf8(identity.expose()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_opens_with_each_recipients_identity_and_no_other() {
        let ((first, one), (second, two), (stranger, _)) = (fresh_identity(), fresh_identity(), fresh_identity());
        let file = seal(&[one.clone(), two], b"a map").unwrap();
        assert_eq!(open(&first, &file).unwrap(), b"a map");
        assert_eq!(open(&second, &file).unwrap(), b"a map");
        assert!(open(&stranger, &file).is_none());
        assert_eq!(recipient_of(&first), Some(one));
        assert!(seal(&["age1nonsense".to_owned()], b"a map").is_none());
    }
}

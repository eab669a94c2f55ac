//! SSH keys of clients and operators: reading them, and signing with them.

use std::path::{Path, PathBuf};

use spec::types::SshKey;
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// Why a key is not usable.
#[derive(Debug, Error)]
pub enum SshError {
    /// It cannot be read.
    #[error("cannot read the SSH key {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It does not parse or is of another kind.
    #[error("{0} is no OpenSSH ed25519 key")]
    Kind(PathBuf),
    /// It is under a passphrase.
    #[error("{0} is under a passphrase; use a key without one for now (ssh-keygen -p)")]
    Encrypted(PathBuf),
    /// It does not sign.
    #[error("{0} does not sign: {1}")]
    Sign(PathBuf, String),
}

/// A key that signs.
pub struct Signer {
    path: PathBuf,
    key: PrivateKey,
}

impl Signer {
    /// Reads a private key.
    ///
    /// # Errors
    /// Where it cannot be read, is of another kind or under a passphrase.
    pub fn read(path: &Path) -> Result<Self, SshError> {
        let text = Zeroizing::new(std::fs::read(path).map_err(|error| SshError::Read(path.to_owned(), error))?);
        let key = PrivateKey::from_openssh(text.as_slice()).map_err(|_| SshError::Kind(path.to_owned()))?;
        if key.is_encrypted() {
            return Err(SshError::Encrypted(path.to_owned()));
        }
        if key.key_data().ed25519().is_none() {
            return Err(SshError::Kind(path.to_owned()));
        }
        Ok(Self { path: path.to_owned(), key })
    }

    /// Its public key.
    pub fn public(&self) -> SshKey {
        self.key.key_data().ed25519().map_or(SshKey::ZERO, |pair| SshKey(pair.public.0))
    }

    /// An armoured SSHSIG.
    ///
    /// # Errors
    /// Where the key does not sign.
    pub fn sign(&self, namespace: &str, message: &[u8]) -> Result<String, SshError> {
        let failed = |error: ssh_key::Error| SshError::Sign(self.path.clone(), error.to_string());
        let signature = self.key.sign(namespace, HashAlg::Sha512, message).map_err(failed)?;
        let text = signature.to_pem(LineEnding::LF).map_err(failed)?;
        Ok(format!("{}\n", text.trim_end()))
    }
}

/// Reads a public key from a file.
///
/// # Errors
/// Where it cannot be read or is of another kind.
pub fn read_public(path: &Path) -> Result<SshKey, SshError> {
    let text = std::fs::read_to_string(path).map_err(|error| SshError::Read(path.to_owned(), error))?;
    parse_public(&text).ok_or_else(|| SshError::Kind(path.to_owned()))
}

/// Reads `ssh-ed25519 AAAA… comment`.
pub fn parse_public(text: &str) -> Option<SshKey> {
    match PublicKey::from_openssh(text.trim()).ok()?.key_data() {
        KeyData::Ed25519(key) => Some(SshKey(key.0)),
        _ => None,
    }
}

/// Writes `ssh-ed25519 AAAA…`.
pub fn public_text(key: &SshKey) -> String {
    PublicKey::new(KeyData::Ed25519(Ed25519PublicKey(key.0)), "").to_openssh().unwrap_or_default()
}

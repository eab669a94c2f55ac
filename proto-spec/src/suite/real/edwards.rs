//! Ed25519: transport keys, and the SSH keys of clients and operators.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{PublicKey, SshSig};

use crate::limits::SSHSIG_MAX;
use crate::types::{Ed25519Signature, SecretBytes, SshKey, TransportKey};

fn pair(seed: &SecretBytes) -> Option<Ed25519KeyPair> {
    Ed25519KeyPair::from_seed_unchecked(seed.expose()).ok()
}

pub(super) fn public(seed: &SecretBytes) -> Option<TransportKey> {
    TransportKey::from_slice(pair(seed)?.public_key().as_ref())
}

pub(super) fn sign(seed: &SecretBytes, message: &[u8]) -> Option<Ed25519Signature> {
    Ed25519Signature::from_slice(pair(seed)?.sign(message).as_ref())
}

pub(super) fn holds(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

/// PROTOCOL.sshsig of OpenSSH: the key inside the signature must be the expected one, as must the namespace.
pub(super) fn sshsig_holds(key: &SshKey, namespace: &str, message: &[u8], armoured: &str) -> bool {
    if armoured.len() > SSHSIG_MAX {
        return false;
    }
    let Ok(signature) = SshSig::from_pem(armoured) else { return false };
    let public = PublicKey::new(KeyData::Ed25519(Ed25519PublicKey(key.0)), "");
    public.verify(namespace, message, &signature).is_ok()
}

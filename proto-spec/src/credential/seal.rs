//! How things are sealed: payloads in pieces, shares to holders, shards at rest and to readers. Each seal is bound to
//! everything that it is about, so that nothing opens under another head, generation, index or receiver.

use crate::error::Check;
use crate::limits::{PAYLOAD_MAX, PIECE_BYTES, PIECE_TAG_BYTES, PIECES_MAX};
use crate::suite::symmetric;
use crate::types::{CredentialId, Digest, Generation, HostId, MeshId, Purpose, SecretBytes, ShareIndex, SshKey};

/// What the `info` of an HPKE seal is the digest of.
#[derive(Debug, Clone, Copy)]
pub struct SealContext<'a> {
    /// The mesh.
    pub mesh: &'a MeshId,
    /// The credential's owner.
    pub client: &'a SshKey,
    /// The credential.
    pub id: &'a CredentialId,
    /// Its version.
    pub version: u64,
    /// The group's generation.
    pub generation: Generation,
    /// Index of the share (0: the whole credential, to a dealing coordinator).
    pub index: ShareIndex,
    /// Who seals.
    pub sender: &'a [u8; 32],
    /// Who opens.
    pub receiver: &'a HostId,
    /// Digest of the head.
    pub head: &'a Digest,
}

impl SealContext<'_> {
    /// The `info` of a seal for this purpose.
    pub fn info(&self, purpose: Purpose) -> Digest {
        purpose.digest(&[
            &self.mesh.0,
            &self.client.0,
            &self.id.0,
            &self.version.to_be_bytes(),
            &self.generation.0.to_be_bytes(),
            &[self.index.0],
            self.sender,
            &self.receiver.0,
            &self.head.0,
        ])
    }
}

/// Encrypts a payload in pieces under the dealt scalar. Nonce = piece index ‖ last flag; associated data = id ‖
/// version ‖ count. The key sees one payload only: each version deals its own scalar.
///
/// # Errors
/// [`Check::Payload`] for an empty or too large payload.
pub fn encrypt_payload(
    scalar: &SecretBytes,
    id: &CredentialId,
    version: u64,
    payload: &SecretBytes,
) -> Result<Vec<Vec<u8>>, Check> {
    let bytes = payload.expose();
    if bytes.is_empty() || bytes.len() > PAYLOAD_MAX {
        return Err(Check::Payload);
    }
    let key = payload_key(scalar, id, version);
    let count = bytes.len().div_ceil(PIECE_BYTES);
    let associated = payload_context(id, version, count);
    bytes
        .chunks(PIECE_BYTES)
        .enumerate()
        .map(|(at, piece)| symmetric::seal(&key, piece_nonce(at, count), &associated, piece))
        .collect::<Option<Vec<_>>>()
        .ok_or(Check::Payload)
}

/// Opens what `encrypt_payload` made; the caller has checked the pieces against the head's digest.
///
/// # Errors
/// [`Check::Payload`] where a piece does not open.
pub fn decrypt_payload(
    scalar: &SecretBytes,
    id: &CredentialId,
    version: u64,
    pieces: &[Vec<u8>],
) -> Result<SecretBytes, Check> {
    let key = payload_key(scalar, id, version);
    let associated = payload_context(id, version, pieces.len());
    // Reserved once, so that no growing buffer leaves plaintext behind.
    let mut payload = Vec::with_capacity(pieces.len().saturating_mul(PIECE_BYTES));
    for (at, piece) in pieces.iter().enumerate() {
        let opened = symmetric::open(&key, piece_nonce(at, pieces.len()), &associated, piece).ok_or(Check::Payload)?;
        payload.extend_from_slice(opened.expose());
    }
    Ok(SecretBytes::new(payload))
}

/// Whether pieces have the form that `encrypt_payload` gives them: what is checked before they are stored.
pub fn pieces_are_sound(pieces: &[Vec<u8>]) -> bool {
    let full = PIECE_BYTES + PIECE_TAG_BYTES;
    match pieces.split_last() {
        Some((last, others)) => {
            pieces.len() <= PIECES_MAX
                && others.iter().all(|piece| piece.len() == full)
                && (PIECE_TAG_BYTES + 1..=full).contains(&last.len())
        }
        None => false,
    }
}

/// The digest over all pieces that the head names.
pub fn payload_digest(pieces: &[Vec<u8>]) -> Digest {
    let parts: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    Purpose::Payload.digest(&parts)
}

fn payload_key(scalar: &SecretBytes, id: &CredentialId, version: u64) -> SecretBytes {
    symmetric::derive(scalar, Purpose::PayloadKey, &[&id.0, &version.to_be_bytes()])
}

fn payload_context(id: &CredentialId, version: u64, count: usize) -> Vec<u8> {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    [id.0.as_slice(), &version.to_be_bytes(), &count.to_be_bytes()].concat()
}

fn piece_nonce(at: usize, count: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    let number = u64::try_from(at).unwrap_or(u64::MAX).to_be_bytes();
    for (to, from) in nonce.iter_mut().zip(number) {
        *to = from;
    }
    if let Some(last) = nonce.last_mut() {
        *last = u8::from(at + 1 == count);
    }
    nonce
}

/// Seals a shard at rest, under a key that is its own: HKDF(period key, id ‖ version ‖ generation ‖ index).
pub fn seal_at_rest(period_key: &SecretBytes, place: &ShardPlace, share: &SecretBytes) -> Option<Vec<u8>> {
    // One key, one shard, so one nonce: the same share sealed again gives the same bytes.
    symmetric::seal(&place.key(period_key), [0; 12], &place.head.0, share.expose())
}

/// Opens a shard at rest.
pub fn open_at_rest(period_key: &SecretBytes, place: &ShardPlace, sealed: &[u8]) -> Option<SecretBytes> {
    symmetric::open(&place.key(period_key), [0; 12], &place.head.0, sealed)
}

/// Which shard it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlace {
    /// The credential.
    pub id: CredentialId,
    /// Its version.
    pub version: u64,
    /// The group's generation.
    pub generation: Generation,
    /// Index of the share.
    pub index: ShareIndex,
    /// Digest of the head.
    pub head: Digest,
}

impl ShardPlace {
    // The head's digest is part of the key's context too: of two heads that a client signs for one version, each
    // has its own key, so the fixed nonce never meets two plaintexts.
    fn key(&self, period_key: &SecretBytes) -> SecretBytes {
        symmetric::derive(
            period_key,
            Purpose::Shard,
            &[&self.id.0, &self.version.to_be_bytes(), &self.generation.0.to_be_bytes(), &[self.index.0], &self.head.0],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: CredentialId = CredentialId([1; 32]);

    fn scalar(byte: u8) -> SecretBytes {
        SecretBytes::copy_of(&[byte; 32])
    }

    #[test]
    fn payloads_of_every_border_size_come_back() {
        for length in [1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, PAYLOAD_MAX] {
            let payload = SecretBytes::new((0..length).map(|i| u8::try_from(i % 251).unwrap()).collect());
            let pieces = encrypt_payload(&scalar(1), &ID, 1, &payload).unwrap();
            assert!(pieces_are_sound(&pieces));
            assert_eq!(decrypt_payload(&scalar(1), &ID, 1, &pieces).unwrap().expose(), payload.expose());
        }
        assert_eq!(encrypt_payload(&scalar(1), &ID, 1, &SecretBytes::default()), Err(Check::Payload));
        let too_long = SecretBytes::new(vec![0; PAYLOAD_MAX + 1]);
        assert_eq!(encrypt_payload(&scalar(1), &ID, 1, &too_long), Err(Check::Payload));
    }

    #[test]
    fn cut_swapped_and_foreign_pieces_do_not_open() {
        let payload = SecretBytes::new(vec![7; 3 * PIECE_BYTES]);
        let pieces = encrypt_payload(&scalar(1), &ID, 1, &payload).unwrap();
        let opens =
            |scalar: &SecretBytes, version, pieces: &[Vec<u8>]| decrypt_payload(scalar, &ID, version, pieces).is_ok();
        assert!(opens(&scalar(1), 1, &pieces));
        assert!(!opens(&scalar(2), 1, &pieces));
        assert!(!opens(&scalar(1), 2, &pieces));
        assert!(!opens(&scalar(1), 1, &pieces[..2]));
        assert!(!opens(&scalar(1), 1, &[pieces[1].clone(), pieces[0].clone(), pieces[2].clone()]));
    }

    #[test]
    fn a_shard_opens_only_in_its_place() {
        let place =
            ShardPlace { id: ID, version: 1, generation: Generation(1), index: ShareIndex(2), head: Digest([9; 32]) };
        let sealed = seal_at_rest(&scalar(1), &place, &scalar(5)).unwrap();
        assert_eq!(open_at_rest(&scalar(1), &place, &sealed).unwrap().expose(), scalar(5).expose());
        assert!(open_at_rest(&scalar(2), &place, &sealed).is_none());
        let elsewhere = [
            ShardPlace { version: 2, ..place.clone() },
            ShardPlace { generation: Generation(2), ..place.clone() },
            ShardPlace { index: ShareIndex(3), ..place.clone() },
            ShardPlace { head: Digest([8; 32]), ..place.clone() },
        ];
        for other in elsewhere {
            assert!(open_at_rest(&scalar(1), &other, &sealed).is_none());
        }
    }
}

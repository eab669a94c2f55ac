//! The shard map: which host holds which share. It travels only as an age file, to the owner's recipients and to the
//! asking instance.

use serde::{Deserialize, Serialize};

use super::head::SignedHead;
use crate::error::DecodeError;
use crate::limits::{SHARD_MAP_MAX, SHARES_MAX};
use crate::types::{Digest, Generation, HostId, MeshId, TransportKey};
use crate::wire::{self, Address};

/// One holder in a map; its place in the list is its share's index less one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapHolder {
    /// The host.
    pub host: HostId,
    /// Its name, for people.
    pub name: String,
    /// Its transport key.
    pub transport: TransportKey,
    /// Where it says that it is; empty where it never said.
    pub address: Address,
}

/// A shard map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardMap {
    /// The mesh.
    pub mesh: MeshId,
    /// The credential's head: its id, version, k and n.
    pub head: SignedHead,
    /// The group's generation.
    pub generation: Generation,
    /// Digest of the commitments that shares are checked against.
    pub commitments: Digest,
    /// Index → holder.
    pub holders: Vec<MapHolder>,
}

impl ShardMap {
    /// The plaintext of the age file.
    pub fn to_bytes(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Says why the bytes are no map.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let map: Self = wire::decode(bytes, SHARD_MAP_MAX)?;
        if map.holders.len() > SHARES_MAX {
            return Err(DecodeError::Bound("holders"));
        }
        Ok(map)
    }
}

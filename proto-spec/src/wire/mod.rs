//! Bytes ⇄ types, the only place that names serde_cbor. That library is lenient, so this is strict for it: capped
//! before it is parsed, nothing left over, and what is decoded must encode to the very same bytes.

mod bounds;
mod kind;
mod message;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use message::{
    Address, DealBundle, EnrolAnswer, EnrolHello, Entrusting, Holder, Message, Package, Placing, Presence, Shown,
    Standing,
};

use crate::error::DecodeError;
use crate::limits::{ENROLMENT_MESSAGE_MAX, MESSAGE_MAX};
use crate::types::MeshId;

/// The version in each message. A binary speaks this one and, once there is one, the one before.
pub const WIRE_VERSION: u16 = 1;

/// What was decoded and not yet checked: its signatures may be forged, its sender may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified<T>(T);

impl<T> Unverified<T> {
    /// Marks a value as unchecked: for transports that pass values without bytes (the simulation).
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Takes the value out: the caller is a check.
    pub(crate) fn into_unchecked(self) -> T {
        self.0
    }
}

/// Version, mesh (zeros before one is known) and message.
#[derive(Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<T> {
    version: u16,
    mesh: MeshId,
    body: T,
}

/// The canonical bytes of a value.
///
/// # Panics
/// Never: encoding into memory cannot fail for the types of this crate; a bug there gives no bytes, which nothing
/// accepts.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_cbor::ser::to_vec_packed(value).unwrap_or_default()
}

/// Decodes at most `max` bytes that are exactly the canonical form of one value.
///
/// # Errors
/// Says why the bytes are not that.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { got: bytes.len(), max });
    }
    let value: T = serde_cbor::from_slice(bytes).map_err(|_| DecodeError::Malformed)?;
    if encode(&value) == bytes { Ok(value) } else { Err(DecodeError::NotCanonical) }
}

/// A message as it travels.
pub fn encode_message(mesh: &MeshId, message: &Message) -> Vec<u8> {
    encode(&Envelope { version: WIRE_VERSION, mesh: *mesh, body: message })
}

/// Reads a message from a peer of this mesh.
///
/// # Errors
/// Says why the bytes are not one; bounds inside the message are checked too.
pub fn decode_message(mesh: &MeshId, bytes: &[u8]) -> Result<Unverified<Message>, DecodeError> {
    let Envelope { version, mesh: of, body } = decode::<Envelope<Message>>(bytes, MESSAGE_MAX)?;
    if version != WIRE_VERSION {
        return Err(DecodeError::Version(version));
    }
    if of != *mesh {
        return Err(DecodeError::OtherMesh);
    }
    if body.is_enrolment() && bytes.len() > ENROLMENT_MESSAGE_MAX {
        return Err(DecodeError::TooLong { got: bytes.len(), max: ENROLMENT_MESSAGE_MAX });
    }
    body.check_bounds()?;
    Ok(Unverified(body))
}

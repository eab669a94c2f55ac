//! What is said to everybody: beacons and headers. They prove themselves by the mesh key, so anybody may pass them on;
//! how they spread is gossipsub's work, with its parameters in `limits.rs`.

use serde::{Deserialize, Serialize};

use crate::beacon::SignedBeacon;
use crate::header::SignedHeader;

/// Something for everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// A round began.
    Beacon(SignedBeacon),
    /// A round's header.
    Header(Box<SignedHeader>),
}

/// What becomes of news that somebody passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It holds and is new: it goes on to others.
    Accept,
    /// It is known, out of date, or cannot be judged here: it ends here, and nobody is to blame.
    Ignore,
    /// It does not hold: whoever passed it on is to blame, since it should have looked.
    Reject,
}

//! Messages as somebody on the network sees them.

use serde::{Deserialize, Serialize};
use spec::limits::MESSAGE_MAX;
use spec::types::MeshId;
use spec::wire::{self, Message};

use crate::run::Run;

/// A message as it is on the wire.
#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u16,
    mesh: MeshId,
    body: Message,
}

/// What stands in a message.
///
/// # Panics
/// Where it is none: hosts send nothing else.
pub fn message_in(bytes: &[u8]) -> Message {
    #[allow(clippy::expect_used, reason = "a finding: an honest host sent what does not decode")]
    wire::decode::<Envelope>(bytes, MESSAGE_MAX).expect("a message").body
}

impl Run {
    /// Waits for a message that is picked out of all that arrive somewhere; at most five seconds.
    pub fn overhear<T>(&mut self, pick: impl Fn(usize, Message) -> Option<T>) -> Option<T> {
        self.world.overheard = Some(Vec::new());
        let mut picked = None;
        for _ in 0..5_000 {
            self.settle(1);
            let heard = self.world.overheard.replace(Vec::new()).unwrap_or_default();
            picked = heard.into_iter().find_map(|(to, _, bytes)| pick(to, message_in(&bytes)));
            if picked.is_some() {
                break;
            }
        }
        self.world.overheard = None;
        picked
    }
}

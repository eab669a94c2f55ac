//! Gossip under virtual time: what is published goes to a few of a host's circle, and from each that accepts it to a few
//! more. Nothing is passed on before its verdict.

use std::collections::{BTreeMap, BTreeSet};

use spec::gossip::Verdict;
use spec::host::ActionId;
use spec::limits::GOSSIP_MESH;
use spec::types::{Digest, TransportKey, sha256};

use crate::random::Random;

/// What one machine knows of the gossip; gone with a crash.
#[derive(Default)]
pub struct Gossip {
    circle: Vec<TransportKey>,
    seen: BTreeSet<Digest>,
    unjudged: BTreeMap<ActionId, Vec<u8>>,
    next: u64,
}

impl Gossip {
    /// With whom news is exchanged.
    pub fn set_circle(&mut self, circle: Vec<TransportKey>) {
        self.circle = circle;
    }

    /// What this machine publishes goes to these.
    pub fn publish(&mut self, bytes: &[u8], near: &[TransportKey], random: &mut Random) -> Vec<TransportKey> {
        if self.seen.insert(sha256(bytes)) { self.some(near, random) } else { Vec::new() }
    }

    /// Something came from a member of the circle: its name, where it is new.
    pub fn arrived(&mut self, from: &TransportKey, bytes: Vec<u8>) -> Option<ActionId> {
        if !self.circle.contains(from) || !self.seen.insert(sha256(&bytes)) {
            return None;
        }
        self.next += 1;
        self.unjudged.insert(ActionId(self.next), bytes);
        Some(ActionId(self.next))
    }

    /// Its verdict: what goes on, and to whom.
    pub fn judged(
        &mut self,
        id: ActionId,
        verdict: Verdict,
        near: &[TransportKey],
        random: &mut Random,
    ) -> (Vec<u8>, Vec<TransportKey>) {
        let bytes = self.unjudged.remove(&id).unwrap_or_default();
        let on = if verdict == Verdict::Accept { self.some(near, random) } else { Vec::new() };
        (bytes, on)
    }

    /// Some of those that are in the circle and connected.
    fn some(&self, near: &[TransportKey], random: &mut Random) -> Vec<TransportKey> {
        let mut all: Vec<TransportKey> = near.iter().filter(|key| self.circle.contains(key)).copied().collect();
        let mut some = Vec::new();
        while some.len() < GOSSIP_MESH[1] && !all.is_empty() {
            let last = u64::try_from(all.len() - 1).unwrap_or(0);
            some.push(all.swap_remove(usize::try_from(random.between([0, last])).unwrap_or(0)));
        }
        some
    }
}

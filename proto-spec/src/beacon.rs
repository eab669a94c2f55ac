//! The beacon: what time it is in the mesh, what nobody could know before a round began, and until when a round is
//! *current*.
//!
//! It has the form of drand's quicknet (unchained; Basic scheme with the NUL tag; signature in G1; message =
//! SHA-256 of the round, 64 bits big-endian), so that drand's own verifiers accept it under the mesh key.

use serde::{Deserialize, Serialize};

use crate::genesis::Genesis;
use crate::limits::{CLOCK_DOUBT_MS, EPOCHS_KEPT};
use crate::suite::{MeshKey, Suite};
use crate::types::{Beacon, BlsSignature, Now, Round, Time, sha256};

/// When the epochs of a mesh begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    genesis_ms: u64,
    epoch_ms: u64,
}

impl Calendar {
    /// The calendar of a genesis.
    pub fn of(genesis: &Genesis) -> Self {
        Self { genesis_ms: genesis.created_ms, epoch_ms: genesis.epoch_ms.max(1) }
    }

    /// Length of an epoch in milliseconds.
    pub fn epoch_ms(&self) -> u64 {
        self.epoch_ms
    }

    /// Round = 1 + (wall clock - genesis) / epoch length.
    pub fn round_at(&self, wall_ms: u64) -> Round {
        Round(1 + wall_ms.saturating_sub(self.genesis_ms) / self.epoch_ms)
    }

    /// Wall clock at which a round begins.
    pub fn start_of(&self, round: Round) -> u64 {
        self.genesis_ms.saturating_add(round.0.saturating_sub(1).saturating_mul(self.epoch_ms))
    }

    /// Milliseconds until the next round begins by the wall clock.
    pub fn until_next(&self, wall_ms: u64) -> u64 {
        self.start_of(Round(self.round_at(wall_ms).0 + 1)).saturating_sub(wall_ms).max(1)
    }

    /// Whether a round lies ahead of the clock by more than half an epoch.
    pub fn is_ahead(&self, round: Round, wall_ms: u64) -> bool {
        self.start_of(round) > wall_ms.saturating_add(self.epoch_ms / 2)
    }

    /// Whether evidence or an epoch of this round is still taken: until round + 2 begins.
    pub fn is_current(&self, round: Round, wall_ms: u64) -> bool {
        wall_ms < self.start_of(Round(round.0.saturating_add(2)))
    }
}

/// What the mesh key signs for a round: SHA-256 of the round's 64 bits, big-endian.
pub fn beacon_message(round: Round) -> [u8; 32] {
    sha256(&round.0.to_be_bytes()).0
}

/// The beacon of a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedBeacon {
    /// Its round.
    pub round: Round,
    /// The mesh key's signature: there is only one for each round.
    pub signature: BlsSignature,
}

impl SignedBeacon {
    /// What nobody could know before: SHA-256 of the signature (drand's `randomness`).
    pub fn beacon(&self) -> Beacon {
        Beacon(sha256(&self.signature.0).0)
    }
}

/// A beacon whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochVerified {
    signed: SignedBeacon,
    beacon: Beacon,
}

impl EpochVerified {
    /// Checks the signature under the mesh key.
    pub fn check(suite: &dyn Suite, key: &MeshKey, signed: &SignedBeacon) -> Option<Self> {
        let holds = suite.beacon_holds(key.public(), &beacon_message(signed.round), &signed.signature);
        holds.then(|| Self { signed: signed.clone(), beacon: signed.beacon() })
    }

    /// Its round.
    pub fn round(&self) -> Round {
        self.signed.round
    }

    /// Its beacon.
    pub fn beacon(&self) -> &Beacon {
        &self.beacon
    }

    /// The signed form, to show to others.
    pub fn signed(&self) -> &SignedBeacon {
        &self.signed
    }
}

/// The last few epochs that this host verified, and when.
#[derive(Debug)]
pub struct Epochs {
    seen: Vec<(EpochVerified, Time)>,
    floor: Round,
    /// When an epoch was last taken: t clocks agreed with this host's then.
    agreed: Option<Now>,
}

impl Default for Epochs {
    fn default() -> Self {
        Self::above(Round(0))
    }
}

impl Epochs {
    /// None seen yet since the start; before it, this was the highest: nothing older is taken again.
    pub fn above(floor: Round) -> Self {
        Self { seen: Vec::new(), floor, agreed: None }
    }

    /// Takes an epoch in, unless it is known, older than all, ahead of the clock, or past. Says whether it is new.
    pub fn accept(&mut self, calendar: &Calendar, now: Now, epoch: EpochVerified) -> bool {
        let round = epoch.round();
        // What a clock that ran ahead once let in does not stand in the way of the present.
        self.seen.retain(|(seen, _)| !calendar.is_ahead(seen.round(), now.wall_ms));
        let newest = self.seen.last().map_or(Round(0), |(epoch, _)| epoch.round());
        if round < self.floor
            || round <= newest
            || calendar.is_ahead(round, now.wall_ms)
            || !calendar.is_current(round, now.wall_ms)
        {
            return false;
        }
        self.seen.push((epoch, now.monotonic));
        self.agreed = Some(now);
        let keep = usize::try_from(EPOCHS_KEPT).unwrap_or(usize::MAX);
        let surplus = self.seen.len().saturating_sub(keep);
        self.seen.drain(..surplus);
        true
    }

    /// The newest epoch, if it is current.
    pub fn current(&self, calendar: &Calendar, now: Now) -> Option<&EpochVerified> {
        self.seen.last().filter(|entry| Self::holds(calendar, now, entry)).map(|(epoch, _)| epoch)
    }

    /// The epoch of this round, if it is current: by the wall clock until round + 2 begins, and by the monotonic
    /// clock never longer than that span after this host first verified it, whether or not another came.
    pub fn current_at(&self, calendar: &Calendar, now: Now, round: Round) -> Option<&EpochVerified> {
        self.seen
            .iter()
            .find(|(epoch, _)| epoch.round() == round)
            .filter(|entry| Self::holds(calendar, now, entry))
            .map(|(epoch, _)| epoch)
    }

    /// Whether the wall clock has gone on as the monotonic one did, give or take half an epoch, since t clocks agreed with
    /// it; or so long has passed that it may be the others that were wrong. Nobody can tell before the first epoch.
    pub fn is_steady(&self, calendar: &Calendar, now: Now) -> bool {
        self.agreed.is_none_or(|agreed| {
            let passed_ms = now.monotonic.0.saturating_sub(agreed.monotonic.0);
            let moved_ms = agreed.wall_ms.saturating_add(passed_ms).abs_diff(now.wall_ms);
            moved_ms <= calendar.epoch_ms / 2 || passed_ms >= CLOCK_DOUBT_MS.saturating_add(2 * calendar.epoch_ms)
        })
    }

    /// The newest round seen.
    pub fn newest(&self) -> Option<Round> {
        self.seen.last().map(|(epoch, _)| epoch.round())
    }

    fn holds(calendar: &Calendar, now: Now, (epoch, verified_at): &(EpochVerified, Time)) -> bool {
        calendar.is_current(epoch.round(), now.wall_ms)
            && !calendar.is_ahead(epoch.round(), now.wall_ms)
            && now.monotonic < verified_at.plus(2 * calendar.epoch_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{Fake, Generator, Seed};
    use crate::types::SecretBytes;

    const CALENDAR: Calendar = Calendar { genesis_ms: 1_000, epoch_ms: 100 };

    fn key() -> (SecretBytes, MeshKey) {
        let secret = Fake.bls_secret(&mut Generator::new(&Seed([1; 32].into())));
        let key = MeshKey::pinned(Fake.bls_public(&secret).unwrap());
        (secret, key)
    }

    fn epoch(round: u64) -> EpochVerified {
        let (secret, key) = key();
        let signature = Fake.beacon_sign(&secret, &beacon_message(Round(round))).unwrap();
        EpochVerified::check(&Fake, &key, &SignedBeacon { round: Round(round), signature }).unwrap()
    }

    fn at(monotonic: u64, wall_ms: u64) -> Now {
        Now { monotonic: Time(monotonic), wall_ms }
    }

    #[test]
    fn a_round_is_current_until_the_one_after_the_next_begins() {
        assert_eq!(CALENDAR.round_at(1_000), Round(1));
        assert_eq!(CALENDAR.round_at(1_199), Round(2));
        assert!(CALENDAR.is_current(Round(1), 1_199));
        assert!(!CALENDAR.is_current(Round(1), 1_200));
    }

    #[test]
    fn a_round_far_ahead_of_the_clock_is_refused() {
        let mut epochs = Epochs::default();
        assert!(!epochs.accept(&CALENDAR, at(0, 1_049), epoch(2)));
        assert!(epochs.accept(&CALENDAR, at(0, 1_050), epoch(2)));
    }

    #[test]
    fn a_stopped_wall_clock_does_not_keep_an_epoch_alive() {
        let mut epochs = Epochs::default();
        assert!(epochs.accept(&CALENDAR, at(0, 1_000), epoch(1)));
        assert!(epochs.current(&CALENDAR, at(199, 1_000)).is_some());
        assert!(epochs.current(&CALENDAR, at(200, 1_000)).is_none());
    }

    #[test]
    fn a_clock_that_ran_ahead_once_locks_nobody_out() {
        let mut epochs = Epochs::default();
        assert!(epochs.accept(&CALENDAR, at(0, 9_900), epoch(90)));
        assert!(epochs.accept(&CALENDAR, at(0, 1_100), epoch(2)));
        assert_eq!(epochs.current(&CALENDAR, at(0, 1_100)).map(EpochVerified::round), Some(Round(2)));
    }

    #[test]
    fn nothing_older_than_before_the_restart_is_taken() {
        let mut epochs = Epochs::above(Round(3));
        assert!(!epochs.accept(&CALENDAR, at(0, 1_250), epoch(2)));
        assert!(epochs.accept(&CALENDAR, at(0, 1_250), epoch(3)));
    }

    #[test]
    fn an_older_or_repeated_round_is_not_taken() {
        let mut epochs = Epochs::default();
        assert!(epochs.accept(&CALENDAR, at(0, 1_110), epoch(2)));
        assert!(!epochs.accept(&CALENDAR, at(0, 1_110), epoch(2)));
        assert!(!epochs.accept(&CALENDAR, at(0, 1_110), epoch(1)));
    }

    #[test]
    fn a_signature_over_another_round_does_not_hold() {
        let mut signed = epoch(3).signed().clone();
        signed.round = Round(4);
        assert!(EpochVerified::check(&Fake, &key().1, &signed).is_none());
    }
}

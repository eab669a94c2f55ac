//! Period keys: what this host's shards lie under. Each follows from the secret that is bound to this TPM and from one
//! unlock, which the mesh alone gives: neither is enough. They live in memory, never longer than the process.

use std::collections::BTreeMap;

use crate::limits::EPOCHS_KEPT;
use crate::suite::{Suite, symmetric};
use crate::types::{BlsSignature, HpkePublic, Purpose, Round, SecretBytes};

/// The keys of one unlock number.
struct Period {
    key: SecretBytes,
    receiving: (SecretBytes, HpkePublic),
}

/// The keys of this host's unlocks: of the recorded number, and of the next while shards are wrapped anew.
#[derive(Default)]
pub struct Periods {
    open: BTreeMap<u64, Period>,
    /// The last number's share-receiving key: dealers may hold evidence that names it until this round.
    fading: Option<(SecretBytes, Round)>,
}

impl Periods {
    /// The mesh gave an unlock.
    pub fn open(&mut self, suite: &dyn Suite, tpm_bound: &SecretBytes, number: u64, unlock: &BlsSignature) {
        let key = symmetric::derive(tpm_bound, Purpose::Period, &[&unlock.0]);
        let material = symmetric::derive(&key, Purpose::ShareReceiving, &[]);
        self.open.insert(number, Period { receiving: suite.hpke_keys(&material), key });
    }

    /// Whether this number is unlocked.
    pub fn has(&self, number: u64) -> bool {
        self.open.contains_key(&number)
    }

    /// The key under which shards of this number lie.
    pub fn key(&self, number: u64) -> Option<&SecretBytes> {
        self.open.get(&number).map(|period| &period.key)
    }

    /// The newest number, and the key under which a shard is wrapped now.
    pub fn newest(&self) -> Option<(u64, &SecretBytes)> {
        self.open.last_key_value().map(|(number, period)| (*number, &period.key))
    }

    /// What dealers seal to while this number is recorded; zeros before it is unlocked.
    pub fn receiving_public(&self, number: u64) -> HpkePublic {
        self.open.get(&number).map_or(HpkePublic::ZERO, |period| period.receiving.1)
    }

    /// Everything that opens what dealers sealed.
    pub fn receiving(&self) -> impl Iterator<Item = &SecretBytes> {
        let open = self.open.values().map(|period| &period.receiving.0);
        open.chain(self.fading.iter().map(|(secret, _)| secret))
    }

    /// From the header of this round on a higher number is recorded: the keys of lower ones go, but for what dealers
    /// may seal to still.
    pub fn advance(&mut self, number: u64, round: Round) {
        let gone = std::mem::take(&mut self.open);
        for (old, period) in gone {
            if old >= number {
                self.open.insert(old, period);
            } else {
                self.fading = Some((period.receiving.0, Round(round.0.saturating_add(EPOCHS_KEPT))));
            }
        }
    }

    /// A header of this round was closed.
    pub fn fade(&mut self, round: Round) {
        self.fading.take_if(|(_, until)| *until < round);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Fake;

    fn opened(numbers: &[u64]) -> Periods {
        let mut periods = Periods::default();
        for number in numbers {
            let unlock = BlsSignature([u8::try_from(*number).unwrap(); 48]);
            periods.open(&Fake, &SecretBytes::copy_of(&[1; 32]), *number, &unlock);
        }
        periods
    }

    #[test]
    fn shards_are_wrapped_under_the_newest_number_and_dealers_seal_to_the_recorded_one() {
        let periods = opened(&[4, 5]);
        assert_eq!(periods.newest().map(|(number, _)| number), Some(5));
        assert_ne!(periods.receiving_public(4), periods.receiving_public(5));
        assert_eq!(opened(&[]).receiving_public(4), HpkePublic::ZERO);
    }

    #[test]
    fn an_earlier_number_opens_nothing_once_a_later_one_is_recorded_but_what_is_under_way_is_taken() {
        let mut periods = opened(&[4, 5]);
        periods.advance(5, Round(10));
        assert!(!periods.has(4) && periods.key(4).is_none() && periods.has(5));
        assert_eq!(periods.receiving().count(), 2);
        periods.fade(Round(10 + EPOCHS_KEPT));
        assert_eq!(periods.receiving().count(), 2);
        periods.fade(Round(11 + EPOCHS_KEPT));
        assert_eq!(periods.receiving().count(), 1);
    }
}

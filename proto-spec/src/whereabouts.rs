//! Where hosts are. Each says so itself and signs it: whoever passes it on, a leader too, can send nobody astray, and hosts
//! that all stopped at once find each other again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::suite::Suite;
use crate::types::{Ed25519Signature, MeshId, Purpose, Round, SecretBytes, TransportKey};
use crate::wire::Address;

/// A host's own word for where it listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whereabouts {
    /// Its transport key.
    pub transport: TransportKey,
    /// Where it listens.
    pub address: Address,
    /// The round in which it said so: a later word takes an earlier one's place, whichever comes first.
    pub round: Round,
    /// Signature of its transport key.
    pub signature: Ed25519Signature,
}

impl Whereabouts {
    /// A host says where it is. `None` where its key is none.
    pub fn give(
        suite: &dyn Suite,
        mesh: &MeshId,
        (transport, key): (TransportKey, &SecretBytes),
        address: Address,
        round: Round,
    ) -> Option<Self> {
        let mut word = Self { transport, address, round, signature: Ed25519Signature::ZERO };
        word.signature = suite.ed25519_sign(key, &word.signed_bytes(mesh))?;
        Some(word)
    }

    fn signed_bytes(&self, mesh: &MeshId) -> Vec<u8> {
        let said = [self.transport.0.as_slice(), &self.round.0.to_be_bytes(), self.address.0.as_bytes()].concat();
        Purpose::Whereabouts.signed_bytes(mesh, &said)
    }
}

/// What hosts said of themselves, each the latest that came: nothing stands in it that its host did not sign.
#[derive(Debug, Default)]
pub struct AddressBook {
    known: BTreeMap<TransportKey, Whereabouts>,
}

impl AddressBook {
    /// Takes a host's word where it says anything new: false where it is not the host's.
    #[must_use]
    pub fn take(&mut self, suite: &dyn Suite, mesh: &MeshId, word: &Whereabouts) -> bool {
        let known = self.known.get(&word.transport);
        // Nearly always it is what is known: then nothing is checked, and nothing taken.
        if known.is_some_and(|known| known.round >= word.round || known.address == word.address) {
            return true;
        }
        let holds = suite.ed25519_holds(&word.transport, &word.signed_bytes(mesh), &word.signature);
        if holds {
            self.known.insert(word.transport, word.clone());
        }
        holds
    }

    /// A host's latest word.
    pub fn word_of(&self, transport: &TransportKey) -> Option<&Whereabouts> {
        self.known.get(transport)
    }

    /// Where a host is; empty where it has not said.
    pub fn address_of(&self, transport: &TransportKey) -> Address {
        self.word_of(transport).map(|word| word.address.clone()).unwrap_or_default()
    }

    /// The hosts that are in it.
    pub fn hosts(&self) -> impl Iterator<Item = &TransportKey> {
        self.known.keys()
    }

    /// Forgets everybody else.
    pub fn keep(&mut self, stays: impl Fn(&TransportKey) -> bool) {
        self.known.retain(|transport, _| stays(transport));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Fake;

    const MESH: MeshId = MeshId([7; 32]);

    fn host(number: u8) -> (TransportKey, SecretBytes) {
        let key = SecretBytes::copy_of(&[number; 32]);
        (Fake.ed25519_public(&key).expect("a key"), key)
    }

    fn word(number: u8, address: &str, round: u64) -> Whereabouts {
        let (transport, key) = host(number);
        Whereabouts::give(&Fake, &MESH, (transport, &key), Address(address.to_owned()), Round(round)).expect("a key")
    }

    #[test]
    fn the_later_word_of_a_host_stands_whichever_comes_first() {
        let mut book = AddressBook::default();
        for (said, stands) in [("b:1", "b:1"), ("a:1", "b:1"), ("c:1", "c:1"), ("b:1", "c:1")] {
            let round = if said == "b:1" {
                5
            } else if said == "a:1" {
                4
            } else {
                6
            };
            assert!(book.take(&Fake, &MESH, &word(1, said, round)));
            assert_eq!(book.address_of(&host(1).0).0, stands);
        }
    }

    #[test]
    fn what_a_host_did_not_sign_is_not_taken() {
        let mut book = AddressBook::default();
        let own = word(1, "a:1", 5);
        assert!(book.take(&Fake, &MESH, &own));
        let moved = Whereabouts { address: Address("b:1".to_owned()), round: Round(6), ..own.clone() };
        assert!(!book.take(&Fake, &MESH, &moved), "another address under the signature of the first");
        let later = Whereabouts { round: Round(9), ..word(1, "b:1", 6) };
        assert!(!book.take(&Fake, &MESH, &later), "another round");
        let other = Whereabouts { transport: host(1).0, ..word(2, "b:1", 6) };
        assert!(!book.take(&Fake, &MESH, &other), "another host's signature");
        assert!(!book.take(&Fake, &MeshId([8; 32]), &word(1, "b:1", 6)), "another mesh");
        assert_eq!(book.word_of(&host(1).0), Some(&own));
    }

    #[test]
    fn whoever_is_no_member_any_more_is_forgotten() {
        let mut book = AddressBook::default();
        assert!(book.take(&Fake, &MESH, &word(1, "a:1", 1)) && book.take(&Fake, &MESH, &word(2, "b:1", 1)));
        book.keep(|transport| *transport == host(2).0);
        assert_eq!(book.hosts().collect::<Vec<_>>(), vec![&host(2).0]);
    }
}

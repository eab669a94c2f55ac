//! The joint dealing: several dealers share a secret that none of them knows. The same routine makes the mesh key
//! (random constant terms) and re-deals it (each dealer's own share as constant term, weighted by Lagrange at 0), so
//! that the shares change and the public key does not (Pedersen 1991; Herzberg et al. 1995 for the re-dealing).
//!
//! Every receiver must use the same set of dealers: the record that activates a dealing names them.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::error::Check;
use crate::limits::{COMMITTEE_MAX, SEALED_SHARE_MAX};
use crate::suite::{Generator, Seed, Suite, VerifiedKey};
use crate::types::{BlsPublic, BlsSignature, Digest, HostId, HpkePublic, MeshId, Purpose, SecretBytes, ShareIndex};
use crate::wire;

/// What one dealing is about: everybody who takes part derives it alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceremony {
    /// The key epoch that it makes; 1 is the founding.
    pub key_epoch: u64,
    /// Which attempt at it.
    pub attempt: u64,
    /// Shares that sign.
    pub t: u8,
    /// Who deals, in the order of the indexes of the old shares; in the founding, the receivers themselves.
    pub dealers: Vec<HostId>,
    /// Who receives, in the order of the new indexes.
    pub receivers: Vec<HostId>,
}

impl Ceremony {
    /// Names the dealing in every seal and signature.
    pub fn digest(&self, mesh: &MeshId) -> Digest {
        Purpose::Ceremony.digest(&[&mesh.0, &wire::encode(self)])
    }

    /// Whether the numbers fit together: 2 ≤ t ≤ receivers ≤ the largest committee.
    pub fn is_sound(&self) -> bool {
        let n = self.receivers.len();
        (2..=n).contains(&usize::from(self.t))
            && n <= COMMITTEE_MAX
            && (2..=COMMITTEE_MAX).contains(&self.dealers.len())
    }

    /// The index of a receiver's new share.
    pub fn receiver(&self, host: &HostId) -> Option<ShareIndex> {
        index_in(&self.receivers, host)
    }

    /// The index of a dealer's old share.
    pub fn dealer(&self, host: &HostId) -> Option<ShareIndex> {
        index_in(&self.dealers, host)
    }

    fn info(&self, mesh: &MeshId, dealer: &HostId, receiver: &HostId) -> Digest {
        Purpose::KeyDeal.digest(&[&self.digest(mesh).0, &dealer.0, &receiver.0])
    }
}

/// The index of a host in a list that is ordered by indexes.
pub fn index_in(hosts: &[HostId], host: &HostId) -> Option<ShareIndex> {
    let at = hosts.iter().position(|one| one == host)?;
    u8::try_from(at + 1).ok().map(ShareIndex)
}

/// What one dealer sends to all receivers: nothing in it is secret to anybody but the receiver whom it is sealed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDeal {
    /// The dealer.
    pub dealer: HostId,
    /// Commitments to its polynomial, t of them.
    pub commitments: Vec<BlsPublic>,
    /// Proof that the dealer knows the constant term.
    pub proof: BlsSignature,
    /// Sub-shares in the order of the receivers, each sealed to the session key of its receiver.
    pub sealed: Vec<ByteBuf>,
}

impl KeyDeal {
    /// Its digest: names the polynomial, whoever the sub-shares are sealed to just now.
    pub fn digest(&self, mesh: &MeshId) -> Digest {
        Self::named(mesh, &self.dealer, &self.commitments, &self.proof)
    }

    /// The digest of what is public of a deal.
    pub fn named(mesh: &MeshId, dealer: &HostId, commitments: &[BlsPublic], proof: &BlsSignature) -> Digest {
        Purpose::KeyDeal.digest(&[&mesh.0, &wire::encode(&(dealer, commitments, proof))])
    }

    /// What a receiver signs once its sub-share is on disk.
    pub fn held_bytes(mesh: &MeshId, ceremony: &Digest, deal: &Digest) -> Vec<u8> {
        Purpose::KeyHeld.signed_bytes(mesh, &[ceremony.0, deal.0].concat())
    }

    /// What its dealer signs: two of them in one ceremony are proof of a lie.
    pub fn signed_bytes(mesh: &MeshId, ceremony: &Digest, deal: &Digest) -> Vec<u8> {
        Purpose::KeyDeal.signed_bytes(mesh, &[ceremony.0, deal.0].concat())
    }

    /// Whether every list is within its bound.
    pub fn within_bounds(&self) -> bool {
        self.commitments.len() <= COMMITTEE_MAX
            && self.sealed.len() <= COMMITTEE_MAX
            && self.sealed.iter().all(|sealed| sealed.len() <= SEALED_SHARE_MAX)
    }
}

/// Whoever deals in a ceremony.
#[derive(Clone, Copy)]
pub struct Dealer<'a> {
    /// The cryptography.
    pub suite: &'a dyn Suite,
    /// The mesh.
    pub mesh: &'a MeshId,
    /// What the dealing is about.
    pub ceremony: &'a Ceremony,
    /// The dealer.
    pub host: &'a HostId,
}

impl Dealer<'_> {
    /// Deals a fresh constant term, or the dealer's own share of the old key. The same seed gives the same polynomial,
    /// so that a sub-share can be sealed once more to a receiver that has another session key since; the seals are fresh
    /// each time. For a receiver without a key nothing is sealed.
    pub fn deal(
        &self,
        seed: &Seed,
        constant: Option<&SecretBytes>,
        keys: &[Option<HpkePublic>],
        generator: &mut Generator,
    ) -> Option<KeyDeal> {
        let Self { suite, mesh, ceremony, host } = *self;
        let n = u8::try_from(ceremony.receivers.len()).ok()?;
        if !ceremony.is_sound() || keys.len() != ceremony.receivers.len() {
            return None;
        }
        let dealt = suite.key_deal(ceremony.t, n, constant, &mut Generator::new(seed))?;
        let mut sealed = Vec::new();
        for ((receiver, key), share) in ceremony.receivers.iter().zip(keys).zip(&dealt.shares) {
            let info = ceremony.info(mesh, host, receiver);
            sealed.push(match key {
                Some(key) => ByteBuf::from(suite.hpke_seal(key, &info.0, share.expose(), generator)?),
                None => ByteBuf::new(),
            });
        }
        let proof = suite.bls_prove(&dealt.secret)?;
        Some(KeyDeal { dealer: *host, commitments: dealt.commitments, proof, sealed })
    }
}

/// A deal whose public part was checked. Only [`DealVerified::check`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DealVerified(KeyDeal);

impl DealVerified {
    /// Checks degree, length, proof, and in a re-dealing that the constant term is the dealer's own share.
    ///
    /// # Errors
    /// [`Check::Deal`] where the deal is the dealer's fault.
    pub fn check(
        suite: &dyn Suite,
        ceremony: &Ceremony,
        old: Option<&[BlsPublic]>,
        deal: &KeyDeal,
    ) -> Result<Self, Check> {
        let index = ceremony.dealer(&deal.dealer).ok_or(Check::Deal)?;
        let first = deal.commitments.first().ok_or(Check::Deal)?;
        let sound = deal.within_bounds()
            && deal.commitments.len() == usize::from(ceremony.t)
            && deal.sealed.len() == ceremony.receivers.len();
        let constant_fits = old.is_none_or(|old| suite.key_public_of(old, index).as_ref() == Some(first));
        if sound && constant_fits && VerifiedKey::check(suite, first, &deal.proof).is_some() {
            Ok(Self(deal.clone()))
        } else {
            Err(Check::Deal)
        }
    }

    /// The deal.
    pub fn deal(&self) -> &KeyDeal {
        &self.0
    }

    /// Opens this receiver's sub-share with one of its session keys and checks it against the commitments. `None` where no
    /// key opens it: a receiver that restarted has others by now, and nobody can tell that from a bad seal.
    ///
    /// # Errors
    /// [`Check::Share`] where it opens and does not fit: that is the dealer's fault.
    pub fn open(
        &self,
        suite: &dyn Suite,
        mesh: &MeshId,
        ceremony: &Ceremony,
        receiver: &HostId,
        sessions: &[&SecretBytes],
    ) -> Result<Option<SecretBytes>, Check> {
        let index = ceremony.receiver(receiver).ok_or(Check::Membership)?;
        let sealed = usize::from(index.0).checked_sub(1).and_then(|at| self.0.sealed.get(at)).ok_or(Check::Share)?;
        let info = ceremony.info(mesh, &self.0.dealer, receiver);
        let open = |session: &&SecretBytes| suite.hpke_open(session, &info.0, sealed);
        let Some(share) = sessions.iter().find_map(open) else { return Ok(None) };
        let fits = suite.key_share_fits(ceremony.t, &self.0.commitments, index, &share);
        if fits { Ok(Some(share)) } else { Err(Check::Share) }
    }
}

/// The public outcome of a dealing: the same at every receiver that uses the same dealers. Each is given with the
/// commitments that it dealt; where the key was dealt before, with the commitments of then.
///
/// # Errors
/// [`Check::Deal`] where the deals do not add up, or the public key would change.
pub fn commitments(
    suite: &dyn Suite,
    t: u8,
    old: Option<&[BlsPublic]>,
    dealt: &[(ShareIndex, &[BlsPublic])],
) -> Result<Vec<BlsPublic>, Check> {
    let (dealers, lists): (Vec<ShareIndex>, Vec<&[BlsPublic]>) = dealt.iter().copied().unzip();
    let weights = old.map(|_| dealers.as_slice());
    let sum = suite.key_sum_commitments(weights, &lists).ok_or(Check::Deal)?;
    let key_stays = old.is_none_or(|old| old.first() == sum.first());
    if sum.len() == usize::from(t) && key_stays { Ok(sum) } else { Err(Check::Deal) }
}

/// A receiver's new share, checked against the new commitments.
///
/// # Errors
/// [`Check::Share`] where the sub-shares do not add up.
pub fn share(
    suite: &dyn Suite,
    (t, index): (u8, ShareIndex),
    is_redealt: bool,
    commitments: &[BlsPublic],
    parts: &[(ShareIndex, &SecretBytes)],
) -> Result<SecretBytes, Check> {
    let (dealers, values): (Vec<ShareIndex>, Vec<&SecretBytes>) = parts.iter().copied().unzip();
    let weights = is_redealt.then_some(dealers.as_slice());
    let share = suite.key_sum_shares(weights, &values).ok_or(Check::Share)?;
    if suite.key_share_fits(t, commitments, index, &share) { Ok(share) } else { Err(Check::Share) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::suite::{Fake, Real};

    const MESH: MeshId = MeshId([9; 32]);

    struct Party {
        host: HostId,
        session: (SecretBytes, HpkePublic),
    }

    fn parties(suite: &dyn Suite, from: u8, count: u8) -> Vec<Party> {
        let party = |i| Party { host: HostId([i; 32]), session: suite.hpke_keys(&SecretBytes::copy_of(&[i; 32])) };
        (from..from + count).map(party).collect()
    }

    fn hosts(parties: &[Party]) -> Vec<HostId> {
        parties.iter().map(|party| party.host).collect()
    }

    fn session_keys(parties: &[Party]) -> Vec<Option<HpkePublic>> {
        parties.iter().map(|party| Some(party.session.1)).collect()
    }

    fn fresh(generator: &mut Generator) -> Seed {
        Seed(generator.bytes().into())
    }

    /// The commitments of the shares that deal, and those shares whose holders are there.
    type Old<'a> = (&'a [BlsPublic], &'a [(HostId, SecretBytes)]);

    /// Plays a dealing; gives the new commitments and shares.
    fn play(
        suite: &dyn Suite,
        ceremony: &Ceremony,
        receivers: &[Party],
        old: Option<Old<'_>>,
        seed: u8,
    ) -> (Vec<BlsPublic>, Vec<SecretBytes>) {
        let keys = session_keys(receivers);
        let mut generator = Generator::new(&Seed([seed; 32].into()));
        let old_commitments = old.map(|(commitments, _)| commitments);
        let mut deals = BTreeMap::new();
        for dealer in &ceremony.dealers {
            let own = old.map(|(_, shares)| shares.iter().find(|(host, _)| host == dealer));
            let constant = match own {
                Some(None) => continue,
                Some(Some((_, share))) => Some(share),
                None => None,
            };
            let dealer_now = Dealer { suite, mesh: &MESH, ceremony, host: dealer };
            let dealt = dealer_now.deal(&fresh(&mut generator), constant, &keys, &mut generator).unwrap();
            let verified = DealVerified::check(suite, ceremony, old_commitments, &dealt).unwrap();
            deals.insert(ceremony.dealer(dealer).unwrap(), verified);
        }
        let dealt: Vec<_> = deals.iter().map(|(index, deal)| (*index, deal.0.commitments.as_slice())).collect();
        let new = commitments(suite, ceremony.t, old_commitments, &dealt).unwrap();
        let one = |party: &Party| {
            let open = |deal: &DealVerified| {
                deal.open(suite, &MESH, ceremony, &party.host, &[&party.session.0]).unwrap().unwrap()
            };
            let parts: Vec<_> = deals.iter().map(|(index, deal)| (*index, open(deal))).collect();
            let parts: Vec<_> = parts.iter().map(|(index, part)| (*index, part)).collect();
            let index = ceremony.receiver(&party.host).unwrap();
            share(suite, (ceremony.t, index), old.is_some(), &new, &parts).unwrap()
        };
        let shares = receivers.iter().map(one).collect();
        (new, shares)
    }

    fn founding(parties: &[Party], t: u8) -> Ceremony {
        Ceremony { key_epoch: 1, attempt: 1, t, dealers: hosts(parties), receivers: hosts(parties) }
    }

    fn signature(suite: &dyn Suite, shares: &[(u8, &SecretBytes)]) -> BlsSignature {
        let partial =
            |(index, share): &(u8, &SecretBytes)| (ShareIndex(*index), suite.beacon_sign(share, b"round").unwrap());
        suite.bls_combine(&shares.iter().map(partial).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_key_stays_while_its_shares_move_to_another_committee() {
        for suite in [&Real as &dyn Suite, &Fake] {
            let three = parties(suite, 1, 3);
            let (old, shares) = play(suite, &founding(&three, 2), &three, None, 1);
            let before = signature(suite, &[(1, &shares[0]), (3, &shares[2])]);
            assert!(suite.beacon_holds(&old[0], b"round", &before));

            let five = parties(suite, 3, 5);
            let next = Ceremony { key_epoch: 2, attempt: 1, t: 3, dealers: hosts(&three), receivers: hosts(&five) };
            // One of the old ones is gone: the other two are enough.
            let dealers = [(three[0].host, shares[0].duplicate()), (three[2].host, shares[2].duplicate())];
            let (new, moved) = play(suite, &next, &five, Some((&old, &dealers)), 2);
            assert_eq!(new[0], old[0], "the public key never changes");
            let after = signature(suite, &[(1, &moved[0]), (4, &moved[3]), (5, &moved[4])]);
            assert_eq!(after, before, "a deterministic signature is the same under new shares");

            let mixed = signature(suite, &[(1, &shares[0]), (4, &moved[3]), (5, &moved[4])]);
            assert!(!suite.beacon_holds(&new[0], b"round", &mixed), "an old share signs no more");
        }
    }

    #[test]
    fn a_lying_dealer_is_told_from_the_honest_ones() {
        for suite in [&Real as &dyn Suite, &Fake] {
            let three = parties(suite, 1, 3);
            let ceremony = founding(&three, 2);
            let (old, shares) = play(suite, &ceremony, &three, None, 1);
            let next = Ceremony { key_epoch: 2, attempt: 1, t: 2, dealers: hosts(&three), receivers: hosts(&three) };
            let keys = session_keys(&three);
            let mut generator = Generator::new(&Seed([3; 32].into()));
            let mut dealt = |ceremony: &Ceremony, dealer: usize, constant: Option<&SecretBytes>| {
                let dealer = Dealer { suite, mesh: &MESH, ceremony, host: &three[dealer].host };
                dealer.deal(&fresh(&mut generator), constant, &keys, &mut generator).unwrap()
            };
            let honest = dealt(&next, 0, Some(&shares[0]));
            let check = |deal: &KeyDeal| DealVerified::check(suite, &next, Some(&old), deal);
            let opened = |deal: &KeyDeal| {
                check(deal).and_then(|deal| deal.open(suite, &MESH, &next, &three[1].host, &[&three[1].session.0]))
            };
            assert!(matches!(opened(&honest), Ok(Some(_))));

            let another_constant = dealt(&next, 0, Some(&shares[1]));
            assert_eq!(check(&another_constant), Err(Check::Deal), "the share of somebody else, or a stale one");
            let higher = Ceremony { t: 3, ..next.clone() };
            assert_eq!(check(&dealt(&higher, 0, Some(&shares[0]))), Err(Check::Deal), "another degree");
            let mut no_proof = honest.clone();
            no_proof.proof = another_constant.proof;
            assert_eq!(check(&no_proof), Err(Check::Deal));
            let mut swapped = honest.clone();
            swapped.sealed.swap(0, 1);
            assert!(matches!(opened(&swapped), Ok(None)), "sealed to another receiver: nobody knows by whose fault");
            let mut wrong = honest.clone();
            let another = dealt(&next, 0, Some(&shares[0]));
            assert_ne!(another.digest(&MESH), honest.digest(&MESH), "two deals of one dealer");
            wrong.sealed = another.sealed;
            assert_eq!(opened(&wrong).err(), Some(Check::Share), "a sub-share of another polynomial");
            let replayed = Ceremony { attempt: 2, ..next.clone() };
            let stale = DealVerified::check(suite, &replayed, Some(&old), &honest).unwrap();
            let open = stale.open(suite, &MESH, &replayed, &three[1].host, &[&three[1].session.0]);
            assert!(matches!(open, Ok(None)), "a deal of another attempt does not open");
        }
    }

    #[test]
    fn a_receiver_that_lost_its_session_key_is_dealt_the_same_sub_share_again() {
        for suite in [&Real as &dyn Suite, &Fake] {
            let three = parties(suite, 1, 3);
            let ceremony = founding(&three, 2);
            let dealer = Dealer { suite, mesh: &MESH, ceremony: &ceremony, host: &three[0].host };
            let (seed, mut generator) = (Seed([4; 32].into()), Generator::new(&Seed([5; 32].into())));
            let mut keys = session_keys(&three);
            let first = dealer.deal(&seed, None, &keys, &mut generator).unwrap();
            let later = suite.hpke_keys(&SecretBytes::copy_of(&[77; 32]));
            keys[1] = Some(later.1);
            keys[2] = None;
            let again = dealer.deal(&seed, None, &keys, &mut generator).unwrap();
            assert_eq!(again.digest(&MESH), first.digest(&MESH));
            let open = |deal: &KeyDeal, key: &SecretBytes, at: usize| {
                let verified = DealVerified::check(suite, &ceremony, None, deal).unwrap();
                verified.open(suite, &MESH, &ceremony, &three[at].host, &[key]).unwrap()
            };
            let before = open(&first, &three[1].session.0, 1).unwrap();
            assert!(open(&again, &three[1].session.0, 1).is_none(), "sealed to another key");
            assert!(open(&again, &later.0, 1).is_some_and(|after| after.expose() == before.expose()));
            assert!(open(&again, &three[2].session.0, 2).is_none(), "no key, no seal");
        }
    }

    #[test]
    fn a_ceremony_out_of_bounds_is_not_dealt() {
        let sound = |t, receivers: usize| {
            let receivers = vec![HostId::ZERO; receivers];
            Ceremony { key_epoch: 1, attempt: 1, t, dealers: receivers.clone(), receivers }.is_sound()
        };
        assert!(sound(2, 3) && sound(11, 21));
        assert!(!sound(1, 3) && !sound(4, 3) && !sound(11, 22));
    }
}

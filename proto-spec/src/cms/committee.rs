//! The committee: which hosts vote on the records, and which shares of the mesh key sign.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::election::SeatChange;
use crate::credential::dealing::{self, Ceremony, KeyDeal, index_in};
use crate::error::Check;
use crate::limits::{COMMITTEE_MAX, COMMITTEE_MIN};
use crate::membership::MemberRecord;
use crate::suite::{MeshKey, Suite};
use crate::types::{
    BlsPublic, BlsSignature, Digest, Ed25519Signature, HostId, MeshId, Purpose, Round, ShareIndex, TransportKey,
};
use crate::wire;

/// Seats of the first committee.
pub const FOUNDERS: usize = COMMITTEE_MIN;
/// Shares of the first mesh key that sign: a majority.
pub const FOUNDERS_T: u8 = 2;

/// One seat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    /// Its Raft id: given once, never again.
    pub id: u64,
    /// Who sits there.
    pub host: HostId,
    /// Whether it votes; if not, it only follows the log.
    pub votes: bool,
    /// Set where the host has lost what it promised under this id and came back without it: the key epoch of that moment.
    /// The seat is mute, and given up once the mesh key has moved.
    pub lost: Option<u64>,
}

/// The shares of the mesh key that sign now: what everybody may know of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySetup {
    /// Counts the dealings; 1 is the founding.
    pub key_epoch: u64,
    /// Shares that sign.
    pub t: u8,
    /// Who holds a share, in the order of the indexes.
    pub holders: Vec<HostId>,
    /// Commitments to the polynomial; the first is the mesh key.
    pub commitments: Vec<BlsPublic>,
    /// The dealing that made it; none for the founding.
    pub ceremony: Option<Digest>,
    /// Whose deals add up to it, by their indexes in the dealing before.
    pub dealers: Vec<ShareIndex>,
}

impl KeySetup {
    /// The mesh key.
    pub fn mesh_key(&self) -> MeshKey {
        MeshKey::pinned(self.commitments.first().copied().unwrap_or(BlsPublic::ZERO))
    }

    /// The index of a host's share.
    pub fn index_of(&self, host: &HostId) -> Option<ShareIndex> {
        index_in(&self.holders, host)
    }

    /// The key under which the partial signatures of one share hold.
    pub fn public_of(&self, suite: &dyn Suite, index: ShareIndex) -> Option<BlsPublic> {
        suite.key_public_of(&self.commitments, index)
    }

    /// Its digest: names the dealing that made it.
    pub fn digest(&self) -> Digest {
        Purpose::KeyShare.digest(&[&wire::encode(self)])
    }
}

/// A deal that every receiver holds its sub-share of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldDeal {
    /// Index of its dealer.
    pub dealer: ShareIndex,
    /// Commitments to its polynomial.
    pub commitments: Vec<BlsPublic>,
    /// Proof that the dealer knows the constant term.
    pub proof: BlsSignature,
    /// The receivers' signatures, in their order: no leader can activate what somebody does not hold.
    pub held: Vec<Ed25519Signature>,
}

impl HeldDeal {
    /// Whether every receiver signed that it holds it.
    pub fn is_held<'a>(
        &self,
        suite: &dyn Suite,
        mesh: &MeshId,
        ceremony: &Ceremony,
        key_of: impl Fn(&HostId) -> Option<&'a TransportKey>,
    ) -> bool {
        let at = usize::from(self.dealer.0).checked_sub(1);
        let Some(dealer) = at.and_then(|at| ceremony.dealers.get(at)) else { return false };
        let deal = KeyDeal::named(mesh, dealer, &self.commitments, &self.proof);
        let bytes = KeyDeal::held_bytes(mesh, &ceremony.digest(mesh), &deal);
        let signed = |(host, signature): (&HostId, &Ed25519Signature)| {
            key_of(host).is_some_and(|key| suite.ed25519_holds(key, &bytes, signature))
        };
        self.held.len() == ceremony.receivers.len() && ceremony.receivers.iter().zip(&self.held).all(signed)
    }
}

/// A step of the committee, in the order in which a change takes them. One change is in flight at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Step {
    /// A host takes a seat and follows the log.
    Seat {
        /// The host.
        host: HostId,
        /// The seat's Raft id.
        id: u64,
    },
    /// A seat that follows the log votes from now on.
    Promote {
        /// The seat.
        id: u64,
    },
    /// The mesh key is to be dealt anew.
    Redeal(Ceremony),
    /// It was: every receiver holds a flushed sub-share of each of these dealers.
    Activate {
        /// The ceremony.
        ceremony: Digest,
        /// As many deals as signed before, in the order of their dealers.
        dealt: Vec<HeldDeal>,
    },
    /// It was not: the shares that sign go on.
    Abort {
        /// The ceremony.
        ceremony: Digest,
    },
    /// A seat is given up.
    Unseat {
        /// The seat.
        id: u64,
    },
}

impl Step {
    /// The change that Raft makes with it.
    pub fn change(&self) -> Option<SeatChange> {
        match self {
            Self::Seat { id, .. } => Some(SeatChange::Learner(*id)),
            Self::Promote { id } => Some(SeatChange::Voter(*id)),
            Self::Unseat { id } => Some(SeatChange::Remove(*id)),
            Self::Redeal(_) | Self::Activate { .. } | Self::Abort { .. } => None,
        }
    }
}

/// The committee as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Committee {
    /// Its seats, in the order of their ids.
    pub seats: Vec<Seat>,
    /// The id of the next seat.
    pub next_id: u64,
    /// The shares that sign.
    pub key: KeySetup,
    /// The dealing that is under way.
    pub dealing: Option<Ceremony>,
    /// Dealings that were begun for the next key epoch.
    pub attempts: u64,
    /// Round of the newest header when the key was dealt.
    pub dealt: Round,
}

impl Committee {
    /// The founders take seats 1, 2 and 3.
    pub fn founded(key: KeySetup) -> Self {
        let seats: Vec<Seat> =
            (1..).zip(&key.holders).map(|(id, host)| Seat { id, host: *host, votes: true, lost: None }).collect();
        let next_id = seats.last().map_or(1, |seat| seat.id + 1);
        Self { seats, next_id, key, dealing: None, attempts: 0, dealt: Round(0) }
    }

    /// Hosts that vote, in the order of their identities: who is to hold the shares of the mesh key.
    pub fn voters(&self) -> Vec<HostId> {
        let votes = |seat: &&Seat| seat.votes && seat.lost.is_none();
        let mut voters: Vec<HostId> = self.seats.iter().filter(votes).map(|seat| seat.host).collect();
        voters.sort_unstable();
        voters
    }

    /// The dealing of the mesh key to these hosts that would come next.
    pub fn next_dealing(&self, receivers: Vec<HostId>) -> Ceremony {
        let t = u8::try_from(receivers.len() / 2 + 1).unwrap_or(u8::MAX);
        let (key_epoch, attempt) = (self.key.key_epoch + 1, self.attempts + 1);
        Ceremony { key_epoch, attempt, t, dealers: self.key.holders.clone(), receivers }
    }

    /// Takes a step in the epoch of this round, where it is the next one. Whether a host may sit at all is for the records
    /// to say.
    ///
    /// # Errors
    /// [`Check::Record`] or [`Check::Deal`] where it is not.
    pub fn take(&mut self, suite: &dyn Suite, mesh: &MeshId, round: Round, step: &Step) -> Result<(), Check> {
        match step {
            Step::Seat { host, id } => self.seat(*host, *id),
            Step::Promote { id } => self.promote(*id),
            Step::Redeal(ceremony) => self.redeal(ceremony),
            Step::Activate { ceremony, dealt } => {
                self.activate(suite, mesh, ceremony, dealt)?;
                self.dealt = round;
                Ok(())
            }
            Step::Abort { ceremony } => {
                self.of_dealing(mesh, ceremony)?;
                self.dealing = None;
                Ok(())
            }
            Step::Unseat { id } => self.unseat(*id),
        }
    }

    fn seat(&mut self, host: HostId, id: u64) -> Result<(), Check> {
        let follows = self.seats.iter().any(|seat| !seat.votes);
        if follows || self.dealing.is_some() || id != self.next_id || self.seats.len() > COMMITTEE_MAX {
            return Err(Check::Record);
        }
        if self.seat_of(&host).is_some() {
            return Err(Check::Record);
        }
        self.seats.push(Seat { id, host, votes: false, lost: None });
        self.next_id += 1;
        Ok(())
    }

    fn promote(&mut self, id: u64) -> Result<(), Check> {
        let voters = self.seats.iter().filter(|seat| seat.votes).count();
        // One more than there may be: whoever it takes the place of goes once the key has moved.
        let busy = self.dealing.is_some() || voters > COMMITTEE_MAX;
        let seat = self.seats.iter_mut().find(|seat| seat.id == id && !seat.votes && !busy).ok_or(Check::Record)?;
        seat.votes = true;
        Ok(())
    }

    /// Shares go to hosts that vote, and to nobody else; enough of them that a majority of voters can sign.
    fn redeal(&mut self, ceremony: &Ceremony) -> Result<(), Check> {
        let voters = self.voters();
        let may_hold = ceremony.receivers.iter().all(|host| voters.contains(host));
        let most = ceremony.receivers.len() > voters.len() / 2 && ceremony.receivers.len() >= FOUNDERS;
        let distinct = ceremony.receivers.is_sorted_by(|a, b| a < b);
        let next = self.next_dealing(ceremony.receivers.clone());
        if self.dealing.is_some() || !may_hold || !most || !distinct || *ceremony != next || !ceremony.is_sound() {
            return Err(Check::Record);
        }
        self.attempts += 1;
        self.dealing = Some(ceremony.clone());
        Ok(())
    }

    fn of_dealing(&self, mesh: &MeshId, digest: &Digest) -> Result<&Ceremony, Check> {
        self.dealing.as_ref().filter(|known| known.digest(mesh) == *digest).ok_or(Check::Record)
    }

    /// The public part of the dealing is computed here, by everybody: no leader can name another key.
    fn activate(&mut self, suite: &dyn Suite, mesh: &MeshId, digest: &Digest, dealt: &[HeldDeal]) -> Result<(), Check> {
        let ceremony = self.of_dealing(mesh, digest)?.clone();
        let commitments = redealt(suite, &self.key, &ceremony, dealt)?;
        let (key_epoch, t, holders) = (ceremony.key_epoch, ceremony.t, ceremony.receivers);
        let dealers = dealt.iter().map(|deal| deal.dealer).collect();
        self.key = KeySetup { key_epoch, t, holders, commitments, ceremony: Some(*digest), dealers };
        (self.dealing, self.attempts) = (None, 0);
        Ok(())
    }

    /// A seat is given up only where it holds no share that signs: the key moves first.
    fn unseat(&mut self, id: u64) -> Result<(), Check> {
        let seat = self.seats.iter().find(|seat| seat.id == id).ok_or(Check::Record)?;
        let holds = self.may_sign(seat);
        let voters = self.seats.iter().filter(|seat| seat.votes).count();
        if holds || self.dealing.is_some() || (seat.votes && voters <= FOUNDERS) {
            return Err(Check::Record);
        }
        self.seats.retain(|seat| seat.id != id);
        Ok(())
    }

    /// Whether a seat's share of the mesh key counts among those that sign: the key moves before it is given up. A seat
    /// that does not vote never got one.
    pub fn may_sign(&self, seat: &Seat) -> bool {
        let moved = seat.lost.is_some_and(|at| self.key.key_epoch > at);
        seat.votes && self.key.index_of(&seat.host).is_some() && !moved
    }

    /// A host came back without its state: what it had promised as a voter is lost, and so is its share.
    pub(super) fn lose(&mut self, host: &HostId) {
        let key_epoch = self.key.key_epoch;
        let held = self.seats.iter_mut().filter(|seat| seat.host == *host);
        held.for_each(|seat| seat.lost = seat.lost.or(Some(key_epoch)));
    }

    /// The seat of a host; not one that it lost.
    pub fn seat_of(&self, host: &HostId) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.host == *host && seat.lost.is_none())
    }

    /// Who has this Raft id.
    pub fn host_of(&self, id: u64) -> Option<&HostId> {
        self.seats.iter().find(|seat| seat.id == id).map(|seat| &seat.host)
    }

    /// Raft ids of those who vote, or of those who only follow.
    pub fn ids(&self, votes: bool) -> Vec<u64> {
        self.seats.iter().filter(|seat| seat.votes == votes).map(|seat| seat.id).collect()
    }

    /// Its digest, for headers.
    pub fn digest(&self) -> Digest {
        digest_of(&self.seats, &self.key.digest())
    }
}

pub(super) fn digest_of(seats: &[Seat], key: &Digest) -> Digest {
    Purpose::Committee.digest(&[&wire::encode(&seats), &key.0])
}

/// The commitments after a re-dealing: the dealers' own shares are its constant terms, weighted so that the key stays.
///
/// # Errors
/// [`Check::Deal`] where the deals do not add up to the same key.
pub fn redealt(
    suite: &dyn Suite,
    old: &KeySetup,
    ceremony: &Ceremony,
    dealt: &[HeldDeal],
) -> Result<Vec<BlsPublic>, Check> {
    let dealers: Vec<ShareIndex> = dealt.iter().map(|deal| deal.dealer).collect();
    let enough = dealers.len() == usize::from(old.t) && dealers.is_sorted_by(|a, b| a < b);
    let own_share = |deal: &HeldDeal| {
        let list = &deal.commitments;
        list.len() == usize::from(ceremony.t) && old.public_of(suite, deal.dealer).as_ref() == list.first()
    };
    if !enough || !dealt.iter().all(own_share) {
        return Err(Check::Deal);
    }
    let dealt: Vec<(ShareIndex, &[BlsPublic])> =
        dealt.iter().map(|deal| (deal.dealer, deal.commitments.as_slice())).collect();
    dealing::commitments(suite, ceremony.t, Some(&old.commitments), &dealt)
}

/// Seats that a mesh of so many hosts wants, of those that its genesis asks for: always an odd number.
pub fn wanted(hosts: usize, committee: u8) -> usize {
    let most = hosts.min(usize::from(committee));
    (most - usize::from(most.is_multiple_of(2) && most > 0)).max(FOUNDERS)
}

/// Who sits next: of the domain with the fewest seats, then of the region with the fewest; among equals the lowest
/// identity. A function of the records and of who stands.
pub fn next_seat<'a>(
    seated: &[&MemberRecord],
    standing: impl Iterator<Item = &'a MemberRecord>,
) -> Option<&'a MemberRecord> {
    let taken: BTreeSet<HostId> = seated.iter().map(|record| record.host).collect();
    let crowding = |record: &MemberRecord| {
        let domain = seated.iter().filter(|other| other.domain == record.domain).count();
        let region = seated.iter().filter(|other| other.region == record.region).count();
        (domain, region, record.host)
    };
    standing.filter(|record| !taken.contains(&record.host)).min_by_key(|record| crowding(record))
}

/// Whether no union of *a* domains holds t seats: else those domains together could sign for the mesh.
pub fn seats_are_spread<'a>(t: u8, tolerate: u8, domains: impl Iterator<Item = &'a str>) -> bool {
    crowded_domains(t, tolerate, domains).is_empty()
}

/// The most seats, an odd number of at most so many, that these hosts can take so that no *a* domains hold a majority of
/// them; `None` where no number can be spread.
pub fn most_spread(most: usize, tolerate: u8, standing: &[&MemberRecord]) -> Option<usize> {
    (FOUNDERS..=most).rev().filter(|size| !size.is_multiple_of(2)).find(|size| can_be_spread(*size, tolerate, standing))
}

fn can_be_spread(size: usize, tolerate: u8, standing: &[&MemberRecord]) -> bool {
    let mut seated: Vec<&MemberRecord> = Vec::new();
    while seated.len() < size
        && let Some(next) = next_seat(&seated, standing.iter().copied())
    {
        seated.push(next);
    }
    let t = u8::try_from(size / 2 + 1).unwrap_or(u8::MAX);
    seated.len() == size && seats_are_spread(t, tolerate, seated.iter().map(|record| record.domain.as_str()))
}

/// The *a* fullest domains, where they hold t seats together; else none.
pub fn crowded_domains<'a>(t: u8, tolerate: u8, domains: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seats: BTreeMap<&str, usize> = BTreeMap::new();
    for domain in domains {
        *seats.entry(domain).or_default() += 1;
    }
    let mut seats: Vec<(usize, &str)> = seats.into_iter().map(|(domain, seats)| (seats, domain)).collect();
    seats.sort_unstable_by(|a, b| b.cmp(a));
    seats.truncate(usize::from(tolerate));
    let together = seats.iter().map(|(count, _)| count).sum::<usize>();
    if together < usize::from(t) { Vec::new() } else { seats.into_iter().map(|(_, domain)| domain).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{Fake, Generator, KeyDealt, Seed};
    use crate::types::SecretBytes;

    const MESH: MeshId = MeshId([1; 32]);

    fn host(number: u8) -> HostId {
        HostId([number; 32])
    }

    fn founded() -> (Committee, KeyDealt) {
        let dealt = Fake.key_deal(2, 3, None, &mut Generator::new(&Seed([1; 32].into()))).unwrap();
        let holders = (1..=3).map(host).collect();
        let commitments = dealt.commitments.clone();
        let key = KeySetup { key_epoch: 1, t: 2, holders, commitments, ceremony: None, dealers: Vec::new() };
        (Committee::founded(key), dealt)
    }

    fn take(committee: &mut Committee, step: &Step) -> Result<(), Check> {
        committee.take(&Fake, &MESH, Round(1), step)
    }

    /// What the first two of the old holders deal for a ceremony.
    fn dealt(shares: &KeyDealt, ceremony: &Ceremony) -> Vec<HeldDeal> {
        let mut generator = Generator::new(&Seed([2; 32].into()));
        let n = u8::try_from(ceremony.receivers.len()).unwrap();
        let mut one = |index: u8| {
            let share = &shares.shares[usize::from(index) - 1];
            let commitments = Fake.key_deal(ceremony.t, n, Some(share), &mut generator).unwrap().commitments;
            HeldDeal { dealer: ShareIndex(index), commitments, proof: BlsSignature::ZERO, held: Vec::new() }
        };
        vec![one(1), one(2)]
    }

    #[test]
    fn a_committee_grows_with_its_mesh_by_odd_numbers_up_to_what_the_genesis_asks_for() {
        let seats = |committee| (0..=8).map(|hosts| wanted(hosts, committee)).collect::<Vec<_>>();
        assert_eq!(seats(5), [3, 3, 3, 3, 3, 5, 5, 5, 5]);
        assert_eq!(seats(3), [3; 9]);
        assert_eq!(seats(21), [3, 3, 3, 3, 3, 5, 5, 7, 7]);
    }

    #[test]
    fn a_change_takes_its_steps_in_order_and_no_two_are_in_flight() {
        let (mut committee, shares) = founded();
        let key = committee.key.mesh_key();
        assert_eq!(take(&mut committee, &Step::Seat { host: host(4), id: 9 }), Err(Check::Record), "ids are in order");
        assert_eq!(take(&mut committee, &Step::Seat { host: host(1), id: 4 }), Err(Check::Record), "it sits already");
        take(&mut committee, &Step::Seat { host: host(4), id: 4 }).unwrap();
        assert_eq!(take(&mut committee, &Step::Seat { host: host(5), id: 5 }), Err(Check::Record), "one at a time");
        let early = committee.next_dealing((1..=4).map(host).collect());
        assert_eq!(take(&mut committee, &Step::Redeal(early.clone())), Err(Check::Record), "it does not vote yet");
        take(&mut committee, &Step::Promote { id: 4 }).unwrap();
        assert_eq!(take(&mut committee, &Step::Promote { id: 4 }), Err(Check::Record));
        let few = committee.next_dealing((1..=2).map(host).collect());
        assert_eq!(take(&mut committee, &Step::Redeal(few)), Err(Check::Record), "not a majority of those who vote");
        take(&mut committee, &Step::Redeal(early.clone())).unwrap();
        assert_eq!(take(&mut committee, &Step::Unseat { id: 4 }), Err(Check::Record), "a dealing is under way");
        let activate = Step::Activate { ceremony: early.digest(&MESH), dealt: dealt(&shares, &early) };
        take(&mut committee, &activate).unwrap();
        assert_eq!(take(&mut committee, &activate), Err(Check::Record), "once");
        assert_eq!((committee.key.key_epoch, committee.key.t, committee.key.holders.len()), (2, 3, 4));
        assert_eq!(committee.key.mesh_key(), key, "the key never changes");
        assert_eq!(take(&mut committee, &Step::Unseat { id: 4 }), Err(Check::Record), "it holds a share that signs");
    }

    #[test]
    fn a_dealing_that_would_change_the_key_is_not_activated() {
        let (mut committee, shares) = founded();
        let ceremony = committee.next_dealing((1..=3).map(host).collect());
        take(&mut committee, &Step::Redeal(ceremony.clone())).unwrap();
        let good = dealt(&shares, &ceremony);
        let activate = |dealt: Vec<HeldDeal>| Step::Activate { ceremony: ceremony.digest(&MESH), dealt };
        let mut swapped = good.clone();
        (swapped[0].commitments, swapped[1].commitments) = (good[1].commitments.clone(), good[0].commitments.clone());
        for bad in [good[..1].to_vec(), swapped, vec![good[1].clone(), good[0].clone()], vec![good[0].clone(); 2]] {
            assert_eq!(take(&mut committee, &activate(bad)), Err(Check::Deal));
        }
        let stranger = Step::Activate { ceremony: Digest::ZERO, dealt: good.clone() };
        assert_eq!(take(&mut committee, &stranger), Err(Check::Record));
        take(&mut committee, &Step::Abort { ceremony: ceremony.digest(&MESH) }).unwrap();
        assert_eq!(take(&mut committee, &activate(good)), Err(Check::Record), "aborted is aborted");
        assert_eq!(committee.next_dealing(Vec::new()).attempt, 2, "the next attempt has another number");
    }

    #[test]
    fn a_deal_counts_only_under_the_signature_of_every_receiver() {
        let (committee, shares) = founded();
        let ceremony = committee.next_dealing((1..=3).map(host).collect());
        let seed = |number: u8| SecretBytes::copy_of(&[number; 32]);
        let keys: BTreeMap<HostId, TransportKey> =
            (1..=3).map(|number| (host(number), Fake.ed25519_public(&seed(number)).unwrap())).collect();
        let mut deal = dealt(&shares, &ceremony).remove(0);
        let name = |deal: &HeldDeal| KeyDeal::named(&MESH, &host(1), &deal.commitments, &deal.proof);
        let bytes = KeyDeal::held_bytes(&MESH, &ceremony.digest(&MESH), &name(&deal));
        deal.held = (1..=3).map(|number| Fake.ed25519_sign(&seed(number), &bytes).unwrap()).collect();
        let holds = |deal: &HeldDeal, ceremony: &Ceremony| deal.is_held(&Fake, &MESH, ceremony, |host| keys.get(host));
        assert!(holds(&deal, &ceremony));
        let mut one_missing = deal.clone();
        one_missing.held.pop();
        let mut one_twice = deal.clone();
        one_twice.held[2] = deal.held[1];
        let mut another = deal.clone();
        another.commitments.swap(0, 1);
        let of_another_dealer = HeldDeal { dealer: ShareIndex(2), ..deal.clone() };
        let of_nobody = HeldDeal { dealer: ShareIndex(0), ..deal.clone() };
        for bad in [one_missing, one_twice, another, of_another_dealer, of_nobody] {
            assert!(!holds(&bad, &ceremony));
        }
        let next = Ceremony { attempt: 2, ..ceremony };
        assert!(!holds(&deal, &next), "what was held in one attempt is not held in another");
    }

    #[test]
    fn a_lost_seat_goes_once_the_key_has_moved_and_one_lost_before_it_voted_goes_at_once() {
        let (mut committee, shares) = founded();
        committee.lose(&host(1));
        assert_eq!(committee.seat_of(&host(1)), None);
        take(&mut committee, &Step::Seat { host: host(1), id: 4 }).unwrap();
        committee.lose(&host(1));
        take(&mut committee, &Step::Unseat { id: 4 }).unwrap();
        take(&mut committee, &Step::Seat { host: host(1), id: 5 }).unwrap();
        take(&mut committee, &Step::Promote { id: 5 }).unwrap();
        assert_eq!(take(&mut committee, &Step::Unseat { id: 1 }), Err(Check::Record), "its share signs still");
        let ceremony = committee.next_dealing((1..=3).map(host).collect());
        take(&mut committee, &Step::Redeal(ceremony.clone())).unwrap();
        let activate = Step::Activate { ceremony: ceremony.digest(&MESH), dealt: dealt(&shares, &ceremony) };
        take(&mut committee, &activate).unwrap();
        assert_eq!(take(&mut committee, &Step::Unseat { id: 5 }), Err(Check::Record), "the new seat holds a share");
        take(&mut committee, &Step::Unseat { id: 1 }).unwrap();
        assert_eq!(committee.ids(true), [2, 3, 5]);
    }

    #[test]
    fn no_tolerated_union_of_domains_may_hold_t_seats() {
        assert!(seats_are_spread(3, 1, ["a", "a", "b", "c", "d"].into_iter()));
        assert!(!seats_are_spread(3, 1, ["a", "a", "a", "b", "c"].into_iter()));
        assert!(!seats_are_spread(3, 2, ["a", "a", "b", "c", "d"].into_iter()));
        assert!(seats_are_spread(2, 0, ["a", "a", "a"].into_iter()));
        assert_eq!(crowded_domains(3, 2, ["c", "a", "b", "a", "d"].into_iter()), ["a", "d"]);
    }
}

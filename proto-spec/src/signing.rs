//! What the mesh key signs, and what a member must not forget before its part leaves it. The table of purposes is a
//! type: there is no other way to a partial signature.

use std::collections::BTreeMap;

use crate::beacon::beacon_message;
use crate::cms::committee::KeySetup;
use crate::cms::records::Records;
use crate::header::Header;
use crate::membership::{MemberRecord, admission_bytes};
use crate::suite::Suite;
use crate::types::{
    BlsPublic, BlsSignature, Digest, HostId, MeshId, Purpose, Round, SecretBytes, ShareIndex, TicketSerial,
};

/// Something that the mesh key signs.
#[derive(Debug, Clone, Copy)]
pub enum Signable<'a> {
    /// The beacon of a round.
    Beacon(Round),
    /// The header of a round.
    Header(&'a Header),
    /// The admission of a member.
    Admission(&'a MemberRecord),
    /// The admission of a founder, by the key that is founded with it.
    Founder(&'a MemberRecord),
    /// The founding, as bytes: signed once, by a key that is no older than it.
    Founding(&'a [u8]),
    /// The unlock of a host's period key. Never published.
    Unlock {
        /// The host.
        host: &'a HostId,
        /// Digest of its member record.
        record: &'a Digest,
        /// The unlock number.
        number: u64,
    },
}

/// What a member remembers of what it signs at most once. It is written in the lane in which a part leaves, before that.
#[derive(Default, Clone, Copy)]
pub struct Memory<'a> {
    /// Its records: of each round they closed one header.
    pub records: Option<&'a Records>,
    /// For which ticket it signed which member record.
    pub tickets: Option<&'a BTreeMap<TicketSerial, Digest>>,
}

impl Signable<'_> {
    /// Whether a member may sign it. A beacon and an unlock are one thing each, and there is nothing to remember; what is
    /// signed in a founding, the key signs before it is in force, and its holders only once.
    fn is_remembered(&self, mesh: &MeshId, memory: Memory<'_>) -> bool {
        match self {
            Self::Beacon(_) | Self::Unlock { .. } | Self::Founding(_) | Self::Founder(_) => true,
            Self::Header(header) => {
                memory.records.is_some_and(|records| records.header_of(header.round) == Some(header))
            }
            Self::Admission(record) => {
                let signed = memory.tickets.and_then(|tickets| tickets.get(&record.ticket));
                signed == Some(&record.digest(mesh))
            }
        }
    }

    fn bytes(&self, mesh: &MeshId) -> Vec<u8> {
        match self {
            Self::Beacon(round) => beacon_message(*round).to_vec(),
            Self::Header(header) => header.signed_bytes(mesh),
            Self::Admission(record) | Self::Founder(record) => admission_bytes(mesh, record),
            Self::Founding(bytes) => bytes.to_vec(),
            Self::Unlock { host, record, number } => {
                let body = Purpose::Unlock.digest(&[&host.0, &record.0, &number.to_be_bytes()]);
                Purpose::Unlock.signed_bytes(mesh, &body.0)
            }
        }
    }

    /// One member's part; `None` also where it does not remember what it has to.
    pub fn partial(
        &self,
        suite: &dyn Suite,
        mesh: &MeshId,
        share: &SecretBytes,
        memory: Memory<'_>,
    ) -> Option<BlsSignature> {
        if !self.is_remembered(mesh, memory) {
            return None;
        }
        let bytes = self.bytes(mesh);
        match self {
            Self::Beacon(_) => suite.beacon_sign(share, &bytes),
            _ => suite.bls_sign(share, &bytes),
        }
    }

    /// Whether a signature, whole or partial, holds under a key.
    pub fn holds(&self, suite: &dyn Suite, mesh: &MeshId, key: &BlsPublic, signature: &BlsSignature) -> bool {
        let bytes = self.bytes(mesh);
        match self {
            Self::Beacon(_) => suite.beacon_holds(key, &bytes, signature),
            _ => suite.bls_holds(key, &bytes, signature),
        }
    }
}

/// Parts of one signature, by the index of the share.
pub type Parts = BTreeMap<ShareIndex, BlsSignature>;

/// Combines the first t parts to the mesh key's signature, and does not look who is to blame where it does not hold: whoever
/// brings others' parts buys one check, not one for each.
pub fn combine_unnamed(
    suite: &dyn Suite,
    mesh: &MeshId,
    setup: &KeySetup,
    what: Signable<'_>,
    parts: &Parts,
) -> Option<BlsSignature> {
    let t = usize::from(setup.t);
    let first: Vec<(ShareIndex, BlsSignature)> = parts.iter().take(t).map(|(index, part)| (*index, *part)).collect();
    let sum = if first.len() == t { suite.bls_combine(&first) } else { None };
    sum.filter(|sum| what.holds(suite, mesh, setup.mesh_key().public(), sum))
}

/// Combines parts to the mesh key's signature. Only where the sum does not hold is each part checked by itself; the
/// wrong ones are dropped, and given back by their indexes.
///
/// # Errors
/// The indexes of the parts that were dropped; empty where there are just too few.
pub fn combine(
    suite: &dyn Suite,
    mesh: &MeshId,
    setup: &KeySetup,
    what: Signable<'_>,
    parts: &mut Parts,
) -> Result<BlsSignature, Vec<ShareIndex>> {
    if parts.len() < usize::from(setup.t) {
        return Err(Vec::new());
    }
    let sum = |parts: &Parts| combine_unnamed(suite, mesh, setup, what, parts);
    if let Some(signature) = sum(parts) {
        return Ok(signature);
    }
    let is_wrong = |(index, part): (&ShareIndex, &BlsSignature)| {
        let key = setup.public_of(suite, *index);
        !key.is_some_and(|key| what.holds(suite, mesh, &key, part))
    };
    let wrong: Vec<ShareIndex> = parts.iter().filter(|part| is_wrong(*part)).map(|(index, _)| *index).collect();
    for index in &wrong {
        parts.remove(index);
    }
    sum(parts).ok_or(wrong)
}

/// What is signed by all in each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Topic {
    /// The beacon.
    Beacon(Round),
    /// The header.
    Header(Round),
}

impl Topic {
    /// Its round.
    pub fn round(self) -> Round {
        match self {
            Self::Beacon(round) | Self::Header(round) => round,
        }
    }
}

/// Rounds around the present one whose parts are kept.
const ROUNDS_KEPT: u64 = 2;

/// The parts that came, of the rounds around the present one.
#[derive(Debug, Default)]
pub struct State {
    open: BTreeMap<Topic, Parts>,
}

impl State {
    /// Takes a part in. One member's word counts once: the first stays until it is found to be wrong.
    pub fn add(&mut self, present: Round, topic: Topic, index: ShareIndex, part: BlsSignature) {
        let near = |round: Round| round.0.abs_diff(present.0) <= ROUNDS_KEPT;
        self.open.retain(|topic, _| near(topic.round()));
        if near(topic.round()) {
            self.open.entry(topic).or_default().entry(index).or_insert(part);
        }
    }

    /// The parts of a topic.
    pub fn parts(&mut self, topic: Topic) -> Option<&mut Parts> {
        self.open.get_mut(&topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cms::snapshot::Snapshot;
    use crate::suite::{Fake, Generator, Real, Seed};

    const MESH: MeshId = MeshId([5; 32]);

    fn setup(suite: &dyn Suite) -> (KeySetup, Vec<SecretBytes>) {
        let dealt = suite.key_deal(3, 5, None, &mut Generator::new(&Seed([1; 32].into()))).unwrap();
        let holders = (1..=5).map(|i| HostId([i; 32])).collect();
        let (commitments, dealers) = (dealt.commitments, Vec::new());
        (KeySetup { key_epoch: 1, t: 3, holders, commitments, ceremony: None, dealers }, dealt.shares)
    }

    fn parts(suite: &dyn Suite, what: Signable<'_>, shares: &[SecretBytes], indexes: &[u8]) -> Parts {
        let part = |index: &u8| {
            let share = &shares[usize::from(*index) - 1];
            (ShareIndex(*index), what.partial(suite, &MESH, share, Memory::default()).unwrap())
        };
        indexes.iter().map(part).collect()
    }

    #[test]
    fn a_wrong_part_is_found_and_the_others_still_sign() {
        for suite in [&Real as &dyn Suite, &Fake] {
            let (setup, shares) = setup(suite);
            let what = Signable::Beacon(Round(7));
            let mut good = parts(suite, what, &shares, &[2, 4, 5]);
            let signature = combine(suite, &MESH, &setup, what, &mut good).unwrap();
            let mut four = parts(suite, what, &shares, &[1, 2, 4, 5]);
            four.insert(ShareIndex(1), four[&ShareIndex(2)]);
            assert_eq!(combine(suite, &MESH, &setup, what, &mut four), Ok(signature));
            assert!(!four.contains_key(&ShareIndex(1)), "the liar's part is gone");
            let mut three = parts(suite, what, &shares, &[1, 2, 4]);
            three.insert(ShareIndex(4), three[&ShareIndex(2)]);
            assert_eq!(combine(suite, &MESH, &setup, what, &mut three), Err(vec![ShareIndex(4)]));
            assert_eq!(combine(suite, &MESH, &setup, what, &mut three), Err(vec![]), "now there are just too few");
        }
    }

    #[test]
    fn what_is_signed_for_one_purpose_holds_for_no_other() {
        for suite in [&Real as &dyn Suite, &Fake] {
            let (setup, shares) = setup(suite);
            let (host, record) = (HostId([7; 32]), Digest([8; 32]));
            let unlock = |number| Signable::Unlock { host: &host, record: &record, number };
            let mut one = parts(suite, unlock(1), &shares, &[1, 2, 3]);
            let signature = combine(suite, &MESH, &setup, unlock(1), &mut one).unwrap();
            let key = *setup.mesh_key().public();
            assert!(unlock(1).holds(suite, &MESH, &key, &signature));
            assert!(!unlock(2).holds(suite, &MESH, &key, &signature));
            assert!(!unlock(1).holds(suite, &MeshId([6; 32]), &key, &signature));
            assert!(!Signable::Founding(&[]).holds(suite, &MESH, &key, &signature));
        }
    }

    #[test]
    fn what_a_member_does_not_remember_it_does_not_sign() {
        let (setup, shares) = setup(&Fake);
        let header = Header {
            round: Round(7),
            member_root: Digest::ZERO,
            policy_root: Digest::ZERO,
            certified: Round(0),
            committee: Digest::ZERO,
            key_epoch: setup.key_epoch,
            protocol_version: 1,
            record: 1,
            records_root: Digest::ZERO,
            snapshot: Snapshot::default(),
            group_root: Digest::ZERO,
        };
        let (closed_none, part) = (Records::default(), &shares[0]);
        let memory = Memory { records: Some(&closed_none), tickets: None };
        let signs = |what: Signable<'_>, memory| what.partial(&Fake, &MESH, part, memory).is_some();
        assert!(!signs(Signable::Header(&header), Memory::default()));
        assert!(!signs(Signable::Header(&header), memory), "its records closed no header of this round");
        assert!(signs(Signable::Beacon(Round(7)), Memory::default()), "there is only one of a round");
    }

    #[test]
    fn the_first_word_of_a_member_counts_and_far_rounds_are_not_kept() {
        let mut state = State::default();
        let topic = Topic::Beacon(Round(10));
        state.add(Round(10), topic, ShareIndex(1), BlsSignature([1; 48]));
        state.add(Round(10), topic, ShareIndex(1), BlsSignature([2; 48]));
        assert_eq!(state.parts(topic).unwrap()[&ShareIndex(1)], BlsSignature([1; 48]));
        state.add(Round(10), Topic::Header(Round(13)), ShareIndex(1), BlsSignature::ZERO);
        assert!(state.parts(Topic::Header(Round(13))).is_none());
        state.add(Round(13), Topic::Beacon(Round(13)), ShareIndex(1), BlsSignature::ZERO);
        assert!(state.parts(topic).is_none());
    }
}

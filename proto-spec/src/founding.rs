//! The founding: three hosts that nobody vouches for yet check each other's chips, each by its own challenge, deal the
//! mesh key jointly, and end the forming of the mesh with one record that all three and the new key sign.
//!
//! call → challenges → answers → deals → votes → record. A founder votes only for what it holds a flushed share of; the
//! record needs all three, so two attempts never both succeed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attest::enroll::{Candidate, OpenChallenge};
use crate::attest::quote::Quote;
use crate::attest::tpm::CredentialBlob;
use crate::cms::command::Founding;
use crate::cms::committee::{FOUNDERS, FOUNDERS_T, KeySetup, seats_are_spread};
use crate::credential::dealing::{self, Ceremony, DealVerified, Dealer, KeyDeal};
use crate::error::Check;
use crate::genesis::GenesisVerified;
use crate::membership::{Admission, MemberRecord, Role};
use crate::signing::{Memory, Parts, Signable, combine};
use crate::suite::{Generator, Seed, Suite};
use crate::ticket::TicketVerified;
use crate::types::{
    BlsSignature, Digest, Ed25519Signature, HostId, HpkePublic, MeshId, Purpose, RequestId, SecretBytes, ShareIndex,
    Time, TransportKey,
};
use crate::wire::{self, Address, EnrolHello};

/// A host that would found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founder {
    /// Its ticket, keys and address.
    pub hello: EnrolHello,
}

/// A founder's word for the outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// Signature of its transport key over the founding.
    pub consent: Ed25519Signature,
    /// Its parts of the new key's signatures: over the founding, then over each admission.
    pub parts: Vec<BlsSignature>,
    /// The deals that it saw, in order, under their dealers' signatures: where others saw another one, who dealt twice is
    /// known, and nobody else is blamed.
    pub deals: Vec<(Digest, Ed25519Signature)>,
}

/// What this founder holds once all deals are in.
pub struct Outcome {
    /// The public part.
    pub setup: KeySetup,
    /// Digest of the deals.
    pub deals: Digest,
    /// This founder's share of the mesh key.
    pub share: SecretBytes,
}

/// One of the three.
struct Peer {
    record: MemberRecord,
    address: Address,
    /// This founder's challenge to it, until it is answered.
    challenge: Option<OpenChallenge>,
    blobs: Vec<CredentialBlob>,
    /// The session key that its quote named.
    session: Option<HpkePublic>,
}

impl Peer {
    /// Checks one that is called, by its ticket, keys and certificates, and makes its challenge.
    fn called(
        suite: &dyn Suite,
        generator: &mut Generator,
        genesis: &GenesisVerified,
        hello: &EnrolHello,
        wall_ms: u64,
    ) -> Result<Self, Check> {
        let ticket = TicketVerified::check(suite, genesis, &hello.ticket, wall_ms)?;
        let candidate = Candidate::check(suite, genesis, &ticket, &hello.keys, wall_ms)?;
        let record = candidate.record().clone();
        if record.role != Role::Host {
            return Err(Check::Role);
        }
        let (challenge, blobs) = candidate.challenge(suite, generator)?;
        Ok(Self { challenge: Some(challenge), blobs, session: None, address: hello.address.clone(), record })
    }
}

/// One attempt at a founding.
pub struct Attempt {
    /// Names it.
    pub id: RequestId,
    /// When it is given up.
    pub deadline: Time,
    mesh: MeshId,
    own: HostId,
    session: (SecretBytes, HpkePublic),
    peers: BTreeMap<HostId, Peer>,
    ceremony: Ceremony,
    deals: BTreeMap<ShareIndex, DealVerified>,
    /// Their digests, under their dealers' signatures.
    signed: BTreeMap<ShareIndex, (Digest, Ed25519Signature)>,
    sub_shares: BTreeMap<ShareIndex, SecretBytes>,
    outcome: Option<Outcome>,
    votes: BTreeMap<HostId, Vote>,
}

/// A deal of the founding, under its dealer's signature.
pub type SignedDeal = (KeyDeal, Ed25519Signature);

impl Attempt {
    /// Begins: checks the three by their tickets, keys and certificates, and makes the challenges.
    ///
    /// # Errors
    /// The first check that fails, and where it is one founder that does not hold up, its transport key.
    #[allow(clippy::too_many_arguments, reason = "what an attempt is made of")]
    pub fn begin(
        suite: &dyn Suite,
        generator: &mut Generator,
        genesis: &GenesisVerified,
        own: HostId,
        id: RequestId,
        founders: &[Founder],
        wall_ms: u64,
        deadline: Time,
    ) -> Result<Self, (Option<TransportKey>, Check)> {
        let mut peers = BTreeMap::new();
        for founder in founders {
            let peer = Peer::called(suite, generator, genesis, &founder.hello, wall_ms)
                .map_err(|check| (Some(founder.hello.keys.transport), check))?;
            peers.insert(peer.record.host, peer);
        }
        check_three(&peers, &own, genesis.genesis().tolerate).map_err(|check| (None, check))?;
        let session = suite.hpke_keys(&generator.secret(32));
        if let Some(peer) = peers.get_mut(&own) {
            (peer.challenge, peer.session) = (None, Some(session.1));
        }
        let hosts: Vec<HostId> = peers.keys().copied().collect();
        let ceremony = Ceremony { key_epoch: 1, attempt: 1, t: FOUNDERS_T, dealers: hosts.clone(), receivers: hosts };
        Ok(Self {
            id,
            deadline,
            mesh: *genesis.mesh(),
            own,
            session,
            peers,
            ceremony,
            deals: BTreeMap::new(),
            signed: BTreeMap::new(),
            sub_shares: BTreeMap::new(),
            outcome: None,
            votes: BTreeMap::new(),
        })
    }

    /// Whether everybody but this founder has voted.
    pub fn awaits_own_vote(&self) -> bool {
        self.votes.len() == FOUNDERS - 1 && !self.votes.contains_key(&self.own)
    }

    /// Transport keys and addresses of the other two.
    pub fn others(&self) -> Vec<(TransportKey, Address)> {
        let others = self.peers.values().filter(|peer| peer.record.host != self.own);
        others.map(|peer| (peer.record.transport, peer.address.clone())).collect()
    }

    /// Which founder has this transport key.
    pub fn founder(&self, key: &TransportKey) -> Option<HostId> {
        self.peers.values().find(|peer| peer.record.transport == *key).map(|peer| peer.record.host)
    }

    /// The transport key of a founder.
    pub fn transport_of(&self, host: &HostId) -> Option<TransportKey> {
        self.peers.get(host).map(|peer| peer.record.transport)
    }

    /// This founder's challenge to another.
    pub fn blobs(&self, to: &TransportKey) -> Option<&[CredentialBlob]> {
        let host = self.founder(to)?;
        self.peers.get(&host).map(|peer| peer.blobs.as_slice())
    }

    /// This founder's session key, which its answers name.
    pub fn session(&self) -> &HpkePublic {
        &self.session.1
    }

    /// What an answer's quote binds beside the secrets: the attempt and the session key.
    pub fn bound(id: &RequestId, record: &Digest, session: &HpkePublic) -> Digest {
        Purpose::Founding.digest(&[&id.0, &record.0, &session.0])
    }

    /// The digest that this founder's own answers quote over, beside the secrets.
    pub fn own_bound(&self) -> Option<Digest> {
        let record = &self.peers.get(&self.own)?.record;
        Some(Self::bound(&self.id, &record.digest(&self.mesh), &self.session.1))
    }

    /// An answer to this founder's challenge. Says whether both others have answered now.
    ///
    /// # Errors
    /// [`Check::Challenge`] where it does not hold; the attempt is lost then.
    pub fn answered(
        &mut self,
        suite: &dyn Suite,
        from: &HostId,
        session: HpkePublic,
        quote: &Quote,
    ) -> Result<bool, Check> {
        let peer = self.peers.get_mut(from).ok_or(Check::Membership)?;
        if let Some(challenge) = peer.challenge.take() {
            let bound = Self::bound(&self.id, &peer.record.digest(&self.mesh), &session);
            challenge.check_answer(suite, &self.mesh, &bound, quote)?;
            peer.session = Some(session);
        }
        Ok(self.peers.values().all(|peer| peer.session.is_some()))
    }

    /// This founder's deal, once both others have proven their chips.
    pub fn deal(&self, suite: &dyn Suite, generator: &mut Generator, transport: &SecretBytes) -> Option<SignedDeal> {
        let keys: Vec<Option<HpkePublic>> = self.peers.values().map(|peer| peer.session).collect();
        if !keys.iter().all(Option::is_some) {
            return None;
        }
        let dealer = Dealer { suite, mesh: &self.mesh, ceremony: &self.ceremony, host: &self.own };
        let deal = dealer.deal(&Seed(generator.bytes().into()), None, &keys, generator)?;
        let signature =
            suite.ed25519_sign(transport, &Self::deal_bytes(&self.mesh, &self.id, &deal.digest(&self.mesh)))?;
        Some((deal, signature))
    }

    /// What a dealer signs: one deal in one attempt.
    pub fn deal_bytes(mesh: &MeshId, attempt: &RequestId, deal: &Digest) -> Vec<u8> {
        KeyDeal::signed_bytes(mesh, &Purpose::Founding.digest(&[&attempt.0]), deal)
    }

    /// Whether a founder signed this deal.
    fn is_signed(&self, suite: &dyn Suite, dealer: &HostId, (deal, signature): &(Digest, Ed25519Signature)) -> bool {
        let bytes = Self::deal_bytes(&self.mesh, &self.id, deal);
        self.peers.get(dealer).is_some_and(|peer| suite.ed25519_holds(&peer.record.transport, &bytes, signature))
    }

    /// A deal. Says whether all three are in and add up.
    ///
    /// # Errors
    /// [`Check::Deal`], [`Check::DealTwice`] or [`Check::Share`]: it is the dealer's fault, and the attempt is lost.
    pub fn dealt(&mut self, suite: &dyn Suite, from: &HostId, (deal, signature): &SignedDeal) -> Result<bool, Check> {
        let index = self.ceremony.dealer(from).filter(|_| deal.dealer == *from).ok_or(Check::Deal)?;
        let signed = (deal.digest(&self.mesh), *signature);
        if !self.is_signed(suite, from, &signed) {
            return Err(Check::Deal);
        }
        if let Some(known) = self.deals.get(&index) {
            return if known.deal() == deal { Ok(self.outcome.is_some()) } else { Err(Check::DealTwice) };
        }
        let verified = DealVerified::check(suite, &self.ceremony, None, deal)?;
        let share = verified.open(suite, &self.mesh, &self.ceremony, &self.own, &[&self.session.0])?;
        // Sealed to the session key of this very attempt: what does not open is the dealer's fault here.
        let share = share.ok_or(Check::Share)?;
        self.deals.insert(index, verified);
        self.signed.insert(index, signed);
        self.sub_shares.insert(index, share);
        if self.deals.len() < FOUNDERS {
            return Ok(false);
        }
        let t = self.ceremony.t;
        let dealt: Vec<_> =
            self.deals.iter().map(|(index, deal)| (*index, deal.deal().commitments.as_slice())).collect();
        let commitments = dealing::commitments(suite, t, None, &dealt)?;
        let own = self.ceremony.receiver(&self.own).ok_or(Check::Membership)?;
        let parts: Vec<_> = self.sub_shares.iter().map(|(index, share)| (*index, share)).collect();
        let share = dealing::share(suite, (t, own), false, &commitments, &parts)?;
        let holders = self.ceremony.receivers.clone();
        let (ceremony, dealers) = (None, Vec::new());
        let setup = KeySetup { key_epoch: 1, t: FOUNDERS_T, holders, commitments, ceremony, dealers };
        let digests: Vec<u8> = self.deals.values().flat_map(|deal| deal.deal().digest(&self.mesh).0).collect();
        self.outcome = Some(Outcome { setup, deals: Purpose::Founding.digest(&[&digests]), share });
        Ok(true)
    }

    /// What this founder holds once all deals are in: to be on disk before its vote leaves.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    fn records(&self) -> Vec<MemberRecord> {
        self.peers.values().map(|peer| peer.record.clone()).collect()
    }

    fn founding_bytes(&self, outcome: &Outcome) -> Vec<u8> {
        Founding::signed_bytes(&self.mesh, &self.records(), &outcome.setup, &outcome.deals)
    }

    /// This founder's vote.
    pub fn vote(&self, suite: &dyn Suite, transport: &SecretBytes) -> Option<Vote> {
        let outcome = self.outcome.as_ref()?;
        let bytes = self.founding_bytes(outcome);
        let part = |what: Signable<'_>| what.partial(suite, &self.mesh, &outcome.share, Memory::default());
        let mut parts = vec![part(Signable::Founding(&bytes))?];
        for record in self.records() {
            parts.push(part(Signable::Founder(&record))?);
        }
        let deals = self.signed.values().copied().collect();
        Some(Vote { consent: suite.ed25519_sign(transport, &bytes)?, parts, deals })
    }

    /// A vote. Gives the record once all three are in.
    ///
    /// # Errors
    /// Whose fault it is: [`Check::DealTwice`] of the dealer of whom the voter saw another deal, or [`Check::Deal`] of the
    /// voter.
    pub fn voted(
        &mut self,
        suite: &dyn Suite,
        genesis: &GenesisVerified,
        from: &HostId,
        vote: &Vote,
    ) -> Result<Option<Founding>, (HostId, Check)> {
        let peer = self.peers.get(from).ok_or((*from, Check::Membership))?;
        let Some(outcome) = &self.outcome else {
            return Ok(None); // its vote overtook a deal: it is sent again
        };
        let bytes = self.founding_bytes(outcome);
        let consents = suite.ed25519_holds(&peer.record.transport, &bytes, &vote.consent);
        if !consents || vote.parts.len() != FOUNDERS + 1 {
            let liar = self.dealt_twice(suite, vote).map(|dealer| (dealer, Check::DealTwice));
            return Err(liar.unwrap_or((*from, Check::Deal)));
        }
        self.votes.insert(*from, vote.clone());
        if self.votes.len() < FOUNDERS {
            return Ok(None);
        }
        self.record(suite, genesis).map(Some).map_err(|check| (*from, check))
    }

    /// Who signed another deal for a voter than for this founder.
    fn dealt_twice(&self, suite: &dyn Suite, vote: &Vote) -> Option<HostId> {
        let dealers = self.ceremony.dealers.iter().zip(self.signed.values().zip(&vote.deals));
        let mut liars =
            dealers.filter(|(dealer, (own, other))| own.0 != other.0 && self.is_signed(suite, dealer, other));
        liars.next().map(|(dealer, _)| *dealer)
    }

    fn record(&self, suite: &dyn Suite, genesis: &GenesisVerified) -> Result<Founding, Check> {
        let outcome = self.outcome.as_ref().ok_or(Check::NotReady)?;
        let bytes = self.founding_bytes(outcome);
        let signature = |at: usize, what: Signable<'_>| {
            let part = |(host, vote): (&HostId, &Vote)| Some((outcome.setup.index_of(host)?, *vote.parts.get(at)?));
            let mut parts = self.votes.iter().map(part).collect::<Option<Parts>>().ok_or(Check::Deal)?;
            combine(suite, &self.mesh, &outcome.setup, what, &mut parts).map_err(|_| Check::Deal)
        };
        let founding = signature(0, Signable::Founding(&bytes))?;
        let mut founders = Vec::new();
        for (at, record) in (1..).zip(self.records()) {
            let signature = signature(at, Signable::Founder(&record))?;
            founders.push(Admission { record, signature });
        }
        Ok(Founding {
            genesis: genesis.signed().clone(),
            founders,
            key: outcome.setup.clone(),
            deals: outcome.deals,
            signature: founding,
            consents: self.votes.values().map(|vote| vote.consent).collect(),
        })
    }
}

/// Three machines, not one that shows itself three times, in domains enough, and this host among them.
fn check_three(peers: &BTreeMap<HostId, Peer>, own: &HostId, tolerate: u8) -> Result<(), Check> {
    let records: Vec<&MemberRecord> = peers.values().map(|peer| &peer.record).collect();
    for (at, one) in records.iter().enumerate() {
        records.iter().skip(at + 1).try_for_each(|other| check_apart(one, other))?;
    }
    if !seats_are_spread(FOUNDERS_T, tolerate, records.iter().map(|record| record.domain.as_str())) {
        return Err(Check::Spread);
    }
    if peers.len() != FOUNDERS || !peers.contains_key(own) {
        return Err(Check::Membership);
    }
    Ok(())
}

/// Whether two founders share nothing that is one machine's.
///
/// # Errors
/// The first thing that they share.
pub fn check_apart(one: &MemberRecord, other: &MemberRecord) -> Result<(), Check> {
    if one.ek_hashes().any(|hash| other.ek_hashes().any(|twin| twin == hash)) {
        return Err(Check::EkKnown);
    }
    if one.name == other.name {
        return Err(Check::NameTaken);
    }
    if one.ticket == other.ticket {
        return Err(Check::TicketUsed);
    }
    if one.transport == other.transport || one.ak == other.ak || one.vote == other.vote {
        return Err(Check::Transport);
    }
    Ok(())
}

/// Names the shares of a dealing on disk.
pub fn share_row(setup: &KeySetup) -> Vec<u8> {
    [setup.key_epoch.to_be_bytes().as_slice(), &setup.digest().0].concat()
}

/// A share of the mesh key as it rests: sealed under a key that follows from the TPM-bound secret alone, since it must
/// open before anybody unlocks anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestingShare {
    /// The public part of the dealing.
    pub setup: KeySetup,
    /// The sealed share.
    #[serde(with = "serde_bytes")]
    pub sealed: Vec<u8>,
}

impl RestingShare {
    /// Bytes of the largest one.
    pub const MAX: usize = 8 * 1024;

    /// The bytes on disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        wire::encode(self)
    }
}

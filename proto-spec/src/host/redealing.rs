//! The mesh key moves: the holders of the old shares deal them to the new holders; the public key stays. A share of the
//! new dealing counts once one record names its dealers; before that, the old ones go on.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Action, Actions, Host, Lane, Report, Share, Table, Write};
use crate::cms::committee::{HeldDeal, KeySetup, Step};
use crate::credential::dealing::{self, Ceremony, DealVerified, Dealer, KeyDeal};
use crate::error::Check;
use crate::founding;
use crate::limits::{DEALING_MS, PART_RETRY_MS};
use crate::suite::{Seed, symmetric};
use crate::types::{Digest, Ed25519Signature, HostId, HpkePublic, MeshId, Now, Purpose, SecretBytes, ShareIndex, Time};
use crate::view::View;
use crate::wire::{self, Message};

/// A dealing under way.
pub(super) struct Redealing {
    ceremony: Digest,
    since: Time,
    /// What is sent again until the dealing ends.
    pub(super) again_at: Time,
    /// Who is to hold the new shares.
    receivers: Vec<HostId>,
    /// What this host deals.
    own: Option<OwnDeal>,
    /// What others dealt to it: on disk, its sub-share sealed.
    deals: BTreeMap<ShareIndex, (DealVerified, Ed25519Signature)>,
    /// As the leader: who holds a flushed sub-share of which deal.
    held: BTreeMap<ShareIndex, BTreeMap<HostId, (Digest, Ed25519Signature)>>,
    /// The first deal of each dealer that this host saw, under the dealer's signature.
    seen: BTreeMap<ShareIndex, Digest>,
    /// Dealers that were caught: said once each.
    caught: BTreeSet<ShareIndex>,
}

impl Redealing {
    /// Receivers that hold fewer deals than are needed, where others hold enough: of a dealing that was given up, those who
    /// held it up. A host to which liars dealt badly holds those of the honest, and they are enough.
    pub(super) fn mute(&self, needed: usize) -> Vec<HostId> {
        let held_by = |host: &&HostId| self.held.values().filter(|held| held.contains_key(host)).count();
        let some_can = self.receivers.iter().any(|host| held_by(&host) >= needed);
        self.receivers.iter().filter(|host| some_can && held_by(host) < needed).copied().collect()
    }
}

/// The deal of this host, and the session keys that it is sealed to.
struct OwnDeal {
    seed: Seed,
    keys: Vec<Option<HpkePublic>>,
    dealt: Option<(KeyDeal, Ed25519Signature)>,
}

/// A sub-share as it rests.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestingPart {
    deal: KeyDeal,
    signature: Ed25519Signature,
    #[serde(with = "serde_bytes")]
    sealed: Vec<u8>,
}

/// Bytes of the largest one.
const RESTING_PART_MAX: usize = 16 * 1024;

/// Rows of one dealing begin so.
fn dealing_rows(key_epoch: u64, ceremony: &Digest) -> Vec<u8> {
    [key_epoch.to_be_bytes().as_slice(), &ceremony.0].concat()
}

/// The row of a sub-share; index 0: the sealed seed of this host's own deal, which must not be another after a restart.
fn part_row(key_epoch: u64, ceremony: &Digest, dealer: ShareIndex) -> Vec<u8> {
    [dealing_rows(key_epoch, ceremony), vec![dealer.0]].concat()
}

const OWN: ShareIndex = ShareIndex(0);

impl Host {
    /// While a dealing is under way: deals, acknowledges, and again until it ends.
    pub(super) fn tick_redealing(&mut self, now: Now, actions: &mut Actions) {
        let dealing = self.ground.records.committee().and_then(|committee| committee.dealing.clone());
        let (Some(ceremony), Some(mesh)) = (dealing, self.ground.records.mesh().copied()) else {
            self.redealing = None;
            return;
        };
        let digest = ceremony.digest(&mesh);
        if self.redealing.as_ref().is_none_or(|known| known.ceremony != digest) {
            self.redealing = Some(self.begin_redealing(now, &ceremony, digest));
        }
        let Some(redealing) = self.redealing.as_mut().filter(|known| now.monotonic >= known.again_at) else { return };
        redealing.again_at = now.monotonic.plus(PART_RETRY_MS);
        self.deal_again(now, &ceremony, digest, actions);
        let held: Vec<(ShareIndex, Digest, Ed25519Signature)> = self
            .redealing
            .iter()
            .flat_map(|known| &known.deals)
            .map(|(index, (deal, signature))| (*index, deal.deal().digest(&mesh), *signature))
            .collect();
        for (dealer, deal, signature) in held {
            self.acknowledge(digest, dealer, deal, signature, actions);
        }
    }

    /// What this host dealt and was dealt before a restart counts still.
    fn begin_redealing(&self, now: Now, ceremony: &Ceremony, digest: Digest) -> Redealing {
        let row = |index| self.resting.get(&part_row(ceremony.key_epoch, &digest, index));
        let seed = || {
            let bytes = symmetric::open(&self.seed_key(&digest), [0; 12], &digest.0, row(OWN)?)?;
            Some(Seed(<[u8; 32]>::try_from(bytes.expose()).ok()?.into()))
        };
        let own = seed().map(|seed| OwnDeal { seed, keys: Vec::new(), dealt: None });
        let old = self.ground.records.committee().map(|committee| committee.key.commitments.clone());
        let held = (1..=u8::MAX).map(ShareIndex).take(ceremony.dealers.len()).filter_map(|index| {
            let part: RestingPart = wire::decode(row(index)?, RESTING_PART_MAX).ok()?;
            let suite = self.ground.suite.as_ref();
            let verified = DealVerified::check(suite, ceremony, old.as_deref(), &part.deal).ok()?;
            Some((index, (verified, part.signature)))
        });
        let deals: BTreeMap<ShareIndex, (DealVerified, Ed25519Signature)> = held.collect();
        let mesh = self.ground.records.mesh().copied().unwrap_or(MeshId::ZERO);
        let seen = deals.iter().map(|(index, (deal, _))| (*index, deal.deal().digest(&mesh))).collect();
        let (since, again_at) = (now.monotonic, now.monotonic);
        let (held, caught) = (BTreeMap::new(), BTreeSet::new());
        let receivers = ceremony.receivers.clone();
        Redealing { ceremony: digest, receivers, since, again_at, own, deals, held, seen, caught }
    }

    /// As a holder of an old share: deals it. One seed, so one polynomial, in one dealing; sealed again where a receiver
    /// shows another session key than before.
    fn deal_again(&mut self, now: Now, ceremony: &Ceremony, digest: Digest, actions: &mut Actions) {
        let signs = |share: &&Share| share.key_epoch + 1 == ceremony.key_epoch;
        if self.share.as_ref().filter(signs).is_none()
            || ceremony.dealer(&self.own.host).is_none()
            || self.disk_failed
            || !self.draw_seed(ceremony, digest, actions)
        {
            return;
        }
        let Some((view, share)) = self.ground.view(now, self.header.as_ref()).zip(self.share.as_ref()) else { return };
        let Some(own) = self.redealing.as_mut().and_then(|known| known.own.as_mut()) else { return };
        // Sealed to the session keys in evidence that this host appraised itself; who shows none just now keeps the last.
        let before = std::mem::take(&mut own.keys);
        let key = |(at, host): (usize, &HostId)| {
            self.coordinator.session_of(view, host).or_else(|| before.get(at).copied().flatten())
        };
        own.keys = ceremony.receivers.iter().enumerate().map(key).collect();
        if own.dealt.is_none() || own.keys != before {
            let dealer = Dealer { suite: view.suite, mesh: view.mesh, ceremony, host: &self.own.host };
            own.dealt = dealer.deal(&own.seed, Some(&share.secret), &own.keys, &mut self.generator).and_then(|deal| {
                let bytes = KeyDeal::signed_bytes(view.mesh, &digest, &deal.digest(view.mesh));
                let signature = view.suite.ed25519_sign(&self.own.identity.transport, &bytes)?;
                Some((deal, signature))
            });
        }
        let Some((deal, signature)) = own.dealt.clone() else { return };
        for host in &ceremony.receivers {
            if let Some(member) = self.ground.records.member(host) {
                let message = Message::KeyDealt { ceremony: digest, deal: deal.clone(), signature };
                self.send(Lane::Records, member.record().transport, message, actions);
            }
        }
    }

    /// The seed of this host's polynomial: on disk before a deal leaves. False where there is none.
    fn draw_seed(&mut self, ceremony: &Ceremony, digest: Digest, actions: &mut Actions) -> bool {
        let Some(known) = &mut self.redealing else { return false };
        if known.own.is_some() {
            return true;
        }
        let bytes: Zeroizing<[u8; 32]> = self.generator.bytes().into();
        known.own = Some(OwnDeal { seed: Seed(bytes.clone()), keys: Vec::new(), dealt: None });
        let sealed = symmetric::seal(&self.seed_key(&digest), [0; 12], &digest.0, bytes.as_slice());
        let Some(value) = sealed else { return false };
        self.rest(part_row(ceremony.key_epoch, &digest, OWN), value, actions);
        true
    }

    pub(super) fn rest(&mut self, key: Vec<u8>, value: Vec<u8>, actions: &mut Actions) {
        self.resting.insert(key.clone(), value.clone());
        let write = Write { table: Table::Keys, key, value: Some(value) };
        actions.push(Action::Persist { lane: Lane::Records, writes: vec![write] });
    }

    /// A holder of an old share dealt.
    pub(super) fn on_key_dealt(
        &mut self,
        now: Now,
        host: &HostId,
        digest: Digest,
        (dealt, signature): (&KeyDeal, Ed25519Signature),
        actions: &mut Actions,
    ) {
        self.tick_redealing(now, actions);
        let Some(ceremony) = self.ground.records.committee().and_then(|committee| committee.dealing.clone()) else {
            return;
        };
        if self.redealing.as_ref().is_none_or(|known| known.ceremony != digest) || dealt.dealer != *host {
            return;
        }
        let (Some(index), Some(mesh)) = (ceremony.dealer(host), self.ground.records.mesh()) else { return };
        let deal_digest = dealt.digest(mesh);
        if let Err(check) = self.is_one_deal(host, index, deal_digest, signature) {
            return self.catch(*host, index, check, actions);
        }
        if self.redealing.as_ref().is_none_or(|known| known.deals.contains_key(&index)) {
            return;
        }
        match self.receive_deal(&ceremony, dealt, signature) {
            Ok(Some((verified, part))) => {
                self.rest(part_row(ceremony.key_epoch, &digest, index), wire::encode(&part), actions);
                if let Some(redealing) = &mut self.redealing {
                    redealing.deals.insert(index, (verified, signature));
                }
                self.acknowledge(digest, index, deal_digest, signature, actions);
            }
            Ok(None) => {} // sealed to a session key of before a restart: its dealer will see the new one
            // Not acknowledged: the others are enough, or the dealing is begun anew.
            Err(check) => self.catch(*host, index, check, actions),
        }
    }

    /// A dealer signs one deal in one dealing: of two, both signed, the second is proof.
    fn is_one_deal(
        &mut self,
        host: &HostId,
        index: ShareIndex,
        deal: Digest,
        signature: Ed25519Signature,
    ) -> Result<(), Check> {
        let records = &self.ground.records;
        let (mesh, member) = records.mesh().zip(records.member(host)).ok_or(Check::Membership)?;
        let redealing = self.redealing.as_mut().ok_or(Check::NotReady)?;
        let bytes = KeyDeal::signed_bytes(mesh, &redealing.ceremony, &deal);
        if !self.ground.suite.ed25519_holds(&member.record().transport, &bytes, &signature) {
            return Err(Check::Deal);
        }
        if *redealing.seen.entry(index).or_insert(deal) == deal { Ok(()) } else { Err(Check::DealTwice) }
    }

    /// A dealer lies: the log names it, once in a dealing.
    fn catch(&mut self, host: HostId, index: ShareIndex, check: Check, actions: &mut Actions) {
        if self.redealing.as_mut().is_some_and(|known| known.caught.insert(index)) {
            actions.push(Action::Report(Report::BadDeal(host, check)));
        }
    }

    fn receive_deal(
        &self,
        ceremony: &Ceremony,
        dealt: &KeyDeal,
        signature: Ed25519Signature,
    ) -> Result<Option<(DealVerified, RestingPart)>, Check> {
        let records = &self.ground.records;
        let (mesh, committee) = records.mesh().zip(records.committee()).ok_or(Check::NotReady)?;
        let suite = self.ground.suite.as_ref();
        let verified = DealVerified::check(suite, ceremony, Some(&committee.key.commitments), dealt)?;
        let opened = verified.open(suite, mesh, ceremony, &self.own.host, &self.attester.sessions())?;
        let Some(share) = opened else { return Ok(None) };
        let key = self.part_key(&ceremony.digest(mesh), &dealt.dealer);
        let sealed = symmetric::seal(&key, [0; 12], &dealt.digest(mesh).0, share.expose()).ok_or(Check::NotReady)?;
        Ok(Some((verified, RestingPart { deal: dealt.clone(), signature, sealed })))
    }

    /// The seed of this host's own deal rests under another.
    fn seed_key(&self, ceremony: &Digest) -> SecretBytes {
        symmetric::derive(&self.own.identity.tpm_bound, Purpose::KeyDeal, &[&ceremony.0])
    }

    /// Each sub-share rests under a key of its own, so that no nonce is used twice.
    fn part_key(&self, ceremony: &Digest, dealer: &HostId) -> SecretBytes {
        symmetric::derive(&self.own.identity.tpm_bound, Purpose::KeyShare, &[&ceremony.0, &dealer.0])
    }

    /// Tells the leader, once it is on disk.
    fn acknowledge(
        &self,
        ceremony: Digest,
        dealer: ShareIndex,
        deal: Digest,
        signature: Ed25519Signature,
        actions: &mut Actions,
    ) {
        let (Some((_, leader)), Some(mesh)) = (self.leader, self.ground.records.mesh()) else { return };
        let bytes = KeyDeal::held_bytes(mesh, &ceremony, &deal);
        if let Some(held) = self.ground.suite.ed25519_sign(&self.own.identity.transport, &bytes) {
            self.send(Lane::Records, leader, Message::KeyHeld { ceremony, dealer, deal, signature, held }, actions);
        }
    }

    /// As the leader: a receiver holds a flushed sub-share.
    pub(super) fn on_key_held(
        &mut self,
        host: HostId,
        ceremony: Digest,
        dealer: ShareIndex,
        (deal, signature, held): (Digest, Ed25519Signature, Ed25519Signature),
        actions: &mut Actions,
    ) {
        let records = &self.ground.records;
        let says_so = |mesh| {
            let bytes = KeyDeal::held_bytes(mesh, &ceremony, &deal);
            let key = records.member(&host).map(|member| member.record().transport);
            key.is_some_and(|key| self.ground.suite.ed25519_holds(&key, &bytes, &held))
        };
        if !records.mesh().is_some_and(says_so) {
            return; // its own signature does not hold: nothing could be recorded with it
        }
        let dealing = self.ground.records.committee().and_then(|committee| committee.dealing.as_ref());
        let Some(dealing) = dealing.filter(|known| known.receiver(&host).is_some()) else { return };
        let dealers = usize::from(dealer.0).checked_sub(1).and_then(|at| dealing.dealers.get(at)).copied();
        let of_this = self.redealing.as_ref().is_some_and(|known| known.ceremony == ceremony);
        let Some(named) = dealers.filter(|_| of_this) else { return };
        match self.is_one_deal(&named, dealer, deal, signature) {
            Ok(()) => {
                if let Some(redealing) = &mut self.redealing {
                    redealing.held.entry(dealer).or_default().insert(host, (deal, held));
                }
            }
            Err(Check::DealTwice) => self.catch(named, dealer, Check::DealTwice, actions),
            Err(_) => {} // the receiver's word alone: the dealer did not sign it
        }
    }

    /// As the leader: enough dealers whose sub-shares every receiver holds, or time is up.
    pub(super) fn end_of_dealing(&self, now: Now, view: View<'_>, ceremony: &Ceremony) -> Option<Step> {
        let redealing = self.redealing.as_ref()?;
        let t = usize::from(view.records.committee()?.key.t);
        let held_by = |index: &ShareIndex, digest: Digest| {
            let held = redealing.held.get(index)?;
            let by = |host| held.get(host).filter(|(deal, _)| *deal == digest).map(|(_, signature)| *signature);
            ceremony.receivers.iter().map(by).collect::<Option<Vec<Ed25519Signature>>>()
        };
        let deals = redealing.deals.iter().filter(|(index, _)| !redealing.caught.contains(index));
        let dealt = deals.filter_map(|(index, (deal, _))| {
            let held = held_by(index, deal.deal().digest(view.mesh))?;
            let KeyDeal { commitments, proof, .. } = deal.deal();
            Some(HeldDeal { dealer: *index, commitments: commitments.clone(), proof: *proof, held })
        });
        let dealt: Vec<HeldDeal> = dealt.take(t).collect();
        if dealt.len() == t {
            return Some(Step::Activate { ceremony: redealing.ceremony, dealt });
        }
        let is_over = now.monotonic >= redealing.since.plus(DEALING_MS);
        is_over.then_some(Step::Abort { ceremony: redealing.ceremony })
    }

    /// This host's share of a dealing that was activated: the sum of its sub-shares.
    pub(super) fn redealt_share(&self, setup: &KeySetup) -> Option<SecretBytes> {
        let ceremony = setup.ceremony.as_ref()?;
        let suite = self.ground.suite.as_ref();
        let mesh = self.ground.records.mesh()?;
        let part = |index: &ShareIndex| {
            let bytes = self.resting.get(&part_row(setup.key_epoch, ceremony, *index))?;
            let part: RestingPart = wire::decode(bytes, RESTING_PART_MAX).ok()?;
            let key = self.part_key(ceremony, &part.deal.dealer);
            symmetric::open(&key, [0; 12], &part.deal.digest(mesh).0, &part.sealed)
        };
        let parts = setup.dealers.iter().map(part).collect::<Option<Vec<SecretBytes>>>()?;
        let parts: Vec<(ShareIndex, &SecretBytes)> = setup.dealers.iter().copied().zip(&parts).collect();
        let index = setup.index_of(&self.own.host)?;
        dealing::share(suite, (setup.t, index), true, &setup.commitments, &parts).ok()
    }

    /// What is at rest of the mesh key beside the shares that sign now, and a dealing that is under way, is erased: with
    /// the seed of a deal, whoever finds the disk later could compute the share that was dealt.
    pub(super) fn erase_old_shares(&mut self, actions: &mut Actions) {
        let Some((committee, mesh)) = self.ground.records.committee().zip(self.ground.records.mesh()) else { return };
        let setup = &committee.key;
        if setup.index_of(&self.own.host).is_some() && self.share.is_none() {
            return; // its new share does not open: nothing goes that somebody may still need
        }
        let founded = setup.ceremony.is_none().then(|| founding::share_row(setup));
        let signs = setup.ceremony.map(|ceremony| dealing_rows(setup.key_epoch, &ceremony));
        let dealing = committee.dealing.as_ref().map(|dealing| dealing_rows(dealing.key_epoch, &dealing.digest(mesh)));
        let is_needed = |key: &[u8]| {
            let counts = |last: &u8| setup.dealers.contains(&ShareIndex(*last));
            let is_part = |rows: &Vec<u8>| key.starts_with(rows) && key.last().is_some_and(counts);
            founded.as_ref().is_some_and(|row| row == key)
                || signs.as_ref().is_some_and(is_part)
                || dealing.as_ref().is_some_and(|rows| key.starts_with(rows))
        };
        let old: Vec<Vec<u8>> = self.resting.keys().filter(|key| !is_needed(key)).cloned().collect();
        let mut writes = Vec::new();
        for key in old {
            self.resting.remove(&key);
            writes.push(Write { table: Table::Keys, key, value: None });
        }
        if !writes.is_empty() {
            actions.push(Action::Persist { lane: Lane::Records, writes });
        }
    }
}

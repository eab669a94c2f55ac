//! The mesh key moves: the holders of the old shares deal them to the new holders; the public key stays. A share of the
//! new dealing counts once one record names its dealers; before that, the old ones go on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Action, Actions, Host, Lane, Report, Share, Table, Write};
use crate::cms::committee::{KeySetup, Step};
use crate::credential::dealing::{Ceremony, DealVerified, KeyDeal, deal};
use crate::error::Check;
use crate::limits::{DEALING_MS, PART_RETRY_MS};
use crate::suite::symmetric;
use crate::types::{Digest, HostId, HpkePublic, Now, Purpose, SecretBytes, ShareIndex, Time};
use crate::view::View;
use crate::wire::{self, Message};

/// A dealing under way.
pub(super) struct Redealing {
    ceremony: Digest,
    since: Time,
    /// What is sent again until the dealing ends.
    pub(super) again_at: Time,
    /// What this host deals.
    own: Option<KeyDeal>,
    /// What others dealt to it: on disk, its sub-share sealed.
    deals: BTreeMap<ShareIndex, DealVerified>,
    /// As the leader: who holds a flushed sub-share of which deal.
    held: BTreeMap<ShareIndex, BTreeMap<HostId, Digest>>,
}

/// A sub-share as it rests.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestingPart {
    deal: KeyDeal,
    #[serde(with = "serde_bytes")]
    sealed: Vec<u8>,
}

/// Bytes of the largest one.
const RESTING_PART_MAX: usize = 16 * 1024;

/// The row of a sub-share; index 0: of this host's own deal, which must not be made twice.
fn part_row(key_epoch: u64, ceremony: &Digest, dealer: ShareIndex) -> Vec<u8> {
    [key_epoch.to_be_bytes().as_slice(), &ceremony.0, &[dealer.0]].concat()
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
        let held: Vec<(ShareIndex, Digest)> = self
            .redealing
            .iter()
            .flat_map(|known| &known.deals)
            .map(|(index, deal)| (*index, deal.deal().digest(&mesh)))
            .collect();
        for (dealer, deal) in held {
            self.acknowledge(digest, dealer, deal, actions);
        }
    }

    /// What this host dealt and was dealt before a restart counts still.
    fn begin_redealing(&self, now: Now, ceremony: &Ceremony, digest: Digest) -> Redealing {
        let row = |index| self.resting.get(&part_row(ceremony.key_epoch, &digest, index));
        let own = row(OWN).and_then(|bytes| wire::decode(bytes, RESTING_PART_MAX).ok());
        let old = self.ground.records.committee().map(|committee| committee.key.commitments.clone());
        let held = (1..=u8::MAX).map(ShareIndex).take(ceremony.dealers.len()).filter_map(|index| {
            let part: RestingPart = wire::decode(row(index)?, RESTING_PART_MAX).ok()?;
            let suite = self.ground.suite.as_ref();
            Some((index, DealVerified::check(suite, ceremony, old.as_deref(), &part.deal).ok()?))
        });
        let (deals, again_at) = (held.collect(), now.monotonic);
        Redealing { ceremony: digest, since: now.monotonic, again_at, own, deals, held: BTreeMap::new() }
    }

    /// As a holder of an old share: deals it, once; the same deal is sent again.
    fn deal_again(&mut self, now: Now, ceremony: &Ceremony, digest: Digest, actions: &mut Actions) {
        let Some(view) = self.ground.view(now, self.header.as_ref()) else { return };
        let signs = |share: &&Share| share.key_epoch + 1 == ceremony.key_epoch;
        let Some(share) = self.share.as_ref().filter(signs) else { return };
        if ceremony.dealer(&self.own.host).is_none() || self.disk_failed {
            return;
        }
        let Some(redealing) = &mut self.redealing else { return };
        if redealing.own.is_none() {
            // Sealed to the session keys in evidence that this host appraised itself.
            let key = |host: &HostId| self.coordinator.session_of(view, host);
            let Some(keys) = ceremony.receivers.iter().map(key).collect::<Option<Vec<HpkePublic>>>() else { return };
            let (suite, generator, secret) = (view.suite, &mut self.generator, Some(&share.secret));
            let Some(dealt) = deal(suite, generator, view.mesh, ceremony, &self.own.host, secret, &keys) else {
                return;
            };
            let (key, value) = (part_row(ceremony.key_epoch, &digest, OWN), wire::encode(&dealt));
            self.resting.insert(key.clone(), value.clone());
            let write = Write { table: Table::Keys, key, value: Some(value) };
            actions.push(Action::Persist { lane: Lane::Records, writes: vec![write] });
            redealing.own = Some(dealt);
        }
        let Some(dealt) = redealing.own.clone() else { return };
        for host in &ceremony.receivers {
            if let Some(member) = self.ground.records.member(host) {
                let message = Message::KeyDealt { ceremony: digest, deal: dealt.clone() };
                self.send(Lane::Records, member.record().transport, message, actions);
            }
        }
    }

    /// A holder of an old share dealt.
    pub(super) fn on_key_dealt(
        &mut self,
        now: Now,
        host: &HostId,
        digest: Digest,
        dealt: &KeyDeal,
        actions: &mut Actions,
    ) {
        self.tick_redealing(now, actions);
        let Some(ceremony) = self.ground.records.committee().and_then(|committee| committee.dealing.clone()) else {
            return;
        };
        let known = self.redealing.as_ref().filter(|known| known.ceremony == digest);
        let Some(known) = known.filter(|_| dealt.dealer == *host) else { return };
        let Some(index) = ceremony.dealer(host).filter(|index| !known.deals.contains_key(index)) else { return };
        match self.receive_deal(&ceremony, dealt) {
            Ok((verified, part)) => {
                let Some(mesh) = self.ground.records.mesh() else { return };
                let deal_digest = dealt.digest(mesh);
                let (key, value) = (part_row(ceremony.key_epoch, &digest, index), wire::encode(&part));
                self.resting.insert(key.clone(), value.clone());
                let write = Write { table: Table::Keys, key, value: Some(value) };
                actions.push(Action::Persist { lane: Lane::Records, writes: vec![write] });
                if let Some(redealing) = &mut self.redealing {
                    redealing.deals.insert(index, verified);
                }
                self.acknowledge(digest, index, deal_digest, actions);
            }
            // Not acknowledged: the others are enough, or the dealing is begun anew. Who it was stands in the log.
            Err(check) => actions.push(Action::Report(Report::BadDeal(*host, check))),
        }
    }

    fn receive_deal(&self, ceremony: &Ceremony, dealt: &KeyDeal) -> Result<(DealVerified, RestingPart), Check> {
        let records = &self.ground.records;
        let (mesh, committee) = records.mesh().zip(records.committee()).ok_or(Check::NotReady)?;
        let suite = self.ground.suite.as_ref();
        let verified = DealVerified::check(suite, ceremony, Some(&committee.key.commitments), dealt)?;
        let share = verified.open(suite, mesh, ceremony, &self.own.host, &self.attester.sessions())?;
        let key = self.part_key(&ceremony.digest(mesh), &dealt.dealer);
        let sealed = symmetric::seal(&key, [0; 12], &dealt.digest(mesh).0, share.expose()).ok_or(Check::NotReady)?;
        Ok((verified, RestingPart { deal: dealt.clone(), sealed }))
    }

    /// Each sub-share rests under a key of its own, so that no nonce is used twice.
    fn part_key(&self, ceremony: &Digest, dealer: &HostId) -> SecretBytes {
        symmetric::derive(&self.own.identity.tpm_bound, Purpose::KeyShare, &[&ceremony.0, &dealer.0])
    }

    /// Tells the leader, once it is on disk.
    fn acknowledge(&self, ceremony: Digest, dealer: ShareIndex, deal: Digest, actions: &mut Actions) {
        if let Some((_, leader)) = self.leader {
            self.send(Lane::Records, leader, Message::KeyHeld { ceremony, dealer, deal }, actions);
        }
    }

    /// As the leader: a receiver holds a flushed sub-share.
    pub(super) fn on_key_held(&mut self, host: HostId, ceremony: Digest, dealer: ShareIndex, deal: Digest) {
        let is_receiver = self.ground.records.committee().and_then(|committee| committee.dealing.as_ref());
        let is_receiver = is_receiver.is_some_and(|known| {
            known.receiver(&host).is_some() && usize::from(dealer.0) <= known.dealers.len() && dealer != OWN
        });
        if let Some(redealing) = self.redealing.as_mut().filter(|known| known.ceremony == ceremony && is_receiver) {
            redealing.held.entry(dealer).or_default().insert(host, deal);
        }
    }

    /// As the leader: enough dealers whose sub-shares every receiver holds, or time is up.
    pub(super) fn end_of_dealing(&self, now: Now, view: View<'_>, ceremony: &Ceremony) -> Option<Step> {
        let redealing = self.redealing.as_ref()?;
        let t = usize::from(view.records.committee()?.key.t);
        let is_held = |index: &ShareIndex, digest: Digest| {
            let held = redealing.held.get(index);
            held.is_some_and(|held| ceremony.receivers.iter().all(|host| held.get(host) == Some(&digest)))
        };
        let dealt = redealing.deals.iter().filter(|(index, deal)| is_held(index, deal.deal().digest(view.mesh)));
        let dealt: Vec<_> = dealt.take(t).map(|(index, deal)| (*index, deal.deal().commitments.clone())).collect();
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
        let share = suite.key_sum_shares(Some(&setup.dealers), &parts.iter().collect::<Vec<_>>())?;
        let index = setup.index_of(&self.own.host)?;
        suite.key_share_fits(setup.t, &setup.commitments, index, &share).then_some(share)
    }

    /// Shares of dealings before the one that signs now are erased.
    pub(super) fn erase_old_shares(&mut self, actions: &mut Actions) {
        let Some(setup) = self.ground.records.committee().map(|committee| &committee.key) else { return };
        let epoch = setup.key_epoch.to_be_bytes();
        let old: Vec<Vec<u8>> = self.resting.keys().filter(|key| key.as_slice() < epoch.as_slice()).cloned().collect();
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

//! A put under way at the host that serves the owner: sends the sealed shares to their holders, collects receipts,
//! asks the coordinator to record. It sees ciphertext only.

use std::collections::{BTreeMap, BTreeSet};

use crate::credential::head::{HeadVerified, SignedHead};
use crate::credential::receipt::PutReceipt;
use crate::credential::split::commitments_digest;
use crate::error::{Check, Failure, Refused, Subject};
use crate::limits::SHARES_MAX;
use crate::types::{HostId, RequestId, ShareIndex, Time};
use crate::wire::{Message, Package};
use crate::witness::Witnesses;

/// When a put is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// With the quorum w, after waiting for all up to an epoch.
    Quorum,
    /// Only with all n.
    Complete,
}

/// A holder that was not ready or not reached is asked again after this time.
pub const RETRY_MS: u64 = 250;
/// Somebody who did not answer is asked again after this time: a message may be lost.
pub const SILENCE_MS: u64 = 1_000;

/// Stragglers get so many times as long as the quorum took,
const PATIENCE: u64 = 3;
/// and at least this long.
const PATIENCE_MS_MIN: u64 = 100;

/// A holder that failed a put is passed over so long.
const PASSED_OVER_MS: u64 = 60_000;

/// What a put waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Receipts.
    AwaitingReceipts,
    /// The record.
    AwaitingRecord,
}

/// One put.
pub struct Putting {
    /// The request.
    pub request: RequestId,
    /// The head.
    pub head: HeadVerified,
    /// Who holds what, in the order of the indexes.
    pub holders: Vec<HostId>,
    /// What it waits for.
    pub stage: Stage,
    /// When receipts are waited for no longer, then: when the record is.
    pub deadline: Time,
    /// When to ask again.
    pub retry_at: Option<Time>,
    /// How long silence is waited out before a share is offered again: a payload may be on its way still.
    silence_ms: u64,
    /// When the shares were first offered.
    begun: Time,
    wait: Wait,
    package: Package,
    receipts: BTreeMap<ShareIndex, PutReceipt>,
    refused: BTreeMap<ShareIndex, Refused>,
    /// Holders that no message reaches: worth another try, and not worth waiting for once there is a quorum.
    unreached: BTreeSet<ShareIndex>,
    /// Who says that it is recorded.
    pub witnesses: Witnesses,
}

/// Holders that failed a put of this host: the next ones go elsewhere for a while, where they can.
#[derive(Debug, Default)]
pub struct PassedOver(BTreeMap<HostId, Time>);

impl PassedOver {
    /// These failed now.
    pub fn remember(&mut self, hosts: &[HostId], now: Time) {
        self.0.retain(|_, until| now < *until);
        for host in hosts {
            if self.0.len() < SHARES_MAX {
                self.0.insert(*host, now.plus(PASSED_OVER_MS));
            }
        }
    }

    /// Who is passed over now, whoever failed first before the others; at most [`SHARES_MAX`].
    pub fn hosts(&self, now: Time) -> Vec<HostId> {
        let mut failed: Vec<(Time, HostId)> =
            self.0.iter().filter(|(_, until)| now < **until).map(|(host, until)| (*until, *host)).collect();
        failed.sort_unstable();
        failed.into_iter().map(|(_, host)| host).collect()
    }
}

/// What a put wants next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for more.
    Wait,
    /// Ask the coordinator to record.
    Record,
    /// It failed.
    Fail(Failure),
}

impl Putting {
    /// Begins.
    ///
    /// # Errors
    /// [`Check::HeadForm`] where package, head and holders do not fit together.
    pub fn new(
        request: RequestId,
        head: HeadVerified,
        holders: Vec<HostId>,
        package: Package,
        wait: Wait,
        begun: Time,
        deadline: Time,
    ) -> Result<Self, Check> {
        let n = usize::from(head.head().terms.n);
        if package.sealed.len() != n || holders.len() != n || head.head().request != request {
            return Err(Check::HeadForm);
        }
        Ok(Self {
            request,
            head,
            holders,
            stage: Stage::AwaitingReceipts,
            deadline,
            retry_at: None,
            silence_ms: SILENCE_MS,
            begun,
            wait,
            package,
            receipts: BTreeMap::new(),
            refused: BTreeMap::new(),
            unreached: BTreeSet::new(),
            witnesses: Witnesses::begin(begun),
        })
    }

    /// The message for each holder that has not answered for good.
    pub fn offers(&self) -> Vec<(HostId, Message)> {
        let open = |index: &ShareIndex| {
            !self.receipts.contains_key(index)
                && self.refused.get(index).is_none_or(|refused| is_passing(refused.check))
        };
        (1..)
            .map(ShareIndex)
            .zip(self.holders.iter().zip(&self.package.sealed))
            .filter(|(index, _)| open(index))
            .map(|(index, (holder, sealed))| (*holder, self.offer(index, sealed)))
            .collect()
    }

    fn offer(&self, index: ShareIndex, sealed: &[u8]) -> Message {
        Message::ShareStore {
            request: self.request,
            head: self.head.signed().clone(),
            group: self.package.group,
            generation: self.package.generation,
            index,
            sealed: sealed.to_vec(),
            commitments: self.package.commitments.clone(),
            pieces: self.package.pieces.clone(),
        }
    }

    /// When to offer again what was not answered: after twice as long each time.
    pub fn wait_longer(&mut self, now: Time) {
        self.silence_ms = self.silence_ms.saturating_mul(2);
        self.retry_at = Some(now.plus(self.silence_ms));
    }

    /// Whether a receipt speaks of this very put.
    pub fn is_for(&self, receipt: &PutReceipt) -> bool {
        receipt.head == *self.head.digest()
            && receipt.group == self.package.group
            && receipt.generation == self.package.generation
            && receipt.commitments == commitments_digest(&self.package.commitments)
    }

    /// A receipt came; it was checked.
    pub fn stored(&mut self, from: HostId, receipt: PutReceipt, now: Time) -> Next {
        // Once the record is asked for, what was reported is what was sent.
        if self.stage == Stage::AwaitingReceipts && self.index_of(&from) == Some(receipt.index) {
            self.refused.remove(&receipt.index);
            self.unreached.remove(&receipt.index);
            self.receipts.insert(receipt.index, receipt);
            self.wait_for_stragglers(now);
        }
        self.settle()
    }

    /// With the quorum in, the others get a few times as long as it took, not all of the epoch: one dead holder must
    /// not hold up every put.
    fn wait_for_stragglers(&mut self, now: Time) {
        if self.wait == Wait::Quorum && self.receipts.len() == self.needed() {
            let taken = now.0.saturating_sub(self.begun.0);
            let patience = taken.saturating_mul(PATIENCE).max(PATIENCE_MS_MIN);
            self.deadline = self.deadline.min(now.plus(patience));
        }
    }

    /// A holder refused.
    pub fn refused(&mut self, from: HostId, refused: Refused, now: Time) -> Next {
        // What is said after a receipt, be it of a repeated offer, takes nothing back.
        if let Some(index) = self.index_of(&from).filter(|index| !self.receipts.contains_key(index)) {
            if is_passing(refused.check) {
                let soon = now.plus(RETRY_MS);
                self.retry_at = Some(self.retry_at.map_or(soon, |at| at.min(soon)));
            }
            self.refused.insert(index, refused);
        }
        self.settle()
    }

    /// A holder cannot be reached now.
    pub fn unreachable(&mut self, from: HostId, now: Time) -> Next {
        self.unreached.extend(self.index_of(&from).filter(|index| !self.receipts.contains_key(index)));
        self.refused(from, Refused::new(Check::NotReady, Subject::Host(from)), now)
    }

    fn index_of(&self, host: &HostId) -> Option<ShareIndex> {
        let at = self.holders.iter().position(|holder| holder == host)?;
        u8::try_from(at + 1).ok().map(ShareIndex)
    }

    fn settle(&self) -> Next {
        if self.stage != Stage::AwaitingReceipts {
            return Next::Wait;
        }
        let lost = self.refused.values().filter(|refused| !is_passing(refused.check)).count();
        let left = self.holders.len().saturating_sub(lost);
        let answering = left.saturating_sub(self.unreached.len());
        match self.receipts.len() {
            _ if left < self.needed() => Next::Fail(self.too_few()),
            receipts if receipts >= left || receipts >= self.needed().max(answering) => Next::Record,
            _ => Next::Wait,
        }
    }

    fn needed(&self) -> usize {
        match self.wait {
            Wait::Quorum => usize::from(self.head.head().terms.quorum()),
            Wait::Complete => self.holders.len(),
        }
    }

    /// Time is up.
    pub fn expired(&self) -> Next {
        match self.stage {
            Stage::AwaitingRecord => Next::Fail(Failure::NoLeader),
            Stage::AwaitingReceipts if self.receipts.len() >= self.needed() => Next::Record,
            Stage::AwaitingReceipts => Next::Fail(self.too_few()),
        }
    }

    fn too_few(&self) -> Failure {
        // One holder's word on the head itself is worth more than a count.
        let about_head = |refused: &&Refused| matches!(refused.check, Check::HeadOrder | Check::HeadSignature);
        if let Some(refused) = self.refused.values().find(about_head) {
            return Failure::Refused(refused.clone());
        }
        // Holders that are there and cannot take it: that is the news, not who is missing.
        let full: Vec<(&ShareIndex, &Refused)> =
            self.refused.iter().filter(|(_, refused)| refused.check == Check::Capacity).collect();
        if let Some((index, refused)) = full.first()
            && self.holders.len().saturating_sub(full.len()) < self.needed()
            && let Some(host) = usize::from(index.0).checked_sub(1).and_then(|at| self.holders.get(at))
        {
            return Failure::Refused(Refused { subject: Subject::Host(*host), ..(*refused).clone() });
        }
        Failure::TooFewHolders {
            got: u8::try_from(self.receipts.len()).unwrap_or(u8::MAX),
            needed: u8::try_from(self.needed()).unwrap_or(u8::MAX),
            missing: self.missing(),
        }
    }

    /// Holders for which it failed: before its time is up those that will not keep their share, or cannot be reached;
    /// others had no time to answer.
    pub fn failed_by(&self, now: Time) -> Vec<HostId> {
        if now >= self.deadline {
            return self.missing();
        }
        let refused = self.refused.iter().filter(|(_, refused)| !is_passing(refused.check)).map(|(index, _)| index);
        let at = |index: &ShareIndex| usize::from(index.0).checked_sub(1).and_then(|at| self.holders.get(at)).copied();
        refused.chain(&self.unreached).filter_map(at).collect()
    }

    /// Holders without a receipt.
    pub fn missing(&self) -> Vec<HostId> {
        let has = |host: &&HostId| self.receipts.values().any(|receipt| receipt.holder == **host);
        self.holders.iter().filter(|host| !has(host)).copied().collect()
    }

    /// The message that asks for the record.
    pub fn record(&mut self, now: Time) -> Message {
        self.stage = Stage::AwaitingRecord;
        self.retry_at = Some(now.plus(SILENCE_MS));
        Message::PutRecord {
            request: self.request,
            head: self.signed_head(),
            receipts: self.receipts.values().cloned().collect(),
        }
    }

    fn signed_head(&self) -> SignedHead {
        self.head.signed().clone()
    }

    /// The group.
    pub fn group(&self) -> crate::types::GroupId {
        self.package.group
    }

    /// Whether the holder of a share gave its receipt.
    pub fn has_receipt(&self, index: ShareIndex) -> bool {
        self.receipts.contains_key(&index)
    }
}

/// Refusals that pass by themselves: the holder is starting, or a record behind.
fn is_passing(check: Check) -> bool {
    // Room is made as soon as another put of the same owner is recorded.
    check.is_passing() || matches!(check, Check::Group | Check::Membership | Check::Capacity)
}

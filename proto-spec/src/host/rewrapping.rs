//! Once a day a host's shards move under the next unlock: it gets that unlock beside the present one, wraps every shard
//! anew, and has the next number recorded. From there on nobody gets the earlier one: an old copy of the disk opens
//! nowhere, not even on this machine.

use super::{Action, ActionId, Actions, Host, Lane, Membership, share_write};
use crate::cms::command::Command;
use crate::cms::members::rewrapped_bytes;
use crate::holder::{ShareKey, StoredShare};
use crate::limits::REWRAP_SLICE;
use crate::types::{Ed25519Signature, GroupId, HostId, Now, Time};
use crate::wire::Message;

use super::committee::Then;

/// What is under way.
#[derive(Default)]
pub(super) struct Rewrapping {
    /// The slice that is not on disk yet.
    waits_for: Option<ActionId>,
    /// When the leader is told again.
    tell_at: Option<Time>,
}

impl Host {
    /// The recorded number of this host's unlock.
    pub(super) fn unlock_number(&self) -> u64 {
        self.ground.records.roll().unlock_number(&self.own.host)
    }

    /// The number that this host wants to be unlocked by: the recorded one, then the next once that is due, or where it
    /// had begun to wrap its shards under it.
    pub(super) fn wanted_number(&self) -> Option<u64> {
        let number = self.unlock_number();
        if !self.own.periods.has(number) {
            return Some(number);
        }
        let has_begun = self.holder.newest_number().max(self.told_number()) > number;
        let is_due = has_begun || self.ground.records.may_rewrap(&self.own.host);
        (is_due && !self.own.periods.has(number + 1)).then_some(number + 1)
    }

    /// Whether what this host took now might lie under an unlock that was given for the last time: its word of before its
    /// start may be recorded at any moment.
    pub(super) fn may_lose_unlock(&self) -> bool {
        let told = self.told_number();
        told > self.unlock_number() && !self.own.periods.has(told)
    }

    /// The highest number of an unlock under which this host said that all its shards lie.
    fn told_number(&self) -> u64 {
        self.membership.as_ref().map_or(0, |membership| membership.told)
    }

    /// Wraps the next slice, once the one before is on disk; then tells the leader.
    pub(super) fn tick_rewrapping(&mut self, now: Now, actions: &mut Actions) {
        let next = self.unlock_number() + 1;
        let is_told = self.rewrapping.tell_at.is_some_and(|at| now.monotonic < at);
        if !self.own.periods.has(next) || self.rewrapping.waits_for.is_some() || is_told || self.disk_failed {
            return;
        }
        match self.holder.rewrap(&self.own.periods, REWRAP_SLICE) {
            Some((group, shares)) => self.write_rewrapped(group, &shares, actions),
            None => self.tell_rewrapped(now, next, actions),
        }
    }

    /// In the lane of the shares themselves, so that no write overtakes another.
    fn write_rewrapped(&mut self, group: GroupId, shares: &[(ShareKey, StoredShare)], actions: &mut Actions) {
        let (lane, id) = (Lane::Group(group), self.fresh_id());
        let writes = shares.iter().map(|(key, stored)| share_write(key, stored)).collect();
        actions.push(Action::Persist { lane, writes });
        actions.push(Action::Confirm { lane, id });
        self.rewrapping.waits_for = Some(id);
    }

    /// A slice is on disk. What was erased meanwhile went behind it, in the same lane.
    pub(super) fn rewrapped_persisted(&mut self, id: ActionId) {
        self.rewrapping.waits_for.take_if(|waits_for| *waits_for == id);
    }

    fn tell_rewrapped(&mut self, now: Now, number: u64, actions: &mut Actions) {
        let Some(calendar) = self.ground.calendar else { return };
        self.rewrapping.tell_at = Some(now.monotonic.plus(calendar.epoch_ms()));
        let records = &self.ground.records;
        let bytes =
            records.mesh().zip(self.own_member()).map(|(mesh, member)| rewrapped_bytes(mesh, member.record(), number));
        let sign = |bytes: Vec<u8>| self.ground.suite.ed25519_sign(&self.own.identity.transport, &bytes);
        let signed = bytes.and_then(sign).zip(self.leader);
        if let (Some((signature, (_, leader))), Some(membership)) = (signed, self.membership.clone()) {
            // After a crash this host must know that it said so.
            if membership.told < number {
                let row = self.remember(Membership { told: number, ..membership });
                actions.push(Action::Persist { lane: Lane::Records, writes: vec![row] });
            }
            self.send(Lane::Records, leader, Message::Rewrapped { number, signature }, actions);
        }
    }

    /// When there is something to do.
    pub(super) fn rewrapping_at(&self) -> Option<Time> {
        self.rewrapping.tell_at.filter(|_| self.own.periods.has(self.unlock_number() + 1))
    }

    /// As the leader: a host has wrapped its shards anew.
    pub(super) fn on_rewrapped(
        &mut self,
        now: Now,
        host: HostId,
        (number, signature): (u64, Ed25519Signature),
        actions: &mut Actions,
    ) {
        let command = Command::Rewrapped { host, number, signature };
        if self.ground.records.check_rewrapped(self.ground.suite.as_ref(), &host, number, &signature).is_ok() {
            // Proposed twice it is refused once; where this host does not lead, the next one is told.
            let _not_leading = self.propose(now, &command, Then::Nothing, actions);
        }
    }

    /// The records unlock a host by its next number from here on.
    pub(super) fn number_advanced(&mut self, host: &HostId) {
        if *host == self.own.host {
            self.own.periods.advance(self.unlock_number(), self.ground.records.round());
            self.rewrapping.tell_at = None;
            // The next quote names the next share-receiving key.
            self.attester.ask_again_at_once();
        }
    }
}

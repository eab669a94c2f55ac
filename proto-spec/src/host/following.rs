//! The record log: the coordinator writes and serves it, everybody else follows.

use super::{Action, Actions, Host, Lane, Membership, Report, Table, Write, piece_row, share_row};
use crate::cms::records::{Command, Effect};
use crate::epoch::Calendar;
use crate::error::{Check, Misbehaved};
use crate::holder::ShareKey;
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::types::{Now, TransportKey};
use crate::wire::{self, LogEntry, Message};

impl Host {
    /// As the coordinator: applies a command, writes it, and pushes it to all. What is sent behind this in the lane of
    /// records leaves only once the command is on disk.
    pub(super) fn commit(&mut self, command: &Command, actions: &mut Actions) -> Result<u64, Check> {
        if self.disk_failed {
            return Err(Check::NotReady);
        }
        let bytes = wire::encode(command);
        let effect = self.ground.records.apply(self.ground.suite.as_ref(), &bytes)?;
        let index = self.ground.records.applied();
        self.log.push(bytes.clone());
        let entry = LogEntry { index, command: bytes };
        actions.push(Action::Persist { lane: Lane::Records, writes: vec![entry_row(&entry)] });
        self.take_effect(&effect, actions);
        let page = Message::RecordsPage { entries: vec![entry], newest: index };
        let members: Vec<TransportKey> =
            self.ground.records.members().map(|member| member.record().transport).collect();
        for to in members.into_iter().filter(|key| *key != self.own.transport) {
            self.send(Lane::Records, to, page.clone(), actions);
        }
        Ok(index)
    }

    /// As the coordinator: somebody asks for records.
    pub(super) fn on_pull(&mut self, now: Now, from: TransportKey, after: u64, actions: &mut Actions) {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let start = usize::try_from(after).unwrap_or(usize::MAX);
        // The log first: it ends before any number does.
        for (command, index) in self.log.iter().skip(start).zip(after.saturating_add(1)..) {
            bytes += command.len();
            if entries.len() >= PAGE_ENTRIES_MAX || (bytes > PAGE_BYTES_MAX && !entries.is_empty()) {
                break;
            }
            entries.push(LogEntry { index, command: command.clone() });
        }
        let newest = self.ground.records.applied();
        self.send(Lane::Records, from, Message::RecordsPage { entries, newest }, actions);
        if let Some(announcement) = self.announcement(now) {
            self.send(Lane::Records, from, announcement, actions);
        }
    }

    /// A page of records came.
    pub(super) fn on_page(
        &mut self,
        now: Now,
        from: TransportKey,
        entries: Vec<LogEntry>,
        newest: u64,
        actions: &mut Actions,
    ) {
        if self.membership.is_none() {
            return; // admitted a moment ago, and not told yet
        }
        if !self.is_coordinator(&from) || self.coordinates() {
            actions.push(Action::Disconnect { peer: from, why: Misbehaved::NotCoordinator });
            return;
        }
        let mut writes = Vec::new();
        let mut effects = Vec::new();
        for entry in entries {
            let applied = self.ground.records.applied();
            if entry.index <= applied {
                continue; // pushed and pulled pages overlap
            }
            if entry.index > applied + 1 || !self.is_ours(&entry) {
                break;
            }
            match self.ground.records.apply(self.ground.suite.as_ref(), &entry.command) {
                Ok(effect) => effects.push(effect),
                Err(_) => {
                    actions.push(Action::Disconnect { peer: from, why: Misbehaved::BadRecords });
                    break;
                }
            }
            writes.push(entry_row(&entry));
        }
        let progressed = !writes.is_empty();
        if progressed {
            actions.push(Action::Persist { lane: Lane::Records, writes });
        }
        for effect in effects {
            self.take_effect(&effect, actions);
        }
        self.hand_on_bundles(actions);
        if newest > self.ground.records.applied() && (progressed || now.monotonic >= self.pull_at) {
            self.pull(now, actions);
        }
    }

    /// The first record must be the genesis that this host pins.
    fn is_ours(&self, entry: &LogEntry) -> bool {
        if entry.index != 1 {
            return true;
        }
        let Ok(Command::Found { genesis, coordinator_key, .. }) =
            wire::decode::<Command>(&entry.command, crate::limits::ENTRY_MAX)
        else {
            return false;
        };
        self.membership.as_ref().is_some_and(|membership| {
            crate::types::sha256(&genesis.bytes).0 == membership.pins.mesh.0
                && coordinator_key == membership.pins.coordinator_key
        })
    }

    fn take_effect(&mut self, effect: &Effect, actions: &mut Actions) {
        match effect {
            Effect::Founded => {
                self.ground.calendar = self.ground.records.genesis().map(|genesis| Calendar::of(genesis.genesis()));
            }
            Effect::Admitted(host) => {
                actions.push(Action::Report(Report::Admitted(*host)));
                if *host == self.own.host {
                    self.joined(actions);
                }
            }
            Effect::GroupActive(_) => {}
            Effect::HeadRecorded(id) => {
                actions.push(Action::Report(Report::Recorded(*id)));
                self.erase_superseded(id, actions);
            }
        }
    }

    /// A recorded head makes older shares and rivals that lost superfluous: they go once the record is on disk.
    fn erase_superseded(&mut self, id: &crate::types::CredentialId, actions: &mut Actions) {
        let Some(credential) = self.ground.records.credential(id) else { return };
        let head = credential.head.clone();
        let gone = self.holder.superseded(id, &head);
        Self::erase(gone, actions);
    }

    /// After a restart: what a crash kept from being erased.
    pub(super) fn erase_leftovers(&mut self, now: Now, actions: &mut Actions) {
        if let Some(view) = self.ground.view(now) {
            let gone = self.holder.leftovers(view);
            Self::erase(gone, actions);
        }
    }

    fn erase(gone: Vec<(ShareKey, u16)>, actions: &mut Actions) {
        let mut writes = Vec::new();
        for (key, pieces) in gone {
            writes.push(Write { table: Table::Shares, key: share_row(&key), value: None });
            writes.extend((0..pieces).map(|piece| Write {
                table: Table::Payloads,
                key: piece_row(&key, piece),
                value: None,
            }));
        }
        if !writes.is_empty() {
            actions.push(Action::Persist { lane: Lane::Records, writes });
        }
    }

    /// Remembers the mesh that this host belongs to.
    pub(super) fn remember(&mut self, membership: Membership, actions: &mut Actions) {
        let row =
            Write { table: Table::Membership, key: b"membership".to_vec(), value: Some(wire::encode(&membership)) };
        actions.push(Action::Persist { lane: Lane::Records, writes: vec![row] });
        self.membership = Some(membership);
    }
}

fn entry_row(entry: &LogEntry) -> Write {
    Write { table: Table::Records, key: entry.index.to_be_bytes().to_vec(), value: Some(entry.command.clone()) }
}

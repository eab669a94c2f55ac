//! The records: how entries are applied, what follows from them, and how a host without a seat gets them.

use std::collections::{BTreeMap, BTreeSet};

use super::committee::RaftRow;
use super::epochs::Told;
use super::{Action, Actions, Host, Lane, Membership, Report, Share, Table, Write, piece_row, share_row};
use crate::beacon::Calendar;
use crate::cms::election::{Hard, LogEntry};
use crate::cms::records::{Effect, Records};
use crate::error::{Check, Misbehaved};
use crate::founding::{self, RestingShare};
use crate::holder::Gone;
use crate::joining::Joining;
use crate::limits::{CONTACTS_MAX, ENTRY_MAX, ERASED_AT_ONCE, NUMBER_MAX, PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::types::{Digest, GroupId, Now, Round, Time, TransportKey};
use crate::whereabouts::Whereabouts;
use crate::wire::{self, Message};

impl Host {
    /// Applies the next entry and does what follows from it.
    pub(super) fn apply_entry(&mut self, now: Now, entry: &LogEntry, actions: &mut Actions) -> Result<Effect, Check> {
        if self.is_outgrown_by(now, entry, actions) {
            return Err(Check::Version);
        }
        let effect = self.ground.records.apply(self.ground.suite.as_ref(), entry);
        if self.seated.is_none() {
            self.log.entries.push(entry.clone());
        }
        match &effect {
            Ok(effect) => self.take_effect(now, &effect.clone(), actions),
            Err(check) => actions.push(Action::Report(Report::NotApplied(entry.index, *check))),
        }
        effect
    }

    /// Somebody asks for records. Also a host without a seat gives what the mesh key has confirmed to it: whoever was away
    /// may know of no voter that is there still.
    pub(super) fn on_pull(&mut self, now: Now, from: TransportKey, after: u64, actions: &mut Actions) {
        let confirmed = self.confirmed.map(|(_, record)| record);
        let Some(newest) = self.seated.as_ref().map(|_| self.ground.records.applied()).or(confirmed) else { return };
        let begin = self.seated.as_ref().map_or(self.log.after, |seated| seated.election.after());
        if after < begin {
            self.offer_state(from, actions);
        } else {
            let of_follower = || self.log.page(after, newest);
            let entries = self.seated.as_ref().map_or_else(of_follower, |seated| seated.election.page(after, newest));
            self.send(Lane::Records, from, Message::RecordsPage { entries, newest }, actions);
        }
        self.tell_everything(now, from, actions);
    }

    /// The newest beacon and header, and who is where, to somebody who missed them.
    pub(super) fn tell_everything(&self, now: Now, to: TransportKey, actions: &mut Actions) {
        if let Some(announcement) = self.announcement(now, Told::Everything) {
            self.send(Lane::Records, to, announcement, actions);
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
        if self.membership.is_none() || self.seated.is_some() || self.outgrown.is_some() {
            return; // admitted a moment ago and not told yet; or a voter, whose log is Raft's
        }
        if !self.may_serve_records(&from) {
            return;
        }
        // Only who was asked: what others push is nobody's answer.
        if self.pulled.is_none_or(|(_, _, asked)| asked != from) {
            return;
        }
        let before = self.ground.records.applied();
        let mut fresh = Vec::new();
        for entry in entries {
            let next = before + u64::try_from(fresh.len()).unwrap_or(u64::MAX) + 1;
            if entry.index < next {
                continue; // pages overlap
            }
            if entry.index > next {
                break;
            }
            let last_term = fresh.last().map_or(self.log.last_term(), |last: &LogEntry| last.term);
            if entry.term < last_term || entry.term > NUMBER_MAX || (next == 1 && !self.is_ours(&entry)) {
                actions.push(Action::Disconnect { peer: from, why: Misbehaved::BadRecords });
                break;
            }
            fresh.push(entry);
        }
        if fresh.last().is_some_and(|last| !self.ground.records.follows_up_to(last.index)) {
            actions.push(Action::Disconnect { peer: from, why: Misbehaved::BadRecords });
            fresh.clear();
        }
        self.pulled = None;
        if !fresh.is_empty() {
            self.served_by.insert(from);
        } else if self.promised > before {
            // Asked in vain: for the same another is asked next, as soon as there is a reason to.
            self.pulled = Some((before, now.monotonic, from));
        }
        if let Some(last) = fresh.last() {
            let hard = Hard { term: last.term, vote: 0, commit: last.index };
            let mut writes = self.entry_rows(&fresh);
            writes.push(RaftRow { seat: 0, taken: self.taken, hard }.write());
            actions.push(Action::Persist { lane: Lane::Records, writes });
        }
        for entry in &fresh {
            let _refused_by_all = self.apply_entry(now, entry, actions);
        }
        self.hand_on_early(now, actions);
        let progressed = !fresh.is_empty();
        if newest > self.ground.records.applied() && (progressed || now.monotonic >= self.pull_at) {
            self.pull(now, actions);
        }
    }

    /// Members serve records, and whoever this host was told of: what they say is held against the next header.
    pub(super) fn may_serve_records(&self, from: &TransportKey) -> bool {
        self.ground.records.member_by_transport(from).is_some()
            || self.is_seated(from)
            || self.told_of().any(|known| known == *from)
    }

    /// Hosts of which this one was told, beside what its records say.
    pub(super) fn told_of(&self) -> impl Iterator<Item = TransportKey> {
        let contacts = self.membership.iter().flat_map(|membership| &membership.contacts);
        let asked = self.joining.iter().flat_map(Joining::asked).map(|contact| contact.transport);
        let told = contacts.map(|contact| contact.transport).chain(asked);
        told.chain(self.book.hosts().copied()).filter(|host| *host != self.own.transport)
    }

    /// The first record must be the founding of the mesh that this host pins, under the key that it pins, and hold:
    /// nothing could follow on one that does not.
    fn is_ours(&self, entry: &LogEntry) -> bool {
        let mut first = Records::default();
        let founded = first.apply(self.ground.suite.as_ref(), entry) == Ok(Effect::Founded);
        founded && self.membership.as_ref().is_some_and(|membership| first.pins().as_ref() == Some(&membership.pins))
    }

    fn take_effect(&mut self, now: Now, effect: &Effect, actions: &mut Actions) {
        match effect {
            Effect::Founded => {
                self.ground.calendar = self.ground.records.genesis().map(|genesis| Calendar::of(genesis.genesis()));
                self.load_share();
                if self.own_member().is_some() {
                    self.joined(actions);
                }
            }
            Effect::Admitted(host) => {
                actions.push(Action::Report(Report::Admitted(*host)));
                self.circle_changed = true;
                if *host == self.own.host && self.own_member().is_some() {
                    self.joined(actions);
                }
            }
            Effect::GroupActive(group) => self.tell_holders(now, group, actions),
            Effect::Nothing | Effect::Leaving(_) => {}
            Effect::NumberAdvanced(host) => self.number_advanced(host),
            Effect::VersionRaised(version) => actions.push(Action::Report(Report::VersionRaised(*version))),
            Effect::Left(host) => {
                actions.push(Action::Report(Report::Left(*host)));
                self.circle_changed = true;
            }
            Effect::CommitteeChanged => self.committee_changed(now, actions),
            Effect::HeadRecorded(id) => {
                actions.push(Action::Report(Report::Recorded(*id)));
                if let Some(credential) = self.ground.records.credential(id) {
                    self.holder.head_recorded(credential);
                }
            }
            Effect::HeaderClosed(header) => {
                self.own.periods.fade(header.round);
                self.header_closed(now, header, actions);
            }
        }
    }

    /// As the leader: shares will be offered to the holders of a new group, and they are to know of it by then.
    fn tell_holders(&self, now: Now, group: &GroupId, actions: &mut Actions) {
        let Some(message) = self.announcement(now, Told::Records).filter(|_| self.leads()) else { return };
        let holders = self.ground.records.group(group).map(|group| group.holders.as_slice()).unwrap_or_default();
        for holder in holders.iter().filter_map(|host| self.ground.records.member(host)) {
            if holder.record().transport != self.own.transport {
                self.send(Lane::Records, holder.record().transport, message.clone(), actions);
            }
        }
    }

    /// Opens this host's share of the mesh key, where it holds one of the dealing that signs now.
    pub(super) fn load_share(&mut self) {
        let Some(setup) = self.ground.records.committee().map(|committee| &committee.key) else { return };
        let of_founding = || {
            let bytes = self.resting.get(&founding::share_row(setup))?;
            self.own.open_share(&wire::decode::<RestingShare>(bytes, RestingShare::MAX).ok()?)
        };
        let opened = if setup.ceremony.is_some() { self.redealt_share(setup) } else { of_founding() };
        let key_epoch = setup.key_epoch;
        self.loaded = key_epoch;
        self.share =
            opened.zip(setup.index_of(&self.own.host)).map(|(secret, index)| Share { key_epoch, index, secret });
    }

    /// Seats or shares of the mesh key changed.
    pub(super) fn committee_changed(&mut self, now: Now, actions: &mut Actions) {
        let dealt = self.ground.records.committee().map_or(0, |committee| committee.key.key_epoch);
        if self.share.as_ref().is_none_or(|share| share.key_epoch != dealt) && self.loaded != dealt {
            self.load_share();
            actions.push(Action::Report(Report::KeyDealt(dealt)));
        }
        self.follow_seats(now, actions);
    }

    /// A follower whom the records gave a seat: it goes on as a voter-to-be, under an id that nobody had before.
    pub(super) fn take_new_seat(&mut self, now: Now, actions: &mut Actions) {
        let Some(seat) = self.has_new_seat() else { return };
        let hard = Hard { term: self.log.last_term(), vote: 0, commit: self.log.last() };
        actions
            .push(Action::Persist { lane: Lane::Records, writes: vec![RaftRow { seat, taken: seat, hard }.write()] });
        self.take_seat(now, hard);
        self.keep_seating(actions);
    }

    /// The mesh key confirms the records up to an index: what they make superfluous is erased. Before, a single seat could
    /// have made them up, and what is erased does not come back.
    pub(super) fn erase_confirmed(&mut self, up_to: u64, round: Round, committee: &Digest, actions: &mut Actions) {
        let gone = self.holder.confirmed(&self.ground.records, up_to, round);
        Self::erase(gone, actions);
        if self.ground.records.committee().is_some_and(|own| own.digest() == *committee) {
            self.erase_old_shares(actions);
        }
    }

    /// In the lane in which they were written: the same package may be offered once more meanwhile.
    fn erase(gone: Vec<Gone>, actions: &mut Actions) {
        let mut lanes: BTreeMap<GroupId, Vec<Write>> = BTreeMap::new();
        for Gone { key, group, pieces } in gone {
            let payload = (0..pieces).map(|piece| (Table::Payloads, piece_row(&key, piece)));
            let rows = std::iter::once((Table::Shares, share_row(&key))).chain(payload);
            let writes = lanes.entry(group).or_default();
            writes.extend(rows.map(|(table, key)| Write { table, key, value: None }));
            if writes.len() >= ERASED_AT_ONCE {
                let writes = std::mem::take(writes);
                actions.push(Action::Persist { lane: Lane::Group(group), writes });
            }
        }
        for (group, writes) in lanes.into_iter().filter(|(_, writes)| !writes.is_empty()) {
            actions.push(Action::Persist { lane: Lane::Group(group), writes });
        }
    }

    /// The committee and where it is may have changed: after a restart this host must find somebody. A few others too: by
    /// then nobody of this committee may be there. Only once a header confirms the records: those that are on their way
    /// name only some, and who is not among them yet must still be found.
    pub(super) fn keep_book(&mut self, actions: &mut Actions) {
        let records = &self.ground.records;
        self.book.keep(|key| records.member_by_transport(key).is_some() || records.roll().left_at(key).is_some());
        let hosts = records.roll().staying_hosts().map(|record| record.transport);
        let others = hosts.filter(|transport| *transport != self.own.transport && !self.is_seated(transport));
        let hosts = self.committee().into_iter().chain(others);
        let book: Vec<Whereabouts> =
            hosts.filter_map(|host| self.book.word_of(&host)).take(CONTACTS_MAX).cloned().collect();
        let known = self.membership.as_ref().filter(|membership| membership.book != book);
        if let Some(known) = known.filter(|_| !book.is_empty()).cloned() {
            let row = self.remember(Membership { book, ..known });
            actions.push(Action::Persist { lane: Lane::Records, writes: vec![row] });
        }
    }

    /// Takes a host's word for where it is, from whoever passes it on: false where it is none, and the sender is dropped.
    pub(super) fn take_whereabouts(&mut self, from: TransportKey, word: &Whereabouts, actions: &mut Actions) -> bool {
        let records = &self.ground.records;
        let is_known =
            records.member_by_transport(&word.transport).is_some() || records.roll().left_at(&word.transport).is_some();
        let mesh = self.mesh();
        let is_forged = is_known && !self.book.take(self.ground.suite.as_ref(), &mesh, word);
        if is_forged {
            actions.push(Action::Disconnect { peer: from, why: Misbehaved::ForgedAddress });
        }
        !is_forged
    }

    /// The row by which this host remembers the mesh that it belongs to.
    pub(super) fn remember(&mut self, membership: Membership) -> Write {
        let value = Some(wire::encode(&membership));
        self.membership = Some(membership);
        Write { table: Table::Membership, key: b"membership".to_vec(), value }
    }

    /// Asks for the records that are not here yet.
    pub(super) fn pull(&mut self, now: Now, actions: &mut Actions) {
        let again_ms = self.ground.calendar.map_or(crate::limits::JOIN_RETRY_MS, |calendar| calendar.epoch_ms() / 2);
        self.pull_at = Time(now.monotonic.0.saturating_add(again_ms));
        self.missing_at = self.pull_at;
        if self.seated.is_some() || self.outgrown.is_some() || self.state_is_coming(now) {
            return;
        }
        let after = self.ground.records.applied();
        // Asked again for the same: the one that was asked before may be gone.
        let in_vain = self.pulled.filter(|(before, ..)| *before == after).map(|(.., asked)| asked);
        self.vain = if in_vain.is_some() { self.vain.saturating_add(1) } else { 0 };
        self.asked_last = self.whom_to_pull(in_vain);
        if let Some(to) = self.asked_last {
            self.pulled = Some((after, self.pull_at, to));
            self.send(Lane::Direct, to, Message::RecordsPull { after }, actions);
        }
    }

    /// When records that are known to be missing are asked for again, whatever else came meanwhile.
    pub(super) fn missing_at(&self) -> Option<Time> {
        let misses = self.membership.is_some() && self.seated.is_none() && self.outgrown.is_none();
        (misses && self.promised > self.ground.records.applied()).then_some(self.missing_at)
    }

    /// Whoever was asked for records may be gone: another is asked at once, once.
    pub(super) fn ask_another(&mut self, now: Now, is_gone: impl Fn(TransportKey) -> bool, actions: &mut Actions) {
        if self.vain == 0 && self.pulled.is_some_and(|(_, until, asked)| now.monotonic < until && is_gone(asked)) {
            self.pull(now, actions);
        }
    }

    fn whom_to_pull(&mut self, in_vain: Option<TransportKey>) -> Option<TransportKey> {
        let may_ask = |one: &TransportKey| Some(*one) != in_vain && !self.distrusted.contains(one);
        if let Some((_, leader)) = self.leader.filter(|(_, leader)| may_ask(leader)) {
            return Some(leader);
        }
        let mut those = self.committee();
        // Voters first. Where all are silent, whoever else is known: their seats may be others' by now.
        if self.vain > those.len() || those.is_empty() {
            let others: BTreeSet<TransportKey> = self.told_of().filter(|other| !those.contains(other)).collect();
            those.extend(others);
        }
        if those.iter().any(may_ask) {
            those.retain(may_ask);
        }
        self.turn = self.turn.wrapping_add(1);
        those.get(self.turn.checked_rem(those.len())?).copied()
    }
}

const _: () = assert!(PAGE_BYTES_MAX > ENTRY_MAX && PAGE_ENTRIES_MAX > 0);

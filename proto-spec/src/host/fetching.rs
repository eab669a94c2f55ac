//! A host that is too far behind the log pulls the state, from whoever serves it, against a header that the mesh key
//! signed.

use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::committee::RaftRow;
use super::saving::Kept;
use super::{Action, Actions, Host, Lane, Report};
use crate::beacon::Calendar;
use crate::cms::election::Hard;
use crate::cms::log::Stretch;
use crate::cms::records::Records;
use crate::cms::snapshot::Snapshot;
use crate::error::Misbehaved;
use crate::header::{HeaderVerified, SignedHeader};
use crate::limits::{ENTRY_MAX, PAGE_BYTES_MAX, STATE_PAGE_MS, STATE_PAGE_ROWS_MAX};
use crate::types::{Now, Time, TransportKey};
use crate::wire::Message;

/// No snapshot has this record: whoever asks for it is offered the newest.
const NEWEST: u64 = 0;

/// A state that is being pulled.
pub(super) struct Fetching {
    header: HeaderVerified,
    from: TransportKey,
    rows: Vec<Vec<u8>>,
    bytes: u64,
    /// Whether more than one host served the rows.
    is_mixed: bool,
    /// Until then its next page may be on its way; `None` where nobody is asked.
    pub(super) asked_until: Option<Time>,
}

impl Fetching {
    fn snapshot(&self) -> &Snapshot {
        &self.header.header().snapshot
    }

    /// Takes the rows of a page; false where there are more than the snapshot says, or fewer than a page holds: by single
    /// rows a host could be held up for days.
    fn take(&mut self, rows: Vec<ByteBuf>) -> bool {
        let (count, most) = (self.rows.len().saturating_add(rows.len()), self.snapshot().rows);
        let bytes: usize = rows.iter().map(|row| row.len()).sum();
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let fits = u64::try_from(count).is_ok_and(|count| count <= most) && self.bytes <= self.snapshot().bytes;
        let is_full = rows.len() >= STATE_PAGE_ROWS_MAX || bytes.saturating_add(ENTRY_MAX) >= PAGE_BYTES_MAX;
        let is_last = u64::try_from(count).is_ok_and(|count| count == most);
        if !fits || !(is_full || is_last) {
            return false;
        }
        self.rows.extend(rows.into_iter().map(ByteBuf::into_vec));
        true
    }

    fn next(&self) -> u64 {
        u64::try_from(self.rows.len()).unwrap_or(u64::MAX)
    }
}

impl Host {
    /// Offers the newest snapshot that is on disk.
    pub(super) fn offer_state(&self, to: TransportKey, actions: &mut Actions) {
        if let Some(kept) = &self.kept {
            self.send(Lane::Direct, to, Message::StateOffer(Box::new(kept.saved.header().clone())), actions);
        }
    }

    /// A voter learned that the leader no longer has what it lacks.
    pub(super) fn ask_state(&mut self, now: Now, of: TransportKey, actions: &mut Actions) {
        let asked = self.pulled.is_some_and(|(_, until, _)| now.monotonic < until);
        if asked || self.state_is_coming(now) {
            return;
        }
        let after = self.ground.records.applied();
        self.pulled = Some((after, now.monotonic.plus(STATE_PAGE_MS), of));
        self.send(Lane::Direct, of, Message::StatePull { record: NEWEST, number: 0 }, actions);
    }

    /// Whether a state is on its way, from elsewhere or to disk.
    pub(super) fn state_is_coming(&self, now: Now) -> bool {
        let asked_until = self.fetching.as_ref().and_then(|fetching| fetching.asked_until);
        asked_until.is_some_and(|until| now.monotonic < until)
            || self.saving.as_ref().is_some_and(|saving| saving.installs)
    }

    /// Somebody whom this host asked for records has cut off those that it lacks.
    pub(super) fn on_state_offer(
        &mut self,
        now: Now,
        from: TransportKey,
        signed: &SignedHeader,
        actions: &mut Actions,
    ) {
        let was_asked = self.pulled.is_some_and(|(_, _, asked)| asked == from) && self.may_serve_records(&from);
        let snapshot = signed.header.snapshot;
        let is_news = snapshot.within_bounds() && snapshot.record > self.ground.records.applied();
        if !was_asked || !is_news || self.outgrown.is_some() || self.state_is_coming(now) {
            return;
        }
        let pins = self.membership.as_ref().map(|membership| &membership.pins);
        let Some((mesh, key)) = pins.and_then(|pins| Some((pins.mesh, pins.mesh_key()?))) else { return };
        let Some(header) = HeaderVerified::check(self.ground.suite.as_ref(), &mesh, &key, signed) else {
            actions.push(Action::Disconnect { peer: from, why: Misbehaved::ForgedEpoch });
            return;
        };
        self.pulled = None;
        let version = signed.header.protocol_version;
        if version > self.config.newest {
            self.stop_at(version);
            self.give_up_seat(now, actions);
            actions.push(Action::Report(Report::Outgrown(version)));
            return;
        }
        let goes_on = self.fetching.take().filter(|fetching| *fetching.snapshot() == snapshot);
        let is_mixed = goes_on.as_ref().is_some_and(|fetching| fetching.is_mixed || fetching.from != from);
        let (rows, bytes) = goes_on.map(|fetching| (fetching.rows, fetching.bytes)).unwrap_or_default();
        self.fetching = Some(Fetching { header, from, rows, bytes, is_mixed, asked_until: None });
        self.fetch(now, actions);
    }

    fn fetch(&mut self, now: Now, actions: &mut Actions) {
        let Some(fetching) = &mut self.fetching else { return };
        fetching.asked_until = Some(now.monotonic.plus(STATE_PAGE_MS));
        let (to, record, number) = (fetching.from, fetching.snapshot().record, fetching.next());
        self.send(Lane::Direct, to, Message::StatePull { record, number }, actions);
    }

    /// Whoever served the state is silent: somebody else is asked, and the rows that are here stay.
    pub(super) fn tick_fetching(&mut self, now: Now, actions: &mut Actions) {
        let applied = self.ground.records.applied();
        // Another had the entries still.
        self.fetching.take_if(|fetching| fetching.snapshot().record <= applied);
        let Some(fetching) = &mut self.fetching else { return };
        if fetching.asked_until.is_some_and(|until| now.monotonic >= until) {
            fetching.asked_until = None;
            self.pulled = Some((self.ground.records.applied(), now.monotonic, fetching.from));
            self.pull(now, actions);
        }
    }

    /// A member pulls the state.
    pub(super) fn on_state_pull(&self, from: TransportKey, record: u64, number: u64, actions: &mut Actions) {
        match &self.kept {
            Some(kept) if kept.saved.snapshot().record == record => {
                let rows = kept.state.page(number, PAGE_BYTES_MAX).into_iter().map(ByteBuf::from).collect();
                self.send(Lane::Direct, from, Message::StatePage { record, number, rows }, actions);
            }
            // It is not known yet which one there is, or the next took its place.
            _ => self.offer_state(from, actions),
        }
    }

    /// A page of the state came.
    pub(super) fn on_state_page(
        &mut self,
        now: Now,
        from: TransportKey,
        (record, number): (u64, u64),
        rows: Vec<ByteBuf>,
        actions: &mut Actions,
    ) {
        let Some(fetching) = &mut self.fetching else { return };
        if fetching.from != from || fetching.snapshot().record != record || fetching.next() != number {
            return;
        }
        let sound = fetching.take(rows);
        if sound && fetching.next() < fetching.snapshot().rows {
            return self.fetch(now, actions);
        }
        let Some(fetching) = self.fetching.take() else { return };
        let state = self.state_of(&fetching).filter(|_| sound);
        match state {
            Some(state) => self.save_pulled(fetching.header.signed(), Arc::new(state)),
            None => {
                // Of several that served it nobody can tell who lied.
                if !fetching.is_mixed {
                    actions.push(Action::Disconnect { peer: from, why: Misbehaved::BadRecords });
                }
                self.pulled = Some((self.ground.records.applied(), now.monotonic, from));
                self.pull(now, actions);
            }
        }
    }

    /// The state, where its rows are those under the header and it is that of the mesh that this host pins.
    fn state_of(&self, fetching: &Fetching) -> Option<Records> {
        let state = Records::of_rows(self.ground.suite.as_ref(), &fetching.rows, fetching.snapshot())?;
        let pins = self.membership.as_ref().map(|membership| &membership.pins);
        (state.pins().as_ref() == pins).then_some(state)
    }

    /// A state that was pulled is on disk: it takes the place of the records, unless they have come as far by themselves.
    pub(super) fn install(&mut self, now: Now, kept: Kept, actions: &mut Actions) {
        let Snapshot { record, term, .. } = kept.saved.snapshot();
        let applied = self.ground.records.applied();
        let known = self.seated.as_ref().map_or(applied, |seated| seated.election.committed());
        if known.max(applied) >= record {
            return;
        }
        let was_member = self.own_member().is_some();
        self.ground.records = Records::clone(&kept.state);
        self.ground.calendar = self.ground.records.genesis().map(|genesis| Calendar::of(genesis.genesis()));
        let records = &self.ground.records;
        let seat = records.committee().and_then(|committee| committee.seat_of(&self.own.host)).map(|seat| seat.id);
        let held = self.seated.take().map(|seated| seated.election);
        let (log, hard) = match &held {
            // What it voted and acknowledged under the same id holds.
            Some(election) if Some(election.id()) == seat => {
                let vote = if election.term() >= term { election.vote() } else { 0 };
                let hard = Hard { term: election.term().max(term), vote, commit: record };
                (election.stretch(u64::MAX).behind(record, term), hard)
            }
            _ => {
                let log = Stretch { after: record, after_term: term, entries: Vec::new() };
                (log, Hard { term, vote: 0, commit: record })
            }
        };
        let sits = held.filter(|election| Some(election.id()) == seat).map_or(0, |election| election.id());
        let mut writes = vec![RaftRow { seat: sits, taken: self.taken, hard }.write()];
        writes.extend((log.last() + 1..=self.last_row).map(|index| Self::entry_row(index, None)));
        let last = log.last();
        self.log = log;
        self.keep_state(kept, record + 1, writes, actions);
        self.last_row = last;
        if sits > 0 {
            self.take_seat(now, hard);
        }
        self.after_install(now, was_member, actions);
    }

    /// What the records that were passed over would have brought about.
    fn after_install(&mut self, now: Now, was_member: bool, actions: &mut Actions) {
        if !was_member && self.own_member().is_some() {
            self.joined(actions);
        }
        self.number_advanced(&self.own.host.clone());
        self.committee_changed(now, actions);
        // What it makes superfluous goes once this host has followed the log from there to a header: shares of now may be
        // newer than this state.
        self.holder.replaced(&self.ground.records);
        self.take_new_seat(now, actions);
        self.hand_on_early(now, actions);
        self.pull(now, actions);
    }
}

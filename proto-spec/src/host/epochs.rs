//! The beat of a host: the holders of the mesh key sign each round's beacon and header, everybody verifies them and
//! quotes over the beacon.

use super::{Action, ActionId, Actions, Host, Lane, Membership, Report, Table, TpmReply, TpmRequest, TpmUse, Write};
use crate::beacon::{EpochVerified, SignedBeacon};
use crate::cms::command::Command;
use crate::cms::version::VersionWord;
use crate::error::{LocalFault, Misbehaved};
use crate::gossip::{News, Verdict};
use crate::header::{Header, HeaderVerified, SignedHeader};
use crate::limits::{BEACONS_KEPT, ENTRY_MAX, PART_RETRY_MS, TERM_JUMP_MAX};
use crate::membership::{Member, MemberRecord};
use crate::signing::{Memory, Signable, Topic, combine};
use crate::types::{BlsSignature, HostId, Now, Round, ShareIndex, Time, TransportKey};
use crate::view::View;
use crate::whereabouts::Whereabouts;
use crate::wire::{self, Message, Presence, Standing};

use super::committee::Then;

/// How much an announcement says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    /// Who leads, and the index of the newest record.
    Records,
    /// And who is where.
    Presence,
    /// And the epoch: to whoever missed it.
    Everything,
}

impl Host {
    /// As a holder of a share: signs its part of the present round's beacon, and again until there is one.
    pub(super) fn tick_beacon(&mut self, now: Now, actions: &mut Actions) {
        let Some(calendar) = self.ground.calendar else { return };
        if self.share.is_none() || self.disk_failed {
            return;
        }
        let round = calendar.round_at(now.wall_ms);
        let has = self.ground.epochs.newest().is_some_and(|newest| newest >= round);
        if has || self.signed.is_some_and(|(signed, again_at)| signed == round && now.monotonic < again_at) {
            return;
        }
        self.signed = Some((round, now.monotonic.plus(PART_RETRY_MS)));
        // What t wrong clocks sign is a round that the mesh cannot go back behind.
        if !self.ground.epochs.is_steady(&calendar, now) {
            return;
        }
        self.sign_part(now, Lane::Direct, Topic::Beacon(round), Signable::Beacon(round), actions);
    }

    /// When `tick_beacon` has something to do.
    pub(super) fn beacon_at(&self, now: Now) -> Option<Time> {
        let calendar = self.ground.calendar.as_ref()?;
        let (round, again_at) = self.signed?;
        // The clock may have been set back: then it is another round's turn.
        let is_open = self.share.is_some()
            && !self.disk_failed
            && calendar.round_at(now.wall_ms) == round
            && self.ground.epochs.newest().is_none_or(|newest| newest < round);
        is_open.then_some(again_at)
    }

    /// Signs this host's part and sends it to all holders, itself included.
    fn sign_part(&mut self, now: Now, lane: Lane, topic: Topic, what: Signable<'_>, actions: &mut Actions) {
        let (Some(share), Some(mesh)) = (&self.share, self.ground.records.mesh()) else { return };
        let memory = Memory { records: Some(&self.ground.records), tickets: None };
        let Some(part) = what.partial(self.ground.suite.as_ref(), mesh, &share.secret, memory) else { return };
        let (key_epoch, index) = (share.key_epoch, share.index);
        for to in self.key_holders() {
            if to != self.own.transport {
                self.send(lane, to, Message::Part { key_epoch, topic, index, part }, actions);
            }
        }
        self.take_part(now, topic, index, part, actions);
    }

    /// Transport keys of those who hold a share of the mesh key.
    pub(super) fn key_holders(&self) -> Vec<TransportKey> {
        let records = &self.ground.records;
        let holders = records.committee().map(|committee| committee.key.holders.as_slice()).unwrap_or_default();
        holders.iter().filter_map(|host| records.member(host)).map(|member| member.record().transport).collect()
    }

    /// Another holder's part.
    pub(super) fn on_part(
        &mut self,
        now: Now,
        host: &HostId,
        key_epoch: u64,
        topic: Topic,
        (index, part): (ShareIndex, BlsSignature),
        actions: &mut Actions,
    ) {
        let Some(setup) = self.ground.records.committee().map(|committee| &committee.key) else { return };
        // Shares of another dealing sign nothing here; of a change, one side hears before the other.
        if setup.key_epoch == key_epoch && setup.index_of(host) == Some(index) {
            self.take_part(now, topic, index, part, actions);
        }
    }

    fn take_part(&mut self, now: Now, topic: Topic, index: ShareIndex, part: BlsSignature, actions: &mut Actions) {
        let Some(calendar) = self.ground.calendar else { return };
        self.parts.add(calendar.round_at(now.wall_ms), topic, index, part);
        match topic {
            Topic::Beacon(round) => self.combine_beacon(now, round, actions),
            Topic::Header(round) => self.combine_header(now, round, actions),
        }
    }

    fn combine_beacon(&mut self, now: Now, round: Round, actions: &mut Actions) {
        if self.ground.epochs.newest().is_some_and(|newest| newest >= round) {
            return;
        }
        if let Some(signature) = self.combined(Topic::Beacon(round), Signable::Beacon(round)) {
            let beacon = SignedBeacon { round, signature };
            if self.take_beacon(now, &beacon, actions) == Verdict::Accept {
                Self::publish(News::Beacon(beacon), actions);
            }
        }
    }

    fn combine_header(&mut self, now: Now, round: Round, actions: &mut Actions) {
        let known = self.header.as_ref().is_some_and(|(header, _)| header.header().round >= round);
        let Some(header) = self.ground.records.header_of(round).filter(|_| !known).cloned() else { return };
        if let Some(signature) = self.combined(Topic::Header(round), Signable::Header(&header)) {
            let header = SignedHeader { header, signature };
            if self.take_header(now, &header, actions) == Verdict::Accept {
                Self::publish(News::Header(Box::new(header)), actions);
            }
        }
    }

    fn combined(&mut self, topic: Topic, what: Signable<'_>) -> Option<BlsSignature> {
        let (suite, records) = (self.ground.suite.as_ref(), &self.ground.records);
        let setup = &records.committee()?.key;
        combine(suite, records.mesh()?, setup, what, self.parts.parts(topic)?).ok()
    }

    /// The records closed a header: this holder signs it. The log that closed it is on disk before the part leaves.
    pub(super) fn header_closed(&mut self, now: Now, header: &Header, actions: &mut Actions) {
        let Some(calendar) = self.ground.calendar else { return };
        // Of a stall or a catch-up only the present is signed.
        let is_present =
            calendar.is_current(header.round, now.wall_ms) && !calendar.is_ahead(header.round, now.wall_ms);
        if !is_present {
            return;
        }
        if let Some(last) = self.ground.records.round_before(header.round).filter(|last| last.0 + 1 < header.round.0) {
            actions.push(Action::Report(Report::Skipped(Round(last.0 + 1), Round(header.round.0 - 1))));
        }
        if self.share.is_some() {
            self.sign_part(now, Lane::Records, Topic::Header(header.round), Signable::Header(header), actions);
        }
        // The next unlock may be due from this round on.
        self.ask_unlock(now, actions);
    }

    /// Verifies a header and keeps it where it is new.
    pub(super) fn take_header(&mut self, now: Now, signed: &SignedHeader, actions: &mut Actions) -> Verdict {
        let round = signed.header.round;
        let (Some(calendar), Some(mesh)) = (self.ground.calendar, self.ground.records.mesh()) else {
            return Verdict::Ignore;
        };
        if self.header.as_ref().is_some_and(|(header, _)| header.header().round == round) {
            return self.compare(signed, actions);
        }
        let known = self.header.as_ref().is_some_and(|(header, _)| header.header().round > round);
        if known || calendar.is_ahead(round, now.wall_ms) || !calendar.is_current(round, now.wall_ms) {
            return Verdict::Ignore;
        }
        let Some(key) = self.ground.records.mesh_key() else { return Verdict::Ignore };
        let Some(verified) = HeaderVerified::check(self.ground.suite.as_ref(), mesh, &key, signed) else {
            return Verdict::Reject;
        };
        // The log only grows: a later round that closes no later record is of another end of it.
        let turns_back = |known: &Header| known.round < round && signed.header.record <= known.record;
        let newest = self.header.as_ref().map(|(known, _)| known.header());
        if newest.into_iter().chain(self.vouched.as_ref()).any(turns_back) {
            self.note_split(round, actions);
        }
        let last = self.header.replace((verified, now.monotonic));
        let confirmed = self.confirmed.map(|(round, _)| round);
        if last.is_none_or(|(last, _)| Some(last.header().round) != confirmed) {
            // Records of another end of the log may be behind it.
            self.erasable = None;
        }
        self.circle_changed = true;
        self.keep_seating(actions);
        if self.leads() {
            self.announce_to_all(now, actions);
        }
        Verdict::Accept
    }

    /// A header of the round of the newest. There is only one, unless somebody with a seat led two parts of the committee to
    /// two ends of the log: then nobody can tell which is right, and whatever rests on either is kept.
    fn compare(&mut self, signed: &SignedHeader, actions: &mut Actions) -> Verdict {
        let is_other = self.header.as_ref().is_some_and(|(header, _)| *header.header() != signed.header);
        if !is_other || self.is_split() {
            return Verdict::Ignore;
        }
        let records = &self.ground.records;
        let (Some(mesh), Some(key)) = (records.mesh(), records.mesh_key()) else { return Verdict::Ignore };
        if HeaderVerified::check(self.ground.suite.as_ref(), mesh, &key, signed).is_none() {
            return Verdict::Reject;
        }
        self.note_split(signed.header.round, actions);
        Verdict::Accept
    }

    /// Two headers hold that cannot both be of one log. It is remembered until a person has looked.
    pub(super) fn note_split(&mut self, round: Round, actions: &mut Actions) {
        if let Some(membership) = self.membership.clone().filter(|membership| !membership.split) {
            let row = self.remember(Membership { split: true, ..membership });
            actions.push(Action::Persist { lane: Lane::Records, writes: vec![row] });
            actions.push(Action::Report(Report::Split(round)));
        }
    }

    /// As the leader: tells every member the newest record, and who is where.
    pub(super) fn announce_to_all(&mut self, now: Now, actions: &mut Actions) {
        if let Some(view) = self.view(now).filter(|_| self.leads()) {
            self.standings = self.coordinator.standings(view);
        }
        let Some(message) = self.announcement(now, Told::Presence) else { return };
        let members: Vec<TransportKey> =
            self.ground.records.members().map(|member| member.record().transport).collect();
        for to in members.into_iter().filter(|key| *key != self.own.transport) {
            self.send(Lane::Ring, to, message.clone(), actions);
        }
    }

    /// What somebody is to know now.
    pub(super) fn announcement(&self, now: Now, told: Told) -> Option<Message> {
        let view = self.view(now)?;
        let missed = told == Told::Everything;
        let epoch = view.epochs.current(view.calendar, now).filter(|_| missed);
        let beacon = epoch.map(|epoch| epoch.signed().clone());
        let header = view.header.filter(|_| missed).map(|header| header.signed().clone());
        let (presence, records) =
            ((told >= Told::Presence).then(|| self.presence(view)), self.ground.records.applied());
        // In whose term it leads: this host may have voted in another since, and not know yet who won.
        let (term, leader) = self.leader.map_or((0, None), |(term, leader)| (term, Some(leader)));
        Some(Message::Announce { term, leader, beacon, header, records, presence })
    }

    /// Who stands how, and where.
    fn presence(&self, view: View<'_>) -> Vec<Presence> {
        let known = || self.coordinator.standings(view);
        let standings = if self.leads() { known() } else { self.standings.clone() };
        let one = |member: &Member| {
            let MemberRecord { host, transport, .. } = member.record();
            let standing = standings.get(host).copied().unwrap_or(Standing::Absent);
            Presence { host: *host, standing, whereabouts: self.book.word_of(transport).cloned() }
        };
        view.records.members().map(one).collect()
    }

    /// This host leads from now on: everybody is told, so that open requests come here.
    pub(super) fn begin_lead(&mut self, now: Now, actions: &mut Actions) {
        self.announce_to_all(now, actions);
        self.close_round(now, actions);
        self.ask_leader_again(now, actions);
    }

    /// As the leader: has the records close the header of the newest round.
    pub(super) fn close_round(&mut self, now: Now, actions: &mut Actions) {
        let Some(beacon) = self.beacons.back().cloned() else { return };
        if self.leads() && self.ground.records.header().is_none_or(|header| header.round < beacon.round) {
            // Another leader's proposal for the same round may win: then the header is there.
            let _not_leading = self.propose(now, &Command::Epoch { beacon }, Then::Closed, actions);
        }
    }

    /// An announcement came.
    pub(super) fn on_announce(&mut self, now: Now, from: TransportKey, message: Message, actions: &mut Actions) {
        let Message::Announce { term, leader, beacon, header, records, presence } = message else { return };
        if self.membership.is_none() || self.ground.records.committee().is_none() {
            return; // admitted a moment ago, and without the records yet
        }
        if !self.is_seated(&from) {
            return self.on_hearsay(now, from, (beacon, header), presence, actions);
        }
        if !self.take_epoch(now, from, beacon, header, actions) {
            return;
        }
        // A voter knows from its election who leads.
        let can_be = term <= self.log.last_term().saturating_add(TERM_JUMP_MAX);
        if let Some(leader) = leader.filter(|leader| can_be && self.seated.is_none() && self.is_seated(leader)) {
            self.follow_leader(now, term, leader, actions);
        }
        if let Some(presence) = presence.filter(|list| !list.is_empty() && !self.leads()) {
            if !self.take_presence(from, &presence, actions) {
                return;
            }
            self.standings = presence.iter().map(|one| (one.host, one.standing)).collect();
        }
        self.catch_up(now, records, actions);
    }

    /// Somebody without a seat, as far as this host knows, announces: the committee changed, and one side has not heard
    /// yet. A host that hears nobody else learns from whom it asked where others are.
    fn on_hearsay(
        &mut self,
        now: Now,
        from: TransportKey,
        (beacon, header): (Option<SignedBeacon>, Option<SignedHeader>),
        presence: Option<Vec<Presence>>,
        actions: &mut Actions,
    ) {
        let is_lost = self.leader.is_none() && self.seated.is_none();
        if !is_lost || self.asked_last != Some(from) {
            return;
        }
        self.circle_changed = true;
        let told = presence.unwrap_or_default();
        if self.take_presence(from, &told, actions) && self.take_epoch(now, from, beacon, header, actions) {
            let record = self.header.as_ref().map_or(0, |(header, _)| header.header().record);
            self.catch_up(now, record, actions);
        }
    }

    /// Where members are, as they say themselves: false where somebody makes it up.
    fn take_presence(&mut self, from: TransportKey, presence: &[Presence], actions: &mut Actions) -> bool {
        let mut words = presence.iter().filter_map(|one| one.whereabouts.as_ref());
        words.all(|word| self.take_whereabouts(from, word, actions))
    }

    /// A beacon and a header came with an announcement: false where one is forged.
    fn take_epoch(
        &mut self,
        now: Now,
        from: TransportKey,
        beacon: Option<SignedBeacon>,
        header: Option<SignedHeader>,
        actions: &mut Actions,
    ) -> bool {
        if beacon.is_some_and(|beacon| !self.take_beacon_of(now, from, &beacon, actions)) {
            return false;
        }
        let holds = header.is_none_or(|header| self.take_header(now, &header, actions) != Verdict::Reject);
        if !holds {
            actions.push(Action::Disconnect { peer: from, why: Misbehaved::ForgedEpoch });
        }
        holds
    }

    /// A beacon came with something that a peer asks: false where it is forged. Each one costs a check, so the peer goes.
    pub(super) fn take_beacon_of(
        &mut self,
        now: Now,
        from: TransportKey,
        beacon: &SignedBeacon,
        actions: &mut Actions,
    ) -> bool {
        let holds = self.take_beacon(now, beacon, actions) != Verdict::Reject;
        if !holds {
            actions.push(Action::Disconnect { peer: from, why: Misbehaved::ForgedEpoch });
        }
        holds
    }

    /// Records up to this index exist: asks for them, unless a page that is under way brings what is missing, or its time
    /// runs out.
    pub(super) fn catch_up(&mut self, now: Now, records: u64, actions: &mut Actions) {
        self.promised = self.promised.max(records);
        if records > self.ground.records.applied() {
            self.look_for_more(now, actions);
        }
    }

    /// Asks for records, unless they are on their way.
    pub(super) fn look_for_more(&mut self, now: Now, actions: &mut Actions) {
        let applied = self.ground.records.applied();
        if !self.pulled.is_some_and(|(after, until, _)| after == applied && now.monotonic < until) {
            self.pull(now, actions);
        }
    }

    /// Somebody leads in this term: where that is news, open requests go there at once.
    pub(super) fn follow_leader(&mut self, now: Now, term: u64, leader: TransportKey, actions: &mut Actions) {
        let news = self.leader.is_none_or(|(known, host)| term > known || (term == known && host != leader));
        if news {
            self.leader = Some((term, leader));
            self.ask_leader_again(now, actions);
            self.ask_another(now, |asked| asked != leader, actions);
        }
    }

    /// Verifies a beacon and, where it is new, quotes over it.
    pub(super) fn take_beacon(&mut self, now: Now, beacon: &SignedBeacon, actions: &mut Actions) -> Verdict {
        let Some(view) = self.view(now) else { return Verdict::Ignore };
        let newest = view.epochs.current(view.calendar, now).map(EpochVerified::round);
        if newest >= Some(beacon.round) {
            return Verdict::Ignore;
        }
        let Some(key) = view.records.mesh_key() else { return Verdict::Ignore };
        let Some(verified) = EpochVerified::check(view.suite, &key, beacon) else { return Verdict::Reject };
        let calendar = *view.calendar;
        if !self.ground.epochs.accept(&calendar, now, verified.clone()) {
            return Verdict::Ignore;
        }
        self.beacons.push_back(beacon.clone());
        if self.beacons.len() > BEACONS_KEPT {
            self.beacons.pop_front();
        }
        actions.push(Action::Report(Report::Epoch(beacon.round)));
        actions.push(Action::Persist { lane: Lane::Ring, writes: vec![epoch_row(beacon)] });
        self.pull_at = now.monotonic.plus(calendar.until_next(now.wall_ms) + calendar.epoch_ms() / 2);
        if self.leads() {
            self.close_round(now, actions);
        }
        // A chip that is slower than an epoch finishes what it began: that quote is still current for a while.
        if self.attester.is_waiting() {
            self.attester.ask_again_at_once();
        } else {
            self.quote(now, &verified, actions);
        }
        Verdict::Accept
    }

    fn quote(&mut self, now: Now, epoch: &EpochVerified, actions: &mut Actions) {
        if self.outgrown.is_some() {
            return; // nobody is to count on it
        }
        let Some(view) = self.ground.view(now, self.header.as_ref()) else { return };
        let Some(genesis) = view.records.genesis() else { return };
        let pcrs = genesis.genesis().pcrs.clone();
        let number = view.records.roll().unlock_number(&self.own.host);
        let qualifying = self.attester.begin(view, self.own.attester_keys(number), &mut self.generator, epoch);
        self.ask_tpm(TpmUse::Evidence, TpmRequest::Quote { pcrs, qualifying }, actions);
    }

    pub(super) fn ask_tpm(&mut self, purpose: TpmUse, request: TpmRequest, actions: &mut Actions) {
        // One request per purpose: what a late answer is for has passed.
        self.tpm.retain(|_, other| *other != purpose);
        let id = self.fresh_id();
        self.tpm.insert(id, purpose);
        actions.push(Action::Tpm { id, request });
    }

    /// The TPM failed before, or something new is to be shown: asks it again for the epoch that is current now.
    pub(super) fn tick_quote(&mut self, now: Now, actions: &mut Actions) {
        if self.attester.is_waiting() || self.attester.retry_at().is_none_or(|at| now.monotonic < at) {
            return;
        }
        let epoch = self.view(now).and_then(|view| view.epochs.current(view.calendar, now));
        match epoch.cloned() {
            Some(epoch) => self.quote(now, &epoch, actions),
            None => self.attester.failed(now),
        }
    }

    /// The TPM answered.
    pub(super) fn on_tpm(&mut self, now: Now, id: ActionId, reply: Option<TpmReply>, actions: &mut Actions) {
        let Some(purpose) = self.tpm.remove(&id) else { return };
        match (purpose, reply) {
            (TpmUse::Evidence, Some(TpmReply::Quote(quote))) => self.on_own_quote(now, quote, actions),
            (TpmUse::Evidence, _) => {
                self.attester.failed(now);
                actions.push(Action::Report(Report::Fault(LocalFault::Tpm)));
            }
            (TpmUse::Measure, reply) => self.on_measured(now, reply, actions),
            (TpmUse::Challenge(from), reply) => self.on_challenge_tpm(from, reply, actions),
        }
    }

    fn on_own_quote(&mut self, now: Now, quote: crate::attest::quote::Quote, actions: &mut Actions) {
        // Its records may have gone while the TPM was at work: once they are back it is asked again.
        let Some(view) = self.ground.view(now, self.header.as_ref()) else { return self.attester.failed(now) };
        let number = view.records.roll().unlock_number(&self.own.host);
        let Some(evidence) = self.attester.finish(view, self.own.attester_keys(number), quote) else { return };
        self.show_evidence(&evidence, actions);
        self.ask_unlock(now, actions);
    }

    /// Sends evidence to the whole committee: whoever leads next knows who stands.
    pub(super) fn show_evidence(&self, evidence: &crate::attest::evidence::SignedEvidence, actions: &mut Actions) {
        let (suite, mesh, round) = (self.ground.suite.as_ref(), self.mesh(), evidence.evidence.round);
        let (own, key) = (&self.own, &self.own.identity.transport);
        let Some(word) = VersionWord::give(suite, &mesh, own.host, self.config.newest, round, key) else { return };
        let address = self.config.address.clone();
        let Some(whereabouts) = Whereabouts::give(suite, &mesh, (own.transport, key), address, round) else { return };
        let full = self.holder.is_full();
        for to in self.committee() {
            let (evidence, whereabouts, word) = (evidence.clone(), whereabouts.clone(), word.clone());
            let message = Message::EvidenceAnnounce { evidence, whereabouts, word, full };
            self.send(Lane::Ring, to, message, actions);
        }
    }

    /// Nothing was heard of this round by its middle, or records that were asked for have not come: asks the committee.
    pub(super) fn tick_pull(&mut self, now: Now, actions: &mut Actions) {
        if self.missing_at().is_some_and(|at| now.monotonic >= at) {
            self.pull(now, actions);
        }
        if self.membership.is_none() || now.monotonic < self.pull_at {
            return;
        }
        if self.seated.is_some() {
            return self.pull_epoch(now, actions);
        }
        self.leader = None; // it is silent: whoever answers says who leads
        self.pull(now, actions);
    }

    /// A voter has its records from Raft, and may miss a round's beacon like anybody: it asks one of the others.
    fn pull_epoch(&mut self, now: Now, actions: &mut Actions) {
        let Some(calendar) = self.ground.calendar else { return };
        self.pull_at = now.monotonic.plus((calendar.epoch_ms() / 2).max(1));
        let round = calendar.round_at(now.wall_ms);
        let has_beacon = self.ground.epochs.newest().is_some_and(|newest| newest >= round);
        let has_header = self.header.as_ref().is_some_and(|(header, _)| header.header().round >= round);
        if has_beacon && has_header {
            return;
        }
        self.turn = self.turn.wrapping_add(1);
        let mut others = self.committee();
        others.retain(|other| *other != self.own.transport);
        if let Some(to) = self.turn.checked_rem(others.len()).and_then(|at| others.get(at)).copied() {
            self.send(Lane::Direct, to, Message::EpochPull, actions);
        }
    }
}

fn epoch_row(beacon: &SignedBeacon) -> Write {
    Write { table: Table::Epoch, key: NEWEST.to_vec(), value: Some(wire::encode(beacon)) }
}

/// The header that confirmed this host's records last.
pub(super) fn vouched_row(header: &Header) -> Write {
    Write { table: Table::Epoch, key: VOUCHED.to_vec(), value: Some(wire::encode(header)) }
}

/// What the rows of [`Table::Epoch`] hold: the newest round, and the header that confirmed this host's records last.
pub(super) fn restored(rows: &[(Vec<u8>, Vec<u8>)]) -> (Round, Option<Header>) {
    let row = |name: &[u8]| rows.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let beacon = row(NEWEST).and_then(|bytes| wire::decode::<SignedBeacon>(bytes, ENTRY_MAX).ok());
    let vouched = row(VOUCHED).and_then(|bytes| wire::decode(bytes, ENTRY_MAX).ok());
    (beacon.map_or(Round(0), |beacon| beacon.round), vouched)
}

/// Keys of the rows of [`Table::Epoch`].
const NEWEST: &[u8] = b"newest";
const VOUCHED: &[u8] = b"vouched";

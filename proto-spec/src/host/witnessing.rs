//! Whether a head is recorded: what this host asks the seats before it tells a client so, and what it says as a voter.

use std::collections::BTreeMap;

use super::putting::Early;
use super::{Actions, Host, Lane};
use crate::credential::head::HeadVerified;
use crate::limits::WITNESSED_MAX;
use crate::relay::Stage;
use crate::types::{Digest, HostId, Now, RequestId, TransportKey};
use crate::wire::Message;
use crate::witness::Witnesses;

impl Host {
    /// A voter says that something is recorded.
    pub(super) fn on_recorded(
        &mut self,
        now: Now,
        from: HostId,
        request: &RequestId,
        (head, record): (&Digest, u64),
        actions: &mut Actions,
    ) {
        let is_leave = |message: &Message| matches!(message, Message::LeaveRequest { .. });
        if self.asked.get(request).is_some_and(|asked| is_leave(&asked.message)) {
            return self.on_early(now, request, Early::Leaving(self.own.host), actions);
        }
        let found = self.open_heads().find(|(known, of, _)| known == request && of.digest() == head);
        if let Some(()) = found.map(|(_, _, witnesses)| witnesses.says(from, record)) {
            self.hand_on_recorded(now, actions);
            if self.ground.records.applied() < record {
                self.look_for_more(now, actions);
            }
        }
    }

    /// Heads whose record is waited for.
    fn open_heads(&mut self) -> impl Iterator<Item = (RequestId, &HeadVerified, &mut Witnesses)> {
        let puts = self.puts.iter_mut().filter(|(_, (putting, _))| putting.stage == Stage::AwaitingRecord);
        let puts = puts.map(|(request, (putting, _))| (*request, &putting.head, &mut putting.witnesses));
        let changes = self.changes.iter_mut().filter(|(_, (changing, _))| changing.is_awaiting_record());
        puts.chain(changes.map(|(request, (changing, _))| (*request, &changing.head, &mut changing.witnesses)))
    }

    /// Records were applied, or somebody spoke of them: what they hold is recorded, where a majority of the seats, as a header
    /// names them, says the same. Whoever served these records may have made them up.
    pub(super) fn hand_on_recorded(&mut self, now: Now, actions: &mut Actions) {
        let seats = self.seating.as_ref().map(|seating| seating.seats.clone()).unwrap_or_default();
        let own = self.own.host;
        let open: Vec<Digest> = self.open_heads().map(|(_, head, _)| *head.digest()).collect();
        let records = self.ground.records.credentials();
        let made: BTreeMap<Digest, u64> =
            open.iter().filter_map(|head| Some((*head, records.made_of(head)?))).collect();
        let mut recorded = Vec::new();
        for (request, head, witnesses) in self.open_heads() {
            if let Some(record) = made.get(head.digest()).copied() {
                witnesses.says(own, record);
                recorded.extend(witnesses.agree_on(record, &seats).then(|| (request, *head.digest(), record)));
            }
        }
        for (request, head, record) in recorded {
            self.end_recorded(&request, &head, record, actions);
            self.on_change_recorded(now, request, &head, record, actions);
        }
    }

    /// Asks the seats of which a header speaks for the heads whose record is waited for; the leader is asked for the record
    /// itself.
    pub(super) fn tick_witnesses(&mut self, now: Now, actions: &mut Actions) {
        let seats = self.seating.as_ref().map(|seating| seating.seats.clone()).unwrap_or_default();
        let leader = self.leader.and_then(|(_, leader)| self.ground.records.member_by_transport(&leader));
        let told = [Some(self.own.host), leader.map(|member| member.record().host)];
        let mut questions = Vec::new();
        for (request, head, witnesses) in self.open_heads() {
            let head = *head.digest();
            let silent = witnesses.ask(&seats, now.monotonic).into_iter().filter(|host| !told.contains(&Some(*host)));
            questions.extend(silent.map(|host| (host, Message::RecordedAsk { request, head })));
        }
        for (host, question) in questions {
            if let Some(member) = self.ground.records.member(&host) {
                self.send(Lane::Direct, member.record().transport, question, actions);
            }
        }
    }

    /// As a voter: says what it has recorded, at once or as soon as it hears of the record. Whoever is forgotten over others
    /// asks again.
    pub(super) fn on_recorded_ask(
        &mut self,
        from: TransportKey,
        request: RequestId,
        head: Digest,
        actions: &mut Actions,
    ) {
        if self.seated.is_none() || self.disk_failed {
            return;
        }
        self.unanswered.push_back((from, request, head));
        if self.unanswered.len() > WITNESSED_MAX {
            self.unanswered.pop_front();
        }
        self.bear_witness(actions);
    }

    /// As a voter: answers those who asked for what is recorded now.
    pub(super) fn bear_witness(&mut self, actions: &mut Actions) {
        let asked = std::mem::take(&mut self.unanswered);
        if self.seated.is_none() {
            return; // its records are somebody's word from here on
        }
        for (from, request, head) in asked {
            match self.ground.records.credentials().made_of(&head) {
                Some(record) => self.send(Lane::Records, from, Message::Recorded { request, head, record }, actions),
                None => self.unanswered.push_back((from, request, head)),
            }
        }
    }
}

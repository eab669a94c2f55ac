//! A message came: who may say it, and which part it is for.

use super::committee::Question;
use super::putting::Early;
use super::recording::Wanted;
use super::{Action, Actions, Host, Lane};
use crate::error::{Check, Misbehaved, Refused, Subject};
use crate::holder::{Offer, Release};
use crate::host::LocalReply;
use crate::types::{HostId, Now, RequestId, TransportKey};
use crate::wire::{Message, Unverified};

impl Host {
    pub(super) fn on_message(
        &mut self,
        now: Now,
        from: TransportKey,
        message: Unverified<Message>,
        actions: &mut Actions,
    ) {
        match message.into_unchecked() {
            Message::EnrolHello(hello) => self.on_hello(now, from, &hello, actions),
            Message::EnrolCommittee { pins, committee } => self.on_named(&from, pins, committee, actions),
            Message::EnrolChallenge { blobs } => self.on_challenge(from, blobs, actions),
            Message::EnrolAnswer(answer) => self.on_answer(now, from, &answer, actions),
            Message::EnrolPart { key_epoch, t, index, part } => {
                self.on_enrol_part(now, &from, (key_epoch, t), (index, part), actions);
            }
            Message::EnrolAdmit { request, record, parts } => {
                self.on_enrol_admit(now, from, request, &record, parts, actions);
            }
            Message::EnrolAdmitted => self.on_admitted(now, &from, actions),
            Message::EnrolRefused { request, refused } => self.on_enrol_refused(&from, request, refused, actions),
            Message::EnrolForming { genesis, known } => self.on_forming(&from, &genesis, known, actions),
            message if message.is_enrolment() => self.on_founding(now, from, message, actions),
            message => self.on_member_message(now, from, message, actions),
        }
    }

    /// A message did not reach its host.
    pub(super) fn on_undeliverable(&mut self, now: Now, to: &TransportKey, actions: &mut Actions) {
        if let Some(joining) = self.joining.as_mut().filter(|joining| joining.asks(to)) {
            joining.unreachable(now.monotonic, to);
        }
        if let Some(host) = self.ground.records.member_by_transport(to).map(|member| member.record().host) {
            self.coordinator.lost(&host);
        }
        let seat = self.seat_id_of(to);
        if let (Some(seated), Some(seat)) = (&mut self.seated, seat) {
            seated.election.unreachable(seat);
        }
        self.ask_another(now, |asked| asked == *to, actions);
        self.put_unreachable(now, to, actions);
        self.reading_unreachable(now, to, actions);
    }

    /// Three hosts found a mesh. To one that missed the end, a founded host shows it.
    fn on_founding(&mut self, now: Now, from: TransportKey, message: Message, actions: &mut Actions) {
        match message {
            Message::FoundingDone(_) if self.forming.is_none() => {}
            _ if self.forming.is_none() => self.tell_founding(from, actions),
            Message::FoundingCall { attempt, founders } => self.on_call(now, from, attempt, &founders, actions),
            Message::FoundingChallenge { attempt, blobs } => {
                self.on_founding_challenge(from, attempt, blobs, actions);
            }
            Message::FoundingAnswer { attempt, session, quote } => {
                self.on_founding_answer(from, attempt, session, &quote, actions);
            }
            Message::FoundingDeal { attempt, deal, signature } => {
                self.on_founding_deal(from, attempt, &(deal, signature), actions);
            }
            Message::FoundingVote { attempt, vote } => self.on_founding_vote(now, from, attempt, &vote, actions),
            Message::FoundingDone(founding) => self.on_founding_done(now, &founding, actions),
            _ => {}
        }
    }

    /// Everything but enrolment is for members only: the sender is known by its transport key.
    fn on_member_message(&mut self, now: Now, from: TransportKey, message: Message, actions: &mut Actions) {
        let member = self.ground.records.member_by_transport(&from).map(|member| member.record().host);
        match (member, message) {
            (_, message @ Message::Announce { .. }) => self.on_announce(now, from, message, actions),
            (_, Message::Unseated(seating)) => self.on_unseated(now, &seating, actions),
            (_, Message::SeatProof(proof)) => self.on_seat_proof(from, &proof),
            (_, Message::StateOffer(header)) => self.on_state_offer(now, from, &header, actions),
            (_, Message::StatePage { record, number, rows }) => {
                self.on_state_page(now, from, (record, number), rows, actions);
            }
            (_, Message::RecordsPage { entries, newest }) => self.on_page(now, from, entries, newest, actions),
            // A founder is there whose end of the founding this host missed: its hello is answered with it.
            (_, Message::Ballot(_)) if self.forming.is_some() => self.greet_founder(from, actions),
            (Some(host), message) => self.on_request(now, from, host, message, actions),
            // Admitted perhaps, by a record that is not here yet: it is told to come again.
            (None, Message::ShareRequest { request, .. } | Message::ShareStore { request, .. })
                if self.ground.records.committee().is_some() =>
            {
                if now.monotonic >= self.pull_at {
                    self.pull(now, actions);
                }
                self.refuse(Lane::Direct, from, request, Check::Membership, Subject::Request, actions);
            }
            (None, _) if self.ground.records.members().next().is_none() => {} // this host knows nobody yet
            (None, message) if self.ground.records.roll().left_at(&from).is_some() => {
                self.on_departed(now, from, &message, actions);
            }
            // Whoever leads and has applied all knows every member; everybody else may be a record behind.
            (None, Message::Ballot(ballot)) if !self.knows_everybody() => self.on_ballot(now, from, &ballot, actions),
            (None, _) if !self.knows_everybody() => {}
            (None, _) => actions.push(Action::Disconnect { peer: from, why: Misbehaved::NotMember }),
        }
    }

    fn knows_everybody(&self) -> bool {
        self.leads() && self.has_applied_all()
    }

    fn on_request(&mut self, now: Now, from: TransportKey, host: HostId, message: Message, actions: &mut Actions) {
        match message {
            Message::EvidenceAnnounce { evidence, whereabouts, word, full } => {
                self.on_evidence(now, from, host, &evidence, (&whereabouts, word, full), actions);
            }
            Message::RecordsPull { after } => self.on_pull(now, from, after, actions),
            Message::SeatPull => self.on_seat_pull(from, actions),
            Message::EpochPull => self.tell_everything(now, from, actions),
            Message::StatePull { record, number } => self.on_state_pull(from, record, number, actions),
            Message::Ballot(ballot) => self.on_ballot(now, from, &ballot, actions),
            Message::Part { key_epoch, topic, index, part } => {
                self.on_part(now, &host, key_epoch, topic, (index, part), actions);
            }
            Message::KeyDealt { ceremony, deal, signature } => {
                self.on_key_dealt(now, &host, ceremony, (&deal, signature), actions);
            }
            Message::KeyHeld { ceremony, dealer, deal, signature, held } => {
                self.on_key_held(host, ceremony, dealer, (deal, signature, held), actions);
            }
            Message::UnlockRequest { number, shown } => self.on_unlock_request(now, from, number, &shown, actions),
            Message::UnlockPart { number, round, key_epoch, index, sealed } => {
                self.on_unlock_part(now, &host, (number, round), (key_epoch, index), &sealed, actions);
            }
            Message::PutBegin(placing) => self.on_put_begin(now, from, placing, actions),
            Message::Entrust(entrusting) => self.on_entrust(now, from, &entrusting, actions),
            Message::PutRecord { request, head, receipts } => {
                self.on_record_request(now, from, Wanted { request, head, receipts: Some(receipts) }, actions);
            }
            Message::ChangeRecord { request, head } => {
                self.on_record_request(now, from, Wanted { request, head, receipts: None }, actions);
            }
            Message::LeaveRequest { request, word } => {
                self.on_leave_request(now, from, host, (request, word), actions);
            }
            Message::Rewrapped { number, signature } => self.on_rewrapped(now, host, (number, signature), actions),
            Message::BoundAsk { request, id, head } => self.on_bound_ask(now, from, (request, id, head), actions),
            Message::Bound { request, head } => self.on_bound(host, request, &head, actions),
            Message::RecordedAsk { request, head } => self.on_recorded_ask(from, request, head, actions),
            Message::MapRequest { request, id, shown } => {
                self.on_map_request(now, from, request, &id, &shown, actions);
            }
            Message::HeadRequest { request, id } => {
                self.ask_log_for(now, from, request, Question::Head(from, request, id), actions);
            }
            Message::OwnerMapRequest { request, id } => {
                self.ask_log_for(now, from, request, Question::OwnerMap(from, request, id), actions);
            }
            Message::ShareStore { request, head, group, generation, index, sealed, commitments, pieces } => {
                let offer = Offer {
                    head: &head,
                    group,
                    generation,
                    index,
                    sealed: &sealed,
                    commitments: &commitments,
                    pieces: &pieces,
                    from: host,
                };
                self.on_share_store(now, from, request, offer, actions);
            }
            Message::ShareRequest { request, id, generation: _, shown } => {
                self.on_share_request(now, from, request, &id, &shown, actions);
            }
            Message::PayloadRequest { request, id, head } => {
                self.on_payload_request(now, from, request, &id, &head, actions);
            }
            answer => self.on_reply(now, from, host, answer, actions),
        }
    }

    /// Answers to what this host asked.
    fn on_reply(&mut self, now: Now, from: TransportKey, host: HostId, message: Message, actions: &mut Actions) {
        match message {
            Message::PutBundle { request, bundle } if self.is_seated(&from) => {
                self.on_early(now, &request, Early::Bundle(bundle), actions);
            }
            Message::HeadReply { request, head, record } if self.is_seated(&from) => {
                self.on_early(now, &request, Early::Head(head, record), actions);
            }
            Message::Entrusted { request, package } if self.is_seated(&from) => {
                self.answered(&request, LocalReply::Package(package), actions);
            }
            Message::Recorded { request, head, record } if self.is_seated(&from) => {
                self.on_recorded(now, host, &request, (&head, record), actions);
            }
            Message::MapReply { request, file } if self.is_seated(&from) => {
                self.on_map_reply(request, file, actions);
            }
            Message::ShareStored { request, receipt } => {
                self.on_share_stored(now, host, request, receipt, actions);
            }
            Message::ShareReply { request, head, index, commitments, sealed } => {
                let release = Release { head, index, commitments, sealed };
                self.on_share_reply(now, &from, request, &release, actions);
            }
            Message::PayloadReply { request, pieces } => {
                let pieces: Vec<Vec<u8>> = pieces.into_iter().map(serde_bytes::ByteBuf::into_vec).collect();
                self.on_payload_reply(&from, request, &pieces, actions);
            }
            Message::Refusal { request, refused } => self.on_refusal(now, &from, &request, refused, actions),
            _ => actions.push(Action::Disconnect { peer: from, why: Misbehaved::NotCommittee }),
        }
    }

    fn on_refusal(
        &mut self,
        now: Now,
        from: &TransportKey,
        request: &RequestId,
        refused: Refused,
        actions: &mut Actions,
    ) {
        if self.readings.contains_key(request) {
            self.refused_reading(now, from, request, refused, actions);
        } else if self.changes.contains_key(request) {
            self.refused_change(from, request, refused, actions);
        } else {
            self.refused_put(now, from, request, refused, actions);
        }
    }
}

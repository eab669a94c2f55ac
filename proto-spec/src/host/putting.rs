//! What this host does for a local client that puts: it relays, and sees ciphertext only.

use super::{Action, Actions, Host, Lane, LocalId, LocalReply};
use crate::cms::credentials::has_expired;
use crate::cms::records::Records;
use crate::credential::head::{HeadVerified, SignedHead};
use crate::credential::receipt::PutReceipt;
use crate::error::{Check, Failure, Refused, Subject};
use crate::limits::{REQUEST_MS, REQUESTS_OPEN_MAX};
use crate::relay::{Next, Putting, RETRY_MS, SILENCE_MS, Stage, Wait};
use crate::types::{Digest, HostId, Now, RequestId, ShareIndex, Time, TransportKey};
use crate::wire::{DealBundle, Message, Package};

/// A question to the coordinator whose answer goes to a local client as it is.
pub(super) struct Asked {
    pub(super) local: LocalId,
    pub(super) deadline: Time,
    /// Until then a refusal for want of evidence is not the last word: each epoch brings new evidence.
    pub(super) patient_until: Time,
    pub(super) retry_at: Time,
    pub(super) message: Message,
    /// An answer that speaks of a record that is not here yet.
    pub(super) early: Option<Early>,
}

/// An answer that waits for the record that it speaks of: what the client does next is done through this host.
pub(super) enum Early {
    /// A bundle: until its group is known here.
    Bundle(Box<DealBundle>),
    /// A head, and the index of its record.
    Head(SignedHead, u64),
    /// This host's word that it leaves.
    Leaving(HostId),
}

impl Early {
    fn is_here(&self, records: &Records) -> bool {
        match self {
            Self::Bundle(bundle) => records.group(&bundle.group).is_some(),
            Self::Head(_, record) => records.applied() >= *record,
            Self::Leaving(host) => records.roll().is_leaving(host) || records.roll().departed(host).is_some(),
        }
    }

    fn reply(self) -> LocalReply {
        match self {
            Self::Bundle(bundle) => LocalReply::Bundle(bundle),
            Self::Head(head, _) => LocalReply::Head(Box::new(head)),
            Self::Leaving(_) => LocalReply::Leaving,
        }
    }
}

impl Host {
    /// Asks the coordinator in a local client's name; the answer is handed on as it is.
    pub(super) fn ask(&mut self, now: Now, id: LocalId, request: RequestId, message: Message, actions: &mut Actions) {
        if self.open_requests() >= REQUESTS_OPEN_MAX {
            return Self::reply(id, Err(Failure::Busy), actions);
        }
        if self.is_open(&request) {
            return Self::reply(id, Err(Failure::Local("a request of this id is open already")), actions);
        }
        if self.membership.is_none() {
            return Self::reply(id, Err(Failure::Membership(self.no_mesh())), actions);
        }
        self.send_to_leader(message.clone(), actions);
        let epoch_ms = self.ground.calendar.map_or(0, |calendar| calendar.epoch_ms());
        let (deadline, retry_at) = (now.monotonic.plus(REQUEST_MS), now.monotonic.plus(SILENCE_MS));
        let patient_until = now.monotonic.plus(epoch_ms).min(deadline);
        self.asked.insert(request, Asked { local: id, deadline, patient_until, retry_at, message, early: None });
    }

    /// Whether a request has this id: ids are no secret, and an answer goes by them.
    pub(super) fn is_open(&self, request: &RequestId) -> bool {
        self.asked.contains_key(request)
            || self.puts.contains_key(request)
            || self.changes.contains_key(request)
            || self.readings.contains_key(request)
    }

    pub(super) fn open_requests(&self) -> usize {
        self.asked.len() + self.puts.len() + self.changes.len() + self.readings.len()
    }

    pub(super) fn answered(&mut self, request: &RequestId, reply: LocalReply, actions: &mut Actions) {
        if let Some(asked) = self.asked.remove(request) {
            Self::reply(asked.local, Ok(reply), actions);
        }
    }

    /// An answer came that is handed on once the record that it speaks of is here.
    pub(super) fn on_early(&mut self, now: Now, request: &RequestId, early: Early, actions: &mut Actions) {
        if early.is_here(&self.ground.records) {
            self.answered(request, early.reply(), actions);
        } else if let Some(asked) = self.asked.get_mut(request) {
            asked.early = Some(early);
            self.look_for_more(now, actions);
        }
    }

    /// Records were applied: hands on the answers that waited for them.
    pub(super) fn hand_on_early(&mut self, now: Now, actions: &mut Actions) {
        self.bear_witness(actions);
        self.hand_on_recorded(now, actions);
        let records = &self.ground.records;
        let is_here = |asked: &Asked| asked.early.as_ref().is_some_and(|early| early.is_here(records));
        let ready: Vec<RequestId> =
            self.asked.iter().filter(|(_, asked)| is_here(asked)).map(|(request, _)| *request).collect();
        for request in ready {
            if let Some(Asked { local, early: Some(early), .. }) = self.asked.remove(&request) {
                Self::reply(local, Ok(early.reply()), actions);
            }
        }
    }

    /// Another host leads: what was asked of the last one is asked of it.
    pub(super) fn ask_leader_again(&mut self, now: Now, actions: &mut Actions) {
        let soon = now.monotonic;
        self.asked.values_mut().for_each(|asked| asked.retry_at = soon);
        for (putting, _) in self.puts.values_mut().filter(|(putting, _)| putting.stage == Stage::AwaitingRecord) {
            putting.retry_at = Some(soon);
        }
        for (changing, _) in self.changes.values_mut() {
            changing.retry_at = soon;
        }
        self.readings.values_mut().for_each(|(reading, _)| reading.leader_changed(soon));
        if let Some(evidence) = self.attester.newest().cloned() {
            self.show_evidence(&evidence, actions);
        }
    }

    pub(super) fn tick_asked(&mut self, now: Now, actions: &mut Actions) {
        let over: Vec<RequestId> =
            self.asked.iter().filter(|(_, asked)| now.monotonic >= asked.deadline).map(|(id, _)| *id).collect();
        for request in over {
            if let Some(asked) = self.asked.remove(&request) {
                Self::reply(asked.local, Err(Failure::NoLeader), actions);
            }
        }
        let mut again = Vec::new();
        for asked in self.asked.values_mut().filter(|asked| now.monotonic >= asked.retry_at) {
            asked.retry_at = now.monotonic.plus(SILENCE_MS);
            again.push(asked.message.clone());
        }
        for message in again {
            self.send_to_leader(message, actions);
        }
    }

    /// Stores a dealt and signed credential: the shares go to their holders.
    pub(super) fn put_store(
        &mut self,
        now: Now,
        id: LocalId,
        package: Package,
        signature: String,
        wait: Wait,
        actions: &mut Actions,
    ) {
        match self.begin_put(now, package, signature, wait) {
            Ok(putting) => {
                let request = putting.request;
                self.puts.insert(request, (putting, id));
                self.offer_shares(&request, actions);
            }
            Err(failure) => Self::reply(id, Err(failure), actions),
        }
    }

    fn begin_put(&mut self, now: Now, package: Package, signature: String, wait: Wait) -> Result<Putting, Failure> {
        let refused = |check| Failure::Refused(Refused::new(check, Subject::Request));
        if self.open_requests() >= REQUESTS_OPEN_MAX {
            return Err(Failure::Busy);
        }
        if !package.within_bounds() {
            return Err(refused(Check::HeadForm));
        }
        let view = self.view(now).ok_or_else(|| self.no_records())?;
        let signed = SignedHead { bytes: package.head.clone(), signature };
        let head = HeadVerified::check(view.suite, view.mesh, &signed).map_err(refused)?;
        let group = view.records.group(&package.group).ok_or_else(|| refused(Check::Group))?;
        let request = head.head().request;
        if self.is_open(&request) {
            return Err(refused(Check::Record));
        }
        let deadline = now.monotonic.plus(view.calendar.epoch_ms());
        let mut putting = Putting::new(request, head, group.holders.clone(), package, wait, now.monotonic, deadline)
            .map_err(refused)?;
        putting.retry_at = Some(now.monotonic.plus(SILENCE_MS));
        Ok(putting)
    }

    fn offer_shares(&mut self, request: &RequestId, actions: &mut Actions) {
        let Some((putting, _)) = self.puts.get(request) else { return };
        for (holder, message) in putting.offers() {
            if let Some(member) = self.ground.records.member(&holder) {
                self.send(Lane::Direct, member.record().transport, message, actions);
            }
        }
    }

    pub(super) fn on_share_stored(
        &mut self,
        now: Now,
        from: HostId,
        request: RequestId,
        receipt: PutReceipt,
        actions: &mut Actions,
    ) {
        let Some(view) = self.ground.view(now, self.header.as_ref()) else { return };
        let Some((putting, _)) = self.puts.get_mut(&request) else { return };
        // A receipt that the coordinator would not take is no receipt: its holder has not answered well.
        let next = if has_expired(receipt.round, view.records.round()) {
            putting.refused(from, Refused::new(Check::Behind, Subject::Host(from)), now.monotonic)
        } else if view.records.receipt_holds(view.suite, &receipt) && putting.is_for(&receipt) {
            putting.stored(from, receipt, now.monotonic)
        } else {
            putting.refused(from, Refused::new(Check::Receipts, Subject::Host(from)), now.monotonic)
        };
        self.follow_put(now, &request, next, actions);
    }

    /// It is recorded: who holds what is what the record says.
    pub(super) fn end_recorded(&mut self, request: &RequestId, head: &Digest, record: u64, actions: &mut Actions) {
        if self.puts.get(request).is_none_or(|(putting, _)| putting.head.digest() != head) {
            return;
        }
        let Some((putting, id)) = self.puts.remove(request) else { return };
        let of = putting.head.head();
        // Replaced by now it says no more of this one: then what was asked for is told.
        let recorded = self.ground.records.credential(&of.id()).filter(|credential| credential.dealt == *head);
        let has = |index: &ShareIndex| match recorded {
            Some(credential) => credential.flushed.contains(index),
            None => putting.has_receipt(*index),
        };
        let indexes = || (1..).map(ShareIndex).zip(&putting.holders);
        let flushed = indexes().filter(|(index, _)| has(index)).count();
        let reply = LocalReply::Stored {
            id: of.id(),
            version: of.version,
            record,
            group: putting.group(),
            holders: putting.holders.clone(),
            missing: indexes().filter(|(index, _)| !has(index)).map(|(_, holder)| *holder).collect(),
            margin: u8::try_from(flushed.saturating_sub(usize::from(of.terms.k))).unwrap_or(0),
        };
        Self::reply(id, Ok(reply), actions);
    }

    /// Somebody refused a request: the coordinator a question or the record, a holder its share.
    pub(super) fn refused_put(
        &mut self,
        now: Now,
        from: &TransportKey,
        request: &RequestId,
        refused: Refused,
        actions: &mut Actions,
    ) {
        let is_coordinator = self.is_seated(from);
        if let Some((putting, _)) = self.puts.get_mut(request) {
            if putting.stage == Stage::AwaitingRecord {
                // What a slow holder still says changes nothing any more, be it the coordinator's own share.
                // Who leads may have changed: the next one is asked.
                if self.leader.is_some_and(|(_, leader)| leader == *from)
                    && refused.subject == Subject::Request
                    && !refused.check.is_passing()
                {
                    self.end_put(request, Failure::Refused(refused), actions);
                }
                return;
            }
            if let Some(member) = self.ground.records.member_by_transport(from) {
                let next = putting.refused(member.record().host, refused, now.monotonic);
                self.follow_put(now, request, next, actions);
            }
        } else if !is_coordinator || passes_soon(refused.check) {
            // Only the leader was asked; and who leads may have changed: the next one is asked.
        } else if self.waits_for_evidence(now, request, refused.check) {
            // It is asked again.
        } else if let Some(asked) = self.asked.remove(request) {
            let unknown = refused.check == Check::Unknown;
            let failure = if unknown { Failure::NotFound } else { Failure::Refused(refused) };
            Self::reply(asked.local, Err(failure), actions);
        }
    }

    /// Whether a refusal for want of evidence is waited out.
    fn waits_for_evidence(&mut self, now: Now, request: &RequestId, check: Check) -> bool {
        let asked = self.asked.get_mut(request).filter(|asked| now.monotonic < asked.patient_until);
        let Some(asked) = asked.filter(|_| check == Check::EvidenceMissing) else { return false };
        asked.retry_at = now.monotonic.plus(RETRY_MS);
        true
    }

    pub(super) fn put_unreachable(&mut self, now: Now, to: &TransportKey, actions: &mut Actions) {
        let Some(host) = self.ground.records.member_by_transport(to).map(|member| member.record().host) else { return };
        let requests: Vec<RequestId> = self.puts.keys().copied().collect();
        for request in requests {
            if let Some((putting, _)) = self.puts.get_mut(&request)
                && putting.holders.contains(&host)
                && putting.stage == Stage::AwaitingReceipts
            {
                let next = putting.unreachable(host, now.monotonic);
                self.follow_put(now, &request, next, actions);
            }
        }
    }

    fn follow_put(&mut self, now: Now, request: &RequestId, next: Next, actions: &mut Actions) {
        match next {
            Next::Wait => {}
            Next::Fail(failure) => {
                if let Some((putting, _)) = self.puts.get(request).filter(|_| is_about_holders(&failure)) {
                    self.passed_over.remember(&putting.failed_by(now.monotonic), now.monotonic);
                }
                self.end_put(request, failure, actions);
            }
            Next::Record => {
                if let Some((putting, _)) = self.puts.get_mut(request) {
                    let message = putting.record(now.monotonic);
                    putting.deadline = now.monotonic.plus(REQUEST_MS);
                    self.send_to_leader(message, actions);
                }
            }
        }
    }

    fn end_put(&mut self, request: &RequestId, failure: Failure, actions: &mut Actions) {
        if let Some((_, id)) = self.puts.remove(request) {
            actions.push(Action::Reply { lane: Lane::Direct, id, reply: Err(failure) });
        }
    }

    pub(super) fn tick_puts(&mut self, now: Now, actions: &mut Actions) {
        let requests: Vec<RequestId> = self.puts.keys().copied().collect();
        for request in requests {
            let Some((putting, _)) = self.puts.get_mut(&request) else { continue };
            if now.monotonic >= putting.deadline {
                let next = putting.expired();
                self.follow_put(now, &request, next, actions);
            } else if putting.retry_at.is_some_and(|at| now.monotonic >= at) {
                putting.wait_longer(now.monotonic);
                match putting.stage {
                    Stage::AwaitingReceipts => self.offer_shares(&request, actions),
                    Stage::AwaitingRecord => {
                        let message = putting.record(now.monotonic);
                        self.send_to_leader(message, actions);
                    }
                }
            }
        }
    }
}

/// Whether a put failed for want of holders.
fn is_about_holders(failure: &Failure) -> bool {
    let is_full = |refused: &Refused| refused.check == Check::Capacity;
    matches!(failure, Failure::TooFewHolders { .. }) || matches!(failure, Failure::Refused(refused) if is_full(refused))
}

/// Refusals of a leader that another leader, or this one in a moment, does not repeat.
fn passes_soon(check: Check) -> bool {
    matches!(check, Check::NotLeader | Check::NotReady | Check::Behind | Check::OwnEpoch)
}

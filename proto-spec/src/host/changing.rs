//! What this host does for a local client that removes, allows, revokes or hands over; and as a holder, to say what binds
//! it.

use super::{Action, Actions, Host, Lane, LocalId, LocalReply, share_write};
use crate::changing::{Changed, Changing, RETRY_MS, SILENCE_MS, Stage};
use crate::credential::head::{HeadVerified, SignedHead};
use crate::credential::placement::certain_at;
use crate::error::{Check, Failure, Refused, Subject};
use crate::limits::{REQUEST_MS, REQUESTS_OPEN_MAX};
use crate::types::{CredentialId, Digest, HostId, Now, RequestId, TransportKey};
use crate::wire::Message;

impl Host {
    /// Asks the leader to record a head that changes nothing of the value.
    pub(super) fn change(&mut self, now: Now, id: LocalId, head: &SignedHead, actions: &mut Actions) {
        match self.begin_change(now, head) {
            Ok(changing) => {
                self.send_to_leader(changing.record(), actions);
                self.changes.insert(changing.request(), (changing, id));
            }
            Err(failure) => Self::reply(id, Err(failure), actions),
        }
    }

    fn begin_change(&mut self, now: Now, head: &SignedHead) -> Result<Changing, Failure> {
        let refused = |check| Failure::Refused(Refused::new(check, Subject::Request));
        if self.open_requests() >= REQUESTS_OPEN_MAX {
            return Err(Failure::Busy);
        }
        let view = self.view(now).ok_or_else(|| self.no_records())?;
        let head = HeadVerified::check(view.suite, view.mesh, head).map_err(refused)?;
        view.records.credential(&head.head().id()).ok_or(Failure::NotFound)?;
        if self.is_open(&head.head().request) {
            return Err(Failure::Local("a request of this id is open already"));
        }
        Ok(Changing::new(head, now.monotonic, now.monotonic.plus(REQUEST_MS)))
    }

    /// It is recorded, and these records hold it: the holders are asked, up to an epoch long.
    pub(super) fn on_change_recorded(
        &mut self,
        now: Now,
        request: RequestId,
        head: &Digest,
        record: u64,
        actions: &mut Actions,
    ) {
        let epoch_ms = self.ground.calendar.map_or(0, |calendar| calendar.epoch_ms());
        let of = self.changes.get(&request).map(|(changing, _)| changing.head.head());
        let binding = of.and_then(|head| self.binding(&head.id(), head.version));
        let Some((changing, _)) = self.changes.get_mut(&request) else { return };
        if changing.is_awaiting_record() && changing.head.digest() == head {
            changing.recorded(record, binding, now.monotonic, now.monotonic.plus(epoch_ms));
            self.tick_changes(now, actions);
        }
    }

    /// Who holds the shares of this version of a credential, and how many of them a change must bind. Nothing where the group
    /// is gone, or another value is there by now.
    fn binding(&self, id: &CredentialId, version: u64) -> Option<(Vec<HostId>, usize)> {
        let records = &self.ground.records;
        let credential = records.credential(id).filter(|credential| credential.head.head().version == version)?;
        let group = records.group(&credential.group)?;
        let domain = |host: &HostId| records.member(host).map_or("", |member| member.record().domain.as_str());
        let domains: Vec<&str> = group.holders.iter().map(domain).collect();
        Some((group.holders.clone(), certain_at(group.terms, &domains)))
    }

    /// The leader refused it.
    pub(super) fn refused_change(
        &mut self,
        from: &TransportKey,
        request: &RequestId,
        refused: Refused,
        actions: &mut Actions,
    ) {
        let of_leader = self.leader.is_some_and(|(_, leader)| leader == *from) && !refused.check.is_passing();
        let awaited = self.changes.get(request).is_some_and(|(changing, _)| changing.is_awaiting_record());
        if !of_leader || !awaited {
            return;
        }
        if let Some((_, id)) = self.changes.remove(request) {
            let gone = refused.check == Check::Unknown;
            Self::reply(id, Err(if gone { Failure::NotFound } else { Failure::Refused(refused) }), actions);
        }
    }

    /// As a holder: the word is sent when the record is here, and on disk; with the share, so that it binds this holder
    /// even if the records should turn out to be others.
    pub(super) fn on_bound_ask(
        &mut self,
        now: Now,
        from: TransportKey,
        (request, id, head): (RequestId, CredentialId, Digest),
        actions: &mut Actions,
    ) {
        if self.ground.records.credentials().made_of(&head).is_none() || self.disk_failed {
            return self.look_for_more(now, actions); // it is asked again
        }
        let mut lane = Lane::Records;
        if let Some((group, share)) = self.holder.bind(&self.ground.records, &id) {
            lane = Lane::Group(group);
            let row = share.map(|(key, stored)| share_write(&key, &stored));
            row.into_iter().for_each(|row| actions.push(Action::Persist { lane, writes: vec![row] }));
        }
        self.send(lane, from, Message::Bound { request, head }, actions);
    }

    pub(super) fn on_bound(&mut self, host: HostId, request: RequestId, head: &Digest, actions: &mut Actions) {
        let Some((changing, _)) = self.changes.get_mut(&request) else { return };
        changing.bound(host, head);
        if let Some(changed) = changing.certain() {
            self.end_change(&request, Ok(changed), actions);
        }
    }

    fn end_change(&mut self, request: &RequestId, outcome: Result<Changed, Failure>, actions: &mut Actions) {
        let Some((changing, id)) = self.changes.remove(request) else { return };
        let head = changing.head.head();
        let reply = |Changed { record, certain, missing }| LocalReply::Changed {
            id: head.id(),
            number: head.number,
            version: head.version,
            record,
            certain,
            missing,
        };
        Self::reply(id, outcome.map(reply), actions);
    }

    pub(super) fn tick_changes(&mut self, now: Now, actions: &mut Actions) {
        let requests: Vec<RequestId> = self.changes.keys().copied().collect();
        for request in requests {
            let Some((changing, _)) = self.changes.get_mut(&request) else { continue };
            if now.monotonic >= changing.deadline {
                let outcome = changing.expired();
                self.end_change(&request, outcome, actions);
            } else if now.monotonic >= changing.retry_at {
                let silence_ms = if changing.stage == Stage::AwaitingRecord { SILENCE_MS } else { RETRY_MS };
                changing.retry_at = now.monotonic.plus(silence_ms);
                let (record, questions) = (changing.record(), changing.questions());
                if changing.stage == Stage::AwaitingRecord {
                    self.send_to_leader(record, actions);
                }
                for (host, question) in questions {
                    if let Some(member) = self.ground.records.member(&host) {
                        self.send(Lane::Direct, member.record().transport, question, actions);
                    }
                }
            }
        }
    }
}

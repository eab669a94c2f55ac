//! A host leaves: it says so, the committee takes its seat and its share of the mesh key from it, then it is gone.

use super::committee::Then;
use super::{Actions, Host, Lane, LocalId};
use crate::cms::command::Command;
use crate::cms::members::LeavingWord;
use crate::error::{Check, Failure, Subject};
use crate::types::{Digest, HostId, Now, RequestId, TransportKey};
use crate::wire::Message;

impl Host {
    /// Says that this host leaves.
    pub(super) fn begin_leaving(&mut self, now: Now, id: LocalId, actions: &mut Actions) {
        let records = &self.ground.records;
        let round = records.round();
        let own = records.mesh().zip(self.own_member());
        let bytes = own.map(|(mesh, member)| LeavingWord::signed_bytes(mesh, member.record(), round));
        let sign = |bytes: Vec<u8>| self.ground.suite.ed25519_sign(&self.own.identity.transport, &bytes);
        let Some(signature) = bytes.and_then(sign) else {
            return Self::reply(id, Err(Failure::Membership(self.no_mesh())), actions);
        };
        let request = RequestId(self.generator.bytes());
        self.ask(now, id, request, Message::LeaveRequest { request, word: LeavingWord { round, signature } }, actions);
    }

    /// As the leader: a host leaves.
    pub(super) fn on_leave_request(
        &mut self,
        now: Now,
        from: TransportKey,
        host: HostId,
        (request, word): (RequestId, LeavingWord),
        actions: &mut Actions,
    ) {
        // Asked again, since the answer was slow: it is recorded.
        if self.ground.records.roll().is_leaving(&host) {
            let record = self.ground.records.applied();
            return self.answer_record(from, request, Ok((Digest::ZERO, record)), actions);
        }
        let leading = if self.leads() { Ok(()) } else { Err(Check::NotLeader) };
        let checked =
            leading.and_then(|()| self.ground.records.check_leaving_word(self.ground.suite.as_ref(), &host, &word));
        let command = Command::Leaving { host, word };
        let proposed = checked.and_then(|()| self.propose(now, &command, Then::Leaving(from, request), actions));
        if let Err(check) = proposed {
            self.refuse(Lane::Direct, from, request, check, Subject::Host(host), actions);
        }
    }

    /// Somebody who left asks: it may learn that it did, and nothing that came after.
    pub(super) fn on_departed(&mut self, now: Now, from: TransportKey, message: &Message, actions: &mut Actions) {
        let Some(newest) = self.ground.records.roll().left_at(&from) else { return };
        match (message, &self.seated) {
            (Message::RecordsPull { after }, Some(seated)) => {
                let entries = seated.election.page(*after, newest);
                self.send(Lane::Records, from, Message::RecordsPage { entries, newest }, actions);
            }
            (Message::Ballot(ballot), _) => self.show_seats(now, from, ballot, actions),
            _ => {}
        }
    }

    /// As the leader: whoever said that it leaves, and has nothing left to give up, is gone.
    pub(super) fn let_go(&mut self, now: Now, actions: &mut Actions) {
        let records = &self.ground.records;
        let gone: Vec<HostId> = records.roll().leaving().filter(|host| records.may_leave(host)).copied().collect();
        for host in gone {
            // Proposed twice it is refused once: the records take one of them.
            let _not_leading = self.propose(now, &Command::Leave { host }, Then::Nothing, actions);
        }
    }
}

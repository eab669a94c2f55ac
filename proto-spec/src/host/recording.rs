//! What the leader does with a signed head: it is checked, recorded, and the record answered.

use super::committee::{Question, Then};
use super::{Actions, Host, Lane};
use crate::cms::command::Command;
use crate::cms::service;
use crate::credential::head::{HeadVerified, SignedHead};
use crate::credential::receipt::PutReceipt;
use crate::error::{Check, Subject};
use crate::types::{CredentialId, Digest, Now, RequestId, TransportKey};
use crate::wire::Message;

/// A head that somebody wants recorded.
pub(super) struct Wanted {
    /// The request.
    pub(super) request: RequestId,
    /// The head.
    pub(super) head: SignedHead,
    /// For a new value: the receipts of its holders.
    pub(super) receipts: Option<Vec<PutReceipt>>,
}

/// A head that holds.
enum Checked {
    /// It was asked before: the index of its record.
    Recorded(Digest, u64),
    /// To be recorded.
    Fresh(Box<HeadVerified>, Box<Command>),
}

impl Host {
    /// As the leader: the newest head, for somebody who will follow on it.
    pub(super) fn answer_head(
        &mut self,
        to: TransportKey,
        request: RequestId,
        id: &CredentialId,
        actions: &mut Actions,
    ) {
        let credential = self.ground.records.credential(id).filter(|credential| credential.is_there());
        match credential.map(|credential| (credential.head.signed().clone(), credential.record)) {
            Some((head, record)) => {
                self.send(Lane::Records, to, Message::HeadReply { request, head, record }, actions);
            }
            None => self.refuse(Lane::Direct, to, request, Check::Unknown, Subject::Credential(*id), actions),
        }
    }

    /// As the leader: somebody wants a head recorded.
    pub(super) fn on_record_request(&mut self, now: Now, from: TransportKey, wanted: Wanted, actions: &mut Actions) {
        match self.check_wanted(now, &wanted) {
            // For good only who still leads refuses: another may have recorded this very head.
            Err(check) if !check.is_passing() => {
                let request = wanted.request;
                if let Err(check) = self.ask_log(now, Question::Record(from, Box::new(wanted)), actions) {
                    self.answer_record(from, request, Err(check), actions);
                }
            }
            checked => self.record(now, from, wanted.request, checked, actions),
        }
    }

    /// This host leads and knows all that was acknowledged: what it says now is for good.
    pub(super) fn record_or_refuse(&mut self, now: Now, from: TransportKey, wanted: &Wanted, actions: &mut Actions) {
        let checked = self.check_wanted(now, wanted);
        self.record(now, from, wanted.request, checked, actions);
    }

    fn record(
        &mut self,
        now: Now,
        from: TransportKey,
        request: RequestId,
        checked: Result<Checked, Check>,
        actions: &mut Actions,
    ) {
        match checked {
            Ok(Checked::Recorded(head, record)) => self.answer_record(from, request, Ok((head, record)), actions),
            Ok(Checked::Fresh(head, command)) => {
                if let Err(check) = self.propose(now, &command, Then::Recorded(from, request, head), actions) {
                    self.answer_record(from, request, Err(check), actions);
                }
            }
            Err(check) => self.answer_record(from, request, Err(check), actions),
        }
    }

    fn check_wanted(&self, now: Now, wanted: &Wanted) -> Result<Checked, Check> {
        let view = self.view(now).filter(|_| self.leads()).ok_or(Check::NotLeader)?;
        let head = HeadVerified::check(view.suite, view.mesh, &wanted.head)?;
        // Asked again after the answer was lost: the same request has the same record.
        if let Some(record) = view.records.credentials().made_of(head.digest()) {
            return Ok(Checked::Recorded(*head.digest(), record));
        }
        let command = match &wanted.receipts {
            Some(receipts) => service::State::check_put(view, &head, receipts)?,
            None => {
                view.records.credentials().check_change(&head)?;
                Command::Change { head: wanted.head.clone() }
            }
        };
        Ok(Checked::Fresh(Box::new(head), Box::new(command)))
    }

    /// A head was recorded, or refused.
    pub(super) fn answer_record(
        &mut self,
        to: TransportKey,
        request: RequestId,
        outcome: Result<(Digest, u64), Check>,
        actions: &mut Actions,
    ) {
        match outcome {
            Ok((head, record)) => {
                self.send(Lane::Records, to, Message::Recorded { request, head, record }, actions);
            }
            Err(check) => self.refuse(Lane::Direct, to, request, check, Subject::Request, actions),
        }
    }
}

//! A change of a credential's head under way at the host that serves its owner: the leader records it, then each holder
//! says when it is bound by the record. Certain is what binds so many holders that the others cannot serve a reader.

use std::collections::BTreeSet;

use crate::credential::head::HeadVerified;
use crate::error::Failure;
use crate::types::{Digest, HostId, RequestId, Time};
use crate::wire::Message;
use crate::witness::Witnesses;

/// Who did not answer is asked again after this time.
pub const RETRY_MS: u64 = 250;
/// The leader is asked again after this time: a message may be lost.
pub const SILENCE_MS: u64 = 1_000;

/// What a change waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The record.
    AwaitingRecord,
    /// The holders' word that they are bound by it.
    AwaitingHolders {
        /// Index of the record.
        record: u64,
    },
}

/// One change.
pub struct Changing {
    /// The head.
    pub head: HeadVerified,
    /// What it waits for.
    pub stage: Stage,
    /// When it is waited for no longer.
    pub deadline: Time,
    /// When to ask again.
    pub retry_at: Time,
    holders: Vec<HostId>,
    /// How many of them must be bound; nothing where nobody knows who they are.
    certain_at: Option<usize>,
    bound: BTreeSet<HostId>,
    /// Who says that it is recorded.
    pub witnesses: Witnesses,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Index of its record.
    pub record: u64,
    /// Whether it binds enough holders.
    pub certain: bool,
    /// Holders that have not said yet that it binds them.
    pub missing: Vec<HostId>,
}

impl Changing {
    /// Begins: the leader is to be asked for the record.
    pub fn new(head: HeadVerified, now: Time, deadline: Time) -> Self {
        Self {
            head,
            stage: Stage::AwaitingRecord,
            deadline,
            retry_at: now.plus(SILENCE_MS),
            holders: Vec::new(),
            certain_at: None,
            bound: BTreeSet::new(),
            witnesses: Witnesses::begin(now),
        }
    }

    /// The request.
    pub fn request(&self) -> RequestId {
        self.head.head().request
    }

    /// Whether the record is waited for.
    pub fn is_awaiting_record(&self) -> bool {
        self.stage == Stage::AwaitingRecord
    }

    /// The message that asks for the record.
    pub fn record(&self) -> Message {
        Message::ChangeRecord { request: self.request(), head: self.head.signed().clone() }
    }

    /// It is recorded: those who hold the shares then are asked until the deadline, and so many must be bound. Where their
    /// group is gone with a removed value, it is not certain who still has some.
    pub fn recorded(&mut self, record: u64, binding: Option<(Vec<HostId>, usize)>, now: Time, deadline: Time) {
        self.stage = Stage::AwaitingHolders { record };
        self.retry_at = now;
        self.deadline = deadline;
        if let Some((holders, certain_at)) = binding {
            (self.holders, self.certain_at) = (holders, Some(certain_at));
        }
    }

    /// A holder is bound by the record of a head.
    pub fn bound(&mut self, from: HostId, head: &Digest) {
        let is_asked = matches!(self.stage, Stage::AwaitingHolders { .. }) && head == self.head.digest();
        if is_asked && self.holders.contains(&from) {
            self.bound.insert(from);
        }
    }

    /// Holders that have not answered, and what they are asked.
    pub fn questions(&self) -> Vec<(HostId, Message)> {
        if self.is_awaiting_record() {
            return Vec::new();
        }
        let (request, id, head) = (self.request(), self.head.head().id(), *self.head.digest());
        self.missing().into_iter().map(|host| (host, Message::BoundAsk { request, id, head })).collect()
    }

    /// What became of it, once it is certain.
    pub fn certain(&self) -> Option<Changed> {
        self.outcome().filter(|changed| changed.certain)
    }

    /// Time is up.
    ///
    /// # Errors
    /// [`Failure::NoLeader`] where nobody recorded it.
    pub fn expired(&self) -> Result<Changed, Failure> {
        self.outcome().ok_or(Failure::NoLeader)
    }

    fn outcome(&self) -> Option<Changed> {
        let Stage::AwaitingHolders { record } = self.stage else { return None };
        Some(Changed {
            record,
            certain: self.certain_at.is_some_and(|certain_at| self.bound.len() >= certain_at),
            missing: self.missing(),
        })
    }

    fn missing(&self) -> Vec<HostId> {
        self.holders.iter().filter(|host| !self.bound.contains(host)).copied().collect()
    }
}

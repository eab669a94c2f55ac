//! A host is told to end. One that leads hands its lead on first: the others go on at once, and need no election.

use super::{Actions, Host, LocalId, LocalReply};
use crate::limits::HAND_ON_MS;
use crate::types::{Now, Time};

/// A host that is about to end.
pub(super) struct Ending {
    id: LocalId,
    /// It ends then at the latest, whoever leads.
    pub(super) until: Time,
}

impl Host {
    pub(super) fn begin_ending(&mut self, now: Now, id: LocalId) {
        self.give_lead(now);
        self.ending = Some(Ending { id, until: now.monotonic.plus(HAND_ON_MS) });
    }

    /// Answers once another leads, or time is up.
    pub(super) fn tick_ending(&mut self, now: Now, actions: &mut Actions) {
        let leads = self.seated.as_ref().is_some_and(|seated| seated.election.is_leader());
        if let Some(ending) = self.ending.take_if(|ending| !leads || now.monotonic >= ending.until) {
            Self::reply(ending.id, Ok(LocalReply::Ended), actions);
        }
    }
}

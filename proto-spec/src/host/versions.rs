//! The version by which the records are read is itself a record. The leader raises it by one once everybody who is there
//! reads the next; a binary that meets a version it does not know stops, and says so.

use super::committee::Then;
use super::{Action, Actions, Host, Report};
use crate::cms::command::Command;
use crate::cms::committee::Committee;
use crate::cms::election::LogEntry;
use crate::types::Now;

impl Host {
    /// As the leader: raises the version, once all voters and everybody else who stands read the next one.
    pub(super) fn raise_version(&mut self, now: Now, actions: &mut Actions) {
        let Some(view) = self.view(now) else { return };
        let Some(next) = view.records.protocol_version().checked_add(1) else { return };
        let voters = view.records.committee().map(Committee::voters).unwrap_or_default();
        let all_there = voters.iter().all(|host| self.coordinator.stands(view, host));
        // Whoever has led for two epochs has heard everybody who is there.
        let epochs_ms = view.calendar.epoch_ms().saturating_mul(2);
        let has_heard =
            self.seated.as_ref().is_some_and(|seated| now.monotonic >= seated.leads_since().plus(epochs_ms));
        let all_read = all_there && has_heard && self.coordinator.all_read(view, next);
        if next > self.config.newest || !all_read {
            return;
        }
        let words = self.coordinator.words(&voters);
        if view.records.check_version(view.suite, next, &words).is_ok() {
            // Proposed twice it is refused once.
            let _not_leading = self.propose(now, &Command::Version { version: next, words }, Then::Nothing, actions);
        }
    }

    /// Whether this binary must not apply an entry: neither that one nor any behind it.
    pub(super) fn is_outgrown_by(&mut self, now: Now, entry: &LogEntry, actions: &mut Actions) -> bool {
        let beyond = self
            .ground
            .records
            .raised_by(self.ground.suite.as_ref(), entry)
            .filter(|version| *version > self.config.newest);
        if let Some(version) = beyond.filter(|_| self.outgrown.is_none()) {
            self.stop_at(version);
            self.give_up_seat(now, actions);
            actions.push(Action::Report(Report::Outgrown(version)));
        }
        self.outgrown.is_some()
    }

    /// From here on it neither applies nor signs; without its records it follows no header, so it releases nothing.
    pub(super) fn stop_at(&mut self, version: u16) {
        self.outgrown = Some(version);
        self.share = None;
    }
}

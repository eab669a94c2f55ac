//! A follower takes records from one voter's hand; what they say must be what the mesh key signed. Where it is not, the
//! voter lied: the records go, and come anew from others.

use super::committee::RaftRow;
use super::saving::SavedState;
use super::{Action, Actions, Host, Lane, Report};
use crate::cms::election::Hard;
use crate::cms::log::Stretch;
use crate::cms::records::Records;
use crate::types::Now;

impl Host {
    /// Holds this follower's records against the newest header.
    pub(super) fn tick_doubt(&mut self, now: Now, actions: &mut Actions) {
        let records = &self.ground.records;
        let Some((header, _)) = self.header.as_ref().filter(|_| self.seated.is_none() && self.outgrown.is_none())
        else {
            return;
        };
        let signed = header.header();
        if records.applied() < signed.record {
            return; // they may be right, and not all here yet
        }
        let differs = match records.header_of(signed.round) {
            Some(own) => own != signed,
            // It is not among the last few: either they have gone on, or they never closed it.
            None => records.round() < signed.round,
        };
        if differs {
            self.drop_records(now, actions);
        }
    }

    fn drop_records(&mut self, now: Now, actions: &mut Actions) {
        let mut writes = vec![RaftRow { seat: 0, taken: self.taken, hard: Hard::default() }.write()];
        writes.extend((self.first_row..=self.last_row).map(|index| Self::entry_row(index, None)));
        writes.push(SavedState::erase());
        actions.push(Action::Persist { lane: Lane::Records, writes });
        actions.push(Action::Report(Report::Doubted(self.ground.records.applied())));
        (self.first_row, self.last_row, self.log) = (1, 0, Stretch::default());
        (self.saved, self.saving, self.fetching) = (None, None, None);
        self.ground.records = Records::default();
        (self.share, self.loaded) = (None, 0);
        (self.distrusted, self.leader, self.pulled) = (self.served_by, None, None);
        self.pull(now, actions);
    }
}

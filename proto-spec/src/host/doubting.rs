//! A follower takes records from a few hands; what they say must be what the mesh key signed. Only then what
//! follows from them is done that cannot be taken back. Where it is not, somebody lied: the records go, and come anew from
//! others.

use super::committee::RaftRow;
use super::epochs::vouched_row;
use super::saving::SavedState;
use super::{Action, Actions, Host, Lane, Report};
use crate::cms::election::Hard;
use crate::cms::log::Stretch;
use crate::cms::records::Records;
use crate::header::Header;
use crate::types::Now;

/// What a header says of a follower's records.
enum Said {
    /// That they are those.
    Same,
    /// That they are not.
    Other,
    /// Nothing yet.
    Nothing,
}

fn compare(records: &Records, signed: &Header) -> Said {
    if records.applied() < signed.record {
        return Said::Nothing;
    }
    match records.header_of(signed.round) {
        Some(own) if own == signed => Said::Same,
        Some(_) => Said::Other,
        // It is not among the last few: either they have gone on, or they never closed it.
        None if records.round() < signed.round => Said::Other,
        None => Said::Nothing,
    }
}

impl Host {
    /// Holds this host's records against the newest header. A voter whose records are denied was led astray by a leader
    /// that lied: it cannot tell what it promised under its seat, so it follows like anybody else until it is given another.
    pub(super) fn tick_doubt(&mut self, now: Now, actions: &mut Actions) {
        let Some((header, _)) = self.header.as_ref().filter(|_| self.outgrown.is_none()) else { return };
        let round = header.header().round;
        match compare(&self.ground.records, header.header()) {
            Said::Same if self.confirmed.is_none_or(|(confirmed, _)| confirmed != round) => {
                let header = header.header().clone();
                let (record, committee) = (header.record, header.committee);
                self.compare_with_last(&header, actions);
                self.confirmed = Some((round, record));
                self.served_by.clear();
                // Had the header before a rival, a round was long enough to hear of it.
                let before = self.erasable.replace((record, round, committee));
                if let Some((record, round, committee)) = before.filter(|_| !self.is_split()) {
                    self.erase_confirmed(record, round, &committee, actions);
                }
                self.keep_book(actions);
                self.take_new_seat(now, actions);
            }
            // A voter cannot tell which end of the log is right, and only it knows its own.
            Said::Other if self.is_split() && self.seated.is_some() => {}
            Said::Other => {
                self.give_up_seat(now, actions);
                self.drop_records(now, actions);
            }
            Said::Same | Said::Nothing => {}
        }
    }

    /// A header confirms the records: the one that confirmed what this host had before, be it other records, must be among
    /// theirs. Of those that are too long ago to be there nothing is known.
    fn compare_with_last(&mut self, header: &Header, actions: &mut Actions) {
        // A crash may have come between that word and the records that it confirmed: they come again first. Unless an earlier
        // round closed a later record.
        if let Some(last) = self.vouched.as_ref().filter(|last| last.round > header.round) {
            let (turns_back, round) = (header.record > last.record, last.round);
            if turns_back {
                self.note_split(round, actions);
            }
            return;
        }
        // In the lane of the beacon that began the round. After a start it is compared with what comes then.
        actions.push(Action::Persist { lane: Lane::Ring, writes: vec![vouched_row(header)] });
        let Some(last) = self.vouched.replace(header.clone()) else { return };
        let records = &self.ground.records;
        let Some(oldest) = records.oldest_header() else { return };
        let is_of_these = match records.header_of(last.round) {
            Some(known) => *known == last,
            // All that are remembered came later, and closed later records.
            None => oldest.round > last.round && oldest.record > last.record,
        };
        if !is_of_these {
            self.note_split(last.round, actions);
        }
    }

    fn drop_records(&mut self, now: Now, actions: &mut Actions) {
        let mut writes = vec![RaftRow { seat: 0, taken: self.taken, hard: Hard::default() }.write()];
        writes.extend((self.first_row..=self.last_row).map(|index| Self::entry_row(index, None)));
        writes.push(SavedState::erase());
        self.mark(writes, actions);
        actions.push(Action::Report(Report::Doubted(self.ground.records.applied())));
        (self.first_row, self.last_row, self.log) = (1, 0, Stretch::default());
        (self.kept, self.saving, self.fetching) = (None, None, None);
        self.ground.records = Records::default();
        (self.share, self.loaded, self.confirmed, self.erasable) = (None, 0, None, None);
        self.distrusted.append(&mut self.served_by);
        self.holder.denied();
        (self.leader, self.pulled, self.promised) = (None, None, 0);
        self.pull(now, actions);
    }
}

//! Whether a head is recorded: what a majority of the seats says that it has recorded no leader can take back or make up.
//! One seat's word, be it the leader's, or records that it served, may be a lie until a header confirms them.

use std::collections::BTreeMap;

use crate::cms::committee::Seat;
use crate::types::{HostId, Time};

/// Seats that did not answer are asked again after this time: they hear from the leader as soon as whoever asks does.
const RETRY_MS: u64 = 50;

/// What was heard of one head.
#[derive(Debug, Default)]
pub struct Witnesses {
    said: BTreeMap<HostId, u64>,
    /// When those that have not answered are asked.
    ask_at: Option<Time>,
}

impl Witnesses {
    /// A host says that it has recorded it, under this index. The first word has the others asked.
    pub fn says(&mut self, from: HostId, record: u64, now: Time) {
        self.said.insert(from, record);
        self.ask_at.get_or_insert(now);
    }

    /// When those that have not answered are asked.
    pub fn ask_at(&self) -> Option<Time> {
        self.ask_at
    }

    /// Whom to ask now: the seats that have not answered.
    pub fn ask(&mut self, seats: &[Seat], now: Time) -> Vec<HostId> {
        if self.ask_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.ask_at = Some(now.plus(RETRY_MS));
        let silent = seats.iter().filter(|seat| counts(seat) && !self.said.contains_key(&seat.host));
        silent.map(|seat| seat.host).collect()
    }

    /// Whether a majority of the seats says so of this very record.
    pub fn agree_on(&self, record: u64, seats: &[Seat]) -> bool {
        let votes = seats.iter().filter(|seat| seat.votes).count();
        let says = |seat: &&Seat| counts(seat) && self.said.get(&seat.host) == Some(&record);
        votes > 0 && seats.iter().filter(says).count() > votes / 2
    }
}

fn counts(seat: &Seat) -> bool {
    seat.votes && seat.lost.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(number: u8) -> Seat {
        Seat { id: u64::from(number), host: HostId([number; 32]), votes: number < 6, lost: None }
    }

    #[test]
    fn only_a_majority_of_those_who_vote_that_names_the_same_record_is_one() {
        let seats: Vec<Seat> = (1..=6).map(seat).collect();
        let mut witnesses = Witnesses::default();
        for (number, record) in [(1, 7), (2, 7), (6, 7), (9, 7), (3, 8)] {
            witnesses.says(HostId([number; 32]), record, Time(0));
            assert!(
                !witnesses.agree_on(7, &seats),
                "two voters, one that follows, a stranger, and one of another record"
            );
        }
        witnesses.says(HostId([4; 32]), 7, Time(0));
        assert!(witnesses.agree_on(7, &seats) && !witnesses.agree_on(8, &seats));
        assert!(!Witnesses::default().agree_on(7, &[]), "nobody is no majority");
        let lost: Vec<Seat> =
            seats.iter().map(|seat| Seat { lost: (seat.id == 1).then_some(1), ..seat.clone() }).collect();
        assert!(!witnesses.agree_on(7, &lost), "a seat that lost its state does not count, and is not missed");
    }

    #[test]
    fn the_others_are_asked_at_the_first_word_and_again_after_a_while() {
        let seats: Vec<Seat> = (1..=6).map(seat).collect();
        let mut witnesses = Witnesses::default();
        assert!(witnesses.ask(&seats, Time(1)).is_empty(), "nobody has said anything");
        witnesses.says(HostId([1; 32]), 7, Time(1));
        assert_eq!(witnesses.ask(&seats, Time(1)).len(), 4);
        assert!(witnesses.ask(&seats, Time(2)).is_empty());
        assert_eq!(witnesses.ask(&seats, Time(1 + RETRY_MS)).len(), 4);
    }
}

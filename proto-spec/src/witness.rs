//! Whether a head is recorded: what a majority of the seats says that it has recorded no leader can take back or make up.
//! One seat's word, be it the leader's, or records that it served, may be a lie until a header confirms them.

use std::collections::BTreeMap;

use crate::cms::committee::Seat;
use crate::types::{HostId, Time};

/// Seats that did not answer are asked again after this time: they keep the question until they hear from the leader, so
/// only a message that is lost needs another.
const RETRY_MS: u64 = 250;

/// What was heard of one head.
#[derive(Debug)]
pub struct Witnesses {
    said: BTreeMap<HostId, u64>,
    /// When those that have not answered are asked.
    ask_at: Time,
}

impl Witnesses {
    /// The record is asked for now, and with it whoever will witness it.
    pub fn begin(now: Time) -> Self {
        Self { said: BTreeMap::new(), ask_at: now }
    }

    /// A host says that it has recorded it, under this index.
    pub fn says(&mut self, from: HostId, record: u64) {
        self.said.insert(from, record);
    }

    /// When those that have not answered are asked.
    pub fn ask_at(&self) -> Time {
        self.ask_at
    }

    /// Whom to ask now: the seats that have not answered.
    pub fn ask(&mut self, seats: &[Seat], now: Time) -> Vec<HostId> {
        if now < self.ask_at {
            return Vec::new();
        }
        self.ask_at = now.plus(RETRY_MS);
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
        let mut witnesses = Witnesses::begin(Time(1));
        for (number, record) in [(1, 7), (2, 7), (6, 7), (9, 7), (3, 8)] {
            witnesses.says(HostId([number; 32]), record);
            assert!(
                !witnesses.agree_on(7, &seats),
                "two voters, one that follows, a stranger, and one of another record"
            );
        }
        witnesses.says(HostId([4; 32]), 7);
        assert!(witnesses.agree_on(7, &seats) && !witnesses.agree_on(8, &seats));
        assert!(!Witnesses::begin(Time(1)).agree_on(7, &[]), "nobody is no majority");
        let lost: Vec<Seat> =
            seats.iter().map(|seat| Seat { lost: (seat.id == 1).then_some(1), ..seat.clone() }).collect();
        assert!(!witnesses.agree_on(7, &lost), "a seat that lost its state does not count, and is not missed");
    }

    #[test]
    fn they_are_asked_with_the_record_and_who_is_silent_again_after_a_while() {
        let seats: Vec<Seat> = (1..=6).map(seat).collect();
        let mut witnesses = Witnesses::begin(Time(1));
        assert_eq!(witnesses.ask(&seats, Time(1)).len(), 5);
        assert!(witnesses.ask(&seats, Time(2)).is_empty());
        witnesses.says(HostId([1; 32]), 7);
        assert_eq!(witnesses.ask(&seats, Time(1 + RETRY_MS)).len(), 4);
    }
}

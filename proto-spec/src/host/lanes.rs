//! The contract of lanes as a data structure, the same for every driver: what may be done now, what must wait for a
//! write. Whoever drives a `Host` pushes its actions here and does what comes out.

use std::collections::{BTreeMap, VecDeque};

use super::action::{Action, Lane};
use crate::limits::{PAGE_WEIGHT, WAITING_MAX, WAITING_PER_PEER_MAX};
use crate::types::TransportKey;
use crate::wire::Message;

/// Actions that wait, per lane.
#[derive(Default)]
pub struct Lanes {
    waiting: BTreeMap<Lane, Waiting>,
    failed: Vec<Lane>,
}

/// What waits in one lane. A slow disk holds answers back that others ask for at no cost: only so many of them wait, what is
/// beyond is lost like any message on its way, and asked for again.
#[derive(Default)]
struct Waiting {
    actions: VecDeque<Action>,
    /// What the messages weigh that wait for each peer.
    owed: BTreeMap<TransportKey, usize>,
}

impl Waiting {
    fn push(&mut self, action: Action) {
        if let Some((to, weight)) = load_of(&action) {
            let all: usize = self.owed.values().sum();
            let owed = self.owed.entry(to).or_default();
            if *owed + weight > WAITING_PER_PEER_MAX || all + weight > WAITING_MAX {
                return;
            }
            *owed += weight;
        }
        self.actions.push_back(action);
    }

    fn pop(&mut self) -> Option<Action> {
        let action = self.actions.pop_front()?;
        if let Some((to, weight)) = load_of(&action)
            && let Some(owed) = self.owed.get_mut(&to)
        {
            *owed = owed.saturating_sub(weight);
            if *owed == 0 {
                self.owed.remove(&to);
            }
        }
        Some(action)
    }
}

/// For whom a message waits, and what it weighs: a page is the size of many others. What a voter says to others is bounded by
/// the election itself.
fn load_of(action: &Action) -> Option<(TransportKey, usize)> {
    let Action::Send { to, message, .. } = action else { return None };
    match **message {
        Message::Ballot(_) => None,
        Message::RecordsPage { .. } | Message::StatePage { .. } => Some((*to, PAGE_WEIGHT)),
        _ => Some((*to, 1)),
    }
}

impl Lanes {
    /// Takes an action in; gives it back if it may be done now.
    pub fn push(&mut self, action: Action) -> Option<Action> {
        let lane = lane_of(&action);
        if self.failed.contains(&lane) {
            return None;
        }
        match self.waiting.get_mut(&lane) {
            Some(waiting) => {
                waiting.push(action);
                None
            }
            None => {
                if matches!(action, Action::Persist { .. }) {
                    self.waiting.insert(lane, Waiting::default());
                }
                Some(action)
            }
        }
    }

    /// The write at the head of a lane is on disk: what may be done now, up to and with the next write.
    pub fn persisted(&mut self, lane: Lane) -> Vec<Action> {
        let mut ready = Vec::new();
        let Some(waiting) = self.waiting.get_mut(&lane) else { return ready };
        while let Some(action) = waiting.pop() {
            let holds = matches!(action, Action::Persist { .. });
            ready.push(action);
            if holds {
                return ready;
            }
        }
        self.waiting.remove(&lane);
        ready
    }

    /// The write at the head of a lane failed: nothing behind it is ever done.
    pub fn failed(&mut self, lane: Lane) {
        self.waiting.remove(&lane);
        self.failed.push(lane);
    }
}

fn lane_of(action: &Action) -> Lane {
    match action {
        Action::Persist { lane, .. }
        | Action::Confirm { lane, .. }
        | Action::Send { lane, .. }
        | Action::Reply { lane, .. } => *lane,
        _ => Lane::Direct,
    }
}

#[cfg(test)]
mod tests {
    use super::super::action::Report;
    use super::*;
    use crate::host::event::LocalId;
    use crate::types::GroupId;

    fn persist(lane: Lane) -> Action {
        Action::Persist { lane, writes: Vec::new() }
    }

    fn reply(lane: Lane, id: u64) -> Action {
        Action::Reply { lane, id: LocalId(id), reply: Err(crate::error::Failure::NotFound) }
    }

    #[test]
    fn what_follows_a_write_waits_for_it_and_other_lanes_do_not() {
        let mut lanes = Lanes::default();
        let other = Lane::Group(GroupId([1; 32]));
        assert!(lanes.push(persist(Lane::Records)).is_some());
        assert!(lanes.push(reply(Lane::Records, 1)).is_none());
        assert!(lanes.push(persist(Lane::Records)).is_none());
        assert!(lanes.push(reply(Lane::Records, 2)).is_none());
        assert!(lanes.push(reply(other, 3)).is_some());
        assert!(lanes.push(Action::Report(Report::Joined)).is_some());
        assert_eq!(lanes.persisted(Lane::Records).len(), 2, "the reply and the next write");
        assert_eq!(lanes.persisted(Lane::Records).len(), 1);
        assert!(lanes.push(reply(Lane::Records, 4)).is_some());
    }

    fn page(to: u8) -> Action {
        let message = Box::new(Message::RecordsPage { entries: Vec::new(), newest: 1 });
        Action::Send { lane: Lane::Records, to: TransportKey([to; 32]), address: Default::default(), message }
    }

    #[test]
    fn who_asks_again_and_again_while_a_write_is_under_way_is_owed_a_few_pages_and_others_theirs() {
        let mut lanes = Lanes::default();
        assert!(lanes.push(page(1)).is_some(), "without a write there is nothing to wait for");
        assert!(lanes.push(persist(Lane::Records)).is_some());
        for _ in 0..10_000 {
            assert!(lanes.push(page(1)).is_none());
        }
        assert!(lanes.push(page(2)).is_none());
        assert!(lanes.push(reply(Lane::Records, 1)).is_none());
        assert!(lanes.push(persist(Lane::Records)).is_none());
        let of_one = WAITING_PER_PEER_MAX / PAGE_WEIGHT;
        assert_eq!(lanes.persisted(Lane::Records).len(), of_one + 3, "one more page, the reply and the next write");
        // What was sent weighs no more.
        assert!(lanes.push(page(1)).is_none());
        assert_eq!(lanes.persisted(Lane::Records).len(), 1);
    }

    #[test]
    fn however_many_ask_only_so_much_waits_and_nothing_else_is_lost() {
        let mut lanes = Lanes::default();
        assert!(lanes.push(persist(Lane::Records)).is_some());
        for one in 0..=255 {
            (0..4).for_each(|_| assert!(lanes.push(page(one)).is_none()));
        }
        for id in 0..2_000 {
            assert!(lanes.push(reply(Lane::Records, id)).is_none());
        }
        assert_eq!(lanes.persisted(Lane::Records).len(), WAITING_MAX / PAGE_WEIGHT + 2_000);
    }

    #[test]
    fn nothing_is_done_behind_a_failed_write() {
        let mut lanes = Lanes::default();
        assert!(lanes.push(persist(Lane::Records)).is_some());
        assert!(lanes.push(reply(Lane::Records, 1)).is_none());
        lanes.failed(Lane::Records);
        assert!(lanes.persisted(Lane::Records).is_empty());
        assert!(lanes.push(reply(Lane::Records, 2)).is_none());
        assert!(lanes.push(persist(Lane::Records)).is_none());
    }
}

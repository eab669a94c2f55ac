//! The contract of lanes as a data structure, the same for every driver: what may be done now, what must wait for a
//! write. Whoever drives a `Host` pushes its actions here and does what comes out.

use std::collections::{BTreeMap, VecDeque};

use super::action::{Action, Lane};

/// Actions that wait, per lane.
#[derive(Default)]
pub struct Lanes {
    waiting: BTreeMap<Lane, VecDeque<Action>>,
    failed: Vec<Lane>,
}

impl Lanes {
    /// Takes an action in; gives it back if it may be done now.
    pub fn push(&mut self, action: Action) -> Option<Action> {
        let lane = lane_of(&action);
        if self.failed.contains(&lane) {
            return None;
        }
        match self.waiting.get_mut(&lane) {
            Some(queue) => {
                queue.push_back(action);
                None
            }
            None => {
                if matches!(action, Action::Persist { .. }) {
                    self.waiting.insert(lane, VecDeque::new());
                }
                Some(action)
            }
        }
    }

    /// The write at the head of a lane is on disk: what may be done now, up to and with the next write.
    pub fn persisted(&mut self, lane: Lane) -> Vec<Action> {
        let mut ready = Vec::new();
        let Some(queue) = self.waiting.get_mut(&lane) else { return ready };
        while let Some(action) = queue.pop_front() {
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

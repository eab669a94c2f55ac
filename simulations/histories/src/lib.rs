//! What clients saw of one credential, and whether there is an order of all that they did, each act between its begin
//! and its end, that explains it (linearizability). The checker is stateright's, not ours; here is only what a
//! credential is when nothing happens at the same time, and how a history is taken.

use serde::Serialize;
use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester, SequentialSpec};

/// Operations of one history: the checker tries their orders.
pub const OPERATIONS_MAX: usize = 30;
/// Operations of one history that may be open at once, those whose answer never came among them.
pub const OPEN_MAX: usize = 6;

/// What a client does. A value is named by a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Operation {
    /// Put a value, whatever is there.
    Put(u64),
    /// Put a value where this version is there; 0: where there is none.
    Cas {
        /// The version.
        expected: u64,
        /// The value.
        value: u64,
    },
    /// Remove it.
    Remove,
    /// Read it.
    Get,
}

/// What it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// Stored as this version.
    Stored(u64),
    /// Another version is there.
    OtherVersion,
    /// Removed.
    Removed,
    /// Not there.
    NotFound,
    /// This value was read.
    Read(u64),
}

/// A credential to which one thing happens at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Register {
    /// Counts the values that there have been.
    version: u64,
    value: Option<u64>,
}

impl Register {
    fn store(&mut self, value: u64) -> Outcome {
        self.version += 1;
        self.value = Some(value);
        Outcome::Stored(self.version)
    }

    fn present(&self) -> u64 {
        if self.value.is_some() { self.version } else { 0 }
    }
}

impl SequentialSpec for Register {
    type Op = Operation;
    type Ret = Outcome;

    fn invoke(&mut self, operation: &Operation) -> Outcome {
        match *operation {
            Operation::Put(value) => self.store(value),
            Operation::Cas { expected, value } if expected == self.present() => self.store(value),
            Operation::Cas { .. } => Outcome::OtherVersion,
            Operation::Remove => self.value.take().map_or(Outcome::NotFound, |_| Outcome::Removed),
            Operation::Get => self.value.map_or(Outcome::NotFound, Outcome::Read),
        }
    }
}

/// Names an operation of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Event {
    Begun { number: usize, operation: Operation },
    Ended { number: usize, outcome: Outcome },
}

/// What happened to one credential, in the order in which its clients saw it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct History {
    events: Vec<Event>,
    begun: usize,
    /// Those that are open no more: ended, or left out.
    closed: usize,
}

impl History {
    /// Whether one more operation may begin.
    pub fn has_room(&self) -> bool {
        self.begun < OPERATIONS_MAX && self.begun - self.closed < OPEN_MAX
    }

    /// Operations that have begun.
    pub fn len(&self) -> usize {
        self.begun
    }

    /// Whether nothing has begun.
    pub fn is_empty(&self) -> bool {
        self.begun == 0
    }

    /// Operations whose client was told what came of it.
    pub fn ended(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Ended { .. })).count()
    }

    /// A client begins something.
    pub fn begin(&mut self, operation: Operation) -> OperationId {
        let number = self.begun;
        self.begun += 1;
        self.events.push(Event::Begun { number, operation });
        OperationId(number)
    }

    /// It was told what came of it.
    pub fn end(&mut self, OperationId(number): OperationId, outcome: Outcome) {
        self.closed += 1;
        self.events.push(Event::Ended { number, outcome });
    }

    /// It was told for certain that nothing came of it, or it only read and was told nothing: it may be left out.
    /// Whoever is told nothing of a write leaves it open: it may have happened, and may yet.
    pub fn leave_out(&mut self, OperationId(left_out): OperationId) {
        self.closed += 1;
        self.events.retain(|event| !matches!(event, Event::Begun { number, .. } if *number == left_out));
    }

    /// Whether some order explains it all.
    pub fn is_linearizable(&self) -> bool {
        let mut tester = LinearizabilityTester::new(Register::default());
        // Each operation is a client of its own: what one client did in turn is in order by its begins and ends.
        let taken = self.events.iter().all(|event| match *event {
            Event::Begun { number, operation } => tester.on_invoke(number, operation).is_ok(),
            Event::Ended { number, outcome } => tester.on_return(number, outcome).is_ok(),
        });
        taken && tester.is_consistent()
    }

    /// The history as text, one event a line.
    pub fn to_text(&self) -> String {
        let line = |event: &Event| match event {
            Event::Begun { number, operation } => format!("{number:>3} begins {operation:?}\n"),
            Event::Ended { number, outcome } => format!("{number:>3} ends   {outcome:?}\n"),
        };
        self.events.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequential(steps: &[(Operation, Outcome)]) -> History {
        let mut history = History::default();
        for (operation, outcome) in steps {
            let id = history.begin(*operation);
            history.end(id, *outcome);
        }
        history
    }

    #[test]
    fn a_stale_read_a_lost_write_and_a_doubled_version_are_found() {
        let (put, get) = (Operation::Put, Operation::Get);
        let (stored, read) = (Outcome::Stored, Outcome::Read);
        assert!(sequential(&[(put(7), stored(1)), (put(8), stored(2)), (get, read(8))]).is_linearizable());
        assert!(!sequential(&[(put(7), stored(1)), (put(8), stored(2)), (get, read(7))]).is_linearizable());
        assert!(!sequential(&[(put(7), stored(1)), (get, Outcome::NotFound)]).is_linearizable());
        assert!(!sequential(&[(put(7), stored(1)), (put(8), stored(1))]).is_linearizable());
    }

    #[test]
    fn a_removed_value_is_not_read_and_its_version_is_not_given_again() {
        let (put, get, remove) = (Operation::Put(7), Operation::Get, Operation::Remove);
        let removed = [(put, Outcome::Stored(1)), (remove, Outcome::Removed)];
        let then = |steps: &[(Operation, Outcome)]| sequential(&[&removed, steps].concat()).is_linearizable();
        assert!(then(&[(get, Outcome::NotFound), (Operation::Put(8), Outcome::Stored(2))]));
        assert!(!then(&[(get, Outcome::Read(7))]));
        assert!(!then(&[(Operation::Put(8), Outcome::Stored(1))]));
        assert!(!then(&[(remove, Outcome::Removed)]));
    }

    #[test]
    fn of_two_that_replace_the_same_version_one_is_told_of_another() {
        let cas = |value| Operation::Cas { expected: 1, value };
        let both = |first, second| {
            let mut history = sequential(&[(Operation::Put(7), Outcome::Stored(1))]);
            let (one, other) = (history.begin(cas(8)), history.begin(cas(9)));
            history.end(one, first);
            history.end(other, second);
            history.is_linearizable()
        };
        assert!(both(Outcome::Stored(2), Outcome::OtherVersion));
        assert!(both(Outcome::OtherVersion, Outcome::Stored(2)));
        assert!(!both(Outcome::Stored(2), Outcome::Stored(2)));
        assert!(!both(Outcome::Stored(2), Outcome::Stored(3)));
        assert!(!both(Outcome::OtherVersion, Outcome::OtherVersion));
    }

    #[test]
    fn a_write_without_an_answer_may_have_happened_or_not_and_never_twice() {
        let after = |reads: &[u64]| {
            let mut history = sequential(&[(Operation::Put(7), Outcome::Stored(1))]);
            history.begin(Operation::Put(8));
            for value in reads {
                let id = history.begin(Operation::Get);
                history.end(id, Outcome::Read(*value));
            }
            history.is_linearizable()
        };
        assert!(after(&[7, 7]) && after(&[7, 8]) && after(&[8, 8]));
        assert!(!after(&[8, 7]));
    }
}

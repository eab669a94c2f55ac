//! How many checks that fail a host does for others in a while: what strangers send costs pairings before it is known to be
//! nothing.

use crate::limits::{CHECKS_FAILED_MAX, CHECKS_FAILED_MS};
use crate::types::Time;

/// A budget.
#[derive(Debug, Default)]
pub struct Budget {
    since: Option<Time>,
    failed: usize,
}

impl Budget {
    /// Whether there is time for one more.
    pub fn allows(&mut self, now: Time) -> bool {
        if self.since.is_none_or(|since| now >= since.plus(CHECKS_FAILED_MS)) {
            (self.since, self.failed) = (Some(now), 0);
        }
        self.failed < CHECKS_FAILED_MAX
    }

    /// It was in vain.
    pub fn failed(&mut self) {
        self.failed += 1;
    }
}

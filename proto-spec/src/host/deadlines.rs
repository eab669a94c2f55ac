//! When a host wants to be called: the earliest of all that its parts wait for.

use super::Host;
use crate::relay::Stage;
use crate::types::{Now, Time};

impl Host {
    /// When `handle` wants to be called next, at the latest.
    pub fn next_deadline(&self, now: Now) -> Option<Time> {
        let mut times: Vec<Time> = Vec::new();
        if let Some(calendar) = &self.ground.calendar {
            times.push(now.monotonic.plus(calendar.until_next(now.wall_ms)));
        }
        if self.membership.is_some() && self.outgrown.is_none() {
            times.push(self.pull_at);
            times.extend(self.missing_at());
        }
        times.extend(self.seated.as_ref().filter(|_| !self.disk_failed).map(|seated| seated.tick_at()));
        times.extend(self.beacon_at(now));
        times.extend(self.attester.retry_at().filter(|_| self.outgrown.is_none()));
        times.extend(self.unlocking.again_at);
        times.extend(self.rewrapping_at());
        times.extend(self.redealing.as_ref().map(|redealing| redealing.again_at));
        times.extend(self.watch.look_at);
        times.extend(self.ending.as_ref().map(|ending| ending.until));
        times.extend(self.measure_at);
        times.extend(self.fetching.as_ref().and_then(|fetching| fetching.asked_until));
        times.extend(self.forming.as_ref().map(|forming| forming.due()));
        if let Some(joining) = &self.joining {
            times.extend(joining.gives_up_at());
            times.extend(joining.retry_at);
        }
        times.extend(self.asked.values().flat_map(|asked| [asked.deadline, asked.retry_at]));
        for (put, _) in self.puts.values() {
            times.push(put.deadline);
            times.extend(put.retry_at);
            times.extend((put.stage == Stage::AwaitingRecord).then(|| put.witnesses.ask_at()));
        }
        let waits = self.changes.values().filter(|(changing, _)| changing.is_awaiting_record());
        times.extend(waits.map(|(changing, _)| changing.witnesses.ask_at()));
        times.extend(self.changes.values().flat_map(|(changing, _)| [changing.deadline, changing.retry_at]));
        for (reading, _) in self.readings.values() {
            times.push(reading.deadline);
            times.extend(reading.retry_at);
        }
        times.into_iter().min()
    }
}

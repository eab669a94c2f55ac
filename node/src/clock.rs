//! Both clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use spec::types::{Now, Time};

/// CLOCK_BOOTTIME (it goes on in suspend, so nothing outlives its time there) and the wall clock.
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let milliseconds = boot.tv_sec.saturating_mul(1_000).saturating_add(boot.tv_nsec / 1_000_000);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Now { monotonic: Time(u64::try_from(milliseconds).unwrap_or(0)), wall_ms: u64::try_from(wall).unwrap_or(u64::MAX) }
}

//! What time it is.
//!
//! Asked of the kernel in its own words, seconds and nanoseconds, and kept as one number: `std`'s types cost ten times the
//! instructions to count with, in every turn.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::hub::{Millis, Now};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_MS: u64 = 1_000_000;

/// Counts from the start of the server.
pub(super) struct Clock {
    start: Nanos,
}

/// Nanoseconds since some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nanos(pub(super) u64);

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: read(ClockId::Monotonic) }
    }

    /// How long it runs: what begins a turn, and tells how long it took.
    pub(super) fn running(&self) -> Nanos {
        Nanos(read(ClockId::Monotonic).0 - self.start.0)
    }

    /// The present, for a turn that began when the clock had run so long.
    pub(super) fn now(running: Nanos) -> Now {
        Now { mono: Millis(running.0 / NANOS_PER_MS), unix_ms: read(ClockId::Realtime).0 / NANOS_PER_MS }
    }

    /// How long until `deadline`; nothing if it has passed.
    pub(super) fn until(&self, deadline: Millis) -> Duration {
        Duration::from_millis(deadline.0).saturating_sub(Duration::from_nanos(self.running().0))
    }
}

/// Since the machine's start, or since 1970. Before either there is no time.
fn read(clock: ClockId) -> Nanos {
    let time = clock_gettime(clock);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    Nanos(seconds * NANOS_PER_SECOND + nanos)
}

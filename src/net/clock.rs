//! What time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::hub::{Millis, Now};

/// Counts from the start of the server, or goes on from where another one's stood.
pub(super) struct Clock {
    start: Instant,
    stood_at: Duration,
}

impl Clock {
    /// A clock that stands at `now` now.
    pub(super) fn start(now: Millis) -> Self {
        Self { start: Instant::now(), stood_at: Duration::from_millis(now.0) }
    }

    /// What it tells, to the nanosecond: what begins a turn, and tells how long it took.
    pub(super) fn running(&self) -> Duration {
        self.stood_at + self.start.elapsed()
    }

    /// The present, for a turn that began when the clock told that.
    pub(super) fn now(running: Duration) -> Now {
        Now { mono: Millis(running.as_millis() as u64), unix_ms: unix_ms() }
    }

    /// How long until `deadline`; nothing if it has passed.
    pub(super) fn until(&self, deadline: Millis) -> Duration {
        Duration::from_millis(deadline.0).saturating_sub(self.running())
    }
}

/// Milliseconds since 1970 (UTC).
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

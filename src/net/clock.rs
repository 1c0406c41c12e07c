//! What time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::hub::{Millis, Now};

/// Counts from the start of the server.
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// How long it runs, to the nanosecond: what begins a turn, and tells how long it took.
    pub(super) fn running(&self) -> Duration {
        self.start.elapsed()
    }

    /// The present, for a turn that began when the clock had run so long.
    pub(super) fn now(running: Duration) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: Millis(running.as_millis() as u64), unix_ms: unix.as_millis() as u64 }
    }

    /// How long until `deadline`; nothing if it has passed.
    pub(super) fn until(&self, deadline: Millis) -> Duration {
        Duration::from_millis(deadline.0).saturating_sub(self.running())
    }
}

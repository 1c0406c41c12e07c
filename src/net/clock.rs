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

    /// The present, for one turn of the loop.
    pub(super) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.mono(), unix_ms: unix.as_millis() as u64 }
    }

    /// How long until `deadline`; nothing if it has passed.
    pub(super) fn until(&self, deadline: Millis) -> Duration {
        Duration::from_millis(deadline.0).saturating_sub(self.start.elapsed())
    }

    fn mono(&self) -> Millis {
        Millis(self.start.elapsed().as_millis() as u64)
    }
}

//! What time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::hub::{Millis, Now};

/// Counts from the start of the server.
pub(super) struct Clock {
    start: Instant,
    turn_began: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        let start = Instant::now();
        Self { start, turn_began: start }
    }

    /// The present, for one turn of the loop, which begins.
    pub(super) fn begin_turn(&mut self) -> Now {
        self.turn_began = Instant::now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: Millis(millis(self.turn_began.saturating_duration_since(self.start))), unix_ms: millis(unix) }
    }

    /// How many nanoseconds the turn has taken until now.
    pub(super) fn turn_nanos(&self) -> u64 {
        let took = self.turn_began.elapsed();
        took.as_secs() * 1_000_000_000 + u64::from(took.subsec_nanos())
    }

    /// How long until `deadline`; nothing if it has passed.
    pub(super) fn until(&self, deadline: Millis) -> Duration {
        Duration::from_millis(deadline.0).saturating_sub(self.start.elapsed())
    }
}

/// `Duration::as_millis` without its 128 bits, which cost more than the rest of a look at the clock.
fn millis(duration: Duration) -> u64 {
    duration.as_secs() * 1000 + u64::from(duration.subsec_millis())
}

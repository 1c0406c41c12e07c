//! What time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::hub::{Millis, Now};

/// Counts from the start of the server, or goes on from where another one's stood.
pub(super) struct Clock {
    start: Instant,
    offset_ms: u64,
    turn_start: Instant,
}

impl Clock {
    /// A clock that stands at `now` now.
    pub(super) fn start(now: Millis) -> Self {
        let start = Instant::now();
        Self { start, offset_ms: now.0, turn_start: start }
    }

    /// The present, for one turn of the loop, which begins.
    pub(super) fn begin_turn(&mut self) -> Now {
        self.turn_start = Instant::now();
        let running = self.turn_start.saturating_duration_since(self.start);
        Now { mono: Millis(self.offset_ms + millis(running)), unix_ms: unix_ms() }
    }

    /// How many nanoseconds the turn has taken until now.
    pub(super) fn turn_nanos(&self) -> u64 {
        let took = self.turn_start.elapsed();
        took.as_secs() * 1_000_000_000 + u64::from(took.subsec_nanos())
    }

    /// How long until `deadline`; nothing if it has passed.
    pub(super) fn until(&self, deadline: Millis) -> Duration {
        Duration::from_millis(deadline.0.saturating_sub(self.offset_ms))
            .saturating_sub(self.start.elapsed())
    }
}

/// Milliseconds since 1970 (UTC).
pub(super) fn unix_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// `Duration::as_millis` without its 128 bits, which cost more than the rest of a look at the clock.
fn millis(duration: Duration) -> u64 {
    duration.as_secs() * 1000 + u64::from(duration.subsec_millis())
}

//! The server's clock: milliseconds of its own, and Unix time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::hub::{Millis, Now};

/// Monotonic clock that starts at 0, or continues that of an earlier process.
pub(super) struct Clock {
    start: Instant,
    /// Reading of the clock at `start`.
    offset_ms: u64,
    turn_start: Instant,
}

impl Clock {
    /// Starts a clock that reads `now`.
    pub(super) fn start(now: Millis) -> Self {
        let start = Instant::now();
        Self { start, offset_ms: now.0, turn_start: start }
    }

    /// Begins a turn of the loop. Returns its time.
    pub(super) fn begin_turn(&mut self) -> Now {
        self.turn_start = Instant::now();
        let running = self.turn_start.saturating_duration_since(self.start);
        Now { mono: Millis(self.offset_ms + millis(running)), unix_ms: unix_ms() }
    }

    /// Nanoseconds since the turn began.
    pub(super) fn turn_nanos(&self) -> u64 {
        nanos(self.turn_start.elapsed())
    }

    /// Time until `deadline`. Zero if it has passed.
    pub(super) fn until(&self, deadline: Millis) -> Duration {
        Duration::from_millis(deadline.0.saturating_sub(self.offset_ms))
            .saturating_sub(self.start.elapsed())
    }
}

/// Milliseconds since 1970 (UTC).
pub(super) fn unix_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// `Duration::as_nanos` without 128-bit arithmetic, as for [`millis`].
fn nanos(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000_000 + u64::from(duration.subsec_nanos())
}

/// `Duration::as_millis` without 128-bit arithmetic, which costs more than the rest of reading the
/// clock.
fn millis(duration: Duration) -> u64 {
    duration.as_secs() * 1000 + u64::from(duration.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_whole_milliseconds_and_nanoseconds() {
        for (seconds, subsec_nanos, ms) in
            [(0, 0, 0), (0, 999_999, 0), (0, 1_000_000, 1), (3, 7_999_999, 3_007)]
        {
            let duration = Duration::new(seconds, subsec_nanos);
            assert_eq!(u128::from(millis(duration)), duration.as_millis());
            assert_eq!(millis(duration), ms);
            assert_eq!(u128::from(nanos(duration)), duration.as_nanos());
        }
    }
}

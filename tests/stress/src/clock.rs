//! The time of a run, and whether the machine is too slow to judge by it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::client::Moment;

/// A prompt response, or a turn of the loop, that takes longer shows that the machine is too busy.
const LAG: Duration = Duration::from_millis(500);
/// Time for which a lag excuses that sessions could not be kept alive.
const LAG_EXCUSES: Duration = Duration::from_secs(12);

pub(crate) struct Clock {
    pub(crate) now: Instant,
    /// `now` by the server's clock, in milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// Time of the last response to a call.
    pub(crate) answered_at: Instant,
    lagged: Option<Instant>,
    pub(crate) lag_most: Duration,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { now, now_ms: 0, answered_at: now, lagged: None, lag_most: Duration::ZERO }
    }

    pub(crate) fn update(&mut self) -> Moment {
        self.now = Instant::now();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now_ms = since_1970.as_millis() as u64;
        self.moment()
    }

    pub(crate) fn moment(&self) -> Moment {
        (self.now, self.now_ms)
    }

    /// Notes how long something took that takes no time on an idle machine.
    pub(crate) fn note_lag(&mut self, took: Duration) {
        self.lag_most = self.lag_most.max(took);
        if took > LAG {
            self.lagged = Some(self.now);
        }
    }

    pub(crate) fn was_slow(&self) -> bool {
        self.lagged.is_some_and(|at| at.elapsed() < LAG_EXCUSES)
    }
}

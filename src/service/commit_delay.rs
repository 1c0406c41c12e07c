//! Delay of a record until the clients of the last one have sent their next calls.
//!
//! The calls of a record are answered together. Clients that send a call once the last one is
//! answered then send their next calls together too, but a bit later than the next record could
//! begin. That record would have only the calls that came during the last flush, so half of the
//! clients would always wait for the flush of the other half. `PostgreSQL` has `commit_delay` for
//! the same purpose.

use std::time::Duration;

/// Share of a flush by which the next record is delayed at most. A record of all clients takes one
/// flush and the delay, and two records of half of them take two flushes.
const FLUSH_DIVISOR: u32 = 2;

/// Longest delay, for a disk that does not respond for a while.
const DELAY_MAX: Duration = Duration::from_millis(5);

/// One of so many calls that are expected may be missing. A few clients always pause.
const MISSING_DIVISOR: usize = 16;

/// After delays in which too few calls have come, the next attempt is made after at most two to the
/// power of this many records. So clients that do not wait for each other lose next to nothing.
const BACKOFF_MAX: u32 = 6;

/// Decides whether a record is delayed.
#[derive(Default)]
pub(super) struct CommitDelay {
    state: State,
    /// Delays in a row in which too few calls have come.
    failures: u32,
    /// Records until the next attempt.
    skipped: u32,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Over,
    /// Until this many calls wait. `timer` is set until the caller has taken it.
    Delayed { expected: usize, timer: Option<Duration> },
}

impl CommitDelay {
    /// Notes that a record is applied whose flush took this long: `answered` calls were answered,
    /// and `waiting` calls wait for the next one.
    pub(super) fn begin(&mut self, answered: usize, waiting: usize, flush: Duration) {
        let calls = answered + waiting;
        let expected = calls - calls / MISSING_DIVISOR;
        if flush.is_zero() || answered == 0 || expected == 1 {
            return;
        }
        if let Some(skipped) = self.skipped.checked_sub(1) {
            self.skipped = skipped;
            return;
        }
        let timer = Some((flush / FLUSH_DIVISOR).min(DELAY_MAX));
        self.state = State::Delayed { expected, timer };
    }

    /// Returns whether the next record is still delayed while this many calls wait for it.
    pub(super) fn is_delayed(&self, waiting: usize) -> bool {
        matches!(self.state, State::Delayed { expected, .. } if waiting < expected)
    }

    /// Returns the time after which [`CommitDelay::expire`] has to be called, once for each delay.
    pub(super) fn take_timer(&mut self) -> Option<Duration> {
        match &mut self.state {
            State::Delayed { timer, .. } => timer.take(),
            State::Over => None,
        }
    }

    /// Ends the delay, since its time is over.
    pub(super) fn expire(&mut self) {
        if self.state != State::Over {
            self.state = State::Over;
            self.failures = (self.failures + 1).min(BACKOFF_MAX);
            self.skipped = 1 << self.failures;
        }
    }

    /// Ends the delay, since the record begins.
    pub(super) fn end(&mut self) {
        if self.state != State::Over {
            self.state = State::Over;
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLUSH: Duration = Duration::from_millis(4);

    #[test]
    fn a_record_waits_for_the_clients_of_the_last_one() {
        let mut delay = CommitDelay::default();
        delay.begin(10, 6, FLUSH);
        assert_eq!(delay.take_timer(), Some(FLUSH / 2));
        assert_eq!(delay.take_timer(), None);
        assert!(delay.is_delayed(14));
        assert!(!delay.is_delayed(15));
        delay.end();
        assert!(!delay.is_delayed(0));
    }

    #[test]
    fn the_only_client_and_a_log_without_flushes_are_not_delayed() {
        let mut delay = CommitDelay::default();
        for (answered, waiting, flush) in [(1, 0, FLUSH), (0, 9, FLUSH), (9, 9, Duration::ZERO)] {
            delay.begin(answered, waiting, flush);
            assert!(!delay.is_delayed(0), "{answered} {waiting}");
            assert_eq!(delay.take_timer(), None);
        }
    }

    #[test]
    fn a_slow_flush_does_not_delay_for_long() {
        let mut delay = CommitDelay::default();
        delay.begin(2, 0, Duration::from_secs(1));
        assert_eq!(delay.take_timer(), Some(DELAY_MAX));
    }

    #[test]
    fn failed_delays_become_rare_and_a_success_ends_that() {
        let mut delay = CommitDelay::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let mut pause = 0;
            while delay.take_timer().is_none() {
                delay.begin(2, 2, FLUSH);
                pause += 1;
            }
            pauses.push(pause);
            delay.expire();
        }
        assert_eq!(pauses, [1, 3, 5, 9, 17, 33, 65, 65]);
        while delay.take_timer().is_none() {
            delay.begin(2, 2, FLUSH);
        }
        delay.end();
        delay.begin(2, 2, FLUSH);
        assert!(delay.is_delayed(3));
    }
}

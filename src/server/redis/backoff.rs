//! Delays between attempts to connect.

const FIRST_MS: u64 = 50;
/// Longest delay in milliseconds. A connection that lived longer starts the delays again.
pub(super) const LAST_MS: u64 = 2_000;

/// Delays that double from 50 ms to 2 s. Half of each is random, so that nodes which lost their
/// server at the same moment do not all come back at the same moment.
#[derive(Debug)]
pub(super) struct Backoff {
    next_ms: u64,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next_ms: FIRST_MS }
    }

    /// Returns the next delay in milliseconds. `random` may be any number.
    pub(super) fn next_delay(&mut self, random: u64) -> u64 {
        let half = self.next_ms / 2;
        self.next_ms = (2 * self.next_ms).min(LAST_MS);
        half + random % (half + 1)
    }

    /// Starts with the shortest delay again.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit_and_half_of_each_is_random() {
        let mut backoff = Backoff::new();
        let shortest: Vec<_> = (0..8).map(|_| backoff.next_delay(0)).collect();
        assert_eq!(shortest, [25, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.next_delay(1000), 2000);
        assert_eq!(backoff.next_delay(1001), 1000);
        backoff.reset();
        assert_eq!(backoff.next_delay(25), 50);
    }
}

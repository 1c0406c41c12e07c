//! Histogram of the durations of the loop's turns, without the waits between them.

use std::time::Duration;

/// Upper bounds of the buckets in nanoseconds, two per decade: from 10 µs, the duration of a quiet
/// turn, to 1 s, which every client notices.
const BOUNDS_NANOS: [u64; 11] = [
    10_000,
    30_000,
    100_000,
    300_000,
    1_000_000,
    3_000_000,
    10_000_000,
    30_000_000,
    100_000_000,
    300_000_000,
    1_000_000_000,
];

/// Histogram of turns. Counting one turn compares few numbers: most turns are in the first buckets.
#[derive(Default)]
pub(crate) struct TurnHistogram {
    /// Turns per bucket, not cumulative. The last bucket is that above all bounds.
    counts: [u64; BOUNDS_NANOS.len() + 1],
    /// Duration of all turns.
    nanos: u64,
}

impl TurnHistogram {
    /// Counts one turn of this duration.
    pub(crate) fn add(&mut self, nanos: u64) {
        let bucket =
            BOUNDS_NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS_NANOS.len());
        self.counts[bucket] += 1;
        self.nanos += nanos;
    }

    /// Returns each bound with the number of turns that took no longer.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = BOUNDS_NANOS.into_iter().map(Duration::from_nanos);
        bounds.zip(self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }))
    }

    /// Number of turns.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Duration of all turns together.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_counts_in_every_bucket_with_a_bound_above_it() {
        let mut turns = TurnHistogram::default();
        for nanos in [0, 10_000, 10_001, 30_000, 1_000_000_000, 1_000_000_001, 7_000_000_000] {
            turns.add(nanos);
        }
        let counts: Vec<_> = turns.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5]);
        assert_eq!((turns.count(), turns.sum()), (7, Duration::from_nanos(9_000_050_002)));
    }
}

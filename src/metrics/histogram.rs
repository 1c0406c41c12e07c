//! Histogram of durations: of the loop's turns, without the waits between them, and of flushes.

use std::time::Duration;

/// Upper bounds of the buckets in nanoseconds: from 10 µs, the duration of a quiet turn, to 1 s,
/// which every client notices. Most decades have two. 2 and 5 ms are limits of a turn with a
/// journal, and while it saves a snapshot.
const BOUNDS_NANOS: [u64; 12] = [
    10_000,
    30_000,
    100_000,
    300_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    100_000_000,
    300_000_000,
    1_000_000_000,
];

/// Histogram. Counting a turn compares few numbers: most are in the first buckets.
#[derive(Default)]
pub(crate) struct Histogram {
    /// Durations per bucket, not cumulative. The last bucket is that above all bounds.
    counts: [u64; BOUNDS_NANOS.len() + 1],
    /// Sum of all durations.
    nanos: u64,
}

impl Histogram {
    /// Counts a duration.
    pub(crate) fn add(&mut self, nanos: u64) {
        let bucket =
            BOUNDS_NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS_NANOS.len());
        self.counts[bucket] += 1;
        self.nanos += nanos;
    }

    /// Returns each bound with the number of durations that are no longer.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = BOUNDS_NANOS.into_iter().map(Duration::from_nanos);
        bounds.zip(self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }))
    }

    /// Number of durations.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all durations.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_every_bucket_with_a_bound_above_it() {
        let mut histogram = Histogram::default();
        for nanos in [0, 10_000, 10_001, 30_000, 1_000_000_000, 1_000_000_001, 7_000_000_000] {
            histogram.add(nanos);
        }
        let counts: Vec<_> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5]);
        assert_eq!((histogram.count(), histogram.sum()), (7, Duration::from_nanos(9_000_050_002)));
    }
}

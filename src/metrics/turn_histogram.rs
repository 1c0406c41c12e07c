//! How long the turns of the loop took, without the waits between them.

use std::time::Duration;

/// Upper bounds of the buckets, in nanoseconds: two to a decade, from 10 µs, in which a quiet turn is done, to 1 s, after
/// which everybody notices.
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

/// A histogram. Counting one turn costs a look at few numbers: most turns are in the first buckets.
#[derive(Default)]
pub(crate) struct Turns {
    /// How many took no longer than the bound, and longer than the one before; the last are those above all.
    counts: [u64; BOUNDS_NANOS.len() + 1],
    nanos: u64,
}

impl Turns {
    /// Counts one turn, which took so many nanoseconds.
    pub(crate) fn add(&mut self, nanos: u64) {
        let bucket =
            BOUNDS_NANOS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS_NANOS.len());
        self.counts[bucket] += 1;
        self.nanos += nanos;
    }

    /// Each bound with how many turns took no longer.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = BOUNDS_NANOS.into_iter().map(Duration::from_nanos);
        bounds.zip(self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }))
    }

    /// How many turns there were.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What they took together.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_in_every_bucket_that_it_fits_into() {
        let mut turns = Turns::default();
        for nanos in [0, 10_000, 10_001, 30_000, 1_000_000_000, 1_000_000_001, 7_000_000_000] {
            turns.add(nanos);
        }
        let counts: Vec<_> = turns.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5]);
        assert_eq!((turns.count(), turns.sum()), (7, Duration::from_nanos(9_000_050_002)));
    }
}

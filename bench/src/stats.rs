//! Medians with their spread, and latency histograms.

use std::fmt;
use std::time::Duration;

/// Median and extremes of a set of figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Returns `None` for an empty set.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, least, most })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}–{:.2})", self.median, self.least, self.most)
    }
}

/// Returns the median, or 0 for an empty set.
pub(crate) fn median(figures: &[f64]) -> f64 {
    Spread::of(figures.iter().copied()).map_or(0.0, |spread| spread.median)
}

/// Describes a figure as a multiple of its goal, which it may not exceed.
pub(crate) fn at_most(ratio: f64) -> String {
    format!("{ratio:.2} {}", if ratio <= 1.0 { "met" } else { "missed" })
}

/// Buckets for each power of two of nanoseconds. The error is under 2 %.
const BUCKETS_PER_OCTAVE: u64 = 64;
const OCTAVE_BITS: u32 = BUCKETS_PER_OCTAVE.trailing_zeros();

/// Durations in buckets that widen with the duration.
#[derive(Default)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    most_ns: u64,
}

/// Summary of a histogram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) half: Duration,
    pub(crate) p99: Duration,
    pub(crate) p99_9: Duration,
    pub(crate) most: Duration,
}

impl Histogram {
    pub(crate) fn record(&mut self, time: Duration) {
        let ns = time.as_nanos() as u64;
        let bucket = bucket_of(ns);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.most_ns = self.most_ns.max(ns);
    }

    /// Returns `None` if nothing was recorded.
    pub(crate) fn summary(&self) -> Option<Latency> {
        (self.count > 0).then(|| Latency {
            half: self.quantile(0.5),
            p99: self.quantile(0.99),
            p99_9: self.quantile(0.999),
            most: Duration::from_nanos(self.most_ns),
        })
    }

    fn quantile(&self, share: f64) -> Duration {
        let wanted = share * self.count as f64;
        let mut sum = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            sum += count;
            if sum as f64 >= wanted {
                return Duration::from_nanos(bucket_ns(bucket as u64));
            }
        }
        Duration::from_nanos(self.most_ns)
    }
}

fn bucket_of(ns: u64) -> usize {
    if ns < BUCKETS_PER_OCTAVE {
        return ns as usize;
    }
    let octave = u64::from(ns.ilog2() - OCTAVE_BITS);
    // The top bits after the leading one choose the bucket within the octave.
    let within = (ns >> octave) - BUCKETS_PER_OCTAVE;
    ((octave + 1) * BUCKETS_PER_OCTAVE + within) as usize
}

/// Shortest duration that falls into a bucket.
fn bucket_ns(bucket: u64) -> u64 {
    if bucket < BUCKETS_PER_OCTAVE {
        return bucket;
    }
    let octave = bucket / BUCKETS_PER_OCTAVE - 1;
    (BUCKETS_PER_OCTAVE + bucket % BUCKETS_PER_OCTAVE) << octave
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread.median.to_bits(), 2.5_f64.to_bits());
        assert_eq!(spread.least.to_bits(), 1.0_f64.to_bits());
        assert_eq!(spread.most.to_bits(), 4.0_f64.to_bits());
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_bucket_holds_its_own_least_time() {
        for bucket in 0..3000 {
            assert_eq!(bucket_of(bucket_ns(bucket)) as u64, bucket);
            assert!(bucket_ns(bucket) < bucket_ns(bucket + 1));
        }
    }

    #[test]
    fn quantiles_are_within_two_percent() {
        let mut histogram = Histogram::default();
        for us in 1..=10_000 {
            histogram.record(Duration::from_micros(us));
        }
        let latency = histogram.summary().unwrap();
        let within_2_percent = |time: Duration, ms: f64| {
            let share = time.as_secs_f64() * 1000.0 / ms;
            (0.98..=1.02).contains(&share)
        };
        assert!(within_2_percent(latency.half, 5.0));
        assert!(within_2_percent(latency.p99, 9.9));
        assert_eq!(latency.most, Duration::from_millis(10));
    }
}

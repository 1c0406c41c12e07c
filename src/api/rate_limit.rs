//! Limit of messages per second and address.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::client_addr::SourceKey;
use crate::hub::Millis;

/// Buckets in each row.
const BUCKETS: usize = 1 << 15;

/// Size of a burst, in seconds of the permitted rate.
const BURST_SECONDS: u64 = 10;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Token buckets for all addresses in a fixed 512 KiB: GCRA in a count-min sketch.
///
/// A bucket is one number: the time at which the bucket would be full again without further calls
/// ("virtual scheduling" of ITU-T I.371, "theoretical arrival time"). Two addresses may share a
/// bucket; a secret hash decides which. So there are two rows, and the bucket with more calls left
/// counts. While a thousand addresses are above their limit, one in a thousand other addresses is
/// slowed with them.
pub(super) struct RateLimit {
    rows: [Row; 2],
    nanos_per_call: u64,
}

struct Row {
    /// Theoretical arrival times, in nanoseconds of the monotonic clock.
    tat_nanos: Box<[u64]>,
    keys: RandomState,
}

impl RateLimit {
    /// Returns `None` for a limit of 0, which means no limit.
    pub(super) fn new(calls_per_second: usize) -> Option<Self> {
        let nanos_per_call = NANOS_PER_SECOND.checked_div(calls_per_second as u64)?;
        let row = || Row { tat_nanos: vec![0; BUCKETS].into(), keys: RandomState::new() };
        Some(Self { rows: [row(), row()], nanos_per_call })
    }

    /// Counts one call.
    ///
    /// # Errors
    ///
    /// Seconds until the next call is allowed, if this call is above the limit.
    pub(super) fn try_acquire(&mut self, now: Millis, address: SourceKey) -> Result<(), u64> {
        let now_nanos = now.0 * 1_000_000;
        let [one, other] = self.rows.each_mut().map(|row| {
            let index = row.keys.hash_one(address) as usize % BUCKETS;
            &mut row.tat_nanos[index]
        });
        let tat = (*one).min(*other).max(now_nanos) + self.nanos_per_call;
        let over_nanos = (tat - now_nanos).saturating_sub(BURST_SECONDS * NANOS_PER_SECOND);
        if over_nanos > 0 {
            return Err(over_nanos.div_ceil(NANOS_PER_SECOND));
        }
        *one = (*one).max(tat);
        *other = (*other).max(tat);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(number: u32) -> SourceKey {
        Some(IpAddr::V4(number.into())).into()
    }

    #[test]
    fn after_a_burst_calls_are_limited_to_the_rate() {
        let mut limit = RateLimit::new(5).unwrap();
        let mut acquired = |ms: u64| {
            (0..100).take_while(|_| limit.try_acquire(Millis(ms), address(1)).is_ok()).count()
        };
        assert_eq!(acquired(1_000), 50);
        assert_eq!(acquired(1_000), 0);
        assert_eq!(acquired(1_199), 0);
        assert_eq!(acquired(1_200), 1);
        assert_eq!(acquired(3_200), 10);
        assert_eq!(acquired(60_000), 50);
        assert_eq!(limit.try_acquire(Millis(60_000), address(1)), Err(1));
        assert_eq!(limit.try_acquire(Millis(60_000), address(2)), Ok(()));
        assert!(RateLimit::new(0).is_none());
    }

    #[test]
    fn few_addresses_are_slowed_by_others() {
        let mut limit = RateLimit::new(1).unwrap();
        for number in 0..1_000 {
            while limit.try_acquire(Millis(0), address(number)).is_ok() {}
        }
        let slowed = (1_000..11_000)
            .filter(|number| limit.try_acquire(Millis(0), address(*number)).is_err())
            .count();
        assert!(slowed < 100, "{slowed} of 10,000");
    }
}

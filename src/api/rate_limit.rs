//! How often an address may add messages.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::client_addr::SourceKey;
use crate::hub::Millis;

/// Addresses are counted in so many places of each row.
const BUCKETS: usize = 1 << 15;

/// Seconds' worth of calls that may come at once.
const BURST_SECONDS: u64 = 10;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A token bucket for each address, in a fixed 512 KiB however many addresses there are.
///
/// A bucket is one number: the time at which it would be full again if nothing more came ("virtual scheduling" of ITU-T
/// I.371). Two addresses may share a place, which are secret; so there are two rows, and the fuller bucket counts: with
/// a thousand addresses over their limit, one in a thousand others is slowed with them.
pub(super) struct RateLimit {
    rows: [Row; 2],
    nanos_per_call: u64,
}

struct Row {
    tat_nanos: Box<[u64]>,
    keys: RandomState,
}

impl RateLimit {
    /// None for a limit of 0.
    pub(super) fn new(calls_per_second: usize) -> Option<Self> {
        let nanos_per_call = NANOS_PER_SECOND.checked_div(calls_per_second as u64)?;
        let row = || Row { tat_nanos: vec![0; BUCKETS].into(), keys: RandomState::new() };
        Some(Self { rows: [row(), row()], nanos_per_call })
    }

    /// Counts one call.
    ///
    /// # Errors
    ///
    /// In how many seconds the next may come, if this one is too many.
    pub(super) fn take(&mut self, now: Millis, address: SourceKey) -> Result<(), u64> {
        let now_nanos = now.0 * 1_000_000;
        let [one, other] = self.rows.each_mut().map(|row| {
            let place = row.keys.hash_one(address) as usize % BUCKETS;
            &mut row.tat_nanos[place]
        });
        let full_at = (*one).min(*other).max(now_nanos) + self.nanos_per_call;
        let over_nanos = (full_at - now_nanos).saturating_sub(BURST_SECONDS * NANOS_PER_SECOND);
        if over_nanos > 0 {
            return Err(over_nanos.div_ceil(NANOS_PER_SECOND));
        }
        *one = (*one).max(full_at);
        *other = (*other).max(full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(number: u32) -> SourceKey {
        IpAddr::V4(number.into()).into()
    }

    #[test]
    fn a_burst_may_come_and_then_so_many_a_second() {
        let mut limit = RateLimit::new(5).unwrap();
        let mut taken =
            |ms: u64| (0..100).take_while(|_| limit.take(Millis(ms), address(1)).is_ok()).count();
        assert_eq!(taken(1_000), 50);
        assert_eq!(taken(1_000), 0);
        assert_eq!(taken(1_199), 0);
        assert_eq!(taken(1_200), 1);
        assert_eq!(taken(3_200), 10);
        assert_eq!(taken(60_000), 50);
        assert_eq!(limit.take(Millis(60_000), address(1)), Err(1));
        assert_eq!(limit.take(Millis(60_000), address(2)), Ok(()));
        assert!(RateLimit::new(0).is_none());
    }

    #[test]
    fn hardly_anybody_is_slowed_by_others() {
        let mut limit = RateLimit::new(1).unwrap();
        for number in 0..1_000 {
            while limit.take(Millis(0), address(number)).is_ok() {}
        }
        let slowed = (1_000..11_000)
            .filter(|number| limit.take(Millis(0), address(*number)).is_err())
            .count();
        assert!(slowed < 100, "{slowed} of 10,000");
    }
}

//! Limit of messages per second and address.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};

use super::client_addr::SourceKey;
use crate::hub::Millis;

/// Number of sets. A secret hash of its address decides which set a bucket is in.
const SETS: usize = 1 << 13;

/// Buckets in one set.
const WAYS: usize = 4;

/// Size of a burst, in seconds of the permitted rate.
const BURST_SECONDS: u64 = 10;

/// Rate of a /48 of IPv6, as a multiple of the rate of one address. A site commonly has a whole /48
/// (RFC 6177), so it could send from 65,536 addresses.
const SITE_FACTOR: u64 = 16;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Token buckets for the addresses that sent something lately, in a fixed 512 KiB.
///
/// A bucket is one number: the time at which the bucket would be full again without further calls
/// ("virtual scheduling" of ITU-T I.371, "theoretical arrival time"). Each bucket is tagged with
/// its address, so no address is limited because of another one. If an address finds its set
/// occupied, it replaces the bucket that is full or will be full first: while more than some ten
/// thousand addresses send, some of them are limited less than they should be.
pub(super) struct RateLimit {
    sets: Box<[[Bucket; WAYS]]>,
    keys: RandomState,
    nanos_per_call: u64,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// Hash of the address.
    tag: u64,
    /// Theoretical arrival time, in nanoseconds of the monotonic clock.
    tat_nanos: u64,
}

impl RateLimit {
    /// Returns `None` for a limit of 0, which means no limit.
    pub(super) fn new(calls_per_second: usize) -> Option<Self> {
        let nanos_per_call = NANOS_PER_SECOND.checked_div(calls_per_second as u64)?;
        let sets = vec![[Bucket::default(); WAYS]; SETS].into();
        Some(Self { sets, keys: RandomState::new(), nanos_per_call })
    }

    /// Counts one call, also against the /48 of an IPv6 address.
    ///
    /// # Errors
    ///
    /// Seconds until the next call is allowed, if this call is above a limit. It counts against no
    /// limit then.
    pub(super) fn try_acquire(&mut self, now: Millis, address: SourceKey) -> Result<(), u64> {
        let now_nanos = now.0 * 1_000_000;
        let site = match address.site() {
            Some(site) => {
                let bucket = self.bucket(("site", site));
                let tat = next_arrival(*bucket, now_nanos, self.nanos_per_call / SITE_FACTOR)?;
                Some((("site", site), tat))
            }
            None => None,
        };
        let nanos_per_call = self.nanos_per_call;
        let bucket = self.bucket(address);
        bucket.tat_nanos = next_arrival(*bucket, now_nanos, nanos_per_call)?;
        if let Some((site, tat)) = site {
            self.bucket(site).tat_nanos = tat;
        }
        Ok(())
    }

    /// Returns the bucket of a key. A key without a bucket gets a full one.
    fn bucket(&mut self, key: impl Hash) -> &mut Bucket {
        let tag = self.keys.hash_one(key);
        let set = &mut self.sets[tag as usize % SETS];
        let way = set.iter().position(|bucket| bucket.tag == tag).unwrap_or_else(|| {
            let (fullest, _) =
                set.iter().enumerate().min_by_key(|(_, it)| it.tat_nanos).expect("WAYS > 0");
            set[fullest] = Bucket { tag, tat_nanos: 0 };
            fullest
        });
        &mut set[way]
    }
}

/// Returns the theoretical arrival time of a bucket after one more call.
///
/// # Errors
///
/// Seconds until the call is allowed.
fn next_arrival(bucket: Bucket, now_nanos: u64, nanos_per_call: u64) -> Result<u64, u64> {
    let tat = bucket.tat_nanos.max(now_nanos) + nanos_per_call;
    let over_nanos = (tat - now_nanos).saturating_sub(BURST_SECONDS * NANOS_PER_SECOND);
    if over_nanos > 0 { Err(over_nanos.div_ceil(NANOS_PER_SECOND)) } else { Ok(tat) }
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

    /// Address of the /64 with this number in the /48 with that number.
    fn ipv6(site: u32, subnet: u16) -> SourceKey {
        let prefix = 0x2400_0000 << 32 | u128::from(site) << 16 | u128::from(subnet);
        Some(IpAddr::V6((prefix << 64).into())).into()
    }

    /// Has each address send as much as it may, then returns how many of 500 other addresses are
    /// rejected at their first message.
    fn strangers_rejected(limit: &mut RateLimit, floods: impl Iterator<Item = SourceKey>) -> usize {
        for address in floods {
            while limit.try_acquire(Millis(0), address).is_ok() {}
        }
        let strangers = (0..250).map(address).chain((0..250).map(|site| ipv6(1 << 20 | site, 0)));
        strangers.filter(|it| limit.try_acquire(Millis(0), *it).is_err()).count()
    }

    #[test]
    fn no_flood_makes_the_first_message_of_another_address_fail() {
        let limit = || RateLimit::new(1).unwrap();
        let one_site = (0..40_000).map(|subnet| ipv6(7, subnet));
        assert_eq!(strangers_rejected(&mut limit(), one_site), 0);
        let sites = (0..100_000).map(|site| ipv6(site, 0));
        assert_eq!(strangers_rejected(&mut limit(), sites), 0);
        let botnet = (0..100_000).map(|number| address(1 << 24 | number));
        assert_eq!(strangers_rejected(&mut limit(), botnet), 0);
    }

    #[test]
    fn a_48_has_the_rate_of_sixteen_addresses() {
        let mut limit = RateLimit::new(1).unwrap();
        let sent = (0..=u16::MAX)
            .map(|subnet| {
                (0..20)
                    .take_while(|_| limit.try_acquire(Millis(0), ipv6(7, subnet)).is_ok())
                    .count()
            })
            .sum::<usize>();
        assert_eq!(sent, 160);
        assert_eq!(limit.try_acquire(Millis(0), ipv6(7, 9)), Err(1));
        assert_eq!(limit.try_acquire(Millis(0), ipv6(8, 9)), Ok(()));
        // One call of the site, but of no address that has sent its burst.
        assert_eq!(limit.try_acquire(Millis(63), ipv6(7, 1)), Err(1));
        assert_eq!(limit.try_acquire(Millis(63), ipv6(7, 100)), Ok(()));
        assert_eq!(limit.try_acquire(Millis(63), ipv6(7, 101)), Err(1));
    }

    #[test]
    fn addresses_that_sent_lately_stay_limited_while_a_thousand_others_send() {
        let mut limit = RateLimit::new(1).unwrap();
        for number in 0..1_000 {
            while limit.try_acquire(Millis(0), address(number)).is_ok() {}
        }
        let allowed = (0..1_000)
            .filter(|number| limit.try_acquire(Millis(0), address(*number)).is_ok())
            .count();
        assert!(allowed < 10, "{allowed}");
    }
}

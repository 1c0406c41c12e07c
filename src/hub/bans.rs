//! Addresses that were sent away from a channel for a time.

use std::num::NonZeroU64;

use super::time::Millis;
use super::usage::ALLOCATION_BYTES;

/// Limit of the addresses of one channel. Then the one whose time ends first makes room.
pub const BANS_PER_CHANNEL_MAX: usize = 1024;

/// Address of a client: an IPv4 address, or a /64 of IPv6. Its `Debug` form does not show it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(NonZeroU64);

impl Address {
    /// Makes the address with this number. Equal numbers are equal addresses.
    #[must_use]
    pub fn new(number: NonZeroU64) -> Self {
        Self(number)
    }

    /// Returns the number, for a snapshot or a command.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0.get()
    }

    /// Makes the address of a number from a snapshot or a command. `None` for 0.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address(…)")
    }
}

/// Addresses that were sent away from one channel, ordered by address.
#[derive(Debug, Default)]
pub(super) struct Bans {
    bans: Vec<Ban>,
    /// End of the last one, or later.
    last_end: Millis,
}

#[derive(Clone, Copy, Debug)]
struct Ban {
    address: Address,
    until: Millis,
}

impl Bans {
    /// Adds an address until some time, or prolongs its time. Forgets those whose time is over.
    pub(super) fn add(&mut self, now: Millis, address: Address, until: Millis) {
        self.forget_ended(now);
        self.last_end = self.last_end.max(until);
        let at = match self.bans.binary_search_by_key(&address, |ban| ban.address) {
            Ok(at) => {
                let ban = &mut self.bans[at];
                ban.until = ban.until.max(until);
                return;
            }
            Err(at) => at,
        };
        if self.bans.len() < BANS_PER_CHANNEL_MAX {
            return self.bans.insert(at, Ban { address, until });
        }
        let ends = self.bans.iter().enumerate();
        let (first, _) = ends.min_by_key(|(_, ban)| ban.until).expect("the list is full");
        self.bans.remove(first);
        self.bans.insert(at - usize::from(first < at), Ban { address, until });
    }

    /// Returns whether the time of an address is not over.
    pub(super) fn contains(&self, now: Millis, address: Address) -> bool {
        let at = self.bans.binary_search_by_key(&address, |ban| ban.address);
        at.is_ok_and(|at| now < self.bans[at].until)
    }

    /// Returns the list without the addresses whose time is over, unless none is left.
    pub(super) fn without_ended(mut self: Box<Self>, now: Millis) -> Option<Box<Self>> {
        self.forget_ended(now);
        (!self.bans.is_empty()).then_some(self)
    }

    fn forget_ended(&mut self, now: Millis) {
        self.bans.retain(|ban| now < ban.until);
        if self.bans.len() < self.bans.capacity() / 4 {
            self.bans.shrink_to(2 * self.bans.len());
        }
    }

    /// Returns a time at which all are over.
    pub(super) fn last_end(&self) -> Millis {
        self.last_end
    }

    /// Iterates over the numbers of the addresses, rising, and the ends of their times.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Millis)> {
        self.bans.iter().map(|ban| (ban.address.number(), ban.until))
    }

    /// Makes the list of a snapshot. `None` if it is empty, not ordered, or too long.
    pub(super) fn restore(bans: impl Iterator<Item = (u64, Millis)>) -> Option<Self> {
        let mut restored = Self::default();
        for (number, until) in bans {
            let address = Address::from_number(number)?;
            if restored.bans.last().is_some_and(|last| last.address >= address) {
                return None;
            }
            restored.bans.push(Ban { address, until });
            restored.last_end = restored.last_end.max(until);
        }
        (1..=BANS_PER_CHANNEL_MAX).contains(&restored.bans.len()).then_some(restored)
    }

    /// Returns the memory of the list.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.bans.capacity() * size_of::<Ban>() + 2 * ALLOCATION_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u64) -> Address {
        Address::from_number(number).unwrap()
    }

    fn numbers(bans: &Bans) -> Vec<u64> {
        bans.iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn an_address_is_away_until_its_time_is_over() {
        let mut bans = Bans::default();
        bans.add(Millis(0), address(7), Millis(10));
        bans.add(Millis(0), address(3), Millis(20));
        for (now, number, is_away) in
            [(9, 7, true), (10, 7, false), (19, 3, true), (20, 3, false), (0, 5, false)]
        {
            assert_eq!(bans.contains(Millis(now), address(number)), is_away, "{now} {number}");
        }
        let bans = Box::new(bans).without_ended(Millis(10)).unwrap();
        assert_eq!(numbers(&bans), [3]);
        assert!(bans.without_ended(Millis(20)).is_none());
    }

    /// A kick of a neighbour must not free the address.
    #[test]
    fn a_shorter_time_does_not_replace_a_longer_one() {
        let mut bans = Bans::default();
        for until in [100, 10, 50] {
            bans.add(Millis(0), address(1), Millis(until));
            assert!(bans.contains(Millis(99), address(1)));
        }
        bans.add(Millis(0), address(1), Millis(200));
        assert!(bans.contains(Millis(199), address(1)));
    }

    #[test]
    fn the_first_to_end_makes_room_for_one_above_the_limit() {
        let mut bans = Bans::default();
        // The address in the middle ends first.
        let end = |number: u64| if number == 512 { 5 } else { 1_000 + number };
        (1..=1024).for_each(|number| bans.add(Millis(0), address(number), Millis(end(number))));
        bans.add(Millis(0), address(512), Millis(5));
        assert_eq!(bans.iter().count(), BANS_PER_CHANNEL_MAX, "a known address needs no room");
        bans.add(Millis(0), address(5_000), Millis(900));
        assert!(!bans.contains(Millis(0), address(512)));
        assert!(bans.contains(Millis(0), address(5_000)));
        bans.add(Millis(0), address(400_000), Millis(9_000));
        assert!(!bans.contains(Millis(0), address(5_000)), "its time ends first now");
        bans.add(Millis(0), address(1_500), Millis(9_000));
        assert!(!bans.contains(Millis(0), address(1)));
        assert_eq!(bans.iter().count(), BANS_PER_CHANNEL_MAX);
        let ordered = numbers(&bans);
        assert!(ordered.is_sorted_by(|one, next| one < next), "{ordered:?}");
        let bytes = bans.memory();
        assert!((16 * 1024..32 * 1024).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_list_that_this_server_would_not_have_saved_is_rejected() {
        let restore = |list: &[u64]| {
            Bans::restore(list.iter().map(|number| (*number, Millis(1)))).map(|it| numbers(&it))
        };
        assert_eq!(restore(&[1, 2]), Some(vec![1, 2]));
        assert_eq!(restore(&[]), None);
        assert_eq!(restore(&[0]), None);
        assert_eq!(restore(&[2, 1]), None);
        assert_eq!(restore(&[1, 1]), None);
        assert!(restore(&(1..=1024).collect::<Vec<_>>()).is_some());
        assert_eq!(restore(&(1..=1025).collect::<Vec<_>>()), None);
    }
}

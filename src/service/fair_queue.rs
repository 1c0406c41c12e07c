//! Answers that were put together and not sent, since the turn had no time left for it: a lane for each channel.
//!
//! Within a lane those who waited longest come first, and whoever is answered later stands behind them. The lanes take
//! turns, so a channel with few readers does not wait for one with many thousands.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::api::SharedBytes;
use crate::hub::Key;

/// So many of a lane, then the next one has its turn.
const QUANTUM: usize = 32;

/// Who is to be sent something, and what, where it is not in the client's own outbox. Those who are gone meanwhile are
/// among them.
pub(super) type Deferred = (Key, Option<Rc<SharedBytes>>);

/// All that is held.
#[derive(Default)]
pub(super) struct FairQueue {
    by_channel: BTreeMap<u32, VecDeque<Deferred>>,
    /// The lane that has its turn, if there is one of that number, and how many of it have had theirs.
    cursor: u32,
    served_in_a_row: usize,
}

impl FairQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.by_channel.is_empty()
    }

    /// How many stand in all lanes. O(lanes).
    pub(super) fn len(&self) -> usize {
        self.by_channel.values().map(VecDeque::len).sum()
    }

    /// Whether somebody stands in this lane.
    pub(super) fn contains(&self, lane: u32) -> bool {
        !self.by_channel.is_empty() && self.by_channel.contains_key(&lane)
    }

    pub(super) fn push(&mut self, lane: u32, held: Deferred) {
        self.by_channel.entry(lane).or_default().push_back(held);
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<Deferred> {
        if self.served_in_a_row >= QUANTUM {
            (self.cursor, self.served_in_a_row) = (self.cursor.wrapping_add(1), 0);
        }
        let next =
            self.by_channel.range(self.cursor..).next().or_else(|| self.by_channel.iter().next());
        let (&lane, _) = next?;
        if lane != self.cursor {
            (self.cursor, self.served_in_a_row) = (lane, 0);
        }
        self.served_in_a_row += 1;
        let all = self.by_channel.get_mut(&lane)?;
        let held = all.pop_front();
        if all.is_empty() {
            self.by_channel.remove(&lane);
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_lane_does_not_wait_for_a_long_one_and_each_keeps_its_order() {
        let client = |number: u64| (Key::from_bits(number), None);
        let mut lanes = FairQueue::default();
        for number in 0..1000 {
            lanes.push(7, client(number));
        }
        assert_eq!(lanes.pop().map(|(key, _)| key.to_bits()), Some(0));
        lanes.push(3, client(2001));
        lanes.push(3, client(2002));
        lanes.push(u32::MAX, client(3001));
        let order: Vec<_> = std::iter::from_fn(|| lanes.pop()).collect();
        let place = |number| order.iter().position(|its| its.0.to_bits() == number).unwrap();
        assert!(
            place(2001) < 2 * QUANTUM && place(3001) < 2 * QUANTUM,
            "{} {}",
            place(2001),
            place(3001)
        );
        assert!(place(2001) < place(2002));
        let long: Vec<_> =
            order.iter().map(|its| its.0.to_bits()).filter(|number| *number < 1000).collect();
        assert!(long.is_sorted() && long.len() == 999);
        assert!(lanes.is_empty() && !lanes.contains(7));
    }
}

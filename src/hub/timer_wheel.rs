//! A hierarchical timer wheel: O(1) to set and to cancel, a timer is one entry of a slab.
//!
//! Seven levels of 64 slots. A timer stands on the level of the highest six-bit
//! digit in which its deadline differs from the wheel's clock, in the slot of that
//! digit; when the clock enters that slot its timers move to lower levels. So a
//! timer moves at most six times, and most are cancelled before they move once.
//! (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987.)
//!
//! The wheel knows the earliest deadline of every slot, so a loop that sleeps
//! until [`TimerWheel::next_deadline`] is not woken merely to move timers about.

use super::paged_slab::PagedSlab;
use super::time::Millis;
use std::num::NonZeroU32;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = 7;
/// What seven digits can tell apart: 139 years. Deadlines beyond its end are pulled in to it.
const SPAN_MS: u64 = 1 << (DIGIT_BITS * LEVELS as u32);
const NONE: u32 = u32::MAX;

/// A timer that was set and has neither fired nor been cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(NonZeroU32);

impl TimerId {
    /// Of the timer at this place; without a zero, so that an option of it is no larger.
    fn at(place: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(place))
    }

    fn place(self) -> u32 {
        self.0.get() - 1
    }
}

#[derive(Debug)]
struct Timer<K> {
    deadline: Millis,
    next: u32,
    prev: u32,
    key: K,
}

/// A doubly linked list of timers, first set first.
#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u32,
    tail: u32,
    /// No timer of the slot is due before this. A cancelled timer does not raise it.
    earliest: Millis,
}

const EMPTY: Slot = Slot { head: NONE, tail: NONE, earliest: Millis(u64::MAX) };

/// The wheel. `K` tells what a timer is for.
#[derive(Debug)]
pub struct TimerWheel<K> {
    clock: Millis,
    timers: PagedSlab<Timer<K>>,
    levels: Box<[[Slot; SLOTS]; LEVELS]>,
    /// A bit for each slot that holds a timer.
    occupied: [u64; LEVELS],
    /// Timers whose time has come, not yet taken.
    due: Slot,
}

/// Where a timer stands.
enum Position {
    Due,
    Slot { level: usize, slot: usize },
}

impl<K: Copy> TimerWheel<K> {
    /// An empty wheel whose clock stands at `start`.
    #[must_use]
    pub fn new(start: Millis) -> Self {
        Self {
            clock: start,
            timers: PagedSlab::new(),
            levels: Box::new([[EMPTY; SLOTS]; LEVELS]),
            occupied: [0; LEVELS],
            due: EMPTY,
        }
    }

    /// Sets a timer. It fires in the first [`TimerWheel::pop`] at or after `deadline`. O(1).
    pub fn set(&mut self, deadline: Millis, key: K) -> TimerId {
        let deadline = deadline.min(Millis(self.clock.0 | (SPAN_MS - 1)));
        let index = self.timers.insert(Timer { deadline, next: NONE, prev: NONE, key });
        self.link(index);
        TimerId::at(index)
    }

    /// Takes a timer back before it fires. O(1).
    pub fn cancel(&mut self, id: TimerId) {
        self.unlink(id.place());
        self.timers.remove(id.place());
    }

    /// Makes sure that `timer` fires by `at`. A timer that fires too early costs less than moving
    /// it with every new deadline.
    pub(super) fn arm(&mut self, timer: &mut Option<TimerId>, at: Millis, key: K) {
        if let Some(id) = *timer {
            if self.deadline(id) <= at {
                return;
            }
            self.cancel(id);
        }
        *timer = Some(self.set(at, key));
    }

    /// When a timer is set to fire.
    #[must_use]
    pub fn deadline(&self, id: TimerId) -> Millis {
        self.timer(id.place()).deadline
    }

    /// When to call [`TimerWheel::pop`] next; `None` while no timer is set. O(levels).
    ///
    /// Never later than the earliest timer; earlier only where the earliest timer
    /// of a distant slot was cancelled.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.due.head != NONE {
            return Some(self.clock);
        }
        // All timers of a level are due before any of a higher one: they share the higher digits with the clock.
        let (level, slot) = self.first_occupied()?;
        Some(self.levels[level][slot].earliest)
    }

    /// The next timer that is due at `now`, gone from the wheel. Call until `None`.
    pub fn pop(&mut self, now: Millis) -> Option<K> {
        while self.due.head == NONE {
            let Some((level, slot)) = self.first_occupied() else {
                self.clock = self.clock.max(now);
                return None;
            };
            let start = self.slot_start(level, slot);
            if start > now {
                self.clock = self.clock.max(now);
                return None;
            }
            self.enter(start, level, slot);
        }
        let index = self.due.head;
        self.unlink(index);
        Some(self.timers.remove(index).key)
    }

    /// How many timers are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether no timer is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timers.len() == 0
    }

    fn timer(&self, index: u32) -> &Timer<K> {
        self.timers.get(index).expect("a timer that is set")
    }

    fn timer_mut(&mut self, index: u32) -> &mut Timer<K> {
        self.timers.get_mut(index).expect("a timer that is set")
    }

    fn first_occupied(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// The first millisecond of a slot that the clock has not reached yet.
    fn slot_start(&self, level: usize, slot: usize) -> Millis {
        let shift = DIGIT_BITS * level as u32;
        let higher_digits = self.clock.0 >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
        Millis(higher_digits | ((slot as u64) << shift))
    }

    /// Moves the clock to the start of a slot, and the slot's timers to where they stand from there.
    fn enter(&mut self, start: Millis, level: usize, slot: usize) {
        let mut index = self.levels[level][slot].head;
        self.levels[level][slot] = EMPTY;
        self.occupied[level] &= !(1 << slot);
        self.clock = start;
        while index != NONE {
            let next = self.timer(index).next;
            self.link(index);
            index = next;
        }
    }

    fn place(&self, deadline: Millis) -> Position {
        if deadline <= self.clock {
            return Position::Due;
        }
        let highest_difference = (self.clock.0 ^ deadline.0).ilog2();
        let level = highest_difference / DIGIT_BITS;
        let slot = (deadline.0 >> (DIGIT_BITS * level)) as usize % SLOTS;
        Position::Slot { level: level as usize, slot }
    }

    fn slot_mut(&mut self, place: &Position) -> &mut Slot {
        match *place {
            Position::Due => &mut self.due,
            Position::Slot { level, slot } => &mut self.levels[level][slot],
        }
    }

    fn link(&mut self, index: u32) {
        let deadline = self.timer(index).deadline;
        let place = self.place(deadline);
        if let Position::Slot { level, slot } = place {
            self.occupied[level] |= 1 << slot;
        }
        let slot = self.slot_mut(&place);
        let prev = slot.tail;
        slot.tail = index;
        if slot.head == NONE {
            slot.head = index;
        }
        slot.earliest = slot.earliest.min(deadline);
        let timer = self.timer_mut(index);
        timer.prev = prev;
        timer.next = NONE;
        if prev != NONE {
            self.timer_mut(prev).next = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Timer { deadline, next, prev, .. } = *self.timer(index);
        let place = self.place(deadline);
        let slot = self.slot_mut(&place);
        if prev == NONE {
            slot.head = next;
        }
        if next == NONE {
            slot.tail = prev;
        }
        if slot.head == NONE {
            *slot = EMPTY;
            if let Position::Slot { level, slot } = place {
                self.occupied[level] &= !(1 << slot);
            }
        }
        if prev != NONE {
            self.timer_mut(prev).next = next;
        }
        if next != NONE {
            self.timer_mut(next).prev = prev;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sleeper_is_woken_only_when_something_is_due() {
        for delay_ms in [0, 1, 63, 64, 65, 4095, 4096, 25_000, 3_600_000, 1 << 40] {
            for start in [0, 1, 63, 4_000, 1_000_003] {
                let mut wheel = TimerWheel::new(Millis(start));
                let deadline = Millis(start + delay_ms);
                wheel.set(deadline, ());
                assert_eq!(wheel.next_deadline(), Some(deadline));
                assert!(delay_ms == 0 || wheel.pop(Millis(deadline.0 - 1)).is_none());
                assert_eq!(wheel.next_deadline(), Some(deadline));
                assert!(wheel.pop(deadline).is_some());
                assert_eq!(wheel.next_deadline(), None);
            }
        }
    }

    #[test]
    fn timers_of_one_deadline_fire_in_the_order_in_which_they_were_set() {
        let mut wheel = TimerWheel::new(Millis(0));
        for key in 0..100 {
            wheel.set(Millis(5_000), key);
        }
        let fired: Vec<_> = std::iter::from_fn(|| wheel.pop(Millis(6_000))).collect();
        assert_eq!(fired, (0..100).collect::<Vec<_>>());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(u64),
        Cancel(usize),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let span = prop_oneof![0..70u64, 0..5_000u64, 0..400_000u64, 0..(1u64 << 34)];
        let step = prop_oneof![
            4 => span.clone().prop_map(Step::Set),
            2 => any::<usize>().prop_map(Step::Cancel),
            3 => span.prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        /// Beside a sorted map: each timer fires once, in the first look at or after its deadline, never before.
        #[test]
        fn the_wheel_does_what_a_sorted_map_does(steps in steps()) {
            let mut wheel = TimerWheel::new(Millis(0));
            let mut model: BTreeMap<u32, (Millis, TimerId)> = BTreeMap::new();
            let mut now = Millis(0);
            let mut next_key = 0;
            for step in steps {
                match step {
                    Step::Set(ms) => {
                        let deadline = now.after(ms);
                        model.insert(next_key, (deadline, wheel.set(deadline, next_key)));
                        next_key += 1;
                    }
                    Step::Cancel(which) if !model.is_empty() => {
                        let key = *model.keys().nth(which % model.len()).unwrap();
                        let (deadline, id) = model.remove(&key).unwrap();
                        prop_assert_eq!(wheel.deadline(id), deadline);
                        wheel.cancel(id);
                    }
                    Step::Cancel(_) => {}
                    Step::Pass(ms) => {
                        now = now.after(ms);
                        while let Some(key) = wheel.pop(now) {
                            let (deadline, _) = model.remove(&key).unwrap();
                            prop_assert!(deadline <= now);
                        }
                        prop_assert!(model.values().all(|(deadline, _)| *deadline > now));
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.values().map(|(deadline, _)| *deadline).min();
                match (wheel.next_deadline(), earliest) {
                    (None, None) => {}
                    (Some(wake), Some(earliest)) => prop_assert!(wake <= earliest),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}

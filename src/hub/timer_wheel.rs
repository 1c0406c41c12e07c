//! A hierarchical timer wheel. Setting and cancelling are O(1); a timer is one entry of a slab.
//!
//! The wheel has seven levels of 64 slots. A timer's level is the highest six-bit digit in which
//! its deadline differs from the wheel's clock, and its slot is the value of that digit. When the
//! clock enters a slot, the slot's timers move to lower levels. So a timer moves at most six times,
//! and most timers are cancelled before they move once. (Varghese and Lauck, "Hashed and
//! Hierarchical Timing Wheels", 1987.)
//!
//! The wheel knows the earliest deadline of each slot. So a loop that sleeps until
//! [`TimerWheel::next_deadline`] does not wake merely to move timers.

use std::num::NonZeroU32;

use super::paged_slab::PagedSlab;
use super::time::Millis;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = 7;
/// Range of seven digits: 139 years. A deadline beyond the end of the range is moved to its end.
const SPAN_MS: u64 = 1 << (DIGIT_BITS * LEVELS as u32);
const NONE: u32 = u32::MAX;

/// Id of a timer that is set. It is invalid once the timer has fired or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId(NonZeroU32);

impl TimerId {
    /// Makes the id of the timer at an index. Never zero, so that `Option<TimerId>` is no larger.
    fn at(index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    fn index(self) -> u32 {
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

/// A doubly linked list of timers, in the order in which they were set.
#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u32,
    tail: u32,
    /// No timer of the slot is due before this time. Cancelling a timer does not change it.
    earliest: Millis,
}

const EMPTY: Slot = Slot { head: NONE, tail: NONE, earliest: Millis(u64::MAX) };

/// A timer wheel. `K` is the key that a timer returns when it fires.
#[derive(Debug)]
pub(crate) struct TimerWheel<K> {
    clock: Millis,
    timers: PagedSlab<Timer<K>>,
    levels: Box<[[Slot; SLOTS]; LEVELS]>,
    /// One bit per slot, set if the slot has a timer.
    occupied: [u64; LEVELS],
    /// Timers that are due and not yet popped.
    due: Slot,
    /// No timer is due before this time. Setting a timer may lower it, and only a walk through the
    /// levels raises it. Until then, the clock stays behind.
    quiet_until: Millis,
}

/// List that a timer belongs to.
enum Position {
    Due,
    Slot { level: usize, slot: usize },
}

impl<K: Copy> TimerWheel<K> {
    /// Creates an empty wheel whose clock begins at `start`.
    #[must_use]
    pub(crate) fn new(start: Millis) -> Self {
        Self {
            clock: start,
            timers: PagedSlab::new(),
            levels: Box::new([[EMPTY; SLOTS]; LEVELS]),
            occupied: [0; LEVELS],
            due: EMPTY,
            quiet_until: Millis(u64::MAX),
        }
    }

    /// Sets a timer. It fires in the first [`TimerWheel::pop`] at or after `deadline`. O(1).
    pub(crate) fn set(&mut self, deadline: Millis, key: K) -> TimerId {
        let deadline = deadline.min(Millis(self.clock.0 | (SPAN_MS - 1)));
        let index = self.timers.insert(Timer { deadline, next: NONE, prev: NONE, key });
        self.link(index);
        self.quiet_until = self.quiet_until.min(deadline);
        TimerId::at(index)
    }

    /// Cancels a timer. O(1).
    pub(crate) fn cancel(&mut self, id: TimerId) {
        self.unlink(id.index());
        self.timers.remove(id.index());
    }

    /// Sets `timer`, or moves it, unless it fires by `at` already. A timer that fires too early
    /// costs less than moving it with every new deadline.
    pub(super) fn arm(&mut self, timer: &mut Option<TimerId>, at: Millis, key: K) {
        if let Some(id) = *timer {
            if self.deadline(id) <= at {
                return;
            }
            self.cancel(id);
        }
        *timer = Some(self.set(at, key));
    }

    /// Returns the deadline of a timer.
    #[must_use]
    pub(crate) fn deadline(&self, id: TimerId) -> Millis {
        self.timer(id.index()).deadline
    }

    /// Returns the time of the next [`TimerWheel::pop`]; `None` while no timer is set. O(levels).
    ///
    /// Never later than the earliest timer. May be earlier if the earliest timer of a distant slot
    /// was cancelled.
    #[must_use]
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        if self.due.head != NONE {
            return Some(self.clock);
        }
        // The timers of a level share all higher digits with the clock. So they are due before any
        // timer of a higher level.
        let (level, slot) = self.first_occupied()?;
        Some(self.levels[level][slot].earliest)
    }

    /// Removes the next timer that is due at `now` and returns its key. Call it until `None`.
    #[inline]
    pub(crate) fn pop(&mut self, now: Millis) -> Option<K> {
        // Each turn asks, and hardly ever is there one.
        if now < self.quiet_until { None } else { self.pop_due(now) }
    }

    #[inline(never)]
    fn pop_due(&mut self, now: Millis) -> Option<K> {
        while self.due.head == NONE {
            let Some((level, slot)) = self.first_occupied() else {
                self.clock = self.clock.max(now);
                self.quiet_until = Millis(u64::MAX);
                return None;
            };
            let start = self.slot_start(level, slot);
            if start > now {
                self.clock = self.clock.max(now);
                self.quiet_until = self.levels[level][slot].earliest;
                return None;
            }
            self.enter(start, level, slot);
        }
        let index = self.due.head;
        self.unlink(index);
        Some(self.timers.remove(index).key)
    }

    /// Returns the number of timers that are set.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }

    fn timer(&self, index: u32) -> &Timer<K> {
        self.timers.get(index).expect("the timer is set")
    }

    fn timer_mut(&mut self, index: u32) -> &mut Timer<K> {
        self.timers.get_mut(index).expect("the timer is set")
    }

    fn first_occupied(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// Returns the first millisecond of a slot that the clock has not reached yet.
    fn slot_start(&self, level: usize, slot: usize) -> Millis {
        let shift = DIGIT_BITS * level as u32;
        let higher_digits = self.clock.0 >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
        Millis(higher_digits | ((slot as u64) << shift))
    }

    /// Moves the clock to the start of a slot, and the slot's timers to lower levels.
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

    fn position(&self, deadline: Millis) -> Position {
        if deadline <= self.clock {
            return Position::Due;
        }
        let highest_difference = (self.clock.0 ^ deadline.0).ilog2();
        let level = highest_difference / DIGIT_BITS;
        let slot = (deadline.0 >> (DIGIT_BITS * level)) as usize % SLOTS;
        Position::Slot { level: level as usize, slot }
    }

    fn slot_mut(&mut self, position: &Position) -> &mut Slot {
        match *position {
            Position::Due => &mut self.due,
            Position::Slot { level, slot } => &mut self.levels[level][slot],
        }
    }

    fn link(&mut self, index: u32) {
        let deadline = self.timer(index).deadline;
        let position = self.position(deadline);
        if let Position::Slot { level, slot } = position {
            self.occupied[level] |= 1 << slot;
        }
        let slot = self.slot_mut(&position);
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
        let position = self.position(deadline);
        let slot = self.slot_mut(&position);
        if prev == NONE {
            slot.head = next;
        }
        if next == NONE {
            slot.tail = prev;
        }
        if slot.head == NONE {
            *slot = EMPTY;
            if let Position::Slot { level, slot } = position {
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
    fn a_timer_whose_key_is_never_zero_takes_24_bytes() {
        assert_eq!(size_of::<Option<Timer<NonZeroU32>>>(), 24);
    }

    #[test]
    fn the_next_deadline_is_the_one_of_the_only_timer() {
        for delay_ms in [0, 1, 63, 64, 65, 4095, 4096, 25_000, 3_600_000, 1 << 40] {
            for start in [0, 1, 63, 4_000, 1_000_003, SPAN_MS / 2 + 1] {
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
    fn a_deadline_that_never_comes_is_accepted() {
        let mut wheel = TimerWheel::new(Millis(1_000));
        let id = wheel.set(Millis(u64::MAX), ());
        assert!(wheel.pop(Millis(SPAN_MS / 2)).is_none());
        assert!(wheel.deadline(id) >= Millis(SPAN_MS / 2));
        wheel.cancel(id);
        assert_eq!(wheel.next_deadline(), None);
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
        /// Each timer fires once, in the first `pop` at or after its deadline, and never before.
        #[test]
        fn the_wheel_fires_the_same_timers_as_a_sorted_map(steps in steps()) {
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

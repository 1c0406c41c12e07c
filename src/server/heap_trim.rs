//! Notices when much of what was held is let go, for allocators that have to be told to give free pages back.
//!
//! glibc's lets go of its heap from the top only: what lives on above what was freed keeps all of it. Before musl's stand spares of ours.

use crate::hub::Millis;

/// Less than this is not worth the walk through the heap.
const MIN_FREED_BYTES: usize = 1024 * 1024;

/// What is held may go up and down within a moment, and the walk takes a while.
const INTERVAL_MS: u64 = 1_000;

/// How much was held, and when to give back what is free since.
#[derive(Default)]
pub(super) struct HeapTrim {
    peak: usize,
    next_check: Option<Millis>,
}

impl HeapTrim {
    /// So much is held now. Tells whether to give back what is free.
    pub(super) fn observe(&mut self, held: usize, now: Millis) -> bool {
        self.peak = self.peak.max(held);
        let is_due = self.next_check.is_some_and(|due| due <= now);
        if is_due {
            *self = Self { peak: held, next_check: None };
        } else if self.next_check.is_none()
            && held < self.peak / 2
            && self.peak - held >= MIN_FREED_BYTES
        {
            self.next_check = Some(now.after(INTERVAL_MS));
        }
        is_due
    }

    pub(super) fn next_check(&self) -> Option<Millis> {
        self.next_check
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_given_back_once_a_while_after_much_was_let_go() {
        let mut ebb = HeapTrim::default();
        let high = 10 * MIN_FREED_BYTES;
        assert!(!ebb.observe(high, Millis(0)) && !ebb.observe(high / 2, Millis(1)));
        assert_eq!(ebb.next_check(), None, "half of it is still there");
        assert!(
            !ebb.observe(high / 3, Millis(2))
                && !ebb.observe(high, Millis(500))
                && !ebb.observe(0, Millis(1_001))
        );
        assert!(ebb.observe(0, Millis(1_002)));
        assert_eq!(ebb.next_check(), None);
        assert!(!ebb.observe(MIN_FREED_BYTES - 1, Millis(2_000)) && !ebb.observe(0, Millis(2_001)));
        assert_eq!(ebb.next_check(), None, "not worth it");
    }
}

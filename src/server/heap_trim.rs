//! Detects that much of the memory in use was freed, for allocators that return free pages to the
//! kernel only on request.
//!
//! glibc shrinks its heap from the top only: one block that is still in use keeps all free pages
//! below it. With musl, the free lists of `allocator/free_lists.rs` keep blocks.

use crate::hub::Millis;

/// Freed bytes from which on trimming is worth the walk through the heap.
const MIN_FREED_BYTES: usize = 1024 * 1024;

/// Delay before trimming, and minimum interval. Usage may drop for a moment only, and the walk
/// takes time.
const INTERVAL_MS: u64 = 1_000;

/// Peak of the memory usage, and the time of the next trimming.
#[derive(Default)]
pub(super) struct HeapTrim {
    /// Highest usage since the last trimming, in bytes.
    peak: usize,
    /// `None` unless usage fell below half of the peak.
    next_check: Option<Millis>,
}

impl HeapTrim {
    /// Observes the memory usage in bytes. Returns whether to trim the heap now.
    pub(super) fn observe(&mut self, usage: usize, now: Millis) -> bool {
        self.peak = self.peak.max(usage);
        let is_due = self.next_check.is_some_and(|due| due <= now);
        if is_due {
            *self = Self { peak: usage, next_check: None };
        } else if self.next_check.is_none()
            && usage < self.peak / 2
            && self.peak - usage >= MIN_FREED_BYTES
        {
            self.next_check = Some(now.after(INTERVAL_MS));
        }
        is_due
    }

    /// Time of the next trimming.
    pub(super) fn next_check(&self) -> Option<Millis> {
        self.next_check
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_is_trimmed_a_second_after_usage_fell_by_much() {
        let mut trim = HeapTrim::default();
        let high = 10 * MIN_FREED_BYTES;
        assert!(!trim.observe(high, Millis(0)) && !trim.observe(high / 2, Millis(1)));
        assert_eq!(trim.next_check(), None, "half of the peak is in use");
        for (usage, time) in [(high / 3, 2), (high, 500), (0, 1_001)] {
            assert!(!trim.observe(usage, Millis(time)), "{usage} bytes after {time} ms");
        }
        assert!(trim.observe(0, Millis(1_002)));
        assert_eq!(trim.next_check(), None);
        assert!(!trim.observe(MIN_FREED_BYTES - 1, Millis(2_000)));
        assert!(!trim.observe(0, Millis(2_001)));
        assert_eq!(trim.next_check(), None, "too little was freed");
    }
}

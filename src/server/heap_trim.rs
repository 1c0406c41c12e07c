//! Notices when much of what was held is let go, for allocators that have to be told to give free pages back.
//!
//! glibc's lets go of its heap from the top only: what lives on above what was freed keeps all of it. Before musl's stand spares of ours.

use crate::hub::Millis;

/// Less than this is not worth the walk through the heap.
const WORTHWHILE_BYTES: usize = 1024 * 1024;

/// What is held may go up and down within a moment, and the walk takes a while.
const PAUSE_MS: u64 = 1_000;

/// How much was held, and when to give back what is free since.
#[derive(Default)]
pub(super) struct Ebb {
    highest: usize,
    due: Option<Millis>,
}

impl Ebb {
    /// So much is held now. Tells whether to give back what is free.
    pub(super) fn note(&mut self, held: usize, now: Millis) -> bool {
        self.highest = self.highest.max(held);
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            *self = Self { highest: held, due: None };
        } else if self.due.is_none() && held < self.highest / 2 && self.highest - held >= WORTHWHILE_BYTES {
            self.due = Some(now.after(PAUSE_MS));
        }
        is_due
    }

    pub(super) fn due(&self) -> Option<Millis> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_given_back_once_a_while_after_much_was_let_go() {
        let mut ebb = Ebb::default();
        let high = 10 * WORTHWHILE_BYTES;
        assert!(!ebb.note(high, Millis(0)) && !ebb.note(high / 2, Millis(1)));
        assert_eq!(ebb.due(), None, "half of it is still there");
        assert!(!ebb.note(high / 3, Millis(2)) && !ebb.note(high, Millis(500)) && !ebb.note(0, Millis(1_001)));
        assert!(ebb.note(0, Millis(1_002)));
        assert_eq!(ebb.due(), None);
        assert!(!ebb.note(WORTHWHILE_BYTES - 1, Millis(2_000)) && !ebb.note(0, Millis(2_001)));
        assert_eq!(ebb.due(), None, "not worth it");
    }
}

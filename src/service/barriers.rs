//! Clients whose calls wait until this process has applied what other nodes have acknowledged.

use std::collections::VecDeque;

use crate::hub::{Key, Millis};

/// Longest wait for the end of the log. Then calls are answered from local state.
const WAIT_MAX_MS: u64 = 1_000;

/// Clients whose calls wait for a barrier.
#[derive(Default)]
pub(super) struct Barriers {
    /// They wait for the next barrier, since this time.
    pub(super) waiting: Vec<Key>,
    pub(super) waiting_since: Option<Millis>,
    /// Barriers that the log was asked for, oldest first.
    pub(super) pending: VecDeque<PendingBarrier>,
}

/// A barrier that the log was asked for.
pub(super) struct PendingBarrier {
    pub(super) since: Millis,
    pub(super) clients: Vec<Key>,
    /// This process joins the cluster then.
    pub(super) joins: bool,
}

impl Barriers {
    /// Returns the time at which calls no longer wait.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let pending = self.pending.iter().find(|barrier| !barrier.clients.is_empty());
        let since = pending.map(|barrier| barrier.since);
        Millis::earliest([since, self.waiting_since]).map(|since| since.after(WAIT_MAX_MS))
    }

    /// Returns the memory of the lists, in bytes.
    pub(super) fn memory(&self) -> usize {
        let pending: usize = self.pending.iter().map(|barrier| barrier.clients.capacity()).sum();
        (self.waiting.capacity() + pending) * size_of::<Key>()
    }

    /// Takes the clients that have waited too long.
    pub(super) fn take_late(&mut self, now: Millis) -> Vec<Key> {
        let mut late = Vec::new();
        for barrier in &mut self.pending {
            if barrier.since.after(WAIT_MAX_MS) <= now {
                late.append(&mut barrier.clients);
            }
        }
        if self.waiting_since.is_some_and(|since| since.after(WAIT_MAX_MS) <= now) {
            self.waiting_since = None;
            late.append(&mut self.waiting);
        }
        late
    }
}

//! Phases of the service: it serves, then drains or stops, and ends.

use super::limits::DRAIN_TIMEOUT_MS;
use crate::hub::{Key, Millis};

/// Interval at which some of the pending reads are completed while the service drains.
const DRAIN_STEP_MS: u64 = 20;

/// Phase of the service.
pub(super) enum Phase {
    /// Next: `Draining`, `Stopping`.
    Serving,
    /// Another process serves. This one completes pending reads over some time, and transfers idle
    /// clients. Next: the end, once no client is left or at the drain's deadline.
    Draining(Drain),
    /// Only responses that are already queued are sent. Next: the end, once they are sent or at the
    /// deadline.
    Stopping { deadline: Millis },
}

impl Phase {
    pub(super) fn is_draining(&self) -> bool {
        matches!(self, Self::Draining(_))
    }

    /// Returns the time at which the phase has something to do, if no event comes before.
    pub(super) fn next_deadline(&self, now: Millis) -> Option<Millis> {
        match self {
            Self::Serving => None,
            Self::Draining(drain) if drain.pending.is_empty() => Some(drain.deadline),
            Self::Draining(drain) => Some(drain.deadline.min(now.after(DRAIN_STEP_MS))),
            Self::Stopping { deadline } => Some(*deadline),
        }
    }
}

/// Pending reads that are still to be completed while the service drains.
pub(super) struct Drain {
    /// Time at which the drain ends, even with unsent responses.
    pub(super) deadline: Millis,
    since: Millis,
    /// Time over which the reads are completed, so that their clients do not all return at once.
    spread_ms: u64,
    /// Clients whose reads are still to be completed, in reverse order.
    pending: Vec<Key>,
    /// Length of `pending` at the start.
    total: usize,
}

impl Drain {
    /// Starts a drain that completes the reads of these clients.
    pub(super) fn new(since: Millis, spread_ms: u64, pending: Vec<Key>) -> Self {
        let deadline = since.after(DRAIN_TIMEOUT_MS);
        Self { deadline, since, spread_ms, total: pending.len(), pending }
    }

    /// Takes the clients whose reads are due to be completed.
    pub(super) fn take_due(&mut self, now: Millis) -> Vec<Key> {
        let elapsed_ms = (now.0 - self.since.0).min(self.spread_ms);
        let left = (self.total as u64 * (self.spread_ms - elapsed_ms))
            .checked_div(self.spread_ms)
            .unwrap_or(0);
        self.pending.split_off((left as usize).min(self.pending.len()))
    }
}

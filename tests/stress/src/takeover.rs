//! Upgrades of the run, and which clients the server may close because of them.

use std::time::{Duration, Instant};

/// Time that a predecessor has for clients that take their response slowly.
const LEAVE_MAX: Duration = Duration::from_secs(30);
/// Time that a busy kernel may take to report the end of a process's connections.
const END_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Takeover {
    /// One process is taking over from another: streams end.
    pub(crate) is_under_way: bool,
    /// End of the last takeover.
    pub(crate) ended: Option<Instant>,
    /// Time at which a process was last killed from which another had taken over.
    pub(crate) cut_at: Option<Instant>,
    pub(crate) upgrades: u64,
    /// Longest time until a predecessor had left.
    pub(crate) longest: Duration,
}

impl Takeover {
    /// Says whether a stream that was asked for then may end: its process ends, or did just now.
    pub(crate) fn may_end_stream(&self, asked: Instant, now: Instant) -> bool {
        self.is_under_way || self.ended.is_some_and(|end| asked < end && end + END_MAX > now)
    }

    /// Says whether a client of that age may be closed: its process was killed just now.
    pub(crate) fn was_cut(&self, opened: Instant, now: Instant) -> bool {
        self.cut_at.is_some_and(|at| opened < at && at + END_MAX > now)
    }

    /// Says whether a slow reader of that age may be closed: its process is leaving, or did not
    /// long ago.
    pub(crate) fn may_end_slow(&self, opened: Instant, now: Instant) -> bool {
        let may_end = |end: Instant| opened < end && end + LEAVE_MAX + END_MAX > now;
        self.is_under_way || self.ended.is_some_and(may_end)
    }

    /// Says whether some of the time since then was during an upgrade.
    pub(crate) fn was_since(&self, since: Instant) -> bool {
        self.is_under_way || self.ended.is_some_and(|end| since < end)
    }
}

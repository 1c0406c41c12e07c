//! Counters and gauges of a hub.

use super::message::{MessageKind, Reason};

/// Reason for dropping a message from history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The channel had more messages than `history`; also if it retains none.
    Count,
    /// The message was older than `retention`.
    Age,
    /// The memory limit was reached.
    Memory,
}

/// Sizes of a hub's tables at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Channels.
    pub channels: usize,
    /// Sessions.
    pub sessions: usize,
    /// Readers.
    pub readers: usize,
    /// Timers of channels and sessions.
    pub timers: usize,
    /// Messages retained in all channels.
    pub messages: usize,
}

/// Counts since this process started. In a process that started empty, each message that was added
/// is retained, or was dropped for one of the reasons.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    messages: u64,
    introductions: u64,
    removals: u64,
    goodbyes: [u64; Reason::ALL.len()],
    dropped: [u64; DropReason::ALL.len()],
    deliveries: u64,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::Count, Self::Age, Self::Memory];

    /// Returns the reason as a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Age => "age",
            Self::Memory => "memory",
        }
    }
}

impl Stats {
    /// Returns the number of messages added, by type.
    #[must_use]
    pub fn messages(&self) -> [(&'static str, u64); 4] {
        [
            ("message", self.messages),
            ("introduction", self.introductions),
            ("goodbye", self.goodbyes.iter().sum()),
            ("removal", self.removals),
        ]
    }

    /// Returns the number of goodbyes added for this reason. A session that ends adds one to each
    /// of its channels.
    #[must_use]
    pub fn goodbyes(&self, reason: Reason) -> u64 {
        self.goodbyes[reason as usize]
    }

    /// Returns the number of messages dropped from history for this reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Returns the number of replies to readers that had something to report: one per long poll,
    /// any number per stream.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    pub(super) fn count_added(&mut self, kind: &MessageKind<'_>) {
        match kind {
            MessageKind::Message { .. } => self.messages += 1,
            MessageKind::Introduction { .. } => self.introductions += 1,
            MessageKind::Goodbye { reason, .. } => self.goodbyes[*reason as usize] += 1,
            MessageKind::Removal { .. } => self.removals += 1,
        }
    }

    pub(super) fn count_dropped(&mut self, reason: DropReason, messages: usize) {
        self.dropped[reason as usize] += messages as u64;
    }

    pub(super) fn count_delivery(&mut self) {
        self.deliveries += 1;
    }
}

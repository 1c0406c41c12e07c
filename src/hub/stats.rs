//! What the hub has done since it began, in plain numbers. Nobody asks for them on the way of a message.

use super::message::{MessageKind, Reason};

/// Why history let go of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// More came than a channel retains; also where it retains none.
    Count,
    /// It was retained for as long as any is.
    Age,
    /// There was no memory left for others.
    Memory,
}

/// Numbers of what a hub holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Channels.
    pub channels: usize,
    /// Sessions.
    pub sessions: usize,
    /// Waiting reads.
    pub readers: usize,
    /// Timers of channels and sessions.
    pub timers: usize,
    /// Messages retained in all channels.
    pub messages: usize,
}

/// Counts since the hub began. Every message that was added is retained, or was dropped for one of the reasons.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    messages: u64,
    introductions: u64,
    goodbyes: [u64; Reason::ALL.len()],
    dropped: [u64; DropReason::ALL.len()],
    deliveries: u64,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Count, Self::Age, Self::Memory];

    /// A word for it.
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
    /// Messages that were added, by type.
    #[must_use]
    pub fn messages(&self) -> [(&'static str, u64); 3] {
        let goodbyes = self.goodbyes.iter().sum();
        [("message", self.messages), ("introduction", self.introductions), ("goodbye", goodbyes)]
    }

    /// Goodbyes that were added, each in its channel.
    #[must_use]
    pub fn goodbyes(&self, reason: Reason) -> u64 {
        self.goodbyes[reason as usize]
    }

    /// Messages that history let go of.
    #[must_use]
    pub fn dropped(&self, why: DropReason) -> u64 {
        self.dropped[why as usize]
    }

    /// How often a read that waited was given what it waited for: once for a long poll, and for a stream each time that
    /// something came.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    pub(super) fn count_added(&mut self, content: &MessageKind<'_>) {
        match content {
            MessageKind::Message { .. } => self.messages += 1,
            MessageKind::Introduction { .. } => self.introductions += 1,
            MessageKind::Goodbye { reason, .. } => self.goodbyes[*reason as usize] += 1,
        }
    }

    pub(super) fn count_dropped(&mut self, why: DropReason, messages: usize) {
        self.dropped[why as usize] += messages as u64;
    }

    pub(super) fn count_delivery(&mut self) {
        self.deliveries += 1;
    }
}

//! What a channel holds, or all of them.

/// What a channel holds, or all of them.
#[derive(Clone, Copy, Default)]
pub(super) struct Usage {
    /// Of messages, members and names.
    pub(super) bytes: usize,
    /// Of the messages alone.
    pub(super) history: usize,
    /// How many messages those are.
    pub(super) messages: usize,
}

impl Usage {
    /// One part of it has changed.
    pub(super) fn update(&mut self, before: Self, after: Self) {
        self.bytes = self.bytes + after.bytes - before.bytes;
        self.history = self.history + after.history - before.history;
        self.messages = self.messages + after.messages - before.messages;
    }
}

/// What an allocation takes beside what was asked for, on average: a header, and rounding up to 16 bytes.
pub(super) const ALLOCATION: usize = 16;

//! Accounting of memory.

use std::cell::Cell;
use std::rc::Rc;

/// Memory of one channel, or of all channels.
#[derive(Clone, Copy, Default)]
pub(super) struct Usage {
    /// Bytes of messages, members and names.
    pub(super) bytes: usize,
    /// Bytes of messages.
    pub(super) history: usize,
    /// Number of messages.
    pub(super) messages: usize,
}

impl Usage {
    /// Replaces the share `before` of one channel by `after`.
    pub(super) fn update(&mut self, before: Self, after: Self) {
        self.bytes = self.bytes + after.bytes - before.bytes;
        self.history = self.history + after.history - before.history;
        self.messages = self.messages + after.messages - before.messages;
    }
}

/// Bytes that are counted in a total until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    bytes: usize,
    total: Rc<Cell<usize>>,
}

impl Counted {
    pub(crate) fn new(bytes: usize, total: &Rc<Cell<usize>>) -> Self {
        total.set(total.get() + bytes);
        Self { bytes, total: Rc::clone(total) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.bytes);
    }
}

/// Average overhead of an allocation: a header, and rounding up to 16 bytes.
pub(super) const ALLOCATION_BYTES: usize = 16;

/// Memory of a message without its text, including a channel and a session that it may create. An
/// estimate.
pub(super) const WRITE_OVERHEAD_BYTES: usize = 512;

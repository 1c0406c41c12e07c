//! Readers: pending reads.

use super::slab::Key;
use super::usage::ALLOCATION_BYTES;

/// Start of a read: the four forms of `from_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Above 0: messages with this id and later.
    Id(u64),
    /// 0: all retained messages, and the newest introduction of each member.
    All,
    /// -N: the last N retained messages.
    Last(u64),
    /// Absent: messages from now on.
    Now,
}

/// Reaction to a gap: history has dropped messages that the reader has not got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GapPolicy {
    /// `from_id` was above 0: the slice reports `missed`.
    Report,
    /// `from_id` was 0: the slice has the newest introduction of each member.
    FullState,
    /// `from_id` was absent or negative: nothing.
    Ignore,
}

/// One channel of a reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    /// Index of the channel.
    pub(super) channel: u32,
    pub(super) gap_policy: GapPolicy,
    /// First id that the reader has not got.
    pub(super) cursor: u64,
}

/// Channels of a reader, in the order of the request. One is the common case and needs no
/// allocation.
#[derive(Debug)]
pub(super) enum Subscriptions {
    One([Subscription; 1]),
    Many(Box<[Subscription]>),
}

impl Subscriptions {
    pub(super) fn as_slice(&self) -> &[Subscription] {
        match self {
            Self::One(subscription) => subscription,
            Self::Many(subscriptions) => subscriptions,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Subscription] {
        match self {
            Self::One(subscription) => subscription,
            Self::Many(subscriptions) => subscriptions,
        }
    }
}

/// Kind of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderKind {
    /// Waits until its reply.
    LongPoll,
    /// Waits until it is closed.
    Stream,
    /// A stream whose last reply has not been sent yet. It gets no other reply until then.
    PausedStream,
}

/// A pending read.
#[derive(Debug)]
pub(super) struct Reader {
    /// Number that the caller chose, returned in wake-ups.
    pub(super) token: u64,
    pub(super) subscriptions: Subscriptions,
    /// Index of the session that the reader keeps alive.
    pub(super) session: Option<u32>,
    /// Time that the session survives if the client closes the read, in milliseconds.
    pub(super) grace_ms: u32,
    pub(super) kind: ReaderKind,
}

/// Key of a reader, valid until the reader is completed or closed.
pub type ReaderKey = Key;

/// Memory of a reader, with its keys in the lists of its channel and of its session.
pub(super) const READER_BYTES: usize =
    size_of::<Reader>() + 16 + 2 * size_of::<u64>() + ALLOCATION_BYTES;

/// Memory of each channel of a reader that has several, without the channel's name.
pub(super) const SUBSCRIPTION_BYTES: usize =
    size_of::<Subscription>() + 2 * size_of::<u64>() + 2 * ALLOCATION_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_at_most_48_bytes() {
        assert!(size_of::<Reader>() <= 48, "{}", size_of::<Reader>());
    }
}

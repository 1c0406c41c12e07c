//! Waiting reads, and what a read asks for.

use super::slab::Key;

/// Where a read begins: the four forms of `from_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Above 0: this id and later.
    Id(u64),
    /// 0: everything retained, and the newest introduction of all who are there.
    All,
    /// -N: the last N retained.
    Last(u64),
    /// Absent: what comes from now on.
    Now,
}

/// What a waiting read was promised, on one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GapPolicy {
    /// `from_id` was above 0: told of every gap.
    Report,
    /// `from_id` was 0: the newest introductions too.
    FullState,
    /// `from_id` was absent or negative.
    Ignore,
}

/// A waiting read's place on one channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    pub(super) channel: u32,
    pub(super) promise: GapPolicy,
    /// The first id that it has not been given.
    pub(super) cursor: u64,
}

/// The channels of a waiting read, in the order asked. One is the common case and costs no allocation.
#[derive(Debug)]
pub(super) enum Subscriptions {
    One([Subscription; 1]),
    Many(Box<[Subscription]>),
}

impl Subscriptions {
    pub(super) fn of<T>(
        mut asked: impl ExactSizeIterator<Item = T>,
        seat: impl FnMut(T) -> Subscription,
    ) -> Self {
        match (asked.len(), asked.next()) {
            (1, Some(one)) => Self::One([one].map(seat)),
            (_, first) => Self::Many(first.into_iter().chain(asked).map(seat).collect()),
        }
    }

    pub(super) fn as_slice(&self) -> &[Subscription] {
        match self {
            Self::One(seat) => seat,
            Self::Many(seats) => seats,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Subscription] {
        match self {
            Self::One(seat) => seat,
            Self::Many(seats) => seats,
        }
    }
}

/// How long a waiting read stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderKind {
    /// A long poll: until it is answered.
    LongPoll,
    /// A stream: until it is closed.
    Stream,
    /// A stream that has not got all that there is, and does not get more before it has taken that.
    PausedStream,
}

/// A `/read` that waits.
#[derive(Debug)]
pub(super) struct Reader {
    /// Whom to answer: the caller's own word for it.
    pub(super) token: u64,
    pub(super) seats: Subscriptions,
    /// The connection that it keeps alive, by place.
    pub(super) connection: Option<u32>,
    pub(super) kind: ReaderKind,
}

/// The name of a waiting read, until it is answered or closed.
pub type ReaderKey = Key;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_read_stays_small() {
        assert!(size_of::<Reader>() <= 48, "{}", size_of::<Reader>());
    }
}

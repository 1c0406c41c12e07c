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
pub(super) enum Promise {
    /// `from_id` was above 0: told of every gap.
    Gapless,
    /// `from_id` was 0: the newest introductions too.
    Newcomer,
    /// `from_id` was absent or negative.
    Plain,
}

/// A waiting read's place on one channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    pub(super) channel: u32,
    pub(super) promise: Promise,
    /// The first id that it has not been given.
    pub(super) cursor: u64,
}

/// The channels of a waiting read, in the order asked. One is the common case and costs no allocation.
#[derive(Debug)]
pub(super) enum Seats {
    One([Seat; 1]),
    Many(Box<[Seat]>),
}

impl Seats {
    pub(super) fn of<T>(mut asked: impl ExactSizeIterator<Item = T>, seat: impl FnMut(T) -> Seat) -> Self {
        match (asked.len(), asked.next()) {
            (1, Some(one)) => Self::One([one].map(seat)),
            (_, first) => Self::Many(first.into_iter().chain(asked).map(seat).collect()),
        }
    }

    pub(super) fn as_slice(&self) -> &[Seat] {
        match self {
            Self::One(seat) => seat,
            Self::Many(seats) => seats,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Seat] {
        match self {
            Self::One(seat) => seat,
            Self::Many(seats) => seats,
        }
    }
}

/// How long a waiting read stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// A long poll: until it is answered.
    Once,
    /// A stream: until it is closed.
    On,
    /// A stream that has not got all that there is, and does not get more before it has taken that.
    Behind,
}

/// A `/read` that waits.
#[derive(Debug)]
pub(super) struct Reader {
    /// Whom to answer: the caller's own word for it.
    pub(super) client: u64,
    pub(super) seats: Seats,
    /// The connection that it keeps alive, by place.
    pub(super) connection: Option<u32>,
    pub(super) stay: Stay,
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

//! A user: a small state machine that comes, reads, talks and leaves.

use crate::link::Token;
use crate::read::{Identity, Read};

/// Kind of a user, until he leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Sort {
    /// Introduces himself, reads and talks.
    #[default]
    Resident,
    /// Writes a few messages without a name, and reads nothing.
    Passer,
    /// Reads a few bytes at a time, without a name.
    SlowReader,
    /// Follows a large channel, and takes nothing of it.
    Clogger,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum State {
    #[default]
    Away,
    /// Has called `/introduce`.
    Arriving,
    Here,
    /// Leaves, once so many more barriers are answered.
    Leaving(LeaveMode, u8),
    /// Lost the server, and comes back.
    Adrift,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LeaveMode {
    /// `/goodbye` to all channels.
    Goodbye,
    ChannelByChannel,
    /// Closes the pending read.
    Close,
    Reset,
    /// Shuts down sending, and continues to read.
    HalfClose,
    /// Calls no more.
    Silence,
}

pub(crate) const LEAVE_MODES: [(LeaveMode, u64); 6] = [
    (LeaveMode::Goodbye, 25),
    (LeaveMode::ChannelByChannel, 10),
    (LeaveMode::Close, 20),
    (LeaveMode::Reset, 15),
    (LeaveMode::HalfClose, 15),
    (LeaveMode::Silence, 15),
];

#[derive(Default)]
pub(crate) struct User {
    pub(crate) sort: Sort,
    pub(crate) state: State,
    pub(crate) identity: Option<Identity>,
    /// The identity is of a server that is gone.
    pub(crate) is_stale: bool,
    /// Channels in which he is introduced.
    pub(crate) channels: Vec<usize>,
    pub(crate) write_conn: Option<Token>,
    pub(crate) read_conn: Option<Token>,
    /// A read that ended with its server, to be continued.
    pub(crate) resumes: Option<Read>,
    pub(crate) acts_left: u64,
    /// Number of his valid timer.
    pub(crate) timer: u32,
}

impl User {
    pub(crate) fn number(&self) -> u64 {
        self.identity.as_ref().map_or(0, |identity| identity.number)
    }
}

/// Instruction to all users.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Churn,
    /// Present users stay, and write nothing.
    Pause,
    /// All leave.
    Clear,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Due {
    /// A user acts, unless he was given another time since.
    User(u32, u32),
    Brief(Token),
}

//! Errors of calls.

/// Reason for rejecting a call. A rejected call changes nothing, except that it may evict history
/// and idle channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No session has this number: it has ended, or never existed.
    SessionEnded,
    /// The end of the session with this number waits for its place in the log. If it gets there,
    /// the session has ended for this call too.
    SessionEnding(u64),
    /// The secret is not that of the session.
    WrongAuth,
    /// The session is in [`CHANNELS_PER_SESSION_MAX`](super::CHANNELS_PER_SESSION_MAX) channels.
    TooManyChannels,
    /// The session has [`READS_PER_SESSION_MAX`](super::READS_PER_SESSION_MAX) readers.
    TooManyReads,
    /// The call would create more channels than the operator allows.
    OverCapacity,
    /// The call would need more memory than the limit leaves, and there is no history to evict.
    OutOfMemory,
    /// The channel has not given an id to a message yet.
    UnknownMessage,
    /// The address of the client was sent away from the channel.
    SentAway,
    /// The log does not take another command for now.
    LogBehind,
    /// The node of the record is not in the cluster. The command has no effect, in any process.
    NotJoined,
}

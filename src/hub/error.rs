//! Why a call was refused.

/// Why a call was refused. Nothing was changed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No such connection now.
    SessionEnded,
    /// The connection lives, and the secret is not its own.
    WrongAuth,
    /// The connection is in [`CHANNELS_PER_CONNECTION_MAX`] channels already.
    TooManyChannels,
    /// [`READS_PER_CONNECTION_MAX`](super::READS_PER_CONNECTION_MAX) reads wait with the connection already.
    TooManyReads,
    /// One channel more than the operator allows.
    OverCapacity,
    /// No memory for what the call would add, and no history left that could make room.
    OutOfMemory,
}

//! Commands: changes of shared state, as a log orders them.
//!
//! A command holds everything that is random or local, already decided. So applying the same
//! commands in the same order, with the same times, gives the same shared state in every process.

use minicbor::{Decode, Encode};

use super::ids::TOKEN_BYTES;
use super::message::Reason;
use super::session::Introduced;

/// A change of shared state. Commands hold secrets, so they have no `Debug`.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Command<'a> {
    /// Adds a message.
    #[n(0)]
    Write {
        /// Name of the channel; of a pair, the write name.
        #[b(0)]
        channel: &'a str,
        /// Number of the session that proved itself.
        #[n(1)]
        from: Option<u64>,
        /// Text of the message.
        #[b(2)]
        text: &'a str,
    },
    /// Introduces a session in a channel.
    #[n(1)]
    Introduce {
        /// Name of the channel; of a pair, the write name.
        #[b(0)]
        channel: &'a str,
        /// The session.
        #[n(1)]
        session: Introducing,
        /// Text of the introduction.
        #[b(2)]
        text: &'a str,
    },
    /// Removes a session from one channel.
    #[n(2)]
    Leave {
        /// Name of the channel; of a pair, the write name.
        #[b(0)]
        channel: &'a str,
        /// Number of the session.
        #[n(1)]
        session: u64,
        /// Text of the goodbye.
        #[b(2)]
        text: Option<&'a str>,
    },
    /// Ends a session, with a goodbye in each of its channels.
    #[n(3)]
    End {
        /// Number of the session.
        #[n(0)]
        session: u64,
        /// Reason of the goodbyes.
        #[n(1)]
        reason: Reason,
        /// Text of the goodbyes.
        #[b(2)]
        text: Option<&'a str>,
    },
    /// Begins a numbering of ids: the first command of a log, and again if a part of the log may be
    /// lost.
    #[n(5)]
    Begin {
        /// Name of the numbering.
        #[cbor(n(0), with = "minicbor::bytes")]
        epoch: [u8; 8],
        /// Key of the hash that assigns channel names to id watermarks. `None` if it stays.
        #[cbor(n(1), with = "minicbor::bytes")]
        watermark_hash_key: Option<[u8; 16]>,
    },
    /// Drops a channel that has had no message and no member since it was proposed.
    #[n(4)]
    DropChannel {
        /// Name of the channel; of a pair, the write name.
        #[b(0)]
        channel: &'a str,
        /// Next id of the channel when the command was proposed. If the channel has another one,
        /// the command has no effect.
        #[n(1)]
        next_id: u64,
    },
}

/// Session of an introduction.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Introducing {
    /// A new session with this secret. Its number is one above the last.
    #[n(0)]
    New(#[cbor(n(0), with = "minicbor::bytes")] [u8; TOKEN_BYTES]),
    /// The session with this number.
    #[n(1)]
    Existing(#[n(0)] u64),
}

/// Result of a command.
pub enum Applied {
    /// Id of the new message.
    Written(u64),
    /// The introduction.
    Introduced(Introduced),
    /// The session has left, or has ended.
    Gone,
    /// The command changed nothing that its proposer waits for.
    Nothing,
}

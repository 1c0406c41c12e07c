//! Commands: changes of shared state, as a log orders them.
//!
//! A command holds everything that is random or local, already decided. So applying the same
//! commands in the same order, with the same times, gives the same shared state in every process.

use minicbor::{Decode, Encode};

use super::ids::TOKEN_BYTES;
use super::message::Reason;
use super::session::Introduced;

/// A change of shared state. Commands hold secrets, so they have no `Debug`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command<'a> {
    /// Adds a message.
    #[n(0)]
    Write {
        /// Name of the channel; of a pair, the name that is given away.
        #[b(0)]
        channel: &'a str,
        /// Number of the session that proved itself.
        #[n(1)]
        from: Option<u64>,
        /// Text of the message.
        #[b(2)]
        text: &'a str,
        /// `Some(true)` under the name of the room's owner, else `None`, as in records of earlier
        /// versions.
        #[n(3)]
        is_owner: Option<bool>,
    },
    /// Introduces a session in a channel.
    #[n(1)]
    Introduce {
        /// Name of the channel; of a pair, the name that is given away.
        #[b(0)]
        channel: &'a str,
        /// The session.
        #[n(1)]
        session: Introducing,
        /// Text of the introduction.
        #[b(2)]
        text: &'a str,
        /// As for a message.
        #[n(3)]
        is_owner: Option<bool>,
        /// Number of the address of the client, if it has one.
        #[n(4)]
        address: Option<u64>,
    },
    /// Removes a session from one channel.
    #[n(2)]
    Leave {
        /// Name of the channel; of a pair, the name that is given away.
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
        #[cbor(n(0), with = "super::ids::cbor")]
        epoch: [u8; 8],
        /// Key of the hash that assigns channel names to id watermarks. `None` if it stays.
        #[cbor(n(1), with = "minicbor::bytes")]
        watermark_hash_key: Option<[u8; 16]>,
    },
    /// Drops a channel that has had no message and no member since it was proposed.
    #[n(4)]
    DropChannel {
        /// Name of the channel; of a pair, the name that is given away.
        #[b(0)]
        channel: &'a str,
        /// Next id of the channel when the command was proposed. If the channel has another one,
        /// the command has no effect.
        #[n(1)]
        next_id: u64,
    },
    /// Adds the node of the record to the cluster.
    #[n(6)]
    Join {
        /// Settings of the node.
        #[n(0)]
        settings: SharedSettings,
    },
    /// Shows that the node lives.
    #[n(7)]
    Heartbeat {
        /// Position of a record that the node has applied.
        #[n(0)]
        position: u64,
        /// Hash after that record.
        #[n(1)]
        hash: u64,
        /// Channels whose readers at the node have become more or fewer, with their number.
        #[b(2)]
        readers: Vec<(&'a str, u32)>,
    },
    /// Makes the node hold a session.
    #[n(8)]
    Hold {
        /// Number of the session.
        #[n(0)]
        session: u64,
        /// Channels of the long poll that begins at the node.
        #[b(1)]
        polls: Vec<&'a str>,
    },
    /// Makes the node hold a session no longer. The last release ends it.
    #[n(9)]
    Release {
        /// Number of the session.
        #[n(0)]
        session: u64,
        /// Time of the log by which the node expects it there, in milliseconds since 1970. It is
        /// void if it comes much later.
        #[n(1)]
        expected_ms: u64,
        /// Position up to which the node had applied the log when a reader was closed whose grace
        /// period is over. `None` if the client has been silent for the timeout.
        #[n(2)]
        closed_position: Option<u64>,
        /// Position up to which the node had applied the log when it decided this.
        #[n(3)]
        decided_position: u64,
    },
    /// Removes a dead node, whose sessions the node of the record holds then.
    #[n(10)]
    Bury {
        /// The dead node.
        #[n(0)]
        node: u64,
        /// Number of its last record. Void if there was another one.
        #[n(1)]
        sequence: u64,
    },
    /// Removes the node of the record, which stops.
    #[n(11)]
    Part {
        /// Node that holds its sessions then.
        #[n(0)]
        heir: Option<u64>,
    },
    /// Removes a message.
    #[n(12)]
    Remove {
        /// Name of the channel; of a pair, the name that is given away.
        #[b(0)]
        channel: &'a str,
        /// Id of the message.
        #[n(1)]
        id: u64,
    },
    /// Sends a session away from a channel.
    #[n(13)]
    Kick {
        /// Name of the channel; of a pair, the name that is given away.
        #[b(0)]
        channel: &'a str,
        /// Number of the session.
        #[n(1)]
        session: u64,
        /// Seconds for which its address may not add to the channel; 0 for none.
        #[n(2)]
        seconds: u32,
        /// Text of the goodbye.
        #[b(3)]
        text: Option<&'a str>,
    },
}

/// Options that all processes which share a log must have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SharedSettings {
    /// `--history`: messages of a channel.
    #[n(0)]
    pub history: u64,
    /// `--retention`, in milliseconds.
    #[n(1)]
    pub retention_ms: u64,
    /// `--connection-timeout`, in milliseconds.
    #[n(2)]
    pub session_timeout_ms: u64,
}

/// Session of an introduction.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Introducing {
    /// A new session with this secret. Its number is one above the last.
    #[n(0)]
    New(#[cbor(n(0), with = "super::ids::cbor")] [u8; TOKEN_BYTES]),
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
    /// The node does not join, since the cluster has these settings.
    Mismatch(SharedSettings),
    /// The command changed nothing that its proposer waits for.
    Nothing,
}

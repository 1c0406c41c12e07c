//! A connection to Redis, as its users see it.

use std::fmt;

use super::value::Value;

/// A connection to Redis, which reconnects by itself. Replies come in the order of the commands.
///
/// Nothing is sent twice: a command that has no reply when the connection ends was executed or not.
pub trait Connection {
    /// Sends a command. Drops it unless [`Event::Connected`] was polled, and the connection has not
    /// ended since.
    fn send(&mut self, args: &[&[u8]]);

    /// Returns the next event.
    fn poll(&mut self) -> Option<Event>;

    /// Ends the connection, drops all events that were not polled, and reconnects after a delay.
    /// Returns without an event for the end.
    fn reset(&mut self);

    /// Bytes that wait to be sent, and bytes that were received and not polled.
    fn buffered_bytes(&self) -> usize;
}

/// What happened to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a connection. The server has accepted the password, and is not loading its data.
    Connected(ServerInfo),
    /// Reply to the first command that had none.
    Reply(Value),
    /// The connection has ended, or there is none after another attempt. Its commands without a
    /// reply get none.
    Disconnected(Failure),
}

/// Reason why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Description for the log, without secrets.
    pub reason: String,
    /// Later attempts fail too, unless the operator changes something.
    pub needs_operator: bool,
}

/// The server at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Identity of the server's process: another one after a restart, and on another server.
    pub run_id: Box<str>,
    /// Version of Redis, or the one that a compatible server claims to be.
    pub version: (u32, u32, u32),
    /// Unix time of the server in milliseconds, during the handshake.
    pub unix_ms: u64,
    /// The server drops keys when its memory is full: `maxmemory-policy` is not `noeviction`.
    pub evicts: bool,
    /// The server is a primary and not a replica.
    pub is_writable: bool,
}

impl Failure {
    /// Creates a failure that may be over by itself.
    #[must_use]
    pub fn transient(reason: String) -> Self {
        Self { reason, needs_operator: false }
    }

    /// Creates a failure that the operator has to end.
    #[must_use]
    pub fn permanent(reason: String) -> Self {
        Self { reason, needs_operator: true }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

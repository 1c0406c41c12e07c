//! Requests for reads, and their results.

use super::channel_name::ChannelKey;
use super::reader::{ReaderKey, Since};
use super::reply::Reply;
use super::session::Credentials;

/// Limit of channels in one read.
pub const CHANNELS_PER_READ_MAX: usize = 32;

/// A read, without its transport.
pub struct ReadRequest<'a> {
    /// Channels in the order of the request: one to [`CHANNELS_PER_READ_MAX`], all different.
    pub targets: &'a [(ChannelKey<'a>, Since)],
    /// Epoch that the ids belong to, if the caller named one.
    pub epoch: Option<&'a str>,
    /// Session that the read keeps alive.
    pub credentials: Option<Credentials<'a>>,
    /// Time that the session survives if the client closes the read, in milliseconds; at most the
    /// timeout of sessions. [`Config::close_grace`](super::Config::close_grace) applies if it is
    /// longer. `None` for no such time, or for the one that a stream already has.
    pub grace_ms: Option<u64>,
    /// Waiting behaviour.
    pub mode: Mode,
    /// Number that the caller chooses. [`Wake::token`](super::Wake::token) returns it.
    pub token: u64,
}

impl ReadRequest<'_> {
    /// Returns whether the read begins at an id in each channel, whatever the channel has.
    #[cold]
    #[must_use]
    pub fn has_ids(&self) -> bool {
        self.targets.iter().all(|(_, since)| matches!(since, Since::Id(_)))
    }
}

/// Waiting behaviour of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Never waits.
    Immediate,
    /// Waits until there is something to report.
    LongPoll,
    /// Waits until it is closed, and gets every message.
    Stream,
}

/// Result of a read.
pub enum ReadResult<'h> {
    /// Reply to an immediate read, or to a long poll with something to report.
    Ready(Reply<'h>),
    /// The long poll waits. [`Hub::deliver`](super::Hub::deliver) completes it, once.
    Pending(ReaderKey),
    /// The stream waits, and this is its first reply. [`Hub::deliver`](super::Hub::deliver) gives
    /// it the others, until it is closed or completed.
    Streaming(ReaderKey, Reply<'h>),
    /// The read did not start: see [`Hub::read_at`](super::Hub::read_at).
    Behind,
}

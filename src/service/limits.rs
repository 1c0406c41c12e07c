//! Limits of the service: constants, and those that the options set.

/// File descriptors that are not for clients: standard streams, epoll, signals, listeners, the
/// reserve, and rejected clients that still read their response. Generous: running out of
/// descriptors is worse than serving a few clients fewer.
pub(crate) const FILES_RESERVED: usize = 128;

/// Bytes of one read. There is at most one read per client and turn.
pub const READ_BYTES: usize = 64 * 1024;

/// Bytes of responses per client and turn. Prevents one pipelining client from starving the others.
pub const RESPONSE_BYTES_PER_TURN: usize = 256 * 1024;

/// Time for which a lingering client's input is discarded.
pub const LINGER_MS: u64 = 5_000;

/// Time for which queued responses may still be sent after the signal to stop.
pub const SHUTDOWN_TIMEOUT_MS: u64 = 4_500;

/// Time for which clients are still served after a takeover. Longer than
/// [`SHUTDOWN_TIMEOUT_MS`], since nothing waits for this process to exit.
pub(super) const DRAIN_TIMEOUT_MS: u64 = 30_000;

/// Limits for clients, from the options.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLimits {
    /// Time for which a client may stay idle between two requests.
    pub(super) keep_alive_ms: u64,
    /// Time in which a request must arrive completely, and in which a response must make progress.
    pub(super) request_timeout_ms: u64,
    /// Time without output on an event stream, or without input from a WebSocket, after which a
    /// heartbeat is sent.
    pub(super) heartbeat_ms: u64,
    /// Time after which an event stream that carries a session is ended; 0 for no end.
    pub(super) stream_life_ms: u64,
    /// Unsent bytes of one stream. A stream with more is paused or closed as a slow consumer.
    pub(super) max_backlog: usize,
    /// Clients at once from one address; 0 for no limit.
    pub(super) max_per_address: usize,
    /// Bytes of incomplete requests and unsent responses of all clients. The client that exceeds it
    /// is closed.
    pub(super) max_memory: usize,
}

//! Limits of the service: constants, and those that the options set.

/// Rejected clients that may linger at once, so that they can read the error. Further clients are
/// sent the error too, but are closed at once.
const REJECTED_CLIENTS_MAX: usize = 64;

/// Clients of the admin listener at once: some scrapers and an operator. They do not count against
/// the limit of the public listeners.
pub(crate) const ADMIN_CLIENTS_MAX: usize = 16;

/// Limits for the acceptor.
#[derive(Clone, Copy, Debug)]
pub struct AcceptLimits {
    /// Clients at once. Further clients are rejected.
    pub clients: usize,
    /// Rejected clients that may linger at once.
    pub rejected: usize,
}

impl AcceptLimits {
    /// Returns the limits for so many clients, if there are `files` descriptors for rejected
    /// clients.
    #[must_use]
    pub fn new(clients: usize, files: usize) -> Self {
        Self { clients, rejected: files.min(REJECTED_CLIENTS_MAX) }
    }
}

/// Bytes of one read. There is at most one read per client and turn.
pub const READ_BYTES: usize = 64 * 1024;

/// Bytes of responses per client and turn. Prevents one pipelining client from starving the others.
pub const RESPONSE_BYTES_PER_TURN: usize = 256 * 1024;

/// Memory of a handshake of TLS, measured: the state of rustls, and the flights.
pub(super) const HANDSHAKE_BYTES: usize = 4 * 1024;

/// Part of `--max-memory` for handshakes: a fourth. A client that needs more is closed. So clients
/// that never finish leave the rest to the others.
pub(super) const HANDSHAKE_MEMORY_PART: usize = 4;

/// Time for which a lingering client's input is discarded.
pub const LINGER_MS: u64 = 5_000;

/// Time for which queued responses may still be sent after the signal to stop.
pub const SHUTDOWN_TIMEOUT_MS: u64 = 4_500;

/// Time after a takeover in which the handshakes that have begun may end. Nothing of their clients
/// was acknowledged, and the new process cannot continue them.
pub(super) const HANDSHAKE_DRAIN_MS: u64 = SHUTDOWN_TIMEOUT_MS;

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

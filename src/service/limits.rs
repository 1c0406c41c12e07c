//! How long clients may take over things, and how much they may leave lying.

/// File descriptors that are not clients: standard streams, epoll, signals, listeners, the reserve, rejected clients that
/// still read their answer. Generous, since running out is worse than a few clients fewer.
pub(crate) const FILES_RESERVED: usize = 128;

/// How long clients may take over things, and how much they may leave lying.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLimits {
    pub(super) keep_alive_ms: u64,
    pub(super) request_timeout_ms: u64,
    /// How long a stream may be silent.
    pub(super) heartbeat_ms: u64,
    /// Bytes that may wait for one stream.
    pub(super) max_backlog: usize,
    /// Clients that one address may have at once; 0 for no limit.
    pub(super) max_per_address: usize,
    /// Bytes that requests which are not whole and answers which are not taken may take, of all clients.
    pub(super) max_memory: usize,
}

//! Numbers of everything that comes and goes, for tests and simulations.

use crate::hub;

/// Numbers of everything that comes and goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Clients, rejected ones included.
    pub clients: usize,
    /// Clients that are only sent an error.
    pub rejected: usize,
    /// Streams.
    pub streams: usize,
    /// Timers of clients.
    pub timers: usize,
    /// Scheduled clients, deferred events and deferred sends.
    pub deferred: usize,
    /// Addresses with clients, if `--max-clients-per-address` counts them.
    pub addresses: usize,
    /// Bytes in the buffers of clients, as of each one's last count.
    pub memory: usize,
    /// Bytes of encoded responses and updates that are still to be sent, each counted once for all
    /// clients that share it.
    pub encoded_bytes: usize,
    /// Numbers of the hub.
    pub hub: hub::Gauges,
}

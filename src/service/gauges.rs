//! Sizes of tables and queues, for tests and simulations.

use crate::hub;

/// Sizes of the tables and queues of a service at one moment.
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
    /// Sizes of the hub's tables.
    pub hub: hub::Gauges,
}

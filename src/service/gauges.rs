//! How many there are of everything that comes and goes.

use crate::hub;

/// How many there are of everything that comes and goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Clients, those that are merely refused included.
    pub clients: usize,
    /// Clients that are merely refused.
    pub refused: usize,
    /// Clients whose read stays.
    pub streams: usize,
    /// Clients' timers that are set.
    pub timers: usize,
    /// Clients to go on with in the next turn, for whatever there was no time for.
    pub ready: usize,
    /// Addresses that are counted.
    pub addresses: usize,
    /// Bytes that clients hold beside themselves, as they are counted.
    pub memory: usize,
    /// Bytes of answers that somebody has still to take, and that may have several holders.
    pub encoded_bytes: usize,
    /// What the hub has.
    pub hub: hub::Gauges,
}

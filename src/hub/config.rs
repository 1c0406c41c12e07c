//! Settings of a hub.

use std::time::Duration;

use super::ids::Epoch;

/// Limits that the operator chooses, and values that the server draws at random when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Messages retained per channel; 0 retains none. Default: 100.
    pub history: usize,
    /// Age at which a message is dropped. Default: one hour.
    pub retention: Duration,
    /// Time without a call or a reader after which a session ends. Default: 5 seconds.
    pub connection_timeout: Duration,
    /// Time that a session survives the closing of its reader. Default: 0.
    pub close_grace: Duration,
    /// Bytes of messages, or of members, in one reply. A larger message has a reply of its own.
    /// Default: 1 MiB.
    pub max_reply: usize,
    /// Number of channels; 0 means no limit. Default: 0.
    pub max_channels: usize,
    /// Bytes that [`Hub::memory`](super::Hub::memory) counts. Default: no limit.
    pub max_memory: usize,
    /// Name of this numbering of ids. A server draws it at random. Default: eight zeros.
    pub epoch: Epoch,
    /// Key of the hash that assigns dropped channels to id watermarks. A server draws it at random
    /// and keeps it secret. Default: zeros.
    pub watermark_hash_key: [u8; 16],
}

impl Default for Config {
    fn default() -> Self {
        Self {
            history: 100,
            retention: Duration::from_hours(1),
            connection_timeout: Duration::from_secs(5),
            close_grace: Duration::ZERO,
            max_reply: 1 << 20,
            max_channels: 0,
            max_memory: usize::MAX,
            epoch: Epoch::new(*b"00000000"),
            watermark_hash_key: [0; 16],
        }
    }
}

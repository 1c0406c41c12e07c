//! State of a stream.

use super::limits::ClientLimits;
use crate::api::Stream;
use crate::hub::{Millis, ReaderKey};

/// State of a client in `Streaming`, in addition to [`Client`](super::client::Client).
pub(super) struct StreamState {
    pub(super) reader: ReaderKey,
    pub(super) stream: Stream,
    /// Time of the next heartbeat. Each update moves it.
    pub(super) heartbeat_at: Millis,
    /// Consecutive heartbeats without a Pong (WebSocket), or that were not read (event stream).
    pub(super) missed_heartbeats: u8,
    /// Fragments of an incomplete WebSocket message.
    pub(super) fragments: Option<Vec<u8>>,
    /// Time at which the first bytes of an incomplete message or frame arrived.
    pub(super) message_started: Option<Millis>,
    /// Length of an update that alone exceeds the backlog limit, while it is being sent; else 0.
    oversized_bytes: usize,
}

/// Unsent bytes of a stream, compared with `--max-backlog`, after another send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backlog {
    /// At most the limit.
    WithinLimit,
    /// More than the limit, because of a single update. The update is sent to its end, and until
    /// then nothing is added. Otherwise a client that reads could never get an update of that
    /// length in a busy channel.
    OversizedMessage,
    /// More than the limit: the peer is a slow consumer.
    OverLimit,
}

impl StreamState {
    pub(super) fn new(reader: ReaderKey, stream: Stream, heartbeat_at: Millis) -> Self {
        Self {
            reader,
            stream,
            heartbeat_at,
            missed_heartbeats: 0,
            fragments: None,
            message_started: None,
            oversized_bytes: 0,
        }
    }

    /// Returns the bytes of the buffers.
    pub(super) fn memory(&self) -> usize {
        self.fragments.as_ref().map_or(0, Vec::capacity)
    }

    /// Returns the time by which an incomplete message must be complete.
    pub(super) fn message_deadline(&self, limits: ClientLimits) -> Option<Millis> {
        self.message_started.map(|since| since.after(limits.request_timeout_ms))
    }

    /// Returns the time of the next check: the next heartbeat or the deadline of a message.
    pub(super) fn next_check(&self, limits: ClientLimits) -> Millis {
        self.message_deadline(limits).map_or(self.heartbeat_at, |at| at.min(self.heartbeat_at))
    }

    /// Compares `unsent` bytes with the limit. `was_blocked` is true if there were unsent bytes
    /// before the last send.
    pub(super) fn backlog(
        &mut self,
        unsent: Option<usize>,
        was_blocked: bool,
        max: usize,
    ) -> Backlog {
        let Some(bytes) = unsent else { return Backlog::WithinLimit };
        if !was_blocked {
            self.oversized_bytes = if bytes > max { bytes } else { 0 };
        }
        match self.oversized_bytes {
            oversized if bytes > max + oversized => Backlog::OverLimit,
            0 => Backlog::WithinLimit,
            _ => Backlog::OversizedMessage,
        }
    }
}

//! What belongs to a client whose read stays.

use super::limits::ClientLimits;
use crate::api::Stream;
use crate::hub::{Millis, ReaderKey};

/// What belongs to a client whose read stays.
pub(super) struct StreamState {
    pub(super) reader: ReaderKey,
    pub(super) stream: Stream,
    /// When the peer is to be shown that the server lives, if it was told nothing until then.
    pub(super) heartbeat_at: Millis,
    /// Signs of life in a row that the peer did not answer, or did not take.
    pub(super) missed_heartbeats: u8,
    /// A text that is not whole: WebSocket allows it to come in several frames.
    pub(super) fragments: Option<Vec<u8>>,
    /// When the first bytes came of a text that is not whole.
    pub(super) message_started: Option<Millis>,
    /// Bytes of an answer that alone is longer than what may wait for a stream, while it is being sent.
    pub(super) oversized_bytes: usize,
}

/// How much waits for a stream, after something more was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backlog {
    /// No more than may.
    WithinLimit,
    /// More than may, in one answer. It is sent to its end, and until then nothing comes on top of it: a client that
    /// reads would else never get an answer of that size in a channel that goes on.
    OversizedMessage,
    /// More than may.
    OverLimit,
}

impl StreamState {
    /// Bytes that it holds beside itself.
    pub(super) fn memory(&self) -> usize {
        self.fragments.as_ref().map_or(0, Vec::capacity)
    }

    /// When what the peer has begun to say has to be whole.
    pub(super) fn message_deadline(&self, patience: ClientLimits) -> Option<Millis> {
        self.message_started.map(|since| since.after(patience.request_timeout_ms))
    }

    /// When a stream has to be looked at, for its silence or for what its peer leaves half said.
    pub(super) fn next_check(&self, patience: ClientLimits) -> Millis {
        self.message_deadline(patience).map_or(self.heartbeat_at, |at| at.min(self.heartbeat_at))
    }

    /// How `waits` bytes that are to be sent compare to what may wait. `was_blocked` tells that something waited before.
    pub(super) fn backlog(
        &mut self,
        waits: Option<usize>,
        was_blocked: bool,
        max: usize,
    ) -> Backlog {
        let Some(bytes) = waits else { return Backlog::WithinLimit };
        if !was_blocked {
            self.oversized_bytes = if bytes > max { bytes } else { 0 };
        }
        match self.oversized_bytes {
            too_long if bytes > max + too_long => Backlog::OverLimit,
            0 => Backlog::WithinLimit,
            _ => Backlog::OversizedMessage,
        }
    }
}

//! State of a stream.

use super::limits::ClientLimits;
use crate::api::{Stream, Transport};
use crate::http::CloseCode;
use crate::hub::{Millis, ReaderKey};

/// Heartbeats in a row after which the peer counts as gone: Pings that had no answer, and checks at
/// which it had taken no unsent byte since the last one.
const MISSED_HEARTBEATS_MAX: u8 = 2;

/// State of a client in `Streaming`, in addition to [`Client`](super::client::Client).
pub(super) struct StreamState {
    pub(super) reader: ReaderKey,
    pub(super) stream: Stream,
    /// Time of the next heartbeat. Each update of an event stream moves it, each input of a
    /// WebSocket: only a Pong proves that the peer is there, since a proxy takes what is sent.
    pub(super) heartbeat_at: Millis,
    /// Time by which the incomplete message or frame of a WebSocket must be complete.
    pub(super) message_deadline: Millis,
    /// Time at which the server ends an event stream that carries a session: its peer cannot be
    /// asked whether it is there.
    pub(super) ends_at: Millis,
    /// Pings since the last input.
    pub(super) unanswered_pings: u8,
    /// Heartbeats that were due while unsent bytes were stalled, since the kernel took some.
    pub(super) stalled_heartbeats: u8,
    /// Fragments of an incomplete WebSocket message.
    pub(super) fragments: Option<Vec<u8>>,
    /// `Some` while calls in frames wait for the log. Frames after them are not read.
    pub(super) log_wait: Option<Box<LogWait>>,
    /// Length of an update that alone exceeds the backlog limit, while it is being sent; else 0.
    /// Half of the size of a `usize`: no update has 4 GiB.
    oversized_bytes: u32,
}

/// Calls in the frames of a WebSocket that wait for the log.
#[derive(Default)]
pub(super) struct LogWait {
    /// Frame that has to wait for them.
    pub(super) held: Option<HeldFrame>,
    /// The last of them waits for the end of its session, with an earlier record than later calls
    /// would: they wait until it is answered.
    pub(super) awaits_end: bool,
    /// All of them are answered.
    pub(super) is_over: bool,
}

/// Frame that waits for the responses to earlier ones.
pub(super) enum HeldFrame {
    /// Message with a call.
    Message(Box<str>),
    /// The stream is to be closed with this code.
    Close(CloseCode),
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
    /// Returns whether calls in frames wait for the log.
    pub(super) fn is_waiting(&self) -> bool {
        self.log_wait.as_ref().is_some_and(|wait| !wait.is_over)
    }

    /// Creates the state of a stream that begins now. `index` is the client's.
    pub(super) fn new(
        reader: ReaderKey,
        stream: Stream,
        now: Millis,
        limits: ClientLimits,
        index: u32,
    ) -> Self {
        let is_limited = stream.transport != Transport::WebSocket
            && stream.has_session
            && limits.stream_life_ms > 0;
        let ends_at = if is_limited {
            now.after(spread(limits.stream_life_ms, index))
        } else {
            Millis::NEVER
        };
        Self {
            reader,
            stream,
            heartbeat_at: now.after(limits.heartbeat_ms),
            message_deadline: Millis::NEVER,
            ends_at,
            unanswered_pings: 0,
            stalled_heartbeats: 0,
            fragments: None,
            log_wait: None,
            oversized_bytes: 0,
        }
    }

    /// Records input. That of an event stream means nothing.
    pub(super) fn on_input(&mut self, now: Millis, limits: ClientLimits) {
        if self.stream.transport == Transport::WebSocket {
            self.unanswered_pings = 0;
            self.stalled_heartbeats = 0;
            self.heartbeat_at = now.after(limits.heartbeat_ms);
        }
    }

    /// Records an update. On an event stream it takes the place of a heartbeat.
    pub(super) fn on_output(&mut self, now: Millis, limits: ClientLimits) {
        if self.stream.transport != Transport::WebSocket {
            self.heartbeat_at = now.after(limits.heartbeat_ms);
        }
    }

    /// Returns whether the peer has missed too many heartbeats.
    pub(super) fn is_peer_gone(&self) -> bool {
        self.unanswered_pings + self.stalled_heartbeats >= MISSED_HEARTBEATS_MAX
    }

    /// Returns the bytes of the buffers.
    pub(super) fn memory(&self) -> usize {
        let held = match self.log_wait.as_ref().and_then(|wait| wait.held.as_ref()) {
            Some(HeldFrame::Message(text)) => text.len(),
            Some(HeldFrame::Close(_)) | None => 0,
        };
        self.fragments.as_ref().map_or(0, Vec::capacity) + held
    }

    /// Returns the time of the next check: the next heartbeat, the deadline of a message, or the
    /// end of the stream's life.
    pub(super) fn next_check(&self) -> Millis {
        self.heartbeat_at.min(self.message_deadline).min(self.ends_at)
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
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.oversized_bytes = if bytes as usize > max { bytes } else { 0 };
        }
        match self.oversized_bytes as usize {
            oversized if bytes > max + oversized => Backlog::OverLimit,
            0 => Backlog::WithinLimit,
            _ => Backlog::OversizedMessage,
        }
    }
}

/// Returns `life_ms`, spread by a tenth in both directions: streams that began together, as after a
/// restart, do not end together. `index` is the client's.
fn spread(life_ms: u64, index: u32) -> u64 {
    // Multiples of the golden ratio divide the range evenly, however many clients there are.
    let position = index.wrapping_mul(0x9e37_79b9) >> 16;
    let tenth = life_ms / 10;
    life_ms - tenth + (2 * tenth).saturating_mul(u64::from(position)) / 65_536
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_stays_small() {
        assert!(size_of::<StreamState>() <= 104, "{}", size_of::<StreamState>());
    }

    #[test]
    fn lives_of_streams_are_spread_evenly_by_a_tenth() {
        let mut lives: Vec<_> = (0..1_000).map(|index| spread(600_000, index)).collect();
        assert!(lives.iter().all(|life| (540_000..=660_000).contains(life)));
        lives.sort_unstable();
        let widest = lives.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest.is_some_and(|gap| gap < 500), "{widest:?} of 120 on average");
        assert_eq!(spread(1, 7), 1);
        assert!(spread(u64::MAX, u32::MAX) >= u64::MAX / 10 * 9);
    }
}

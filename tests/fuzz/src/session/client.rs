//! One client, as much of it as the calls and the hub get to see.

use speak::api::{ReplyFormat, Stream};
use speak::http::Progress;
use speak::hub::{Millis, ReaderKey};
use support::reader::Reader;

use super::asked::Asked;
use super::knowledge::StreamCheck;

#[derive(Default)]
pub(super) struct Client {
    /// Comes back in wake-ups; no other client ever has it.
    pub(super) number: u64,
    pub(super) state: State,
    /// Bytes that came and were not taken yet.
    pub(super) input: Vec<u8>,
    pub(super) progress: Progress,
    /// How much it sends at once; 0 is all.
    pub(super) piece_bytes: usize,
    /// It takes nothing of what is sent: so many bytes are queued.
    pub(super) backlog: Option<usize>,
    /// The hub said that there is more for its stream than was sent.
    pub(super) has_more: bool,
    /// Its last event stream, which it may resume.
    pub(super) last_stream: Option<StreamCheck>,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    Reading,
    LongPolling {
        reader: ReaderKey,
        format: Option<Box<ReplyFormat>>,
        until: Millis,
        asked: Box<Asked>,
        its: Reader,
        closes: bool,
    },
    Streaming {
        reader: ReaderKey,
        stream: Stream,
        got: Delivered,
        /// The session that it keeps alive.
        session: Option<u64>,
        fragments: Option<Vec<u8>>,
    },
    Closed,
}

/// A stream and what it has got.
pub(super) enum Delivered {
    Events(StreamCheck),
    Frames(Reader),
}

//! One client, as far as the calls and the hub see it.

use speak::api::{ReplyFormat, Stream};
use speak::http::Progress;
use speak::hub::{Millis, ReaderKey};
use support::reader::Reader;

use super::asked::Asked;
use super::knowledge::StreamCheck;

#[derive(Default)]
pub(super) struct Client {
    /// Comes back in wake-ups; unique to this client.
    pub(super) number: u64,
    pub(super) state: State,
    /// Bytes received and not handled yet.
    pub(super) input: Vec<u8>,
    pub(super) progress: Progress,
    /// Bytes per send; 0 for all at once.
    pub(super) piece_bytes: usize,
    /// Bytes queued for a client that reads nothing.
    pub(super) backlog: Option<usize>,
    /// The hub reported more for its stream than was sent.
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

/// A stream and the messages that it got.
pub(super) enum Delivered {
    Events(StreamCheck),
    Frames(Reader),
}

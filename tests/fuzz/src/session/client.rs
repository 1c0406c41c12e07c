//! One client, as much of it as the calls and the hub get to see.

use speak::api::{ReplyFormat, Stream};
use speak::http::Progress;
use speak::hub::{Millis, ReaderKey};

use super::asked::Asked;
use super::events::StreamCheck;
use super::part::Follows;

#[derive(Default)]
pub(super) struct Client {
    /// Comes back in wake-ups; nobody else ever has it.
    pub(super) number: u64,
    pub(super) state: State,
    /// What came and was not taken yet.
    pub(super) held: Vec<u8>,
    pub(super) progress: Progress,
    /// How much it sends at once; 0 is all.
    pub(super) piece_bytes: usize,
    /// It takes nothing of what it is told: so many bytes wait.
    pub(super) backlog: Option<usize>,
    /// The hub said that there is more for its stream than it was told.
    pub(super) is_owed: bool,
    /// Its last event stream, which it may go on with.
    pub(super) last_track: Option<StreamCheck>,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    Reading,
    Waiting {
        reader: ReaderKey,
        format: Option<Box<ReplyFormat>>,
        until: Millis,
        asked: Box<Asked>,
        follows: Follows,
        closes: bool,
    },
    Following {
        reader: ReaderKey,
        stream: Stream,
        told: Delivered,
        /// The connection that it keeps alive.
        connection: Option<u64>,
        fragments: Option<Vec<u8>>,
    },
    Closed,
}

/// What a stream has told so far.
pub(super) enum Delivered {
    Events(StreamCheck),
    Frames(Follows),
}

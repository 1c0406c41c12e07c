//! A long poll, as the state of its client has it.

use crate::api::ReplyFormat;
use crate::hub::ReaderKey;

/// A `/read` that waits for messages.
#[derive(Debug)]
pub(super) enum LongPoll {
    /// Its reply has the usual format. Nearly all have, so another one costs them nothing.
    Usual(ReaderKey),
    /// The format of a read, which has the key of its reader.
    Formatted(Box<ReplyFormat>),
}

impl LongPoll {
    pub(super) fn reader(&self) -> ReaderKey {
        match self {
            Self::Usual(reader) => *reader,
            Self::Formatted(format) => format.reader().expect("the format of a read"),
        }
    }
}

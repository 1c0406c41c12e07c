//! Wake-ups: replies for readers.

use super::channel_slice::Fingerprint;
use super::reply::Reply;

/// A reply for one reader.
pub struct Wake<'h> {
    /// [`ReadRequest::token`](super::ReadRequest::token) of the reader.
    pub token: u64,
    /// Index of the channel that caused the wake-up; `u32::MAX` if the reader is completed without
    /// messages.
    /// Replies of one channel must be sent in the order of their wake-ups.
    pub channel: u32,
    /// The reply to send.
    pub reply: Reply<'h>,
    /// The reply equals that of the previous wake-up, so one encoding serves both.
    pub same_as_previous: bool,
    /// The reader has ended: each long poll with its reply, a stream when it is completed.
    pub is_last: bool,
    /// The stream has more messages than one reply holds. [`Hub::resume`](super::Hub::resume)
    /// gives the next reply once this one has been sent.
    pub has_more: bool,
}

/// Previous reply in a row of calls of [`Hub::resume`](super::Hub::resume).
#[derive(Debug, Default)]
pub struct ResumeBatch {
    pub(super) channel: u32,
    pub(super) fingerprint: Option<Fingerprint>,
}

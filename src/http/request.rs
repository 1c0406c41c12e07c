//! Requests out of a stream of bytes that arrives in whatever pieces.
//!
//! The caller holds the bytes; this module remembers in a [`Progress`] how far
//! they were read, so that each is scanned once however small the pieces are.
//! It has no notion of sockets or of time.

use super::chunked::ChunkedDecoder;
use super::head::{Framing, Head, Method, Persistence, lower_minor_version, parse_head};
use super::parse_error::ParseError;

/// What a request may weigh.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Request line and header fields, in bytes.
    pub head_bytes: usize,
    /// The body, decoded, in bytes.
    pub body_bytes: usize,
}

/// How much of the request at the start of the buffer was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head is not whole; this many of its bytes were scanned.
    Head {
        /// Bytes without an end of the head among them.
        scanned: usize,
    },
    /// The head is whole; so many bytes of body are to follow it.
    Length {
        /// Where the body begins.
        head_bytes: usize,
        /// Where it ends.
        end: usize,
    },
    /// The head is whole; a chunked body follows.
    Chunked {
        /// Where the body begins.
        head_bytes: usize,
        /// How far it was decoded.
        body: ChunkedDecoder,
    },
}

impl Default for Progress {
    fn default() -> Self {
        Self::Head { scanned: 0 }
    }
}

impl Progress {
    /// Takes bytes that have no more use out of the buffer (the framing of chunks that were decoded).
    pub fn compact(&mut self, buffer: &mut Vec<u8>) {
        if let Self::Chunked { body, .. } = self {
            buffer.drain(body.decoded..body.consumed);
            body.consumed = body.decoded;
        }
    }
}

/// A whole request. Borrows from the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What to do.
    pub method: Method,
    /// The path, as sent; `*` where the target is none.
    pub path: &'a str,
    /// What follows `?`, still encoded.
    pub query: &'a str,
    /// Whether the client stays.
    pub persistence: Persistence,
    /// `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// `Origin`.
    pub origin: Option<&'a [u8]>,
    /// `Accept` prefers an event stream to JSON.
    pub accepts_event_stream: bool,
    /// `Upgrade` names WebSocket.
    pub wants_websocket: bool,
    /// `Sec-Fetch-Site` is `cross-site`.
    pub is_cross_site: bool,
    /// The body, unchunked.
    pub body: &'a [u8],
    /// Request line and fields, checked.
    head: &'a [u8],
}

/// What the bytes so far amount to.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// More has to come.
    Incomplete {
        /// The client waits for [`CONTINUE`](super::CONTINUE) before it sends the body. Said once.
        wants_continue: bool,
    },
    /// A request, and how many bytes of the buffer it took.
    Complete(Request<'a>, usize),
}

/// How many bytes of empty lines stand before a request. They mean nothing (RFC 9112, section 2.2).
#[must_use]
pub fn leading_blank_lines(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let [b'\r', b'\n', after @ ..] | [b'\n', after @ ..] = rest {
        rest = after;
    }
    bytes.len() - rest.len()
}

/// The request at the start of `bytes`, if it is there whole, plainly framed and without fault: the usual case,
/// in one pass. `None` asks for [`parse`], which knows the rest.
#[must_use]
pub fn parse_complete<'a>(bytes: &'a [u8], limits: &Limits) -> Option<(Request<'a>, usize)> {
    let head = parse_head(&bytes[..limits.head_bytes.min(bytes.len())]).ok()??;
    match head.framing {
        Framing::Length(length) if length <= limits.body_bytes => {
            let end = head.bytes + length;
            let body = bytes.get(head.bytes..end)?;
            Some((Request::of(&head, &bytes[..head.bytes], body), end))
        }
        Framing::Length(_) | Framing::Chunked => None,
    }
}

/// Reads on in the request at the start of `buffer`, from where `progress` tells.
///
/// The result is the same whatever the pieces in which the bytes came; only that a head which can become none is refused at
/// once if it is in the first piece, and when its end comes if it is not. Costs O(new bytes), and the head once more when it
/// becomes whole and when its body does.
///
/// # Errors
///
/// A [`Reject`], after which the client is to be told and closed.
pub fn parse<'a>(
    buffer: &'a mut [u8],
    progress: &mut Progress,
    limits: &Limits,
) -> Result<Parsed<'a>, ParseError> {
    if *progress == Progress::default() && *buffer == [b'\r'] {
        // Half of an empty line before the request, which is no part of its head.
        return Ok(Parsed::Incomplete { wants_continue: false });
    }
    let mut expects_continue = false;
    if let Progress::Head { scanned } = *progress {
        match read_head(buffer, scanned, limits)? {
            Some((next, expects)) => (*progress, expects_continue) = (next, expects),
            None => *progress = Progress::Head { scanned: buffer.len() },
        }
    }
    let (head_bytes, ends) = match progress {
        Progress::Head { .. } => return Ok(Parsed::Incomplete { wants_continue: false }),
        Progress::Length { head_bytes, end } => {
            (*head_bytes, (buffer.len() >= *end).then_some((*end, *end)))
        }
        Progress::Chunked { head_bytes, body } => {
            let is_whole = body.decode(buffer, limits.body_bytes)?;
            (*head_bytes, is_whole.then_some((body.decoded, body.consumed)))
        }
    };
    let Some((body_end, end)) = ends else {
        // Once some of the body is here, the client did not wait to be asked for it.
        return Ok(Parsed::Incomplete {
            wants_continue: expects_continue && buffer.len() == head_bytes,
        });
    };
    *progress = Progress::default();
    let (bytes, body) = buffer[..body_end].split_at(head_bytes);
    let head = parse_head(bytes)?.expect("the head was whole before");
    Ok(Parsed::Complete(Request::of(&head, bytes, body), end))
}

/// What follows the head, once it is whole, and whether the client waits to send it.
fn read_head(
    buffer: &mut [u8],
    scanned: usize,
    limits: &Limits,
) -> Result<Option<(Progress, bool)>, ParseError> {
    let is_too_long = buffer.len() > limits.head_bytes;
    let within_bytes = limits.head_bytes.min(buffer.len());
    let within = &mut buffer[..within_bytes];
    // The first piece is parsed as it is, to refuse at once what is not HTTP; later ones once they bring the end.
    if scanned > 0 && !is_too_long && !has_head_end(within, scanned) {
        return Ok(None);
    }
    if parse_head(within).is_err() {
        lower_minor_version(within);
    }
    let Some(head) = parse_head(within)? else {
        return match (is_too_long, memchr::memchr(b'\n', within)) {
            (false, _) => Ok(None),
            (true, None) => Err(ParseError::UriTooLong),
            (true, Some(_)) => Err(ParseError::HeadersTooLarge),
        };
    };
    let progress = match head.framing {
        Framing::Length(length) if length > limits.body_bytes => {
            return Err(ParseError::BodyTooLarge);
        }
        Framing::Length(length) => {
            Progress::Length { head_bytes: head.bytes, end: head.bytes + length }
        }
        Framing::Chunked => {
            Progress::Chunked { head_bytes: head.bytes, body: ChunkedDecoder::at(head.bytes) }
        }
    };
    Ok(Some((progress, head.expects_continue)))
}

/// Whether an empty line ends the head, looked for behind what was scanned before.
fn has_head_end(bytes: &[u8], scanned: usize) -> bool {
    // An end may have begun in the last piece: its line feed, or that and a carriage return.
    let from = scanned.saturating_sub(2);
    memchr::memchr_iter(b'\n', &bytes[from..])
        .any(|at| matches!(bytes[from + at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

impl<'a> Request<'a> {
    fn of(head: &Head<'a>, bytes: &'a [u8], body: &'a [u8]) -> Self {
        Self {
            method: head.method,
            path: head.path,
            query: head.query,
            persistence: head.persistence,
            content_type: head.content_type,
            origin: head.origin,
            accepts_event_stream: head.accepts_event_stream,
            wants_websocket: head.wants_websocket,
            is_cross_site: head.is_cross_site,
            body,
            head: bytes,
        }
    }

    /// The values of a header field that few requests are asked for, in order, without white space around them.
    ///
    /// Costs a walk through the head; what every call needs is in the request already.
    pub fn field(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.head.split(|byte| *byte == b'\n').skip(1);
        lines.filter_map(move |line| {
            let (its_name, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            its_name.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
        })
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;

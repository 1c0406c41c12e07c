//! Parser of requests whose bytes arrive in pieces of any size.
//!
//! The caller has the buffer. A [`Progress`] records how much of it was parsed, so that each byte
//! is scanned once even if the pieces are small.

use super::authority::{authority_of, without_port};
use super::chunked::ChunkedDecoder;
use super::head::{Framing, Head, Method, Persistence, lower_minor_version, parse_head};
use super::parse_error::ParseError;

/// Limits of a request. A larger request is an error.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Request line and header fields, in bytes.
    pub head_bytes: usize,
    /// The body, decoded, in bytes.
    pub body_bytes: usize,
}

/// Progress in the request at the start of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head is incomplete.
    Head {
        /// Bytes that were searched for the end of the head.
        scanned: usize,
    },
    /// The head is complete; a body of known length follows.
    Length {
        /// Size of the head.
        head_bytes: usize,
        /// Size of head and body.
        end: usize,
    },
    /// The head is complete; a chunked body follows.
    Chunked {
        /// Size of the head.
        head_bytes: usize,
        /// Decoder of the body.
        body: ChunkedDecoder,
    },
}

impl Default for Progress {
    fn default() -> Self {
        Self::Head { scanned: 0 }
    }
}

impl Progress {
    /// Removes the framing of decoded chunks from the buffer.
    pub fn compact(&mut self, buffer: &mut Vec<u8>) {
        if let Self::Chunked { body, .. } = self {
            buffer.drain(body.decoded..body.consumed);
            body.consumed = body.decoded;
        }
    }
}

/// Complete request. Borrows from the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Method.
    pub method: Method,
    /// Path as sent; `*` if the target has none.
    pub path: &'a str,
    /// Text after `?`, still encoded.
    pub query: &'a str,
    /// Persistence of the client after the response.
    pub persistence: Persistence,
    /// `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// `Origin`.
    pub origin: Option<&'a [u8]>,
    /// `Accept` prefers an event stream to JSON.
    pub accepts_event_stream: bool,
    /// `Upgrade` lists WebSocket.
    pub wants_websocket: bool,
    /// `Sec-Fetch-Site` is `cross-site`.
    pub is_cross_site: bool,
    /// `Sec-Purpose` or `Purpose` is `prefetch`: no user has asked for the response yet.
    pub is_prefetch: bool,
    /// Decoded body.
    pub body: &'a [u8],
    /// Request line and header fields, checked.
    head: &'a [u8],
}

/// Result of parsing the bytes so far.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// The request is incomplete.
    Incomplete {
        /// The client waits for status 100 before it sends the body. True once.
        wants_continue: bool,
    },
    /// A request, and its size in the buffer.
    Complete(Request<'a>, usize),
}

/// Returns the number of bytes of empty lines before a request, which have no meaning (RFC 9112,
/// section 2.2).
#[must_use]
pub fn leading_blank_lines(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let [b'\r', b'\n', after @ ..] | [b'\n', after @ ..] = rest {
        rest = after;
    }
    bytes.len() - rest.len()
}

/// Parses a request that is complete in `bytes`, in one pass: the fast path. Returns `None` for an
/// incomplete, chunked or malformed request, which needs [`parse`].
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

/// Continues with the request at the start of `buffer`, from `progress` on.
///
/// The result does not depend on how the bytes were split into pieces, with one exception: a
/// malformed head is an error at once in the first piece, and otherwise when the head is complete.
/// Costs O(new bytes). The head is parsed again when it becomes complete and when its body does.
///
/// # Errors
///
/// A [`ParseError`]. The caller must close the client after it has sent the error.
pub fn parse<'a>(
    buffer: &'a mut [u8],
    progress: &mut Progress,
    limits: &Limits,
) -> Result<Parsed<'a>, ParseError> {
    if *progress == Progress::default() && *buffer == [b'\r'] {
        // The first byte of an empty line before the request is no part of the head.
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
            let is_complete = body.decode(buffer, limits.body_bytes)?;
            (*head_bytes, is_complete.then_some((body.decoded, body.consumed)))
        }
    };
    let Some((body_end, end)) = ends else {
        // If a part of the body has arrived, the client does not wait.
        return Ok(Parsed::Incomplete {
            wants_continue: expects_continue && buffer.len() == head_bytes,
        });
    };
    *progress = Progress::default();
    let (bytes, body) = buffer[..body_end].split_at(head_bytes);
    let head = parse_head(bytes)?.expect("the head was complete before");
    Ok(Parsed::Complete(Request::of(&head, bytes, body), end))
}

/// Returns the progress after the head once the head is complete, and whether the client waits to
/// send the body.
fn read_head(
    buffer: &mut [u8],
    scanned: usize,
    limits: &Limits,
) -> Result<Option<(Progress, bool)>, ParseError> {
    let is_too_long = buffer.len() > limits.head_bytes;
    let within_bytes = limits.head_bytes.min(buffer.len());
    let within = &mut buffer[..within_bytes];
    // The first piece is parsed at once, to reject bytes that are not HTTP. Later pieces are parsed
    // when the head is complete.
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

/// Returns whether the head ends with an empty line after the first `scanned` bytes.
fn has_head_end(bytes: &[u8], scanned: usize) -> bool {
    // The end may have begun in the last piece: with a line feed, and perhaps a carriage return.
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
            is_prefetch: head.is_prefetch,
            body,
            head: bytes,
        }
    }

    /// Returns whether the request is of HTTP/1.0.
    ///
    /// Searches the head, as [`Request::field`] does.
    #[must_use]
    pub fn is_http_10(&self) -> bool {
        let mut lines = self.head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        lines.find(|line| !line.is_empty()).is_some_and(|line| line.ends_with(b"/1.0"))
    }

    /// Returns the host that the client asked for, without a port: that of the target, or else that
    /// of `Host` (RFC 9112, section 3.2.2). `None` if a URL cannot name it.
    ///
    /// Searches the head, as [`Request::field`] does.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        let mut lines = self.head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let line = lines.find(|line| !line.is_empty())?;
        let target = line.split(|byte| *byte == b' ').nth(1)?;
        let authority = authority_of(target).or_else(|| self.field("host").next())?;
        without_port(authority)
    }

    /// Returns the values of a header field in order, without white space around them.
    ///
    /// Searches the head, so it is for rare fields. The fields that all calls need are in `self`.
    pub fn field(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.head.split(|byte| *byte == b'\n').skip(1);
        lines.filter_map(move |line| {
            let (field, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            field.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
        })
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;

//! Cuts what a server sends on one connection into responses, events and frames.
//!
//! Knows what a server of Speak's kind sends, and no more: responses with a `Content-Length`,
//! events that an empty line ends, each in a chunk of its own in HTTP/1.1, and whole frames.

use std::mem;

use crate::http::{Chunk, Framing, Head, chunk};
use crate::sse::{self, Event};
use crate::{Malformed, ws};

/// Content of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Responses; the head of a stream changes the mode.
    #[default]
    Responses,
    /// A head, then events.
    Events,
    /// A head, then frames of a WebSocket.
    Frames,
}

/// One whole response; of a stream its head, an event or a frame.
#[derive(Debug, Default)]
pub struct Item<'a> {
    /// Status code; `None` after the head of a stream.
    pub status: Option<u16>,
    pub bytes: &'a [u8],
    /// Bytes of `bytes` before the body or the payload.
    pub head_bytes: usize,
    /// Bytes of `bytes` after the body.
    pub tail_bytes: usize,
}

impl<'a> Item<'a> {
    /// Returns the body, the event, or the payload of the frame.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.head_bytes..self.bytes.len() - self.tail_bytes]
    }

    pub fn head(&self) -> Result<Head, Malformed> {
        let head = Head::parse(&self.bytes[..self.head_bytes])?;
        head.map(|(head, _)| head).ok_or_else(|| Malformed::new("no head", self.bytes))
    }

    /// Returns the event or heartbeat, in a stream of events.
    pub fn event(&self) -> Result<Event, Malformed> {
        Event::parse(self.body())
    }

    /// Says whether this is the last chunk: the server has ended a stream of events.
    pub fn ends_events(&self) -> bool {
        self.status.is_none() && self.bytes == b"0\r\n\r\n"
    }

    pub fn is_frame(&self, first: u8) -> bool {
        self.status.is_none() && self.bytes.first() == Some(&first)
    }

    /// Returns the beginning as text, for error messages.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(600)]).into_owned()
    }
}

/// Cuts bytes. Remembers the last head: most responses begin with the same one, and need no
/// parsing. In a mode of streams it may serve many connections, whose streams have begun or not.
#[derive(Default, Debug)]
pub struct Cutter {
    /// Content after the next head.
    pub mode: Mode,
    /// Each event is one chunk, as the last head of a stream says.
    is_chunked: bool,
    head: Vec<u8>,
    status: u16,
    body_bytes: usize,
}

impl Cutter {
    pub fn new(mode: Mode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Cuts events after a head that was parsed elsewhere.
    pub fn of_events(framing: Framing) -> Self {
        Self { mode: Mode::Events, is_chunked: framing == Framing::Chunked, ..Self::default() }
    }

    /// Returns the first item in `bytes`; `None` while it is not whole.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Item<'a>>, Malformed> {
        match self.mode {
            Mode::Responses => self.next_response(bytes),
            // Neither an event nor a frame begins with an `H`, nor does a chunk.
            _ if bytes.first() == Some(&b'H') => {
                let Some((head, end)) = Head::parse(bytes)? else { return Ok(None) };
                self.is_chunked = head.framing()? == Framing::Chunked;
                Ok(Some(Item {
                    status: Some(head.status),
                    bytes: &bytes[..end],
                    head_bytes: end,
                    ..Item::default()
                }))
            }
            Mode::Events if self.is_chunked => {
                let Some(chunk) = chunk(bytes)? else { return Ok(None) };
                let (head_bytes, tail_bytes) = (chunk.head_bytes, Chunk::TAIL_BYTES);
                let bytes = &bytes[..chunk.bytes()];
                Ok(Some(Item { status: None, bytes, head_bytes, tail_bytes }))
            }
            Mode::Events => {
                let end = sse::block_bytes(bytes);
                Ok(end.map(|end| Item { bytes: &bytes[..end], ..Item::default() }))
            }
            Mode::Frames => Ok(ws::server_frame(bytes)?.map(|(frame, end)| Item {
                bytes: &bytes[..end],
                head_bytes: end - frame.payload.len(),
                ..Item::default()
            })),
        }
    }

    fn next_response<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Item<'a>>, Malformed> {
        if self.head.is_empty() || !bytes.starts_with(&self.head) {
            let Some((head, end)) = Head::parse(bytes)? else { return Ok(None) };
            self.learn(&head, &bytes[..end])?;
        }
        let whole = self.head.len() + self.body_bytes;
        Ok(bytes.get(..whole).map(|bytes| Item {
            status: Some(self.status),
            bytes,
            head_bytes: self.head.len(),
            tail_bytes: 0,
        }))
    }

    fn learn(&mut self, head: &Head, bytes: &[u8]) -> Result<(), Malformed> {
        if head.status == 101 {
            self.mode = Mode::Frames;
        } else if head.begins_events() {
            self.mode = Mode::Events;
        }
        let framing = head.framing()?;
        self.is_chunked = framing == Framing::Chunked;
        self.body_bytes = match framing {
            Framing::Length(length) => length,
            Framing::None => 0,
            _ if self.mode != Mode::Responses => 0,
            _ => return Err(Malformed::new("a response without a length", bytes)),
        };
        self.status = head.status;
        self.head.clear();
        self.head.extend_from_slice(bytes);
        Ok(())
    }
}

/// The bytes of one connection that have come and were not taken yet.
#[derive(Default, Debug)]
pub struct Incoming {
    cutter: Cutter,
    bytes: Vec<u8>,
    taken: usize,
}

impl Incoming {
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
    }

    /// Says whether an item began that is not whole.
    pub fn has_rest(&self) -> bool {
        self.taken < self.bytes.len()
    }

    pub fn mode(&self) -> Mode {
        self.cutter.mode
    }

    /// Says whether each event is one chunk.
    pub fn is_chunked(&self) -> bool {
        self.cutter.is_chunked
    }

    /// Takes the next item; `None` while it is not whole.
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, Malformed> {
        let Some(item) = self.cutter.next(&self.bytes[self.taken..])? else { return Ok(None) };
        self.taken += item.bytes.len();
        Ok(Some(item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_cut_at_their_length() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab\
              HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(items(bytes), [(Some(200), b"ab".to_vec()), (Some(404), Vec::new())]);
    }

    #[test]
    fn a_remembered_head_still_waits_for_its_body() {
        let mut cutter = Cutter::default();
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        assert!(cutter.next(whole).unwrap().is_some());
        assert!(cutter.next(&whole[..whole.len() - 1]).unwrap().is_none());
        assert!(cutter.next(whole).unwrap().is_some());
    }

    /// Returns status and body of all that `bytes` contain, at once and byte by byte.
    fn items(bytes: &[u8]) -> Vec<(Option<u16>, Vec<u8>)> {
        let [whole, single] = [bytes.len(), 1].map(|size| {
            let (mut incoming, mut items) = (Incoming::default(), Vec::new());
            for piece in bytes.chunks(size) {
                incoming.extend(piece);
                while let Some(item) = incoming.next().unwrap() {
                    items.push((item.status, item.body().to_vec()));
                }
            }
            assert!(!incoming.has_rest());
            items
        });
        assert_eq!(single, whole);
        whole
    }

    #[test]
    fn a_stream_begins_after_its_head_and_is_cut_at_empty_lines() {
        let continues = "HTTP/1.1 100 Continue\r\n\r\n";
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        let events = ["retry: 1000\ndata: {}\n\n", ":\n", "id: e:2\ndata: {}\n\n"];
        let mut expected = vec![(Some(100), Vec::new()), (Some(200), Vec::new())];
        expected.extend(events.map(|event| (None, event.as_bytes().to_vec())));
        let bytes = [continues, head, &events.concat()].concat();
        assert_eq!(items(bytes.as_bytes()), expected);
    }

    #[test]
    fn in_chunks_each_event_is_one_and_the_last_chunk_ends_the_stream() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        let chunks = "10\r\nid: e\ndata: {}\n\n\r\n2\r\n:\n\r\n0\r\n\r\n";
        let came = items([head, chunks].concat().as_bytes());
        let bodies: Vec<_> = came[1..].iter().map(|(_, body)| &body[..]).collect();
        assert_eq!(bodies, [&b"id: e\ndata: {}\n\n"[..], b":\n", b""]);
        let of_events = || Cutter::of_events(Framing::Chunked);
        let heartbeat = of_events().next(b"2\r\n:\n\r\n").unwrap().unwrap().event().unwrap();
        assert!(heartbeat.is_heartbeat);
        assert!(of_events().next(b"0\r\n\r\n").unwrap().unwrap().ends_events());
        assert!(of_events().next(b"data: {}\n\n and no chunk").is_err());
        let two = b"14\r\ndata: {}\n\ndata: {}\n\n\r\n";
        assert!(of_events().next(two).unwrap().unwrap().event().is_err());
        let half = b"9\r\ndata: {}\n\r\n";
        assert!(of_events().next(half).unwrap().unwrap().event().is_err());
    }

    #[test]
    fn frames_are_cut_at_their_length() {
        let head = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
        let bytes = [&head[..], b"\x81\x02{}\x89\x00\x88\x02\x03\xe8"].concat();
        let frames = [b"{}".to_vec(), Vec::new(), vec![3, 232]].map(|payload| (None, payload));
        assert_eq!(items(&bytes)[1..], frames);
        let mut cutter = Cutter::new(Mode::Frames);
        let head = cutter.next(head).unwrap().unwrap();
        assert_eq!((head.status, head.is_frame(ws::CLOSE)), (Some(101), false));
        let frame = cutter.next(b"\x88\x02\x03\xe8").unwrap().unwrap();
        assert!(frame.is_frame(ws::CLOSE) && !frame.is_frame(ws::TEXT));
        assert!(cutter.next(b"\x82\x02{}").is_err());
    }

    #[test]
    fn a_response_without_a_length_is_an_error() {
        assert!(Cutter::default().next(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(Cutter::default().next(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}

//! Cuts what a server sends into single answers, events or frames.
//!
//! Knows what the servers of this bench send, and no more: answers with a `Content-Length`, events that
//! an empty line ends, and frames of under 64 KiB that are a whole text, a Ping or a farewell.

use memchr::memmem;

use crate::Result;

/// A head longer than this is taken for a defect of the server.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The first byte of a whole text of a WebSocket, that of a farewell, and that of a Ping (RFC 6455, section 5.2).
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// What a connection carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Cut {
    #[default]
    Answers,
    /// A head, then server-sent events.
    Events,
    /// A head, then frames of a WebSocket.
    Frames,
}

/// One whole answer; of a stream its head, or an event or frame.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// None for what follows the head of a stream.
    pub(crate) status: Option<u16>,
    pub(crate) bytes: &'a [u8],
    pub(crate) head_bytes: usize,
}

impl<'a> Frame<'a> {
    pub(crate) fn body(&self) -> &'a [u8] {
        &self.bytes[self.head_bytes..]
    }

    /// Whether it asks for a sign of life, and says nothing.
    pub(crate) fn is_ping(&self) -> bool {
        self.status.is_none() && self.bytes.first() == Some(&PING)
    }

    /// Whether it ends a WebSocket.
    pub(crate) fn is_farewell(&self) -> bool {
        self.status.is_none() && self.bytes.first() == Some(&CLOSE)
    }

    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        header(&self.bytes[..self.head_bytes], name)
    }

    /// The answer as text, for error messages.
    pub(crate) fn lossy(&self) -> String {
        let shown = &self.bytes[..self.bytes.len().min(600)];
        String::from_utf8_lossy(shown).into_owned()
    }
}

/// Remembers the last head: most answers begin with the same one, and then need no search.
#[derive(Default)]
pub(crate) struct Framer {
    cut: Cut,
    head: Vec<u8>,
    status: u16,
    body_bytes: usize,
}

impl Framer {
    pub(crate) fn new(cut: Cut) -> Self {
        Self { cut, ..Self::default() }
    }

    /// The first answer, event or frame in `bytes`, or nothing as long as it is not whole.
    pub(crate) fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Frame<'a>>> {
        match self.cut {
            Cut::Answers => self.next_answer(bytes),
            // Neither an event nor a frame begins like a head.
            _ if bytes.first() == Some(&b'H') => next_head(bytes),
            Cut::Events => Ok(next_event(bytes)),
            Cut::Frames => next_frame(bytes),
        }
    }

    fn next_answer<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Frame<'a>>> {
        if self.head.is_empty() || !bytes.starts_with(&self.head) {
            let Some(end) = head_end(bytes)? else {
                return Ok(None);
            };
            self.learn(&bytes[..end])?;
        }
        let whole = self.head.len() + self.body_bytes;
        Ok((bytes.len() >= whole).then(|| Frame {
            status: Some(self.status),
            bytes: &bytes[..whole],
            head_bytes: self.head.len(),
        }))
    }

    fn learn(&mut self, head: &[u8]) -> Result<()> {
        self.status = status(head)?;
        let length = header(head, "content-length").and_then(|value| value.parse().ok());
        self.body_bytes = length.ok_or_else(|| not_an_answer(head))?;
        self.head.clear();
        self.head.extend_from_slice(head);
        Ok(())
    }
}

/// The head of a stream, which no length follows.
fn next_head(bytes: &[u8]) -> Result<Option<Frame<'_>>> {
    let Some(end) = head_end(bytes)? else {
        return Ok(None);
    };
    let bytes = &bytes[..end];
    Ok(Some(Frame { status: Some(status(bytes)?), bytes, head_bytes: end }))
}

fn next_event(bytes: &[u8]) -> Option<Frame<'_>> {
    let end = memmem::find(bytes, b"\n\n")? + 2;
    Some(Frame { status: None, bytes: &bytes[..end], head_bytes: 0 })
}

fn next_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>> {
    let (&[first, short, ..], rest) = (bytes, bytes.get(2..)) else {
        return Ok(None);
    };
    let (head_bytes, length) = match short {
        0..126 => (2, Some(usize::from(short))),
        126 => {
            let length = rest.and_then(<[u8]>::first_chunk);
            (4, length.map(|length| usize::from(u16::from_be_bytes(*length))))
        }
        _ => return Err("a frame is masked, or larger than any of this bench".into()),
    };
    if !matches!(first, TEXT | CLOSE | PING) {
        return Err(format!("a frame that begins with {first:#x}").into());
    }
    let whole = length.and_then(|length| bytes.get(..head_bytes + length));
    Ok(whole.map(|bytes| Frame { status: None, bytes, head_bytes }))
}

/// Where a head ends, if it has come whole.
fn head_end(bytes: &[u8]) -> Result<Option<usize>> {
    let end = memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4);
    if end.is_none() && bytes.len() > HEAD_BYTES_MAX {
        return Err("an answer's head has no end".into());
    }
    Ok(end)
}

fn status(head: &[u8]) -> Result<u16> {
    let digits = head.get(9..12).filter(|_| head.starts_with(b"HTTP/1.1 "));
    let status = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Ok(status.ok_or_else(|| not_an_answer(head))?)
}

fn not_an_answer(head: &[u8]) -> String {
    format!("not an answer: {}", String::from_utf8_lossy(head))
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_cut_at_their_length() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\nHTTP";
        let mut framer = Framer::default();
        let first = framer.next(bytes).unwrap().unwrap();
        assert_eq!((first.status, first.body()), (Some(200), &b"ab"[..]));
        let rest = &bytes[first.bytes.len()..];
        let second = framer.next(rest).unwrap().unwrap();
        assert_eq!((second.status, second.body()), (Some(404), &b""[..]));
        assert!(framer.next(b"HTTP").unwrap().is_none());
    }

    #[test]
    fn a_remembered_head_still_waits_for_its_body() {
        let mut framer = Framer::default();
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        assert!(framer.next(whole).unwrap().is_some());
        assert!(framer.next(&whole[..whole.len() - 1]).unwrap().is_none());
        assert!(framer.next(whole).unwrap().is_some());
    }

    /// All that `bytes` hold, as it comes byte by byte.
    fn pieces(cut: Cut, bytes: &[u8]) -> Vec<(Option<u16>, Vec<u8>)> {
        let mut framer = Framer::new(cut);
        let (mut pieces, mut start) = (Vec::new(), 0);
        for end in 0..=bytes.len() {
            while let Some(frame) = framer.next(&bytes[start..end]).unwrap() {
                pieces.push((frame.status, frame.body().to_vec()));
                start += frame.bytes.len();
            }
        }
        assert_eq!(start, bytes.len());
        pieces
    }

    #[test]
    fn events_are_cut_at_empty_lines() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        let events = ["retry: 1000\n\n", ":\n\n", "id: e:2\ndata: {}\n\n"];
        let mut expected = vec![(Some(200), Vec::new())];
        expected.extend(events.map(|event| (None, event.as_bytes().to_vec())));
        assert_eq!(pieces(Cut::Events, (head.to_owned() + &events.concat()).as_bytes()), expected);
    }

    #[test]
    fn frames_are_cut_at_their_length() {
        let mut bytes =
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02{}\x89\x00\x81\x7e\x00\x80".to_vec();
        bytes.extend([b'x'; 128]);
        let expected = [
            (Some(101), Vec::new()),
            (None, b"{}".to_vec()),
            (None, Vec::new()),
            (None, vec![b'x'; 128]),
        ];
        assert_eq!(pieces(Cut::Frames, &bytes), expected);
        for wrong in [&b"\x82\x02{}"[..], b"\x01\x02{}", b"\x81\x82\0\0\0\0{}"] {
            assert!(Framer::new(Cut::Frames).next(wrong).is_err());
        }
    }

    #[test]
    fn a_farewell_is_a_frame_of_its_own() {
        let mut framer = Framer::new(Cut::Frames);
        assert!(framer.next(b"\x88\x02\x03\xe8").unwrap().is_some_and(|frame| frame.is_farewell()));
        assert!(framer.next(b"\x81\x02{}").unwrap().is_some_and(|frame| !frame.is_farewell()));
    }

    #[test]
    fn what_has_no_length_is_an_error() {
        assert!(Framer::default().next(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(Framer::default().next(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}

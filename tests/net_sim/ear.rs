//! What the server says, taken apart: answers, events, frames. Strict, since nobody is to be lenient with our own server.

use std::mem;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Http,
    Events,
    Frames,
}

/// One thing that was said, whole.
#[derive(Debug)]
pub(crate) enum Parsed {
    Continue,
    Answer { status: u16, closes: bool, body: String },
    BeginsEvents,
    BeginsFrames,
    Event { id: Option<String>, name: Option<String>, data: Option<String> },
    Comment,
    Frame { opcode: u8, payload: Vec<u8> },
}

pub(crate) struct ResponseParser {
    mode: Mode,
    heard: Vec<u8>,
    taken: usize,
}

impl ResponseParser {
    pub(crate) fn new() -> Self {
        Self { mode: Mode::Http, heard: Vec::new(), taken: 0 }
    }

    pub(crate) fn hear(&mut self, tape: &mut Vec<u8>) {
        if self.taken == self.heard.len() {
            self.taken = 0;
            self.heard.clear();
            mem::swap(&mut self.heard, tape);
        } else {
            self.heard.append(tape);
        }
    }

    /// Whether something was begun and is not whole.
    pub(crate) fn has_rest(&self) -> bool {
        self.taken < self.heard.len()
    }

    pub(crate) fn next(&mut self) -> Option<Parsed> {
        let rest = &self.heard[self.taken..];
        if rest.is_empty() {
            return None;
        }
        let (said, length) = match self.mode {
            Mode::Http => answer(rest)?,
            Mode::Events => event(rest)?,
            Mode::Frames => frame(rest)?,
        };
        self.taken += length;
        match said {
            Parsed::BeginsEvents => self.mode = Mode::Events,
            Parsed::BeginsFrames => self.mode = Mode::Frames,
            _ => {}
        }
        Some(said)
    }
}

/// Where `pattern` ends, if it is there.
fn end_of(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, pattern).map(|at| at + pattern.len())
}

fn answer(bytes: &[u8]) -> Option<(Parsed, usize)> {
    let head_bytes = end_of(bytes, b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..head_bytes - 4]).expect("heads are ASCII");
    let mut lines = head.split("\r\n");
    let status_line = lines.next().expect("a status line");
    let status = status_line.strip_prefix("HTTP/1.1 ").expect("an answer begins with its version");
    let status: u16 = status[..3].parse().expect("a status is a number");
    let (mut length, mut closes, mut is_events) = (None, false, false);
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a field has a name and a value");
        match name {
            "Content-Length" => {
                length = Some(value.parse::<usize>().expect("a length is a number"));
            }
            "Connection" => closes = value == "close",
            "Content-Type" => is_events = value == "text/event-stream",
            _ => {}
        }
    }
    match status {
        100 => return Some((Parsed::Continue, head_bytes)),
        101 => return Some((Parsed::BeginsFrames, head_bytes)),
        200 if is_events => return Some((Parsed::BeginsEvents, head_bytes)),
        _ => {}
    }
    let length = if status == 204 { 0 } else { length.expect("an answer tells its length") };
    let body = bytes.get(head_bytes..head_bytes + length)?;
    let body = String::from_utf8_lossy(body).into_owned();
    Some((Parsed::Answer { status, closes, body }, head_bytes + length))
}

fn event(bytes: &[u8]) -> Option<(Parsed, usize)> {
    let length = end_of(bytes, b"\n\n")?;
    let block = str::from_utf8(&bytes[..length - 2]).expect("events are UTF-8");
    if block.starts_with(':') {
        return Some((Parsed::Comment, length));
    }
    let (mut id, mut name, mut data) = (None, None, None);
    for line in block.split('\n') {
        let (field, value) = line.split_once(": ").expect("a field has a name and a value");
        let place = match field {
            "id" => &mut id,
            "event" => &mut name,
            "data" => &mut data,
            "retry" => continue,
            _ => panic!("no field of an event: {field}"),
        };
        assert!(place.replace(value.to_owned()).is_none(), "{field} twice");
    }
    Some((Parsed::Event { id, name, data }, length))
}

fn frame(bytes: &[u8]) -> Option<(Parsed, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert!(first & 0xf0 == 0x80 && second < 0x80, "a frame of a server is whole and not masked");
    let (length, at) = match second {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().expect("two"))), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().expect("eight")) as usize, 10),
        short => (usize::from(short), 2),
    };
    let payload = bytes.get(at..at + length)?.to_vec();
    Some((Parsed::Frame { opcode: first & 0x0f, payload }, at + length))
}

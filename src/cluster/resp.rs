//! RESP2, the protocol of Redis: commands to bytes, and bytes in any pieces to replies.
//!
//! `resp-rs` parses a reply, as soon as all of it has arrived. [`ReplyEnd`] finds its end. Without
//! it, each piece of a long reply would be parsed again from its first byte, and the limits would
//! be those of the library, which suit a server with gigabytes.

use std::fmt;

use bytes::BytesMut;
use resp_rs::resp2::{Frame, parse_frame};

use super::value::Value;

/// An empty buffer with more capacity is given back.
const KEPT_CAPACITY: usize = 256 * 1024;
/// Bytes of the longest length of a string or an array.
const LENGTH_MAX: usize = 20;

/// Bounds of one reply. A reply beyond one of them is an error, and the connection is of no use any
/// more.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Arrays within each other.
    pub depth: usize,
    /// Bytes of a line, without its type and its end.
    pub line: usize,
    /// Bytes of a whole reply.
    pub reply: usize,
    /// Values in a reply, of all arrays together. Each takes memory, however few bytes it has.
    pub values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 8, line: 64 * 1024, reply: 64 << 20, values: 1 << 20 }
    }
}

/// Error: the bytes are no reply, or one beyond a limit. Nothing of the input is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RespError {
    /// The bytes are not RESP2.
    Malformed,
    /// Arrays are nested too deeply.
    TooDeep,
    /// A line does not end.
    LineTooLong,
    /// The reply has too many bytes or values.
    TooLarge,
}

/// Appends a command in the form that every server accepts: an array of bulk strings.
pub fn push_command(out: &mut Vec<u8>, args: &[&[u8]]) {
    out.reserve(16 + args.iter().map(|arg| arg.len() + 16).sum::<usize>());
    write_line(out, b'*', args.len());
    for arg in args {
        write_line(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_line(out: &mut Vec<u8>, kind: u8, number: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Decoder of replies, which come in pieces of any size. Each byte is searched and parsed once,
/// whatever the pieces are.
#[derive(Debug)]
pub struct Decoder {
    input: BytesMut,
    end: ReplyEnd,
    limits: Limits,
    /// Bytes of the last reply that was taken.
    reply_bytes: usize,
    /// Error that has ended the input.
    error: Option<RespError>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Decoder {
    /// Creates a decoder without input.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let (input, end) = (BytesMut::new(), ReplyEnd::default());
        Self { input, end, limits, reply_bytes: 0, error: None }
    }

    /// Appends bytes of the server. If the caller takes all replies before it pushes more, the
    /// decoder keeps no more than a reply of the largest size.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Takes the next reply. `None` if it is not complete.
    ///
    /// # Errors
    ///
    /// [`RespError`], again at each later call: the rest of the input has no meaning.
    pub fn next_reply(&mut self) -> Result<Option<Value>, RespError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let reply = self.take_frame();
        self.error = reply.as_ref().err().copied();
        reply.map(|frame| frame.map(value_of))
    }

    /// Bytes of the last reply that was taken: each of its texts keeps all of them in memory.
    #[must_use]
    pub fn reply_bytes(&self) -> usize {
        self.reply_bytes
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, RespError> {
        let Some(length) = self.end.find(&self.input, &self.limits)? else { return Ok(None) };
        self.reply_bytes = length;
        let reply = self.input.split_to(length).freeze();
        if self.input.is_empty() && self.input.capacity() > KEPT_CAPACITY {
            self.input = BytesMut::new();
        }
        let (frame, _) = parse_frame(reply).map_err(|_| RespError::Malformed)?;
        Ok(Some(frame))
    }

    /// Bytes that were pushed and are not part of a returned reply.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.input.len()
    }
}

fn value_of(frame: Frame) -> Value {
    match frame {
        Frame::BulkString(None) | Frame::Array(None) => Value::Nil,
        Frame::Integer(number) => Value::Int(number),
        Frame::SimpleString(bytes) | Frame::BulkString(Some(bytes)) => Value::Text(bytes.into()),
        Frame::Error(text) => Value::Error(String::from_utf8_lossy(&text).into()),
        Frame::Array(Some(frames)) => Value::Array(frames.into_iter().map(value_of).collect()),
    }
}

/// Search for the end of the reply at the front of the input. Continues where it stopped when more
/// input has come.
#[derive(Debug, Default)]
struct ReplyEnd {
    /// Index of the type of the next value.
    at: usize,
    /// The line of that value does not end before this index.
    searched: usize,
    /// Values that are missing in each array, the outermost first.
    missing: Vec<usize>,
    /// Values that arrays have announced so far: all but the outermost value.
    announced: usize,
}

impl ReplyEnd {
    /// Returns the length of the reply, and begins again for the next one. `None` if it is not
    /// complete. It may be malformed in other ways than the structure.
    fn find(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, RespError> {
        while let Some(&kind) = input.get(self.at) {
            let line = match kind {
                b'$' | b'*' => find_length(&input[self.at + 1..], limits)?,
                b'+' | b'-' | b':' => self.line_end(input, limits)?.map(|end| (end, None)),
                _ => return Err(RespError::Malformed),
            };
            let Some((line, length)) = line else { return Ok(None) };
            let (children, text) = match (kind, length) {
                (b'*', Some(children)) => (children, 0),
                (b'$', Some(text)) => (0, text.saturating_add(2)),
                _ => (0, 0),
            };
            let end = (self.at + 1 + line + 2).saturating_add(text);
            if end > limits.reply || children >= limits.values - self.announced {
                return Err(RespError::TooLarge);
            }
            if end > input.len() {
                return Ok(None);
            }
            self.at = end;
            self.searched = 0;
            self.announced += children;
            if children > 0 {
                if self.missing.len() == limits.depth {
                    return Err(RespError::TooDeep);
                }
                self.missing.push(children);
            } else if self.close_value() {
                return Ok(Some(std::mem::take(self).at));
            }
        }
        Ok(None)
    }

    /// Counts a complete value, and the arrays that it completes. Returns true for the last value
    /// of the reply.
    fn close_value(&mut self) -> bool {
        while let Some(missing) = self.missing.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return false;
            }
            self.missing.pop();
        }
        true
    }

    /// Returns the bytes of the line of the value at `at`, without its type and its end.
    fn line_end(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, RespError> {
        let start = self.at + 1;
        let from = start.max(self.searched);
        let ends = memchr::memchr_iter(b'\n', &input[from..]).map(|index| from + index);
        let end = ends.map(|index| index - 1).find(|end| *end >= start && input[*end] == b'\r');
        if end.is_none() {
            self.searched = input.len();
        }
        // The last byte may belong to the end of the line.
        let length = end.unwrap_or(input.len().saturating_sub(1)).saturating_sub(start);
        if length > limits.line {
            return Err(RespError::LineTooLong);
        }
        Ok(end.map(|_| length))
    }
}

/// Reads the length of a string or of an array at the front of the input. Returns the bytes of its
/// line without the end, and the length: `None` for a null. Each record comes with five such lines,
/// of a few bytes.
fn find_length(input: &[u8], limits: &Limits) -> Result<Option<(usize, Option<usize>)>, RespError> {
    let line_max = LENGTH_MAX.min(limits.line);
    let mut length = 0_usize;
    for (index, byte) in input.iter().take(line_max + 1).enumerate() {
        match byte {
            // A number beyond usize is beyond every limit too.
            b'0'..=b'9' => {
                length = length.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
            }
            b'\r' => {
                let length = match &input[..index] {
                    b"-1" => None,
                    [] | [b'-', ..] => return Err(RespError::Malformed),
                    _ => Some(length),
                };
                return match input.get(index + 1) {
                    Some(b'\n') => Ok(Some((index, length))),
                    Some(_) => Err(RespError::Malformed),
                    None => Ok(None),
                };
            }
            b'-' if index == 0 => {}
            _ => return Err(RespError::Malformed),
        }
    }
    if input.len() > line_max { Err(RespError::LineTooLong) } else { Ok(None) }
}

impl fmt::Display for RespError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed reply: is this the port of a Redis, and without TLS?",
            Self::TooDeep => "malformed reply: too deeply nested",
            Self::LineTooLong => "malformed reply: a line is too long",
            Self::TooLarge => "a reply is too large",
        })
    }
}

impl std::error::Error for RespError {}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits { depth: 2, line: 4, reply: 40, values: 5 };

    fn decode(limits: Limits, input: &[u8], piece: usize) -> (Vec<Value>, Option<RespError>) {
        let (mut decoder, mut values) = (Decoder::new(limits), Vec::new());
        for bytes in input.chunks(piece) {
            decoder.push(bytes);
            loop {
                match decoder.next_reply() {
                    Ok(Some(value)) => values.push(value),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(decoder.next_reply(), Err(error));
                        return (values, Some(error));
                    }
                }
            }
        }
        (values, None)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.as_bytes().into())
    }

    #[test]
    fn replies_are_the_same_in_any_pieces() {
        let input = b"+OK\r\n:-7\r\n$-1\r\n*-1\r\n$0\r\n\r\n$4\r\na\r\nb\r\n-ERR x\xff\r\n*0\r\n\
            *2\r\n*2\r\n:1\r\n*0\r\n+a\rb\nc\r\n+\r\n*1\r\n$1\r\n";
        let expected = vec![
            text("OK"),
            Value::Int(-7),
            Value::Nil,
            Value::Nil,
            text(""),
            text("a\r\nb"),
            Value::Error("ERR x\u{fffd}".into()),
            Value::Array(vec![]),
            Value::Array(vec![
                Value::Array(vec![Value::Int(1), Value::Array(vec![])]),
                text("a\rb\nc"),
            ]),
            text(""),
        ];
        for piece in 1..=input.len() {
            assert_eq!(decode(Limits::default(), input, piece), (expected.clone(), None));
        }
    }

    #[test]
    fn a_reply_at_each_limit_is_accepted_and_one_beyond_it_is_not() {
        let accepted: [&[u8]; 7] = [
            b"+1234\r\n",
            b"*1\r\n*1\r\n:1\r\n",
            b"*4\r\n:1\r\n:1\r\n:1\r\n:1\r\n",
            b"*2\r\n*2\r\n:1\r\n:1\r\n$-1\r\n",
            b"$33\r\n123456789012345678901234567890123\r\n",
            b"*1\r\n*0\r\n",
            b"*1\r\n*1\r\n*0\r\n",
        ];
        let refused: [(&[u8], RespError); 18] = [
            (b"+12345\r\n", RespError::LineTooLong),
            (b"+123456", RespError::LineTooLong),
            (b"*1\r\n*1\r\n*1\r\n", RespError::TooDeep),
            (b"*5\r\n", RespError::TooLarge),
            (b"*2\r\n*3\r\n", RespError::TooLarge),
            (b"$34\r\n", RespError::TooLarge),
            (b"*9999\r\n", RespError::TooLarge),
            (b"*2\r\n$20\r\n12345678901234567890\r\n$10\r\n", RespError::TooLarge),
            (b"$12345", RespError::LineTooLong),
            (b"$-2\r\n", RespError::Malformed),
            (b"*-11\r\n", RespError::Malformed),
            (b"$1-1\r\n", RespError::Malformed),
            (b"*+1\r\n", RespError::Malformed),
            (b"$\r\n", RespError::Malformed),
            (b"$1\ra", RespError::Malformed),
            (b"$1\r\nab\r", RespError::Malformed),
            (b":1x\r\n", RespError::Malformed),
            (b"HTTP/1.1", RespError::Malformed),
        ];
        for piece in 1..20 {
            for input in accepted {
                let (values, error) = decode(SMALL, input, piece);
                assert_eq!((values.len(), error), (1, None), "{}", input.escape_ascii());
            }
            for (input, error) in refused {
                assert_eq!(decode(SMALL, input, piece), (vec![], Some(error)));
            }
        }
        let long = format!("${}\r\n", "9".repeat(20));
        let (_, error) = decode(Limits::default(), long.as_bytes(), 7);
        assert_eq!(error, Some(RespError::TooLarge));
    }

    #[test]
    fn texts_are_parts_of_their_reply() {
        let (values, _) = decode(Limits::default(), b"*2\r\n$2\r\nab\r\n$3\r\ncde\r\n", 3);
        let [Value::Array(texts)] = &values[..] else { panic!("an array") };
        let starts: Vec<_> = texts.iter().map(|it| it.as_text().unwrap().as_ptr().addr()).collect();
        assert_eq!(starts[1] - starts[0], b"ab\r\n$3\r\n".len());
    }

    #[test]
    fn the_buffer_of_a_large_reply_is_freed() {
        let mut decoder = Decoder::default();
        let mut reply = format!("${}\r\n", 4 << 20).into_bytes();
        reply.resize(reply.len() + (4 << 20), b'x');
        reply.extend_from_slice(b"\r\n");
        for piece in reply.chunks(65_536) {
            assert_eq!(decoder.next_reply(), Ok(None));
            decoder.push(piece);
        }
        let value = decoder.next_reply().unwrap().expect("a reply");
        assert_eq!(value.as_text().map(<[u8]>::len), Some(4 << 20));
        assert_eq!((decoder.buffered_bytes(), decoder.input.capacity()), (0, 0));
    }

    #[test]
    fn a_command_is_an_array_of_its_arguments() {
        let mut out = b"before".to_vec();
        push_command(&mut out, &[b"SET", b"", b"a\r\n"]);
        assert_eq!(out, b"before*3\r\n$3\r\nSET\r\n$0\r\n\r\n$3\r\na\r\n\r\n");
    }
}

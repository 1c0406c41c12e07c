//! Replies of Redis: pieces do not change them, limits hold, and another parser finds the same.
//!
//! An input is a digit for the limits, a line of sizes, then the stream, in pieces of those sizes.

use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;
use speak::cluster::{Decoder, Limits, RespError, Value, push_command};

use super::source::{Source, pieces};

/// The other parser has no limit on depth, and would overflow the stack.
const ORACLE_DEPTH_MAX: usize = 64;

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let limits = match source.below(3) {
        0 => Limits::default(),
        1 => Limits { depth: 2, line: 8, reply: 64, values: 6 },
        _ => Limits { depth: 1, line: 0, reply: 9, values: 1 },
    };
    let (sizes, stream) = (source.line(), source.rest());
    let whole = decode(&[stream], limits);
    assert_eq!(decode(&pieces(stream, sizes), limits), whole, "in pieces");
    assert_eq!(decode(&pieces(stream, b"1"), limits), whole, "byte by byte");
    compare(stream, &whole, limits);
    write_and_read(sizes, stream);
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Replies, each with the length of the stream up to its end.
    replies: Vec<(Value, usize)>,
    error: Option<RespError>,
}

/// Takes replies as the server does: all that are complete after each piece.
fn decode(pieces: &[&[u8]], limits: Limits) -> Outcome {
    let (mut decoder, mut replies, mut pushed) = (Decoder::new(limits), Vec::new(), 0);
    for piece in pieces {
        decoder.push(piece);
        pushed += piece.len();
        loop {
            match decoder.next_reply() {
                Ok(Some(value)) => replies.push((value, pushed - decoder.buffered_bytes())),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next_reply(), Err(error));
                    return Outcome { replies, error: Some(error) };
                }
            }
        }
        assert!(decoder.buffered_bytes() <= limits.reply, "more than a reply is kept");
    }
    Outcome { replies, error: None }
}

/// Compares with the other parser, which is lenient: it takes any two bytes for the end of a text,
/// and lengths such as `+1` and `-01`.
fn compare(stream: &[u8], outcome: &Outcome, limits: Limits) {
    let mut start = 0;
    for (value, end) in &outcome.replies {
        assert!(end - start <= limits.reply && depth(value) <= limits.depth);
        assert!(count(value) <= limits.values);
        let reply = &stream[start..*end];
        let parsed = decode_range(reply).expect("a reply that the other parser accepts");
        let (frame, length) = parsed.expect("a complete reply");
        assert_eq!((value_of(&frame, reply), length), (value.clone(), reply.len()));
        start = *end;
    }
    let rest = &stream[start..];
    // A reply that is spelled as Redis does is refused by a limit only.
    let arrays = rest.split(|byte| *byte == b'*').skip(1).count();
    let parsed = (arrays <= ORACLE_DEPTH_MAX).then(|| decode_range(rest).ok().flatten());
    if let Some((frame, length)) = parsed.flatten() {
        let value = value_of(&frame, rest);
        let mut spelling = Vec::new();
        spell(&frame, rest, &mut spelling);
        let is_beyond = length > limits.reply
            || depth(&value) > limits.depth
            || count(&value) > limits.values
            || longest_line(&frame) > limits.line;
        assert!(is_beyond || spelling != rest[..length], "refused: {}", rest.escape_ascii());
        assert!(outcome.error.is_some(), "incomplete for us only");
    }
}

fn value_of(frame: &RangeFrame, bytes: &[u8]) -> Value {
    match frame {
        RangeFrame::Null => Value::Nil,
        RangeFrame::Integer(number) => Value::Int(*number),
        RangeFrame::SimpleString(range) | RangeFrame::BulkString(range) => {
            Value::Text(bytes[range.0..range.1].into())
        }
        RangeFrame::Error(range) => {
            Value::Error(String::from_utf8_lossy(&bytes[range.0..range.1]).into())
        }
        RangeFrame::Array(frames) => {
            Value::Array(frames.iter().map(|frame| value_of(frame, bytes)).collect())
        }
    }
}

/// Appends the only spelling that Redis uses, but one of the two for a null.
fn spell(frame: &RangeFrame, bytes: &[u8], out: &mut Vec<u8>) {
    match frame {
        RangeFrame::Null => out.extend_from_slice(b"$-1\r\n"),
        RangeFrame::Integer(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
        RangeFrame::SimpleString(range) => {
            out.extend_from_slice(&[b"+", &bytes[range.0..range.1], b"\r\n"].concat());
        }
        RangeFrame::Error(range) => {
            out.extend_from_slice(&[b"-", &bytes[range.0..range.1], b"\r\n"].concat());
        }
        RangeFrame::BulkString(range) => {
            let text = &bytes[range.0..range.1];
            out.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
            out.extend_from_slice(&[text, b"\r\n"].concat());
        }
        RangeFrame::Array(frames) => {
            out.extend_from_slice(format!("*{}\r\n", frames.len()).as_bytes());
            for frame in frames {
                spell(frame, bytes, out);
            }
        }
    }
}

/// Returns how many arrays with elements are within each other.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) if !values.is_empty() => {
            1 + values.iter().map(depth).max().unwrap_or(0)
        }
        _ => 0,
    }
}

fn count(value: &Value) -> usize {
    1 + value.as_array().map_or(0, |values| values.iter().map(count).sum())
}

fn longest_line(frame: &RangeFrame) -> usize {
    match frame {
        RangeFrame::Null => 2,
        RangeFrame::Integer(number) => number.to_string().len(),
        RangeFrame::SimpleString((start, end)) | RangeFrame::Error((start, end)) => end - start,
        RangeFrame::BulkString((start, end)) => (end - start).to_string().len(),
        RangeFrame::Array(frames) => {
            let longest = frames.iter().map(longest_line).max().unwrap_or(0);
            longest.max(frames.len().to_string().len())
        }
    }
}

/// Writes a command, and reads it back: to the decoder, it is an array of texts.
fn write_and_read(first: &[u8], second: &[u8]) {
    let mut bytes = Vec::new();
    push_command(&mut bytes, &[first, second]);
    let expected = Value::Array(vec![Value::Text(first.into()), Value::Text(second.into())]);
    let outcome = decode(&[&bytes], Limits::default());
    assert_eq!(outcome.replies, [(expected, bytes.len())]);
}

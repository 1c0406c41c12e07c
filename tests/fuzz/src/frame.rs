//! WebSocket frames: pieces do not change them, each has one spelling, and written ones read back.
//!
//! An input is a digit for the largest payload, a line of sizes, then the stream, in pieces of
//! those sizes.

use speak::http::{CloseCode, Frame, Opcode, close_reply, parse_frame, push_close, push_frame};
use support::ws;

use super::source::{Source, pieces};

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let payload_max = source.pick(&[usize::MAX, 0, 3, 125, 126, 200]);
    let (sizes, stream) = (source.line(), source.rest());
    let whole = take_all(&[stream], payload_max);
    assert_eq!(take_all(&pieces(stream, sizes), payload_max), whole, "in pieces");
    assert_eq!(take_all(&pieces(stream, b"1"), payload_max), whole, "byte by byte");
    check(stream, &whole, payload_max);
    write_and_read(sizes);
    write_and_read(stream);
}

#[derive(Debug, PartialEq, Eq)]
struct Owned {
    opcode: Opcode,
    is_final: bool,
    payload: Vec<u8>,
    length: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    frames: Vec<Owned>,
    error: Option<CloseCode>,
}

/// Takes frames as the server does: complete ones from the front of the buffered bytes.
fn take_all(pieces: &[&[u8]], payload_max: usize) -> Outcome {
    let (mut held, mut frames) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut taken = 0;
        loop {
            match parse_frame(&mut held[taken..], payload_max) {
                Ok(None) => break,
                Ok(Some((Frame { opcode, is_final, payload }, length))) => {
                    frames.push(Owned { opcode, is_final, payload: payload.to_vec(), length });
                    taken += length;
                }
                Err(code) => return Outcome { frames, error: Some(code) },
            }
        }
        held.drain(..taken);
    }
    Outcome { frames, error: None }
}

fn check(stream: &[u8], outcome: &Outcome, payload_max: usize) {
    let mut rest = stream;
    for frame in &outcome.frames {
        let (bytes, after) = rest.split_at(frame.length);
        rest = after;
        let is_control = matches!(frame.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        assert!(!is_control || (frame.is_final && frame.payload.len() <= 125));
        // A ping may come within a message of the largest size.
        assert!(is_control || frame.payload.len() <= payload_max);
        let mask_at = frame.length - frame.payload.len() - 4;
        let mask = bytes[mask_at..mask_at + 4].try_into().expect("four bytes");
        // Since each frame has one spelling, no proxy can read another one.
        let first = first_byte(frame.opcode, frame.is_final);
        let spelling = ws::client_frame_with(first, &frame.payload, mask);
        assert_eq!(spelling, bytes, "another spelling");
        if frame.opcode == Opcode::Close {
            let mut farewell = Vec::new();
            push_close(&mut farewell, close_reply(&frame.payload));
            assert_eq!(farewell.len(), 4);
        }
    }
    if let Some(code) = outcome.error {
        assert!(
            matches!(
                code,
                CloseCode::ProtocolError | CloseCode::UnsupportedData | CloseCode::MessageTooBig
            ),
            "{code:?}"
        );
        // The header is complete, and none of its bytes was superfluous.
        let mut header = rest[..rest.len().min(14)].to_vec();
        assert_eq!(parse_frame(&mut header, payload_max), Err(code));
    }
}

/// Writes frames as a server and as a client, and reads them at the other side.
fn write_and_read(payload: &[u8]) {
    let mut long = payload.to_vec();
    // Sometimes a size that takes eight bytes.
    if payload.len() == 7 {
        long.resize(65_536 + usize::from(payload[0]), b'x');
    }
    for opcode in [Opcode::Continuation, Opcode::Text, Opcode::Close, Opcode::Ping, Opcode::Pong] {
        let is_control = matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        let payload = if is_control { &long[..long.len().min(125)] } else { &long[..] };
        let first = first_byte(opcode, true);
        let mut bytes = ws::client_frame(first, payload);
        let length = bytes.len();
        bytes.push(b'!');
        assert_eq!(parse_frame(&mut bytes[..length - 1], usize::MAX), Ok(None));
        let frame = Frame { opcode, is_final: true, payload };
        assert_eq!(parse_frame(&mut bytes, usize::MAX), Ok(Some((frame, length))));
        if opcode != Opcode::Continuation {
            let mut bytes = Vec::new();
            push_frame(&mut bytes, opcode, payload);
            let read = (ws::Frame { first, payload }, bytes.len());
            assert_eq!(ws::server_frame(&bytes), Ok(Some(read)));
        }
    }
}

fn first_byte(opcode: Opcode, is_final: bool) -> u8 {
    let code = match opcode {
        Opcode::Continuation => 0x0,
        Opcode::Text => 0x1,
        Opcode::Close => 0x8,
        Opcode::Ping => 0x9,
        Opcode::Pong => 0xa,
    };
    if is_final { 0x80 | code } else { code }
}

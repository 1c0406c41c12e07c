//! WebSocket (RFC 6455): the handshake's key, and frames out of bytes and back. No sockets, no buffers of its own.

use base64ct::{Base64, Encoding};
use sha1::{Digest, Sha1};

/// Why a peer is told to go, as a Close frame tells it (RFC 6455, section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// All is said.
    Normal = 1000,
    /// The server stops.
    GoingAway = 1001,
    /// A violation of the protocol.
    ProtocolError = 1002,
    /// Binary.
    UnsupportedData = 1003,
    /// A text that is not UTF-8.
    InvalidPayload = 1007,
    /// Larger than any call.
    MessageTooBig = 1009,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with a message of several frames.
    Continuation = 0,
    /// Text, or the beginning of one.
    Text = 1,
    /// Says farewell.
    Close = 8,
    /// Wants a Pong.
    Ping = 9,
    /// Answers a Ping, or says that the peer lives.
    Pong = 10,
}

impl Opcode {
    /// Whether it may come between the frames of a message, and is no part of it.
    fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }
}

/// One frame of a client, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub opcode: Opcode,
    /// Whether its message ends with it.
    pub is_final: bool,
    /// What it carries.
    pub payload: &'a [u8],
}

/// The longest payload of a Close, a Ping or a Pong (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// Appended to the key of a handshake (RFC 6455, section 1.3).
const HANDSHAKE_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes of a key before it is encoded.
const KEY_BYTES: usize = 16;

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`; none where that is not 16 bytes in Base64.
#[must_use]
pub fn accept_key(key: &[u8]) -> Option<String> {
    let mut decoded = [0; KEY_BYTES];
    let is_key = Base64::decode(key, &mut decoded).is_ok_and(|decoded| decoded.len() == KEY_BYTES);
    is_key.then(|| {
        Base64::encode_string(
            &Sha1::new().chain_update(key).chain_update(HANDSHAKE_SUFFIX).finalize(),
        )
    })
}

/// The frame at the start of `bytes` and its length there; `None` while it is not whole. Unmasks it in place.
///
/// # Errors
///
/// The code to close with, as soon as the header tells: for what RFC 6455, section 5.2 forbids, for binary, and for a
/// part of a message above `payload_max` bytes.
pub fn parse_frame(
    bytes: &mut [u8],
    payload_max: usize,
) -> Result<Option<(Frame<'_>, usize)>, CloseCode> {
    let Some(header) = Header::parse(bytes)? else { return Ok(None) };
    if header.payload_bytes > payload_max as u64 && !header.opcode.is_control() {
        return Err(CloseCode::MessageTooBig);
    }
    let end = header.bytes + header.payload_bytes as usize;
    let Some(payload) = bytes.get_mut(header.bytes..end) else { return Ok(None) };
    for (byte, mask) in payload.iter_mut().zip(header.mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some((Frame { opcode: header.opcode, is_final: header.is_final, payload }, end)))
}

/// What stands before a payload.
struct Header {
    opcode: Opcode,
    is_final: bool,
    payload_bytes: u64,
    mask: [u8; 4],
    /// Of the header itself.
    bytes: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, CloseCode> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let is_final = first & 0x80 != 0;
        let opcode = match first & 0x7f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => return Err(CloseCode::UnsupportedData),
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            // A reserved bit, which no extension asked for, or a reserved opcode.
            _ => return Err(CloseCode::ProtocolError),
        };
        let is_masked = second & 0x80 != 0;
        let short = usize::from(second & 0x7f);
        if !is_masked || (opcode.is_control() && (!is_final || short > CONTROL_BYTES_MAX)) {
            return Err(CloseCode::ProtocolError);
        }
        let (payload_bytes, length_bytes, least) = match short {
            126 => (rest.first_chunk().map(|length| u16::from_be_bytes(*length).into()), 2, 126),
            127 => (rest.first_chunk().map(|length| u64::from_be_bytes(*length)), 8, 1 << 16),
            short => (Some(short as u64), 0, 0),
        };
        let Some(payload_bytes) = payload_bytes else { return Ok(None) };
        if payload_bytes < least || payload_bytes >> 63 != 0 {
            return Err(CloseCode::ProtocolError);
        }
        let mask = rest[length_bytes..].first_chunk();
        Ok(mask.map(|mask| Self {
            opcode,
            is_final,
            payload_bytes,
            mask: *mask,
            bytes: 2 + length_bytes + 4,
        }))
    }
}

/// Appends a whole frame of the server.
pub fn push_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let length = payload.len();
    out.push(0x80 | opcode as u8);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..126), _) => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Appends a Close.
pub fn push_close(out: &mut Vec<u8>, code: CloseCode) {
    push_frame(out, Opcode::Close, &(code as u16).to_be_bytes());
}

/// The code that answers the Close of a peer: that all is said, or that its own was no farewell.
#[must_use]
pub fn close_reply(payload: &[u8]) -> CloseCode {
    let [high, low, reason @ ..] = payload else {
        return if payload.is_empty() { CloseCode::Normal } else { CloseCode::ProtocolError };
    };
    match u16::from_be_bytes([*high, *low]) {
        _ if str::from_utf8(reason).is_err() => CloseCode::InvalidPayload,
        1000..=1003 | 1007..=1014 | 3000..=4999 => CloseCode::Normal,
        _ => CloseCode::ProtocolError,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client sends it.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        push_frame(&mut frame, Opcode::Text, payload);
        frame[0] = first;
        frame[1] |= 0x80;
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let header_bytes = frame.len() - payload.len();
        frame.splice(header_bytes..header_bytes, mask);
        let payload = &mut frame[header_bytes + 4..];
        payload.iter_mut().enumerate().for_each(|(place, byte)| *byte ^= mask[place % 4]);
        frame
    }

    #[test]
    fn the_key_of_the_specification_gets_its_answer() {
        // RFC 6455, section 1.3.
        let answer = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(answer.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "c2hvcnQ=",
            "dGhlIHNhbXBsZSBub25jZSE=",
            "!!",
        ] {
            assert_eq!(accept_key(key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn the_frames_of_the_specification_are_read() {
        // RFC 6455, section 5.7: a masked "Hello".
        let mut hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let frame = Frame { opcode: Opcode::Text, is_final: true, payload: b"Hello" };
        assert_eq!(parse_frame(&mut hello, 5), Ok(Some((frame, 11))));
    }

    #[test]
    fn what_the_specification_forbids_is_refused_as_soon_as_it_shows() {
        use CloseCode::{MessageTooBig, ProtocolError, UnsupportedData};
        let long = [0; 126];
        let mut padded_short = masked(0x81, &long);
        padded_short[2..4].copy_from_slice(&125_u16.to_be_bytes());
        let mut huge = masked(0x81, &vec![0; 1 << 16]);
        huge[2] = 0x80;
        let cases: &[(&str, Vec<u8>, CloseCode)] = &[
            ("not masked", vec![0x81, 0x05], ProtocolError),
            ("a reserved bit", masked(0xc1, b""), ProtocolError),
            ("a reserved opcode", masked(0x83, b""), ProtocolError),
            ("a reserved control opcode", masked(0x8b, b""), ProtocolError),
            ("a long ping", masked(0x89, &long), ProtocolError),
            ("half a close", masked(0x08, b""), ProtocolError),
            ("a length longer than it need be", padded_short, ProtocolError),
            ("a negative length", huge, ProtocolError),
            ("binary", masked(0x82, b""), UnsupportedData),
            ("too large", masked(0x81, &[0; 201]), MessageTooBig),
        ];
        for (what, bytes, code) in cases {
            let mut bytes = bytes.clone();
            bytes.truncate(10);
            assert_eq!(parse_frame(&mut bytes, 200), Err(*code), "{what}");
        }
    }

    #[test]
    fn control_frames_need_no_room_of_the_message_between_whose_frames_they_come() {
        let mut ping = masked(0x89, b"still there?");
        assert!(matches!(
            parse_frame(&mut ping, 0),
            Ok(Some((Frame { opcode: Opcode::Ping, .. }, _)))
        ));
    }

    #[test]
    fn a_close_is_answered_as_it_deserves() {
        let close = |code: u16, reason: &[u8]| close_reply(&[&code.to_be_bytes(), reason].concat());
        assert_eq!(close_reply(b""), CloseCode::Normal);
        assert_eq!(close_reply(b"\x03"), CloseCode::ProtocolError);
        for code in [1000, 1001, 1003, 1007, 1011, 3000, 4999] {
            assert_eq!(close(code, "bye ✓".as_bytes()), CloseCode::Normal, "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            assert_eq!(close(code, b""), CloseCode::ProtocolError, "{code}");
        }
        assert_eq!(close(1000, b"\xff"), CloseCode::InvalidPayload);
    }

    proptest! {
        #[test]
        fn a_frame_comes_out_as_it_went_in_however_it_is_cut(
            length in prop_oneof![0_usize..130, 65_530_usize..65_540], cut in 0_usize..70_000,
        ) {
            let payload: Vec<u8> = (0..length).map(|place| (place * 7) as u8).collect();
            let mut bytes = masked(0x01, &payload);
            let whole = bytes.len();
            let cut = cut % whole;
            prop_assert_eq!(parse_frame(&mut bytes[..cut], usize::MAX), Ok(None));
            bytes.extend_from_slice(b"next");
            let frame = Frame { opcode: Opcode::Text, is_final: false, payload: &payload };
            prop_assert_eq!(parse_frame(&mut bytes, length), Ok(Some((frame, whole))));
        }
    }
}

//! WebSocket (RFC 6455): the key of the handshake, and frames. Has no sockets and no buffers.

use base64ct::{Base64, Encoding};
use sha1::{Digest, Sha1};

/// Status code of a Close frame (RFC 6455, section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// The WebSocket has done its work.
    Normal = 1000,
    /// The server shuts down.
    GoingAway = 1001,
    /// The peer violated the protocol.
    ProtocolError = 1002,
    /// The peer sent a binary message.
    UnsupportedData = 1003,
    /// The peer sent a text that is not UTF-8.
    InvalidPayload = 1007,
    /// The peer sent a message that is larger than any call.
    MessageTooBig = 1009,
}

/// Type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Continues a message of several frames.
    Continuation = 0,
    /// Text, or its first frame.
    Text = 1,
    /// Ends the WebSocket.
    Close = 8,
    /// Asks for a Pong.
    Ping = 9,
    /// Responds to a Ping, or is a heartbeat of the peer.
    Pong = 10,
}

impl Opcode {
    /// Returns whether the frame is no part of a message, and may come between the frames of one.
    pub(crate) fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }
}

/// Frame of a client, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type.
    pub opcode: Opcode,
    /// The frame is the last one of its message.
    pub is_final: bool,
    /// Content.
    pub payload: &'a [u8],
}

/// Bytes of the longest payload of a Close, a Ping or a Pong (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// Text that the handshake appends to its key (RFC 6455, section 1.3).
const HANDSHAKE_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bytes of a decoded key.
const KEY_BYTES: usize = 16;

/// Returns the `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`; `None` if the key is not 16 bytes
/// in Base64.
pub(crate) fn accept_key(key: &[u8]) -> Option<String> {
    let mut decoded = [0; KEY_BYTES];
    let is_key = Base64::decode(key, &mut decoded).is_ok_and(|decoded| decoded.len() == KEY_BYTES);
    is_key.then(|| {
        Base64::encode_string(
            &Sha1::new().chain_update(key).chain_update(HANDSHAKE_SUFFIX).finalize(),
        )
    })
}

/// Returns the frame at the start of `bytes` and its size there; `None` while the frame is
/// incomplete. Unmasks the payload in place.
///
/// # Errors
///
/// Code to close with, as soon as the header is complete: for a frame that RFC 6455, section 5.2
/// forbids, for a binary message, and for a part of a message above `payload_max` bytes.
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

/// Header of a frame.
struct Header {
    opcode: Opcode,
    is_final: bool,
    payload_bytes: u64,
    mask: [u8; 4],
    /// Size of the header.
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
            // A reserved bit, which needs an extension, or a reserved opcode.
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

/// Appends a frame of the server.
pub fn push_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    push_frame_head(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends the head of a frame of the server whose payload has `length` bytes.
#[inline]
pub(crate) fn push_frame_head(out: &mut Vec<u8>, opcode: Opcode, length: usize) {
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
}

/// Appends a Close frame.
pub fn push_close(out: &mut Vec<u8>, code: CloseCode) {
    push_frame(out, Opcode::Close, &(code as u16).to_be_bytes());
}

/// Returns the code that responds to the Close frame of a peer: `Normal`, or the error of an
/// invalid Close frame.
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

    /// Returns a frame of a client.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        push_frame(&mut frame, Opcode::Text, payload);
        frame[0] = first;
        frame[1] |= 0x80;
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let header_bytes = frame.len() - payload.len();
        frame.splice(header_bytes..header_bytes, mask);
        let payload = &mut frame[header_bytes + 4..];
        payload.iter_mut().enumerate().for_each(|(index, byte)| *byte ^= mask[index % 4]);
        frame
    }

    #[test]
    fn the_key_of_the_specification_gets_its_response() {
        // RFC 6455, section 1.3.
        let accept = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
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
    fn the_frames_of_the_specification_are_parsed() {
        // RFC 6455, section 5.7: a masked "Hello".
        let mut hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let frame = Frame { opcode: Opcode::Text, is_final: true, payload: b"Hello" };
        assert_eq!(parse_frame(&mut hello, 5), Ok(Some((frame, 11))));
    }

    #[test]
    fn a_forbidden_frame_is_an_error_as_soon_as_its_header_is_complete() {
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
            ("a length with more bytes than needed", padded_short, ProtocolError),
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
    fn control_frames_do_not_count_against_the_limit_of_a_message() {
        let mut ping = masked(0x89, b"still there?");
        assert!(matches!(
            parse_frame(&mut ping, 0),
            Ok(Some((Frame { opcode: Opcode::Ping, .. }, _)))
        ));
    }

    #[test]
    fn a_close_frame_gets_the_code_for_its_content() {
        let close = |code: u16, reason: &[u8]| close_reply(&[&code.to_be_bytes(), reason].concat());
        assert_eq!(close_reply(b""), CloseCode::Normal);
        assert_eq!(close_reply(b"\x03"), CloseCode::ProtocolError);
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999] {
            assert_eq!(close(code, "bye ✓".as_bytes()), CloseCode::Normal, "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            assert_eq!(close(code, b""), CloseCode::ProtocolError, "{code}");
        }
        assert_eq!(close(1000, b"\xff"), CloseCode::InvalidPayload);
    }

    proptest! {
        #[test]
        fn a_frame_is_decoded_as_it_was_encoded_however_it_is_cut(
            length in prop_oneof![0_usize..130, 65_530_usize..65_540], cut in 0_usize..70_000,
        ) {
            let payload: Vec<u8> = (0..length).map(|index| (index * 7) as u8).collect();
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

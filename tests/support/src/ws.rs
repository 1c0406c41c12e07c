//! WebSocket frames (RFC 6455, section 5): a client's are masked, a server's are not.

use crate::Malformed;

// First bytes of frames: FIN and the opcode.
pub const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// Header fields of the handshake of RFC 6455, section 1.3.
pub const HANDSHAKE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];
/// `Sec-WebSocket-Accept` of the response to it.
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A client's mask where the test needs no other.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// FIN and the opcode.
    pub first: u8,
    pub payload: &'a [u8],
}

/// Returns a frame as a client has to send it.
pub fn client_frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    client_frame_with(first, payload.as_ref(), MASK)
}

/// Returns a frame with a mask of the test's choice.
pub fn client_frame_with(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0xfe);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0xff);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Parses the frame of a server at the start of `bytes`, and returns it with its length.
/// `None` while it is not whole.
pub fn server_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    if !matches!(first, TEXT | CLOSE | PING | PONG) || second & 0x80 != 0 {
        return Err(Malformed::new("a frame that is masked, not whole, or of another kind", bytes));
    }
    let (start, least): (usize, usize) = match second {
        126 => (4, 126),
        127 => (10, 0x1_0000),
        _ => (2, 0),
    };
    let length = match start {
        2 => Some(usize::from(second)),
        4 => rest.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length))),
        _ => rest.first_chunk().map(|length| u64::from_be_bytes(*length) as usize),
    };
    let Some(length) = length else { return Ok(None) };
    if length < least || first & 0x08 != 0 && length > 125 {
        return Err(Malformed::new("a length that is not minimal, or too large", bytes));
    }
    let end = start.saturating_add(length);
    Ok(bytes.get(start..end).map(|payload| (Frame { first, payload }, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a frame as a server sends it.
    fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = client_frame_with(first, payload, [0; 4]);
        let start = frame.len() - payload.len();
        frame[1] &= 0x7f;
        frame.drain(start - 4..start);
        frame
    }

    #[test]
    fn frames_of_all_lengths_come_back_and_only_when_they_are_whole() {
        for length in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, 70_000] {
            let payload = vec![b'x'; length];
            let mut bytes = unmasked(TEXT, &payload);
            let whole = bytes.len();
            bytes.push(0x81);
            let frame = Frame { first: TEXT, payload: &payload };
            assert_eq!(server_frame(&bytes), Ok(Some((frame, whole))), "{length}");
            for cut in [0, 1, 2, 3, 9, whole - 1].into_iter().filter(|cut| *cut < whole) {
                assert_eq!(server_frame(&bytes[..cut]), Ok(None), "{cut} of {length}");
            }
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_masked_as_there() {
        let frame = client_frame_with(TEXT, b"Hello", MASK);
        assert_eq!(frame, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    }

    #[test]
    fn frames_that_no_server_sends_are_errors() {
        let wrong: [&[u8]; 7] = [
            b"\x82\x02{}",
            b"\x01\x02{}",
            b"\xc1\x02{}",
            b"\x81\x82\0\0\0\0{}",
            b"\x81\x7e\0\x02{}",
            b"\x81\x7f\0\0\0\0\0\0\0\x02{}",
            b"\x89\x7e\0\x80",
        ];
        for bytes in wrong {
            assert!(server_frame(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }
}

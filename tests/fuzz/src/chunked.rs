//! Chunked bodies, compared with a slow decoder of complete bodies.
//!
//! An input is a line of sizes, followed by the bytes after the head, in pieces of those sizes. The
//! same bytes are also encoded, in chunks of those sizes, and decoded again.

use speak::http::ParseError;

use super::source::{Source, pieces};
use super::stream::{LIMITS, ReadCut, take_all};

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Bytes that are neither data nor framing.
const EXTRAS_BYTES_MAX: usize = 4096;

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let (sizes, bytes) = (source.line(), source.rest());
    decode(bytes, sizes);
    encode_and_decode(bytes, sizes);
}

fn decode(bytes: &[u8], sizes: &[u8]) {
    let stream = [HEAD, bytes].concat();
    let whole = take_all(&[&stream], ReadCut::Short);
    let in_pieces = take_all(&pieces(&stream, sizes), ReadCut::Short);
    assert_eq!(in_pieces, whole, "in pieces");
    match (naive_decode(bytes), whole.requests.first()) {
        (Ok((body, length)), Some((request, bytes))) => {
            assert_eq!(request.body, body);
            assert_eq!(*bytes, HEAD.len() + length);
        }
        (Err(Fault::Incomplete), None) => assert_eq!(whole.reject, None),
        (Err(Fault::Bad), None) => {
            assert!(matches!(whole.reject, Some(ParseError::BadRequest(_))), "{:?}", whole.reject);
        }
        (Err(Fault::Large), None) => assert_eq!(whole.reject, Some(ParseError::BodyTooLarge)),
        (Err(Fault::Extras), None) => assert_eq!(whole.reject, Some(ParseError::HeadersTooLarge)),
        (expected, got) => panic!("expected {expected:?}, got {got:?} and {:?}", whole.reject),
    }
}

fn encode_and_decode(data: &[u8], sizes: &[u8]) {
    let data = &data[..data.len().min(LIMITS.body_bytes)];
    let mut stream = HEAD.to_vec();
    for chunk in pieces(data, sizes) {
        stream.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        stream.extend_from_slice(chunk);
        stream.extend_from_slice(b"\r\n");
    }
    stream.extend_from_slice(b"0\r\n\r\n");
    let got = take_all(&pieces(&stream, sizes), ReadCut::Short);
    assert_eq!(got.requests.len(), 1);
    assert_eq!(got.requests[0].0.body, data, "encoded and decoded");
    assert_eq!((got.reject, got.left), (None, 0));
}

#[derive(Debug)]
enum Fault {
    Incomplete,
    Bad,
    Large,
    Extras,
}

/// Bytes from a position on.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    extras: usize,
}

/// Decodes by RFC 9112, section 7.1, in its strictest reading. Returns the body and its end.
fn naive_decode(bytes: &[u8]) -> Result<(Vec<u8>, usize), Fault> {
    let mut reader = Reader { bytes, at: 0, extras: 0 };
    let mut body = Vec::new();
    loop {
        let size = reader.size_line()?;
        if size == 0 {
            break;
        }
        let room = (LIMITS.body_bytes - body.len()) as u64;
        if size > room {
            return Err(Fault::Large);
        }
        for _ in 0..size {
            body.push(reader.next()?);
        }
        reader.line_end()?;
    }
    while reader.peek()? != b'\r' {
        reader.trailer()?;
    }
    reader.line_end()?;
    Ok((body, reader.at))
}

impl Reader<'_> {
    fn peek(&self) -> Result<u8, Fault> {
        self.bytes.get(self.at).copied().ok_or(Fault::Incomplete)
    }

    fn next(&mut self) -> Result<u8, Fault> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.next()? == byte { Ok(()) } else { Err(Fault::Bad) }
    }

    fn line_end(&mut self) -> Result<(), Fault> {
        self.expect(b'\r')?;
        self.expect(b'\n')
    }

    /// Skips bytes of one kind that are neither data nor framing, and returns their number.
    fn extras(&mut self, is_its: impl Fn(u8) -> bool) -> Result<usize, Fault> {
        let start = self.at;
        while is_its(self.peek()?) {
            self.extras += 1;
            self.at += 1;
            if self.extras > EXTRAS_BYTES_MAX {
                return Err(Fault::Extras);
            }
        }
        Ok(self.at - start)
    }

    fn size_line(&mut self) -> Result<u64, Fault> {
        let mut digits = String::new();
        while self.peek()?.is_ascii_hexdigit() {
            digits.push(char::from(self.next()?));
            if digits.len() > 16 {
                return Err(Fault::Bad);
            }
        }
        let size = u64::from_str_radix(&digits, 16).map_err(|_| Fault::Bad)?;
        let spaces = self.extras(|byte| matches!(byte, b' ' | b'\t'))?;
        if self.peek()? == b';' {
            self.at += 1;
            self.extras(is_text)?;
        } else if spaces > 0 {
            return Err(Fault::Bad);
        }
        self.line_end()?;
        Ok(size)
    }

    fn trailer(&mut self) -> Result<(), Fault> {
        if self.extras(is_name)? == 0 {
            return Err(Fault::Bad);
        }
        self.expect(b':')?;
        self.extras(is_text)?;
        self.line_end()
    }
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

//! HTTP/1.1 as a client sees it: requests are written, heads and bodies are parsed as they come.

use std::borrow::Cow;
use std::fmt::Write as _;

use memchr::memmem;

use crate::Malformed;

/// A longer head is taken for a defect of the server.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// Names, as the server writes them, and values.
    pub fields: Vec<(String, String)>,
}

/// Way in which the length of a body is known (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    /// The body ends with the connection.
    ToEnd,
}

impl Head {
    /// Parses the head at the start of `bytes`, and returns it with its length.
    /// `None` while it is not whole.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
            let is_wrong = bytes.len() > HEAD_BYTES_MAX || !could_begin_a_head(bytes);
            return if is_wrong { Err(Malformed::new("not a head", bytes)) } else { Ok(None) };
        };
        let head = Self::parse_lines(&bytes[..end]);
        head.map(|head| Some((head, end + 4))).ok_or_else(|| Malformed::new("not a head", bytes))
    }

    fn parse_lines(head: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(head).ok()?.split("\r\n");
        let line = lines.next()?;
        let line = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?;
        let (status, reason) = line.split_once(' ')?;
        let is_status = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(": ")?;
            let is_plain = value.bytes().all(|byte| (b' '..0x7f).contains(&byte));
            let is_field = !name.is_empty() && !value.is_empty() && value.trim() == value;
            (is_field && is_plain).then(|| (name.to_owned(), value.to_owned()))
        });
        let fields = fields.collect::<Option<_>>()?;
        (is_status && !reason.is_empty()).then_some(Self { status: status.parse().ok()?, fields })
    }

    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let its = move |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(its).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a field, and none where it occurs twice.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Says whether the server closes after this response.
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// Says whether an event stream follows.
    pub fn begins_events(&self) -> bool {
        self.status == 200 && self.field("content-type") == Some("text/event-stream")
    }

    /// Returns the framing of the body; the response to a HEAD has none, whatever its head says.
    pub fn framing(&self) -> Result<Framing, Malformed> {
        let wrong = |value: &str| Malformed::new("no framing of a body", value.as_bytes());
        if matches!(self.status, 100..=199 | 204 | 304) {
            return Ok(Framing::None);
        }
        let mut lengths = self.all("content-length");
        match (self.field("transfer-encoding"), lengths.next(), lengths.next()) {
            (None, None, None) => Ok(Framing::ToEnd),
            (None, Some(length), None) => {
                length.parse().map(Framing::Length).map_err(|_| wrong(length))
            }
            (Some("chunked"), None, None) => Ok(Framing::Chunked),
            (_, value, _) => Err(wrong(value.unwrap_or_default())),
        }
    }
}

/// Says whether more bytes could make a head of these.
fn could_begin_a_head(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(7)];
    b"HTTP/1.".starts_with(start)
}

/// A body with the number of bytes that it took.
pub type Body<'a> = (Cow<'a, [u8]>, usize);

impl Framing {
    /// Takes the body at the start of `bytes`. `None` while it is not whole.
    /// `is_closed` says that no more bytes will come.
    pub fn take(self, bytes: &[u8], is_closed: bool) -> Result<Option<Body<'_>>, Malformed> {
        let body = match self {
            Self::None => Some(&bytes[..0]),
            Self::Length(length) => bytes.get(..length),
            Self::ToEnd => Some(bytes).filter(|_| is_closed),
            Self::Chunked => {
                return Ok(dechunk(bytes)?.map(|(body, taken)| (Cow::Owned(body), taken)));
            }
        };
        Ok(body.map(|body| (Cow::Borrowed(body), body.len())))
    }
}

/// Decodes a chunked body without extensions and trailers.
fn dechunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(chunk) = chunk(&bytes[at..])? else { return Ok(None) };
        let range = at + chunk.head_bytes..at + chunk.head_bytes + chunk.size;
        body.extend_from_slice(&bytes[range]);
        at += chunk.bytes();
        if chunk.size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

/// One whole chunk. The chunk without data is the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of the line with the size.
    pub head_bytes: usize,
    /// Bytes of the data.
    pub size: usize,
}

impl Chunk {
    /// Bytes of the line end after the data.
    pub const TAIL_BYTES: usize = 2;

    /// Returns the bytes of the chunk with its framing.
    pub fn bytes(self) -> usize {
        self.head_bytes + self.size + Self::TAIL_BYTES
    }
}

/// Parses the chunk at the start of `bytes`, without extensions and trailers. `None` while the
/// chunk is not whole.
pub fn chunk(bytes: &[u8]) -> Result<Option<Chunk>, Malformed> {
    let wrong = || Malformed::new("not a chunk", bytes);
    let Some(end) = memmem::find(bytes, b"\r\n") else {
        return if bytes.len() > 16 { Err(wrong()) } else { Ok(None) };
    };
    let size = str::from_utf8(&bytes[..end]).ok();
    let size = size.and_then(|size| usize::from_str_radix(size, 16).ok()).ok_or_else(wrong)?;
    let chunk = Chunk { head_bytes: end + 2, size };
    let Some(whole) = bytes.get(..chunk.bytes()) else { return Ok(None) };
    if whole.ends_with(b"\r\n") { Ok(Some(chunk)) } else { Err(wrong()) }
}

/// Names and values, before they are encoded.
pub type Params<'a> = [(&'a str, &'a str)];

/// Returns the bytes of a request; a body brings its Content-Length along.
pub fn request(
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: speak.test\r\n");
    for (name, value) in fields {
        _ = write!(head, "{name}: {value}\r\n");
    }
    if let Some(body) = body {
        _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body.unwrap_or_default()].concat()
}

pub fn get(target: &str) -> Vec<u8> {
    request("GET", target, &[], None)
}

pub fn target(path: &str, params: &Params) -> String {
    if params.is_empty() { path.to_owned() } else { format!("{path}?{}", form(params)) }
}

/// Returns parameters as HTML forms write them.
pub fn form<K: AsRef<str>, V: AsRef<str>>(params: &[(K, V)]) -> String {
    let mut form = String::new();
    for (name, value) in params {
        if !form.is_empty() {
            form.push('&');
        }
        push_encoded(&mut form, name.as_ref());
        form.push('=');
        push_encoded(&mut form, value.as_ref());
    }
    form
}

/// Appends a text as HTML forms write it: all is percent-encoded that may need it.
pub fn push_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_once_it_is_whole() {
        let bytes = b"HTTP/1.1 404 Not Found\r\nVary: a\r\nvary: b\r\nConnection: close\r\n\r\nx";
        for cut in 0..bytes.len() - 1 {
            assert_eq!(Head::parse(&bytes[..cut]), Ok(None), "{cut}");
        }
        let (head, length) = Head::parse(bytes).unwrap().unwrap();
        assert_eq!((head.status, length), (404, bytes.len() - 1));
        assert_eq!(head.all("VARY").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((head.field("vary"), head.field("none"), head.closes()), (None, None, true));
    }

    #[test]
    fn heads_that_no_server_sends_are_errors() {
        let wrong = [
            "SSH-2.0-x",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200\r\n\r\n",
            "HTTP/1.1 20x OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA:b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\nc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        ];
        for bytes in wrong {
            assert!(Head::parse(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
        assert!(
            Head::parse(&[&b"HTTP/1.1 200 OK\r\n"[..], &vec![b'x'; 17_000][..]].concat()).is_err()
        );
    }

    fn framing(fields: &str) -> Result<Framing, Malformed> {
        let bytes = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        Head::parse(bytes.as_bytes()).unwrap().unwrap().0.framing()
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        let take = |framing: Framing, bytes: &'static str, is_closed| {
            let body = framing.take(bytes.as_bytes(), is_closed).unwrap();
            body.map(|(body, taken)| (String::from_utf8(body.into_owned()).unwrap(), taken))
        };
        let length = framing("Content-Length: 2\r\n").unwrap();
        assert_eq!(take(length, "a", false), None);
        assert_eq!(take(length, "abc", false), Some(("ab".into(), 2)));
        let to_end = framing("").unwrap();
        assert_eq!(take(to_end, "abc", false), None);
        assert_eq!(take(to_end, "abc", true), Some(("abc".into(), 3)));
        let chunked = framing("Transfer-Encoding: chunked\r\n").unwrap();
        let bytes = "2\r\nab\r\na\r\n0123456789\r\n0\r\n\r\n";
        for cut in 0..bytes.len() {
            assert_eq!(take(chunked, &bytes[..cut], false), None, "{cut}");
        }
        assert_eq!(take(chunked, bytes, false), Some(("ab0123456789".into(), bytes.len())));
        for wrong in ["x\r\n", "2\r\nabc\r\n", "2 and no line end in sight"] {
            assert!(Framing::Chunked.take(wrong.as_bytes(), false).is_err(), "{wrong:?}");
        }
        let none = Head { status: 204, fields: Vec::new() };
        assert_eq!(none.framing().unwrap().take(b"x", false), Ok(Some((Cow::default(), 0))));
    }

    #[test]
    fn a_head_with_two_lengths_is_an_error() {
        let both = "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n";
        for fields in ["Content-Length: x\r\n", "Content-Length: 1\r\nContent-Length: 1\r\n", both]
        {
            assert!(framing(fields).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn a_request_has_its_fields_its_length_and_its_parameters_encoded() {
        let target = target("/write", &[("channel", "a b&\u{e9}"), ("message", "~")]);
        let bytes = request("POST", &target, &[("A", "b")], Some(b"xy"));
        let expected = "POST /write?channel=a+b%26%C3%A9&message=~ HTTP/1.1\r\n\
             Host: speak.test\r\nA: b\r\nContent-Length: 2\r\n\r\nxy";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        assert_eq!(get("/health"), b"GET /health HTTP/1.1\r\nHost: speak.test\r\n\r\n");
    }
}

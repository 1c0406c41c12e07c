//! Requests and responses of HTTP/1.1, as a client sees them.

use serde_json::Value;

use super::error::ClientError;
use super::format::printable;
use super::server_url::ServerUrl;

/// Fields in a head. A response with more fields counts as not HTTP.
const FIELDS_MAX: usize = 100;

pub(super) struct Request<'a> {
    pub method: &'a str,
    /// Path and query, without the path prefix of the server.
    pub target: &'a str,
    pub fields: &'a [(&'a str, &'a str)],
    /// Content type and bytes.
    pub body: Option<(&'a str, &'a [u8])>,
}

/// Head of a response.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub status: u16,
    /// Minor version: 1 for HTTP/1.1.
    pub minor: u8,
    fields: Vec<(String, String)>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub head: Head,
    pub body: Vec<u8>,
}

/// Rest of the body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Done,
    /// This number of bytes.
    Length(usize),
    /// All bytes until the connection is closed.
    ToEnd,
    /// Next: the line with the size of a chunk.
    ChunkSize,
    /// Next: this number of bytes of a chunk.
    Chunk(usize),
    /// Next: the line break after a chunk.
    ChunkEnd,
    /// Next: lines of trailers, up to an empty one.
    Trailers,
}

impl Request<'_> {
    pub fn get(target: &str) -> Request<'_> {
        Request { method: "GET", target, fields: &[], body: None }
    }

    /// Makes the request of a call, with the parameters in the body: proxies log URLs, not bodies.
    pub fn form<'a>(path: &'a str, form: &'a str) -> Request<'a> {
        Request {
            method: "POST",
            target: path,
            fields: &[],
            body: Some(("application/x-www-form-urlencoded", form.as_bytes())),
        }
    }

    /// Returns the request as it is sent.
    pub fn bytes(&self, server: &ServerUrl) -> Vec<u8> {
        let mut head = format!(
            "{} {}{} HTTP/1.1\r\nHost: {}\r\n",
            self.method,
            server.path_prefix,
            self.target,
            server.host_field()
        );
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        field("User-Agent", concat!("speak/", env!("CARGO_PKG_VERSION")));
        for (name, value) in self.fields {
            field(name, value);
        }
        if let Some((kind, body)) = self.body {
            field("Content-Type", kind);
            field("Content-Length", &body.len().to_string());
        }
        head.push_str("\r\n");
        [head.as_bytes(), self.body.map_or(&[][..], |(_, body)| body)].concat()
    }
}

impl Head {
    /// Returns the first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    /// Returns all fields of this name.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Returns whether the list in a field has this value.
    pub fn list_contains(&self, name: &str, value: &str) -> bool {
        self.get_all(name)
            .flat_map(|list| list.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(value))
    }

    /// Returns whether the connection stays open after the response (RFC 9112, section 9.3).
    pub fn keeps_alive(&self) -> bool {
        if self.minor == 0 {
            self.list_contains("connection", "keep-alive")
        } else {
            !self.list_contains("connection", "close")
        }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, ClientError> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        response.parse(bytes).map_err(|_| ClientError::NotHttp)?;
        let (Some(status), Some(minor)) = (response.code, response.version) else {
            return Err(ClientError::NotHttp);
        };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let fields = response
            .headers
            .iter()
            .map(|field| (field.name.to_owned(), text(field.value)))
            .collect();
        Ok(Self { status, minor, fields })
    }

    /// Returns the framing of the body after this head (RFC 9112, section 6.3).
    pub fn framing(&self, method: &str) -> Result<Framing, ClientError> {
        if method == "HEAD" || self.status < 200 || matches!(self.status, 204 | 304) {
            return Ok(Framing::Done);
        }
        if self.list_contains("transfer-encoding", "chunked") {
            return Ok(Framing::ChunkSize);
        }
        match self.field("content-length") {
            None => Ok(Framing::ToEnd),
            Some(length) => {
                Ok(Framing::Length(length.trim().parse().map_err(|_| ClientError::NotHttp)?))
            }
        }
    }
}

impl Response {
    /// Returns the body as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Returns one line about the error, if the response is not the success of a call.
    pub fn rejection(&self) -> Option<String> {
        let status = self.head.status;
        let json = self.json();
        if status == 200 && json.is_object() {
            return None;
        }
        Some(match (json["error"].as_str(), json["detail"].as_str()) {
            (Some(error), detail) => {
                format!(
                    "{status} {}: {}",
                    printable(error),
                    printable(detail.unwrap_or("rejected"))
                )
            }
            _ => format!(
                "{status}, not from Speak{}",
                self.head.field("server").map(describe_server).unwrap_or_default()
            ),
        })
    }

    /// Returns the seconds of `Retry-After`.
    pub fn retry_after(&self) -> Option<u64> {
        self.head.field("retry-after")?.trim().parse().ok()
    }
}

impl Framing {
    /// Returns the state after a line of chunked coding (RFC 9112, section 7.1).
    pub fn after_line(self, line: &[u8]) -> Result<Self, ClientError> {
        match self {
            Framing::ChunkSize => {
                let digits =
                    line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                let digits = str::from_utf8(digits).map_err(|_| ClientError::NotHttp)?;
                match usize::from_str_radix(digits, 16) {
                    Ok(0) => Ok(Framing::Trailers),
                    Ok(size) => Ok(Framing::Chunk(size)),
                    Err(_) => Err(ClientError::NotHttp),
                }
            }
            Framing::ChunkEnd if line.is_empty() => Ok(Framing::ChunkSize),
            Framing::Trailers if line.is_empty() => Ok(Framing::Done),
            Framing::Trailers => Ok(Framing::Trailers),
            _ => Err(ClientError::NotHttp),
        }
    }
}

fn describe_server(server: &str) -> String {
    format!(" (its Server field says {})", printable(server))
}

/// Encodes parameters as a form.
pub(super) fn form(pairs: &[(&str, &[u8])]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut form = String::new();
    for (name, value) in pairs {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        for byte in *value {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                form.push(char::from(*byte));
            } else {
                let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
                form.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    form
}

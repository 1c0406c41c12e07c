//! Request heads: target, framing of the body, and persistence of the client.

use std::mem::MaybeUninit;

use httparse::Status;

use super::event_stream::accepts_event_stream;
use super::parse_error::ParseError;

/// Header fields that are parsed on the stack. More fields are rare, and need an allocation.
const FIELDS_CAPACITY: usize = 64;

/// Request method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// OPTIONS
    Options,
    /// Another method of RFC 9110, RFC 5789 (PATCH) or RFC 10008 (QUERY). No path allows it.
    Other,
}

/// Persistence of a client after a response (RFC 9112, section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The client stays: the default of HTTP/1.1.
    Persistent,
    /// The client uses HTTP/1.0 and asked to stay. The response must have `keep-alive`.
    PersistentIfAnnounced,
    /// The client is closed.
    Close,
}

/// Framing of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

/// Parsed request head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) bytes: usize,
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) persistence: Persistence,
    pub(super) content_type: Option<&'a [u8]>,
    pub(super) origin: Option<&'a [u8]>,
    pub(super) accepts_event_stream: bool,
    pub(super) wants_websocket: bool,
    pub(super) is_cross_site: bool,
    pub(super) is_prefetch: bool,
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
}

/// Parses the head at the start of `bytes`. Returns `None` while the head is incomplete.
///
/// # Errors
///
/// A [`ParseError`] as soon as no further bytes can make the head valid.
pub(super) fn parse_head(bytes: &[u8]) -> Result<Option<Head<'_>>, ParseError> {
    let mut on_stack = [const { MaybeUninit::uninit() }; FIELDS_CAPACITY];
    let parsed = match parse_fields(bytes, &mut on_stack) {
        Err(httparse::Error::TooManyHeaders) => {
            let lines = memchr::memchr_iter(b'\n', bytes).count();
            parse_fields(bytes, &mut vec![MaybeUninit::uninit(); lines])
        }
        parsed => parsed,
    };
    match parsed {
        Ok(head) => head,
        Err(httparse::Error::Version) => reject_version(bytes),
        Err(httparse::Error::HeaderName) => {
            Err(ParseError::BadRequest("malformed header field; send 'name: value'"))
        }
        Err(httparse::Error::HeaderValue) => {
            Err(ParseError::BadRequest("a header value has a control character; remove it"))
        }
        Err(_) if !has_utf8_target(bytes) => Err(ParseError::TargetNotUtf8),
        Err(_) => Err(ParseError::BadRequest("this is not an HTTP/1.x request")),
    }
}

/// Parses a head with at most `fields.len()` fields. The outer error is about the syntax, the inner
/// error about the meaning.
fn parse_fields<'a>(
    bytes: &'a [u8],
    fields: &mut [MaybeUninit<httparse::Header<'a>>],
) -> Result<Result<Option<Head<'a>>, ParseError>, httparse::Error> {
    let mut parsed = httparse::Request::new(&mut []);
    Ok(match parsed.parse_with_uninit_headers(bytes, fields)? {
        Status::Partial => Ok(None),
        Status::Complete(length) => Head::check(length, &parsed).map(Some),
    })
}

/// Returns the error for a request line that does not end in HTTP/1.0 or HTTP/1.1: another version
/// of HTTP, or no HTTP. Returns `None` while the line is incomplete.
fn reject_version<'a>(bytes: &[u8]) -> Result<Option<Head<'a>>, ParseError> {
    let Some(end) = memchr::memchr(b'\n', bytes) else { return Ok(None) };
    let line = bytes[..end].trim_ascii_end();
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    match version.strip_prefix(b"HTTP/") {
        Some([major, ..]) if major.is_ascii_digit() && *major != b'1' => {
            Err(ParseError::VersionNotSupported)
        }
        _ => Err(ParseError::BadRequest("the request line does not end in HTTP/1.0 or HTTP/1.1")),
    }
}

/// Returns false if the head begins with a method and a target that is not UTF-8.
fn has_utf8_target(bytes: &[u8]) -> bool {
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    let Some(target) = bytes[method..].strip_prefix(b" ").filter(|_| method > 0) else {
        return true;
    };
    let end = target.iter().position(|byte| byte.is_ascii_control() || *byte == b' ');
    let Some(end) = end.filter(|end| target[*end] == b' ') else { return true };
    str::from_utf8(&target[..end]).is_ok()
}

/// Overwrites a minor version above 1 with 1. A recipient must treat it as 1 (RFC 9110, section
/// 2.5), but `httparse` does not. Returns whether it changed a byte.
pub(super) fn lower_minor_version(bytes: &mut [u8]) -> bool {
    let Some(end) = memchr::memchr(b'\n', bytes) else { return false };
    let line_bytes = bytes[..end].trim_ascii_end().len();
    match &mut bytes[..line_bytes] {
        [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9'] => {
            *minor = b'1';
            true
        }
        _ => false,
    }
}

impl<'a> Head<'a> {
    fn check(bytes: usize, parsed: &httparse::Request<'_, 'a>) -> Result<Self, ParseError> {
        let is_http_10 = parsed.version == Some(0);
        let method = parse_method(parsed.method.unwrap_or_default())?;
        let (path, query) = parse_target(method, parsed.path.unwrap_or_default())?;
        let fields = Fields::from_headers(parsed.headers)?;
        if fields.host.is_none() && !is_http_10 {
            return Err(ParseError::BadRequest("HTTP/1.1 needs a Host header"));
        }
        // Bytes after a CONNECT may be meant for its tunnel, and must not be read as requests.
        let closes = fields.close || (method == Method::Other && parsed.method == Some("CONNECT"));
        Ok(Self {
            bytes,
            method,
            path,
            query,
            persistence: match (closes, is_http_10, fields.keep_alive) {
                (true, _, _) | (_, true, false) => Persistence::Close,
                (false, true, true) => Persistence::PersistentIfAnnounced,
                (false, false, _) => Persistence::Persistent,
            },
            content_type: fields.content_type,
            origin: fields.origin,
            accepts_event_stream: fields.accepts_event_stream,
            // HTTP/1.0 has no upgrade (RFC 9110, section 7.8).
            wants_websocket: fields.wants_websocket && !is_http_10,
            is_cross_site: fields.is_cross_site,
            is_prefetch: fields.is_prefetch,
            framing: fields.framing(is_http_10)?,
            // HTTP/1.0 has no interim responses (RFC 9110, section 10.1.1).
            expects_continue: fields.expects_continue && !is_http_10,
        })
    }
}

fn parse_method(token: &str) -> Result<Method, ParseError> {
    match token {
        "GET" => Ok(Method::Get),
        "HEAD" => Ok(Method::Head),
        "POST" => Ok(Method::Post),
        "OPTIONS" => Ok(Method::Options),
        "PUT" | "DELETE" | "CONNECT" | "TRACE" | "PATCH" | "QUERY" => Ok(Method::Other),
        _ => Err(ParseError::UnknownMethod),
    }
}

/// Parses a target in origin form or absolute form, or `*`. Returns path and query.
fn parse_target(method: Method, target: &str) -> Result<(&str, &str), ParseError> {
    let has_scheme = |scheme: &str| {
        target
            .get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            .then_some(scheme.len())
    };
    let origin_form = if target.starts_with('/') {
        target
    } else if let Some(length) = has_scheme("http://").or_else(|| has_scheme("https://")) {
        let rest = &target[length..];
        let authority_bytes = rest.find(['/', '?']).unwrap_or(rest.len());
        let authority = &rest.as_bytes()[..authority_bytes];
        if matches!(authority, [] | [b':', ..]) || !is_host(authority) {
            return Err(ParseError::BadRequest("the request target has no valid host"));
        }
        &rest[authority_bytes..]
    } else if (method == Method::Options && target == "*") || method == Method::Other {
        // The target of CONNECT is an authority. No path allows CONNECT, so its value is ignored.
        return Ok(("*", ""));
    } else {
        return Err(ParseError::BadRequest("the request target is not a path"));
    };
    let (path, query) = match memchr::memchr(b'?', origin_form.as_bytes()) {
        Some(at) => (&origin_form[..at], &origin_form[at + 1..]),
        None => (origin_form, ""),
    };
    Ok((if path.is_empty() { "/" } else { path }, query))
}

/// Returns whether this is a host with an optional port (RFC 9112, section 3.2). The host may be
/// empty. A user name is not allowed: the text before the `@` could be taken for the host (RFC
/// 9110, section 4.2.4).
#[inline]
fn is_host(host: &[u8]) -> bool {
    /// Bytes of a `reg-name` (RFC 3986, section 3.2.2).
    const REG_NAME_BYTES: [bool; 256] = byte_class(b"-._~%!$&'()*+,;=");
    /// Bytes of an `IP-literal` in brackets, and of a zone after it.
    const IP_LITERAL_BYTES: [bool; 256] = byte_class(b":.-_~%");
    let port = match host {
        [b'[', address @ ..] => match skip_allowed(&IP_LITERAL_BYTES, address) {
            [b']', port @ ..] => port,
            _ => return false,
        },
        _ => skip_allowed(&REG_NAME_BYTES, host),
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Skips the allowed bytes at the start. Returns the rest.
fn skip_allowed<'a>(allowed: &[bool; 256], bytes: &'a [u8]) -> &'a [u8] {
    let end = bytes.iter().position(|byte| !allowed[usize::from(*byte)]);
    &bytes[end.unwrap_or(bytes.len())..]
}

/// Returns a table of the allowed bytes: letters, digits and `others`.
const fn byte_class(others: &[u8]) -> [bool; 256] {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        allowed[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < others.len() {
        allowed[others[index] as usize] = true;
        index += 1;
    }
    allowed
}

/// Returns whether a list in a header field has this name, in upper or lower case.
pub(crate) fn list_contains(list: &[u8], name: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(name))
}

/// Returns whether a purpose is `prefetch`, with or without parameters: `prefetch;prerender`.
fn is_prefetch(purpose: &[u8]) -> bool {
    let token = purpose.split(|byte| *byte == b';').next().unwrap_or_default();
    token.trim_ascii().eq_ignore_ascii_case(b"prefetch")
}

/// Sets a field that must not be repeated: two servers could use different values.
fn set_once<'a>(
    field: &mut Option<&'a [u8]>,
    value: &'a [u8],
    detail: &'static str,
) -> Result<(), ParseError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(ParseError::BadRequest(detail)),
    }
}

/// Header fields that the server uses for every request.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    origin: Option<&'a [u8]>,
    accepts_event_stream: bool,
    wants_websocket: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    is_cross_site: bool,
    is_prefetch: bool,
}

impl<'a> Fields<'a> {
    fn from_headers(headers: &[httparse::Header<'a>]) -> Result<Self, ParseError> {
        let mut fields = Self::default();
        for httparse::Header { name, value } in headers {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            // Compares the length first: most fields of a browser's request are ignored.
            match name.len() {
                4 if is("host") => {
                    let is_second = fields.host.replace(value).is_some();
                    if is_second || !is_host(value) {
                        return Err(ParseError::BadRequest(
                            "there must be one Host header, with one host",
                        ));
                    }
                }
                6 if is("origin") => fields.origin = Some(value),
                6 if is("accept") => fields.accepts_event_stream |= accepts_event_stream(value),
                7 if is("purpose") => fields.is_prefetch |= is_prefetch(value),
                11 if is("sec-purpose") => fields.is_prefetch |= is_prefetch(value),
                7 if is("upgrade") => fields.wants_websocket |= list_contains(value, b"websocket"),
                6 if is("expect") => {
                    fields.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                }
                10 if is("connection") => {
                    fields.close |= list_contains(value, b"close");
                    fields.keep_alive |= list_contains(value, b"keep-alive");
                }
                12 if is("content-type") => fields.content_type = Some(value),
                14 if is("content-length") => {
                    set_once(
                        &mut fields.content_length,
                        value,
                        "more than one Content-Length; send one",
                    )?;
                }
                14 if is("sec-fetch-site") => {
                    fields.is_cross_site = value.eq_ignore_ascii_case(b"cross-site");
                }
                17 if is("transfer-encoding") => {
                    set_once(
                        &mut fields.transfer_encoding,
                        value,
                        "more than one Transfer-Encoding; send one",
                    )?;
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    /// Returns the framing of the body (RFC 9112, section 6.3). If the RFC leaves a choice, the
    /// request is an error: a proxy could choose another framing.
    fn framing(&self, is_http_10: bool) -> Result<Framing, ParseError> {
        match (self.transfer_encoding, self.content_length) {
            (Some(_), Some(_)) => {
                Err(ParseError::BadRequest("both Content-Length and Transfer-Encoding; send one"))
            }
            (Some(_), None) if is_http_10 => {
                Err(ParseError::BadRequest("HTTP/1.0 has no Transfer-Encoding; use Content-Length"))
            }
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (Some(b""), None) => {
                Err(ParseError::BadRequest("empty Transfer-Encoding; use chunked"))
            }
            (Some(_), None) => Err(ParseError::UnknownCoding),
            (None, None) => Ok(Framing::Length(0)),
            (None, Some(digits)) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                // A number that does not fit is above every limit.
                let length = str::from_utf8(digits)
                    .expect("digits")
                    .parse()
                    .map_err(|_| ParseError::BodyTooLarge)?;
                Ok(Framing::Length(length))
            }
            (None, Some(_)) => Err(ParseError::BadRequest("Content-Length must be digits")),
        }
    }
}

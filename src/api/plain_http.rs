//! Plain HTTP of a server that speaks https too, or whose certificates are renewed with its help:
//! challenges of ACME, and redirects to https.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client_addr::{RequestSource, SourceKey};
use super::cors::AllowOrigin;
use super::error::Error;
use super::json;
use super::request_stats::RequestKind;
use super::response::{ResponseOptions, ResponseWriter};
use crate::http::{Method, Persistence, Request};

/// Beginning of the paths of challenges (RFC 8555, section 8.3).
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// Bytes of the name of a challenge at most, which is that of a file. Let's Encrypt uses 43.
const NAME_BYTES_MAX: usize = 255;

/// Path that is not redirected: a health check seldom follows a redirect.
const HEALTH_PATH: &str = "/health";

/// Default port of https, which URLs omit (RFC 9110, section 4.2.2).
const HTTPS_PORT: u16 = 443;

/// Characters that a path or a query has only encoded (RFC 3986, section 3.4), as `#`, which would
/// end it. What the client has encoded stays as it is.
const NOT_IN_URI: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/')
    .remove(b'?')
    .remove(b'%');

const NO_HOST: Error =
    Error::BadRequest("'Host' names no host to redirect to; send the name of the server");

const TLS_ONLY: Error =
    Error::BadRequest("this port speaks TLS; use https://, or wss:// for a WebSocket");

/// Files of `--acme-challenges`. The server implements this, since a read is a system call.
pub trait ChallengeFiles {
    /// Returns the content of a file. The name has 1 to 255 characters of base64url, so it leads
    /// to no other directory. `None` if there is no such file, or none that may be served.
    fn read(&self, name: &str) -> Option<Vec<u8>>;
}

/// Returns the response to a client that speaks plain HTTP to a listener with TLS. Its time is
/// `unix_s`, in seconds since 1970.
#[must_use]
pub fn reject_plain_http(unix_s: u64) -> Vec<u8> {
    let mut writer = ResponseWriter::new(AllowOrigin::Any);
    writer.set_time(unix_s * 1000);
    let options = ResponseOptions { persistence: Persistence::Close, ..ResponseOptions::DEFAULT };
    let (mut json, mut response) = (Vec::new(), Vec::new());
    json::push_error(&mut json, TLS_ONLY);
    writer.push_error(&mut response, options, TLS_ONLY, &json);
    response
}

/// Requests over plain HTTP that are handled before they are routed.
#[derive(Default)]
pub(super) struct PlainHttp {
    challenges: Option<Box<dyn ChallengeFiles>>,
    https_port: Option<u16>,
}

/// Response to a request over plain HTTP.
pub(super) enum PlainResponse {
    /// Content of the file.
    Challenge(Vec<u8>),
    /// `Location`, as a whole line.
    Redirect(String),
}

impl PlainHttp {
    /// Redirects to this port of https.
    pub(super) fn redirecting(https_port: u16) -> Self {
        Self { challenges: None, https_port: Some(https_port) }
    }

    pub(super) fn serve_challenges(&mut self, files: Box<dyn ChallengeFiles>) {
        self.challenges = Some(files);
    }

    /// Responds to a request. `None` if it is to be handled as any other: one over TLS is.
    pub(super) fn respond(
        &self,
        source: RequestSource,
        request: &Request<'_>,
    ) -> Option<(RequestKind, Result<PlainResponse, Error>)> {
        if source.is_tls {
            return None;
        }
        if let Some(files) = &self.challenges
            && let Some(name) = request.path.strip_prefix(CHALLENGE_PATH)
        {
            return Some((RequestKind::Challenge, read_challenge(&**files, name, request.method)));
        }
        let port = self.https_port?;
        if request.path == HEALTH_PATH || is_local(source, request) {
            return None;
        }
        Some((RequestKind::Redirect, redirect(request, port)))
    }
}

fn read_challenge(
    files: &dyn ChallengeFiles,
    name: &str,
    method: Method,
) -> Result<PlainResponse, Error> {
    if !matches!(method, Method::Get | Method::Head) {
        return Err(Error::MethodNotAllowed("GET, HEAD"));
    }
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let content = if is_name { files.read(name) } else { None };
    content.map(PlainResponse::Challenge).ok_or(Error::NotFound)
}

/// Returns whether a request has not crossed a network without encryption, as far as the server
/// knows: it comes from a trusted proxy or through a Unix socket, and no `X-Forwarded-Proto` says
/// that its client used http.
///
/// A proxy that speaks https to its clients and does not say so would get its clients redirected
/// for ever. So the absence of the field means that the proxy decides by itself.
fn is_local(source: RequestSource, request: &Request<'_>) -> bool {
    let is_unix = source.address == Some(SourceKey::from(None));
    if !source.is_proxy && !is_unix {
        return false;
    }
    let fields = request.field("x-forwarded-proto");
    let mut protocols = fields.flat_map(|field| field.split(|byte| *byte == b','));
    !protocols.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"http"))
}

/// Redirects a request that is nothing but a URL.
///
/// A WebSocket gets the error: browsers do not follow a redirect of its handshake (RFC 6455,
/// section 4.1, leaves that to the client), and the error says what to do. So does a request with a
/// body, whose contents have crossed the network already: its sender has to notice.
fn redirect(request: &Request<'_>, port: u16) -> Result<PlainResponse, Error> {
    if !matches!(request.method, Method::Get | Method::Head) || request.wants_websocket {
        return Err(Error::HttpsOnly);
    }
    let host = request.host().ok_or(NO_HOST)?;
    let port = if port == HTTPS_PORT { String::new() } else { format!(":{port}") };
    let [path, query] =
        [request.path, request.query].map(|text| utf8_percent_encode(text, NOT_IN_URI));
    let mark = if request.query.is_empty() { "" } else { "?" };
    Ok(PlainResponse::Redirect(format!("Location: https://{host}{port}{path}{mark}{query}\r\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Limits, parse_complete};

    /// Has every file, and shows for which it was asked.
    struct AnyName;

    impl ChallengeFiles for AnyName {
        fn read(&self, name: &str) -> Option<Vec<u8>> {
            Some(name.as_bytes().to_vec())
        }
    }

    fn respond(plain: &PlainHttp, target: &str) -> (RequestKind, Result<String, Error>) {
        let head = format!("GET {target} HTTP/1.1\r\nHost: h:80\r\n\r\n");
        let limits = Limits { head_bytes: 1000, body_bytes: 0 };
        let (request, _) = parse_complete(head.as_bytes(), &limits).unwrap();
        let (kind, result) = plain.respond(RequestSource::default(), &request).unwrap();
        let shown = result.map(|response| match response {
            PlainResponse::Challenge(content) => String::from_utf8(content).unwrap(),
            PlainResponse::Redirect(location) => location,
        });
        (kind, shown)
    }

    #[test]
    fn a_redirect_has_the_port_of_https_unless_it_is_the_default() {
        for (port, location) in [(443, "https://h/a?b"), (8443, "https://h:8443/a?b")] {
            let expected = Ok(format!("Location: {location}\r\n"));
            let plain = PlainHttp::redirecting(port);
            assert_eq!(respond(&plain, "/a?b"), (RequestKind::Redirect, expected));
        }
    }

    #[test]
    fn a_request_over_tls_is_like_any_other() {
        let mut plain = PlainHttp::redirecting(443);
        plain.serve_challenges(Box::new(AnyName));
        let limits = Limits { head_bytes: 1000, body_bytes: 0 };
        let source = RequestSource { is_tls: true, ..RequestSource::default() };
        for target in ["/a", "/.well-known/acme-challenge/name"] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            let (request, _) = parse_complete(head.as_bytes(), &limits).unwrap();
            assert!(plain.respond(source, &request).is_none());
        }
    }

    #[test]
    fn only_names_of_base64url_are_read() {
        let mut plain = PlainHttp::default();
        plain.serve_challenges(Box::new(AnyName));
        let longest = "n".repeat(NAME_BYTES_MAX);
        for name in ["aZ09-_", "-", &longest] {
            let (kind, read) = respond(&plain, &format!("{CHALLENGE_PATH}{name}"));
            assert_eq!((kind, read), (RequestKind::Challenge, Ok(name.to_owned())));
        }
        for name in ["", ".", "..", "a/b", "../a", "a.b", "a=", "a+", "%61", "\u{e4}", "a\\b", "~"]
            .into_iter()
            .chain([&*format!("{longest}n")])
        {
            let (kind, read) = respond(&plain, &format!("{CHALLENGE_PATH}{name}"));
            assert_eq!((kind, read), (RequestKind::Challenge, Err(Error::NotFound)), "{name}");
        }
    }
}

//! Resources that need no hub: files, the test image, preflights, challenges, redirects.

use super::api::{Api, Handled};
use super::client_addr::RequestSource;
use super::plain_http::PlainResponse;
use super::request_stats::RequestKind;
use super::response::{BodyType, ResponseOptions, ResponseWriter};
use super::route::Route;
use crate::http::{Method, Request, ResponseHead};
use crate::web::{self, File};

/// Header fields of a response to a preflight, up to further names of allowed fields.
const PREFLIGHT: &str = "Access-Control-Allow-Methods: GET, POST\r\n\
    Access-Control-Max-Age: 86400\r\n\
    Vary: Access-Control-Request-Headers\r\n\
    Access-Control-Allow-Headers: content-type, last-event-id";

/// Bytes of these fields at most. Names that would exceed it are not allowed.
const PREFLIGHT_BYTES_MAX: usize = 4096;

/// Type of the response to a challenge, as in the example of RFC 8555, section 8.3.
const CHALLENGE_TYPE: BodyType<'static> = BodyType::no_store("application/octet-stream");

impl Api {
    /// Handles a request over plain HTTP, if it is for a challenge or has to use https.
    #[cold]
    pub(super) fn handle_plain(
        &mut self,
        source: RequestSource,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Handled> {
        let (kind, result) = self.plain_http.as_ref()?.respond(source, request)?;
        let options = self.response_options(request);
        let status = match result {
            Err(error) => return Some(self.respond_error(kind, error, options, out)),
            Ok(PlainResponse::Challenge(content)) => {
                self.writer.head(options, 200, Some(CHALLENGE_TYPE), "").push(out, content.len());
                options.push_body(out, &content);
                200
            }
            // Not to be cached: an operator who no longer redirects keeps their users.
            Ok(PlainResponse::Redirect(location)) => {
                self.writer.head(options, 308, None, &location).push(out, 0);
                308
            }
        };
        self.record(kind, status);
        Some(Handled::Responded(self.writer.persistence(options.persistence)))
    }

    /// Responds to a request for a resource that is no call.
    pub(super) fn respond_file(
        &mut self,
        route: Route,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Handled {
        let options = self.response_options(request);
        let mut kind = RequestKind::from(route);
        let status = match route {
            _ if request.method == Method::Options => {
                let mut extra = PREFLIGHT.to_owned();
                push_requested_fields(&mut extra, request);
                for part in ["\r\nAllow: ", route.allowed_methods(), "\r\n"] {
                    extra.push_str(part);
                }
                self.writer.head(options, 204, None, &extra).push(out, 0);
                kind = RequestKind::Preflight;
                204
            }
            Route::ImageTest => {
                let body_type = BodyType::no_store("image/gif");
                self.writer.head(options, 200, Some(body_type), "").push(out, web::PIXEL.len());
                options.push_body(out, web::PIXEL);
                200
            }
            Route::File(file) => self.writer.push_file(out, options, file, request),
            Route::Call(_) | Route::Asterisk => {
                unreachable!("a call is no file, and `*` allows only OPTIONS")
            }
        };
        self.record(kind, status);
        Handled::Responded(self.writer.persistence(options.persistence))
    }
}

/// Appends the names of header fields that a preflight asks for: a library in the page may send any
/// field, as `cache-control`. Omits a list with other text than names.
fn push_requested_fields(allowed: &mut String, request: &Request<'_>) {
    // Characters of a token (RFC 9110, section 5.6.2), and between tokens.
    let is_in_list =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~, ".contains(byte);
    for names in request.field("access-control-request-headers") {
        if allowed.len() + names.len() <= PREFLIGHT_BYTES_MAX
            && !names.is_empty()
            && names.iter().all(is_in_list)
        {
            allowed.push_str(", ");
            allowed.extend(names.iter().map(|byte| char::from(*byte)));
        }
    }
}

impl ResponseWriter {
    /// Appends a file, compressed if the client accepts gzip. Appends only a head if the client has
    /// the file already. Returns the status.
    fn push_file(
        &self,
        out: &mut Vec<u8>,
        options: ResponseOptions<'_>,
        file: &File,
        request: &Request<'_>,
    ) -> u16 {
        let is_compressed = file.gzip.len() < file.content_bytes() && accepts_gzip(request);
        let (suffix, coding, length) = if is_compressed {
            ("-gzip", "Content-Encoding: gzip\r\n", file.gzip.len())
        } else {
            ("", "", file.content_bytes())
        };
        let etag = format!("\"{}{suffix}\"", file.etag);
        let fields = format!("ETag: {etag}\r\nVary: Accept-Encoding\r\n{coding}{}", file.fields);
        let body_type =
            BodyType { content_type: file.content_type, cache_control: file.cache_control };
        if request.field("if-none-match").any(|list| etag_matches(list, &etag)) {
            let head = self.head(options, 304, Some(body_type), &fields);
            ResponseHead { content_type: None, ..head }.push(out, 0);
            304
        } else {
            self.head(options, 200, Some(body_type), &fields).push(out, length);
            if is_compressed {
                options.push_body(out, file.gzip);
            } else {
                options.push_body(out, self.contents.of(file));
            }
            200
        }
    }
}

/// Returns whether `Accept-Encoding` lists gzip with a weight above 0.
fn accepts_gzip(request: &Request<'_>) -> bool {
    let mut offers =
        request.field("accept-encoding").flat_map(|value| value.split(|byte| *byte == b','));
    offers.any(|offer| {
        let mut parts = offer.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let is_gzip = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"gzip"));
        let is_excluded = parts.any(|weight| {
            let zero = weight.strip_prefix(b"q=0").or_else(|| weight.strip_prefix(b"Q=0"));
            zero.is_some_and(|rest| rest.iter().all(|byte| matches!(byte, b'.' | b'0')))
        });
        is_gzip && !is_excluded
    })
}

/// Returns whether an `If-None-Match` lists the tag (RFC 9110, section 13.1.2: compared weakly).
fn etag_matches(list: &[u8], etag: &str) -> bool {
    let mut tags = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tags.any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes())
}

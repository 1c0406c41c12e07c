//! Response heads.

use super::head::Persistence;

/// Interim response to a client that waits to send its body.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Status line and header fields of a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseHead<'a> {
    /// Status code.
    pub(crate) status: u16,
    /// `Content-Type`; `None` without content.
    pub(crate) content_type: Option<&'a str>,
    /// `Access-Control-Allow-Origin`; `None` if no page may read the response.
    pub(crate) allow_origin: Option<&'a str>,
    /// The response depends on the origin of the request (`Vary: Origin`).
    pub(crate) varies_by_origin: bool,
    /// Pages of other origins may embed the response, also if they require an opt-in
    /// (`Cross-Origin-Resource-Policy`).
    pub(crate) is_embeddable: bool,
    /// `Cache-Control`.
    pub(crate) cache_control: &'a str,
    /// `Date` (RFC 9110, section 5.6.7).
    pub(crate) date: &'a str,
    /// Additional fields, whole lines with CRLF.
    pub(crate) extra_fields: &'a str,
    /// Persistence of the client after the response.
    pub(crate) persistence: Persistence,
}

impl ResponseHead<'_> {
    /// Largest number of bytes that [`push_length`](Self::push_length) appends.
    pub(crate) const LENGTH_BYTES_MAX: usize = 48;

    /// Appends the head of a response whose body has `body_bytes` bytes.
    ///
    /// Head and body share one buffer: `writev` of two buffers was measured to take 6 to 17 % more
    /// CPU.
    #[inline]
    pub(crate) fn push(&self, out: &mut Vec<u8>, body_bytes: usize) {
        self.push_without_length(out);
        // RFC 9110, section 8.6: a 204 has no Content-Length, and the Content-Length of a 304 would
        // be the length of the content that is not sent.
        if matches!(self.status, 204 | 304) {
            out.extend_from_slice(b"\r\n");
        } else {
            Self::push_length(out, body_bytes);
        }
    }

    /// Appends the head without `Content-Length` and without the empty line at its end.
    pub(crate) fn push_without_length(&self, out: &mut Vec<u8>) {
        let mut put =
            |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        put(&[status_line(self.status)]);
        if let Some(content_type) = self.content_type {
            put(&["Content-Type: ", content_type, "\r\n"]);
        }
        let policies = if self.is_embeddable {
            "\r\nX-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: cross-origin\r\n"
        } else {
            "\r\nX-Content-Type-Options: nosniff\r\n"
        };
        put(&["Cache-Control: ", self.cache_control, policies]);
        if let Some(origin) = self.allow_origin {
            put(&["Access-Control-Allow-Origin: ", origin, "\r\n"]);
        }
        if self.varies_by_origin {
            put(&["Vary: Origin\r\n"]);
        }
        put(&["Date: ", self.date, "\r\n", self.extra_fields]);
        put(match self.persistence {
            Persistence::Persistent => &[],
            Persistence::PersistentIfAnnounced => &["Connection: keep-alive\r\n"],
            Persistence::Close => &["Connection: close\r\n"],
        });
    }

    /// Appends `Content-Length` and the empty line at the end of the head.
    pub(crate) fn push_length(out: &mut Vec<u8>, body_bytes: usize) {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(body_bytes).as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
    }
}

fn status_line(status: u16) -> &'static str {
    match status {
        200 => "HTTP/1.1 200 OK\r\n",
        204 => "HTTP/1.1 204 No Content\r\n",
        304 => "HTTP/1.1 304 Not Modified\r\n",
        308 => "HTTP/1.1 308 Permanent Redirect\r\n",
        400 => "HTTP/1.1 400 Bad Request\r\n",
        403 => "HTTP/1.1 403 Forbidden\r\n",
        404 => "HTTP/1.1 404 Not Found\r\n",
        405 => "HTTP/1.1 405 Method Not Allowed\r\n",
        408 => "HTTP/1.1 408 Request Timeout\r\n",
        410 => "HTTP/1.1 410 Gone\r\n",
        413 => "HTTP/1.1 413 Content Too Large\r\n",
        414 => "HTTP/1.1 414 URI Too Long\r\n",
        415 => "HTTP/1.1 415 Unsupported Media Type\r\n",
        429 => "HTTP/1.1 429 Too Many Requests\r\n",
        431 => "HTTP/1.1 431 Request Header Fields Too Large\r\n",
        501 => "HTTP/1.1 501 Not Implemented\r\n",
        503 => "HTTP/1.1 503 Service Unavailable\r\n",
        505 => "HTTP/1.1 505 HTTP Version Not Supported\r\n",
        other => unreachable!("no response has status {other}"),
    }
}

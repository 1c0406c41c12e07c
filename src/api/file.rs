//! Files: packed where the client can unpack them, and not at all where it has them already.

use super::response::{BodyType, ResponseOptions, ResponseWriter};
use crate::http::{Request, ResponseHead};
use crate::web::File;

impl ResponseWriter {
    /// Appends a file, or that it has not changed. Returns the status.
    pub(super) fn push_file(
        &self,
        out: &mut Vec<u8>,
        dress: ResponseOptions<'_>,
        file: &File,
        request: &Request<'_>,
    ) -> u16 {
        let packs = file.gzip.len() < file.bytes.len() && accepts_gzip(request);
        let (suffix, coding, bytes) = if packs {
            ("-gzip", "Content-Encoding: gzip\r\n", file.gzip)
        } else {
            ("", "", file.bytes)
        };
        let tag = format!("\"{}{suffix}\"", file.tag);
        let fields = format!("ETag: {tag}\r\nVary: Accept-Encoding\r\n{coding}{}", file.fields);
        let content =
            BodyType { content_type: file.content_type, cache_control: file.cache_control };
        if request.field("if-none-match").any(|known| etag_matches(known, &tag)) {
            let head = self.head(dress, 304, Some(content), &fields);
            ResponseHead { content_type: None, ..head }.push(out, 0);
            304
        } else {
            self.head(dress, 200, Some(content), &fields).push(out, bytes.len());
            dress.push_body(out, bytes);
            200
        }
    }
}

/// Whether `Accept-Encoding` has gzip, and not with a weight of 0.
fn accepts_gzip(request: &Request<'_>) -> bool {
    let mut offers =
        request.field("accept-encoding").flat_map(|value| value.split(|byte| *byte == b','));
    offers.any(|offer| {
        let mut parts = offer.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let is_gzip = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"gzip"));
        let is_refused = parts.any(|weight| {
            let zero = weight.strip_prefix(b"q=0").or_else(|| weight.strip_prefix(b"Q=0"));
            zero.is_some_and(|rest| rest.iter().all(|byte| matches!(byte, b'.' | b'0')))
        });
        is_gzip && !is_refused
    })
}

/// Whether the value of an `If-None-Match` names the tag (RFC 9110, section 13.1.2: compared weakly).
fn etag_matches(known: &[u8], tag: &str) -> bool {
    let mut tags = known.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tags.any(|known| known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes())
}

//! Streams of requests: pieces do not change the result, and accepted requests are sound.
//!
//! An input is a line of sizes, then the stream, in pieces of those sizes.

use speak::http::{self, Limits, ParseError, Parsed, Progress};

use super::source::{Source, pieces};
use super::stream::{LIMITS, Outcome, Owned, ReadCut, take_all};

/// Runs one input.
pub fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let (sizes, stream) = (source.line(), source.rest());
    let whole = take_all(&[stream], ReadCut::Short);
    assert_eq!(take_all(&[stream], ReadCut::Long), whole, "the long way");
    assert_eq!(take_all(&pieces(stream, sizes), ReadCut::Short), whole, "in pieces");
    assert_eq!(take_all(&pieces(stream, b"1"), ReadCut::Short), whole, "byte by byte");
    check(stream, &whole);
}

fn check(stream: &[u8], outcome: &Outcome) {
    let mut rest = stream;
    for (request, length) in &outcome.requests {
        let (its_bytes, after) = rest.split_at(*length);
        let its_bytes = &its_bytes[http::leading_blank_lines(its_bytes)..];
        check_request(request);
        check_bytes(its_bytes, request);
        rest = after;
    }
    assert_eq!(rest.len(), outcome.left);
    if outcome.reject.is_none() {
        let rest = &rest[http::leading_blank_lines(rest)..];
        // The parser waits for more of an incomplete request. That wait must have an end.
        let most = LIMITS.head_bytes + 20 * LIMITS.body_bytes + 4096 + 2;
        assert!(rest.len() <= most, "{} bytes are held", rest.len());
    }
}

/// Asserts that no value has bytes that could mislead another program.
fn check_request(request: &Owned) {
    let Owned { path, query, body, content_type, origin, fields, .. } = request;
    assert!(path == "*" || path.starts_with('/'), "{path}");
    assert!(!path.contains('?'), "{path}");
    for byte in path.bytes().chain(query.bytes()) {
        assert!(byte > b' ' && byte != 0x7f, "byte {byte} in a target");
    }
    assert!(
        fields[..3].iter().all(|values| values.len() <= 1),
        "two servers may choose differently"
    );
    assert!(fields[1].is_empty() || fields[2].is_empty(), "both a length and a coding");
    for value in content_type.iter().chain(origin).chain(fields.iter().flatten()) {
        assert!(
            value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)),
            "{value:?}"
        );
        assert_eq!(value.trim_ascii(), value, "white space around a value");
    }
    assert!(body.len() <= LIMITS.body_bytes);
}

/// Asserts that the bytes of a request are exactly that request: fewer are incomplete, and more are
/// the same request with a rest.
fn check_bytes(bytes: &[u8], request: &Owned) {
    let is_chunked = !request.fields[2].is_empty();
    if !is_chunked {
        let head = &bytes[..bytes.len() - request.body.len()];
        assert!(bytes.ends_with(&request.body));
        assert!(head.len() <= LIMITS.head_bytes, "a head of {} bytes", head.len());
        assert!(
            head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n"),
            "a head ends with an empty line"
        );
        for (place, byte) in head.iter().enumerate() {
            assert!(*byte != 0, "a NUL");
            assert!(
                *byte != b'\r' || head.get(place + 1) == Some(&b'\n'),
                "a bare carriage return"
            );
        }
        let text = head.strip_suffix(b"\r\n").or(head.strip_suffix(b"\n")).expect("seen above");
        let is_end = |pair: &[u8]| pair == b"\n\n" || pair == b"\n\r";
        assert!(!text.windows(2).any(is_end), "an empty line within a head");
    }
    let short = &bytes[..bytes.len() - 1];
    assert!(http::parse_complete(short, &LIMITS).is_none(), "it was whole before its end");
    let is_incomplete = matches!(
        http::parse(&mut short.to_vec(), &mut Progress::default(), &LIMITS),
        Ok(Parsed::Incomplete { .. })
    );
    assert!(is_incomplete, "it was whole, or refused, before its end");
    // With tighter limits it would not fit.
    let tight = Limits { body_bytes: request.body.len(), ..LIMITS };
    assert!(matches!(
        http::parse(&mut bytes.to_vec(), &mut Progress::default(), &tight),
        Ok(Parsed::Complete(..))
    ));
    if let Some(body_bytes) = request.body.len().checked_sub(1) {
        let mut bytes = bytes.to_vec();
        let got =
            http::parse(&mut bytes, &mut Progress::default(), &Limits { body_bytes, ..LIMITS });
        assert!(matches!(got, Err(ParseError::BodyTooLarge)), "a body above the limit");
    }
}

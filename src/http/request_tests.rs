//! Tables of requests. The bytes of each case arrive in pieces of several sizes, alone and with
//! another request after them.

use super::*;

const LIMITS: Limits = Limits { head_bytes: 256, body_bytes: 64 };
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: n\r\n\r\n";

/// Result of a case: method, path, query, body, persistence.
type Outcome = (Method, String, String, Vec<u8>, Persistence);

/// Feeds `input` in pieces of this size, as the buffer of a client would get them. Returns the
/// first request, the bytes after it, and the number of interim responses.
fn feed(input: &[u8], piece_bytes: usize) -> Result<Option<(Outcome, Vec<u8>, usize)>, ParseError> {
    let mut buffer = Vec::new();
    let mut progress = Progress::default();
    let mut continues = 0;
    let mut pieces = input.chunks(piece_bytes);
    while let Some(piece) = pieces.next() {
        buffer.extend_from_slice(piece);
        if progress == Progress::default() {
            let blank = leading_blank_lines(&buffer);
            buffer.drain(..blank);
        }
        if buffer.is_empty() {
            continue;
        }
        match parse(&mut buffer, &mut progress, &LIMITS)? {
            Parsed::Incomplete { wants_continue } => continues += usize::from(wants_continue),
            Parsed::Complete(request, bytes) => {
                let whole = (
                    request.method,
                    request.path.to_owned(),
                    request.query.to_owned(),
                    request.body.to_vec(),
                    request.persistence,
                );
                let rest =
                    [&buffer[bytes..], &pieces.flatten().copied().collect::<Vec<_>>()].concat();
                return Ok(Some((whole, rest, continues)));
            }
        }
        progress.compact(&mut buffer);
    }
    Ok(None)
}

/// Runs a case in all the ways in which its bytes may arrive.
fn run(input: &[u8]) -> Result<Option<Outcome>, ParseError> {
    let whole = feed(input, input.len()).map(|got| {
        got.map(|(request, rest, _)| {
            assert_eq!(rest, b"", "{}", input.escape_ascii());
            request
        })
    });
    for piece_bytes in [1, 2, 3, 7] {
        let in_pieces = feed(input, piece_bytes).map(|got| got.map(|(request, ..)| request));
        assert_eq!(in_pieces, whole, "{} in pieces of {piece_bytes}", input.escape_ascii());
    }
    if whole != Ok(None) {
        let with_next = [input, NEXT].concat();
        for piece_bytes in [1, 5, with_next.len()] {
            let got = feed(&with_next, piece_bytes).map(|got| {
                let (request, rest, _) = got.unwrap();
                assert_eq!(rest, NEXT, "{}", input.escape_ascii());
                Some(request)
            });
            assert_eq!(got, whole, "{} with another after it", input.escape_ascii());
        }
    }
    whole
}

fn request(
    method: Method,
    path: &str,
    query: &str,
    body: &str,
    persistence: Persistence,
) -> Outcome {
    (method, path.into(), query.into(), body.into(), persistence)
}

#[test]
fn requests_are_parsed_as_rfc_9112_says() {
    use Method::{Get, Head, Options, Other, Post};
    use Persistence::{Close, Persistent, PersistentIfAnnounced};
    let cases: &[(&str, Outcome)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", request(Get, "/", "", "", Persistent)),
        ("GET /a?b=c&d HTTP/1.1\r\nHost: a\r\n\r\n", request(Get, "/a", "b=c&d", "", Persistent)),
        ("GET /a?b?c HTTP/1.1\r\nHost:\r\n\r\n", request(Get, "/a", "b?c", "", Persistent)),
        (
            "GET /?m=h\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            request(Get, "/", "m=h\u{e9}", "", Persistent),
        ),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", request(Head, "/", "", "", Persistent)),
        ("PUT / HTTP/1.1\r\nHost: a\r\n\r\n", request(Other, "/", "", "", Persistent)),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", request(Other, "*", "", "", Close)),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", request(Options, "*", "", "", Persistent)),
        // Absolute form, as a proxy sends it (RFC 9112, section 3.2.2).
        ("GET http://a:1/b?c HTTP/1.1\r\nHost: a\r\n\r\n", request(Get, "/b", "c", "", Persistent)),
        ("GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n", request(Get, "/", "", "", Persistent)),
        ("GET http://[::1]?c HTTP/1.1\r\nHost: a\r\n\r\n", request(Get, "/", "c", "", Persistent)),
        // Hosts and ports (section 3.2; RFC 3986, section 3.2.2).
        ("GET / HTTP/1.1\r\nHost: a_b.c-d:80\r\n\r\n", request(Get, "/", "", "", Persistent)),
        ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", request(Get, "/", "", "", Persistent)),
        (
            "GET / HTTP/1.1\r\nHost: [2001:db8::1.2.3.4]:80\r\n\r\n",
            request(Get, "/", "", "", Persistent),
        ),
        ("GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", request(Get, "/", "", "", Persistent)),
        // Empty lines before a request, and bare line feeds in its head (section 2.2).
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", request(Get, "/", "", "", Persistent)),
        ("\r\nGET / HTTP/1.5\r\nHost: a\r\n\r\n", request(Get, "/", "", "", Persistent)),
        ("GET / HTTP/1.1\nHost: a\n\n", request(Get, "/", "", "", Persistent)),
        // Versions and persistence (section 9.3).
        ("GET / HTTP/1.0\r\n\r\n", request(Get, "/", "", "", Close)),
        (
            "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
            request(Get, "/", "", "", PersistentIfAnnounced),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            request(Get, "/", "", "", Close),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
            request(Get, "/", "", "", Close),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
            request(Get, "/", "", "", Close),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
            request(Get, "/", "", "", Close),
        ),
        ("GET / HTTP/1.7\r\nHost: a\r\n\r\n", request(Get, "/", "", "", Persistent)),
        // Bodies by length.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhowdy",
            request(Post, "/", "", "howdy", Persistent),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:  0 \r\n\r\n",
            request(Post, "/", "", "", Persistent),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00002\r\n\r\n\r\n",
            request(Post, "/", "", "\r\n", Persistent),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nGE",
            request(Get, "/", "", "GE", Persistent),
        ),
        ("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", request(Post, "/", "", "ab", Close)),
        // Bodies in chunks.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhowdy\r\n0\r\n\r\n",
            request(Post, "/", "", "howdy", Persistent),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n\
             1\r\na\r\n0A\r\n0123456789\r\n1\r\n\r\r\n000\r\n\r\n",
            request(Post, "/", "", "a0123456789\r", Persistent),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             2 \t;x=\"y\";z\r\nok\r\n0;q\r\nSome: trailer\r\nOther:\r\n\r\n",
            request(Post, "/", "", "ok", Persistent),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            request(Post, "/", "", "", Persistent),
        ),
    ];
    for (input, expected) in cases {
        assert_eq!(run(input.as_bytes()), Ok(Some(expected.clone())), "{input:?}");
    }
}

/// Returns a POST with these lines before the body.
fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}").into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked", body)
}

#[test]
fn a_request_that_two_servers_could_read_differently_is_an_error() {
    let line = |request: &str| request.as_bytes().to_vec();
    let cases = [
        // Request lines and versions.
        line("GET /\r\n\r\n"),
        line("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        line("GET / FOO/1.1\r\nHost: a\r\n\r\n"),
        line("GET / HTTP/1\r\nHost: a\r\n\r\n"),
        line("GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
        line("GET / http/1.1\r\nHost: a\r\n\r\n"),
        line("GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
        line("GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        line("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
        line("GET http://:80/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        line("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        line("G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        b" /\xff HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        line("GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n"),
        line("\x16\x03\x01\x02"),
        // Hosts.
        line("GET / HTTP/1.1\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: a[::1]\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: [a@b]\r\n\r\n"),
        line("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        line("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        // Field lines: space before the colon, folding, bare CR, NUL, no name.
        line("GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
        line("GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n"),
        line("GET / HTTP/1.1\rHost: a\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
        line("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
        // Lengths.
        post("Content-Length: 5\r\nTransfer-Encoding: chunked", ""),
        post("Transfer-Encoding: gzip\r\nContent-Length: 5", ""),
        post("Content-Length: 5\r\nContent-Length: 6", ""),
        post("Content-Length: 5\r\nContent-Length: 5", ""),
        post("Content-Length: 5, 5", ""),
        post("Content-Length: +5", ""),
        post("Content-Length: -5", ""),
        post("Content-Length: 0x5", ""),
        post("Content-Length: 5 5", ""),
        post("Content-Length:", ""),
        // Codings.
        post("Transfer-Encoding:", ""),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", ""),
        line("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        // Chunks.
        chunked("x"),
        chunked("-1\r\n"),
        chunked("0x1\r\n"),
        chunked(" 1\r\n"),
        chunked("1 \r\na"),
        chunked("\r\n"),
        chunked(";a\r\n"),
        chunked("1\na"),
        chunked("1;a\nb"),
        chunked("1;\x01\r\n"),
        chunked("1\r\r"),
        chunked("1\r\nab"),
        chunked("1\r\na\n"),
        chunked("1\r\na\r\r"),
        chunked("00000000000000001\r\n"),
        chunked("0\r\nbad trailer\r\n"),
        chunked("0\r\n folded: x\r\n"),
        chunked("0\r\na: b\nc"),
        chunked("0\r\n\n"),
        chunked("0\r\n\rx"),
        chunked("0\nGET"),
    ];
    for input in cases {
        let result = run(&input);
        assert!(
            matches!(result, Err(ParseError::BadRequest(_))),
            "{}: {result:?}",
            input.escape_ascii()
        );
    }
}

#[test]
fn requests_that_are_too_large_or_unknown_have_their_own_errors() {
    let long = "x".repeat(LIMITS.head_bytes);
    let cases = [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), ParseError::UriTooLong),
        (format!("GET /{long}"), ParseError::UriTooLong),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), ParseError::HeadersTooLarge),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n".into(), ParseError::UnknownMethod),
        ("PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n".into(), ParseError::UnknownMethod),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), ParseError::VersionNotSupported),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), ParseError::VersionNotSupported),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n".into(), ParseError::VersionNotSupported),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".into(),
            ParseError::UnknownCoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n".into(),
            ParseError::UnknownCoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\n".into(),
            ParseError::BodyTooLarge,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n".into(),
            ParseError::BodyTooLarge,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n41\r\n".into(),
            ParseError::BodyTooLarge,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"
                .into(),
            ParseError::BodyTooLarge,
        ),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{}\r\n1\r\n",
                "y".repeat(64)
            ),
            ParseError::BodyTooLarge,
        ),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;{}",
                "e".repeat(5000)
            ),
            ParseError::HeadersTooLarge,
        ),
    ];
    for (input, error) in cases {
        assert_eq!(run(input.as_bytes()), Err(error), "{input:.200}");
    }
}

#[test]
fn a_request_at_its_limits_is_accepted() {
    let ending = "\r\n\r\n";
    let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    let value = |bytes| "x".repeat(bytes - start.len() - ending.len());
    let head = |bytes| format!("{start}{}{ending}", value(bytes)).into_bytes();
    assert!(matches!(run(&head(LIMITS.head_bytes)), Ok(Some(_))));
    assert_eq!(run(&head(LIMITS.head_bytes + 1)), Err(ParseError::HeadersTooLarge));
    let body = |bytes| post(&format!("Content-Length: {bytes}"), &"y".repeat(bytes));
    assert!(matches!(run(&body(LIMITS.body_bytes)), Ok(Some(_))));
    assert_eq!(run(&body(LIMITS.body_bytes + 1)), Err(ParseError::BodyTooLarge));
    assert!(parse_complete(&body(LIMITS.body_bytes), &LIMITS).is_some());
    assert!(parse_complete(&body(LIMITS.body_bytes + 1), &LIMITS).is_none());
    let extension = |bytes| chunked(&format!("0;{}\r\n\r\n", "e".repeat(bytes)));
    let trailer = |bytes: usize| chunked(&format!("0\r\nT:{}\r\n\r\n", "e".repeat(bytes - 1)));
    for (below, above) in [(extension(4096), extension(4097)), (trailer(4096), trailer(4097))] {
        assert!(matches!(run(&below), Ok(Some(_))));
        assert_eq!(run(&above), Err(ParseError::HeadersTooLarge));
    }
}

#[test]
fn a_head_below_its_limit_may_have_any_number_of_fields() {
    let limits = Limits { head_bytes: 16 * 1024, ..LIMITS };
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A:\r\n".repeat(4000)).into_bytes();
    assert!(matches!(parse_complete(&input, &limits), Some((_, bytes)) if bytes == input.len()));
    let input = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A:\r\n".repeat(5000)).into_bytes();
    let mut buffer = input;
    let result = parse(&mut buffer, &mut Progress::default(), &limits);
    assert!(matches!(result, Err(ParseError::HeadersTooLarge)));
}

#[test]
fn a_client_that_waits_gets_one_interim_response() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    let request = [head.as_slice(), b"ok"].concat();
    for (piece_bytes, expected) in
        [(1, 1), (head.len(), 1), (head.len() + 1, 0), (request.len(), 0)]
    {
        let (_, _, continues) = feed(&request, piece_bytes).unwrap().unwrap();
        assert_eq!(continues, expected, "in pieces of {piece_bytes}");
    }
    let old = b"POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nok";
    assert_eq!(feed(old, 1).unwrap().unwrap().2, 0);
}

/// Names are compared by their length first.
#[test]
fn fields_whose_names_only_have_the_length_of_a_known_one_are_ignored() {
    let fields = "Date: a b\r\nCookie: 100-continue\r\nReferer: prefetch\r\nReferer: websocket\r\n\
                  User-Agent: close\r\nTraceparent: prefetch\r\nMax-Forwards: text/plain\r\n\
                  Accept-Charset: cross-site\r\nIf-Modified-Since: chunked\r\n";
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 2\r\n\r\n");
    let limits = Limits { head_bytes: 1000, ..LIMITS };
    let input = format!("{head}ab");
    let (request, _) = parse_complete(input.as_bytes(), &limits).unwrap();
    assert_eq!((request.body, request.content_type), (b"ab".as_slice(), None));
    assert_eq!(request.persistence, Persistence::Persistent);
    assert!(!request.wants_websocket && !request.is_cross_site && !request.is_prefetch);
    let mut buffer = head.into_bytes();
    let parsed = parse(&mut buffer, &mut Progress::default(), &limits);
    assert!(matches!(parsed, Ok(Parsed::Incomplete { wants_continue: false })), "{parsed:?}");
}

/// Otherwise each byte of a slow client would cost a scan of its whole head.
#[test]
fn after_its_first_piece_a_head_is_parsed_once_it_is_complete() {
    let (mut buffer, mut progress) = (Vec::new(), Progress::default());
    for (piece, is_error) in
        [("GET / HTTP/1.1\r\n", false), ("no field\r\n", false), ("\r\n", true)]
    {
        buffer.extend_from_slice(piece.as_bytes());
        assert_eq!(parse(&mut buffer, &mut progress, &LIMITS).is_err(), is_error, "{piece:?}");
    }
}

#[test]
fn the_framing_of_decoded_chunks_leaves_the_buffer() {
    let head = post("Transfer-Encoding: chunked", "");
    let (mut buffer, mut progress) = (head.clone(), Progress::default());
    for chunks in 0..10 {
        let parsed = parse(&mut buffer, &mut progress, &LIMITS);
        assert!(matches!(parsed, Ok(Parsed::Incomplete { .. })), "{parsed:?}");
        progress.compact(&mut buffer);
        assert_eq!(buffer.len(), head.len() + chunks);
        buffer.extend_from_slice(b"1\r\nx\r\n");
    }
}

#[test]
fn only_http_1_1_has_an_upgrade() {
    for (line, expected) in [("GET /read HTTP/1.1", true), ("GET /read HTTP/1.0", false)] {
        let input = format!("{line}\r\nHost: a\r\nUpgrade: websocket\r\n\r\n");
        let (request, _) = parse_complete(input.as_bytes(), &LIMITS).unwrap();
        assert_eq!(request.wants_websocket, expected, "{line}");
    }
}

#[test]
fn an_incomplete_request_is_no_error() {
    for input in [
        "G",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/2",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx",
    ] {
        assert_eq!(run(input.as_bytes()), Ok(None), "{input}");
    }
}

#[test]
fn the_fast_path_and_the_slow_path_agree() {
    for input in [
        "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\nGET",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhowdyGET",
    ] {
        let (short, bytes) = parse_complete(input.as_bytes(), &LIMITS).unwrap();
        let mut buffer = input.as_bytes().to_vec();
        let Parsed::Complete(long, long_bytes) =
            parse(&mut buffer, &mut Progress::default(), &LIMITS).unwrap()
        else {
            panic!("{input} is complete");
        };
        assert_eq!(
            (short.path, short.query, short.body, bytes),
            (long.path, long.query, long.body, long_bytes)
        );
    }
    for input in [
        "GET / HTTP/1.7\r\nHost: a\r\n\r\n",
        "GET /",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\n",
    ] {
        assert!(parse_complete(input.as_bytes(), &LIMITS).is_none(), "{input}");
    }
}

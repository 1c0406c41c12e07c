//! Input that is not HTTP, too large or too slow: refused with a readable response.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::thread;

use common::{Client, Server, request, until};

/// Asserts that `bytes` are refused and their client closed.
#[track_caller]
fn refused(server: &Server, bytes: impl AsRef<[u8]>, statuses: &[u16]) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    let mut client = server.client();
    let answer = client.call(bytes);
    assert!(statuses.contains(&answer.status), "{shown:?}: {}", answer.status);
    assert!(answer.says_close(), "{shown:?}");
    client.is_closed();
}

/// A request with these lines after its request line, followed by `body`.
fn post(lines: &str, body: &str) -> String {
    format!("POST /write?channel=c HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n{body}")
}

#[test]
fn non_http_input_is_a_bad_request() {
    let server = Server::start();
    let heads: [&[u8]; 20] = [
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b" GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G(T /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G\xfcT /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /he\0lth HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /he\rlth HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\rHost: x\r\r",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\r\n\tfolded\r\n\r\n",
        b"GET /health HTTP/1.1\r\n folded: x\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n: no name\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ];
    for head in heads {
        // A bare CR may prevent the end of a head: this adds one.
        let head = [head, b"\r\n\r\n"].concat();
        refused(&server, head, &[400]);
    }
    // Not HTTP, or an unknown version of it: both are valid verdicts.
    for line in ["/health HTTP/1.1 x", "/hea lth HTTP/1.1", "/health HTTP/x.y", "/health FTP/1.1"] {
        let head = format!("GET {line}\r\nHost: x\r\n\r\n");
        refused(&server, head, &[400, 505]);
    }
}

#[test]
fn http_1_1_needs_one_host() {
    let server = Server::start();
    refused(&server, "GET /health HTTP/1.1\r\n\r\n", &[400]);
    refused(&server, "GET /health HTTP/1.1\r\nX-Host: x\r\n\r\n", &[400]);
    let twice = "GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n";
    refused(&server, twice, &[400]);
    refused(&server, "GET http://x/health HTTP/1.1\r\n\r\n", &[400]);
}

#[test]
fn a_body_has_one_length() {
    let server = Server::start();
    let lines = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 6",
        "Content-Length: 5, 5",
        "Content-Length: -5",
        "Content-Length: +5",
        "Content-Length: 5x",
        "Content-Length: 0x5",
        "Content-Length: 5.0",
        "Content-Length: 5 5",
        "Content-Length:",
        "Content-Length: five",
    ];
    for lines in lines {
        refused(&server, post(lines, "0\r\n\r\n"), &[400]);
    }
    // Too long for any integer: too large for the server, or no valid length.
    for digits in ["18446744073709551616", "99999999999999999999999999999999999999999999"] {
        let lines = format!("Content-Length: {digits}");
        refused(&server, post(&lines, ""), &[400, 413]);
    }
    assert_eq!(server.read("c", "1").next_id(), 1);
}

#[test]
fn chunks_are_framed_to_the_byte() {
    let server = Server::start();
    let bodies = [
        "x\r\nhowdy\r\n0\r\n\r\n",
        "\r\nhowdy\r\n0\r\n\r\n",
        "-5\r\nhowdy\r\n0\r\n\r\n",
        "+5\r\nhowdy\r\n0\r\n\r\n",
        "0x5\r\nhowdy\r\n0\r\n\r\n",
        " 5\r\nhowdy\r\n0\r\n\r\n",
        "5g\r\nhowdy\r\n0\r\n\r\n",
        ";x=y\r\nhowdy\r\n0\r\n\r\n",
        "5\nhowdy\r\n0\r\n\r\n",
        "5\r\nhowdy\n0\r\n\r\n",
        "5\r\nhowdy!\r\n0\r\n\r\n",
        "5\r\nhowdy0\r\n\r\n",
        "5\rhowdy\r\n0\r\n\r\n",
    ];
    for body in bodies {
        let bytes = post("Content-Type: text/plain\r\nTransfer-Encoding: chunked", body);
        refused(&server, bytes, &[400]);
    }
    for size in ["fffffffffffffffff", "ffffffffffffffff", "7fffffffffffffff", "99999999"] {
        let body = format!("{size}\r\nhowdy\r\n0\r\n\r\n");
        refused(&server, post("Transfer-Encoding: chunked", &body), &[400, 413]);
    }
    assert_eq!(server.read("c", "1").next_id(), 1);
}

#[test]
fn an_unknown_transfer_coding_is_not_implemented() {
    let server = Server::start();
    for coding in ["gzip", "gzip, chunked", "chunkedx", "br"] {
        let lines = format!("Transfer-Encoding: {coding}");
        refused(&server, post(&lines, "0\r\n\r\n"), &[501]);
    }
}

#[test]
fn a_smuggled_request_is_never_served() {
    let server = Server::start();
    let inner = "GET /write?channel=smuggled&message=m HTTP/1.1\r\nHost: x\r\n\r\n";
    let outer = [
        post("Content-Length: 0\r\nTransfer-Encoding: chunked", inner),
        post("Content-Length: 0\r\nContent-Length: 5", inner),
        post("Transfer-Encoding: xchunked", inner),
        post("X: y\r\n Content-Length: 5", inner),
        post("Transfer-Encoding : chunked", inner),
        format!("nonsense\r\n\r\n{inner}"),
    ];
    for bytes in outer {
        refused(&server, bytes, &[400, 501]);
    }
    assert_eq!(server.read("smuggled", "1").next_id(), 1);
}

#[test]
fn a_long_request_line_is_refused() {
    let server = Server::start();
    let line = format!("GET /health?x={} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(16_384));
    refused(&server, line, &[414]);
    // The end of the line is not needed.
    refused(&server, format!("GET /{}", "x".repeat(17_000)), &[414]);
    let fits = format!("/health?x={}", "x".repeat(16_000));
    server.client().call(request("GET", &fits, &[], None)).ok();
}

#[test]
fn a_large_head_is_refused() {
    let server = Server::start();
    let long = "x".repeat(16_384);
    let head = format!("GET /health HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n");
    refused(&server, head, &[431]);
    let unfinished = format!("GET /health HTTP/1.1\r\nHost: x\r\nX: {long}");
    refused(&server, unfinished, &[431]);
    let many = "X: y\r\n".repeat(3_000);
    let head = format!("GET /health HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    refused(&server, head, &[431]);
    let fits = [("X", &*"x".repeat(16_000))];
    server.client().call(request("GET", "/health", &fits, None)).ok();
}

#[test]
fn a_head_within_the_size_limit_can_have_many_lines() {
    let server = Server::start();
    let headers = [("X", "y"); 100];
    server.client().call(request("GET", "/health", &headers, None)).ok();
}

#[test]
fn max_head_sets_the_size_of_a_head() {
    let server = Server::with(&["--max-head", "1k"]);
    let long = "x".repeat(900);
    let fits = [("X", &*long)];
    server.client().call(request("GET", "/health", &fits, None)).ok();
    let head = request("GET", "/health", &[("X", &*"x".repeat(1024))], None);
    refused(&server, head, &[431]);
    let line = request("GET", &format!("/{}", "x".repeat(1024)), &[], None);
    refused(&server, line, &[414]);
}

/// Sends `head`, waits until the server has decided, sends the rest of a megabyte without reading,
/// and only then reads the response.
#[track_caller]
fn sends_on(server: &Server, head: &str, status: u16) {
    let mut client = server.client();
    let piece = "x".repeat(16 * 1024);
    client.send(head);
    client.send(piece.repeat(2));
    until("it is refused", || client.has_something());
    for _ in 2..64 {
        client.send(&piece);
    }
    let answer = client.response();
    assert_eq!(answer.status, status);
    // The server may also skip a refused body to its end and keep the client.
    assert!(answer.says_close() || status == 413);
}

#[test]
fn a_client_that_still_sends_can_read_the_refusal() {
    let server = Server::start();
    let length = "Content-Type: text/plain\r\nContent-Length: 1048576";
    sends_on(&server, &post(length, ""), 413);
    let chunked = "Content-Type: text/plain\r\nTransfer-Encoding: chunked";
    sends_on(&server, &post(chunked, "100000\r\n"), 413);
    sends_on(&server, "GET /", 414);
    sends_on(&server, "GET / HTTP/1.1\r\nHost: x\r\nX: ", 431);
    server.get("/health", &[]).ok();
}

#[test]
fn a_refusal_is_sent_before_the_body_arrives() {
    let server = Server::start();
    let mut client = server.client();
    let mut sender = client.second_handle();
    client.send(post("Content-Type: text/plain\r\nContent-Length: 1000000000", ""));
    let sending = thread::spawn(move || {
        // Until the server, or this client's other half, has closed.
        while sender.write_all(&[b'x'; 16 * 1024]).is_ok() {}
        let _ = sender.shutdown(Shutdown::Both);
    });
    client.response().fails_with(413, "message_too_large");
    let hung_up = client.second_handle();
    hung_up.shutdown(Shutdown::Both).expect("hanging up");
    sending.join().expect("the sender");
    server.get("/health", &[]).ok();
}

#[test]
fn an_incomplete_request_times_out() {
    let server = Server::with(&["--request-timeout", "300ms"]);
    let chunked = "Transfer-Encoding: chunked";
    let halves = [
        "G".to_owned(),
        "GET /health HTTP/1.1".to_owned(),
        "GET /health HTTP/1.1\r\nHost: x\r\n".to_owned(),
        post("Content-Length: 5", ""),
        post("Content-Length: 5", "howd"),
        post(chunked, ""),
        post(chunked, "5\r\nho"),
        post(chunked, "5\r\nhowdy\r\n0\r\n"),
    ];
    let mut clients: Vec<(Client, String)> = Vec::new();
    for half in halves {
        let mut client = server.client();
        client.send(&half);
        clients.push((client, half));
    }
    for (mut client, half) in clients {
        let answer = client.response();
        assert_eq!(answer.status, 408, "{half:?}");
        assert!(answer.says_close(), "{half:?}");
        client.is_closed();
    }
    assert_eq!(server.read("c", "1").next_id(), 1);
}

#[test]
fn dripping_bytes_does_not_extend_the_request_timeout() {
    let server = Server::with(&["--request-timeout", "300ms"]);
    let mut client = server.client();
    // Bytes arrive all the time, but never the last one.
    client.send("GET /health HTTP/1.1\r\nHost: x\r\nX: ");
    until("the server has had enough", || {
        client.try_send("x");
        client.has_something()
    });
    assert_eq!(client.response().status, 408);
}

#[test]
fn each_request_has_its_own_timeout() {
    let server = Server::with(&["--request-timeout", "300ms"]);
    let mut client = server.client();
    client.get("/health", &[]).ok();
    client.send("GET /hea");
    assert_eq!(client.response().status, 408);
    client.is_closed();
    // A request is not late while a read is pending.
    let mut reader = server.park(&[("channel", "c"), ("timeout", "1")]);
    assert_eq!(reader.response().ok().ids(), [0; 0]);
    reader.get("/health", &[]).ok();
}

#[test]
fn errors_before_a_call_are_described() {
    let server = Server::start();
    let cases = [
        ("GET /health HTTP/1.1\r\n\r\n", "bad_request"),
        ("GET /health HTTP/2.0\r\nHost: x\r\n\r\n", "version_not_supported"),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", "not_found"),
        ("PUT /write HTTP/1.1\r\nHost: x\r\n\r\n", "method_not_allowed"),
        ("get /health HTTP/1.1\r\nHost: x\r\n\r\n", "not_implemented"),
    ];
    for (request, error) in cases {
        let answer = server.client().call(request);
        // The response may be plain text or JSON.
        if answer.header("content-type") == Some("application/json") {
            answer.fails_with(answer.status, error);
        }
    }
}

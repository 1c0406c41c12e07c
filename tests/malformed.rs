//! Input that is not HTTP, too large or too slow: refused with a readable response.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::thread;

use common::{Response, Server, request, until};

/// Asserts that `bytes` are refused and their client closed. Returns the refusal.
#[track_caller]
fn refused(server: &Server, bytes: impl AsRef<[u8]>, status: u16) -> Response {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    let mut client = server.client();
    let answer = client.call(bytes);
    assert_eq!(answer.status, status, "{shown:?}");
    assert!(answer.says_close(), "{shown:?}");
    client.is_closed();
    answer
}

/// A request with these lines after its request line, followed by `body`.
fn post(lines: &str, body: &str) -> String {
    format!("POST /write?channel=c HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n{body}")
}

/// `tests/differential` and `src/http/request_tests.rs` have many more of each kind.
#[test]
fn a_malformed_request_gets_a_described_error_and_its_client_is_closed() {
    let server = Server::start();
    let get = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n\r\n");
    let chunked = "Content-Type: text/plain\r\nTransfer-Encoding: chunked";
    let cases = [
        (get("hello", ""), 400, "bad_request"),
        (get("GET /health HTTP/x.y", "Host: x"), 400, "bad_request"),
        (get("GET /health HTTP/1.1", "X-Host: x"), 400, "bad_request"),
        (get("GET /health HTTP/1.1", " folded: x\r\nHost: x"), 400, "bad_request"),
        (get("GET /health HTTP/2.0", "Host: x"), 505, "version_not_supported"),
        (get("get /health HTTP/1.1", "Host: x"), 501, "not_implemented"),
        (get("G /health HTTP/1.1", "Host: x"), 501, "not_implemented"),
        (get("GETT /health HTTP/1.1", "Host: x"), 501, "not_implemented"),
        (post("Content-Length: 5, 6", "howdy"), 400, "bad_request"),
        (post("Content-Length: 18446744073709551616", ""), 413, "message_too_large"),
        (post("Transfer-Encoding: br", "0\r\n\r\n"), 501, "not_implemented"),
        (post(chunked, "5\r\nhowdy!\r\n0\r\n\r\n"), 400, "bad_request"),
        (post(chunked, "99999999\r\nhowdy\r\n0\r\n\r\n"), 413, "message_too_large"),
    ];
    for (request, status, error) in cases {
        refused(&server, request, status).fails_with(status, error);
    }
    assert_eq!(server.read("c", "1").next_id(), 1);
}

#[test]
fn an_address_in_latin_1_is_an_error_of_encoding() {
    let server = Server::start();
    let heads: [&[u8]; 4] = [
        b"GET /write?channel=c&message=M\xfcller HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /write?channel=caf\xe9 HTTP/1.0\r\nContent-Length: 1\r\n\r\nm",
        b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /write?channel=c&message=\xc3\xbc\xfc HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    for head in heads {
        let (first, rest) = head.split_at(head.len() / 2);
        for pieces in [vec![head], vec![first, rest]] {
            let mut client = server.client();
            for piece in pieces {
                client.send(piece);
            }
            let answer = client.response();
            answer.fails_with(400, "bad_encoding");
            let detail = answer.json()["detail"].to_string();
            assert!(detail.contains("Latin-1") && detail.contains("UTF-8"), "{detail}");
            client.is_closed();
        }
    }
    let utf8 = "GET /write?channel=c&message=M\u{fc}ller HTTP/1.1\r\nHost: x\r\n\r\n";
    server.client().call(utf8).ok();
    assert_eq!(server.read("c", "1").texts(), ["M\u{fc}ller"]);
}

#[test]
fn a_smuggled_request_is_never_served() {
    let server = Server::start();
    let inner = "GET /write?channel=smuggled&message=m HTTP/1.1\r\nHost: x\r\n\r\n";
    let outer = [
        (post("Content-Length: 0\r\nTransfer-Encoding: chunked", inner), 400),
        (post("Content-Length: 0\r\nContent-Length: 5", inner), 400),
        (post("Transfer-Encoding: xchunked", inner), 501),
        (post("X: y\r\n Content-Length: 5", inner), 400),
        (post("Transfer-Encoding : chunked", inner), 400),
        (format!("nonsense\r\n\r\n{inner}"), 400),
    ];
    for (bytes, status) in outer {
        refused(&server, bytes, status);
    }
    assert_eq!(server.read("smuggled", "1").next_id(), 1);
}

#[test]
fn a_long_request_line_is_refused() {
    let server = Server::start();
    let line = format!("GET /health?x={} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(16_384));
    refused(&server, line, 414);
    // The end of the line is not needed.
    refused(&server, format!("GET /{}", "x".repeat(17_000)), 414);
    let fits = format!("/health?x={}", "x".repeat(16_000));
    server.client().call(request("GET", &fits, &[], None)).ok();
}

#[test]
fn a_large_head_is_refused() {
    let server = Server::start();
    let long = "x".repeat(16_384);
    let many = "X: y\r\n".repeat(3_000);
    for fields in [format!("X: {long}\r\n\r\n"), format!("X: {long}"), format!("{many}\r\n")] {
        refused(&server, format!("GET /health HTTP/1.1\r\nHost: x\r\n{fields}"), 431);
    }
    let fits = [("X", &*"x".repeat(16_000))];
    server.client().call(request("GET", "/health", &fits, None)).ok();
}

#[test]
fn max_head_sets_the_size_of_a_head() {
    let server = Server::with(&["--max-head", "1k"]);
    let long = "x".repeat(900);
    let fits = [("X", &*long)];
    server.client().call(request("GET", "/health", &fits, None)).ok();
    let head = request("GET", "/health", &[("X", &*"x".repeat(1024))], None);
    refused(&server, head, 431);
    let line = request("GET", &format!("/{}", "x".repeat(1024)), &[], None);
    refused(&server, line, 414);
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
    let clients = halves.map(|half| {
        let mut client = server.client();
        client.send(&half);
        (client, half)
    });
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

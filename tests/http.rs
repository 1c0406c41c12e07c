//! HTTP as clients and proxies use it: methods, versions, keep-alive, pipelining, deferred
//! requests.

mod common;

use std::time::Duration;

use common::{Client, Response, Server, request};
use support::http::get;

/// A request line with a `Host` field and nothing else.
fn bare(line: &str) -> String {
    format!("{line}\r\nHost: speak.test\r\n\r\n")
}

/// Returns a write to the channel `c` with a body in these chunks.
fn chunked(chunks: &str) -> Vec<u8> {
    let headers = [("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked")];
    let head = request("POST", "/write?channel=c", &headers, None);
    [&head[..], chunks.as_bytes()].concat()
}

/// Asserts that a method is refused, and which others are allowed.
#[track_caller]
fn is_not_allowed(answer: &Response, allow: &str, what: &str) {
    assert_eq!(answer.status, 405, "{what}");
    assert_eq!(answer.header("allow"), Some(allow), "{what}");
}

#[test]
fn only_get_and_post_make_calls() {
    let server = Server::start();
    let calls = ["/write", "/read", "/introduce", "/goodbye", "/members", "/create"];
    for path in calls {
        for method in ["PUT", "DELETE", "TRACE", "QUERY"] {
            let path = format!("{path}?channel=c&message=m&timeout=0");
            let answer = server.client().call(request(method, &path, &[], None));
            is_not_allowed(&answer, "GET, POST, OPTIONS", &format!("{method} {path}"));
        }
        // The response to HEAD has no body, whatever its status.
        let mut client = server.client();
        client.send(request("HEAD", &format!("{path}?channel=c&message=m"), &[], None));
        let answer = client.head();
        is_not_allowed(&answer, "GET, POST, OPTIONS", path);
        if !answer.says_close() {
            client.get("/health", &[]).ok();
        }
    }
    assert_eq!(server.read("c", "1").next_id(), 1);
}

#[test]
fn other_methods_get_an_allow_header() {
    let server = Server::start();
    let cases = [
        ("PUT", "/health", "GET, HEAD, POST, OPTIONS"),
        ("DELETE", "/health", "GET, HEAD, POST, OPTIONS"),
        ("PUT", "/image-test", "GET, HEAD, OPTIONS"),
        ("POST", "/image-test", "GET, HEAD, OPTIONS"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
        ("DELETE", "/", "GET, HEAD, OPTIONS"),
    ];
    for (method, path, allow) in cases {
        let answer = server.client().call(request(method, path, &[], None));
        is_not_allowed(&answer, allow, &format!("{method} {path}"));
    }
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start();
    let mut client = server.client();
    for path in ["/", "/image-test", "/health"] {
        let whole = client.get(path, &[]).ok();
        client.send(request("HEAD", path, &[], None));
        let head = client.head();
        assert_eq!(head.status, 200, "{path}");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(name), whole.header(name), "{path}");
        }
    }
    client.get("/health", &[]).ok();
}

#[test]
fn no_such_path_is_not_found() {
    let server = Server::start();
    let paths = [
        "/nothing",
        "/write/",
        "/Write",
        "/writex",
        "/read.html",
        "/health/x",
        "/%2e%2e/etc/passwd",
    ];
    for path in paths {
        assert_eq!(server.get(path, &[]).status, 404, "{path}");
    }
}

#[test]
fn http_1_1_is_persistent_by_default() {
    let server = Server::start();
    let mut client = server.client();
    for _ in 0..3 {
        assert!(!client.call(bare("GET /health HTTP/1.1")).ok().says_close());
    }
    for word in ["close", "Close", "keep-alive, close", "foo , close"] {
        let mut client = server.client();
        let request = request("GET", "/health", &[("Connection", word)], None);
        assert!(client.call(request).ok().says_close(), "{word}");
        client.is_closed();
    }
}

#[test]
fn http_1_0_closes_by_default() {
    let server = Server::start();
    for host in ["", "Host: speak.test\r\n"] {
        let mut client = server.client();
        client.call(format!("GET /health HTTP/1.0\r\n{host}\r\n")).ok();
        client.is_closed();
    }
    let mut client = server.client();
    for word in ["keep-alive", "Keep-Alive"] {
        let answer = client.call(format!("GET /health HTTP/1.0\r\nConnection: {word}\r\n\r\n"));
        let kept = answer.header("connection").map(str::to_ascii_lowercase);
        assert_eq!(kept.as_deref(), Some("keep-alive"));
    }
    // A pending read behaves the same.
    let mut reader = server.client();
    reader.send("GET /read?channel=c HTTP/1.0\r\n\r\n");
    server.wait_for_readers("c", 1);
    server.write("c", "m");
    assert_eq!(reader.response().texts(), ["m"]);
    reader.is_closed();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.client();
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let requests = [
        get("/write?channel=c&message=1"),
        request("POST", "/write", &form, Some(b"channel=c&message=2")),
        get("/nothing"),
        get("/read?channel=c&from_id=1"),
        chunked("1\r\n3\r\n0\r\n\r\n"),
        get("/write?channel=c"),
        get("/image-test"),
        get("/read?channel=c&from_id=1"),
        request("OPTIONS", "/write", &[], None),
        get("/health"),
    ];
    client.send(requests.concat());
    let answers: Vec<Response> = requests.iter().map(|_| client.response()).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 404, 200, 200, 400, 200, 200, 204, 200]);
    assert_eq!(answers[3].texts(), ["1", "2"]);
    assert_eq!(answers[7].texts(), ["1", "2", "3"]);
}

#[test]
fn hundreds_of_requests_in_one_send_are_all_answered() {
    let server = Server::start();
    let mut client = server.client();
    client.send(get("/write?channel=c&message=m").repeat(500));
    for id in 1..=500 {
        assert_eq!(client.response().ok().text(), format!(r#"{{"id":{id}}}"#));
    }
}

#[test]
fn no_request_is_handled_after_connection_close() {
    let server = Server::start();
    let mut client = server.client();
    let close = request("GET", "/write?channel=c&message=1", &[("Connection", "close")], None);
    client.send([close, get("/write?channel=c&message=2")].concat());
    assert!(client.response().ok().says_close());
    client.is_closed();
    assert_eq!(server.read("c", "1").texts(), ["1"]);
}

#[test]
fn a_request_pipelined_after_a_pending_read_waits() {
    let server = Server::with(&["--connection-timeout", "1h", "--poll-timeout", "1h"]);
    let me = server.introduce("c", "Josh");
    let mut client = server.park(&me.and(&[("channel", "c"), ("from_id", "2")]));
    client.send_get("/write", &[("channel", "c"), ("message", "held")]);
    client.send_get("/write", &[("channel", "c"), ("message", "held too")]);
    assert_eq!(server.write("c", "first"), 2);
    assert_eq!(client.response().texts(), ["first"]);
    assert_eq!(client.response().ok().text(), r#"{"id":3}"#);
    assert_eq!(client.response().ok().text(), r#"{"id":4}"#);
    let all = server.read("c", "1");
    assert_eq!(all.texts(), ["Josh", "first", "held", "held too"]);
    assert_eq!(server.members("c")["members"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_partial_request_can_wait_after_a_pending_read() {
    let server = Server::start();
    let mut client = server.park(&[("channel", "c")]);
    let held = get("/write?channel=c&message=held");
    let (first, second) = held.split_at(20);
    client.send(first);
    server.write("c", "m");
    assert_eq!(client.response().texts(), ["m"]);
    assert_eq!(client.call(second).ok().text(), r#"{"id":2}"#);
}

#[test]
fn reads_can_be_pipelined() {
    let server = Server::start();
    let mut client = server.client();
    client.send([1, 2, 3].map(|id| get(&format!("/read?channel=c&from_id={id}"))).concat());
    for text in ["a", "b", "c"] {
        server.wait_for_readers("c", 1);
        server.write("c", text);
        assert_eq!(client.response().texts(), [text]);
    }
}

#[test]
fn proxies_send_absolute_targets() {
    let server = Server::start();
    let mut client = server.client();
    let targets = [
        "http://speak.test/write?channel=c&message=m",
        "http://other.test:8080/write?channel=c&message=m",
        "HTTP://SPEAK.TEST/write?channel=c&message=m",
        "http://[::1]:7732/write?channel=c&message=m",
    ];
    for (id, target) in (1..).zip(targets) {
        let answer = client.call(bare(&format!("GET {target} HTTP/1.1")));
        assert_eq!(answer.ok().text(), format!(r#"{{"id":{id}}}"#), "{target}");
    }
    let answer = client.call(bare("GET http://speak.test HTTP/1.1"));
    assert_eq!(answer.ok().body, client.get("/", &[]).ok().body);
}

#[test]
fn names_of_fields_have_no_case_and_values_may_have_colons() {
    let server = Server::start();
    server.client().call("GET /health HTTP/1.1\r\nhOST:x\r\nX: a: b\r\n\r\n").ok();
}

#[test]
fn a_request_can_arrive_byte_by_byte() {
    let server = Server::start();
    let mut client = server.client();
    let sized = [("Content-Type", "text/plain")];
    let requests = [
        get("/write?channel=c&message=a"),
        request("POST", "/write?channel=c", &sized, Some("ü".as_bytes())),
        chunked("3;x=y\r\nabc\r\n1\r\n\n\r\n0\r\nT: t\r\n\r\n"),
    ];
    for byte in requests.concat() {
        client.send([byte]);
    }
    for id in 1..=3 {
        assert_eq!(client.response().ok().text(), format!(r#"{{"id":{id}}}"#));
    }
    assert_eq!(server.read("c", "1").texts(), ["a", "ü", "abc\n"]);
}

#[test]
fn a_request_can_arrive_in_any_two_parts() {
    let server = Server::start();
    let request = chunked("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    // All clients have sent their first part before any sends its second.
    let mut clients: Vec<(Client, &[u8])> = (1..request.len())
        .map(|middle| {
            let (first, second) = request.split_at(middle);
            let mut client = server.client();
            client.send(first);
            (client, second)
        })
        .collect();
    server.get("/health", &[]).ok();
    for (client, second) in &mut clients {
        client.call(*second).ok();
    }
    let texts = server.read("c", "-1000").texts();
    assert_eq!(texts.len(), clients.len().min(100));
    assert!(texts.iter().all(|text| text == "abc"));
}

#[test]
fn an_idle_client_is_closed() {
    let server = Server::with(&["--keep-alive", "500ms"]);
    let mut client = server.client();
    client.get("/health", &[]).ok();
    client.is_closed();
    // A pending read is not idle, however long it waits.
    let mut reader = server.park(&[("channel", "c"), ("timeout", "1")]);
    assert_eq!(reader.response().ok().ids(), [0; 0]);
    reader.is_closed();
}

#[test]
fn a_client_that_sends_requests_is_not_idle() {
    let server = Server::with(&["--keep-alive", "700ms"]);
    let mut client = server.client();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(200));
        client.get("/health", &[]).ok();
    }
}

#[test]
fn a_form_body_of_a_get_is_ignored() {
    // The body of a GET has no meaning, but it must be skipped.
    let server = Server::start();
    let mut client = server.client();
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    client.call(request("GET", "/members?channel=c", &headers, Some(b"channel=d"))).ok();
    client.get("/health", &[]).ok();
}

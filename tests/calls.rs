//! Every call, and every encoding of its parameters.

mod common;

use std::process::Command;

use common::{Client, Identity, Params, Response, Server, request, target};
use serde_json::{Value, json};

const FORM: &str = "application/x-www-form-urlencoded";

/// A way to encode a call's parameters in a request.
type Encoding = fn(&mut Client, &str, &Params) -> Response;

/// All encodings of the contract. The name identifies one in a failure.
const ENCODINGS: [(&str, Encoding); 6] = [
    ("get", Client::get),
    ("post-query", |client, path, params| {
        client.call(request("POST", &target(path, params), &[], Some(b"")))
    }),
    ("post-query-without-length", |client, path, params| {
        client.call(request("POST", &target(path, params), &[], None))
    }),
    ("post-form", Client::post_form),
    ("post-both", |client, path, params| {
        let (query, body) = params.split_at(params.len() / 2);
        client.post_form(&target(path, query), body)
    }),
    ("post-chunked-form", |client, path, params| {
        let form = support::http::form(params);
        let headers = [("Content-Type", FORM), ("Transfer-Encoding", "chunked")];
        client.send(request("POST", path, &headers, None));
        for byte in form.bytes() {
            client.send([b"1\r\n", &[byte][..], b"\r\n"].concat());
        }
        client.call("0\r\n\r\n")
    }),
];

/// Returns the only message of `channel`.
#[track_caller]
fn only_message(server: &Server, channel: &str) -> String {
    let texts = server.read(channel, "1").texts();
    assert_eq!(texts.len(), 1, "{texts:?}");
    texts[0].clone()
}

#[test]
fn every_call_accepts_every_parameter_encoding() {
    let server = Server::start();
    let mut client = server.client();
    for (channel, way) in ENCODINGS {
        let here = ("channel", channel);
        let mut call = |path: &str, params: &Params| way(&mut client, path, params).ok();

        assert_eq!(call("/health", &[]).text(), r#"{"status":"ok"}"#);
        let empty = call("/members", &[here]);
        assert_eq!(empty.text(), r#"{"members":[],"readers":0}"#);
        let empty = call("/read", &[here, ("timeout", "0")]);
        assert!(empty.text().starts_with(r#"{"messages":[],"next_id":1,"#));

        let message = ("message", "a & b = c + ü %41");
        let introduced = call("/introduce", &[here, message]);
        let me = Identity::from_answer(&introduced);
        let written = call("/write", &me.and(&[here, message]));
        assert_eq!(written.text(), r#"{"id":2}"#);
        let left = call("/goodbye", &me.and(&[message]));
        assert_eq!(left.text(), r#"{"ok":true}"#);

        let all = call("/read", &[here, ("from_id", "1"), ("timeout", "0")]);
        assert_eq!(all.texts(), [message.1; 3], "{channel}");
        assert_eq!(all.events(), ["introduction", "message", "goodbye left"], "{channel}");
        call("/create", &[]).json()["read"].as_str().expect("a name to read from");
    }
}

#[test]
fn the_type_of_a_body_says_whether_it_is_a_form_or_the_message() {
    let server = Server::start();
    let mut client = server.client();
    let raw = "{\"channel\":\"x\"}&message=a+b%20c\r\n\u{fc}";
    let form = "&message=a+b";
    let cases = [
        ("text/plain", raw, raw),
        ("text/plain; charset=utf-8", raw, raw),
        ("application/json", raw, raw),
        ("application/octet-stream", raw, raw),
        ("multipart/mixed; boundary=x", raw, raw),
        (FORM, form, "a b"),
        ("application/x-www-form-urlencoded; charset=UTF-8", form, "a b"),
        ("application/x-www-form-urlencoded;charset=utf-8", form, "a b"),
        ("Application/X-WWW-Form-URLEncoded", form, "a b"),
    ];
    for (content_type, body, message) in cases {
        let path = target("/write", &[("channel", content_type)]);
        client.post(&path, content_type, body).ok();
        assert_eq!(only_message(&server, content_type), message, "{content_type}");
    }
    let untyped = request("POST", "/write?channel=c", &[], Some(b"channel=x&y"));
    client.call(untyped).ok();
    assert_eq!(only_message(&server, "c"), "channel=x&y");
}

#[test]
fn a_multipart_form_is_no_message_and_no_form() {
    let server = Server::start();
    let me = server.introduce("c", "Josh");
    let body = "--b\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\n\u{fc}\r\n--b--\r\n";
    let paths = [
        "/write?channel=c".to_owned(),
        "/write".to_owned(),
        "/introduce?channel=c".to_owned(),
        target("/goodbye", &me.and(&[])),
        "/read?channel=c&timeout=0".to_owned(),
        "/read".to_owned(),
        "/members?channel=c".to_owned(),
        "/create".to_owned(),
    ];
    let types = ["multipart/form-data; boundary=b", "Multipart/Form-Data ;boundary=b"];
    for path in &paths {
        for content_type in types {
            for body in [body.as_bytes(), b"\xff", b""] {
                let answer = server.client().post(path, content_type, body);
                answer.fails_with(415, "unsupported_media_type");
                let detail = answer.json()["detail"].to_string();
                assert!(detail.contains("application/x-www-form-urlencoded"), "{detail}");
            }
        }
    }
    // A GET has no body that a call would read.
    let headers = [("Content-Type", types[0])];
    server.client().get_with("/health", &[], &headers).ok();
    assert_eq!(server.read("c", "1").texts(), ["Josh"]);
    assert_eq!(server.members("c")["members"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_multipart_form_of_curl_is_refused() {
    let server = Server::start();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*"])
        .args(["-F", "channel=c", "-F", "message=howdy"])
        .arg(format!("{}/write", server.url(0)))
        .output()
        .expect("curl");
    let answer = String::from_utf8(output.stdout).expect("text");
    assert!(answer.starts_with(r#"{"error":"unsupported_media_type","#), "{answer}");
    assert!(answer.contains("-d instead of -F"), "{answer}");
}

#[test]
fn a_missing_parameter_may_be_in_a_body_that_was_not_read() {
    let server = Server::start();
    let mut client = server.client();
    let hint = "application/x-www-form-urlencoded";
    let cases = [
        ("/write", "application/json", "{\"channel\":\"c\"}", "channel", true),
        ("/introduce", "text/plain", "channel=c&message=m", "channel", true),
        ("/goodbye", "text/plain", "connection=1&auth=x", "connection", true),
        ("/read", "application/json", "{\"channel\":\"c\"}", "channel", true),
        ("/members", "text/plain", "channel=c", "channel", true),
        ("/read", hint, "timeout=0", "channel", false),
        ("/write", hint, "channel=c", "message", false),
        ("/members", "text/plain", "", "channel", false),
    ];
    for (path, content_type, body, name, has_hint) in cases {
        let answer = client.post(path, content_type, body);
        answer.fails_with(400, "missing_parameter");
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains(&format!("{path} needs '{name}'")), "{detail}");
        assert_eq!(detail.contains(hint), has_hint, "{path} {content_type}: {detail}");
    }
    let answer = client.call(request("POST", "/read", &[], Some(b"channel=c")));
    assert!(answer.json()["detail"].to_string().contains(hint), "{answer:?}");
    assert_eq!(server.read("c", "1").next_id(), 1);
}

#[test]
fn a_prefetch_makes_no_call_that_acts() {
    let server = Server::start();
    let me = server.introduce("c", "Josh");
    let mut client = server.client();
    let purposes = [
        ("Sec-Purpose", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender"),
        ("sec-purpose", "Prefetch; anonymous-client-ip"),
        ("Purpose", "prefetch"),
    ];
    let acting = [
        "/write?channel=c&message=m".to_owned(),
        "/introduce?channel=c&message=m".to_owned(),
        target("/goodbye", &me.and(&[])),
        target("/read", &me.and(&[("channel", "c"), ("from_id", "1")])),
        "/read?channel=c&from_id=1".to_owned(),
        "/members?channel=c".to_owned(),
        "/create".to_owned(),
    ];
    for purpose in purposes {
        for path in &acting {
            let answer = client.call(request("GET", path, &[purpose], None));
            answer.fails_with(403, "bad_request");
        }
        let script = "/write?channel=c&message=m&callback=f";
        let answer = client.call(request("GET", script, &[purpose], None)).ok();
        assert!(answer.text().starts_with("/**/f({\"error\":\"bad_request\","), "{answer:?}");
        assert!(answer.text().ends_with(",\"status\":403});"), "{answer:?}");
        for path in ["/", "/speak.js", "/image-test", "/health", "/health?callback=f"] {
            client.call(request("GET", path, &[purpose], None)).ok();
        }
    }
    for meant in [("Purpose", "preview"), ("Sec-Purpose", ""), ("X-Purpose", "prefetch")] {
        client.call(request("GET", "/members?channel=c", &[meant], None)).ok();
    }
    assert_eq!(server.read("c", "1").texts(), ["Josh"]);
    assert_eq!(server.members("c")["members"].as_array().map(Vec::len), Some(1));
}

#[test]
fn introductions_and_goodbyes_take_a_raw_body_too() {
    let server = Server::start();
    let mut client = server.client();
    let answer = client.post("/introduce?channel=c", "text/plain", "Josh & co");
    let me = Identity::from_answer(&answer.ok());
    let bye = client.post(&target("/goodbye", &me.and(&[])), "text/plain", "so=long");
    assert_eq!(bye.ok().text(), r#"{"ok":true}"#);
    assert_eq!(server.read("c", "1").texts(), ["Josh & co", "so=long"]);
}

#[test]
fn an_empty_body_is_an_empty_message_only_with_a_type() {
    let server = Server::start();
    let typed = [("Content-Type", "text/plain")];
    let mut client = server.client();
    for body in [Some(&b""[..]), None] {
        let typed = request("POST", "/write?channel=c", &typed, body);
        client.call(typed).ok();
        let untyped = client.call(request("POST", "/write?channel=c", &[], body));
        untyped.fails_with(400, "missing_parameter");
    }
    assert_eq!(server.read("c", "1").texts(), ["", ""]);
}

#[test]
fn a_message_is_a_parameter_or_a_body_but_not_both() {
    let server = Server::start();
    let mut client = server.client();
    let me = server.introduce("c", "Josh");
    let twice = [("channel", "c"), ("message", "m")];
    let paths = [
        target("/write", &twice),
        target("/introduce", &twice),
        target("/goodbye", &me.and(&[("message", "m")])),
    ];
    for path in paths {
        let answer = client.post(&path, "text/plain", "m");
        answer.fails_with(400, "bad_parameter");
    }
    assert_eq!(server.read("c", "1").ids(), [1]);
}

#[test]
fn a_chunked_body_may_have_extensions_and_trailers() {
    let server = Server::start();
    let mut client = server.client();
    let headers = [("Content-Type", "text/plain"), ("Transfer-Encoding", "Chunked")];
    client.send(request("POST", "/write?channel=c", &headers, None));
    client.send("5;name=value\r\nhowdy\r\n00a \t;x=\"y\"\r\n, partner!\r\n");
    client.call("0;last\r\nX-Trailer: yes\r\n\r\n").ok();
    assert_eq!(only_message(&server, "c"), "howdy, partner!");
    // The bytes that follow are the next request.
    client.get("/health", &[]).ok();
}

#[test]
fn a_client_that_expects_100_gets_100_continue() {
    let server = Server::start();
    let mut client = server.client();
    let typed = ("Content-Type", "text/plain");
    let cases = [
        (("Content-Length", "5"), "100-continue", "howdy"),
        (("Transfer-Encoding", "chunked"), "100-Continue", "5\r\nagain\r\n0\r\n\r\n"),
    ];
    for (framing, expect, body) in cases {
        let headers = [typed, framing, ("Expect", expect)];
        client.send(request("POST", "/write?channel=c", &headers, None));
        assert_eq!(client.response().status, 100, "{expect}");
        client.call(body).ok();
    }
    assert_eq!(server.read("c", "1").texts(), ["howdy", "again"]);
}

#[test]
fn a_rejected_body_gets_no_100_continue() {
    let server = Server::start();
    let headers =
        [("Content-Type", "text/plain"), ("Content-Length", "9999999"), ("Expect", "100-continue")];
    let request = request("POST", "/write?channel=c", &headers, None);
    let answer = server.client().call(request);
    answer.fails_with(413, "message_too_large");
}

#[test]
fn create_returns_matching_names() {
    let server = Server::start();
    let mut seen = std::collections::BTreeSet::new();
    let (mut letters, mut client) = (String::new(), server.client());
    for _ in 0..20 {
        let answer = client.get("/create", &[]).ok();
        let text = answer.text();
        let pair = answer.json();
        let read = pair["read"].as_str().expect("a name to read from");
        let write = pair["write"].as_str().expect("a name to write to");
        assert_eq!(text, format!(r#"{{"read":"{read}","write":"{write}"}}"#));

        let random = read.strip_prefix("~r").expect("a name that begins with ~r");
        assert_eq!(random.len(), 22);
        assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let digest = write.strip_prefix("~w").expect("a name that begins with ~w");
        assert_eq!(digest.len(), 22);
        let base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert!(digest.bytes().all(base64url));
        assert!(seen.insert(read.to_owned()), "{read} came twice");
        letters += random;
    }
    // 440 characters out of 62: each kind occurs, except with a probability below 2 to the -100.
    for kind in [u8::is_ascii_uppercase, u8::is_ascii_lowercase, u8::is_ascii_digit] {
        assert!(letters.bytes().any(|byte| kind(&byte)));
    }
}

#[test]
fn a_pair_works_on_a_server_that_did_not_create_it() {
    let server = Server::start();
    let pairs = [
        ("~rAAAAAAAAAAAAAAAAAAAAAA", "~wPeSJ1mG8cKFqkHTl4JSHjC"),
        ("~r0123456789abcdefghijKL", "~w8X9s_4LP-sELgRsNvSl06F"),
        ("~r0000000000000000000019", "~w-NEP3mQMJ3CIQ_zfPZqVVI"),
    ];
    for (read, write) in pairs {
        server.write(write, "psst");
        assert_eq!(only_message(&server, read), "psst");
    }
}

#[test]
fn an_introduction_returns_four_keys_in_order() {
    let server = Server::with(&["--connection-timeout", "1500ms"]);
    server.write("c", "first");
    let params = [("channel", "c"), ("message", "Josh")];
    let answer = server.get("/introduce", &params).ok();
    let auth = answer.json()["auth"].as_str().expect("a code").to_owned();
    let expected = format!(r#"{{"connection":1,"auth":"{auth}","id":2,"timeout":1.5}}"#);
    assert_eq!(answer.text(), expected);
    assert_eq!(auth.len(), 22);
    assert!(auth.bytes().all(|byte| byte.is_ascii_alphanumeric()));
}

#[test]
fn members_are_listed_by_connection() {
    let server = Server::with(&["--connection-timeout", "1m"]);
    let before = common::now_ms() - 1;
    let ann = server.introduce("c", "Ann");
    let _josh = server.introduce("c", "Josh \"J\"");
    let _else = server.introduce("elsewhere", "Bob");
    // A new name moves the introduction, not the position in the list.
    server.call_as(&ann, "/introduce", "c", "Anna");
    let _reader = server.park(&[("channel", "c")]);

    let answer = server.get("/members", &[("channel", "c")]).ok();
    let list = answer.json();
    let [first, second] =
        [0, 1].map(|place| list["members"][place]["time"].as_u64().expect("a time"));
    let expected = [
        format!(r#"{{"members":[{{"connection":1,"message":"Anna","id":3,"time":{first}}},"#),
        format!(
            r#"{{"connection":2,"message":"Josh \"J\"","id":2,"time":{second}}}],"readers":1}}"#
        ),
    ];
    assert_eq!(answer.text(), expected.concat());
    assert!([before, second, first, common::now_ms() + 1].is_sorted(), "{list}");
}

#[test]
fn a_long_list_of_members_comes_in_parts() {
    const MAX_REPLY: usize = 300;
    let max_reply = MAX_REPLY.to_string();
    let server = Server::patient(&["--max-reply", &max_reply]);
    let name = |number: usize| match number {
        7 | 8 => "\u{1}".repeat(100), // 600 bytes as JSON: more than an answer
        _ => "n".repeat(number * 5),
    };
    let people: Vec<_> = (1..20).map(|number| server.introduce("c", &name(number))).collect();
    server.goodbye(&people[4]);
    let there: Vec<u64> = (1..20).filter(|number| *number != 5).collect();
    let reader = server.park(&[("channel", "c")]);
    let mut socket = server.socket(&[("channel", "other")]);
    let mut page = |after: u64| {
        let params = [("channel", "c"), ("from", &*after.to_string())];
        let text = server.get("/members", &params).ok().text().to_owned();
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(socket.call(&json!({"call": "members", "channel": "c", "from": after})), value);
        (text, value)
    };
    let mut pages = |mut after: u64| {
        let mut all = Vec::new();
        loop {
            let (text, value) = page(after);
            let members = value["members"].as_array().expect("members").clone();
            let sizes = members.iter().map(|member| member.to_string().len());
            assert!(members.len() == 1 || sizes.sum::<usize>() <= MAX_REPLY, "{text}");
            after = members.last().map_or(after, |last| last["connection"].as_u64().expect("one"));
            all.push(members);
            if value.get("more").is_none() {
                assert!(text.ends_with(r#"],"readers":1}"#), "{text}");
                return all;
            }
            assert!(text.ends_with(r#"],"readers":1,"more":true}"#), "{text}");
        }
    };
    let numbers = |pages: &[Vec<Value>]| {
        let numbers = pages.iter().flatten().map(|member| member["connection"].as_u64());
        numbers.collect::<Option<Vec<_>>>().expect("numbers")
    };
    let all = pages(0);
    assert_eq!(numbers(&all), there);
    for (number, member) in there.iter().zip(all.iter().flatten()) {
        assert_eq!(member["message"], name(*number as usize));
    }
    // The first member of the next part would not have fitted.
    for two in all.windows(2) {
        let sizes = two[0].iter().chain(two[1].first()).map(|member| member.to_string().len());
        assert!(sizes.sum::<usize>() > MAX_REPLY, "{two:?}");
    }
    assert_eq!(numbers(&pages(18)), [19]);
    // The number need not be that of a member.
    assert_eq!(numbers(&pages(5)), there[4..]);
    for after in [19, 20, (1 << 53) - 1] {
        assert_eq!(page(after).0, r#"{"members":[],"readers":1}"#);
    }
    drop(reader);
}

#[test]
fn failed_calls_change_nothing() {
    let server = Server::start();
    let me = server.introduce("other", "Josh");
    let long = "x".repeat(65_537);
    let write = [("channel", "c"), ("message", "m")];
    let failing = [
        ("/write", vec![("channel", "c")]),
        ("/write", vec![("message", "m")]),
        ("/write", [&write[..], &[("auth", "x")]].concat()),
        ("/write", vec![("channel", "c"), ("message", &long)]),
        ("/introduce", vec![("channel", "c")]),
        ("/introduce", vec![("channel", "c"), ("message", &long)]),
        ("/introduce", vec![("channel", "~c"), ("message", "m")]),
        ("/goodbye", me.and(&[("channel", "~c")])),
        ("/goodbye", me.and(&[("message", &long)])),
        ("/introduce", [&write[..], &[("connection", &me.connection), ("auth", "wrong")]].concat()),
    ];
    for (path, params) in failing {
        let answer = server.client().post_form(path, &params);
        assert_ne!(answer.status, 200, "{path} {params:?}");
    }
    assert_eq!(server.introduce("c", "next").number, 2);
    assert_eq!(server.read("c", "1").texts(), ["next"]);
    assert_eq!(server.read("other", "1").texts(), ["Josh"]);
}

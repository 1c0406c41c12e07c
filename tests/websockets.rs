//! `WebSockets`, sentence by sentence of the contract. Frames are written by hand, so that they can
//! be wrong; the last tests use an independent client, tungstenite.

mod common;

use std::iter;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{
    CLOSE, Client, Frame, GUARD, HANDSHAKE, Identity, PING, PONG, Server, Socket, TEXT, handshake,
    masked, request, until,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A frame that writes `text` to a channel.
fn write(channel: &str, text: &str) -> Vec<u8> {
    masked(TEXT, json!({"call": "write", "channel": channel, "message": text}).to_string())
}

#[test]
fn a_handshake_is_answered_as_rfc_6455_says() {
    let server = Server::patient(&[]);
    let [upgrade, connection, key, version] = HANDSHAKE;
    let variants: [&[(&str, &str)]; 5] = [
        &[upgrade, connection],
        &[("upgrade", "WebSocket"), ("connection", "keep-alive, upgrade")],
        &[("Upgrade", "h2c, websocket"), connection],
        // Offered subprotocols and extensions are not accepted, and so not named.
        &[
            upgrade,
            connection,
            ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
            ("Sec-WebSocket-Protocol", "chat, superchat"),
        ],
        &[upgrade, connection, ("Accept", "text/event-stream"), ("Last-Event-ID", "e:1")],
    ];
    for headers in variants {
        let mut client = server.client();
        let headers = [headers, &[key, version]].concat();
        client.send(request("GET", "/read?channel=c", &headers, None));
        let head = client.head();
        assert_eq!(head.status, 101, "{headers:?}: {head:?}");
        for (name, expected) in [("upgrade", "websocket"), ("connection", "upgrade")] {
            let value = head.header(name);
            assert!(value.is_some_and(|value| value.eq_ignore_ascii_case(expected)), "{head:?}");
        }
        assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for name in
            ["sec-websocket-extensions", "sec-websocket-protocol", "content-length", "content-type"]
        {
            assert_eq!(head.header(name), None, "{name}");
        }
        // Nothing to send: no first frame.
        assert!(!client.has_something());
    }
}

#[test]
fn an_invalid_handshake_is_refused_and_closed() {
    let server = Server::patient(&[]);
    let [upgrade, connection, key, version] = HANDSHAKE;
    let named = |value| ("Sec-WebSocket-Key", value);
    let cases: [&[(&str, &str)]; 12] = [
        &[upgrade, key, version],
        &[upgrade, ("Connection", "keep-alive"), key, version],
        &[upgrade, connection, version],
        &[upgrade, connection, key, key, version],
        &[upgrade, connection, named(""), version],
        &[upgrade, connection, named("c2hvcnQ="), version],
        &[upgrade, connection, named("dGhlIHNhbXBsZSBub25jZQ"), version],
        &[upgrade, connection, named("this is no key of any sort"), version],
        &[upgrade, connection, key],
        &[upgrade, connection, key, ("Sec-WebSocket-Version", "8")],
        &[upgrade, connection, key, version, version],
        &[upgrade, connection, key, ("Sec-WebSocket-Version", "13, 8")],
    ];
    for headers in cases {
        let mut client = server.client();
        client.send(request("GET", "/read?channel=c", headers, None));
        // Frames can follow at once: they are not parsed as requests.
        client.try_send(write("c", "ghost"));
        let answer = client.response();
        answer.fails_with(400, "bad_request");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        assert!(answer.says_close(), "{headers:?}");
        client.is_closed();
    }
    assert_eq!(server.read("c", "1").next_id(), 1);
}

#[test]
fn an_upgrade_header_on_another_call_is_ignored() {
    let server = Server::patient(&[]);
    server.write("c", "m");
    let read = "/read?channel=c&from_id=1";
    let mut client = server.client();
    assert_eq!(client.call(request("POST", read, &HANDSHAKE, Some(b""))).ok().ids(), [1]);
    assert_eq!(
        client.call(request("GET", "/health", &HANDSHAKE, None)).ok().text(),
        r#"{"status":"ok"}"#
    );
    let [_, connection, key, version] = HANDSHAKE;
    assert_eq!(
        client
            .call(request("GET", read, &[("Upgrade", "h2c"), connection, key, version], None))
            .ok()
            .ids(),
        [1]
    );
    let old = String::from_utf8(request("GET", read, &HANDSHAKE, None))
        .expect("ASCII")
        .replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(client.call(old).ok().ids(), [1]);
}

#[test]
fn frames_have_the_json_of_read_responses() {
    let server = Server::patient(&["--history", "3"]);
    server.introduce("c", "Josh");
    for text in ["two", "three", "four", "five"] {
        server.write("c", text);
    }
    server.write("d", "m");
    let reads: [&[(&str, &str)]; 7] = [
        &[("channel", "c"), ("from_id", "0")],
        &[("channel", "c"), ("from_id", "1")],
        &[("channel", "c"), ("from_id", "5")],
        &[("channel", "c"), ("from_id", "-2")],
        &[("channel", "c"), ("from_id", "99")],
        &[("channel", "c"), ("from_id", "2"), ("epoch", "elsewhere")],
        &[
            ("channel", "d"),
            ("channel", "none"),
            ("channel", "c"),
            ("from_id", "1"),
            ("from_id", "0"),
            ("from_id", "1"),
        ],
    ];
    for params in reads {
        let expected = server.get("/read", &[params, &[("timeout", "0")]].concat()).ok();
        assert_eq!(server.socket(params).text(), expected.text(), "{params:?}");
    }
    let quiet: [&[(&str, &str)]; 4] = [
        &[("channel", "c")],
        &[("channel", "c"), ("from_id", "7")],
        &[("channel", "none"), ("from_id", "0")],
        &[("channel", "nowhere"), ("from_id", "-5")],
    ];
    for params in quiet {
        let mut socket = server.socket(params);
        assert!(!socket.client.has_something(), "{params:?}");
        let channel = params[0].1;
        let id = server.write(channel, "new");
        let expected = server.read(channel, &id.to_string());
        assert_eq!(socket.text(), expected.text(), "{params:?}");
    }
}

#[test]
fn every_call_is_answered_as_over_http_with_its_ref_first() {
    let server = Server::patient(&[]);
    let mut socket = server.socket(&[("channel", "elsewhere")]);
    let mut ask = |call: Value| {
        socket.ask(&call);
        socket.text()
    };
    assert_eq!(
        ask(json!({"call": "write", "channel": "c", "message": "m", "ref": 1})),
        r#"{"ref":1,"id":1}"#
    );
    // A frame without `ref` is answered too.
    assert_eq!(ask(json!({"call": "write", "channel": "c", "message": ""})), r#"{"id":2}"#);
    let introduced =
        ask(json!({"call": "introduce", "channel": "c", "message": "Josh", "ref": "r"}));
    assert!(introduced.starts_with(r#"{"ref":"r","connection":1,"auth":""#), "{introduced}");
    assert!(introduced.ends_with(r#"","id":3,"timeout":3600}"#), "{introduced}");
    let introduced: Value = serde_json::from_str(&introduced).expect("JSON");
    let auth = introduced["auth"].as_str().expect("a secret").to_owned();
    let members = ask(json!({"call": "members", "channel": "c", "ref": 2}));
    assert_eq!(
        members,
        format!("{{\"ref\":2,{}", &server.get("/members", &[("channel", "c")]).text()[1..])
    );
    // `connection` can be a number or a string.
    let wrote = ask(json!({
        "call": "write", "channel": "c", "message": "x",
        "connection": 1, "auth": auth, "ref": 3,
    }));
    assert_eq!(wrote, r#"{"ref":3,"id":4}"#);
    assert_eq!(server.read("c", "4").messages()[0]["from"], 1);
    let left = ask(
        json!({"call": "goodbye", "connection": "1", "auth": auth, "message": "bye", "ref": 4}),
    );
    assert_eq!(left, r#"{"ref":4,"ok":true}"#);
    assert_eq!(server.read("c", "5").messages()[0]["message"], "bye");
    let pair = ask(json!({"call": "create", "ref": 5}));
    assert!(
        pair.starts_with(r#"{"ref":5,"read":"~r"#) && pair.contains(r#"","write":"~w"#),
        "{pair}"
    );
    let read = ask(json!({"call": "read", "channel": "c", "from_id": -1, "ref": 6}));
    assert_eq!(read, format!("{{\"ref\":6,{}", &server.read("c", "-1").text()[1..]));
}

#[test]
fn a_ref_is_any_number_or_string() {
    let server = Server::patient(&[]);
    let mut socket = server.socket(&[("channel", "c")]);
    let long = format!("\"{}\"", "é".repeat(10_000));
    let refs = [
        "0",
        "-1",
        "1.5",
        "9007199254740993",
        "18446744073709551615",
        "\"\"",
        "\"a\\\"\\\\\\n\"",
        "\"😀\"",
        &long,
    ];
    for reference in refs {
        socket.send(TEXT, format!(r#"{{"call":"create","ref":{reference}}}"#));
        let answer = socket.text();
        assert!(
            answer.starts_with(&format!("{{\"ref\":{reference},\"read\":")),
            "{reference}: {answer}"
        );
        // Errors have the `ref` as well.
        socket.send(TEXT, format!(r#"{{"ref":{reference},"call":"write"}}"#));
        let answer = socket.text();
        assert!(
            answer.starts_with(&format!("{{\"ref\":{reference},\"error\":\"missing_parameter\"")),
            "{answer}"
        );
    }
    // The same number in another spelling.
    for (reference, value) in [("1e2", 100.0), ("-0.0", 0.0), ("\"\\u0041\"", f64::NAN)] {
        socket.send(TEXT, format!(r#"{{"call":"create","ref":{reference}}}"#));
        let answer = socket.json();
        assert!(answer["ref"].as_f64() == Some(value) || answer["ref"] == "A", "{answer}");
    }
    for reference in ["null", "true", "[1]", "{}"] {
        socket.send(TEXT, format!(r#"{{"call":"create","ref":{reference}}}"#));
        let answer = socket.text();
        assert!(answer.starts_with(r#"{"error":"bad_parameter","#), "{answer}");
    }
}

#[test]
fn half_of_a_surrogate_pair_is_an_error_with_the_ref_of_its_frame() {
    let server = Server::patient(&[]);
    let mut socket = server.socket(&[("channel", "c")]);
    let frames = [
        r#"{"call":"write","channel":"c","message":"\ud800","ref":1}"#,
        r#"{"ref":1,"call":"write","channel":"\uDFFF","message":"m"}"#,
        r#"{"ref":1,"call":"write","channel":"c","message":"\\\ud83d\ud83d\ude00"}"#,
        r#"{"ref":1,"\ud800":0,"call":"nonsense"}"#,
    ];
    for frame in frames {
        socket.send(TEXT, frame);
        let answer = socket.text();
        assert!(answer.starts_with(r#"{"ref":1,"error":"bad_request","#), "{frame}: {answer}");
        assert!(answer.contains("surrogate"), "{frame}: {answer}");
    }
    // A value that no call knows is skipped.
    socket.send(TEXT, r#"{"ref":1,"call":"members","channel":"d","unknown":["\udc00\ud800"]}"#);
    assert_eq!(socket.text(), r#"{"ref":1,"members":[],"readers":0}"#);
    // Without half a pair, the fault is another one.
    socket.send(TEXT, r#"{"ref":1,"call":"write","message":"\ud800""#);
    let answer = socket.text();
    assert!(answer.starts_with(r#"{"error":"bad_request","detail":"a frame must be"#), "{answer}");
    let emoji = r#"{"ref":"\ud83d\ude00","call":"write","channel":"d","message":"\ud83d\ude00"}"#;
    socket.send(TEXT, emoji);
    assert_eq!(socket.text(), "{\"ref\":\"\u{1f600}\",\"id\":1}");
    assert_eq!(server.read("d", "1").texts(), ["\u{1f600}"]);
    assert_eq!(server.read("c", "1").next_id(), 1);
}

#[test]
fn a_frame_without_a_valid_call_gets_an_error() {
    let server = Server::patient(&["--max-message", "10"]);
    let me = server.introduce("c", "Josh");
    let mut socket = server.socket(&[("channel", "c")]);
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let cases = [
        ("", "bad_request"),
        (" ", "bad_request"),
        ("{", "bad_request"),
        ("[]", "bad_request"),
        ("null", "bad_request"),
        ("\"write\"", "bad_request"),
        ("{}", "bad_request"),
        (r#"{"call":5}"#, "bad_request"),
        (r#"{"call":"create"} x"#, "bad_request"),
        (r#"{"call":"write","channel":"c","message":"\ud800"}"#, "bad_request"),
        (&*deep, "bad_request"),
        (r#"{"call":"health"}"#, "bad_parameter"),
        (r#"{"call":"Write"}"#, "bad_parameter"),
        (r#"{"call":""}"#, "bad_parameter"),
        (r#"{"call":"write","channel":"c"}"#, "missing_parameter"),
        (r#"{"call":"write","channel":5,"message":"m"}"#, "bad_parameter"),
        (r#"{"call":"write","channel":["c"],"message":"m"}"#, "bad_parameter"),
        (r#"{"call":"write","channel":"c","message":null}"#, "bad_parameter"),
        (r#"{"call":"write","channel":"c","message":"longer than ten"}"#, "message_too_large"),
        (r#"{"call":"write","channel":"","message":"m"}"#, "bad_channel"),
        (r#"{"call":"write","channel":"a\u0000b","message":"m"}"#, "bad_channel"),
        (r#"{"call":"write","channel":"c","message":"m","connection":1}"#, "bad_parameter"),
        (r#"{"call":"write","channel":"c","message":"m","connection":1,"auth":"x"}"#, "bad_auth"),
        (
            r#"{"call":"write","channel":"c","message":"m","connection":1.5,"auth":"x"}"#,
            "bad_parameter",
        ),
        (
            r#"{"call":"write","channel":"c","message":"m","connection":99,"auth":"x"}"#,
            "connection_ended",
        ),
        (r#"{"call":"goodbye"}"#, "missing_parameter"),
        (r#"{"call":"members"}"#, "missing_parameter"),
        (r#"{"call":"members","channel":"c","from":1.5}"#, "bad_parameter"),
        (r#"{"call":"members","channel":"c","from":[1]}"#, "bad_parameter"),
        (r#"{"call":"read"}"#, "missing_parameter"),
        (r#"{"call":"read","channel":[]}"#, "missing_parameter"),
    ];
    for (text, error) in cases {
        socket.send(TEXT, text);
        let answer = socket.json();
        assert_eq!(answer["error"], error, "{text:.80}: {answer}");
        assert_eq!(answer.as_object().map(serde_json::Map::len), Some(3), "{answer}");
    }
    // None of that changed anything, and the socket still works.
    let me = me.and(&[("channel", "c"), ("message", "m")]);
    server.get("/write", &me).ok();
    assert_eq!(socket.texts(), ["m"]);
    assert_eq!(server.read("c", "1").next_id(), 3);
}

#[test]
fn unknown_keys_of_a_call_are_ignored() {
    let server = Server::patient(&[]);
    let mut socket = server.socket(&[("channel", "elsewhere")]);
    let call = json!({
        "call": "write", "channel": "c", "message": "m",
        "_": {}, "timeout": "x", "callback": [], "ref": 1,
    });
    assert_eq!(socket.call(&call), json!({"ref": 1, "id": 1}));
}

#[test]
fn a_read_frame_replaces_the_subscriptions() {
    let server = Server::patient(&[]);
    for channel in ["a", "b", "c"] {
        server.write(channel, "old");
    }
    let mut socket = server.socket(&[("channel", "a")]);
    let answer = socket.call(&json!({"call": "read", "channel": "b", "from_id": 1, "ref": 1}));
    assert_eq!((&answer["ref"], &answer["messages"][0]["message"]), (&json!(1), &json!("old")));
    assert_eq!((server.readers("a"), server.readers("b")), (0, 1));
    server.write("a", "unheard");
    server.write("b", "new");
    assert_eq!(socket.texts(), ["new"]);

    let call =
        json!({"call": "read", "channel": ["a", "none", "b"], "from_id": ["-1", 0, 3], "ref": "x"});
    let answer = socket.call(&call);
    assert_eq!(answer["channels"][0]["messages"][0]["message"], "unheard");
    assert_eq!(answer["channels"][2], json!({"channel": "b", "messages": [], "next_id": 3}));
    server.write("none", "news");
    let frame = socket.json();
    assert_eq!(frame["channels"][1]["messages"][0]["message"], "news");
    assert_eq!(frame["channels"].as_array().map(Vec::len), Some(3));

    // An array of one channel is one channel. Without `from_id` only new messages come, but the
    // call is answered.
    let answer = socket.call(&json!({"call": "read", "channel": ["c"]}));
    assert_eq!((&answer["messages"], &answer["next_id"]), (&json!([]), &json!(2)));
    let answer =
        socket.call(&json!({"call": "read", "channel": "c", "from_id": 1, "epoch": "elsewhere"}));
    assert_eq!(answer["reset"], true);
    let answer = socket.call(&json!({"call": "read", "channel": "c", "from_id": 9}));
    assert_eq!(answer["reset"], true);
    assert_eq!((server.readers("a"), server.readers("c")), (0, 1));
}

#[test]
fn a_failed_read_frame_changes_nothing() {
    let server = Server::patient(&["--max-channels", "2"]);
    let me = server.introduce("a", "Josh");
    let mut socket = server.socket(&me.and(&[("channel", "a"), ("channel", "b")]));
    let many: Vec<String> = (0..33).map(|number| number.to_string()).collect();
    let failing = [
        (json!({"call": "read"}), "missing_parameter"),
        (json!({"call": "read", "channel": "~"}), "bad_channel"),
        (json!({"call": "read", "channel": ["a", "a"]}), "bad_parameter"),
        (json!({"call": "read", "channel": ["a", "b"], "from_id": 1}), "bad_parameter"),
        (json!({"call": "read", "channel": "a", "from_id": "x"}), "bad_parameter"),
        (json!({"call": "read", "channel": "a", "from_id": 1.5}), "bad_parameter"),
        (json!({"call": "read", "channel": "a", "from_id": null}), "bad_parameter"),
        (json!({"call": "read", "channel": "a", "grace": "x"}), "bad_parameter"),
        (json!({"call": "read", "channel": "a", "grace": 1.5}), "bad_parameter"),
        (json!({"call": "read", "channel": "a", "grace": null}), "bad_parameter"),
        (json!({"call": "read", "channel": [["a"]]}), "bad_parameter"),
        (json!({"call": "read", "channel": many}), "bad_parameter"),
        (json!({"call": "read", "channel": "one too many"}), "over_capacity"),
        (json!({"call": "read", "channel": "a", "connection": 1, "auth": "wrong"}), "bad_auth"),
    ];
    for (call, error) in failing {
        assert_eq!(socket.call(&call)["error"], error, "{call}");
    }
    assert_eq!((server.readers("a"), server.readers("b")), (1, 1));
    server.write("b", "m");
    assert_eq!(socket.json()["channels"][1]["messages"][0]["message"], "m");
    drop(socket);
    assert_eq!(server.next_events("a", 2), ["goodbye closed"]);
}

#[test]
fn the_connection_of_the_handshake_belongs_to_the_socket() {
    let server = Server::with(&["--connection-timeout", "400ms"]);
    let own = server.introduce("c", "Josh");
    let mut socket = server.socket(&own.and(&[("channel", "c")]));
    // A new read without credentials leaves that as it is.
    let call = json!({"call": "read", "channel": ["c", "d"], "ref": 1});
    assert_eq!(socket.call(&call)["ref"], 1);
    let call = json!({"call": "read", "channel": "c", "ref": 2});
    assert_eq!(socket.call(&call)["ref"], 2);
    // A call without credentials has no author.
    assert_eq!(
        socket.call(&json!({"call": "write", "channel": "c", "message": "m", "ref": 3}))["id"],
        2
    );
    assert_eq!(socket.texts(), ["m"]);
    assert_eq!(server.read("c", "2").messages()[0].get("from"), None);
    let other = server.introduce("e", "Ann");
    assert_eq!(server.next_events("e", other.id + 1), ["goodbye timeout"]);
    assert_eq!(server.members("c")["members"][0]["connection"], own.number);
    drop(socket);
    assert_eq!(server.next_events("c", 3), ["goodbye closed"]);
}

/// So a page introduces itself over the socket, and no secret stands in an address.
#[test]
fn a_read_frame_binds_its_connection_to_the_socket() {
    let server = Server::with(&["--connection-timeout", "400ms"]);
    let mut socket = server.socket(&[("channel", "c")]);
    let call = json!({"call": "introduce", "channel": "c", "message": "Josh", "ref": 1});
    let mut me = socket.call(&call);
    if me.get("ref").is_none() {
        // The introduction itself came first.
        me = socket.json();
    } else {
        assert_eq!(socket.texts(), ["Josh"]);
    }
    let (number, auth) = (&me["connection"], &me["auth"]);
    let read = json!({"call": "read", "channel": "c", "ref": 2, "connection": number,
                      "auth": auth, "from_id": 2});
    assert_eq!(socket.call(&read)["ref"], 2);
    let other = server.introduce("e", "Ann");
    assert_eq!(server.next_events("e", other.id + 1), ["goodbye timeout"]);
    assert_eq!(server.members("c")["members"][0]["connection"], *number, "the socket keeps it");
    let read = json!({"call": "read", "channel": ["c", "d"], "ref": 3});
    assert_eq!(socket.call(&read)["ref"], 3);
    drop(socket);
    assert_eq!(server.next_events("c", 2), ["goodbye closed"], "the binding stays");
}

#[test]
fn the_newest_read_frame_with_a_connection_counts() {
    let server = Server::with(&["--connection-timeout", "400ms"]);
    let first = server.introduce("c", "Josh");
    let second = server.introduce("d", "Ann");
    let mut socket = server.socket(&first.and(&[("channel", "c")]));
    let bind = |number: u64, auth: &str, reference: u64| {
        json!({"call": "read", "channel": "c", "ref": reference, "connection": number,
               "auth": auth})
    };
    // One that fails changes nothing.
    assert_eq!(socket.call(&bind(second.number, "wrong", 1))["error"], "bad_auth");
    assert_eq!(socket.call(&bind(999, &first.auth, 2))["error"], "connection_ended");
    assert_eq!(socket.call(&bind(second.number, &second.auth, 3))["ref"], 3);
    // The first one is kept by nothing now, and was not closed.
    assert_eq!(server.next_events("c", 2), ["goodbye timeout"]);
    assert_eq!(socket.json()["messages"][0]["reason"], "timeout");
    assert_eq!(server.members("d")["members"][0]["connection"], second.number);
    let call = json!({"call": "goodbye", "connection": second.number, "auth": &second.auth});
    socket.ask(&call);
    assert_eq!(server.next_events("d", 2), ["goodbye left"]);
    // The end of its connection ends the socket.
    let mut texts = Vec::new();
    while let Some(frame) = socket.maybe_frame().filter(|frame| frame.first != common::CLOSE) {
        texts.push(String::from_utf8(frame.payload).unwrap());
    }
    assert!(texts.contains(&r#"{"ok":true}"#.to_owned()), "{texts:?}");
}

#[test]
fn each_protocol_violation_has_its_close_code() {
    // The largest frame is that of a message in which every byte is escaped, plus 32 KiB.
    let server = Server::patient(&["--max-message", "100"]);
    let largest = 6 * 100 + 32 * 1024;
    let long = vec![b' '; largest + 1];
    let one = masked(0x01, &long[..largest]);
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("not masked", vec![0x81, 2, b'{', b'}'], 1002),
        ("RSV1", masked(0xc1, "{}"), 1002),
        ("RSV2", masked(0xa1, "{}"), 1002),
        ("RSV3", masked(0x91, "{}"), 1002),
        ("RSV1 of a ping", masked(0xc9, ""), 1002),
        ("opcode 3", masked(0x83, "{}"), 1002),
        ("opcode 7", masked(0x87, ""), 1002),
        ("opcode 11", masked(0x8b, ""), 1002),
        ("opcode 15", masked(0x8f, ""), 1002),
        ("a ping of 126 bytes", masked(PING, [0; 126]), 1002),
        ("a close of 126 bytes", masked(CLOSE, [0x03; 126]), 1002),
        ("a ping in parts", masked(0x09, ""), 1002),
        ("a continuation of nothing", masked(0x80, ""), 1002),
        ("a continuation of nothing, to go on", masked(0x00, ""), 1002),
        ("a text within a text", [masked(0x01, "{"), masked(TEXT, "}")].concat(), 1002),
        ("a length of 16 bits for 5", vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0], 1002),
        ("a length of 64 bits for 5", vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0], 1002),
        ("a length of 2^63", vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1002),
        ("binary", masked(0x82, "{}"), 1003),
        ("binary in parts", masked(0x02, "{}"), 1003),
        ("no UTF-8", masked(TEXT, b"\"\xff\""), 1007),
        ("a surrogate", masked(TEXT, b"\"\xed\xa0\x80\""), 1007),
        ("an overlong slash", masked(TEXT, b"\"\xc0\xaf\""), 1007),
        ("beyond Unicode", masked(TEXT, b"\"\xf4\x90\x80\x80\""), 1007),
        ("half a character", masked(TEXT, b"\"\xe2\x82"), 1007),
        ("no UTF-8, in parts", [masked(0x01, b"\"\xe2"), masked(0x80, b"\xff\"")].concat(), 1007),
        ("larger than any call", masked(TEXT, &long), 1009),
        (
            "too large by its head alone",
            vec![0x81, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            1009,
        ),
        ("too large in parts", [one.clone(), masked(0x80, " ")].concat(), 1009),
        ("a close of 1 byte", masked(CLOSE, [3]), 1002),
        ("a close with 999", masked(CLOSE, 999_u16.to_be_bytes()), 1002),
        ("a close with 1005", masked(CLOSE, 1005_u16.to_be_bytes()), 1002),
        ("a close with 1006", masked(CLOSE, 1006_u16.to_be_bytes()), 1002),
        ("a close with 5000", masked(CLOSE, 5000_u16.to_be_bytes()), 1002),
        ("a close that is no UTF-8", masked(CLOSE, b"\x03\xe8\xff"), 1007),
        ("an empty close", masked(CLOSE, ""), 1000),
        ("a close with 1000", masked(CLOSE, 1000_u16.to_be_bytes()), 1000),
        ("a close with a reason", masked(CLOSE, b"\x03\xe9bye"), 1000),
        ("a close with 4999", masked(CLOSE, 4999_u16.to_be_bytes()), 1000),
    ];
    for (what, bytes, code) in cases {
        let mut socket = server.socket(&[("channel", "elsewhere")]);
        // Frames before it are executed, frames after it are not.
        socket.client.try_send(
            [write(what, "done"), bytes, write(what, "ghost"), masked(PING, "ghost")].concat(),
        );
        assert_eq!(socket.text(), r#"{"id":1}"#, "{what}");
        let frame = socket.frame();
        assert_eq!(frame, Frame { first: CLOSE, payload: code.to_be_bytes().to_vec() }, "{what}");
        socket.client.is_closed();
        assert_eq!(server.read(what, "1").texts(), ["done"], "{what}");
    }
    // A message of just the largest size is allowed, with a ping between its fragments.
    let mut socket = server.socket(&[("channel", "elsewhere")]);
    let (head, tail) = long[..largest].split_at(largest - 5);
    socket.client.send([masked(0x01, head), masked(PING, [7; 125]), masked(0x80, tail)].concat());
    assert_eq!(socket.frame(), Frame { first: PONG, payload: vec![7; 125] });
    assert_eq!(socket.json()["error"], "bad_request");
}

/// A sequence of frames in one message and in fragments, with the expected responses.
fn conversation() -> (Vec<u8>, Vec<Frame>) {
    let text = |text: &str| Frame { first: TEXT, payload: text.into() };
    let pong = |payload: &[u8]| Frame { first: PONG, payload: payload.into() };
    let bytes = [
        write("c", "one"),
        masked(PING, "first"),
        masked(0x01, r#"{"call":"write","channel":"c","#),
        masked(PING, "within"),
        masked(0x00, ""),
        // A fragment can end within a character.
        masked(0x00, b"\"message\":\"tw\xc3"),
        masked(PONG, "unasked"),
        masked(PING, ""),
        masked(0x80, b"\xb6\"}"),
        masked(0x01, ""),
        masked(0x80, r#"{"call":"write","channel":"c","message":"three","ref":3}"#),
        masked(TEXT, "not a call"),
        write("c", &"x".repeat(200)),
        write("c", &"y".repeat(65_536)),
    ];
    let answers = vec![
        text(r#"{"id":1}"#),
        pong(b"first"),
        pong(b"within"),
        pong(b""),
        text(r#"{"id":2}"#),
        text(r#"{"ref":3,"id":3}"#),
        text(concat!(
            r#"{"error":"bad_request","detail":"a frame must be a JSON object with a 'call'","#,
            r#""status":400}"#
        )),
        text(r#"{"id":4}"#),
        text(r#"{"id":5}"#),
    ];
    (bytes.concat(), answers)
}

/// Claims that these frames come, in this order. With a log, a Pong does not wait for calls.
#[track_caller]
fn assert_answers(socket: &mut Socket, answers: &[Frame], what: &str) {
    let got: Vec<_> = answers.iter().map(|_| socket.frame()).collect();
    let has_log = common::has_journal() || common::has_nodes();
    let is_early = |frame: &&Frame| has_log && frame.first == 0x80 | PONG;
    let in_order = |frames: &'_ [Frame]| -> Vec<String> {
        let (early, others): (Vec<_>, Vec<_>) = frames.iter().partition(is_early);
        early.into_iter().chain(others).map(|frame| format!("{frame:?}")).collect()
    };
    assert_eq!(in_order(&got), in_order(answers), "{what}");
}

#[test]
fn frames_are_parsed_in_any_fragmentation() {
    let (bytes, answers) = conversation();
    for piece in [1, 2, 7, 1000, bytes.len()] {
        let server = Server::patient(&[]);
        let mut socket = server.socket(&[("channel", "elsewhere")]);
        let (head, tail) = bytes.split_at(bytes.len().min(1500));
        head.chunks(piece).for_each(|piece| socket.client.send(piece));
        // The long tail would take long in single bytes.
        tail.chunks(piece.max(1000)).for_each(|piece| socket.client.send(piece));
        assert_answers(&mut socket, &answers, &format!("in pieces of {piece}"));
        assert_eq!(server.read("c", "1").texts()[..3], ["one", "tw\u{f6}", "three"]);
    }
}

#[test]
fn frames_can_follow_the_handshake_at_once() {
    let server = Server::patient(&[]);
    let (bytes, answers) = conversation();
    let before = request("GET", "/health", &[], None);
    let mut client = server.client();
    client.send([before, handshake(&[("channel", "elsewhere")], &[]), bytes].concat());
    client.response().ok();
    let mut socket = Socket::opened(client);
    assert_answers(&mut socket, &answers, "at once");
    // A close frame too.
    let mut client = server.client();
    client.send([handshake(&[("channel", "c")], &[]), masked(CLOSE, "")].concat());
    Socket::opened(client).ends_with(1000);
}

#[test]
fn many_frames_in_one_packet_are_answered_in_order() {
    let server = Server::with(&["--history", "5000"]);
    let mut socket = server.socket(&[("channel", "elsewhere")]);
    let call = |number| {
        masked(
            TEXT,
            format!(r#"{{"call":"write","channel":"c","message":"{number}","ref":{number}}}"#),
        )
    };
    let mut sender = socket.client.second_handle();
    let writing = std::thread::spawn(move || {
        let frames: Vec<u8> = (1..=5000).flat_map(call).collect();
        std::io::Write::write_all(&mut sender, &frames).expect("sending frames");
    });
    for number in 1..=5000 {
        assert_eq!(socket.text(), format!(r#"{{"ref":{number},"id":{number}}}"#));
    }
    writing.join().expect("the writer");
}

#[test]
fn frames_sent_before_a_fin_are_executed() {
    let server = Server::patient(&[]);
    for close in [Client::half_close, |_: &Client| {}] {
        let mut socket = server.socket(&[("channel", "elsewhere")]);
        let id = server.read("c", "0").next_id();
        socket.client.send([write("c", "last words"), write("c", "very last")].concat());
        close(&socket.client);
        drop(socket);
        until("both are there", || {
            server.read("c", &id.to_string()).texts() == ["last words", "very last"]
        });
    }
    // And it is answered to a peer that still reads.
    let mut socket = server.socket(&[("channel", "elsewhere")]);
    socket
        .client
        .send([masked(PING, "p"), masked(TEXT, r#"{"call":"members","channel":"x"}"#)].concat());
    socket.client.half_close();
    assert_eq!(socket.frame(), Frame { first: PONG, payload: b"p".into() });
    assert_eq!(socket.text(), r#"{"members":[],"readers":0}"#);
    socket.client.is_closed();
}

#[test]
fn an_unfinished_frame_times_out() {
    let halves: [(&str, Vec<u8>); 4] = [
        ("a byte", vec![TEXT]),
        ("half a head", masked(TEXT, [b' '; 300])[..3].to_vec()),
        ("half a frame", masked(TEXT, "{}")[..7].to_vec()),
        ("half a message", masked(0x01, "{")),
    ];
    let server = Server::patient(&["--request-timeout", "300ms"]);
    let start = Instant::now();
    let mut sockets = halves.map(|(what, half)| {
        let me = server.introduce("c", what);
        let mut socket = server.socket(&me.and(&[("channel", "busy")]));
        socket.client.send(half);
        socket
    });
    // A busy channel does not extend the deadline, nor does a ping between the fragments.
    let mut idle = server.socket(&[("channel", "busy")]);
    until("they are cut", || {
        server.write("busy", "m");
        sockets[3].client.try_send(masked(PING, ""));
        server.readers("busy") == 1
    });
    assert!(start.elapsed() >= Duration::from_millis(290), "too soon");
    assert!(start.elapsed() < GUARD / 2, "too late");
    let goodbyes = server.read("c", "5").events();
    assert_eq!(goodbyes, ["goodbye closed"; 4]);
    assert_eq!(idle.call(&json!({"call": "read", "channel": "d"}))["messages"][0]["message"], "m");
}

#[test]
fn continuous_frames_do_not_time_out() {
    let server = Server::with(&["--request-timeout", "1s", "--heartbeat", "1h"]);
    let mut socket = server.socket(&[("channel", "elsewhere")]);
    let frame = masked(TEXT, r#"{"call":"members","channel":"x"}"#);
    let start = Instant::now();
    // The server always has a part of a frame.
    socket.client.send(&frame[..10]);
    while start.elapsed() < Duration::from_secs(3) {
        socket.client.send([&frame[10..], &frame[..10]].concat());
        assert_eq!(socket.text(), r#"{"members":[],"readers":0}"#);
    }
}

#[test]
fn a_websocket_that_answers_pings_stays_open() {
    let server = Server::patient(&["--heartbeat", "400ms"]);
    let me = server.introduce("c", "Josh");
    let mut alive = server.socket(&me.and(&[("channel", "c")]));
    let dead = server.introduce("c", "Ann");
    let mut silent = server.socket(&dead.and(&[("channel", "elsewhere")]));
    // The one answers while it waits; the other gets two pings and is closed.
    let goodbyes: Vec<Value> = (0..2).map(|_| alive.json()["messages"][0].clone()).collect();
    assert_eq!(
        (&goodbyes[0]["message"], &goodbyes[1]["reason"]),
        (&json!("Ann"), &json!("closed"))
    );
    assert!(alive.pings >= 2, "{}", alive.pings);
    for _ in 0..2 {
        assert_eq!(silent.frame(), Frame { first: PING, payload: Vec::new() });
    }
    silent.client.is_closed();
    assert_eq!(server.members("c")["members"][0]["connection"], me.number);
}

#[test]
fn a_silent_websocket_is_closed_in_a_busy_channel_too() {
    let server = Server::with(&["--heartbeat", "300ms", "--connection-timeout", "1h"]);
    let me = server.introduce("c", "Josh");
    let mut silent = server.socket(&me.and(&[("channel", "busy")]));
    until("it is closed", || {
        server.write("busy", "m");
        server.readers("busy") == 0
    });
    let frames = iter::from_fn(|| silent.maybe_frame());
    assert_eq!(frames.filter(|frame| frame.first == PING).count(), 2);
    assert_eq!(server.next_events("c", 2), ["goodbye closed"]);
}

#[test]
fn any_frame_counts_as_a_pong() {
    let server = Server::with(&["--heartbeat", "400ms"]);
    let mut socket = server.socket(&[("channel", "c")]);
    let ping = Frame { first: PING, payload: Vec::new() };
    for round in 0..6 {
        assert_eq!(socket.frame(), ping, "{round}");
        socket.send(TEXT, r#"{"call":"members","channel":"x"}"#);
        // On a slow machine the next one may be in flight already.
        let answer =
            iter::repeat_with(|| socket.frame()).find(|frame| *frame != ping).expect("an answer");
        assert_eq!(answer.first, TEXT);
    }
}

#[test]
fn with_an_origin_list_only_listed_origins_open_a_websocket() {
    let server = Server::with(&[
        "--allow-origin",
        "https://a.example",
        "--allow-origin",
        "http://b.example:8080",
    ]);
    let cases: [(&[(&str, &str)], u16); 9] = [
        (&[("Origin", "https://a.example")], 101),
        (&[("Origin", "http://b.example:8080")], 101),
        (&[("Origin", "https://c.example")], 403),
        (&[("Origin", "http://a.example")], 403),
        (&[("Origin", "null")], 403),
        (&[("Origin", "https://a.example.evil")], 403),
        (&[("Sec-Fetch-Site", "cross-site")], 403),
        (&[("Sec-Fetch-Site", "same-origin")], 101),
        // Not a browser.
        (&[], 101),
    ];
    for (headers, status) in cases {
        let mut client = server.client();
        client.send(handshake(&[("channel", "c")], headers));
        assert_eq!(client.head().status, status, "{headers:?}");
    }
    let open = Server::start();
    let mut client = open.client();
    client.send(handshake(&[("channel", "c")], &[("Origin", "https://anywhere.example")]));
    Socket::opened(client);
}

#[test]
fn a_websocket_writes_and_reads_private_pairs() {
    let server = Server::patient(&[]);
    let mut socket = server.socket(&[("channel", "lobby")]);
    let pair = socket.call(&json!({"call": "create"}));
    let follow = socket.call(&json!({"call": "read", "channel": pair["read"]}));
    assert_eq!(follow["messages"], json!([]));
    assert_eq!(
        socket.call(&json!({"call": "write", "channel": pair["write"], "message": "psst"}))["id"],
        1
    );
    assert_eq!(socket.texts(), ["psst"]);
    for (call, half, error) in
        [("read", "write", "not_readable"), ("write", "read", "not_writable")]
    {
        let call = json!({"call": call, "channel": pair[half], "message": "m"});
        assert_eq!(socket.call(&call)["error"], error);
    }
}

/// Opens a blocking tungstenite connection to the server.
fn independent(server: &Server, query: &str) -> tungstenite::WebSocket<TcpStream> {
    let stream = TcpStream::connect(server.address()).expect("connecting");
    stream.set_read_timeout(Some(GUARD)).expect("a time-out");
    let url = format!("ws://{}/read?{query}", server.address());
    let (socket, answer) = tungstenite::client(url, stream).expect("a handshake that it likes");
    assert_eq!(answer.status(), 101);
    socket
}

#[test]
fn an_independent_client_can_communicate() {
    use tungstenite::Message;

    // A machine under load needs a while for a mebibyte, and answers no pings meanwhile.
    let server = Server::patient(&["--heartbeat", "1s", "--max-message", "1m"]);
    let me: Identity = server.introduce("c", "Josh");
    let query = format!("channel=c&from_id=2&connection={}&auth={}", me.number, me.auth);
    let mut socket = independent(&server, &query);
    let text = |message: Message| -> Value {
        serde_json::from_str(message.to_text().expect("a text")).expect("JSON")
    };
    let next = |socket: &mut tungstenite::WebSocket<TcpStream>| loop {
        match socket.read().expect("a message") {
            Message::Ping(_) => {}
            message => return message,
        }
    };
    // Lengths around each form of a frame's length field.
    for (round, length) in [0, 1, 125, 126, 60_000, 65_535, 65_536, 1 << 20].into_iter().enumerate()
    {
        let message = "z".repeat(length);
        let call = json!({"call": "write", "channel": "c", "message": message, "ref": round});
        socket.send(Message::text(call.to_string())).expect("sending");
        assert_eq!(text(next(&mut socket)), json!({"ref": round, "id": round + 2}));
        assert_eq!(text(next(&mut socket))["messages"][0]["message"], *message);
    }
    socket.send(Message::Ping("are you there?".into())).expect("sending");
    assert_eq!(next(&mut socket), Message::Pong("are you there?".into()));
    // The client answers pings by itself while it reads: two unanswered ones would close it.
    for _ in 0..4 {
        assert!(matches!(socket.read(), Ok(Message::Ping(_))));
    }
    socket.close(None).expect("saying farewell");
    let farewell = next(&mut socket);
    assert!(matches!(farewell, Message::Close(_)), "{farewell:?}");
    assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
    assert_eq!(server.next_events("c", 10), ["goodbye closed"]);
}

#[test]
fn an_independent_client_gets_the_close_code() {
    use tungstenite::Message;
    use tungstenite::protocol::frame::coding::CloseCode;

    let mut server = Server::patient(&[]);
    let mut binary = independent(&server, "channel=c");
    binary.send(Message::binary(vec![1, 2, 3])).expect("sending");
    let code = |message: Message| match message {
        Message::Close(Some(frame)) => frame.code,
        other => panic!("no farewell: {other:?}"),
    };
    assert_eq!(code(binary.read().expect("a farewell")), CloseCode::Unsupported);
    let mut stays = independent(&server, "channel=c");
    server.wait_for_readers("c", 1);
    server.signal(Signal::TERM);
    assert_eq!(code(stays.read().expect("a farewell")), CloseCode::Away);
    server.wait();
}

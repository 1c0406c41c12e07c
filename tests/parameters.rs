//! Values of parameters: their limits, their decoding, and the errors for invalid ones.

mod common;

use common::{Client, Identity, Params, Response, Server, request};
use serde_json::json;

const FORM: &str = "application/x-www-form-urlencoded";

/// Sends a query without escaping anything.
#[track_caller]
fn raw(client: &mut Client, path: &str, query: &str) -> Response {
    client.call(request("GET", &format!("{path}?{query}"), &[], None))
}

#[test]
fn a_channel_is_1_to_128_bytes_without_control_characters() {
    let server = Server::start();
    let mut client = server.client();
    let long = ["x".repeat(128), "ü".repeat(64), "😀".repeat(32)];
    let good = [
        " ",
        "a",
        "A",
        "0",
        "\"",
        "a~",
        "/?&=#%",
        "\u{80}",
        "\u{9f}",
        "\u{feff}",
        "\u{2028}",
        "日本語",
        "null",
        "..",
        &long[0],
        &long[1],
        &long[2],
    ];
    for channel in good {
        let params = [("channel", channel), ("message", "m")];
        let response = client.get("/write", &params).ok();
        assert_eq!(response.text(), r#"{"id":1}"#, "{channel:?}");
    }
    let long = ["x".repeat(129), format!("{}x", "ü".repeat(64))];
    let bad =
        ["", "\0", "a\0", "a\tb", "a\nb", "\r", "\u{1f}", "\u{7f}", "a\u{7f}", &long[0], &long[1]];
    for channel in bad {
        is_no_channel(&mut client, channel);
    }
}

/// Asserts that no call accepts this channel.
#[track_caller]
fn is_no_channel(client: &mut Client, channel: &str) {
    for path in ["/write", "/read", "/introduce", "/members"] {
        let params = [("channel", channel), ("message", "m"), ("timeout", "0")];
        client.get(path, &params).fails_with(400, "bad_channel");
    }
}

#[test]
fn names_of_channels_are_case_sensitive() {
    let server = Server::start();
    server.write("Test", "upper");
    server.write("test", "lower");
    assert_eq!(server.read("Test", "1").texts(), ["upper"]);
    assert_eq!(server.read("test", "1").texts(), ["lower"]);
}

#[test]
fn a_name_that_begins_with_a_tilde_is_half_of_a_pair_or_invalid() {
    let server = Server::start();
    let mut client = server.client();
    let letters = "abcdefghijklmnopqrstuv";
    let read = format!("~r{letters}");
    let write = format!("~w{letters}");
    let dashed = "~w-_cdefghijklmnopqrstuv";
    let cases: [(&[&str], &[&str], &str, &str); 2] = [
        (&["/write", "/introduce"], &[&write, dashed], &read, "not_writable"),
        (&["/read", "/members"], &[&read], &write, "not_readable"),
    ];
    for (paths, right, wrong, error) in cases {
        for path in paths {
            let mut call = |channel: &str| {
                client.get(path, &[("channel", channel), ("message", "m"), ("timeout", "0")])
            };
            for channel in right {
                assert_eq!(call(channel).status, 200, "{path} {channel}");
            }
            call(wrong).fails_with(403, error);
        }
    }
    let short = &letters[1..];
    let malformed = [
        "~",
        "~~",
        "~r",
        "~w",
        "~test",
        "~R0123456789abcdefghijKL",
        "~r_bcdefghijklmnopqrstuv",
        "~r-bcdefghijklmnopqrstuv",
        "~w+bcdefghijklmnopqrstuv",
        "~w/bcdefghijklmnopqrstuv",
        "~rübcdefghijklmnopqrstu",
        "~w=bcdefghijklmnopqrstuv",
    ];
    let sized = ["~r", "~w"].map(|half| [format!("{half}{short}"), format!("{half}{letters}x")]);
    let sized = sized.iter().flatten().map(String::as_str);
    for channel in malformed.into_iter().chain(sized) {
        is_no_channel(&mut client, channel);
    }
}

#[test]
fn values_are_decoded_like_html_forms() {
    let cases = [
        ("", ""),
        ("howdy", "howdy"),
        ("a+b", "a b"),
        ("a%20b", "a b"),
        ("a%2Bb", "a+b"),
        ("a%2bb", "a+b"),
        ("%", "%"),
        ("100%", "100%"),
        ("%4", "%4"),
        ("%zz", "%zz"),
        ("%4z", "%4z"),
        ("%%41", "%A"),
        ("%u0041", "%u0041"),
        ("%2541", "%41"),
        ("a=b==c", "a=b==c"),
        ("%26%3D%23", "&=#"),
        ("a;b", "a;b"),
        ("%C3%BC", "ü"),
        ("%F0%9F%98%80", "😀"),
        ("%00%01%0D%0A%7F", "\0\u{1}\r\n\u{7f}"),
        ("%EF%BF%BD", "\u{fffd}"),
        ("%E2%80%A8", "\u{2028}"),
        ("%22%5C%2F", "\"\\/"),
    ];
    let server = Server::start();
    let mut client = server.client();
    for (index, (encoded, decoded)) in cases.iter().enumerate() {
        let query = format!("channel={index}&message={encoded}");
        raw(&mut client, "/write", &query).ok();
        client.post("/write", FORM, query).ok();
        let texts = server.read(&index.to_string(), "1").texts();
        assert_eq!(texts, [*decoded; 2], "{encoded}");
    }
}

#[test]
fn names_are_decoded_too_and_empty_pairs_are_ignored() {
    let server = Server::start();
    let mut client = server.client();
    raw(&mut client, "/write", "&&ch%61nnel=c&=&&message=m&").ok();
    // A name without an equals sign has an empty value.
    raw(&mut client, "/write", "channel=c&message").ok();
    assert_eq!(server.read("c", "1").texts(), ["m", ""]);
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    let server = Server::start();
    let mut client = server.client();
    let invalid = [
        "%FF",
        "%C3",
        "%C3%28",
        "a%80",
        "%C0%80",
        "%ED%A0%80",
        "%F4%90%80%80",
        "%E2%82",
        "%F8%88%80%80%80",
    ];
    for text in invalid {
        for query in [format!("channel=c&message={text}"), format!("channel={text}&message=m")] {
            raw(&mut client, "/write", &query).fails_with(400, "bad_encoding");
            client.post("/write", FORM, query).fails_with(400, "bad_encoding");
        }
    }
    let bodies = [&b"\xff"[..], b"a\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"ok\x80"];
    for body in bodies {
        client.post("/write?channel=c", "text/plain", body).fails_with(400, "bad_encoding");
    }
    assert_eq!(server.read("c", "1").next_id(), 1);
}

#[test]
fn integers_are_digits_that_fit_below_2_to_the_53() {
    let server = Server::start();
    let mut client = server.client();
    server.write("c", "m");
    let good = ["0", "1", "2", "007", "-1", "-0", "-100", "9007199254740991", "-9007199254740991"];
    for from_id in good {
        let params = [("channel", "c"), ("from_id", from_id), ("timeout", "0")];
        client.get("/read", &params).ok();
        client.get("/members", &[("channel", "c"), ("from", from_id)]).ok();
    }
    let bad = [
        "",
        "-",
        "--1",
        "+1",
        " 1",
        "1 ",
        "1.0",
        "1e3",
        "0x1",
        "a",
        "1a",
        "١",
        "½",
        "1,2",
        "9007199254740992",
        "-9007199254740992",
        "18446744073709551617",
        "99999999999999999999999999999999999999999999",
    ];
    for value in bad {
        let params = [("channel", "c"), ("from_id", value), ("timeout", "0")];
        client.get("/read", &params).fails_with(400, "bad_parameter");
        let params = [("channel", "c"), ("connection", value), ("auth", "x"), ("timeout", "0")];
        client.get("/read", &params).fails_with(400, "bad_parameter");
        let params = [("channel", "c"), ("from", value)];
        client.get("/members", &params).fails_with(400, "bad_parameter");
    }
    for value in &bad[..14] {
        let params = [("channel", "c"), ("timeout", value)];
        client.get("/read", &params).fails_with(400, "bad_parameter");
    }
    let read = |grace| [("channel", "c"), ("grace", grace), ("timeout", "0")];
    for grace in ["0", "-0", "007", "9007199254740991"] {
        client.get("/read", &read(grace)).ok();
    }
    for grace in bad.into_iter().chain(["-1"]) {
        client.get("/read", &read(grace)).fails_with(400, "bad_parameter");
    }
}

#[test]
fn a_huge_timeout_is_limited_to_the_poll_timeout() {
    let server = Server::with(&["--poll-timeout", "50ms"]);
    let mut client = server.client();
    let huge = [
        "1",
        "26",
        "9007199254740991",
        "9007199254740992",
        "18446744073709551616",
        "99999999999999999999999999999999999999999999",
    ];
    for timeout in huge {
        let params = [("channel", "c"), ("timeout", timeout)];
        let response = client.get("/read", &params).ok();
        assert_eq!(response.ids(), [0; 0], "{timeout}");
    }
}

#[test]
fn a_known_parameter_may_come_once_only() {
    let server = Server::start();
    let me = server.introduce("c", "Josh");
    let mut client = server.client();
    let proof = format!("connection={}&auth={}", me.connection, me.auth);
    let twice = [
        ("/write", "channel=c&channel=c&message=m".to_owned()),
        ("/write", "channel=c&message=m&message=m".to_owned()),
        ("/write", "channel=c&message=m&ch%61nnel=d".to_owned()),
        ("/write", format!("channel=c&message=m&{proof}&auth={}", me.auth)),
        ("/write", format!("channel=c&message=m&{proof}&connection=1")),
        ("/introduce", "channel=c&channel=d&message=m".to_owned()),
        ("/goodbye", format!("{proof}&channel=c&channel=c")),
        ("/members", "channel=c&channel=d".to_owned()),
        ("/members", "channel=c&from=1&from=1".to_owned()),
        ("/read", "channel=c&timeout=0&timeout=0".to_owned()),
        ("/read", "channel=c&timeout=0&epoch=a&epoch=a".to_owned()),
        ("/read", "channel=c&timeout=0&grace=1&grace=1".to_owned()),
        ("/read", "channel=c&channel=c&timeout=0".to_owned()),
        ("/read", "channel=c&from_id=1&from_id=1&timeout=0".to_owned()),
        ("/read", "channel=c&channel=d&from_id=1&timeout=0".to_owned()),
    ];
    for (path, query) in twice {
        raw(&mut client, path, &query).fails_with(400, "bad_parameter");
    }
    // Once in the query and once in the body is twice.
    let response = client.post_form("/write?channel=c&message=m", &[("channel", "c")]);
    response.fails_with(400, "bad_parameter");
    assert_eq!(server.read("c", "1").texts(), ["Josh"]);
}

#[test]
fn unknown_parameters_are_ignored() {
    let server = Server::start();
    let mut client = server.client();
    let queries = [
        ("/write", "channel=c&message=m&_=12345"),
        ("/write", "_=1&_=2&channel=c&message=m&from_id=x&from=x&timeout=-&grace=x"),
        ("/write", "Channel=x&channel=c&message=m&MESSAGE=y"),
        // A parameter of another call is unknown, too.
        ("/members", "channel=c&connection=x&connection=y&message=m&auth="),
        ("/create", "channel=~&channel=&connection=1&_"),
        ("/health", "connection=1&_=7"),
        ("/image-test", "_=12345&callback=1a"),
        ("/read", "channel=c&timeout=0&message=a&message=b&_=1"),
    ];
    for (path, query) in queries {
        raw(&mut client, path, query).ok();
    }
}

#[test]
fn an_error_names_the_missing_parameter() {
    let server = Server::start();
    let mut client = server.client();
    let proof = [("connection", "1"), ("auth", "x")];
    let cases: [(&str, &Params, &str); 8] = [
        ("/write", &[("message", "m")], "channel"),
        ("/write", &[("channel", "c")], "message"),
        ("/introduce", &[("message", "m")], "channel"),
        ("/introduce", &[("channel", "c")], "message"),
        ("/read", &[("timeout", "0")], "channel"),
        ("/members", &[], "channel"),
        ("/goodbye", &proof[..1], "auth"),
        ("/goodbye", &proof[1..], "connection"),
    ];
    for (path, params, name) in cases {
        let response = client.get(path, params);
        response.fails_with(400, "missing_parameter");
        let detail = response.json()["detail"].to_string();
        assert!(detail.contains(name), "{path}: {detail}");
    }
    client.get("/goodbye", &[]).fails_with(400, "missing_parameter");
}

#[test]
fn connection_and_auth_come_together() {
    let server = Server::start();
    let me = server.introduce("c", "Josh");
    let mut client = server.client();
    let base = [("channel", "c"), ("message", "m"), ("timeout", "0")];
    let halves = [("connection", &*me.connection), ("auth", &*me.auth)];
    for half in halves {
        for path in ["/write", "/read", "/introduce"] {
            let params = [&base[..], &[half]].concat();
            client.get(path, &params).fails_with(400, "bad_parameter");
        }
    }
    assert_eq!(server.read("c", "1").texts(), ["Josh"]);
}

#[test]
fn a_message_is_at_most_64_kib() {
    let server = Server::start();
    let mut client = server.client();
    let path = "/write?channel=c";
    let whole = "ü".repeat(32 * 1024);
    client.post(path, "text/plain", &whole).ok();
    // Percent-encoding makes the message three times as long. It still fits.
    client.post_form(path, &[("message", &whole)]).ok();
    let texts = server.read("c", "1").texts();
    assert!(texts == [whole.clone(), whole.clone()], "the texts differ from those that were sent");

    let more = whole + "x";
    client.post_form(path, &[("message", &more)]).fails_with(413, "message_too_large");
    server.client().post(path, "text/plain", &more).fails_with(413, "message_too_large");
    assert_eq!(server.read("c", "3").next_id(), 3);
}

#[test]
fn max_message_limits_every_text() {
    let server = Server::with(&["--max-message", "10"]);
    let me = server.introduce("c", "0123456789");
    let calls = [
        ("/write", vec![("channel", "c"), ("message", "0123456789x")]),
        ("/introduce", vec![("channel", "c"), ("message", "012345678é")]),
        ("/goodbye", me.and(&[("message", "0123456789x")])),
    ];
    for (path, params) in calls {
        server.get(path, &params).fails_with(413, "message_too_large");
    }
    // The decoded size counts.
    server.write("c", "ééééé");
    assert_eq!(server.read("c", "1").texts(), ["0123456789", "ééééé"]);
}

#[test]
fn an_introduction_has_a_limit_of_its_own() {
    // Options, and the number of two-byte characters that an introduction may have.
    let cases: [(&[&str], usize); 4] = [
        (&[], 512),
        (&["--max-introduction", "10"], 5),
        (&["--max-introduction=0"], 0),
        (&["--max-introduction", "64k"], 32 * 1024),
    ];
    for (options, count) in cases {
        let server = Server::with(options);
        let (longest, longer) = ("é".repeat(count), "é".repeat(count) + "x");
        let mut client = server.client();
        let me =
            Identity::from_answer(&client.post("/introduce?channel=c", "text/plain", &longest));
        let path = "/introduce?channel=c";
        for parameters in [vec![("message", &*longer)], me.and(&[("message", &longer)])] {
            let answer = client.post_form(path, &parameters);
            answer.fails_with(413, "message_too_large");
            let detail = answer.json()["detail"].to_string();
            assert!(count == 32 * 1024 || detail.contains("shorter name"), "{detail}");
        }
        client.post(path, "text/plain", &longer).fails_with(413, "message_too_large");
        let mut socket = server.socket(&[("channel", "d")]);
        let frame = json!({"call": "introduce", "channel": "c", "message": longer});
        assert_eq!(socket.call(&frame)["error"], "message_too_large");
        // A failed introduction changes nothing.
        let members = server.members("c");
        assert_eq!(members["members"].as_array().map(Vec::len), Some(1));
        assert_eq!(members["members"][0]["message"], *longest);
        assert_eq!(server.read("c", "1").next_id(), 2);
        // Other texts have the limit of messages.
        let text = longer.get(..1000).unwrap_or("longer than the limit");
        server.write("c", text);
        server.call_as(&me, "/goodbye", "c", text);
        assert_eq!(server.read("c", "2").texts(), [text, text]);
    }
}

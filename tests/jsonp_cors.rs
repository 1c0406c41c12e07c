//! Responses for browsers: JSONP scripts, CORS headers, and an image.

mod common;

use common::{Params, Response, Server, request, target};

const A: &str = "https://a.example";
const B: &str = "http://b.example:8080";
const MESSAGE: [(&str, &str); 2] = [("channel", "c"), ("message", "m")];

/// A server that lets only pages of two origins add messages.
fn listed() -> Server {
    Server::with(&["--allow-origin", A, "--allow-origin", B])
}

/// Returns the argument of a JSONP response's function call.
#[track_caller]
fn handed_to<'a>(answer: &'a Response, name: &str) -> &'a str {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
    let argument = answer.text().strip_prefix(&format!("/**/{name}("));
    argument.and_then(|it| it.strip_suffix(");")).unwrap_or_else(|| panic!("no call: {answer:?}"))
}

#[test]
fn a_callback_is_a_dotted_path_of_identifiers() {
    let server = Server::start();
    let mut client = server.client();
    let long = "x".repeat(128);
    let good = [
        "f",
        "$",
        "_",
        "F9",
        "jQuery1102_17",
        "a.b",
        "a.b.c.$.d_1",
        "a[0]",
        "a[0].b",
        "a[01][23]",
        "window.callbacks[12].done",
        &long,
    ];
    for name in good {
        let answer = client.get("/health", &[("callback", name)]);
        assert_eq!(handed_to(&answer, name), r#"{"status":"ok"}"#, "{name}");
    }
    let long = "x".repeat(129);
    let bad = [
        "",
        " ",
        "1a",
        ".",
        "a.",
        ".a",
        "a..b",
        "a.1",
        "[0]",
        "a[",
        "a]",
        "a[]",
        "a[x]",
        "a[-1]",
        "a[0",
        "a[0]b",
        "a.[0]",
        "a['b']",
        "a[ 0]",
        "a b",
        "a ",
        " a",
        "a()",
        "alert(1)",
        "a;b",
        "a-b",
        "a/b",
        "a=b",
        "a,b",
        "a\n",
        "a\0",
        "é",
        "aé",
        "\u{2028}",
        "a[١]",
        "</script>",
        "*/",
        &long,
    ];
    for name in bad {
        let answer = client.get("/health", &[("callback", name)]);
        answer.fails_with(400, "bad_callback");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{name:?}");
    }
}

#[test]
fn every_call_takes_a_callback() {
    let server = Server::start();
    let f = ("callback", "f");
    let c = ("channel", "c");
    let m = ("message", "m");
    let get = |path: &str, params: &Params| handed_to(&server.get(path, params), "f").to_owned();
    assert_eq!(get("/write", &[c, m, f]), r#"{"id":1}"#);
    let read = get("/read", &[c, f, ("from_id", "1")]);
    assert!(read.starts_with(r#"{"messages":[{"id":1,"#), "{read}");
    let introduced = get("/introduce", &[f, c, m]);
    let introduced: serde_json::Value = serde_json::from_str(&introduced).expect("JSON");
    assert_eq!(introduced["id"], 2);
    let members = get("/members", &[c, f]);
    assert!(members.ends_with(r#"],"readers":0}"#), "{members}");
    assert!(get("/create", &[f]).starts_with(r#"{"read":"~r"#));
    let auth = introduced["auth"].as_str().expect("an auth code");
    let goodbye = [f, ("connection", "1"), ("auth", auth)];
    assert_eq!(get("/goodbye", &goodbye), r#"{"ok":true}"#);
}

#[test]
fn a_pending_read_is_answered_with_its_own_callback() {
    let server = Server::start();
    let names = ["f", "g.h[1]"];
    let mut scripts = names.map(|name| server.park(&[("channel", "c"), ("callback", name)]));
    let mut plain = server.park(&[("channel", "c")]);
    server.write("c", "</script>\u{2028}\u{2029}");
    let answer = plain.response().ok();
    assert_eq!(answer.texts(), ["</script>\u{2028}\u{2029}"]);
    for (script, name) in scripts.iter_mut().zip(names) {
        let script = script.response();
        let handed = handed_to(&script, name);
        assert_eq!(handed, answer.text());
        assert!(!handed.contains(['\u{2028}', '\u{2029}']));
    }
}

#[test]
fn errors_reach_a_script_with_status_200() {
    let server = Server::start();
    let f = ("callback", "f");
    let read_name = "~rAAAAAAAAAAAAAAAAAAAAAA";
    let cases: [(&str, &Params, &str, u16); 5] = [
        ("/write", &[("channel", "c"), f], "missing_parameter", 400),
        ("/read", &[f, ("channel", "~")], "bad_channel", 400),
        ("/read", &[("channel", "c"), ("from_id", "x"), f], "bad_parameter", 400),
        ("/goodbye", &[("connection", "7"), ("auth", "x"), f], "connection_ended", 410),
        ("/write", &[f, ("channel", read_name), ("message", "m")], "not_writable", 403),
    ];
    for (path, params, error, status) in cases {
        let answer = server.get(path, params);
        let handed = handed_to(&answer, "f");
        assert!(handed.starts_with(&format!(r#"{{"error":"{error}","detail":""#)), "{handed}");
        assert!(handed.ends_with(&format!(r#"","status":{status}}}"#)), "{handed}");
    }
}

#[test]
fn a_post_ignores_the_callback() {
    let server = Server::start();
    let mut client = server.client();
    let path = target("/write", &[("callback", "f")]);
    client.post_form(&path, &MESSAGE).fails_with(400, "bad_parameter");
    let in_body = [&MESSAGE[..], &[("callback", "f")]].concat();
    client.post_form("/write", &in_body).fails_with(400, "bad_parameter");
    assert_eq!(server.read("c", "1").next_id(), 1);
}

/// Returns whether `date` has the form of `Sun, 06 Nov 1994 08:49:37 GMT`.
fn is_http_date(date: &str) -> bool {
    let shape = date.bytes().map(|byte| match byte {
        b'0'..=b'9' => '0',
        b'A'..=b'Z' => 'A',
        b'a'..=b'z' => 'a',
        other => char::from(other),
    });
    shape.collect::<String>() == "Aaa, 00 Aaa 0000 00:00:00 AAA" && date.ends_with(" GMT")
}

#[test]
fn every_response_of_a_call_has_all_its_headers() {
    let server = Server::start();
    let calls: [(&str, &Params, u16); 12] = [
        ("/write", &[("channel", "c"), ("message", "m")], 200),
        ("/read", &[("channel", "c"), ("from_id", "1")], 200),
        ("/read", &[("channel", "c"), ("timeout", "0")], 200),
        ("/read", &[("channel", "c"), ("timeout", "1")], 200),
        ("/introduce", &[("channel", "c"), ("message", "m")], 200),
        ("/members", &[("channel", "c")], 200),
        ("/create", &[], 200),
        ("/health", &[], 200),
        ("/image-test", &[], 200),
        ("/write", &[("channel", "c")], 400),
        ("/members", &[("channel", "~wAAAAAAAAAAAAAAAAAAAAAA")], 403),
        ("/goodbye", &[("connection", "77"), ("auth", "x")], 410),
    ];
    for (path, params, status) in calls {
        let answer = server.get(path, params);
        assert_eq!(answer.status, status, "{path} {params:?}");
        let image = path == "/image-test";
        let content_type = if image { "image/gif" } else { "application/json" };
        let expected = [
            ("content-type", content_type),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("access-control-allow-origin", "*"),
        ];
        for (name, value) in expected {
            assert_eq!(answer.header(name), Some(value), "{path} {params:?}");
        }
        let date = answer.header("date").expect("a Date");
        assert!(is_http_date(date), "{date}");
    }
    let waited = server.park(&[("channel", "d")]).response_after(|| server.write("d", "m"));
    assert_eq!(waited.header("cache-control"), Some("no-store"));
    assert_eq!(waited.header("access-control-allow-origin"), Some("*"));
    assert_eq!(waited.header("cross-origin-resource-policy"), Some("cross-origin"));
    let script = server.get("/health", &[("callback", "f")]);
    assert_eq!(script.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(script.header("access-control-allow-origin"), Some("*"));
    assert_eq!(script.header("cross-origin-resource-policy"), Some("cross-origin"));
}

#[test]
fn the_image_is_a_gif_of_one_pixel() {
    let server = Server::start();
    let gif = server.get("/image-test", &[("_", "12345")]).ok().body;
    assert!(gif.starts_with(b"GIF87a") || gif.starts_with(b"GIF89a"));
    let size = |at: usize| [gif[at], gif[at + 1], gif[at + 2], gif[at + 3]];
    assert_eq!(size(6), [1, 0, 1, 0], "the screen");
    let table = |flags: u8| match flags & 0x80 {
        0 => 0,
        _ => 3 << ((flags & 7) + 1),
    };
    // Walks the blocks after the global colour table and expects one image.
    let mut at = 13 + table(gif[10]);
    let mut images = 0;
    loop {
        at += match gif[at] {
            0x21 => 2,
            0x2c => {
                assert_eq!(size(at + 5), [1, 0, 1, 0], "the image");
                images += 1;
                11 + table(gif[at + 9])
            }
            0x3b => break,
            other => panic!("no block begins with {other}"),
        };
        while gif[at] != 0 {
            at += 1 + usize::from(gif[at]);
        }
        at += 1;
    }
    assert_eq!((images, at), (1, gif.len() - 1));
}

#[test]
fn a_preflight_allows_what_pages_send() {
    let server = Server::start();
    let mut client = server.client();
    let headers = [
        ("Origin", A),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type"),
    ];
    for path in ["/write", "/read", "/introduce", "/goodbye", "/members", "/create"] {
        let answer = client.call(request("OPTIONS", path, &headers, None));
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        for (name, needed) in [
            ("access-control-allow-methods", ["get", "post"]),
            ("access-control-allow-headers", ["content-type", "last-event-id"]),
        ] {
            let list = answer.header(name).expect("a list").to_ascii_lowercase();
            let items: Vec<_> = list.split(',').map(str::trim).collect();
            assert!(needed.iter().all(|it| items.contains(it)), "{path}: {name}: {list}");
        }
    }
}

#[test]
fn a_preflight_allows_the_header_fields_that_it_asks_for() {
    let server = Server::start();
    let mut client = server.client();
    let long = "x-a,".repeat(2_000);
    let cases = [
        ("cache-control", "content-type, last-event-id, cache-control"),
        (
            "Authorization,X-Requested-With, if-none-match",
            "content-type, last-event-id, Authorization,X-Requested-With, if-none-match",
        ),
        ("", "content-type, last-event-id"),
        // Text that is no list of names is not repeated.
        ("x: y", "content-type, last-event-id"),
        ("x\ty", "content-type, last-event-id"),
        ("<script>", "content-type, last-event-id"),
        ("\"x\"", "content-type, last-event-id"),
        ("\u{fc}", "content-type, last-event-id"),
        (&long, "content-type, last-event-id"),
    ];
    for (asked, allowed) in cases {
        for path in ["/write", "/read", "/image-test"] {
            let headers = [
                ("Origin", A),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", asked),
            ];
            let answer = client.call(request("OPTIONS", path, &headers, None));
            assert_eq!(answer.status, 204, "{asked}");
            assert_eq!(answer.header("access-control-allow-headers"), Some(allowed), "{asked}");
            assert_eq!(answer.header("vary"), Some("Access-Control-Request-Headers"));
        }
    }
}

#[test]
fn a_list_may_have_all_subdomains_of_a_host() {
    let server = Server::with(&[
        "--allow-origin",
        "https://*.example.org",
        "--allow-origin",
        "https://port.example:443",
    ]);
    let mut client = server.client();
    let cases = [
        ("https://a.example.org", true),
        ("https://a.b.example.org", true),
        ("https://port.example", true),
        ("https://example.org", false),
        ("https://evilexample.org", false),
        ("http://a.example.org", false),
        ("https://a.example.org:8443", false),
        ("https://port.example:444", false),
        ("https://*.example.org", false),
    ];
    let mut written = 0;
    for (origin, is_listed) in cases {
        let answer = client.get_with("/write", &MESSAGE, &[("Origin", origin)]);
        assert_eq!(answer.status, if is_listed { 200 } else { 403 }, "{origin}");
        let allowed = Some(origin).filter(|_| is_listed);
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{origin}");
        assert_eq!(answer.header("vary"), Some("Origin"));
        written += usize::from(is_listed);
    }
    assert_eq!(server.read("c", "1").ids().len(), written);

    // Readers that wait get the header for their own origin.
    let origins = ["https://a.example.org", "https://b.example.org", "https://c.example"];
    let mut readers = origins.map(|origin| {
        let mut reader = server.client();
        let path = target("/read", &[("channel", "d")]);
        reader.send(request("GET", &path, &[("Origin", origin)], None));
        reader
    });
    server.wait_for_readers("d", 3);
    server.write("d", "m");
    let allowed = readers.each_mut().map(|reader| {
        let answer = reader.response().ok();
        answer.header("access-control-allow-origin").map(str::to_owned)
    });
    assert_eq!(allowed, [Some(origins[0].to_owned()), Some(origins[1].to_owned()), None]);
}

#[test]
fn with_a_list_only_listed_origins_may_read() {
    let server = listed();
    let mut client = server.client();
    for origin in [A, B] {
        let answer = client.get_with("/health", &[], &[("Origin", origin)]).ok();
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    let others = ["https://c.example", "http://a.example", "https://a.example.evil", "null", "*"];
    for headers in others.iter().map(|other| vec![("Origin", *other)]).chain([vec![]]) {
        let answer = client.get_with("/health", &[], &headers).ok();
        assert_eq!(answer.header("access-control-allow-origin"), None, "{headers:?}");
    }

    // Two readers that share one response each get the header for their origin.
    let read = |origin: &str| {
        let mut reader = server.client();
        let path = target("/read", &[("channel", "c")]);
        reader.send(request("GET", &path, &[("Origin", origin)], None));
        reader
    };
    let mut readers = [A, B, "https://c.example"].map(read);
    server.wait_for_readers("c", 3);
    server.write("c", "m");
    for (reader, allowed) in readers.iter_mut().zip([Some(A), Some(B), None]) {
        assert_eq!(reader.response().ok().header("access-control-allow-origin"), allowed);
    }
}

#[test]
fn with_a_list_other_origins_add_no_messages() {
    let server = listed();
    let mut client = server.client();
    let me = server.introduce("c", "Josh");
    for path in ["/write", "/introduce", "/goodbye"] {
        let path = target(path, &me.and(&[]));
        for origin in ["https://c.example", "null", "http://a.example", "https://a.example.evil"] {
            let form = [("Origin", origin), ("Content-Type", "application/x-www-form-urlencoded")];
            let body = Some(&b"channel=c&message=m"[..]);
            let answer = client.call(request("POST", &path, &form, body));
            answer.fails_with(403, "bad_origin");
            assert_eq!(answer.header("access-control-allow-origin"), None);
            let get = format!("{path}&channel=c&message=m");
            let answer = client.call(request("GET", &get, &[("Origin", origin)], None));
            answer.fails_with(403, "bad_origin");
        }
    }
    assert_eq!(server.read("c", "1").texts(), ["Josh"]);

    // Reading is open to every origin: the browser keeps the response from the page.
    for path in ["/read", "/members", "/create", "/health"] {
        let foreign = [("Origin", "https://c.example"), ("Sec-Fetch-Site", "cross-site")];
        client.get_with(path, &[("from_id", "1"), ("channel", "c")], &foreign).ok();
    }
}

#[test]
fn with_a_list_sec_fetch_site_decides_without_an_origin() {
    let server = listed();
    let mut client = server.client();
    let cases: [(&Params, u16); 9] = [
        (&[("Sec-Fetch-Site", "cross-site")], 403),
        (&[("Sec-Fetch-Site", "cross-site"), ("Origin", "https://c.example")], 403),
        (&[("Sec-Fetch-Site", "same-origin"), ("Origin", "https://c.example")], 403),
        (&[("Sec-Fetch-Site", "cross-site"), ("Origin", A)], 200),
        (&[("Sec-Fetch-Site", "same-origin")], 200),
        (&[("Sec-Fetch-Site", "same-site")], 200),
        (&[("Sec-Fetch-Site", "none")], 200),
        (&[("Origin", B)], 200),
        (&[], 200),
    ];
    let mut written = 0;
    for (headers, status) in cases {
        let answer = client.get_with("/write", &MESSAGE, headers);
        assert_eq!(answer.status, status, "{headers:?}");
        written += usize::from(status == 200);
    }
    // A cross-origin script tag gets the error as a script.
    let script = [&MESSAGE[..], &[("callback", "f")]].concat();
    let answer = client.get_with("/write", &script, &[("Sec-Fetch-Site", "cross-site")]);
    assert!(handed_to(&answer, "f").starts_with(r#"{"error":"bad_origin","#));
    assert_eq!(server.read("c", "1").ids().len(), written);
}

#[test]
fn without_a_list_every_page_may_write() {
    let server = Server::start();
    let mut client = server.client();
    for header in [("Origin", A), ("Origin", "null"), ("Sec-Fetch-Site", "cross-site")] {
        let answer = client.get_with("/write", &MESSAGE, &[header]).ok();
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{header:?}");
    }
    assert_eq!(server.read("c", "1").ids(), [1, 2, 3]);
}

#[test]
fn a_head_with_a_callback_has_no_body() {
    let server = Server::start();
    let mut client = server.client();
    client.send(request("HEAD", "/health?callback=a", &[], None));
    let head = client.head();
    assert_eq!(head.header("content-length"), Some("23"));
    client.get("/health", &[]).ok();
}

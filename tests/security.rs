//! Promises of SECURITY.md that no other test shows. The last test compares that page with the
//! sources.

mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::iter;
use std::path::Path;

use common::{Client, HANDSHAKE, Response, Server, request, target};

const LISTED: &str = "https://a.example";
const FOREIGN: &str = "https://evil.example";

/// A server that lets only pages of one origin add messages.
fn listed() -> Server {
    Server::with(&["--allow-origin", LISTED])
}

/// The calls, with parameters that make each of them succeed.
const CALLS: [(&str, &common::Params); 7] = [
    ("/write", &[("channel", "c"), ("message", "m")]),
    ("/read", &[("channel", "c"), ("timeout", "0")]),
    ("/introduce", &[("channel", "c"), ("message", "m")]),
    ("/goodbye", &[("connection", "1"), ("auth", "x")]),
    ("/members", &[("channel", "c")]),
    ("/create", &[]),
    ("/health", &[]),
];

const FILES: [&str; 7] =
    ["/", "/demo.js", "/demo.css", "/speak.js", "/speak-chat.js", "/speak.mjs", "/speak.d.ts"];

// --- Secrets ---

/// Pearson's chi-squared of the characters against 62 equally likely ones: 61 on average, and above
/// 200 once in 10^16 times. The remainder of a whole byte, the usual mistake, has above 300 with
/// 50,000 characters.
fn chi_squared(characters: impl Iterator<Item = u8>) -> f64 {
    let mut counts = HashMap::new();
    let mut total = 0_u32;
    for character in characters {
        assert!(character.is_ascii_alphanumeric(), "{character}");
        *counts.entry(character).or_insert(0_u32) += 1;
        total += 1;
    }
    let expected = f64::from(total) / 62.0;
    let of_those_that_came =
        counts.values().map(|count| (f64::from(*count) - expected).powi(2) / expected);
    let missing = 62 - u32::try_from(counts.len()).expect("62 at most");
    of_those_that_came.sum::<f64>() + f64::from(missing) * expected
}

/// Returns the values under this key from 3,000 requests.
fn secrets(server: &Server, path: &str, params: &common::Params, key: &str) -> Vec<String> {
    let requests = iter::repeat_n(request("GET", &target(path, params), &[], None), 3_000);
    let mut secrets = Vec::new();
    server.client().send_meanwhile(requests, |client| {
        let answers = (0..3_000).map(|_| client.response().ok().json());
        secrets.extend(answers.map(|answer| answer[key].as_str().expect("a secret").to_owned()));
    });
    secrets
}

#[test]
fn secrets_are_as_random_as_they_are_long() {
    let server = Server::start();
    let halves = secrets(&server, "/create", &[], "read");
    let halves: Vec<_> =
        halves.iter().map(|name| name.strip_prefix("~r").expect("a half that is read")).collect();
    let codes = secrets(&server, "/introduce", &[("channel", "c"), ("message", "m")], "auth");
    for secrets in [halves, codes.iter().map(String::as_str).collect()] {
        assert!(secrets.iter().all(|secret| secret.len() == 22));
        assert_eq!(secrets.iter().collect::<HashSet<_>>().len(), secrets.len(), "one came twice");
        let all = chi_squared(secrets.iter().flat_map(|secret| secret.bytes()));
        assert!(all < 200.0, "{all}");
        for place in 0..22 {
            let here = chi_squared(secrets.iter().map(|secret| secret.as_bytes()[place]));
            assert!(here < 200.0, "{here} at place {place}");
        }
    }
}

#[test]
fn the_randomness_test_detects_bias() {
    let alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
    let of_bytes = |bytes: u32| (0..50_000).map(move |number| number % bytes);
    let fair = chi_squared(of_bytes(248).map(|byte| alphabet[byte as usize % 62]));
    let biased = chi_squared(of_bytes(256).map(|byte| alphabet[byte as usize % 62]));
    assert!(fair < 1.0 && biased > 300.0, "{fair} {biased}");
}

#[test]
fn a_wrong_code_is_refused_whatever_prefix_is_right() {
    let server = Server::start();
    let me = server.introduce("c", "Josh");
    let mut client = server.client();
    let mut wrong: Vec<String> = Vec::new();
    for place in 0..22 {
        let other = if &me.auth[place..=place] == "A" { "B" } else { "A" };
        wrong.push([&me.auth[..place], other, &me.auth[place + 1..]].concat());
        wrong.push([&me.auth[..place], &"-".repeat(22 - place)].concat());
        wrong.push(me.auth[..place].to_owned());
    }
    wrong.extend([
        format!("{}A", me.auth),
        format!("{}\0", me.auth),
        format!(" {}", me.auth),
        "é".repeat(11),
    ]);
    for auth in wrong {
        let params =
            [("channel", "c"), ("message", "m"), ("connection", &*me.connection), ("auth", &auth)];
        for path in ["/write", "/read", "/introduce", "/goodbye"] {
            client.get(path, &params).fails_with(403, "bad_auth");
        }
    }
    assert_eq!(server.read("c", "1").texts(), ["Josh"]);
    client.get("/write", &me.and(&[("channel", "c"), ("message", "howdy")])).ok();
}

// --- Responses ---

/// Every kind of response: each call successful and failed, each file, and input that is no
/// request.
fn all_answers(server: &Server, headers: &[(&str, &str)]) -> Vec<(String, Response)> {
    let mut answers = Vec::new();
    let mut ask = |method: &str, path: &str| {
        let mut client = server.client();
        client.send(request(method, path, headers, None));
        let answer = if method == "HEAD" { client.head() } else { client.response() };
        answers.push((format!("{method} {path}"), answer));
    };
    for (path, params) in CALLS {
        let well = target(path, params);
        let separator = if params.is_empty() { "?" } else { "&" };
        let variants = [
            "",
            "callback=f",
            "callback=f()",
            "channel=%ff",
            "channel=c&channel=c",
            "timeout=-1",
            "from_id=x",
        ];
        for variant in variants {
            ask("GET", &format!("{well}{separator}{variant}"));
        }
        for method in ["POST", "OPTIONS", "HEAD", "PUT", "TRACE", "get"] {
            ask(method, &well);
        }
    }
    for path in FILES.iter().chain(&["/image-test", "/nothing", "/read/", "/favicon.ico"]) {
        for method in ["GET", "HEAD", "POST", "OPTIONS"] {
            ask(method, path);
        }
    }
    let long = "x".repeat(20_000);
    let malformed = [
        "nonsense\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\r\n\r\n".to_owned(),
        "GET /health HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
        "POST /write HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".to_owned(),
        "POST /write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
    ];
    for bytes in malformed {
        answers.push((bytes.chars().take(40).collect(), server.client().call(bytes)));
    }
    answers
}

/// Returns whether the path, with its method in front, is a file that is served as one.
fn is_file(what: &str, answer: &Response) -> bool {
    FILES.iter().any(|file| what.split(' ').nth(1) == Some(file)) && answer.status == 200
}

#[test]
fn every_response_has_a_type_and_nosniff() {
    let server = Server::start();
    for (what, answer) in all_answers(&server, &[]) {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{what}");
        let expected = match what.as_str() {
            _ if answer.status == 204 => None,
            _ if is_file(&what, &answer) => continue, // tests/files.rs
            "GET /image-test" | "HEAD /image-test" => Some("image/gif"),
            _ if what.ends_with("callback=f") => Some("text/javascript; charset=utf-8"),
            _ => Some("application/json"),
        };
        assert_eq!(answer.header("content-type"), expected, "{what}");
    }
}

#[test]
fn no_cache_stores_the_response_of_a_call() {
    for server in [Server::start(), listed()] {
        for (what, answer) in all_answers(&server, &[("Origin", LISTED)]) {
            if !is_file(&what, &answer) {
                assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
            }
        }
    }
}

#[test]
fn cross_origin_access_never_depends_on_cookies() {
    for (server, allowed) in
        [(Server::start(), Some("*")), (listed(), Some(LISTED)), (listed(), None)]
    {
        let origin = if allowed.is_none() { FOREIGN } else { LISTED };
        for (what, answer) in all_answers(&server, &[("Origin", origin), ("Cookie", "a=b")]) {
            assert_eq!(answer.header("access-control-allow-credentials"), None, "{what}");
            assert_eq!(answer.header("set-cookie"), None, "{what}");
            let is_of_no_page = answer.says_close();
            if !is_of_no_page {
                assert_eq!(answer.header("access-control-allow-origin"), allowed, "{what}");
            }
            let varies =
                answer.headers.iter().any(|(name, value)| name == "Vary" && value == "Origin");
            assert_eq!(varies, allowed != Some("*"), "{what}");
        }
    }
}

/// Header fields by which some servers or frameworks are asked for another host, path, method or
/// address.
const MISLEADING: [&str; 14] = [
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-For",
    "X-Forwarded-Prefix",
    "X-Forwarded-Scheme",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-HTTP-Method-Override",
    "X-Host",
    "Forwarded",
    "Referer",
    "User-Agent",
    "Accept-Language",
    "X-Real-IP",
];

#[test]
fn no_request_header_is_reflected_in_a_response() {
    let server = Server::with(&["--trust-proxy", "127.0.0.1"]);
    let plain = all_answers(&server, &[]);
    let hostile: Vec<_> = MISLEADING.iter().map(|name| (*name, "/write?evil.example")).collect();
    let hostile =
        [&hostile[..], &[("Origin", "https://evil.example"), ("Cookie", "evil=1")]].concat();
    for ((what, plain), (_, answer)) in plain.iter().zip(all_answers(&server, &hostile)) {
        let shown = format!("{:?}{}", answer.headers, String::from_utf8_lossy(&answer.body));
        assert!(!shown.contains("evil"), "{what}: {shown}");
        assert_eq!(answer.status, plain.status, "{what}");
        let names = |answer: &Response| {
            answer.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&answer), names(plain), "{what}");
        if is_file(what, plain) {
            assert_eq!(answer.body, plain.body, "{what}");
        }
    }
}

#[test]
fn no_parameter_is_reflected_in_a_response_head() {
    const FIELDS: [&str; 18] = [
        "Content-Type",
        "Content-Length",
        "Cache-Control",
        "X-Content-Type-Options",
        "Access-Control-Allow-Origin",
        "Vary",
        "Date",
        "Connection",
        "Allow",
        "Retry-After",
        "Access-Control-Expose-Headers",
        "X-Accel-Buffering",
        "Transfer-Encoding",
        "Upgrade",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Version",
        "Content-Security-Policy",
        "Cross-Origin-Resource-Policy",
    ];
    let names = [
        "channel",
        "message",
        "connection",
        "auth",
        "from_id",
        "timeout",
        "epoch",
        "callback",
        "_",
    ];
    let splits = [
        "a\r\nX-Evil: 1",
        "a\nX-Evil: 1",
        "a\rX-Evil: 1",
        "a\u{85}X-Evil: 1",
        "嘊嘍X-Evil: 1",
        "X-Evil\r\n\r\n",
    ];
    let socket = [&HANDSHAKE[..], &[("Sec-WebSocket-Protocol", "X-Evil")]].concat();
    let streams: [&[(&str, &str)]; 3] =
        [&[], &[("Accept", "text/event-stream"), ("Last-Event-ID", "X-Evil:1")], &socket];
    let server = Server::start();
    for (path, params) in CALLS {
        for (name, value) in names.iter().flat_map(|name| splits.map(|value| (*name, value))) {
            let mut params: Vec<_> =
                params.iter().filter(|(known, _)| *known != name).copied().collect();
            params.push((name, value));
            for headers in streams.iter().take(if path == "/read" { 3 } else { 1 }) {
                let mut client = Client::connect(server.address());
                client.send(request("GET", &target(path, &params), headers, None));
                let head = client.head();
                let is_ours = |(field, value): &(String, String)| {
                    FIELDS.contains(&field.as_str()) && !value.contains("Evil")
                };
                assert!(head.headers.iter().all(is_ours), "{path} {name}: {head:?}");
            }
        }
    }
}

#[test]
fn a_jsonp_response_cannot_begin_as_another_file_type() {
    let server = Server::start();
    let mut client = server.client();
    // Letters and digits alone, as a Flash file can be written ("Rosetta Flash"), and other files
    // whose first bytes are a name, followed by the longest rest that a callback may have.
    for magic in [
        "CWS", "FWS", "ZWS", "GIF89a", "PK", "BM", "MZ", "ID3", "OggS", "wOFF", "RIFF", "II", "MM",
        "BZh9",
    ] {
        let name = format!("{magic}{}", "hC0".repeat(50)).chars().take(128).collect::<String>();
        for name in [magic, &name] {
            let answer = client.get("/health", &[("callback", name)]).ok();
            assert!(answer.text().starts_with(&format!("/**/{name}(")), "{name}");
            assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        }
        client.get("/health", &[("callback", &format!("{name}X"))]).fails_with(400, "bad_callback");
    }
    for name in [
        "%PDF-1",
        "%!PS",
        "<svg",
        "<html>",
        "<?xml",
        "{\\rtf",
        "#!/bin/sh",
        "\u{feff}a",
        "+ADw-",
        "'a'",
        "`a`",
    ] {
        client.get("/health", &[("callback", name)]).fails_with(400, "bad_callback");
    }
}

#[test]
fn a_path_has_one_spelling() {
    let server = Server::start();
    let mut client = server.client();
    let spellings = [
        "/%72ead",
        "//read",
        "/read/",
        "/./read",
        "/x/../read",
        "/READ",
        "/read;x",
        "/read%00",
        "/read%3f",
        "/read.js",
    ];
    for path in spellings {
        client
            .call(request("GET", &format!("{path}?channel=c&timeout=0"), &[], None))
            .fails_with(404, "not_found");
    }
}

// --- Pages of other origins ---

#[test]
fn a_cross_origin_form_adds_nothing_with_an_origin_list() {
    let server = listed();
    let mut client = server.client();
    // Bodies that a form or a beacon can send without a preflight.
    let bodies = [
        ("application/x-www-form-urlencoded", "channel=c&message=m"),
        ("text/plain", "m"),
        (
            "multipart/form-data; boundary=b",
            "--b\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nm\r\n--b--",
        ),
    ];
    let pages: [&[(&str, &str)]; 4] = [
        &[("Origin", FOREIGN)],
        &[("Origin", "null")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Origin", FOREIGN), ("Sec-Fetch-Site", "same-origin")],
    ];
    for path in ["/write", "/introduce"] {
        for (content_type, body) in bodies {
            for page in pages {
                let headers = [page, &[("Content-Type", content_type)]].concat();
                let path = if content_type.starts_with("app") {
                    path.to_owned()
                } else {
                    format!("{path}?channel=c")
                };
                let answer = client.call(request("POST", &path, &headers, Some(body.as_bytes())));
                answer.fails_with(403, "bad_origin");
                assert_eq!(answer.header("access-control-allow-origin"), None);
            }
        }
    }
    assert_eq!(server.read("c", "1").next_id(), 1);
}

// --- Sources ---

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources_in(folder: &Path, sources: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources_in(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(fs::read_to_string(&path).expect("a source"));
        }
    }
}

#[test]
fn no_table_of_client_names_has_a_predictable_hash() {
    let mut sources = Vec::new();
    sources_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    assert!(
        sources.iter().filter(|source| source.contains("HashMap<")).count() >= 2,
        "these are not the sources"
    );
    // `std`'s own hasher draws a new key for each table.
    for source in &sources {
        for other in [
            "with_hasher",
            "with_capacity_and_hasher",
            "BuildHasherDefault",
            "DefaultHasher",
            "hashbrown",
        ] {
            assert!(!source.contains(other), "{other}");
        }
    }
    assert!(!source("Cargo.lock").lines().any(|line| {
        ["fxhash", "rustc-hash", "ahash", "fnv"]
            .iter()
            .any(|name| line == format!("name = \"{name}\""))
    }));
}

/// Each promise names its tests, as `FILE: NAME`. Every one of them exists and is a test.
#[test]
fn security_md_names_tests_that_exist() {
    let page = source("SECURITY.md");
    let (_, promises) = page.split_once("\n## What Speak promises\n").expect("the promises");
    let (promises, _) = promises.split_once("\n## ").expect("what comes behind them");
    let mut named = 0;
    for promise in promises.split("\n- ").skip(1) {
        let promise = promise.split("\n\n").next().unwrap_or_default();
        let tests = promise.split('`').skip(1).step_by(2).filter_map(|code| code.split_once(": "));
        let tests: Vec<_> =
            tests.filter(|(file, _)| file.ends_with("rs") || file.ends_with("mjs")).collect();
        assert!(!tests.is_empty(), "this names no test: {promise}");
        for (file, name) in tests {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            let source = source(file);
            let is_there = if file.ends_with("rs") {
                // An attribute may be in between.
                let before =
                    source.split(&format!("fn {name}(")).next().filter(|before| *before != source);
                before.is_some_and(|before| {
                    before.lines().rev().take(4).any(|line| line.trim() == "#[test]")
                })
            } else {
                source.contains(&format!("test(\"{name}\""))
            };
            assert!(is_there, "{file} has no test {name}");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}

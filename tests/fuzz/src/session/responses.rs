//! Responses: they contain what their heads say.

use serde_json::Value;
use speak::http::Method;
use support::http::{Framing, Head};
use support::incoming::{Cutter, Item, Mode};
use support::ws;

use super::asked::Asked;
use super::settings::LISTED;

/// Fields of responses. Any other field would come from a request.
const FIELDS: [&str; 22] = [
    "content-type",
    "cache-control",
    "x-content-type-options",
    "cross-origin-resource-policy",
    "access-control-allow-origin",
    "vary",
    "date",
    "etag",
    "content-encoding",
    "content-security-policy",
    "content-length",
    "connection",
    "allow",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "access-control-max-age",
    "retry-after",
    "sec-websocket-version",
    "x-accel-buffering",
    "transfer-encoding",
    "referrer-policy",
];

/// Parses the head at the start of `bytes`, and returns it with the bytes after it.
pub(super) fn parse_head(bytes: &[u8]) -> (Head, &[u8]) {
    assert!(bytes.starts_with(b"HTTP/1.1 "));
    let (head, length) = Head::parse(bytes).expect("a head").expect("all of the head");
    for (at, (name, _)) in head.fields.iter().enumerate() {
        // A file varies by its encoding and, with a list, by origin.
        let is_its = |(other, _): &(String, String)| other.eq_ignore_ascii_case(name);
        let is_first = name == "Vary" || !head.fields[..at].iter().any(is_its);
        assert!(is_first, "{name} twice");
    }
    (head, &bytes[length..])
}

/// Checks all claims on the head of a response, except one that changes the protocol.
pub(super) fn check_head(head: &Head, asked: &Asked, has_list: bool) {
    for (name, _) in &head.fields {
        assert!(FIELDS.contains(&&*name.to_ascii_lowercase()), "no response has {name}");
    }
    assert_eq!(head.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(head.field("cross-origin-resource-policy"), Some("cross-origin"));
    assert!(head.field("cache-control").is_some());
    assert_eq!(head.field("date").map(str::len), Some("Sun, 06 Nov 1994 08:49:37 GMT".len()));
    let origin = asked.origin.as_deref();
    let is_listed = origin.is_some_and(|its| its.eq_ignore_ascii_case(LISTED.as_bytes()));
    let expected = match (has_list, is_listed) {
        (false, _) => Some("*"),
        (true, true) => Some(LISTED),
        (true, false) => None,
    };
    assert_eq!(head.field("access-control-allow-origin"), expected);
    assert_eq!(head.all("vary").any(|value| value == "Origin"), has_list);
}

/// Checks one whole response and returns the JSON in it, if it is that of a call.
pub(super) fn check(bytes: &[u8], asked: &Asked, has_list: bool, closes: bool) -> Option<Value> {
    let (head, body) = parse_head(bytes);
    check_head(&head, asked, has_list);
    assert_eq!(head.closes(), closes, "whether the connection persists");
    let framing = head.framing().expect("a framing");
    if matches!(head.status, 204 | 304) {
        assert_eq!((head.field("content-length"), body), (None, &b""[..]));
        return None;
    }
    if asked.method == Some(Method::Head) {
        let has_length = matches!(framing, Framing::Length(_));
        assert!(has_length && body.is_empty(), "a HEAD has a length, and no body");
        return None;
    }
    assert_eq!(framing, Framing::Length(body.len()), "Content-Length");
    let content_type = head.field("content-type").expect("content has a type");
    let json = match content_type {
        "application/json" => body,
        "text/javascript; charset=utf-8" if body.starts_with(b"/**/") => {
            assert_eq!(head.status, 200, "a script tag sees no other");
            unwrap_script(body, asked.callback().expect("only who asks for a script gets one"))
        }
        _ => return None,
    };
    if asked.callback().is_none() {
        assert!(!body.starts_with(b"/**/"));
    }
    let value = parse_json(json);
    if let Some(status) = value.get("status").and_then(Value::as_u64) {
        assert!(value["error"].is_string() && value["detail"].is_string(), "{value}");
        assert!(status >= 400);
        assert!(head.status == status as u16 || (head.status == 200 && asked.callback().is_some()));
    } else {
        assert_eq!(head.status, 200, "{value}");
    }
    Some(value)
}

fn unwrap_script<'a>(body: &'a [u8], callback: &str) -> &'a [u8] {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "_$.[]".contains(character);
    assert!(
        !callback.is_empty() && callback.len() <= 128 && callback.chars().all(is_plain),
        "{callback:?}"
    );
    assert!(!callback.starts_with(|first: char| first.is_ascii_digit()), "{callback:?}");
    let start = format!("/**/{callback}(");
    let rest = body.strip_prefix(start.as_bytes()).expect("the callback's name and a parenthesis");
    rest.strip_suffix(b");").expect("the end of a call")
}

/// Parses JSON that is a script too.
pub(super) fn parse_json(json: &[u8]) -> Value {
    let text = str::from_utf8(json).expect("JSON is UTF-8").trim_end_matches('\n');
    assert!(!text.contains(['\u{2028}', '\u{2029}', '\n', '\r']), "a line end in {text:?}");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

/// Cuts the bytes of a stream into whole events or frames.
pub(super) fn items(mut cutter: Cutter, mut bytes: &[u8]) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    while !bytes.is_empty() {
        let item = cutter.next(bytes).expect("well formed").expect("all of it");
        bytes = &bytes[item.bytes.len()..];
        items.push(item);
    }
    items
}

/// Returns the texts in frames of the server.
pub(super) fn texts(bytes: &[u8]) -> Vec<&[u8]> {
    let frames = items(Cutter::new(Mode::Frames), bytes);
    assert!(frames.iter().all(|frame| frame.is_frame(ws::TEXT)), "texts in one frame each");
    frames.iter().map(Item::body).collect()
}

//! Answers in HTTP: that they hold what their heads say.

use serde_json::Value;
use speak::http::Method;

use super::asked::Asked;
use super::settings::LISTED;

/// The fields that an answer may have: one that is not among them came out of a request.
const FIELDS: [&str; 19] = [
    "content-type",
    "cache-control",
    "x-content-type-options",
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
    "access-control-max-age",
    "retry-after",
    "sec-websocket-version",
    "x-accel-buffering",
    "referrer-policy",
];

pub(super) struct Head {
    pub(super) status: u16,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The head at the start of `bytes`, and what is behind it.
    pub(super) fn parse(bytes: &[u8]) -> (Self, &[u8]) {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head ends");
        let head = str::from_utf8(&bytes[..end]).expect("a head is text");
        let mut lines = head.split("\r\n");
        let status =
            lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).expect("a status line");
        let (status, reason) = status.split_at(3);
        assert!(reason.len() > 2 && reason.starts_with(' '));
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(": ").expect("a field has a name and a value");
            assert!(!value.is_empty() && value.trim() == value, "{line:?}");
            assert!(value.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{line:?}");
            (name.to_ascii_lowercase(), value.to_owned())
        });
        let head = Self { status: status.parse().expect("three digits"), fields: fields.collect() };
        for (place, (name, _)) in head.fields.iter().enumerate() {
            // A file varies by its encoding and, with a list, by origin.
            let is_first =
                name == "vary" || head.fields[..place].iter().all(|(other, _)| other != name);
            assert!(is_first, "{name} twice");
        }
        (head, &bytes[end + 4..])
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(its_name, _)| its_name == name).map(|(_, value)| &**value)
    }

    /// What holds for every answer but one that changes the protocol.
    pub(super) fn check(&self, asked: &Asked, has_list: bool) {
        for (name, _) in &self.fields {
            assert!(FIELDS.contains(&&**name), "no answer has {name}");
        }
        assert_eq!(self.field("x-content-type-options"), Some("nosniff"));
        assert!(self.field("cache-control").is_some());
        assert_eq!(self.field("date").map(str::len), Some("Sun, 06 Nov 1994 08:49:37 GMT".len()));
        let is_listed =
            asked.origin.as_deref().is_some_and(|its| its.eq_ignore_ascii_case(LISTED.as_bytes()));
        let expected = match (has_list, is_listed) {
            (false, _) => Some("*"),
            (true, true) => Some(LISTED),
            (true, false) => None,
        };
        assert_eq!(self.field("access-control-allow-origin"), expected);
        let varies = self.fields.iter().any(|(name, value)| name == "vary" && value == "Origin");
        assert_eq!(varies, has_list);
    }
}

/// Checks one whole answer and returns the JSON in it, if it is that of a call.
pub(super) fn check(bytes: &[u8], asked: &Asked, has_list: bool, closes: bool) -> Option<Value> {
    let (head, body) = Head::parse(bytes);
    head.check(asked, has_list);
    assert_eq!(
        head.field("connection") == Some("close"),
        closes,
        "what a head says of the client's staying"
    );
    let length =
        head.field("content-length").map(|length| length.parse::<usize>().expect("a length"));
    if matches!(head.status, 204 | 304) {
        assert_eq!((length, body), (None, b"".as_slice()));
        return None;
    }
    if asked.method == Some(Method::Head) {
        assert!(length.is_some() && body.is_empty(), "a HEAD has no body, and tells of one");
        return None;
    }
    assert_eq!(length, Some(body.len()), "Content-Length");
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

/// JSON that is a script too.
pub(super) fn parse_json(json: &[u8]) -> Value {
    let text = str::from_utf8(json).expect("JSON is UTF-8").trim_end_matches('\n');
    assert!(!text.contains(['\u{2028}', '\u{2029}', '\n', '\r']), "a line end in {text:?}");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

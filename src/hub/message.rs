//! A message as it stands in a channel's log: the JSON that every reader gets.
//!
//! Encoded once, when it is written; reading is copying. The keys and their order
//! are PROTOCOL.md's "The answer of `/read`".

use std::io::Write;

use super::time::{Millis, Now};

/// Why a connection said goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing was heard of it for `connection-timeout`.
    Timeout,
    /// Its client closed a waiting read.
    Closed,
    /// It called `/goodbye`.
    Left,
}

impl Reason {
    /// As it stands in the message.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Left => "left",
        }
    }
}

/// What a new message says.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Message { from: Option<u64>, text: &'a str },
    Introduction { from: u64, text: &'a str },
    Goodbye { from: u64, reason: Reason, text: Option<&'a str> },
}

/// One retained message.
#[derive(Debug)]
pub(super) struct Entry {
    /// When it was added, for retention.
    pub(super) at: Millis,
    pub(super) json: Box<str>,
}

/// Encodes the message with this id.
pub(super) fn encode(id: u64, now: Now, content: Content<'_>) -> Box<str> {
    let (kind, from, text) = match content {
        Content::Message { from, text } => ("message", from, Some(text)),
        Content::Introduction { from, text } => ("introduction", Some(from), Some(text)),
        Content::Goodbye { from, text, .. } => ("goodbye", Some(from), text),
    };
    // Room for the keys and for the quotes: most texts are not escaped, and this allocates once.
    let mut json = Vec::with_capacity(112 + text.map_or(0, str::len));
    json.extend_from_slice(b"{\"id\":");
    push_number(&mut json, id);
    json.extend_from_slice(b",\"type\":\"");
    json.extend_from_slice(kind.as_bytes());
    json.extend_from_slice(b"\",\"time\":");
    push_number(&mut json, now.unix_ms);
    if let Some(from) = from {
        json.extend_from_slice(b",\"from\":");
        push_number(&mut json, from);
    }
    if let Some(text) = text {
        json.extend_from_slice(b",\"message\":");
        push_string(&mut json, text);
    }
    if let Content::Goodbye { reason, .. } = content {
        json.extend_from_slice(b",\"reason\":\"");
        json.extend_from_slice(reason.as_str().as_bytes());
        json.push(b'"');
    }
    json.push(b'}');
    into_text(json)
}

/// `text` as a JSON string, quotes included.
pub(super) fn string_literal(text: &str) -> Box<str> {
    let mut json = Vec::with_capacity(text.len() + 2);
    push_string(&mut json, text);
    into_text(json)
}

/// Appends a number in decimal digits.
pub(crate) fn push_number(json: &mut Vec<u8>, number: u64) {
    json.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends `text` as a JSON string that is also a JavaScript string: U+2028 and
/// U+2029, line ends there until ES2019, are escaped too.
pub(crate) fn push_string(json: &mut Vec<u8>, text: &str) {
    // E2 80 is where both begin; few other characters share it, and those only cost the slower way.
    if memchr::memmem::find(text.as_bytes(), b"\xe2\x80").is_none() {
        return push_escaped(json, text);
    }
    json.push(b'"');
    for piece in text.split_inclusive(['\u{2028}', '\u{2029}']) {
        let plain = piece.trim_end_matches(['\u{2028}', '\u{2029}']);
        let quoted_at = json.len();
        push_escaped(json, plain);
        json.remove(quoted_at);
        json.pop();
        for separator in piece[plain.len()..].chars() {
            write!(json, "\\u{:04x}", separator as u32).expect("a Vec takes everything");
        }
    }
    json.push(b'"');
}

fn push_escaped(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("a string is JSON and a Vec takes everything");
}

fn into_text(json: Vec<u8>) -> Box<str> {
    String::from_utf8(json).expect("made of str and ASCII").into_boxed_str()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Now = Now { mono: Millis(0), unix_ms: 1_763_802_330_123 };

    #[test]
    fn keys_stand_in_the_order_of_the_contract() {
        let cases = [
            (
                Content::Introduction { from: 1, text: "Josh" },
                r#"{"id":5,"type":"introduction","time":1763802330123,"from":1,"message":"Josh"}"#,
            ),
            (
                Content::Message { from: Some(1), text: "howdy" },
                r#"{"id":5,"type":"message","time":1763802330123,"from":1,"message":"howdy"}"#,
            ),
            (
                Content::Message { from: None, text: "" },
                r#"{"id":5,"type":"message","time":1763802330123,"message":""}"#,
            ),
            (
                Content::Goodbye { from: 1, reason: Reason::Timeout, text: None },
                r#"{"id":5,"type":"goodbye","time":1763802330123,"from":1,"reason":"timeout"}"#,
            ),
            (
                Content::Goodbye { from: 1, reason: Reason::Left, text: Some("bye") },
                r#"{"id":5,"type":"goodbye","time":1763802330123,"from":1,"message":"bye","reason":"left"}"#,
            ),
        ];
        for (content, json) in cases {
            assert_eq!(&*encode(5, NOW, content), json);
        }
    }

    #[test]
    fn what_ends_a_line_in_javascript_is_escaped() {
        let cases = [
            ("\u{2028}", r#""\u2028""#),
            ("a\u{2028}\u{2029}\u{2029}b\n", r#""a\u2028\u2029\u2029b\n""#),
            ("\u{2027}x\u{202a}", "\"\u{2027}x\u{202a}\""),
            ("\"\\\u{1}\u{7f}/", "\"\\\"\\\\\\u0001\u{7f}/\""),
        ];
        for (text, json) in cases {
            assert_eq!(&*string_literal(text), json);
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back_and_none_breaks_a_script(text in "(\\PC|[\u{2026}-\u{202a}\"\\\\\n\r\t\0])*") {
            let json = string_literal(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            let line_ends = ['\u{2028}', '\u{2029}', '\n', '\r'];
            prop_assert!(!json.contains(line_ends));
        }
    }
}

//! A message as it stands in a channel's log: the JSON that every reader gets.
//!
//! Encoded once, when it is written; reading is copying. docs/api.md lists the keys and their order
//! in its section on `/read`.

use std::io::Write;
use std::ops::Range;

use super::time::{Millis, Now};
use super::usage::ALLOCATION_BYTES;

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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Timeout, Self::Closed, Self::Left];

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
pub(super) enum MessageKind<'a> {
    Message { from: Option<u64>, text: &'a str },
    Introduction { from: u64, text: &'a str },
    Goodbye { from: u64, reason: Reason, text: Option<&'a str> },
}

/// One retained message.
#[derive(Debug)]
pub(super) struct Entry {
    /// When it was added, for retention.
    pub(super) at: Millis,
    /// UTF-8.
    pub(super) json: Box<[u8]>,
}

/// A message beside its JSON. A `VecDeque` has grown to twice what is in it, at most.
pub(super) const ENTRY_BYTES: usize = 2 * size_of::<Entry>() + ALLOCATION_BYTES;

/// Encodes the message with this id into `scratch`, and tells where in it the text stands as a JSON string.
pub(super) fn encode(
    scratch: &mut Vec<u8>,
    id: u64,
    now: Now,
    content: MessageKind<'_>,
) -> Range<usize> {
    let (kind, from, text): (&[u8], _, _) = match content {
        MessageKind::Message { from, text } => (b"message", from, Some(text)),
        MessageKind::Introduction { from, text } => (b"introduction", Some(from), Some(text)),
        MessageKind::Goodbye { from, text, .. } => (b"goodbye", Some(from), text),
    };
    scratch.clear();
    scratch.extend_from_slice(b"{\"id\":");
    push_number(scratch, id);
    scratch.extend_from_slice(b",\"type\":\"");
    scratch.extend_from_slice(kind);
    scratch.extend_from_slice(b"\",\"time\":");
    push_number(scratch, now.unix_ms);
    if let Some(from) = from {
        scratch.extend_from_slice(b",\"from\":");
        push_number(scratch, from);
    }
    let mut literal = 0..0;
    if let Some(text) = text {
        scratch.extend_from_slice(b",\"message\":");
        literal.start = scratch.len();
        push_string(scratch, text);
        literal.end = scratch.len();
    }
    if let MessageKind::Goodbye { reason, .. } = content {
        scratch.extend_from_slice(b",\"reason\":\"");
        scratch.extend_from_slice(reason.as_str().as_bytes());
        scratch.push(b'"');
    }
    scratch.push(b'}');
    literal
}

/// Appends a number in decimal digits.
#[inline]
pub(crate) fn push_number(json: &mut Vec<u8>, number: u64) {
    json.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends `text` as a JSON string that is also a JavaScript string: U+2028 and
/// U+2029, line ends there until ES2019, are escaped too.
pub(crate) fn push_string(json: &mut Vec<u8>, text: &str) {
    if is_plain(text.as_bytes()) {
        json.reserve(text.len() + 2);
        json.push(b'"');
        json.extend_from_slice(text.as_bytes());
        json.push(b'"');
    } else {
        push_escaped(json, text);
    }
}

/// Whether every byte may stand as it is. E2 begins U+2028 and U+2029, and others that only cost the longer way.
///
/// Looks at all bytes of a stretch before it decides, which the compiler makes into vector instructions.
fn is_plain(text: &[u8]) -> bool {
    let needs_care = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\' | 0xe2);
    text.chunks(64).all(|stretch| !stretch.iter().fold(false, |any, byte| any | needs_care(byte)))
}

#[cold]
fn push_escaped(json: &mut Vec<u8>, text: &str) {
    json.push(b'"');
    for piece in text.split_inclusive(['\u{2028}', '\u{2029}']) {
        let plain = piece.trim_end_matches(['\u{2028}', '\u{2029}']);
        let opened_at = json.len();
        serde_json::to_writer(&mut *json, plain)
            .expect("a string is JSON and a Vec takes everything");
        // Its quotes, within ours.
        json.remove(opened_at);
        json.pop();
        for separator in piece[plain.len()..].chars() {
            write!(json, "\\u{:04x}", separator as u32).expect("a Vec takes everything");
        }
    }
    json.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string_literal(text: &str) -> String {
        let mut json = Vec::new();
        push_string(&mut json, text);
        String::from_utf8(json).unwrap()
    }

    const NOW: Now = Now { mono: Millis(0), unix_ms: 1_763_802_330_123 };

    #[test]
    fn keys_stand_in_the_order_of_the_contract() {
        let cases = [
            (
                MessageKind::Introduction { from: 1, text: "Josh" },
                r#"{"id":5,"type":"introduction","time":1763802330123,"from":1,"message":"Josh"}"#,
            ),
            (
                MessageKind::Message { from: Some(1), text: "howdy" },
                r#"{"id":5,"type":"message","time":1763802330123,"from":1,"message":"howdy"}"#,
            ),
            (
                MessageKind::Message { from: None, text: "" },
                r#"{"id":5,"type":"message","time":1763802330123,"message":""}"#,
            ),
            (
                MessageKind::Goodbye { from: 1, reason: Reason::Timeout, text: None },
                r#"{"id":5,"type":"goodbye","time":1763802330123,"from":1,"reason":"timeout"}"#,
            ),
            (
                MessageKind::Goodbye { from: 1, reason: Reason::Left, text: Some("bye") },
                r#"{"id":5,"type":"goodbye","time":1763802330123,"from":1,"message":"bye","reason":"left"}"#,
            ),
        ];
        for (content, json) in cases {
            let mut scratch = b"what was before".to_vec();
            let literal = encode(&mut scratch, 5, NOW, content);
            assert_eq!(str::from_utf8(&scratch), Ok(json));
            let text = ["\"Josh\"", "\"howdy\"", "\"\"", "", "\"bye\""];
            assert!(text.contains(&str::from_utf8(&scratch[literal]).unwrap()));
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
            assert_eq!(string_literal(text), json);
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

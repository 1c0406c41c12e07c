//! Messages as JSON, in the form that every reader gets.
//!
//! A message is encoded once, when it is written; a read copies it. `docs/api.md` specifies the
//! keys and their order.

use std::borrow::Cow;
use std::ops::Range;

use minicbor::{Decode, Encode};

use super::bans::Address;
use super::time::{Millis, Now};
use super::usage::ALLOCATION_BYTES;

/// Text of an introduction that was removed, as a JSON string.
pub(super) const NO_TEXT: &[u8] = b"\"\"";

/// Reason of a goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Reason {
    /// The session had no call and no reader for `connection-timeout`.
    #[n(0)]
    Timeout,
    /// The client closed a reader of the session.
    #[n(1)]
    Closed,
    /// The client called `/goodbye`.
    #[n(2)]
    Left,
    /// The owner of the room, or the operator, called `/kick`.
    #[n(3)]
    Removed,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Timeout, Self::Closed, Self::Left, Self::Removed];

    /// Returns the reason as in the message.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Left => "left",
            Self::Removed => "removed",
        }
    }
}

/// Text of a message, escaped once for all channels and for the memory limit.
pub(super) struct JsonText<'a> {
    /// Contents of a JSON string, without the quotes.
    escaped: Cow<'a, str>,
}

impl<'a> JsonText<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        if is_plain(text.as_bytes()) {
            return Self { escaped: Cow::Borrowed(text) };
        }
        let mut json = Vec::new();
        push_escaped(&mut json, text);
        json.pop();
        let escaped = String::from_utf8(json.split_off(1)).expect("JSON of a string is UTF-8");
        Self { escaped: Cow::Owned(escaped) }
    }

    /// Makes what [`JsonText::new`] does of a text of which it is known whether it is the contents
    /// of a JSON string as it is.
    pub(super) fn of_known(text: &'a str, is_plain: bool) -> Self {
        if !is_plain {
            return Self::new(text);
        }
        debug_assert!(self::is_plain(text.as_bytes()), "the text is as it was");
        Self { escaped: Cow::Borrowed(text) }
    }

    /// Returns whether the text is the contents of a JSON string as it is.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.escaped, Cow::Borrowed(_))
    }

    /// Returns the length of the JSON string, without the quotes.
    pub(super) fn len(&self) -> usize {
        self.escaped.len()
    }

    fn push(&self, json: &mut Vec<u8>) {
        json.reserve(self.len() + 2);
        json.push(b'"');
        json.extend_from_slice(self.escaped.as_bytes());
        json.push(b'"');
    }
}

/// Kind and contents of a new message.
#[derive(Clone, Copy)]
pub(super) enum MessageKind<'a> {
    Message {
        from: Option<u64>,
        /// Written under the name of the room's owner.
        is_owner: bool,
        text: &'a JsonText<'a>,
    },
    Introduction {
        from: u64,
        /// Introduced under the name of the room's owner.
        is_owner: bool,
        /// Address of the client. Readers do not get it.
        address: Option<Address>,
        text: &'a JsonText<'a>,
    },
    Goodbye {
        from: u64,
        reason: Reason,
        text: Option<&'a JsonText<'a>>,
    },
    /// The message with the id `of` was removed.
    Removal {
        of: u64,
    },
}

/// One retained message.
#[derive(Debug)]
pub(super) struct Entry {
    /// Time at which the message was added, for retention.
    pub(super) at: Millis,
    /// JSON object in UTF-8.
    pub(super) json: Box<[u8]>,
}

/// Memory of a message without its JSON. The capacity of a `VecDeque` is at most twice its length.
pub(super) const ENTRY_BYTES: usize = 2 * size_of::<Entry>() + ALLOCATION_BYTES;

/// Encodes a message into `scratch`. Returns the range of its text, as a JSON string with quotes;
/// empty if it has no text.
pub(super) fn encode(
    scratch: &mut Vec<u8>,
    id: u64,
    now: Now,
    kind: MessageKind<'_>,
) -> Range<usize> {
    let (name, from, is_owner, text): (&[u8], _, _, _) = match kind {
        MessageKind::Message { from, is_owner, text } => (b"message", from, is_owner, Some(text)),
        MessageKind::Introduction { from, is_owner, text, .. } => {
            (b"introduction", Some(from), is_owner, Some(text))
        }
        MessageKind::Goodbye { from, text, .. } => (b"goodbye", Some(from), false, text),
        MessageKind::Removal { .. } => (b"removal", None, false, None),
    };
    scratch.clear();
    scratch.extend_from_slice(b"{\"id\":");
    push_number(scratch, id);
    scratch.extend_from_slice(b",\"type\":\"");
    scratch.extend_from_slice(name);
    scratch.extend_from_slice(b"\",\"time\":");
    push_number(scratch, now.unix_ms);
    if let Some(from) = from {
        scratch.extend_from_slice(b",\"from\":");
        push_number(scratch, from);
    }
    if is_owner {
        scratch.extend_from_slice(b",\"owner\":true");
    }
    let mut literal = 0..0;
    if let Some(text) = text {
        scratch.extend_from_slice(b",\"message\":");
        literal.start = scratch.len();
        text.push(scratch);
        literal.end = scratch.len();
    }
    match kind {
        MessageKind::Goodbye { reason, .. } => {
            scratch.extend_from_slice(b",\"reason\":\"");
            scratch.extend_from_slice(reason.as_str().as_bytes());
            scratch.push(b'"');
        }
        MessageKind::Removal { of } => {
            scratch.extend_from_slice(b",\"of\":");
            push_number(scratch, of);
        }
        MessageKind::Message { .. } | MessageKind::Introduction { .. } => {}
    }
    scratch.push(b'}');
    literal
}

/// Appends a number in decimal digits.
#[inline]
pub(crate) fn push_number(json: &mut Vec<u8>, number: u64) {
    json.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends `text` as a JSON string that is also a JavaScript string. So U+2028 and U+2029, which
/// end a line in JavaScript before ES2019, are escaped too.
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

/// Returns whether no byte needs an escape. E2 is the first byte of U+2028 and U+2029; other
/// characters with this first byte only take the slower path.
///
/// Looks at all bytes of a chunk before it decides, so that the compiler can use vector
/// instructions.
fn is_plain(text: &[u8]) -> bool {
    let may_need_escape = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\' | 0xe2);
    text.chunks(64).all(|chunk| !chunk.iter().fold(false, |any, byte| any | may_need_escape(byte)))
}

/// Appends `text` as a JSON string, byte by byte. The escapes are those of RFC 8259, section 7, the
/// short ones where there are any.
#[inline(never)]
fn push_escaped(json: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    json.reserve(bytes.len() + 2);
    json.push(b'"');
    // Index of the first byte that is not appended yet.
    let mut from = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0x00..0x20 => b'u',
            // U+2028 and U+2029.
            0xe2 if matches!(bytes[index + 1..], [0x80, 0xa8 | 0xa9, ..]) => b'u',
            _ => continue,
        };
        if from < index {
            json.extend_from_slice(&bytes[from..index]);
        }
        from = index + 1;
        json.extend_from_slice(&[b'\\', short]);
        if byte == 0xe2 {
            json.extend_from_slice(&[b'2', b'0', b'2', HEX[usize::from(bytes[index + 2] & 15)]]);
            from = index + 3;
        } else if short == b'u' {
            let [high, low] = [byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]);
            json.extend_from_slice(&[b'0', b'0', high, low]);
        }
    }
    json.extend_from_slice(&bytes[from..]);
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
    fn keys_have_the_documented_order() {
        let [josh, howdy, empty, bye] = ["Josh", "howdy", "", "bye"].map(JsonText::new);
        let cases = [
            (
                MessageKind::Introduction { from: 1, is_owner: false, address: None, text: &josh },
                r#"{"id":5,"type":"introduction","time":1763802330123,"from":1,"message":"Josh"}"#,
            ),
            (
                MessageKind::Message { from: Some(1), is_owner: false, text: &howdy },
                r#"{"id":5,"type":"message","time":1763802330123,"from":1,"message":"howdy"}"#,
            ),
            (
                MessageKind::Message { from: None, is_owner: false, text: &empty },
                r#"{"id":5,"type":"message","time":1763802330123,"message":""}"#,
            ),
            (
                MessageKind::Message { from: Some(1), is_owner: true, text: &howdy },
                concat!(
                    r#"{"id":5,"type":"message","time":1763802330123,"#,
                    r#""from":1,"owner":true,"message":"howdy"}"#
                ),
            ),
            (
                MessageKind::Message { from: None, is_owner: true, text: &howdy },
                r#"{"id":5,"type":"message","time":1763802330123,"owner":true,"message":"howdy"}"#,
            ),
            (
                MessageKind::Removal { of: 3 },
                r#"{"id":5,"type":"removal","time":1763802330123,"of":3}"#,
            ),
            (
                MessageKind::Goodbye { from: 1, reason: Reason::Timeout, text: None },
                r#"{"id":5,"type":"goodbye","time":1763802330123,"from":1,"reason":"timeout"}"#,
            ),
            (
                MessageKind::Goodbye { from: 1, reason: Reason::Left, text: Some(&bye) },
                concat!(
                    r#"{"id":5,"type":"goodbye","time":1763802330123,"#,
                    r#""from":1,"message":"bye","reason":"left"}"#
                ),
            ),
        ];
        for (kind, json) in cases {
            let mut scratch = b"earlier contents".to_vec();
            let literal = encode(&mut scratch, 5, NOW, kind);
            assert_eq!(str::from_utf8(&scratch), Ok(json));
            let text = ["\"Josh\"", "\"howdy\"", "\"\"", "", "\"bye\""];
            assert!(text.contains(&str::from_utf8(&scratch[literal]).unwrap()));
        }
    }

    #[test]
    fn line_ends_of_javascript_are_escaped() {
        let cases = [
            ("\u{2028}", r#""\u2028""#),
            ("a\u{2028}\u{2029}\u{2029}b\n", r#""a\u2028\u2029\u2029b\n""#),
            ("\u{2027}x\u{202a}", "\"\u{2027}x\u{202a}\""),
            ("\"\\\u{1}\u{7f}/", "\"\\\"\\\\\\u0001\u{7f}/\""),
            ("\t\n\r\u{8}\u{c}\u{1f} ", r#""\t\n\r\b\f\u001f ""#),
        ];
        for (text, json) in cases {
            assert_eq!(string_literal(text), json);
        }
    }

    /// Any text, with line ends and characters to escape.
    const TEXT: &str = "(\\PC|[\u{2026}-\u{202a}\"\\\\\n\r\t\0])*";

    proptest! {
        #[test]
        fn every_text_survives_and_no_text_ends_a_line_of_a_script(text in TEXT) {
            let json = string_literal(&text);
            prop_assert_eq!(&serde_json::from_str::<String>(&json).unwrap(), &text);
            let line_ends = ['\u{2028}', '\u{2029}', '\n', '\r'];
            prop_assert!(!json.contains(line_ends));
            let mut shared = Vec::new();
            JsonText::new(&text).push(&mut shared);
            prop_assert_eq!(shared, json.as_bytes());
        }
    }
}

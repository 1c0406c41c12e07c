//! Ids of entries in a Redis stream.

use std::fmt;

use minicbor::{Decode, Encode};

/// Id of an entry: the time of Redis at which it was added, and a number among those of that
/// millisecond. Ids of a stream rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct StreamId {
    /// Milliseconds since 1970.
    #[n(0)]
    pub unix_ms: u64,
    /// Number of the entry in its millisecond.
    #[n(1)]
    pub number: u64,
}

impl StreamId {
    /// Parses the form in which Redis writes ids.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|byte| *byte == b'-')?;
        Some(Self { unix_ms: number(&text[..dash])?, number: number(&text[dash + 1..])? })
    }

    /// Returns the form in which Redis writes ids.
    pub(super) fn text(self) -> IdText {
        let mut text = IdText { bytes: [0; IdText::LENGTH_MAX], length: 0 };
        let mut buffer = itoa::Buffer::new();
        text.push(buffer.format(self.unix_ms));
        text.push("-");
        text.push(buffer.format(self.number));
        text
    }
}

/// Parses a number, one of which comes with each record: so without a detour by way of a string.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Text of an id, as Redis takes it. One goes out with each page, so it takes no memory.
pub(super) struct IdText {
    bytes: [u8; IdText::LENGTH_MAX],
    length: usize,
}

impl IdText {
    /// Two numbers of 20 digits, and a dash.
    const LENGTH_MAX: usize = 41;

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, text: &str) {
        let end = self.length + text.len();
        self.bytes[self.length..end].copy_from_slice(text.as_bytes());
        self.length = end;
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.unix_ms, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_as_they_are_written_and_ordered_as_in_the_stream() {
        let id = StreamId { unix_ms: 1_700_000_000_000, number: 7 };
        assert_eq!(StreamId::parse(id.to_string().as_bytes()), Some(id));
        for id in [id, StreamId::default(), StreamId { unix_ms: u64::MAX, number: u64::MAX }] {
            assert_eq!(id.text().as_bytes(), id.to_string().as_bytes());
        }
        let refused =
            ["", "5", "5-", "-5", "a-1", "1-2-3", "\u{e9}-1", "+1-2", "18446744073709551616-1"];
        for text in refused {
            assert_eq!(StreamId::parse(text.as_bytes()), None, "{text}");
        }
        assert!(id < StreamId { number: 8, ..id });
        assert!(StreamId { number: 9, ..id } < StreamId { unix_ms: id.unix_ms + 1, number: 0 });
    }
}

//! What is said in a room. A text tells by itself who said it, where, and as which of his words, so that every reader
//! can check it without being told.

use std::fmt::Write as _;

/// What a text is put together from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Whose word it is: a TCP connection, since order is promised only there.
    pub(super) voice: u32,
    /// Rises with each word of a voice.
    pub(super) seq: u32,
    pub(super) room: u32,
    /// The connection that the message must be `from`: 0 for none. Of a first introduction nobody knows it yet.
    pub(super) from: u64,
    /// Bytes of filler, at least.
    pub(super) filler: u32,
}

/// Among them what JSON, forms and scripts have to escape.
const FILLER: [&str; 8] = ["x", " ", "é", "\"", "&+%", "\\", "\u{2028}", "\n"];

impl Parsed {
    pub(super) fn text(&self) -> String {
        let Self { voice, seq, room, from, filler } = *self;
        let mut text = format!("{voice}.{seq}.{room}.{from}.{filler}.");
        let end = text.len() + filler as usize;
        let mut step = voice.wrapping_mul(31).wrapping_add(seq) as usize;
        while text.len() < end {
            // Mostly plain, as people's words are.
            let piece =
                if step.is_multiple_of(5) { FILLER[step / 5 % FILLER.len()] } else { "word" };
            text.push_str(piece);
            step += 1;
        }
        text
    }

    /// None of what nobody here can have said.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(6, '.');
        let said = Self {
            voice: parts.next()?.parse().ok()?,
            seq: parts.next()?.parse().ok()?,
            room: parts.next()?.parse().ok()?,
            from: parts.next()?.parse().ok()?,
            filler: parts.next()?.parse().ok()?,
        };
        (said.filler < 100_000 && said.text() == text).then_some(said)
    }
}

/// Appends a value as HTML forms spell it.
pub(super) fn push_encoded(out: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_known_again_and_a_changed_one_is_not() {
        for seq in 0..100 {
            let said = Parsed { voice: 7, seq, room: 3, from: 12, filler: 3 * seq };
            let text = said.text();
            assert_eq!(Parsed::parse(&text), Some(said));
            assert_eq!(Parsed::parse(&(text.clone() + "x")), None);
            let mut shorter = text;
            shorter.pop();
            assert_eq!(Parsed::parse(&shorter), None, "{shorter}");
        }
        assert_eq!(Parsed::parse("hello"), None);
    }
}

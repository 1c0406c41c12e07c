//! Texts that say themselves who sent them, where, and as which of his texts, so that each reader
//! can check them.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// TCP connection that carries it: order is promised only there.
    pub sender: u32,
    /// Rises with each text of a sender.
    pub seq: u32,
    /// Channel, or [`Text::EVERY_CHANNEL`].
    pub channel: u32,
    /// Session that the message must be from; 0 for none, and for a first introduction.
    pub from: u64,
    /// Least number of bytes of filler.
    pub filler: u32,
}

/// Among them all that JSON, forms and scripts have to escape.
const FILLER: [&str; 8] = ["x", " ", "é", "\"", "&+%", "\\", "\u{2028}", "\n"];

impl Text {
    /// Channel of the text of a goodbye to all channels of a session.
    pub const EVERY_CHANNEL: u32 = u32::MAX;

    pub fn write(&self) -> String {
        let Self { sender, seq, channel, from, filler } = *self;
        let mut text = format!("{sender}.{seq}.{channel}.{from}.{filler}.");
        let end = text.len() + filler as usize;
        let mut step = sender.wrapping_mul(31).wrapping_add(seq) as usize;
        while text.len() < end {
            // Mostly plain, as in life.
            let is_plain = !step.is_multiple_of(5);
            text.push_str(if is_plain { "word" } else { FILLER[step / 5 % FILLER.len()] });
            step += 1;
        }
        text
    }

    /// Parses a text; `None` if it is not exactly as a sender writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(6, '.');
        let parsed = Self {
            sender: parts.next()?.parse().ok()?,
            seq: parts.next()?.parse().ok()?,
            channel: parts.next()?.parse().ok()?,
            from: parts.next()?.parse().ok()?,
            filler: parts.next()?.parse().ok()?,
        };
        (parsed.filler < 100_000 && parsed.write() == text).then_some(parsed)
    }

    pub fn key(&self) -> (u32, u32) {
        (self.sender, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_recognized_and_a_changed_one_is_not() {
        for seq in 0..100 {
            let written = Text { sender: 7, seq, channel: 3, from: 12, filler: 3 * seq };
            let text = written.write();
            assert_eq!(Text::parse(&text), Some(written));
            assert_eq!(Text::parse(&(text.clone() + "x")), None);
            let mut shorter = text;
            shorter.pop();
            assert_eq!(Text::parse(&shorter), None, "{shorter}");
        }
        assert_eq!(Text::parse("hello"), None);
    }
}

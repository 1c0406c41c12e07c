//! Choices from the bytes of an input, so that an input can be written by hand: a digit chooses by
//! its value, a letter chooses the item that it is the key of. Every input is valid. After its end,
//! all choices are the first.

/// An input, taken from the front.
pub(crate) struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the next byte; 0 after the end.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return b'0' };
        self.rest = rest;
        *first
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        number(self.byte()) % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub(crate) fn key(&mut self, keys: &[u8]) -> u8 {
        let byte = self.byte();
        if keys.contains(&byte) { byte } else { keys[usize::from(byte) % keys.len()] }
    }

    /// Takes all bytes up to `end`, and that byte, or all that are left.
    pub(crate) fn up_to(&mut self, end: u8) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| *byte == end).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest.get(1..).unwrap_or_default();
        taken
    }

    pub(crate) fn line(&mut self) -> &'a [u8] {
        self.up_to(b'\n')
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// A digit is its value, any other byte itself.
fn number(byte: u8) -> usize {
    usize::from(if byte.is_ascii_digit() { byte - b'0' } else { byte })
}

/// Cuts `bytes` into pieces of these sizes, again and again. The size is 1 if none is given, or it
/// is 0.
pub(crate) fn pieces<'a>(bytes: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let sizes = if sizes.is_empty() { b"1" } else { sizes };
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(number(*size).clamp(1, rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

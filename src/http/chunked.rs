//! Decoder for chunked request bodies (RFC 9112, section 7.1). Decodes in place, as bytes arrive.
//!
//! Strict where two parsers of the same bytes could disagree: a line ends with CRLF, and a size has
//! hexadecimal digits and nothing else.

use super::parse_error::ParseError;

/// Bytes of all chunk extensions and trailers of a body. A body with more is rejected.
const EXTENSION_BYTES_MAX: usize = 4096;
/// Digits of a chunk size. More digits are rejected.
const SIZE_DIGITS_MAX: u8 = 16;

const BAD_SIZE: ParseError =
    ParseError::BadRequest("malformed chunk size; send hexadecimal digits, then CRLF");
const BAD_END: ParseError =
    ParseError::BadRequest("the data of a chunk must have its size, then CRLF");
const BAD_TRAILER: ParseError =
    ParseError::BadRequest("malformed trailer; send 'name: value', then CRLF");

/// Progress in a chunked body.
///
/// The buffer has four parts: the head; decoded bytes up to `decoded`; obsolete bytes; and from
/// `consumed` on, bytes that are not decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkedDecoder {
    /// End of the decoded bytes.
    pub(super) decoded: usize,
    /// Index of the first byte that was not decoded.
    pub(super) consumed: usize,
    /// Size of the decoded body, including the rest of the current chunk.
    body_bytes: usize,
    /// Bytes of extensions and trailers so far.
    extension_bytes: usize,
    state: State,
}

/// State of the decoder, named after the next part of the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        bytes: u64,
        digits: u8,
    },
    /// White space before an extension.
    Space {
        bytes: u64,
    },
    Extension {
        bytes: u64,
    },
    SizeLineFeed {
        bytes: u64,
    },
    Data {
        left: usize,
    },
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl ChunkedDecoder {
    /// Creates a decoder for a body that begins at this index of the buffer.
    pub(super) fn at(start: usize) -> Self {
        Self {
            decoded: start,
            consumed: start,
            body_bytes: 0,
            extension_bytes: 0,
            state: State::Size { bytes: 0, digits: 0 },
        }
    }

    /// Decodes the bytes that have arrived. Returns true when the body is complete.
    ///
    /// # Errors
    ///
    /// [`ParseError::BadRequest`] for broken framing, [`ParseError::BodyTooLarge`] for a body above
    /// `body_bytes_max`, [`ParseError::HeadersTooLarge`] for too many extensions and trailers.
    pub(super) fn decode(
        &mut self,
        buffer: &mut [u8],
        body_bytes_max: usize,
    ) -> Result<bool, ParseError> {
        while self.state != State::Done {
            if let State::Data { left } = self.state {
                let arrived = left.min(buffer.len() - self.consumed);
                buffer.copy_within(self.consumed..self.consumed + arrived, self.decoded);
                self.consumed += arrived;
                self.decoded += arrived;
                if arrived < left {
                    self.state = State::Data { left: left - arrived };
                    return Ok(false);
                }
                self.state = State::DataReturn;
            }
            let Some(byte) = buffer.get(self.consumed) else { return Ok(false) };
            self.consumed += 1;
            self.state = self.step(*byte, body_bytes_max)?;
        }
        Ok(true)
    }

    /// Returns the state after one byte of the framing.
    fn step(&mut self, byte: u8, body_bytes_max: usize) -> Result<State, ParseError> {
        match self.state {
            State::Size { .. }
            | State::Space { .. }
            | State::Extension { .. }
            | State::SizeLineFeed { .. } => self.step_size(byte, body_bytes_max),
            State::DataReturn if byte == b'\r' => Ok(State::DataLineFeed),
            State::DataLineFeed if byte == b'\n' => Ok(State::Size { bytes: 0, digits: 0 }),
            State::DataReturn | State::DataLineFeed => Err(BAD_END),
            State::TrailerStart
            | State::TrailerName
            | State::TrailerValue
            | State::TrailerLineFeed
            | State::LastLineFeed => self.step_trailer(byte),
            State::Data { .. } | State::Done => {
                unreachable!("`decode` does not step through these")
            }
        }
    }

    /// Returns the state after a byte of the line with the size of a chunk.
    fn step_size(&mut self, byte: u8, body_bytes_max: usize) -> Result<State, ParseError> {
        match (self.state, byte) {
            (State::Size { bytes, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(BAD_SIZE);
                }
                let digit = char::from(byte).to_digit(16).expect("a hexadecimal digit");
                Ok(State::Size { bytes: bytes << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::Size { digits: 0, .. }, _) => Err(BAD_SIZE),
            (State::Size { bytes, .. } | State::Extension { bytes }, b'\r') => {
                Ok(State::SizeLineFeed { bytes })
            }
            (State::Size { bytes, .. } | State::Space { bytes }, b';') => {
                Ok(State::Extension { bytes })
            }
            (State::Size { bytes, .. } | State::Space { bytes }, b' ' | b'\t') => {
                self.count_extension()?;
                Ok(State::Space { bytes })
            }
            (State::Extension { bytes }, _) if is_text(byte) => {
                self.count_extension()?;
                Ok(State::Extension { bytes })
            }
            (State::SizeLineFeed { bytes: 0 }, b'\n') => Ok(State::TrailerStart),
            (State::SizeLineFeed { bytes }, b'\n') => {
                let left = usize::try_from(bytes).map_err(|_| ParseError::BodyTooLarge)?;
                if left > body_bytes_max - self.body_bytes {
                    return Err(ParseError::BodyTooLarge);
                }
                self.body_bytes += left;
                Ok(State::Data { left })
            }
            _ => Err(BAD_SIZE),
        }
    }

    /// Returns the state after a byte of the trailers, or of the empty line that ends the body.
    fn step_trailer(&mut self, byte: u8) -> Result<State, ParseError> {
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::LastLineFeed),
            (State::TrailerStart | State::TrailerName, _) if is_name(byte) => {
                self.count_extension()?;
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerValue, _) if is_text(byte) => {
                self.count_extension()?;
                Ok(State::TrailerValue)
            }
            (State::TrailerLineFeed, b'\n') => Ok(State::TrailerStart),
            (State::LastLineFeed, b'\n') => Ok(State::Done),
            _ => Err(BAD_TRAILER),
        }
    }

    fn count_extension(&mut self) -> Result<(), ParseError> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            Err(ParseError::HeadersTooLarge)
        } else {
            Ok(())
        }
    }
}

/// Returns whether an extension or a field value may have this byte: no control character except
/// the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Returns whether the byte is a `tchar` (RFC 9110, section 5.6.2).
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

//! Chunked request bodies (RFC 9112, section 7.1), decoded in place as they come.
//!
//! Strict where two readers of the same bytes could disagree: line ends are CRLF,
//! a size is hexadecimal digits and nothing else.

use super::parse_error::ParseError;

/// Bytes of chunk extensions and trailers, together, before we lose interest.
const EXTENSION_BYTES_MAX: usize = 4096;
/// More digits than this cannot be a size.
const SIZE_DIGITS_MAX: u8 = 16;

/// How far a chunked body has been decoded.
///
/// The buffer reads: head, decoded bytes up to `decoded`, bytes of no more use, bytes to come from `raw` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkedDecoder {
    /// End of the decoded bytes.
    pub(super) decoded: usize,
    /// The first byte not looked at.
    pub(super) consumed: usize,
    /// Length of the decoded bytes alone.
    body_bytes: usize,
    extras_bytes: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        bytes: u64,
        digits: u8,
    },
    /// White space that an extension may have before it.
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
    /// A body that begins at this place of the buffer.
    pub(super) fn at(start: usize) -> Self {
        Self {
            decoded: start,
            consumed: start,
            body_bytes: 0,
            extras_bytes: 0,
            state: State::Size { bytes: 0, digits: 0 },
        }
    }

    /// Decodes what has come; true when the body is whole.
    ///
    /// # Errors
    ///
    /// [`Reject::BadRequest`] for broken framing, [`Reject::BodyTooLarge`] above `body_bytes_max`.
    pub(super) fn decode(
        &mut self,
        buffer: &mut [u8],
        body_bytes_max: usize,
    ) -> Result<bool, ParseError> {
        while self.state != State::Done {
            if let State::Data { left } = self.state {
                let here = left.min(buffer.len() - self.consumed);
                buffer.copy_within(self.consumed..self.consumed + here, self.decoded);
                self.consumed += here;
                self.decoded += here;
                if here < left {
                    self.state = State::Data { left: left - here };
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

    /// What one byte of the framing does.
    #[expect(clippy::match_same_arms, reason = "the states stand in the order of the grammar")]
    fn step(&mut self, byte: u8, body_bytes_max: usize) -> Result<State, ParseError> {
        const BAD_SIZE: ParseError =
            ParseError::BadRequest("a chunk size is hexadecimal digits, then CRLF");
        const BAD_TRAILER: ParseError =
            ParseError::BadRequest("a trailer is 'name: value', then CRLF");
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
            (State::Size { .. } | State::Space { .. } | State::Extension { .. }, _) => {
                Err(BAD_SIZE)
            }
            (State::SizeLineFeed { bytes: 0 }, b'\n') => Ok(State::TrailerStart),
            (State::SizeLineFeed { bytes }, b'\n') => {
                let room = body_bytes_max - self.body_bytes;
                let left = usize::try_from(bytes)
                    .ok()
                    .filter(|bytes| *bytes <= room)
                    .ok_or(ParseError::BodyTooLarge)?;
                self.body_bytes += left;
                Ok(State::Data { left })
            }
            (State::SizeLineFeed { .. }, _) => Err(BAD_SIZE),
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::Size { bytes: 0, digits: 0 }),
            (State::DataReturn | State::DataLineFeed, _) => {
                Err(ParseError::BadRequest("a chunk is as long as its size says, then CRLF"))
            }
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
            (
                State::TrailerStart
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerLineFeed
                | State::LastLineFeed,
                _,
            ) => Err(BAD_TRAILER),
            (State::Data { .. } | State::Done, _) => {
                unreachable!("`advance` does not step through these")
            }
        }
    }

    fn count_extension(&mut self) -> Result<(), ParseError> {
        self.extras_bytes += 1;
        if self.extras_bytes > EXTENSION_BYTES_MAX {
            Err(ParseError::HeadersTooLarge)
        } else {
            Ok(())
        }
    }
}

/// What may stand in an extension or a field value: no control character but a tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// RFC 9110's `tchar`.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

//! Secrets, epochs and other random tokens.

use std::fmt;
use std::hint::black_box;

/// Largest id or integer parameter. Below 2^53, so that a JavaScript number holds it exactly.
pub const ID_MAX: u64 = (1 << 53) - 1;

/// Length of every secret: 62^22 is 131 bits.
pub const TOKEN_BYTES: usize = 22;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Draws `N` characters of A–Z a–z 0–9, each equally likely, from a source of random bytes.
///
/// Skips bytes of 248 and above. 248 is the largest multiple of 62 in a byte, so the remainder of a
/// smaller byte favours no character.
pub fn token<const N: usize>(mut random_byte: impl FnMut() -> u8) -> [u8; N] {
    std::array::from_fn(|_| {
        loop {
            let byte = usize::from(random_byte());
            if byte < 4 * ALPHABET.len() {
                return ALPHABET[byte % ALPHABET.len()];
            }
        }
    })
}

/// Tokens in CBOR: bytes that are characters of [`token`]. A log that another program has written
/// may have others, which would be no text.
pub(super) mod cbor {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    pub(in crate::hub) fn encode<C, W: Write, const N: usize>(
        token: &[u8; N],
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        minicbor::bytes::encode(token, encoder, context)
    }

    pub(in crate::hub) fn decode<C, const N: usize>(
        decoder: &mut Decoder<'_>,
        context: &mut C,
    ) -> Result<[u8; N], DecodeError> {
        let token: [u8; N] = minicbor::bytes::decode(decoder, context)?;
        let is_token = token.iter().all(u8::is_ascii_alphanumeric);
        is_token.then_some(token).ok_or_else(|| DecodeError::message("no token"))
    }
}

/// Secret of a session. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth([u8; TOKEN_BYTES]);

impl Auth {
    /// Makes a secret of 22 characters of [`token`].
    #[must_use]
    pub fn new(token: [u8; TOKEN_BYTES]) -> Self {
        Self(token)
    }

    /// Returns the secret itself, for the response to `/introduce` and for snapshots.
    #[must_use]
    pub fn reveal(&self) -> &str {
        ascii(&self.0)
    }

    /// Returns the bytes of the secret, for a command.
    pub(super) fn as_bytes(&self) -> &[u8; TOKEN_BYTES] {
        &self.0
    }

    /// Compares in constant time: the duration does not depend on how much of a guess is right.
    #[must_use]
    pub fn matches(&self, guess: &str) -> bool {
        let guess = guess.as_bytes();
        if guess.len() != TOKEN_BYTES {
            return false;
        }
        let difference = self.0.iter().zip(guess).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
        difference == 0
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(…)")
    }
}

/// Name of a numbering of ids. A start without a snapshot draws a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch([u8; 8]);

impl Epoch {
    /// Makes an epoch of 8 characters of [`token`].
    #[must_use]
    pub fn new(token: [u8; 8]) -> Self {
        Self(token)
    }

    /// Returns the epoch as bytes, as in responses.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

fn ascii(token: &[u8]) -> &str {
    str::from_utf8(token).expect("tokens are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_character_is_equally_likely() {
        // Each of the 256 bytes twice: 248 of them give each character four times.
        let mut bytes = (0..=255u8).cycle();
        let token: [u8; 496] = token(|| bytes.next().unwrap());
        for character in ALPHABET {
            assert_eq!(token.split(|byte| byte == character).count(), 1 + 2 * 4);
        }
    }

    #[test]
    fn only_the_complete_secret_matches() {
        let auth = Auth::new(*b"ABCDEFGHIJKLMNOPQRSTUV");
        assert!(auth.matches("ABCDEFGHIJKLMNOPQRSTUV"));
        for wrong in [
            "",
            "ABCDEFGHIJKLMNOPQRSTU",
            "ABCDEFGHIJKLMNOPQRSTUVW",
            "bBCDEFGHIJKLMNOPQRSTUV",
            "ABCDEFGHIJKLMNOPQRSTUv",
        ] {
            assert!(!auth.matches(wrong), "{wrong}");
        }
        assert_eq!(format!("{auth:?}"), "Auth(…)");
    }
}

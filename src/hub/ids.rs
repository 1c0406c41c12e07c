//! Secrets and short random names.

use std::fmt;
use std::hint::black_box;

/// The largest id or integer parameter: below 2^53, so that a JavaScript number holds it exactly.
pub const ID_MAX: u64 = (1 << 53) - 1;

/// Length of every secret name: 62^22 is 131 bits.
pub const TOKEN_BYTES: usize = 22;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// `N` characters of A–Z a–z 0–9, each equally likely, from a source of random bytes.
///
/// Bytes of 248 and above are thrown away: 248 is the largest multiple of 62 in a
/// byte, so a remainder taken below it favours no character.
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

/// The secret that proves who a connection is. Prints as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth([u8; TOKEN_BYTES]);

impl Auth {
    /// Takes 22 characters made by [`token`].
    #[must_use]
    pub fn new(token: [u8; TOKEN_BYTES]) -> Self {
        Self(token)
    }

    /// The secret itself, for the one answer that tells it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        ascii(&self.0)
    }

    /// Compares without stopping at the first difference, so that the time taken
    /// tells nothing about how much of a guess was right.
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

/// Names one numbering of ids: fresh at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch([u8; 8]);

impl Epoch {
    /// Takes 8 characters made by [`token`].
    #[must_use]
    pub fn new(token: [u8; 8]) -> Self {
        Self(token)
    }

    /// As it stands in answers.
    #[must_use]
    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }

    /// The same as bytes, which costs no check.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

fn ascii(token: &[u8]) -> &str {
    str::from_utf8(token).expect("tokens are made of ASCII characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_is_equally_likely() {
        // All 256 bytes once: 248 of them are used, each character four times.
        let mut bytes = (0..=255u8).cycle();
        let token: [u8; 248] = token(|| bytes.next().unwrap());
        for character in ALPHABET {
            assert_eq!(token.split(|byte| byte == character).count(), 1 + 4);
        }
    }

    #[test]
    fn only_the_whole_secret_matches() {
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

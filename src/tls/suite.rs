//! Cipher suites of TLS 1.3, and how their keys follow from a traffic secret.

use ring::{aead, hkdf};

/// Cipher suite of a connection. The numbers are those of an exported connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Suite {
    /// `TLS_AES_128_GCM_SHA256`. Every client has it (RFC 8446, section 9.1), and the server
    /// prefers it, so nearly all connections use it.
    Aes128Gcm = 1,
    /// `TLS_AES_256_GCM_SHA384`.
    Aes256Gcm = 2,
    /// `TLS_CHACHA20_POLY1305_SHA256`.
    ChaCha20Poly1305 = 3,
}

/// Length of an AEAD tag: the same for all suites.
pub(super) const TAG_BYTES: usize = 16;

/// Length of a nonce and of the IV that it is made from.
pub(super) const IV_BYTES: usize = aead::NONCE_LEN;

/// Longest traffic secret, which is as long as a hash: SHA-384.
pub(super) const SECRET_BYTES_MAX: usize = 48;

/// Longest key.
const KEY_BYTES_MAX: usize = 32;

/// Output length of an HKDF expansion.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Suite {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305]
            .into_iter()
            .find(|suite| *suite as u8 == number)
    }

    /// Returns the length of a traffic secret.
    pub(super) const fn secret_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => 32,
            Self::Aes256Gcm => SECRET_BYTES_MAX,
        }
    }

    /// Returns the length of a key.
    pub(super) const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => KEY_BYTES_MAX,
        }
    }

    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    fn hkdf(self) -> hkdf::Algorithm {
        match self {
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => hkdf::HKDF_SHA256,
            Self::Aes256Gcm => hkdf::HKDF_SHA384,
        }
    }

    /// Makes a key ready for use. `key` has [`Suite::key_bytes`].
    pub(super) fn prepare(self, key: &[u8]) -> aead::LessSafeKey {
        let key = aead::UnboundKey::new(self.aead(), key).expect("a key of the suite's length");
        aead::LessSafeKey::new(key)
    }

    /// Writes the key and the IV of a traffic secret (RFC 8446, section 7.3). `key` has
    /// [`Suite::key_bytes`].
    pub(super) fn derive(self, secret: &[u8], key: &mut [u8], iv: &mut [u8; IV_BYTES]) {
        let secret = hkdf::Prk::new_less_safe(self.hkdf(), secret);
        expand_label(&secret, b"key", key);
        expand_label(&secret, b"iv", iv);
    }

    /// Derives the key and the IV of a traffic secret, and makes the key ready for use.
    pub(super) fn prepare_from(self, secret: &[u8]) -> (aead::LessSafeKey, [u8; IV_BYTES]) {
        let (mut key, mut iv) = ([0; KEY_BYTES_MAX], [0; IV_BYTES]);
        let key = &mut key[..self.key_bytes()];
        self.derive(secret, key, &mut iv);
        (self.prepare(key), iv)
    }

    /// Replaces a traffic secret by the next one (RFC 8446, section 7.2).
    pub(super) fn advance(self, secret: &mut [u8]) {
        let before = hkdf::Prk::new_less_safe(self.hkdf(), secret);
        expand_label(&before, b"traffic upd", secret);
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446, section 7.1).
fn expand_label(secret: &hkdf::Prk, label: &[u8], out: &mut [u8]) {
    const PREFIX: &[u8] = b"tls13 ";
    let length = u16::try_from(out.len()).expect("a key or a secret").to_be_bytes();
    let label_length = [u8::try_from(PREFIX.len() + label.len()).expect("a short label")];
    let info = [&length, &label_length[..], PREFIX, label, &[0]];
    let okm = secret.expand(&info, Length(out.len())).expect("less than 255 hashes");
    okm.fill(out).expect("the length that was asked for");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_vectors as rfc8448;

    #[test]
    fn keys_of_a_secret_are_those_of_rfc_8448() {
        for (secret, key, iv) in [
            (rfc8448::SERVER_SECRET, rfc8448::SERVER_KEY, rfc8448::SERVER_IV),
            (rfc8448::CLIENT_SECRET, rfc8448::CLIENT_KEY, rfc8448::CLIENT_IV),
        ] {
            let (mut derived, mut derived_iv) = ([0; 16], [0; IV_BYTES]);
            Suite::Aes128Gcm.derive(&secret, &mut derived, &mut derived_iv);
            assert_eq!((derived, derived_iv), (key, iv));
        }
    }
}

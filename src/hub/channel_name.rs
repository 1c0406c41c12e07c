//! Channel names, and the two names of a private pair.

use std::borrow::Cow;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

use super::ids::TOKEN_BYTES;

/// Limit of a channel name, in bytes of UTF-8.
const CHANNEL_BYTES_MAX: usize = 128;

/// A well-formed channel name, as the caller gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelName<'a> {
    /// A public name, for reading and writing.
    Public(&'a str),
    /// `~r…`: the read name of a pair.
    ReadName(&'a str),
    /// `~w…`: the write name of a pair.
    WriteName(&'a str),
}

/// Error: the name is empty or too long, has control characters, or begins with `~` and is no name
/// of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName;

/// Error: the write name of a pair cannot be used for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReadable;

/// Error: the read name of a pair cannot be used for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWritable;

/// Name under which a channel is stored. Both names of a pair have the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelKey<'a>(Cow<'a, str>);

impl ChannelKey<'_> {
    /// Returns the key as text. The key is secret, like any channel name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'a> ChannelName<'a> {
    /// Parses a name.
    ///
    /// # Errors
    ///
    /// [`BadName`] for a name that `docs/api.md` does not allow.
    pub fn parse(name: &'a str) -> Result<Self, BadName> {
        let bytes = name.as_bytes();
        if bytes.is_empty()
            || bytes.len() > CHANNEL_BYTES_MAX
            || bytes.iter().any(u8::is_ascii_control)
        {
            return Err(BadName);
        }
        let Some(reserved) = bytes.strip_prefix(b"~") else {
            return Ok(Self::Public(name));
        };
        match reserved.split_first() {
            Some((b'r', code))
                if code.len() == TOKEN_BYTES && code.iter().all(u8::is_ascii_alphanumeric) =>
            {
                Ok(Self::ReadName(name))
            }
            Some((b'w', code))
                if code.len() == TOKEN_BYTES && code.iter().all(|byte| is_base64url(*byte)) =>
            {
                Ok(Self::WriteName(name))
            }
            _ => Err(BadName),
        }
    }

    /// Returns the key of the channel to read.
    ///
    /// # Errors
    ///
    /// [`NotReadable`] for a write name.
    pub fn for_reading(self) -> Result<ChannelKey<'a>, NotReadable> {
        match self {
            Self::Public(name) => Ok(ChannelKey(Cow::Borrowed(name))),
            Self::ReadName(name) => Ok(ChannelKey(Cow::Owned(write_name(name)))),
            Self::WriteName(_) => Err(NotReadable),
        }
    }

    /// Returns the key of the channel to write to.
    ///
    /// # Errors
    ///
    /// [`NotWritable`] for a read name.
    pub fn for_writing(self) -> Result<ChannelKey<'a>, NotWritable> {
        match self {
            Self::Public(name) | Self::WriteName(name) => Ok(ChannelKey(Cow::Borrowed(name))),
            Self::ReadName(_) => Err(NotWritable),
        }
    }
}

/// Returns whether a byte belongs to the alphabet of base64url (RFC 4648, section 5).
fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// A new private pair: two names of one channel. The server stores nothing for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Read name, for the owner only.
    pub read: String,
    /// Write name, for clients that may write to the owner.
    pub write: String,
}

impl Pair {
    /// Makes the pair of a secret `code` from [`token`](super::token).
    #[must_use]
    pub fn new(code: [u8; TOKEN_BYTES]) -> Self {
        let read: String = "~r".chars().chain(code.iter().map(|byte| char::from(*byte))).collect();
        let write = write_name(&read);
        Self { read, write }
    }
}

/// Returns the write name: `~w` and the first 22 characters of the unpadded base64url (RFC 4648,
/// section 5) of the SHA-256 of the read name.
fn write_name(read: &str) -> String {
    let mut name = Base64UrlUnpadded::encode_string(&Sha256::digest(read.as_bytes()));
    name.truncate(TOKEN_BYTES);
    name.insert_str(0, "~w");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_write_name_is_a_hash_of_the_read_name() {
        // printf %s '~rABCDEFGHIJKLMNOPQRSTUV' | openssl dgst -sha256 -binary |
        //     basenc --base64url | cut -c-22
        let pair = Pair::new(*b"ABCDEFGHIJKLMNOPQRSTUV");
        assert_eq!(pair.read, "~rABCDEFGHIJKLMNOPQRSTUV");
        assert_eq!(pair.write, "~wom0Uv8Z82UMJe8IycYx3z_");
    }

    #[test]
    fn both_names_have_one_key_and_each_works_in_one_direction() {
        let pair = Pair::new(*b"0123456789abcdefghijkl");
        let read = ChannelName::parse(&pair.read).unwrap();
        let write = ChannelName::parse(&pair.write).unwrap();
        assert_eq!(read.for_reading().unwrap().as_str(), pair.write);
        assert_eq!(write.for_writing().unwrap().as_str(), pair.write);
        assert_eq!(read.for_writing(), Err(NotWritable));
        assert_eq!(write.for_reading(), Err(NotReadable));
    }

    #[test]
    fn a_name_that_breaks_a_rule_is_rejected() {
        let longest = "x".repeat(CHANNEL_BYTES_MAX);
        for good in [
            "a",
            "a b",
            "ü",
            "a~",
            "\u{80}",
            &longest,
            "~rABCDEFGHIJKLMNOPQRSTUV",
            "~w-_CDEFGHIJKLMNOPQRSTUV",
        ] {
            assert!(ChannelName::parse(good).is_ok(), "{good}");
        }
        let too_long = "ü".repeat(65);
        for bad in [
            "",
            "a\n",
            "\0",
            "a\u{7f}",
            &too_long,
            "~",
            "~x",
            "~r",
            "~w",
            "~rABCDEFGHIJKLMNOPQRSTU",
            "~rABCDEFGHIJKLMNOPQRSTUVW",
            "~r-BCDEFGHIJKLMNOPQRSTUV",
            "~w=BCDEFGHIJKLMNOPQRSTUV",
            "~RABCDEFGHIJKLMNOPQRSTUV",
        ] {
            assert_eq!(ChannelName::parse(bad), Err(BadName), "{bad}");
        }
    }
}

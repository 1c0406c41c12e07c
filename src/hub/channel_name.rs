//! Names of channels, and the two halves of a private pair.

use std::borrow::Cow;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

use super::ids::TOKEN_BYTES;

/// The longest channel name, in bytes of UTF-8.
pub const CHANNEL_BYTES_MAX: usize = 128;

/// A well-formed channel name, as a caller gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelName<'a> {
    /// Anybody who knows it reads and writes.
    Public(&'a str),
    /// `~r…`: the half that is read.
    ReadHalf(&'a str),
    /// `~w…`: the half that is written.
    WriteHalf(&'a str),
}

/// The name is empty, too long, has control characters, or begins with `~` without being half of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName;

/// The write half of a pair cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReadable;

/// The read half of a pair cannot be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWritable;

/// The name under which a log is kept: both halves of a pair lead to the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelKey<'a>(Cow<'a, str>);

impl ChannelKey<'_> {
    /// The key of the log. A secret, like any channel name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'a> ChannelName<'a> {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`BadName`] if the name breaks the rules for `channel` in docs/api.md.
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
                Ok(Self::ReadHalf(name))
            }
            Some((b'w', code))
                if code.len() == TOKEN_BYTES && code.iter().all(|byte| is_base64url(*byte)) =>
            {
                Ok(Self::WriteHalf(name))
            }
            _ => Err(BadName),
        }
    }

    /// The log to read under this name.
    ///
    /// # Errors
    ///
    /// [`NotReadable`] for a write half.
    pub fn for_reading(self) -> Result<ChannelKey<'a>, NotReadable> {
        match self {
            Self::Public(name) => Ok(ChannelKey(Cow::Borrowed(name))),
            Self::ReadHalf(name) => Ok(ChannelKey(Cow::Owned(write_half(name)))),
            Self::WriteHalf(_) => Err(NotReadable),
        }
    }

    /// The log to write to under this name.
    ///
    /// # Errors
    ///
    /// [`NotWritable`] for a read half.
    pub fn for_writing(self) -> Result<ChannelKey<'a>, NotWritable> {
        match self {
            Self::Public(name) | Self::WriteHalf(name) => Ok(ChannelKey(Cow::Borrowed(name))),
            Self::ReadHalf(_) => Err(NotWritable),
        }
    }
}

/// A letter, a digit, or one of the two other characters of RFC 4648, section 5.
fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// A new private pair: two names, and nothing stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// For the owner alone.
    pub read: String,
    /// For those who may write to the owner.
    pub write: String,
}

impl Pair {
    /// The pair of one secret `code`, made by [`token`](super::token).
    #[must_use]
    pub fn new(code: [u8; TOKEN_BYTES]) -> Self {
        let read: String = "~r".chars().chain(code.iter().map(|byte| char::from(*byte))).collect();
        let write = write_half(&read);
        Self { read, write }
    }
}

/// `~w` and the first 22 characters of the unpadded base64url (RFC 4648, section 5) of SHA-256 of the read half.
fn write_half(read: &str) -> String {
    let mut name = Base64UrlUnpadded::encode_string(&Sha256::digest(read.as_bytes()));
    name.truncate(TOKEN_BYTES);
    name.insert_str(0, "~w");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_write_half_is_the_hash_of_the_read_half() {
        // printf %s '~rABCDEFGHIJKLMNOPQRSTUV' | openssl dgst -sha256 -binary | basenc --base64url | cut -c-22
        let pair = Pair::new(*b"ABCDEFGHIJKLMNOPQRSTUV");
        assert_eq!(pair.read, "~rABCDEFGHIJKLMNOPQRSTUV");
        assert_eq!(pair.write, "~wom0Uv8Z82UMJe8IycYx3z_");
    }

    #[test]
    fn both_halves_lead_to_one_log_and_each_opens_one_way() {
        let pair = Pair::new(*b"0123456789abcdefghijkl");
        let read = ChannelName::parse(&pair.read).unwrap();
        let write = ChannelName::parse(&pair.write).unwrap();
        assert_eq!(read.for_reading().unwrap().as_str(), pair.write);
        assert_eq!(write.for_writing().unwrap().as_str(), pair.write);
        assert_eq!(read.for_writing(), Err(NotWritable));
        assert_eq!(write.for_reading(), Err(NotReadable));
    }

    #[test]
    fn names_are_checked() {
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

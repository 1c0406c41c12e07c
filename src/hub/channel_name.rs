//! Channel names, and the two names of a pair.
//!
//! One name of a pair is a secret that its owner keeps. The other follows from it by a hash, is
//! given away, and is the key under which the channel is stored. So the server stores nothing to
//! know who owns what.

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
    /// The secret name of a pair.
    Secret(PairKind, &'a str),
    /// The name of a pair that is given away.
    Given(PairKind, &'a str),
}

/// Kind of a pair: what its names allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PairKind {
    /// `~r…` reads, `~w…` writes: private messages to one.
    #[default]
    Inbox,
    /// `~f…` writes, `~b…` reads: one writes, everybody reads.
    Feed,
    /// `~o…` is the owner's, `~c…` reads and writes: a chat that its owner looks after.
    Room,
}

/// Error: the name is empty or too long, has control characters, or begins with `~` and is no name
/// of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName;

/// Error: the write name of an inbox or of a feed cannot be used for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReadable;

/// Error: the read name of an inbox or of a feed cannot be used for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWritable;

/// Error: the name is not the one that the owner of the channel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOwner;

/// Name under which a channel is stored: both names of a pair have the same key. Two keys of one
/// channel are equal, whichever name each was made of.
#[derive(Clone, Debug)]
pub struct ChannelKey<'a>(Origin<'a>);

/// Name that a key was made of.
#[derive(Clone, Debug)]
enum Origin<'a> {
    /// The key itself.
    Key(&'a str),
    /// The secret of the pair, from which this key was derived.
    Secret(String),
}

impl PairKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Inbox, Self::Feed, Self::Room];

    /// Returns the kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "inbox" => Some(Self::Inbox),
            "feed" => Some(Self::Feed),
            "room" => Some(Self::Room),
            _ => None,
        }
    }

    /// Returns what the secret name and the one that is given away are called.
    #[must_use]
    pub fn labels(self) -> [&'static str; 2] {
        match self {
            Self::Inbox => ["read", "write"],
            Self::Feed => ["write", "read"],
            Self::Room => ["owner", "channel"],
        }
    }

    /// Returns the letters after `~` of the secret name and of the one that is given away.
    fn letters(self) -> [u8; 2] {
        match self {
            Self::Inbox => *b"rw",
            Self::Feed => *b"fb",
            Self::Room => *b"oc",
        }
    }
}

impl PartialEq for ChannelKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ChannelKey<'_> {}

impl<'a> ChannelKey<'a> {
    /// Makes the key of a channel that was stored under this name.
    ///
    /// # Errors
    ///
    /// [`BadName`] for a name that no channel is stored under.
    pub fn of_stored(name: &'a str) -> Result<Self, BadName> {
        match ChannelName::parse(name)? {
            ChannelName::Public(name) | ChannelName::Given(_, name) => Ok(Self(Origin::Key(name))),
            ChannelName::Secret(..) => Err(BadName),
        }
    }

    /// Returns the key as text. The key is secret, like any channel name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Origin::Key(name) => name,
            Origin::Secret(name) => name,
        }
    }

    /// Returns whether the caller has named the secret of the pair.
    #[must_use]
    #[inline]
    pub fn is_owner(&self) -> bool {
        matches!(self.0, Origin::Secret(_))
    }

    /// Returns whether the caller is the owner of a room, which messages tell.
    #[must_use]
    #[inline]
    pub fn is_room_owner(&self) -> bool {
        matches!(&self.0, Origin::Secret(name) if name.starts_with("~c"))
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
        match bytes.strip_prefix(b"~") {
            None => Ok(Self::Public(name)),
            Some(reserved) => Self::parse_reserved(name, reserved).ok_or(BadName),
        }
    }

    /// Parses the name of a pair. `reserved` is what follows its `~`.
    fn parse_reserved(name: &'a str, reserved: &[u8]) -> Option<Self> {
        let (letter, code) = reserved.split_first()?;
        if code.len() != TOKEN_BYTES {
            return None;
        }
        PairKind::ALL.into_iter().find_map(|kind| {
            let [secret, given] = kind.letters();
            match *letter {
                it if it == secret && code.iter().all(u8::is_ascii_alphanumeric) => {
                    Some(Self::Secret(kind, name))
                }
                it if it == given && code.iter().all(|byte| is_base64url(*byte)) => {
                    Some(Self::Given(kind, name))
                }
                _ => None,
            }
        })
    }

    /// Returns the key of the channel to read.
    ///
    /// # Errors
    ///
    /// [`NotReadable`] for the write name of an inbox or of a feed.
    pub fn for_reading(self) -> Result<ChannelKey<'a>, NotReadable> {
        match self {
            Self::Given(PairKind::Inbox, _) | Self::Secret(PairKind::Feed, _) => Err(NotReadable),
            _ => Ok(self.key()),
        }
    }

    /// Returns the key of the channel to write to.
    ///
    /// # Errors
    ///
    /// [`NotWritable`] for the read name of an inbox or of a feed.
    pub fn for_writing(self) -> Result<ChannelKey<'a>, NotWritable> {
        match self {
            Self::Secret(PairKind::Inbox, _) | Self::Given(PairKind::Feed, _) => Err(NotWritable),
            _ => Ok(self.key()),
        }
    }

    /// Returns the key of the channel from which the caller removes a message.
    ///
    /// # Errors
    ///
    /// [`NotOwner`] for all names that are not the secret of a pair.
    pub fn for_removing(self) -> Result<ChannelKey<'a>, NotOwner> {
        match self {
            Self::Secret(..) => Ok(self.key()),
            Self::Public(_) | Self::Given(..) => Err(NotOwner),
        }
    }

    /// Returns the key of the room from which the caller sends a session away.
    ///
    /// # Errors
    ///
    /// [`NotOwner`] for all names that are not the secret of a room.
    pub fn for_kicking(self) -> Result<ChannelKey<'a>, NotOwner> {
        match self {
            Self::Secret(PairKind::Room, _) => Ok(self.key()),
            _ => Err(NotOwner),
        }
    }

    /// Returns the key of the channel, for the operator: each name is as good as the other.
    #[must_use]
    pub fn key(self) -> ChannelKey<'a> {
        ChannelKey(match self {
            Self::Public(name) | Self::Given(_, name) => Origin::Key(name),
            Self::Secret(kind, name) => Origin::Secret(given_name(kind, name)),
        })
    }
}

/// Returns whether a byte belongs to the alphabet of base64url (RFC 4648, section 5).
fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// A new pair: two names of one channel. The server stores nothing for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// What the names allow.
    pub kind: PairKind,
    /// Name that the owner keeps.
    pub secret: String,
    /// Name that is given away.
    pub given: String,
}

impl Pair {
    /// Makes the pair of a secret `code` from [`token`](super::token).
    #[must_use]
    pub fn new(kind: PairKind, code: [u8; TOKEN_BYTES]) -> Self {
        let name = [b'~', kind.letters()[0]].into_iter().chain(code);
        let secret: String = name.map(char::from).collect();
        let given = given_name(kind, &secret);
        Self { kind, secret, given }
    }
}

/// Returns the name that follows from a secret one: its prefix, and the first 22 characters of the
/// unpadded base64url (RFC 4648, section 5) of the SHA-256 of the secret name.
fn given_name(kind: PairKind, secret: &str) -> String {
    let mut name = Base64UrlUnpadded::encode_string(&Sha256::digest(secret.as_bytes()));
    name.truncate(TOKEN_BYTES);
    name.insert(0, char::from(kind.letters()[1]));
    name.insert(0, '~');
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_is_given_away_is_a_hash_of_the_secret_one() {
        // printf %s '~rABCDEFGHIJKLMNOPQRSTUV' | openssl dgst -sha256 -binary |
        //     basenc --base64url | cut -c-22
        let cases = [
            (PairKind::Inbox, "~rABCDEFGHIJKLMNOPQRSTUV", "~wom0Uv8Z82UMJe8IycYx3z_"),
            (PairKind::Feed, "~fABCDEFGHIJKLMNOPQRSTUV", "~bI4ddIIWnQHL8ZLbdkmx-TJ"),
            (PairKind::Room, "~oABCDEFGHIJKLMNOPQRSTUV", "~cHs45Jyz2f3iV_TJuZy27a8"),
        ];
        for (kind, secret, given) in cases {
            let pair = Pair::new(kind, *b"ABCDEFGHIJKLMNOPQRSTUV");
            assert_eq!((&*pair.secret, &*pair.given), (secret, given));
        }
    }

    #[test]
    fn both_names_have_one_key_and_each_allows_what_its_kind_says() {
        // Reading, writing, removing, kicking.
        let cases = [
            (PairKind::Inbox, [true, false, true, false], [false, true, false, false]),
            (PairKind::Feed, [false, true, true, false], [true, false, false, false]),
            (PairKind::Room, [true, true, true, true], [true, true, false, false]),
        ];
        for (kind, secret, given) in cases {
            let pair = Pair::new(kind, *b"0123456789abcdefghijkl");
            for (text, allowed, is_owner) in
                [(&pair.secret, secret, true), (&pair.given, given, false)]
            {
                let name = ChannelName::parse(text).unwrap();
                let keys = [
                    name.for_reading().ok(),
                    name.for_writing().ok(),
                    name.for_removing().ok(),
                    name.for_kicking().ok(),
                    Some(name.key()),
                ];
                assert_eq!(keys.each_ref().map(Option::is_some)[..4], allowed, "{kind:?}");
                for key in keys.iter().flatten() {
                    assert_eq!(key.as_str(), pair.given);
                    assert_eq!(key.is_owner(), is_owner);
                    assert_eq!(key.is_room_owner(), is_owner && kind == PairKind::Room);
                }
            }
            let both = [&pair.secret, &pair.given].map(|it| ChannelName::parse(it).unwrap().key());
            assert_eq!(both[0], both[1]);
            assert!(ChannelKey::of_stored(&pair.given).is_ok_and(|key| key == both[1]));
            assert_eq!(ChannelKey::of_stored(&pair.secret), Err(BadName));
        }
        let public = ChannelName::parse("lobby").unwrap();
        assert!(public.for_reading().is_ok() && public.for_writing().is_ok());
        assert_eq!((public.for_removing(), public.for_kicking()), (Err(NotOwner), Err(NotOwner)));
    }

    #[test]
    fn kinds_have_names() {
        for (name, kind) in ["inbox", "feed", "room"].into_iter().zip(PairKind::ALL) {
            assert_eq!(PairKind::from_name(name), Some(kind));
        }
        for name in ["", "Inbox", "rooms", "~"] {
            assert_eq!(PairKind::from_name(name), None, "{name}");
        }
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
            "~fABCDEFGHIJKLMNOPQRSTUV",
            "~b-_CDEFGHIJKLMNOPQRSTUV",
            "~oABCDEFGHIJKLMNOPQRSTUV",
            "~c-_CDEFGHIJKLMNOPQRSTUV",
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
            "~f-BCDEFGHIJKLMNOPQRSTUV",
            "~o-BCDEFGHIJKLMNOPQRSTUV",
            "~bABCDEFGHIJKLMNOPQRSTU",
            "~cABCDEFGHIJKLMNOPQRSTUVW",
            "~CABCDEFGHIJKLMNOPQRSTUV",
        ] {
            assert_eq!(ChannelName::parse(bad), Err(BadName), "{bad}");
        }
    }
}

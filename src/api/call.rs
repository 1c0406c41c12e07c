//! Parameters to typed calls: parse, don't validate. What comes out of here needs no further check.

use super::error::Error;
use super::params::Parameters;
use super::route::Call;
use crate::hub::{CHANNELS_PER_READ_MAX, ChannelKey, ChannelName, Credentials, ID_MAX, Since};

/// `/write` and `/introduce`.
pub(super) struct WriteParams<'a> {
    pub(super) channel: ChannelKey<'a>,
    pub(super) message: &'a str,
    pub(super) credentials: Option<Credentials<'a>>,
}

/// `/goodbye`.
pub(super) struct GoodbyeParams<'a> {
    pub(super) channel: Option<ChannelKey<'a>>,
    pub(super) message: Option<&'a str>,
    pub(super) credentials: Credentials<'a>,
}

/// `/read`.
pub(super) struct ReadParams<'a> {
    pub(super) follows: ReadTargets<'a>,
    pub(super) credentials: Option<Credentials<'a>>,
    pub(super) wait_ms: u64,
    pub(super) epoch: Option<&'a str>,
}

/// What a read follows; one channel, as is usual, needs no allocation.
pub(super) enum ReadTargets<'a> {
    One([(ChannelKey<'a>, Since); 1]),
    Many(Vec<(ChannelKey<'a>, Since)>),
}

impl<'a> ReadTargets<'a> {
    pub(super) fn as_mut_slice(&mut self) -> &mut [(ChannelKey<'a>, Since)] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }

    pub(super) fn as_slice(&self) -> &[(ChannelKey<'a>, Since)] {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl Parameters<'_> {
    pub(super) fn parse_write(
        &self,
        call: Call,
        max_message: usize,
    ) -> Result<WriteParams<'_>, Error> {
        let channel = self.name(call)?.for_writing()?;
        let message =
            self.message(max_message)?.ok_or(Error::MissingParameter(call.path(), "message"))?;
        Ok(WriteParams { channel, message, credentials: self.credentials()? })
    }

    pub(super) fn parse_goodbye(&self, max_message: usize) -> Result<GoodbyeParams<'_>, Error> {
        let missing = |name| Error::MissingParameter(Call::Goodbye.path(), name);
        self.connection.as_ref().ok_or(missing("connection"))?;
        self.auth.as_ref().ok_or(missing("auth"))?;
        let channel = match self.channels.iter().next() {
            Some(name) => Some(ChannelName::parse(name)?.for_writing()?),
            None => None,
        };
        let credentials = self.credentials()?.expect("both are there");
        Ok(GoodbyeParams { channel, message: self.message(max_message)?, credentials })
    }

    pub(super) fn members(&self) -> Result<ChannelKey<'_>, Error> {
        Ok(self.name(Call::Members)?.for_reading()?)
    }

    pub(super) fn parse_read(&self, poll_timeout_ms: u64) -> Result<ReadParams<'_>, Error> {
        Ok(ReadParams {
            follows: self.follows()?,
            credentials: self.credentials()?,
            wait_ms: match &self.timeout {
                None => poll_timeout_ms,
                Some(text) => seconds(text)?.saturating_mul(1000).min(poll_timeout_ms),
            },
            epoch: self.epoch.as_deref(),
        })
    }

    fn name(&self, call: Call) -> Result<ChannelName<'_>, Error> {
        let name =
            self.channels.iter().next().ok_or(Error::MissingParameter(call.path(), "channel"))?;
        Ok(ChannelName::parse(name)?)
    }

    fn message(&self, max_message: usize) -> Result<Option<&str>, Error> {
        match self.message.as_deref() {
            Some(text) if text.len() > max_message => Err(Error::MessageTooLarge),
            message => Ok(message),
        }
    }

    #[inline]
    fn credentials(&self) -> Result<Option<Credentials<'_>>, Error> {
        match (&self.connection, self.auth.as_deref()) {
            (None, None) => Ok(None),
            (Some(connection), Some(auth)) => {
                let number =
                    integer(connection).ok_or(Error::BadParameter("'connection' is an integer"))?;
                // Nobody is number 0, and nobody below it.
                Ok(Some(Credentials { session: u64::try_from(number).unwrap_or(0), auth }))
            }
            _ => Err(Error::BadParameter(
                "'connection' and 'auth' belong together: give both, or neither",
            )),
        }
    }

    fn follows(&self) -> Result<ReadTargets<'_>, Error> {
        let (channels, from_ids) = (self.channels.len(), self.from_ids.len());
        if channels == 0 {
            return Err(Error::MissingParameter(Call::Read.path(), "channel"));
        }
        if channels > CHANNELS_PER_READ_MAX {
            return Err(Error::BadParameter("a read names 32 channels at most"));
        }
        if from_ids != 0 && from_ids != channels {
            return Err(Error::BadParameter(
                "give no 'from_id', or one for each 'channel' in the same order",
            ));
        }
        let mut from_ids = self.from_ids.iter();
        let mut follow = |name| -> Result<_, Error> {
            let log = ChannelName::parse(name)?.for_reading()?;
            Ok((log, from_ids.next().map_or(Ok(Since::Now), since)?))
        };
        let mut names = self.channels.iter();
        if let (Some(name), 1) = (names.next(), channels) {
            return Ok(ReadTargets::One([follow(name)?]));
        }
        let mut follows = Vec::with_capacity(channels);
        for name in self.channels.iter() {
            let (log, since) = follow(name)?;
            if follows.iter().any(|(other, _)| *other == log) {
                return Err(Error::BadParameter("a 'channel' is named twice"));
            }
            follows.push((log, since));
        }
        Ok(ReadTargets::Many(follows))
    }
}

pub(super) fn since(from_id: &str) -> Result<Since, Error> {
    match integer(from_id).ok_or(Error::BadParameter("'from_id' is an integer below 2^53"))? {
        0 => Ok(Since::All),
        id if id > 0 => Ok(Since::Id(id.unsigned_abs())),
        last => Ok(Since::Last(last.unsigned_abs())),
    }
}

/// `-?[0-9]+`, of a size that JavaScript's numbers hold exactly.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let magnitude = parse_digits(digits)?;
    if magnitude > ID_MAX {
        return None;
    }
    let value = i64::try_from(magnitude).ok()?;
    Some(if negative { -value } else { value })
}

/// Digits alone; what is too large for a number is the largest one.
fn parse_digits(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.bytes().fold(0u64, |value, digit| {
        value.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    }))
}

/// A `timeout`: whole seconds, however many.
fn seconds(text: &str) -> Result<u64, Error> {
    let fault = Error::BadParameter("'timeout' is a number of whole seconds, from 0");
    match text.strip_prefix('-') {
        Some(digits) if parse_digits(digits) == Some(0) => Ok(0),
        Some(_) => Err(fault),
        None => parse_digits(text).ok_or(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_digits_below_two_to_the_53() {
        let cases = [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("007", Some(7)),
            ("-12", Some(-12)),
            ("9007199254740991", Some(9_007_199_254_740_991)),
            ("9007199254740992", None),
            ("-9007199254740992", None),
            ("99999999999999999999999999", None),
            ("", None),
            ("-", None),
            ("+1", None),
            (" 1", None),
            ("1.0", None),
            ("1e3", None),
            ("--1", None),
            ("٣", None),
        ];
        for (text, value) in cases {
            assert_eq!(integer(text), value, "{text}");
        }
    }

    #[test]
    fn a_huge_timeout_is_cut_and_a_negative_one_refused() {
        for (text, value) in
            [("0", 0), ("-0", 0), ("25", 25), ("99999999999999999999999999", u64::MAX)]
        {
            assert_eq!(seconds(text), Ok(value), "{text}");
        }
        for text in ["-1", "", "1.5", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}

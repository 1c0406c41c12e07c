//! Typed parameters of `/read`.

use super::error::Error;
use super::params::{Parameters, parse_digits, parse_integer};
use super::response::ResponseOptions;
use crate::http::Request;
use crate::hub::{
    CHANNELS_PER_READ_MAX, ChannelKey, ChannelName, Credentials, Mode, ReadRequest, Since,
};

/// Request for a read, with everything that its response depends on.
pub(super) struct ReadCall<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) parameters: &'a Parameters<'a>,
    pub(super) options: ResponseOptions<'a>,
}

/// Typed parameters of `/read`.
pub(super) struct ReadParams<'a> {
    pub(super) targets: ReadTargets<'a>,
    pub(super) credentials: Option<Credentials<'a>>,
    /// Longest wait; 0 for a response at once.
    pub(super) wait_ms: u64,
    pub(super) epoch: Option<&'a str>,
    /// Time that the session survives if the client closes the read.
    pub(super) grace_ms: Option<u64>,
}

/// Channels of a read, and the start of the read in each. One channel needs no allocation.
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

impl<'a> ReadParams<'a> {
    /// Parses the parameters. `poll_timeout_ms` limits the wait.
    pub(super) fn parse(
        parameters: &'a Parameters<'_>,
        poll_timeout_ms: u64,
    ) -> Result<Self, Error> {
        Ok(Self {
            targets: ReadTargets::parse(parameters)?,
            credentials: parameters.credentials()?,
            wait_ms: match &parameters.timeout {
                None => poll_timeout_ms,
                Some(text) => parse_seconds(text)?.saturating_mul(1000).min(poll_timeout_ms),
            },
            epoch: parameters.epoch.as_deref(),
            grace_ms: parameters.grace.as_deref().map(parse_grace).transpose()?,
        })
    }

    /// Returns the read for the hub.
    pub(super) fn request(&self, mode: Mode, token: u64) -> ReadRequest<'_> {
        ReadRequest {
            targets: self.targets.as_slice(),
            epoch: self.epoch,
            credentials: self.credentials,
            grace_ms: self.grace_ms,
            mode,
            token,
        }
    }
}

impl<'a> ReadTargets<'a> {
    fn parse(parameters: &'a Parameters<'_>) -> Result<Self, Error> {
        let (channels, from_ids) = (parameters.channels.len(), parameters.from_ids.len());
        if channels == 0 {
            return Err(parameters.missing("channel"));
        }
        if channels > CHANNELS_PER_READ_MAX {
            return Err(Error::BadParameter("too many channels; a read can have at most 32"));
        }
        if from_ids != 0 && from_ids != channels {
            return Err(Error::BadParameter(
                "wrong number of 'from_id'; give none, or one for each 'channel' in order",
            ));
        }
        let mut from_ids = parameters.from_ids.iter();
        let mut target = |name| -> Result<_, Error> {
            let channel = ChannelName::parse(name)?.for_reading()?;
            Ok((channel, from_ids.next().map_or(Ok(Since::Now), parse_since)?))
        };
        let mut names = parameters.channels.iter();
        if let (Some(name), 1) = (names.next(), channels) {
            return Ok(Self::One([target(name)?]));
        }
        let mut targets = Vec::with_capacity(channels);
        for name in parameters.channels.iter() {
            let (channel, since) = target(name)?;
            if targets.iter().any(|(other, _)| *other == channel) {
                return Err(Error::BadParameter("a 'channel' is given twice; give each one once"));
            }
            targets.push((channel, since));
        }
        Ok(Self::Many(targets))
    }
}

/// Parses a `from_id`.
pub(super) fn parse_since(from_id: &str) -> Result<Since, Error> {
    match parse_integer(from_id)
        .ok_or(Error::BadParameter("'from_id' must be an integer below 2^53"))?
    {
        0 => Ok(Since::All),
        id if id > 0 => Ok(Since::Id(id.unsigned_abs())),
        last => Ok(Since::Last(last.unsigned_abs())),
    }
}

/// Parses a `grace`: whole seconds, as an integer below 2^53. Returns milliseconds.
fn parse_grace(text: &str) -> Result<u64, Error> {
    let seconds = parse_integer(text).and_then(|seconds| u64::try_from(seconds).ok());
    let error = Error::BadParameter("'grace' must be a number of whole seconds, 0 or more");
    Ok(seconds.ok_or(error)?.saturating_mul(1000))
}

/// Parses a `timeout`: any number of whole seconds.
fn parse_seconds(text: &str) -> Result<u64, Error> {
    let error = Error::BadParameter("'timeout' must be a number of whole seconds, 0 or more");
    match text.strip_prefix('-') {
        Some(digits) if parse_digits(digits) == Some(0) => Ok(0),
        Some(_) => Err(error),
        None => parse_digits(text).ok_or(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::ID_MAX;

    #[test]
    fn a_huge_timeout_is_valid_and_a_negative_one_is_an_error() {
        for (text, value) in
            [("0", 0), ("-0", 0), ("25", 25), ("99999999999999999999999999", u64::MAX)]
        {
            assert_eq!(parse_seconds(text), Ok(value), "{text}");
        }
        for text in ["-1", "", "1.5", "x"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_grace_is_an_integer_and_not_negative() {
        for (text, ms) in [("0", 0), ("-0", 0), ("2", 2000), ("9007199254740991", 1000 * ID_MAX)] {
            assert_eq!(parse_grace(text), Ok(ms), "{text}");
        }
        for text in ["-1", "", "1.5", "2s", "9007199254740992"] {
            assert!(parse_grace(text).is_err(), "{text}");
        }
    }
}

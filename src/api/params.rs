//! Parameters of a call, as decoded text and as typed values.
//!
//! Parse, don't validate: a typed value needs no further check.

use std::borrow::Cow;
use std::rc::Rc;

use super::error::Error;
use crate::http::{self, Callback, FormText, Method, Request};
use crate::hub::{Address, BAN_SECONDS_MAX, ChannelName, Credentials, ID_MAX, PairKind};

/// Parameter of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Param {
    Channel,
    FromId,
    From,
    Message,
    Connection,
    Auth,
    Timeout,
    Epoch,
    Grace,
    Kind,
    Id,
    Seconds,
    Callback,
}

impl Param {
    /// Returns the parameter of that name.
    #[expect(clippy::inline_always, reason = "called for each parameter of each request")]
    #[inline(always)]
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "channel" => Self::Channel,
            "from_id" => Self::FromId,
            "from" => Self::From,
            "message" => Self::Message,
            "connection" => Self::Connection,
            "auth" => Self::Auth,
            "timeout" => Self::Timeout,
            "epoch" => Self::Epoch,
            "grace" => Self::Grace,
            "callback" => Self::Callback,
            _ => return Self::from_rare_name(name),
        })
    }

    /// Returns a parameter of calls that are made rarely.
    #[cold]
    fn from_rare_name(name: &str) -> Option<Self> {
        Some(match name {
            "kind" => Self::Kind,
            "id" => Self::Id,
            "seconds" => Self::Seconds,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::FromId => "from_id",
            Self::From => "from",
            Self::Message => "message",
            Self::Connection => "connection",
            Self::Auth => "auth",
            Self::Timeout => "timeout",
            Self::Epoch => "epoch",
            Self::Grace => "grace",
            Self::Kind => "kind",
            Self::Id => "id",
            Self::Seconds => "seconds",
            Self::Callback => "callback",
        }
    }
}

/// Set of parameters, one bit each.
#[derive(Clone, Copy)]
pub(super) struct ParamSet(u16);

impl ParamSet {
    pub(super) const EMPTY: Self = Self::of(&[]);

    pub(super) const fn of(params: &[Param]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < params.len() {
            bits |= 1 << params[index] as u16;
            index += 1;
        }
        Self(bits)
    }

    pub(super) const fn contains(self, param: Param) -> bool {
        self.0 & 1 << param as u16 != 0
    }
}

/// Parameters that a call takes.
pub(super) struct Schema {
    /// Path of the call, for error texts.
    pub(super) path: &'static str,
    /// Parameters that the call knows. All others are ignored.
    pub(super) known: ParamSet,
    /// Parameters that may be given several times.
    pub(super) lists: ParamSet,
    /// The call adds messages. If it knows the parameter, the body of a POST may be the message.
    pub(super) adds_messages: bool,
}

impl Schema {
    /// Returns the parameter of that name, if the call knows it.
    #[expect(clippy::inline_always, reason = "called for each parameter of each request")]
    #[inline(always)]
    fn param(&self, name: &str) -> Option<Param> {
        Param::from_name(name).filter(|param| self.known.contains(*param))
    }
}

/// Use of the body of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// There is none, or its parameters were read.
    Read,
    /// It is the message, or it was ignored: no parameters were read from it.
    NotRead,
    /// It is a form of the type `multipart/form-data`, which no call reads.
    Multipart,
}

/// One value, or several in order. The first needs no allocation.
#[derive(Default)]
pub(super) struct OneOrMany<'a> {
    first: Option<Cow<'a, str>>,
    more: Vec<Cow<'a, str>>,
}

impl<'a> OneOrMany<'a> {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.first.iter().chain(&self.more).map(|value| &**value)
    }

    fn push(&mut self, value: Cow<'a, str>) {
        match self.first {
            None => self.first = Some(value),
            Some(_) => self.more.push(value),
        }
    }
}

/// Parameters of one call, decoded. A parameter that was not given is `None`.
pub(super) struct Parameters<'a> {
    pub(super) schema: &'static Schema,
    pub(super) channels: OneOrMany<'a>,
    pub(super) from_ids: OneOrMany<'a>,
    /// The parameter that no other call has: `from`, `kind`, `id` or `seconds`. No call has two of
    /// these.
    pub(super) special: Option<Cow<'a, str>>,
    pub(super) message: Option<Cow<'a, str>>,
    pub(super) connection: Option<Cow<'a, str>>,
    pub(super) auth: Option<Cow<'a, str>>,
    pub(super) timeout: Option<Cow<'a, str>>,
    pub(super) epoch: Option<Cow<'a, str>>,
    pub(super) grace: Option<Cow<'a, str>>,
    pub(super) callback: Option<Cow<'a, str>>,
    pub(super) body: Body,
    /// Address of the client, if the call depends on it and the client has one.
    pub(super) address: Option<Address>,
}

impl<'a> Parameters<'a> {
    #[inline]
    pub(super) fn new(schema: &'static Schema) -> Self {
        Self {
            schema,
            channels: OneOrMany::default(),
            from_ids: OneOrMany::default(),
            special: None,
            message: None,
            connection: None,
            auth: None,
            timeout: None,
            epoch: None,
            grace: None,
            callback: None,
            body: Body::Read,
            address: None,
        }
    }

    /// Collects the parameters of a request. Sets the callback even if another parameter is wrong:
    /// a script tag sees an error only if its callback is called with the error.
    pub(super) fn parse(&mut self, request: &Request<'a>) -> Result<(), Error> {
        let mut result = self.parse_form(request.query);
        if request.method == Method::Post {
            let body_result = self.parse_body(request);
            result = result.and(body_result);
        }
        result
    }

    /// Collects all valid parameters of a form. Returns the first error.
    fn parse_form(&mut self, form: &'a str) -> Result<(), Error> {
        let mut result = Ok(());
        for (name, value) in http::pairs(form) {
            if let Err(error) = self.set_encoded(name, value) {
                result = result.and(Err(error));
            }
        }
        result
    }

    fn parse_body(&mut self, request: &Request<'a>) -> Result<(), Error> {
        if request.content_type.is_some_and(|it| has_essence(it, FORM)) {
            let form = str::from_utf8(request.body).map_err(|_| Error::BadEncoding("body"))?;
            return self.parse_form(form);
        }
        if request.content_type.is_some_and(|it| has_essence(it, b"multipart/form-data")) {
            self.body = Body::Multipart;
            return Ok(());
        }
        if !request.body.is_empty() {
            self.body = Body::NotRead;
        }
        let has_message = request.content_type.is_some() || !request.body.is_empty();
        if !self.schema.known.contains(Param::Message) || !has_message {
            return Ok(());
        }
        if self.message.is_some() {
            return Err(Error::BadParameter(
                "'message' is given both as a parameter and as a body; give it once",
            ));
        }
        let text = str::from_utf8(request.body).map_err(|_| Error::BadEncoding("message"))?;
        self.message = Some(Cow::Borrowed(text));
        Ok(())
    }

    fn set_encoded(&mut self, name: FormText<'a>, value: FormText<'a>) -> Result<(), Error> {
        let param = name.decode().ok().and_then(|name| self.schema.param(&name));
        let Some(param) = param else { return Ok(()) };
        self.set(param, value.decode().map_err(|_| Error::BadEncoding(param.name()))?)
    }

    /// Sets a parameter. Only a parameter in `lists` may be set more than once.
    #[expect(
        clippy::inline_always,
        reason = "called for each parameter of each request, from two places"
    )]
    #[inline(always)]
    pub(super) fn set(&mut self, param: Param, value: Cow<'a, str>) -> Result<(), Error> {
        let single = match param {
            Param::Channel if self.schema.lists.contains(param) => {
                self.channels.push(value);
                return Ok(());
            }
            Param::FromId => {
                self.from_ids.push(value);
                return Ok(());
            }
            Param::Channel => &mut self.channels.first,
            Param::From | Param::Kind | Param::Id | Param::Seconds => &mut self.special,
            Param::Message => &mut self.message,
            Param::Connection => &mut self.connection,
            Param::Auth => &mut self.auth,
            Param::Timeout => &mut self.timeout,
            Param::Epoch => &mut self.epoch,
            Param::Grace => &mut self.grace,
            Param::Callback => &mut self.callback,
        };
        if single.is_some() {
            return Err(Error::RepeatedParameter(param.name()));
        }
        *single = Some(value);
        Ok(())
    }
}

impl Parameters<'_> {
    /// Returns the error for a parameter that the call needs.
    pub(super) fn missing(&self, name: &'static str) -> Error {
        if self.body == Body::NotRead {
            return Error::MissingInBody(self.schema.path, name);
        }
        Error::MissingParameter(self.schema.path, name)
    }

    /// Returns the channel, which may be missing.
    pub(super) fn optional_channel(&self) -> Result<Option<ChannelName<'_>>, Error> {
        Ok(self.channels.iter().next().map(ChannelName::parse).transpose()?)
    }

    /// Returns the channel.
    pub(super) fn channel(&self) -> Result<ChannelName<'_>, Error> {
        self.optional_channel()?.ok_or_else(|| self.missing("channel"))
    }

    /// Returns the message, which may be missing.
    pub(super) fn optional_message(&self, max_message: usize) -> Result<Option<&str>, Error> {
        match self.message.as_deref() {
            Some(text) if text.len() > max_message => Err(Error::MessageTooLarge),
            message => Ok(message),
        }
    }

    /// Returns the message.
    pub(super) fn message(&self, max_message: usize) -> Result<&str, Error> {
        self.optional_message(max_message)?.ok_or_else(|| self.missing("message"))
    }

    /// Returns the session and its secret. Both parameters must be given, or neither.
    #[inline]
    pub(super) fn credentials(&self) -> Result<Option<Credentials<'_>>, Error> {
        match (&self.connection, self.auth.as_deref()) {
            (None, None) => Ok(None),
            (Some(connection), Some(auth)) => {
                let number = parse_integer(connection)
                    .ok_or(Error::BadParameter("'connection' must be an integer"))?;
                // No session has number 0 or a negative number.
                Ok(Some(Credentials { session: u64::try_from(number).unwrap_or(0), auth }))
            }
            _ => Err(Error::BadParameter(
                "'connection' and 'auth' belong together; give both, or neither",
            )),
        }
    }

    /// Returns the number of a session that the call is about, without its secret.
    pub(super) fn connection_number(&self) -> Result<u64, Error> {
        let text = self.connection.as_ref().ok_or_else(|| self.missing("connection"))?;
        let number =
            parse_integer(text).ok_or(Error::BadParameter("'connection' must be an integer"))?;
        Ok(u64::try_from(number).unwrap_or(0))
    }

    /// Returns the id of a message; 0 for an id that no message has.
    pub(super) fn message_id(&self) -> Result<u64, Error> {
        let text = self.special.as_ref().ok_or_else(|| self.missing("id"))?;
        let id = parse_integer(text).ok_or(Error::BadParameter("'id' must be an integer"))?;
        Ok(u64::try_from(id).unwrap_or(0))
    }

    /// Returns the seconds for which an address is sent away; 0 if the call names none.
    pub(super) fn ban_seconds(&self) -> Result<u32, Error> {
        let seconds = self.special.as_deref().map_or(Some(0), parse_integer);
        seconds
            .and_then(|seconds| u32::try_from(seconds).ok())
            .filter(|seconds| *seconds <= BAN_SECONDS_MAX)
            .ok_or(Error::BadParameter("'seconds' must be an integer from 0 to 86400"))
    }

    /// Returns the kind of a pair; that of an inbox if the call names none.
    pub(super) fn pair_kind(&self) -> Result<PairKind, Error> {
        let kind = self.special.as_deref().map_or(Some(PairKind::Inbox), PairKind::from_name);
        kind.ok_or(Error::BadParameter("'kind' must be inbox, feed or room"))
    }

    /// Returns the number after which a list of members begins; 0 for the whole list.
    pub(super) fn members_after(&self) -> Result<u64, Error> {
        let Some(text) = &self.special else { return Ok(0) };
        let number = parse_integer(text)
            .ok_or(Error::BadParameter("'from' must be the number of a connection"))?;
        // No session has a negative number.
        Ok(u64::try_from(number).unwrap_or(0))
    }

    /// Returns the callback of JSONP.
    pub(super) fn callback(&self, method: Method) -> Result<Option<Callback<'_>>, Error> {
        match &self.callback {
            None => Ok(None),
            Some(_) if method == Method::Post => {
                Err(Error::BadParameter("'callback' is only for GET; a script tag cannot POST"))
            }
            Some(name) => Callback::parse(name).map(Some).map_err(|_| Error::BadCallback),
        }
    }

    /// Returns the names of the channels as the request spells them, if there are several.
    pub(super) fn stream_labels(&self) -> Option<Rc<[Box<str>]>> {
        let channels = &self.channels;
        (channels.len() > 1).then(|| channels.iter().map(Box::from).collect())
    }

    /// Returns the names of the channels as the request spells them; empty if there is one channel.
    #[inline]
    pub(super) fn channel_labels(&self) -> Box<[Box<str>]> {
        let channels = &self.channels;
        if channels.len() == 1 { Box::default() } else { channels.iter().map(Box::from).collect() }
    }
}

const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// Returns whether a `Content-Type` is this type, without regard to its parameters.
fn has_essence(content_type: &[u8], essence: &[u8]) -> bool {
    let its = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    its.trim_ascii().eq_ignore_ascii_case(essence)
}

/// Parses `-?[0-9]+`, up to the numbers that JavaScript represents exactly.
pub(super) fn parse_integer(text: &str) -> Option<i64> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let magnitude = parse_digits(digits)?;
    if magnitude > ID_MAX {
        return None;
    }
    let value = i64::try_from(magnitude).ok()?;
    Some(if is_negative { -value } else { value })
}

/// Parses digits. A number that is too large becomes the largest possible number.
pub(super) fn parse_digits(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.bytes().fold(0u64, |value, digit| {
        value.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_parameter() {
        for name in [
            "channel",
            "from_id",
            "from",
            "message",
            "connection",
            "auth",
            "timeout",
            "epoch",
            "grace",
            "kind",
            "id",
            "seconds",
            "callback",
        ] {
            let name_of = Param::from_name(name).map(Param::name);
            assert_eq!(name_of, Some(name));
        }
    }

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
            assert_eq!(parse_integer(text), value, "{text}");
        }
    }
}

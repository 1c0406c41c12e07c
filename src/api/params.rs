//! The parameters of a call, out of query and body: decoded, each known one once, not yet understood.

use std::borrow::Cow;

use super::error::Error;
use super::route::Call;
use crate::http::{self, FormText, Method, Request};

/// One value, or several in order; the first needs no allocation.
#[derive(Default)]
pub(super) struct OneOrMany<'a> {
    first: Option<Cow<'a, str>>,
    more: Vec<Cow<'a, str>>,
}

impl OneOrMany<'_> {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.first.iter().chain(&self.more).map(|value| &**value)
    }
}

/// What a call was given. Absent is `None`.
#[derive(Default)]
pub(super) struct Parameters<'a> {
    pub(super) channels: OneOrMany<'a>,
    pub(super) from_ids: OneOrMany<'a>,
    pub(super) message: Option<Cow<'a, str>>,
    pub(super) connection: Option<Cow<'a, str>>,
    pub(super) auth: Option<Cow<'a, str>>,
    pub(super) timeout: Option<Cow<'a, str>>,
    pub(super) epoch: Option<Cow<'a, str>>,
    pub(super) callback: Option<Cow<'a, str>>,
}

/// Names of parameters, as errors spell them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Param {
    Channel,
    FromId,
    Message,
    Connection,
    Auth,
    Timeout,
    Epoch,
    Callback,
}

impl Param {
    fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::FromId => "from_id",
            Self::Message => "message",
            Self::Connection => "connection",
            Self::Auth => "auth",
            Self::Timeout => "timeout",
            Self::Epoch => "epoch",
            Self::Callback => "callback",
        }
    }

    /// The parameter of that name, if the call knows it.
    #[expect(
        clippy::inline_always,
        reason = "called for each parameter of each request; a second caller would cost that one a call"
    )]
    #[inline(always)]
    pub(super) fn of(call: Call, name: &str) -> Option<Self> {
        let known = match name {
            "channel" => Self::Channel,
            "from_id" => Self::FromId,
            "message" => Self::Message,
            "connection" => Self::Connection,
            "auth" => Self::Auth,
            "timeout" => Self::Timeout,
            "epoch" => Self::Epoch,
            "callback" => Self::Callback,
            _ => return None,
        };
        let is_of_call = match call {
            Call::Write | Call::Introduce | Call::Goodbye => {
                matches!(
                    known,
                    Self::Channel | Self::Message | Self::Connection | Self::Auth | Self::Callback
                )
            }
            Call::Read => known != Self::Message,
            Call::Members => matches!(known, Self::Channel | Self::Callback),
            Call::Create | Call::Health => known == Self::Callback,
        };
        is_of_call.then_some(known)
    }
}

impl<'a> Parameters<'a> {
    /// Gathers what the request carries. The callback is there also beside a fault, so that a script tag can be told.
    pub(super) fn parse(&mut self, call: Call, request: &Request<'a>) -> Result<(), Error> {
        let mut result = self.parse_form(call, request.query);
        if request.method == Method::Post {
            let of_body = self.parse_body(call, request);
            result = result.and(of_body);
        }
        result
    }

    /// Takes a whole form, whatever is wrong with parts of it; the first fault is the result.
    fn parse_form(&mut self, call: Call, form: &'a str) -> Result<(), Error> {
        let mut result = Ok(());
        for (name, value) in http::pairs(form) {
            if let Err(error) = self.take(call, name, value) {
                result = result.and(Err(error));
            }
        }
        result
    }

    fn parse_body(&mut self, call: Call, request: &Request<'a>) -> Result<(), Error> {
        if request.content_type.is_some_and(is_form) {
            let form = str::from_utf8(request.body).map_err(|_| Error::BadEncoding("body"))?;
            return self.parse_form(call, form);
        }
        let carries_message = request.content_type.is_some() || !request.body.is_empty();
        if !call.adds_messages() || !carries_message {
            return Ok(());
        }
        if self.message.is_some() {
            return Err(Error::BadParameter(
                "'message' is given both as a parameter and as a body",
            ));
        }
        let text = str::from_utf8(request.body).map_err(|_| Error::BadEncoding("message"))?;
        self.message = Some(Cow::Borrowed(text));
        Ok(())
    }

    fn take(&mut self, call: Call, name: FormText<'a>, value: FormText<'a>) -> Result<(), Error> {
        let known = name.decode().ok().and_then(|name| Param::of(call, &name));
        let Some(known) = known else { return Ok(()) };
        self.set(call, known, value.decode().map_err(|_| Error::BadEncoding(known.name()))?)
    }

    /// Puts a value where it belongs, once.
    #[expect(
        clippy::inline_always,
        reason = "called for each parameter of each request; a second caller would cost that one a call"
    )]
    #[inline(always)]
    pub(super) fn set(
        &mut self,
        call: Call,
        known: Param,
        value: Cow<'a, str>,
    ) -> Result<(), Error> {
        let place = match known {
            Param::Channel if call == Call::Read => {
                self.channels.push(value);
                return Ok(());
            }
            Param::FromId => {
                self.from_ids.push(value);
                return Ok(());
            }
            Param::Channel => &mut self.channels.first,
            Param::Message => &mut self.message,
            Param::Connection => &mut self.connection,
            Param::Auth => &mut self.auth,
            Param::Timeout => &mut self.timeout,
            Param::Epoch => &mut self.epoch,
            Param::Callback => &mut self.callback,
        };
        if place.is_some() {
            return Err(Error::RepeatedParameter(known.name()));
        }
        *place = Some(value);
        Ok(())
    }
}

impl<'a> OneOrMany<'a> {
    fn push(&mut self, value: Cow<'a, str>) {
        match self.first {
            None => self.first = Some(value),
            Some(_) => self.more.push(value),
        }
    }
}

fn is_form(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

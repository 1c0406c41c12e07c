//! The one table of errors: what each is called, its status, and what to do about it.

use std::borrow::Cow;

use crate::http::ParseError;
use crate::hub::{self, BadName, NotReadable, NotWritable};

/// Why a request gets no answer but this. Whatever it was, it changed nothing.
///
/// No error repeats what the caller sent: that may be a secret, and errors end up in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not a request that can be served; says what is wrong.
    BadRequest(&'static str),
    /// An upgrade to WebSocket that is at fault; says what is wrong.
    BadHandshake(&'static str),
    /// The call (its path) needs this parameter.
    MissingParameter(&'static str, &'static str),
    /// Says what is wrong with which parameter.
    BadParameter(&'static str),
    /// This parameter came more than once.
    RepeatedParameter(&'static str),
    /// Not a channel name.
    BadChannel,
    /// Not a callback name.
    BadCallback,
    /// This parameter is not UTF-8.
    BadEncoding(&'static str),
    /// The page that calls is not one of those allowed to.
    BadOrigin,
    /// The connection lives, and this is not its secret.
    BadAuth,
    /// The write half of a pair.
    NotReadable,
    /// The read half of a pair.
    NotWritable,
    /// No such path.
    NotFound,
    /// The path takes these methods alone.
    MethodNotAllowed(&'static str),
    /// The request did not arrive whole in time.
    RequestTimeout,
    /// No such connection now.
    ConnectionEnded,
    /// The message, or the body that would carry it.
    MessageTooLarge,
    /// The request line is above the limit of the head.
    UriTooLong,
    /// The head is above its limit.
    HeadersTooLarge,
    /// No method of HTTP.
    UnknownMethod,
    /// A transfer coding other than chunked.
    UnknownCoding,
    /// A limit for each address; says which, and in how many seconds to try again.
    TooManyRequests(&'static str, u64),
    /// A limit of the server; says which.
    OverCapacity(&'static str),
    /// Not HTTP/1.x.
    VersionNotSupported,
}

/// After how many seconds a refusal for want of room is worth another try.
const RETRY_AFTER: &str = "Retry-After: 1\r\n";

impl Error {
    /// Name and status: the table in docs/api.md, "Errors".
    #[must_use]
    pub fn name_and_status(self) -> (&'static str, u16) {
        match self {
            Self::BadRequest(_) | Self::BadHandshake(_) => ("bad_request", 400),
            Self::MissingParameter(..) => ("missing_parameter", 400),
            Self::BadParameter(_) | Self::RepeatedParameter(_) => ("bad_parameter", 400),
            Self::BadChannel => ("bad_channel", 400),
            Self::BadCallback => ("bad_callback", 400),
            Self::BadEncoding(_) => ("bad_encoding", 400),
            Self::BadOrigin => ("bad_origin", 403),
            Self::BadAuth => ("bad_auth", 403),
            Self::NotReadable => ("not_readable", 403),
            Self::NotWritable => ("not_writable", 403),
            Self::NotFound => ("not_found", 404),
            Self::MethodNotAllowed(_) => ("method_not_allowed", 405),
            Self::RequestTimeout => ("request_timeout", 408),
            Self::ConnectionEnded => ("connection_ended", 410),
            Self::MessageTooLarge => ("message_too_large", 413),
            Self::UriTooLong => ("uri_too_long", 414),
            Self::HeadersTooLarge => ("headers_too_large", 431),
            Self::UnknownMethod | Self::UnknownCoding => ("not_implemented", 501),
            Self::TooManyRequests(..) => ("too_many_requests", 429),
            Self::OverCapacity(_) => ("over_capacity", 503),
            Self::VersionNotSupported => ("version_not_supported", 505),
        }
    }

    /// What to do about it, for the person who reads the answer.
    #[must_use]
    pub fn detail(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::BadRequest(what)
            | Self::BadHandshake(what)
            | Self::BadParameter(what)
            | Self::TooManyRequests(what, _)
            | Self::OverCapacity(what) => what,
            Self::MissingParameter(call, name) => return format!("{call} needs '{name}'").into(),
            Self::RepeatedParameter(name) => {
                return format!("'{name}' is given more than once").into();
            }
            Self::BadEncoding(name) => return format!("'{name}' is not UTF-8").into(),
            Self::BadChannel => {
                "a channel is 1 to 128 bytes without control characters; names with ~ come from /create"
            }
            Self::BadCallback => "a callback is a dotted path of identifiers, at most 128 bytes",
            Self::BadOrigin => "this server takes no messages from the page that sent this",
            Self::BadAuth => "this 'auth' is not the connection's",
            Self::NotReadable => {
                "this name can only be written to; its owner reads under the other one"
            }
            Self::NotWritable => "this name can only be read; write to the other one of the pair",
            Self::NotFound => "no such path",
            Self::MethodNotAllowed(_) => "this path does not take this method; see Allow",
            Self::RequestTimeout => "the request did not arrive whole in time",
            Self::ConnectionEnded => "no such connection now: introduce again",
            Self::MessageTooLarge => "the message is larger than this server takes",
            Self::UriTooLong => "the request line is too long: POST the message instead",
            Self::HeadersTooLarge => "the request head is too large",
            Self::UnknownMethod => "this is no method of HTTP; names of methods are upper-case",
            Self::UnknownCoding => "the only transfer coding known here is chunked",
            Self::VersionNotSupported => "only HTTP/1.x is spoken here",
        })
    }

    /// Header fields that belong to it, whole lines.
    #[must_use]
    pub(super) fn extra_headers(self) -> Cow<'static, str> {
        match self {
            Self::OverCapacity(_) => Cow::Borrowed(RETRY_AFTER),
            Self::TooManyRequests(_, seconds) => format!("Retry-After: {seconds}\r\n").into(),
            // RFC 6455, section 4.4.
            Self::BadHandshake(_) => Cow::Borrowed("Sec-WebSocket-Version: 13\r\n"),
            Self::MethodNotAllowed(allow) => format!("Allow: {allow}\r\n").into(),
            _ => Cow::Borrowed(""),
        }
    }
}

impl From<ParseError> for Error {
    fn from(reject: ParseError) -> Self {
        match reject {
            ParseError::BadRequest(what) => Self::BadRequest(what),
            ParseError::UriTooLong => Self::UriTooLong,
            ParseError::HeadersTooLarge => Self::HeadersTooLarge,
            ParseError::BodyTooLarge => Self::MessageTooLarge,
            ParseError::UnknownMethod => Self::UnknownMethod,
            ParseError::UnknownCoding => Self::UnknownCoding,
            ParseError::VersionNotSupported => Self::VersionNotSupported,
        }
    }
}

impl From<hub::Error> for Error {
    fn from(error: hub::Error) -> Self {
        match error {
            hub::Error::SessionEnded => Self::ConnectionEnded,
            hub::Error::WrongAuth => Self::BadAuth,
            hub::Error::TooManyChannels => {
                Self::BadParameter("a connection is in 32 channels at most: leave one first")
            }
            hub::Error::TooManyReads => Self::BadParameter(
                "256 reads wait with this connection already: read several channels at once, or introduce another",
            ),
            hub::Error::OverCapacity => {
                Self::OverCapacity("this server has as many channels as it may: try again later")
            }
            hub::Error::OutOfMemory => {
                Self::OverCapacity("this server has no memory left for more: try again later")
            }
        }
    }
}

impl From<BadName> for Error {
    fn from(_: BadName) -> Self {
        Self::BadChannel
    }
}

impl From<NotReadable> for Error {
    fn from(_: NotReadable) -> Self {
        Self::NotReadable
    }
}

impl From<NotWritable> for Error {
    fn from(_: NotWritable) -> Self {
        Self::NotWritable
    }
}

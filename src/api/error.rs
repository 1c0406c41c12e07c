//! The table of errors, with name, status and detail.

use std::borrow::Cow;

use crate::http::ParseError;
use crate::hub::{self, BadName, NotOwner, NotReadable, NotWritable};

/// Error response to a request. The request changed nothing, unless the error is
/// [`Error::OutcomeUnknown`].
///
/// No error repeats text of the request: the text may be a secret, and errors end up in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Malformed request; the text is the detail.
    BadRequest(&'static str),
    /// Malformed upgrade to WebSocket; the text is the detail.
    BadHandshake(&'static str),
    /// A call that acts, made by a browser in advance: its user may never need the result.
    Prefetch,
    /// The call of this path needs this parameter.
    MissingParameter(&'static str, &'static str),
    /// The call of this path needs this parameter, and the type of the body says that the body has
    /// no parameters.
    MissingInBody(&'static str, &'static str),
    /// Invalid parameter; the text is the detail.
    BadParameter(&'static str),
    /// This parameter was given more than once.
    RepeatedParameter(&'static str),
    /// Invalid channel name.
    BadChannel,
    /// Invalid callback name.
    BadCallback,
    /// This parameter is not UTF-8.
    BadEncoding(&'static str),
    /// The address has bytes that are neither percent-encoded nor UTF-8.
    AddressNotUtf8,
    /// The origin of the calling page is not in `--allow-origin`.
    BadOrigin,
    /// The server redirects to https, and this request came without and cannot be redirected.
    HttpsOnly,
    /// The session exists, but has another secret.
    BadAuth,
    /// The channel name is the write name of a pair.
    NotReadable,
    /// The channel name is the read name of a pair.
    NotWritable,
    /// The channel name is not the one that the owner keeps.
    NotOwner,
    /// The address of the client was sent away from the channel for some time.
    Removed,
    /// Unknown path.
    NotFound,
    /// The path allows only these methods.
    MethodNotAllowed(&'static str),
    /// The request did not arrive completely in time.
    RequestTimeout,
    /// The session has ended, or never existed.
    ConnectionEnded,
    /// The end of the session with this number waits for the log: the call gets
    /// [`Error::ConnectionEnded`] if it gets there.
    ConnectionEnding(u64),
    /// The message, or the body of the request, is above its limit.
    MessageTooLarge,
    /// The body is a form of the type `multipart/form-data`.
    UnsupportedMediaType,
    /// The text of an introduction is above its limit.
    IntroductionTooLarge,
    /// The request line is above the limit of the head.
    UriTooLong,
    /// The head is above its limit.
    HeadersTooLarge,
    /// Unknown HTTP method.
    UnknownMethod,
    /// A transfer coding other than chunked.
    UnknownCoding,
    /// Above a limit per address; the text is the detail. Retry after this number of seconds.
    TooManyRequests(&'static str, u64),
    /// Above a limit of the server; the text is the detail.
    OverCapacity(&'static str),
    /// The log failed after the call was written to it, or did not respond in time: the call may
    /// have taken effect. The only error of a call that may have changed something.
    OutcomeUnknown,
    /// A version of HTTP other than 1.x.
    VersionNotSupported,
}

/// Header fields of [`Error::OverCapacity`]: retry after a second. The second field lets pages of
/// other origins read the first one.
const RETRY_AFTER: &str = "Retry-After: 1\r\nAccess-Control-Expose-Headers: Retry-After\r\n";

impl Error {
    /// Returns name and status, as the table of errors in docs/api.md lists them.
    #[must_use]
    pub fn name_and_status(self) -> (&'static str, u16) {
        match self {
            Self::BadRequest(_) | Self::BadHandshake(_) => ("bad_request", 400),
            Self::Prefetch => ("bad_request", 403),
            Self::MissingParameter(..) | Self::MissingInBody(..) => ("missing_parameter", 400),
            Self::BadParameter(_) | Self::RepeatedParameter(_) => ("bad_parameter", 400),
            Self::BadChannel => ("bad_channel", 400),
            Self::BadCallback => ("bad_callback", 400),
            Self::BadEncoding(_) | Self::AddressNotUtf8 => ("bad_encoding", 400),
            Self::BadOrigin => ("bad_origin", 403),
            Self::HttpsOnly => ("https_only", 403),
            Self::BadAuth => ("bad_auth", 403),
            Self::NotReadable => ("not_readable", 403),
            Self::NotWritable => ("not_writable", 403),
            Self::NotOwner => ("not_owner", 403),
            Self::Removed => ("removed", 403),
            Self::NotFound => ("not_found", 404),
            Self::MethodNotAllowed(_) => ("method_not_allowed", 405),
            Self::RequestTimeout => ("request_timeout", 408),
            Self::ConnectionEnded | Self::ConnectionEnding(_) => ("connection_ended", 410),
            Self::MessageTooLarge | Self::IntroductionTooLarge => ("message_too_large", 413),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415),
            Self::UriTooLong => ("uri_too_long", 414),
            Self::HeadersTooLarge => ("headers_too_large", 431),
            Self::UnknownMethod | Self::UnknownCoding => ("not_implemented", 501),
            Self::TooManyRequests(..) => ("too_many_requests", 429),
            Self::OverCapacity(_) => ("over_capacity", 503),
            Self::OutcomeUnknown => ("outcome_unknown", 503),
            Self::VersionNotSupported => ("version_not_supported", 505),
        }
    }

    /// Returns a text for people, which says what is wrong and what to do.
    #[must_use]
    pub fn detail(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::BadRequest(detail)
            | Self::BadHandshake(detail)
            | Self::BadParameter(detail)
            | Self::TooManyRequests(detail, _)
            | Self::OverCapacity(detail) => detail,
            Self::MissingParameter(call, name) => return format!("{call} needs '{name}'").into(),
            Self::MissingInBody(call, name) => {
                return format!(
                    "{call} needs '{name}'; parameters in a body are read only if its type is \
                     application/x-www-form-urlencoded"
                )
                .into();
            }
            Self::RepeatedParameter(name) => {
                return format!("'{name}' is given more than once; give it once").into();
            }
            Self::BadEncoding(name) => {
                return format!("'{name}' is not UTF-8; encode it as UTF-8").into();
            }
            Self::Prefetch => {
                "a browser must not make this call in advance; make it when it is meant"
            }
            Self::BadChannel => {
                "invalid channel name; use 1 to 128 bytes without control characters \
                 (names with ~ come from /create)"
            }
            Self::BadCallback => {
                "invalid callback name; use a dotted path of identifiers, at most 128 bytes"
            }
            Self::AddressNotUtf8 => {
                "the address is not UTF-8, but Latin-1 or the like; encode it as UTF-8, with %XX"
            }
            Self::BadOrigin => {
                "the origin of this page is not allowed; the operator can add it to --allow-origin"
            }
            Self::HttpsOnly => {
                "this server takes calls only over https; use https://, or wss:// for a WebSocket"
            }
            Self::BadAuth => {
                "'auth' does not belong to 'connection'; use both from the same /introduce"
            }
            Self::NotReadable => "this channel name is write-only; read with the pair's read name",
            Self::NotWritable => "this channel name is read-only; write with the pair's write name",
            Self::NotOwner => {
                "only the secret name that the owner of the channel keeps allows this call"
            }
            Self::Removed => {
                "your address was sent away from this channel for some time; come back later"
            }
            Self::NotFound => "no such path; check its spelling",
            Self::MethodNotAllowed(_) => {
                "this path does not allow this method; use one that 'Allow' lists"
            }
            Self::RequestTimeout => "the request did not arrive completely in time; send it again",
            Self::ConnectionEnded | Self::ConnectionEnding(_) => {
                "connection has ended; call /introduce again"
            }
            Self::MessageTooLarge => {
                "the message is larger than this server accepts; send a shorter one"
            }
            Self::UnsupportedMediaType => {
                "multipart/form-data is not supported; send application/x-www-form-urlencoded \
                 (curl: -d instead of -F; JavaScript: URLSearchParams instead of FormData)"
            }
            Self::IntroductionTooLarge => {
                "the introduction is larger than this server accepts; use a shorter name"
            }
            Self::UriTooLong => "the request line is too long; POST the message instead",
            Self::HeadersTooLarge => "the request head is too large; send fewer header fields",
            Self::UnknownMethod => "unknown HTTP method; names of methods are upper-case",
            Self::UnknownCoding => "unsupported transfer coding; use chunked",
            Self::OutcomeUnknown => {
                "the call may or may not have taken effect; read the channel before repeating it"
            }
            Self::VersionNotSupported => "only HTTP/1.0 and HTTP/1.1 are supported",
        })
    }

    /// Returns the header fields of the error, whole lines.
    #[must_use]
    pub(super) fn extra_headers(self) -> Cow<'static, str> {
        match self {
            Self::OverCapacity(_) => Cow::Borrowed(RETRY_AFTER),
            Self::TooManyRequests(_, seconds) => {
                RETRY_AFTER.replacen('1', &seconds.to_string(), 1).into()
            }
            // RFC 6455, section 4.4.
            Self::BadHandshake(_) => Cow::Borrowed("Sec-WebSocket-Version: 13\r\n"),
            Self::MethodNotAllowed(allow) => format!("Allow: {allow}\r\n").into(),
            _ => Cow::Borrowed(""),
        }
    }
}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::BadRequest(detail) => Self::BadRequest(detail),
            ParseError::TargetNotUtf8 => Self::AddressNotUtf8,
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
            hub::Error::SessionEnding(session) => Self::ConnectionEnding(session),
            hub::Error::WrongAuth => Self::BadAuth,
            hub::Error::NotJoined => {
                Self::OverCapacity("this node has to join its cluster again; retry")
            }
            hub::Error::TooManyChannels => {
                Self::BadParameter("a connection can be in at most 32 channels; leave one first")
            }
            hub::Error::TooManyReads => Self::BadParameter(
                "this connection already has 256 pending reads; \
                 read several channels at once, or introduce another connection",
            ),
            hub::Error::OverCapacity => Self::OverCapacity("channel limit reached; retry later"),
            hub::Error::OutOfMemory => Self::OverCapacity("memory limit reached; retry later"),
            hub::Error::UnknownMessage => {
                Self::BadParameter("no message of this channel has had this 'id'")
            }
            hub::Error::SentAway => Self::Removed,
            hub::Error::LogBehind => {
                Self::OverCapacity("the log cannot be written for now; retry later")
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

impl From<NotOwner> for Error {
    fn from(_: NotOwner) -> Self {
        Self::NotOwner
    }
}

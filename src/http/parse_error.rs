//! Errors of the parser.

/// Error of the parser. The caller must close the client: the end of the request is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not HTTP, or ambiguous. The text says what is wrong and what to do.
    BadRequest(&'static str),
    /// The request target is not UTF-8.
    TargetNotUtf8,
    /// The request line alone is above the limit of the head.
    UriTooLong,
    /// The head, or the extensions and trailers of a chunked body, are above their limit.
    HeadersTooLarge,
    /// The body is above its limit.
    BodyTooLarge,
    /// Unknown HTTP method.
    UnknownMethod,
    /// A transfer coding other than chunked.
    UnknownCoding,
    /// A version of HTTP other than 1.x.
    VersionNotSupported,
}

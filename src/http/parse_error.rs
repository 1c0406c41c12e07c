//! Why bytes are not a request.

/// Why bytes are no request that can be served. The client cannot go on after any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not HTTP, or ambiguous; says what is wrong.
    BadRequest(&'static str),
    /// The request line alone is above the limit of the head.
    UriTooLong,
    /// The head, or what a chunked body brings beside its data, is above its limit.
    HeadersTooLarge,
    /// The body is above its limit.
    BodyTooLarge,
    /// No method of HTTP.
    UnknownMethod,
    /// A transfer coding other than chunked.
    UnknownCoding,
    /// Not HTTP/1.x.
    VersionNotSupported,
}

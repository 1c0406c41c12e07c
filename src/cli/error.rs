//! Errors of requests.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClientError {
    /// No connection could be made. Has the reason.
    Connect(String),
    /// The certificate is not trusted. Has OpenSSL's code and text.
    Certificate(u32, String),
    /// TLS failed for another reason.
    Tls(String),
    /// The program `openssl`, which speaks TLS, is not installed.
    NoOpenssl,
    /// Nothing arrived in time.
    Timeout,
    /// The connection was closed before a response began.
    ClosedBeforeResponse,
    /// The connection was closed in the middle of a response.
    ClosedMidResponse,
    /// The response is not HTTP.
    NotHttp,
    /// The response is larger than any of Speak's.
    TooLarge,
    /// The reader of standard output has closed it.
    OutputClosed,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "cannot connect: {why}"),
            Self::Certificate(_, why) => write!(f, "the certificate is not trusted: {why}"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::NoOpenssl => {
                f.write_str("https needs the program openssl: install it (apt-get install openssl)")
            }
            Self::Timeout => f.write_str("no response in time"),
            Self::ClosedBeforeResponse => f.write_str("connection closed without a response"),
            Self::ClosedMidResponse => f.write_str("connection closed in the middle of a response"),
            Self::NotHttp => f.write_str("the response is not HTTP"),
            Self::TooLarge => f.write_str("the response is too large"),
            Self::OutputClosed => f.write_str("standard output was closed"),
        }
    }
}

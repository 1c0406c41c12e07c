//! What goes wrong on the way to an answer.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClientError {
    /// No connection came about, and why.
    Connect(String),
    /// The certificate is no good: the code and the words of OpenSSL.
    Certificate(u32, String),
    /// TLS came to nothing otherwise.
    Tls(String),
    /// There is no `openssl` to speak TLS with.
    NoOpenssl,
    /// Nothing came in time.
    Timeout,
    /// It was closed before an answer began.
    ClosedBeforeResponse,
    /// It was closed in the middle of an answer.
    ClosedMidResponse,
    /// What came is not HTTP.
    NotHttp,
    /// The answer is too large to be one of Speak's.
    TooLarge,
    /// Whoever read what we print has closed it.
    OutputClosed,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "cannot connect: {why}"),
            Self::Certificate(_, why) => write!(f, "its certificate is not trusted: {why}"),
            Self::Tls(why) => write!(f, "TLS fails: {why}"),
            Self::NoOpenssl => {
                f.write_str("https needs the program openssl: install it (apt-get install openssl)")
            }
            Self::Timeout => f.write_str("it does not answer in time"),
            Self::ClosedBeforeResponse => f.write_str("it closed the connection without an answer"),
            Self::ClosedMidResponse => {
                f.write_str("it closed the connection in the middle of an answer")
            }
            Self::NotHttp => f.write_str("what answers there does not speak HTTP"),
            Self::TooLarge => f.write_str("the answer is too large"),
            Self::OutputClosed => f.write_str("nobody reads the output"),
        }
    }
}

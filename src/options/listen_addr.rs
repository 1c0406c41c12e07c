//! Addresses to listen on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Beginning of an address whose clients speak TLS.
pub(crate) const TLS_PREFIX: &str = "tls:";

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddr {
    /// An IP address and a port. `[::]` accepts IPv4, too.
    Tcp(SocketAddr),
    /// The same, for clients that speak TLS.
    Tls(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Tls(address) => write!(f, "{TLS_PREFIX}{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

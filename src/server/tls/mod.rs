//! TLS as the server has it, or what stands in for it in a build without TLS.

#[cfg(not(feature = "tls"))]
mod no_tls;
#[cfg(feature = "tls")]
mod server_tls;

#[cfg(not(feature = "tls"))]
pub(super) use self::no_tls::{ClientSocket, ServerTls, TlsAcceptor};
#[cfg(feature = "tls")]
pub(super) use self::server_tls::{ClientSocket, ServerTls, TlsAcceptor};

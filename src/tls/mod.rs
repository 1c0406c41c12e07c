//! TLS 1.3 (RFC 8446) for the server's own listeners and for its Redis, without system calls.
//!
//! rustls does the handshake; then its state is dropped, and a record layer of this module seals
//! and opens records with the traffic secrets alone. A waiting reader holds 128 bytes for that.
//!
//! A server uses it like this:
//!
//! 1. [`Certificate::parse`] for each pair of files, [`Certificates::new`], [`TlsContext::new`].
//!    [`TlsContext::set_certificates`] replaces them for later handshakes, and
//!    [`TlsContext::set_time`] is called once a turn.
//! 2. [`TlsSocket::accept`] for each client of a listener with TLS, [`TlsSocket::plain`] for the
//!    others. The socket below is registered with the poll. From then on the service reads and
//!    writes plaintext. It flushes a socket that has become writable, adds
//!    [`Socket::memory`](crate::service::Socket::memory) to the client's memory, and charges
//!    [`Socket::take_steps`](crate::service::Socket::take_steps) to its budget.
//! 3. In an upgrade, [`TlsSocket::export`] of each client between two requests and
//!    [`TlsContext::export_ticket_keys`] go to the next process, which calls
//!    [`TlsSocket::import`] and [`TlsContext::import_ticket_keys`].
//!
//! A node of a cluster is a client of Redis: [`TrustedServers`] begins a [`TlsClient`], which has
//! the same handshake and the same record layer.
//!
//! From below: `suite` has keys and secrets, `record` the record layer, `handshake` the use of
//! rustls with `provider`, `tickets` and `certificates`, `batch` several records, `session` one
//! client, `session_table` all of them, and `tls_socket` the socket of one.

mod alert;
mod batch;
mod certificates;
mod client;
mod clock;
mod context;
mod der;
mod ec_key;
mod handshake;
mod provider;
mod record;
mod session;
mod session_table;
mod suite;
#[cfg(test)]
mod test_vectors;
mod tickets;
mod tls_socket;
mod unsent;
mod validity;

pub use alert::Alert;
pub use certificates::{Certificate, CertificateError, Certificates, KeyKind, PemFiles};
pub use client::{PeerName, TlsClient, TlsClientError, TrustedServers};
pub use context::{Outcome, PlainReply, TlsContext};
pub use handshake::{Failure, Handshake, Kind, Progress};
pub use record::{
    OVERHEAD_BYTES, Opened, Opener, PLAINTEXT_BYTES_MAX, RECORD_BYTES_MAX, Sealer, Traffic,
};
pub use suite::Suite;
pub use tls_socket::TlsSocket;

//! What all TLS clients of a server share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;

use super::certificates::{Certificate, Certificates};
use super::clock::Clock;
use super::handshake::{Failure, Handshake, Kind, SecretReceiver};
use super::provider::provider;
use super::tickets::Tickets;

/// Protocol that is spoken inside of TLS, in the words of ALPN (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// Makes the response to a client that speaks plain HTTP, which is sent in clear and closes the
/// connection. The argument is the time in Unix seconds.
pub type PlainReply = fn(u64) -> Vec<u8>;

/// Certificates, tickets and counters of a server.
#[derive(Debug)]
pub struct TlsContext {
    config: RefCell<Arc<ServerConfig>>,
    certificates: RefCell<Arc<Certificates>>,
    clock: Arc<Clock>,
    tickets: Arc<Tickets>,
    plain_reply: PlainReply,
    counts: [Cell<u64>; Outcome::ALL.len()],
}

/// Outcome of a handshake, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// See [`Kind::Full`].
    Full,
    /// See [`Kind::Resumed`].
    Resumed,
    /// See [`Failure::Refused`].
    Refused,
    /// See [`Failure::PlainText`].
    PlainText,
    /// The client has closed the connection, or time was up.
    Abandoned,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 5] =
        [Self::Full, Self::Resumed, Self::Refused, Self::PlainText, Self::Abandoned];
}

impl From<Kind> for Outcome {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Full => Self::Full,
            Kind::Resumed => Self::Resumed,
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::PlainText => Self::PlainText,
            Failure::Refused => Self::Refused,
        }
    }
}

impl TlsContext {
    /// Creates a context at the time `now_s`, in Unix seconds.
    #[must_use]
    pub fn new(certificates: Certificates, plain_reply: PlainReply, now_s: u64) -> Rc<Self> {
        let clock = Arc::new(Clock::new(now_s));
        let tickets = Arc::new(Tickets::new(Arc::clone(&clock)));
        let certificates = Arc::new(certificates);
        let config = config(&certificates, &clock, &tickets);
        Rc::new(Self {
            config: RefCell::new(config),
            certificates: RefCell::new(certificates),
            clock,
            tickets,
            plain_reply,
            counts: Default::default(),
        })
    }

    /// Replaces the certificates for handshakes that begin from now on.
    pub fn set_certificates(&self, certificates: Certificates) {
        let certificates = Arc::new(certificates);
        *self.config.borrow_mut() = config(&certificates, &self.clock, &self.tickets);
        *self.certificates.borrow_mut() = certificates;
    }

    /// Calls `visit` for each certificate, the default one first.
    pub fn visit_certificates(&self, visit: impl FnMut(&Certificate)) {
        self.certificates.borrow().all().iter().for_each(visit);
    }

    /// Sets the time, in Unix seconds: once a turn. Tickets need it.
    pub fn set_time(&self, now_s: u64) {
        self.clock.set(now_s);
    }

    /// Encodes the keys of the tickets for another process. They are secret.
    #[must_use]
    pub fn export_ticket_keys(&self) -> Vec<u8> {
        self.tickets.export()
    }

    /// Takes over the keys of the tickets of another process. Returns `false` if `bytes` are none:
    /// then the next clients need full handshakes.
    pub fn import_ticket_keys(&self, bytes: &[u8]) -> bool {
        self.tickets.import(bytes)
    }

    /// Returns how many handshakes had this outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.counts[outcome as usize].get()
    }

    pub(super) fn note(&self, outcome: Outcome) {
        self.counts[outcome as usize].update(|count| count + 1);
    }

    pub(super) fn plain_reply(&self) -> Vec<u8> {
        (self.plain_reply)(self.clock.unix_s())
    }

    /// Begins a handshake. `None` if the kernel gives no random bytes.
    #[must_use]
    pub fn start_handshake(&self) -> Option<Handshake> {
        Handshake::new(&self.config.borrow())
    }
}

fn config(
    certificates: &Arc<Certificates>,
    clock: &Arc<Clock>,
    tickets: &Arc<Tickets>,
) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_details(Arc::new(provider()), Arc::clone(clock) as _)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("suites and groups of TLS 1.3");
    let mut config =
        builder.with_no_client_auth().with_cert_resolver(Arc::clone(certificates) as _);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::clone(tickets) as _;
    // A client of Speak opens few connections at a time: one ticket is enough for the next.
    config.send_tls13_tickets = 1;
    // Early data could be replayed, and a write is not idempotent (RFC 8446, section 8).
    config.max_early_data_size = 0;
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(SecretReceiver);
    Arc::new(config)
}

//! The other side of TLS: a connection to a server, whose certificate is verified. It has no
//! socket: calls get the bytes that have come, and append those to send.

use std::sync::Arc;
use std::{error, fmt};

use rustls::client::{
    ClientConnectionData, Resumption, UnbufferedClientConnection, WebPkiServerVerifier,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::unbuffered::UnbufferedStatus;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ExtractedSecrets, HandshakeKind,
    RootCertStore,
};

use super::alert::Alert;
use super::batch::{Batch, Fault, Sender, open_all};
use super::clock::Clock;
use super::handshake::{Connection, Failure, Handshake, Progress, SecretReceiver};
use super::provider::client_provider;
use super::record::{PLAINTEXT_BYTES_MAX, Traffic};
use super::validity::validity;

/// Number of the alert with which a server asks for a certificate of its client. In TLS 1.3 it
/// comes after the handshake.
const CERTIFICATE_REQUIRED: u8 = 116;

/// Certificates of authorities that a client trusts, and the time.
pub struct TrustedServers {
    config: Arc<ClientConfig>,
    clock: Arc<Clock>,
}

/// Name of a server, which its certificate must have: a DNS name or an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName(ServerName<'static>);

/// Connection to a server.
pub struct TlsClient {
    state: State,
    /// Plaintext that was returned, then a part of the next record.
    input: Vec<u8>,
    /// Bytes at the start of `input` that are done with.
    used: usize,
    server_expires_s: u64,
}

enum State {
    Handshaking(Box<Handshake<UnbufferedClientConnection>>),
    Open(Traffic),
    /// The server has said that it sends nothing more, or there was an error.
    Over,
}

/// Reason why a connection cannot be used, in words that follow the name of the server.
#[derive(Debug, PartialEq, Eq)]
pub struct TlsClientError(&'static str);

impl fmt::Display for TlsClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl error::Error for TlsClientError {}

const BROKEN: TlsClientError = TlsClientError("it breaks the protocol of TLS");

impl Connection for UnbufferedClientConnection {
    type Side = ClientConnectionData;

    const IS_CLIENT: bool = true;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(records)
    }

    fn is_handshaking(&self) -> bool {
        (**self).is_handshaking()
    }

    fn kind(&self) -> Option<HandshakeKind> {
        self.handshake_kind()
    }

    fn into_secrets(self) -> Option<ExtractedSecrets> {
        self.dangerous_into_kernel_connection().ok().map(|(secrets, _)| secrets)
    }
}

impl PeerName {
    /// Parses a name or an IP address. `None` if it is neither.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        ServerName::try_from(name).ok().map(|name| Self(name.to_owned()))
    }
}

impl TrustedServers {
    /// Trusts the servers whose certificates were issued by the authorities in `pem`. Certificates
    /// in it that cannot be parsed are ignored, since old ones are in the stores of systems.
    ///
    /// # Errors
    ///
    /// A description, in words that follow the name of the file.
    #[inline(never)]
    pub fn new(pem: &[u8]) -> Result<Self, &'static str> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.map_err(|_| "this is not valid PEM")?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        let (provider, clock) = (Arc::new(client_provider()), Arc::new(Clock::new(0)));
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|_| "no valid certificate found; it must be PEM")?;
        let mut config = ClientConfig::builder_with_details(provider, Arc::clone(&clock) as _)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("suites and groups of TLS 1.3")
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(SecretReceiver);
        Ok(Self { config: Arc::new(config), clock })
    }

    /// Begins a connection at the time `now_s`, in Unix seconds, at which the server's certificate
    /// must be valid. Appends the first message to `out`.
    ///
    /// # Errors
    ///
    /// The kernel gives no random bytes.
    #[inline(never)]
    pub fn connect(
        &self,
        name: &PeerName,
        now_s: u64,
        out: &mut Vec<u8>,
    ) -> Result<TlsClient, TlsClientError> {
        self.clock.set(now_s);
        let failed = TlsClientError("the kernel gives no random bytes");
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.config), name.0.clone());
        let Ok(connection) = connection else { return Err(failed) };
        let mut handshake = Box::new(Handshake::with(connection));
        handshake.process(out).map_err(|_| failed)?;
        let state = State::Handshaking(handshake);
        Ok(TlsClient { state, input: Vec::new(), used: 0, server_expires_s: 0 })
    }
}

impl TlsClient {
    /// Returns whether the handshake is over, so that [`TlsClient::seal`] may be called.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Returns whether the server has said that it sends nothing more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Returns the first Unix second at which the server's certificate is no longer valid, once the
    /// handshake is over.
    #[must_use]
    pub fn server_expires_s(&self) -> u64 {
        self.server_expires_s
    }

    /// Returns the number of bytes of a record that is not complete.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.input.len() - self.used
    }

    /// Handles bytes of the server. Returns their plaintext, and appends what has to be sent to
    /// `out`, also after an error.
    ///
    /// # Errors
    ///
    /// The reason why the connection cannot be used.
    #[inline(never)]
    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<&[u8], TlsClientError> {
        self.input.drain(..self.used);
        self.used = 0;
        let mut rest = bytes;
        if let State::Handshaking(handshake) = &mut self.state {
            let (used, result) = handshake.advance(bytes, out);
            rest = &bytes[used..];
            match result {
                Ok(Progress::Incomplete) => return Ok(&[]),
                Ok(Progress::Complete(_)) => self.end_handshake()?,
                Err(failure) => {
                    let reason = describe(failure, handshake.take_error());
                    self.state = State::Over;
                    return Err(TlsClientError(reason));
                }
            }
        }
        let State::Open(traffic) = &mut self.state else { return Ok(&[]) };
        self.input.extend_from_slice(rest);
        match open_all(traffic, &mut self.input, Sender::Server) {
            Ok(Batch { plaintext, used, is_closed, .. }) => {
                self.used = used;
                if is_closed {
                    self.state = State::Over;
                }
                Ok(&self.input[..plaintext])
            }
            Err(fault) => {
                let error = match fault {
                    Fault::Ours(alert) => {
                        traffic.sealer().seal_alert(alert, out);
                        BROKEN
                    }
                    Fault::Theirs(CERTIFICATE_REQUIRED) => {
                        TlsClientError("it asks for a certificate of its client")
                    }
                    Fault::Theirs(_) => TlsClientError("it has ended TLS with an alert"),
                };
                self.state = State::Over;
                Err(error)
            }
        }
    }

    fn end_handshake(&mut self) -> Result<(), TlsClientError> {
        let State::Handshaking(handshake) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(BROKEN);
        };
        let certificates = handshake.connection().peer_certificates();
        let validity = certificates.and_then(|chain| validity(chain.first()?));
        self.server_expires_s = validity.map_or(0, |validity| validity.end);
        self.state = State::Open(handshake.finish().ok_or(BROKEN)?);
        Ok(())
    }

    /// Seals plaintext, and appends the records to `out`. Does nothing unless the connection is
    /// open.
    #[inline(never)]
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        if let State::Open(traffic) = &mut self.state {
            let mut sealer = traffic.sealer();
            for piece in plaintext.chunks(PLAINTEXT_BYTES_MAX) {
                sealer.seal(piece, out);
            }
        }
    }

    /// Tells the server that nothing more is sent: appends that to `out`.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if let State::Open(traffic) = &mut self.state {
            traffic.sealer().seal_alert(Alert::CloseNotify, out);
            self.state = State::Over;
        }
    }
}

/// Describes a failed handshake in words that follow the name of the server.
fn describe(failure: Failure, error: Option<rustls::Error>) -> &'static str {
    use CertificateError as Bad;
    if failure == Failure::PlainText {
        return "it does not speak TLS at this port";
    }
    match error {
        Some(rustls::Error::InvalidCertificate(error)) => match error {
            Bad::Expired | Bad::ExpiredContext { .. } => "its certificate has expired",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "its certificate is not valid yet",
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            // The second one is of an authority that only has the same name.
            Bad::UnknownIssuer | Bad::BadSignature => {
                "its certificate is not of an authority in --cluster-ca"
            }
            // webpki tells apart more than rustls: most of all, `CA:TRUE`.
            Bad::Other(_) => "its certificate is not valid, or is that of an authority itself",
            _ => "its certificate is not valid",
        },
        Some(
            rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
            | rustls::Error::PeerIncompatible(_),
        ) => "it does not speak TLS 1.3",
        _ => "the handshake of TLS has failed",
    }
}

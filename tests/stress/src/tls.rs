//! TLS of the users, with the certificate of tests/tls.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Name in the certificate.
const NAME: &str = "ecdsa.example.test";

/// Plaintext that is taken from a record at a time.
const PLAINTEXT_BYTES: usize = 16 << 10;

/// What all clients of a run share: certificates, and tickets of sessions to resume.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

/// The client's side of one connection.
pub(crate) struct TlsLink(ClientConnection);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tls")
}

/// Returns the options with which a server has the certificate.
pub(crate) fn server_options() -> [(&'static str, PathBuf); 2] {
    let folder = folder();
    [("--tls-cert", folder.join("ecdsa.pem")), ("--tls-key", folder.join("ecdsa.key"))]
}

impl Tls {
    pub(crate) fn new() -> io::Result<Self> {
        let ca = CertificateDer::from_pem_file(folder().join("ca.pem"));
        let mut roots = RootCertStore::empty();
        roots.add(ca.map_err(io::Error::other)?).map_err(io::Error::other)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    fn connection(&self) -> io::Result<ClientConnection> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)
    }

    pub(crate) fn begin(&self) -> io::Result<TlsLink> {
        let mut connection = self.connection()?;
        connection.set_buffer_limit(None);
        Ok(TlsLink(connection))
    }

    /// Returns a stream that blocks.
    pub(crate) fn stream(&self, stream: TcpStream) -> io::Result<impl Read + Write + use<>> {
        Ok(StreamOwned::new(self.connection()?, stream))
    }
}

impl TlsLink {
    pub(crate) fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Seals bytes, now or after the handshake.
    pub(crate) fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.writer().write_all(bytes)
    }

    /// Tells that nothing more is sent, if the handshake is over.
    pub(crate) fn close(&mut self) {
        if !self.is_handshaking() {
            self.0.send_close_notify();
        }
    }

    /// Appends what has to be sent to `out`.
    pub(crate) fn take_output(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(out)?;
        }
        Ok(())
    }

    /// Opens bytes of the server, and calls `take` for their plaintext. Returns whether the server
    /// has told that it sends nothing more.
    pub(crate) fn open(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        let mut plaintext = [0; PLAINTEXT_BYTES];
        let mut is_over = false;
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes)?;
            let state = self.0.process_new_packets().map_err(io::Error::other)?;
            is_over |= state.peer_has_closed();
            while let Ok(length @ 1..) = self.0.reader().read(&mut plaintext) {
                take(&plaintext[..length]);
            }
        }
        Ok(is_over)
    }
}

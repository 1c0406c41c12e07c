//! A client of rustls in memory. It verifies certificates against those of tests/tls/make.sh.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, RootCertStore, SupportedCipherSuite,
};
use speak::service::Socket;
use speak::tls::TlsContext;

use crate::pipe::{NOW_S, Server, Wire, accept, pem, read_all};

#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW_S)))
    }
}

pub(crate) fn config_with(
    suites: &[SupportedCipherSuite],
    groups: &[&'static dyn SupportedKxGroup],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem("ca.pem")).unwrap()).unwrap();
    let provider = CryptoProvider {
        cipher_suites: suites.to_vec(),
        kx_groups: groups.to_vec(),
        ..ring::default_provider()
    };
    let mut config = ClientConfig::builder_with_details(Arc::new(provider), Arc::new(Clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

pub(crate) fn config() -> ClientConfig {
    config_with(ring::ALL_CIPHER_SUITES, ring::ALL_KX_GROUPS)
}

/// A client with its end of a connection.
pub(crate) struct Client {
    pub(crate) tls: ClientConnection,
    pub(crate) wire: Rc<RefCell<Wire>>,
    pub(crate) received: Vec<u8>,
    /// Error that the server has caused.
    pub(crate) error: Option<Error>,
    /// TLS has told the end.
    pub(crate) is_closed: bool,
    /// It has sent something: set here, and cleared by others.
    pub(crate) has_sent: bool,
}

impl Client {
    pub(crate) fn new(config: &Arc<ClientConfig>, name: &str, wire: &Rc<RefCell<Wire>>) -> Self {
        let name = name.to_owned().try_into().unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        let wire = Rc::clone(wire);
        Self { tls, wire, received: Vec::new(), error: None, is_closed: false, has_sent: false }
    }

    /// Bytes that the client has to send.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut output).unwrap();
        }
        output
    }

    pub(crate) fn send_output(&mut self) {
        let output = self.take_output();
        self.has_sent |= !output.is_empty();
        self.wire.borrow_mut().to_server.extend(output);
    }

    /// Handles all bytes of the server.
    pub(crate) fn receive(&mut self) {
        let bytes = std::mem::take(&mut self.wire.borrow_mut().to_client);
        let mut rest = &bytes[..];
        while !rest.is_empty() && self.error.is_none() {
            self.tls.read_tls(&mut rest).unwrap();
            if let Err(error) = self.tls.process_new_packets() {
                self.error = Some(error);
            }
            let mut plaintext = vec![0; 1 << 16];
            loop {
                match self.tls.reader().read(&mut plaintext) {
                    Ok(0) => {
                        self.is_closed = true;
                        break;
                    }
                    Ok(length) => self.received.extend_from_slice(&plaintext[..length]),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.tls.writer().write_all(piece).unwrap();
            self.send_output();
        }
    }

    pub(crate) fn alert(&self) -> Option<AlertDescription> {
        match self.error {
            Some(Error::AlertReceived(alert)) => Some(alert),
            _ => None,
        }
    }
}

/// The client's own buffer has a limit.
const PIECE: usize = 32 * 1024;

/// Exchanges bytes until neither side has more. Returns what the server has read, and how that
/// ended.
pub(crate) fn exchange(client: &mut Client, server: &mut Server) -> (Vec<u8>, Option<ErrorKind>) {
    let mut received = Vec::new();
    loop {
        client.send_output();
        let (bytes, end) = read_all(server);
        received.extend(bytes);
        let is_over = client.wire.borrow().to_client.is_empty();
        client.receive();
        if is_over && !client.tls.wants_write() || end != Some(ErrorKind::WouldBlock) {
            return (received, end);
        }
    }
}

/// Connects, with a handshake that has to succeed.
pub(crate) fn connect(
    config: &Arc<ClientConfig>,
    name: &str,
    context: &Rc<TlsContext>,
) -> (Client, Server) {
    let (wire, mut server) = accept(context);
    let mut client = Client::new(config, name, &wire);
    let (received, end) = exchange(&mut client, &mut server);
    assert_eq!((received.len(), end, &client.error), (0, Some(ErrorKind::WouldBlock), &None));
    assert!(!client.tls.is_handshaking() && !server.is_handshaking());
    (client, server)
}

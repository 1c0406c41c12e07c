//! The TLS of a client of the generator, by rustls.
//!
//! The generator has to be cheaper than the servers, so it does not check their certificates. It
//! resumes no session, so each handshake is a full one.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, OnceLock};

use rustix::fd::OwnedFd;
use rustix::net::{self, RecvFlags, SendFlags};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme, version};

use crate::result::Result;

/// The name in the certificate of the tests, which all servers have.
const NAME: &str = "ecdsa.example.test";

/// A client's state of TLS. Its socket is elsewhere.
pub(crate) struct TlsClient(ClientConnection);

/// A socket that never blocks.
struct Socket<'a>(&'a OwnedFd);

#[derive(Debug)]
struct Unchecked;

impl TlsClient {
    pub(crate) fn new() -> Result<Self> {
        static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        let config = CONFIG.get_or_init(|| {
            let builder = ClientConfig::builder_with_provider(ring::default_provider().into());
            let versions = builder.with_protocol_versions(&[&version::TLS13]);
            let mut config = versions
                .expect("the provider knows TLS 1.3")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unchecked))
                .with_no_client_auth();
            config.resumption = Resumption::disabled();
            Arc::new(config)
        });
        let name = ServerName::try_from(NAME)?;
        Ok(Self(ClientConnection::new(Arc::clone(config), name)?))
    }

    /// Returns whether the handshake is complete.
    pub(crate) fn is_ready(&self) -> bool {
        !self.0.is_handshaking()
    }

    /// Sends plaintext, or keeps it until the handshake is complete.
    pub(crate) fn send(&mut self, socket: &OwnedFd, bytes: &[u8]) -> Result<()> {
        self.0.writer().write_all(bytes)?;
        self.flush(socket)
    }

    /// Sends the records that are ready.
    pub(crate) fn flush(&mut self, socket: &OwnedFd) -> Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(&mut Socket(socket))?;
        }
        Ok(())
    }

    /// Receives plaintext until the buffer is full, or the socket is empty.
    pub(crate) fn receive(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        let is_open = loop {
            match self.0.reader().read(&mut buffer[filled..]) {
                Ok(0) => break filled == buffer.len(),
                Ok(received) => filled += received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if filled == buffer.len() {
                break true;
            }
            match self.0.read_tls(&mut Socket(socket)) {
                Ok(0) => break false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                Err(error) => return Err(error.into()),
            }
            self.0.process_new_packets()?;
            self.flush(socket)?;
        };
        // What came before the end counts; the next call reports the end.
        if is_open || filled > 0 {
            Ok(filled)
        } else {
            Err("the server closed a connection".into())
        }
    }
}

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(net::recv(self.0, buffer, RecvFlags::DONTWAIT)?.0)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(net::send(self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::thread;
    use std::time::{Duration, Instant};

    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use support::incoming::Cutter;

    use super::*;
    use crate::client::Client;
    use crate::dialect::Dialect;
    use crate::peers::{CERTIFICATE, KEY};
    use crate::server::Target;

    #[test]
    fn a_request_during_the_handshake_is_sent_after_it_and_a_long_answer_comes_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        // More than one record, and more than the buffer of the client.
        let body = "x".repeat(70_000);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let server = thread::spawn(move || {
            let chain = CertificateDer::pem_file_iter(CERTIFICATE).unwrap();
            let chain = chain.collect::<std::result::Result<_, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_file(KEY).unwrap();
            let builder = ServerConfig::builder_with_provider(ring::default_provider().into());
            let builder = builder.with_protocol_versions(&[&version::TLS13]).unwrap();
            let config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
            let session = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = StreamOwned::new(session, listener.accept().unwrap().0);
            let mut request = [0; 4];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"ask!");
            stream.write_all(answer.as_bytes()).unwrap();
            stream.flush().unwrap();
        });
        let target = Target { is_tls: true, ..Target::new(address, Dialect::Speak) };
        let mut client = Client::connect(&target, 0).unwrap();
        assert!(!client.is_ready());
        client.send(b"ask!").unwrap();
        let (mut cutter, mut buffer) = (Cutter::default(), vec![0; 100_000]);
        let mut came = 0;
        let deadline = Instant::now() + Duration::from_secs(20);
        while came == 0 && Instant::now() < deadline {
            let received = client.receive(&mut cutter, &mut buffer, |_, item| {
                came = item.body().len();
                Ok(())
            });
            received.unwrap();
        }
        assert_eq!(came, 70_000);
        assert!(client.is_ready());
        server.join().unwrap();
    }
}

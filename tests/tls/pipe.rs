//! A connection in memory, and the server's side of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use speak::service::Socket;
use speak::tls::{Certificate, Certificates, PemFiles, TlsContext, TlsSocket};

/// Unix seconds at which all tests run: the certificates are valid then.
pub(crate) const NOW_S: u64 = 1_800_000_000;

/// Bytes of a read, as the service has them.
pub(crate) const READ_BYTES: usize = 64 * 1024;

pub(crate) const PLAIN_REPLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";

/// Both directions of a connection.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) to_server: VecDeque<u8>,
    pub(crate) to_client: Vec<u8>,
    /// Bytes that the server's writes still take: `None` for any number.
    pub(crate) room: Option<usize>,
    /// Bytes that one read of the server returns at most.
    pub(crate) read_max: Option<usize>,
    /// The client has closed its direction.
    pub(crate) is_client_closed: bool,
    /// The server has closed its direction.
    pub(crate) is_server_closed: bool,
}

pub(crate) struct WireSocket(pub(crate) Rc<RefCell<Wire>>);

impl Read for WireSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(!buffer.is_empty(), "a read of nothing looks like an end");
        let mut wire = self.0.borrow_mut();
        let length =
            buffer.len().min(wire.to_server.len()).min(wire.read_max.unwrap_or(usize::MAX));
        if length == 0 {
            return if wire.is_client_closed { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        for (place, byte) in buffer.iter_mut().zip(wire.to_server.drain(..length)) {
            *place = byte;
        }
        Ok(length)
    }
}

impl Write for WireSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        let length = bytes.len().min(wire.room.unwrap_or(usize::MAX));
        if length == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.to_client.extend_from_slice(&bytes[..length]);
        if let Some(room) = &mut wire.room {
            *room -= length;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for WireSocket {
    fn shut_down_writing(&mut self) -> io::Result<()> {
        self.0.borrow_mut().is_server_closed = true;
        Ok(())
    }
}

pub(crate) type Server = TlsSocket<WireSocket>;

pub(crate) fn pem(file: &str) -> Vec<u8> {
    let path = format!("{}/tests/tls/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("a file of tests/tls/make.sh")
}

pub(crate) fn certificate(name: &str) -> Certificate {
    let (certificate, key) = (pem(&format!("{name}.pem")), pem(&format!("{name}.key")));
    let files = PemFiles {
        certificate_file: "cert.pem",
        certificate: &certificate,
        key_file: "key.pem",
        key: &key,
    };
    Certificate::parse(&files, NOW_S).expect("a valid pair")
}

/// A context with these certificates.
pub(crate) fn context(names: &[&str]) -> Rc<TlsContext> {
    let certificates = names.iter().map(|name| certificate(name)).collect();
    let certificates = Certificates::new(certificates).expect("at least one");
    TlsContext::new(certificates, |_| PLAIN_REPLY.to_vec(), NOW_S)
}

/// A connection that was accepted.
pub(crate) fn accept(context: &Rc<TlsContext>) -> (Rc<RefCell<Wire>>, Server) {
    let wire = Rc::new(RefCell::new(Wire::default()));
    let server = TlsSocket::accept(WireSocket(Rc::clone(&wire)), context).expect("random bytes");
    (wire, server)
}

/// Reads as the service does, until an event is needed. Returns what came, and how it ended:
/// `WouldBlock`, `None` for an end that TLS told, or an error.
pub(crate) fn read_all(server: &mut Server) -> (Vec<u8>, Option<ErrorKind>) {
    let (mut buffer, mut received) = (vec![0; READ_BYTES], Vec::new());
    loop {
        match server.read(&mut buffer) {
            Ok(0) => return (received, None),
            Ok(length) => {
                received.extend_from_slice(&buffer[..length]);
                if length < buffer.len() && !server.has_input() {
                    return (received, Some(ErrorKind::WouldBlock));
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (received, Some(error.kind())),
        }
    }
}

/// Writes as the service does: what is not accepted is written again once there is room. Returns
/// how much is accepted.
pub(crate) fn write_some(server: &mut Server, bytes: &[u8]) -> usize {
    match server.write(bytes) {
        Ok(length) => length,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

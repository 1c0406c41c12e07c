//! A socket for one direction of input, and reads as the service makes them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use speak::service::Socket;
use speak::tls::TlsSocket;

/// Bytes on their way to the server, and those that it has sent.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) input: VecDeque<u8>,
    pub(crate) output: Vec<u8>,
}

pub(crate) struct WireSocket(pub(crate) Rc<RefCell<Wire>>);

impl Read for WireSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.0.borrow_mut().input.read(buffer)?;
        if length == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(length) }
    }
}

impl Write for WireSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for WireSocket {
    fn shut_down_writing(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Memory of a socket at most: a record of each direction, and rustls's state in a handshake.
const MEMORY_MAX: usize = 64 * 1024;

/// Gives the pieces to the socket one after the other. Returns the plaintext, and the error that
/// ended the connection: `None` for an end that TLS told.
pub(crate) fn receive(
    socket: &mut TlsSocket<WireSocket>,
    wire: &RefCell<Wire>,
    pieces: &[&[u8]],
) -> (Vec<u8>, Option<ErrorKind>) {
    let (mut buffer, mut received) = (vec![0; 64 * 1024], Vec::new());
    for piece in pieces {
        wire.borrow_mut().input.extend(*piece);
        loop {
            match socket.read(&mut buffer) {
                Ok(0) => return (received, None),
                Ok(length) => received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return (received, Some(error.kind())),
            }
        }
        assert!(socket.memory() < MEMORY_MAX, "{} bytes", socket.memory());
    }
    (received, Some(ErrorKind::WouldBlock))
}

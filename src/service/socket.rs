//! Sockets of clients: sockets of the kernel or of a simulation.

use std::io::{self, Read, Write};

/// A connected socket that never blocks. Dropping it closes it.
///
/// A call that would block returns `WouldBlock`, and an event is raised when the call can continue.
/// A read that fills less than its buffer has emptied the socket, unless [`Socket::has_input`] says
/// otherwise; later bytes raise a new event. A write that takes less than all bytes is followed by
/// one that begins with the rest. The service relies on this, and on nothing else about sockets.
///
/// A read fails with `InvalidData` if the peer breaks a protocol below HTTP, as TLS, and was told
/// so. Later reads discard its bytes.
///
/// The provided methods are for sockets that do more than pass bytes on, as with TLS.
pub trait Socket: Read + Write {
    /// Closes the sending direction: the peer reads an end of file after the last byte.
    ///
    /// # Errors
    ///
    /// The socket's error, for instance if the peer has disconnected.
    fn shut_down_writing(&mut self) -> io::Result<()>;

    /// Returns whether the peer speaks TLS.
    fn is_tls(&self) -> bool {
        false
    }

    /// Returns whether nothing can be sent yet: reads advance the handshake of TLS.
    fn is_handshaking(&self) -> bool {
        false
    }

    /// Returns whether the peer has said by TLS that it sends nothing more, which is no event.
    /// Reads nothing.
    fn has_ended(&mut self) -> bool {
        false
    }

    /// Copies the bytes that wait, without reading them. Sockets below TLS have this.
    ///
    /// # Errors
    ///
    /// Those of a read.
    fn peek(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns whether the next read returns something although no event will say so.
    fn has_input(&self) -> bool {
        false
    }

    /// Returns whether the last write has sent something although it has accepted nothing: a part
    /// of what earlier ones have accepted.
    fn has_progressed(&self) -> bool {
        false
    }

    /// Returns the bytes of the socket's buffers.
    fn memory(&self) -> usize {
        0
    }

    /// Returns the steps of the turn's budget that reads and writes have used since the last call,
    /// in addition to what the service charges for them.
    fn take_steps(&mut self) -> usize {
        0
    }
}

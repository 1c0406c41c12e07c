//! Sockets of clients: sockets of the kernel or of a simulation.

use std::io::{self, Read, Write};

/// A connected socket that never blocks. Dropping it closes it.
///
/// A call that would block returns `WouldBlock`, and an event is raised when the call can continue.
/// A read that fills less than its buffer has emptied the socket; later bytes raise a new event.
/// The service relies on this, and on nothing else about sockets.
pub trait Socket: Read + Write {
    /// Closes the sending direction: the peer reads an end of file after the last byte.
    ///
    /// # Errors
    ///
    /// The socket's error, for instance if the peer has disconnected.
    fn shut_down_writing(&self) -> io::Result<()>;
}

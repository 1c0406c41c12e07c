//! What a client is spoken with: the kernel's sockets, or a simulation's.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

/// A connected socket that never blocks: where it cannot go on, it says `WouldBlock`, and whoever watches it tells when
/// it can. Dropping it closes it.
///
/// A read that fills less than its buffer has taken all that is there, and what comes later is told anew: the loop
/// relies on both, and on nothing else that sockets have.
pub trait Socket: Read + Write {
    /// Tells the peer that nothing more will come.
    ///
    /// # Errors
    ///
    /// What the socket says, for instance that the peer is gone.
    fn shut_down_writing(&self) -> io::Result<()>;
}

/// A socket of the kernel.
#[derive(Debug)]
pub(super) enum OsSocket {
    /// Accepted at a TCP port.
    Tcp(TcpStream),
    /// Accepted at a file.
    Unix(UnixStream),
}

impl OsSocket {
    /// Has the poll watch it, both ways and for all its life: an edge-triggered socket costs nothing while it is silent.
    ///
    /// # Errors
    ///
    /// What the kernel says, for instance that it watches too many files.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let source: &mut dyn Source = match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        };
        registry.register(source, token, Interest::READABLE | Interest::WRITABLE)
    }
}

impl Socket for OsSocket {
    fn shut_down_writing(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for OsSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for OsSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

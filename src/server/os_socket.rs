//! Client sockets of the kernel.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::AddressFamily;

use crate::service::Socket;

/// Client socket of the kernel.
#[derive(Debug)]
pub(super) enum OsSocket {
    /// Accepted by a TCP listener.
    Tcp(TcpStream),
    /// Accepted by a Unix listener.
    Unix(UnixStream),
}

impl OsSocket {
    /// Registers the socket with the poll, for both directions and for its whole life. An
    /// edge-triggered socket costs nothing while it is idle.
    ///
    /// # Errors
    ///
    /// The kernel's error, for instance that it watches too many files.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let source: &mut dyn Source = match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        };
        registry.register(source, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Wraps a client's socket that another process accepted. Returns the client's address too;
    /// `None` for a Unix socket.
    ///
    /// # Errors
    ///
    /// The kernel's error, for instance if the client has closed the connection.
    pub(super) fn from_fd(fd: OwnedFd) -> io::Result<(Self, Option<IpAddr>)> {
        if rustix::net::sockopt::socket_domain(&fd)? == AddressFamily::UNIX {
            return Ok((Self::Unix(UnixStream::from_std(fd.into())), None));
        }
        let stream = std::net::TcpStream::from(fd);
        let address = stream.peer_addr()?.ip();
        Ok((Self::Tcp(TcpStream::from_std(stream)), Some(address)))
    }
}

impl AsFd for OsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Socket for OsSocket {
    fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.peek(buffer),
            // Without TLS.
            Self::Unix(_) => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn shut_down_writing(&mut self) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tls::ClientSocket;

    #[test]
    fn a_socket_takes_no_more_than_a_descriptor_and_its_kind() {
        // In a debug build, mio's part is larger.
        let (socket, client) = if cfg!(debug_assertions) { (24, 32) } else { (8, 12) };
        assert!(size_of::<OsSocket>() <= socket);
        assert!(size_of::<ClientSocket>() <= client);
    }
}

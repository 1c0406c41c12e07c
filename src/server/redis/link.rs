//! One socket to a server, with the bytes of both directions.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use mio::event::Event;
use mio::net::{TcpStream, UnixStream};
use mio::{Registry, Token};
use rustix::net::sockopt;

use super::super::os_socket::OsSocket;
use super::target::Address;
use crate::cluster::Decoder;

/// A buffer with more capacity is given back when all of it is sent.
const KEPT_CAPACITY: usize = 256 * 1024;
/// Keepalive finds a peer that has vanished while nothing is outstanding: after 10 s without a
/// byte, by three probes in 9 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_PROBES: u32 = 3;

/// Socket that is connected, or about to be.
#[derive(Debug)]
pub(super) struct Link {
    socket: OsSocket,
    pub(super) output: Vec<u8>,
    /// Bytes of `output` that the kernel has.
    sent: usize,
    pub(super) decoder: Decoder,
    /// A read may find something. The poll is edge-triggered.
    may_read: bool,
    /// A write may succeed, or the connect has ended.
    may_write: bool,
    /// The server sends nothing any more: reads continue up to the end, since no event follows.
    is_read_closed: bool,
}

/// Result of a read.
pub(super) enum Received {
    /// Bytes, now in the decoder.
    Bytes,
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

impl Link {
    /// Begins to connect. An event reports the end of it.
    ///
    /// # Errors
    ///
    /// The kernel's error, for instance if there is no such Unix socket.
    pub(super) fn connect(
        address: &Address,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut socket = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(*address)?;
                stream.set_nodelay(true)?;
                set_keepalive(&stream)?;
                OsSocket::Tcp(stream)
            }
            Address::Unix(path) => OsSocket::Unix(UnixStream::connect(path)?),
        };
        socket.register(registry, token)?;
        Ok(Self {
            socket,
            output: Vec::new(),
            sent: 0,
            decoder: Decoder::default(),
            may_read: false,
            may_write: false,
            is_read_closed: false,
        })
    }

    /// Notes what an event reports. It may be of an earlier socket with the same token: then a read
    /// or write finds that it would block.
    pub(super) fn note(&mut self, event: &Event) {
        self.may_read |= event.is_readable() || event.is_error();
        self.may_write |= event.is_writable() || event.is_error();
        self.is_read_closed |= event.is_read_closed();
    }

    /// Notes that a read may find something, whatever events said.
    pub(super) fn expect_bytes(&mut self) {
        self.may_read = true;
    }

    pub(super) fn may_read(&self) -> bool {
        self.may_read
    }

    /// Returns true once the socket is connected.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be connected.
    pub(super) fn finish_connecting(&mut self) -> io::Result<bool> {
        if !self.may_write {
            return Ok(false);
        }
        let (error, peer) = match &self.socket {
            OsSocket::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(|_| ())),
            OsSocket::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(|_| ())),
        };
        if let Some(error) = error {
            return Err(error);
        }
        match peer {
            Ok(()) => Ok(true),
            // The event was of an earlier socket.
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                self.may_write = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads once, as far as `buffer` goes.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        while self.may_read {
            match self.socket.read(buffer) {
                Ok(0) => return Ok(Received::End),
                Ok(length) => {
                    // A read that fills less than the buffer has emptied the socket.
                    self.may_read = length == buffer.len() || self.is_read_closed;
                    self.decoder.push(&buffer[..length]);
                    return Ok(Received::Bytes);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.may_read = false,
                Err(error) => return Err(error),
            }
        }
        Ok(Received::Nothing)
    }

    /// Sends as much of the output as the kernel takes.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.may_write && self.sent < self.output.len() {
            match self.socket.write(&self.output[self.sent..]) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.may_write = false,
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
            self.output.shrink_to(KEPT_CAPACITY);
        }
        Ok(())
    }

    /// Bytes that the kernel has not taken.
    pub(super) fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }
}

fn set_keepalive(stream: &TcpStream) -> io::Result<()> {
    let fd = stream.as_fd();
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(fd, KEEPALIVE_PROBES)?;
    Ok(())
}

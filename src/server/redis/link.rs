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
use super::tls::{Channel, Tls};
use crate::cluster::Decoder;

/// A buffer with more capacity is given back when all of it is sent.
const KEPT_CAPACITY: usize = 256 * 1024;
/// Keepalive finds a peer that has vanished while nothing is outstanding: after 10 s without a
/// byte, by three probes in 9 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_PROBES: u32 = 3;

/// Socket that is connected, or about to be.
pub(super) struct Link {
    socket: OsSocket,
    /// `None` without TLS.
    channel: Option<Box<Channel>>,
    pub(super) output: Vec<u8>,
    /// Bytes that the kernel has: of `output`, or with TLS of the channel's records.
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
    /// Begins to connect. An event reports the end of it. `tls` is for an address with TLS: then
    /// the output waits until the server has been verified.
    ///
    /// # Errors
    ///
    /// The kernel's error, for instance if there is no such Unix socket.
    pub(super) fn connect(
        address: &Address,
        tls: Option<&Tls>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let channel = match (address, tls) {
            (Address::Tls(_, name), Some(tls)) => Some(Box::new(Channel::start(tls, name)?)),
            _ => None,
        };
        let mut socket = match address {
            Address::Tcp(address) | Address::Tls(address, _) => {
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
            channel,
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
    /// The kernel's error, or what is wrong with the server's TLS.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        while self.may_read {
            match self.socket.read(buffer) {
                Ok(0) => return Ok(Received::End),
                Ok(length) => {
                    // A read that fills less than the buffer has emptied the socket.
                    self.may_read = length == buffer.len() || self.is_read_closed;
                    return self.take(&buffer[..length]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.may_read = false,
                Err(error) => return Err(error),
            }
        }
        Ok(Received::Nothing)
    }

    /// Takes bytes of the socket. With TLS, some of them may need an answer.
    fn take(&mut self, bytes: &[u8]) -> io::Result<Received> {
        let Some(channel) = &mut self.channel else {
            self.decoder.push(bytes);
            return Ok(Received::Bytes);
        };
        let plaintext = channel.open(bytes);
        let flushed = self.flush();
        let Some(plaintext) = plaintext? else { return Ok(Received::End) };
        flushed?;
        self.decoder.push(&plaintext);
        Ok(Received::Bytes)
    }

    /// Sends as much of the output as the kernel takes.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if let Some(channel) = &mut self.channel
            && !self.output.is_empty()
        {
            channel.seal(&mut self.output);
        }
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        let bytes = match &mut self.channel {
            None => &mut self.output,
            Some(channel) => &mut channel.records,
        };
        while self.may_write && self.sent < bytes.len() {
            match self.socket.write(&bytes[self.sent..]) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.may_write = false,
                Err(error) => return Err(error),
            }
        }
        if self.sent == bytes.len() {
            bytes.clear();
            self.sent = 0;
            bytes.shrink_to(KEPT_CAPACITY);
        }
        Ok(())
    }

    /// Bytes that the kernel has not taken.
    pub(super) fn unsent(&self) -> usize {
        let records = self.channel.as_ref().map_or(0, |channel| channel.records.len());
        self.output.len() + records - self.sent
    }

    /// Whether a server with TLS has not answered yet. It may be one without.
    pub(super) fn is_shaking_hands(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| !channel.is_open())
    }

    /// Memory of bytes in both directions.
    pub(super) fn buffered_bytes(&self) -> usize {
        let input = self.channel.as_ref().map_or(0, |channel| channel.buffered_bytes());
        self.unsent() + input + self.decoder.buffered_bytes()
    }
}

impl Drop for Link {
    /// Tells a server with TLS that the end is no attacker's (RFC 8446, section 6.1).
    fn drop(&mut self) {
        if let Some(channel) = &mut self.channel {
            channel.close();
            // The connection ends in any case.
            let _ = self.send();
        }
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

//! The generator's end of a connection, over TCP or TLS, and the poll of many of them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use support::incoming::{Cutter, Item};

use crate::result::Result;
use crate::server::Target;
use crate::tls_client::TlsClient;

/// Longest time to connect. On loopback only a full backlog delays that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Number of source addresses of the clients, so that ports never run short.
const SOURCES: u32 = 200;
/// Size of the receive buffer that all clients of a loop share.
pub(crate) const BUFFER_BYTES: usize = 256 * 1024;
/// Time for which the loop polls before it sleeps. The server would pay, at random, for waking a
/// generator that sleeps. No distant client makes it pay for that.
const SPIN: Duration = Duration::from_micros(500);
const EVENTS_MAX: usize = 512;
/// Longest sleep of a loop without an event. After it, the loop checks for a stall.
pub(crate) const POLL_TIMEOUT: Duration = Duration::from_millis(200);

/// One connection to the server.
pub(crate) struct Client {
    socket: OwnedFd,
    tls: Option<Box<TlsClient>>,
    /// Beginning of an incomplete response.
    partial: Vec<u8>,
}

impl Client {
    /// Connects to a server from the source address for `number`. With TLS, sends the first flight
    /// and leaves the rest of the handshake to [`Self::receive`].
    pub(crate) fn connect(target: &Target, number: u32) -> Result<Self> {
        let mut client = Self::connect_to(target.address, number)?;
        if target.is_tls {
            let mut tls = Box::new(TlsClient::new()?);
            tls.flush(&client.socket)?;
            client.tls = Some(tls);
        }
        Ok(client)
    }

    /// Connects by TCP alone.
    pub(crate) fn connect_to(server: SocketAddrV4, number: u32) -> Result<Self> {
        let socket =
            net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_timeout(&socket, Timeout::Send, Some(CONNECT_TIMEOUT))?;
        let source = Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8);
        net::bind(&socket, &SocketAddrV4::new(source, 0))?;
        net::connect(&socket, &server)
            .map_err(|error| format!("client {number} cannot connect: {error}"))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        Ok(Self { socket, tls: None, partial: Vec::new() })
    }

    /// Returns whether no handshake is pending.
    pub(crate) fn is_ready(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.is_ready())
    }

    /// Sends a request in one call. A loopback socket with nothing unread has room for it. A
    /// request during a handshake is sent after it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            return tls.send(&self.socket, bytes);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = net::send(&self.socket, bytes, flags)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err("the server does not read its requests".into())
        }
    }

    /// Receives all available bytes, and passes each complete response to `each`.
    ///
    /// # Errors
    ///
    /// The server closed or sent no valid response, or `each` returned an error.
    pub(crate) fn receive(
        &mut self,
        cutter: &mut Cutter,
        buffer: &mut [u8],
        mut each: impl FnMut(&mut Self, &Item) -> Result<()>,
    ) -> Result<()> {
        loop {
            let kept = self.partial.len();
            buffer[..kept].copy_from_slice(&self.partial);
            self.partial.clear();
            let received = self.receive_some(&mut buffer[kept..])?;
            let filled = kept + received;
            let mut done = 0;
            while let Some(frame) = cutter.next(&buffer[done..filled])? {
                done += frame.bytes.len();
                each(self, &frame)?;
                if done == filled {
                    break;
                }
            }
            self.partial.extend_from_slice(&buffer[done..filled]);
            // Events are edge-triggered: only a read that leaves room has drained the socket.
            if filled < buffer.len() {
                return Ok(());
            }
            if done == 0 {
                return Err("a response is larger than any of this bench".into());
            }
        }
    }

    /// Receives at most one buffer of bytes, or none if there are none now.
    fn receive_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if let Some(tls) = &mut self.tls {
            return tls.receive(&self.socket, buffer);
        }
        match net::recv(&self.socket, buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err("the server closed a connection".into()),
            Ok((received, _)) => Ok(received),
            Err(Errno::AGAIN) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a request and waits for the response, where speed does not matter.
    pub(crate) fn ask<T>(
        &mut self,
        request: &[u8],
        mut read: impl FnMut(&Item) -> Result<T>,
    ) -> Result<T> {
        let mut cutter = Cutter::default();
        let mut buffer = vec![0; BUFFER_BYTES];
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        self.send(request)?;
        let mut answer = None;
        while Instant::now() < deadline {
            self.receive(&mut cutter, &mut buffer, |_, frame| {
                answer = Some(read(frame)?);
                Ok(())
            })?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
        Err("the server does not answer".into())
    }
}

/// Waits for events of many clients, each with a token.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
    /// Time of the last event.
    active: Instant,
}

impl Poller {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
            active: Instant::now(),
        })
    }

    /// Connects clients with these numbers. The token of each is its index.
    pub(crate) fn connect(&self, to: &Target, numbers: Range<u32>) -> Result<Vec<Client>> {
        let clients = numbers.map(|number| Client::connect(to, number));
        let clients = clients.collect::<Result<Vec<_>>>()?;
        for (index, client) in clients.iter().enumerate() {
            self.add(client, index as u64)?;
        }
        Ok(clients)
    }

    pub(crate) fn add(&self, client: &Client, token: u64) -> Result<()> {
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        let token = EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, &client.socket, token, flags)?)
    }

    /// Replaces `tokens` by those of the clients with events, or by none after `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration, tokens: &mut Vec<u64>) -> Result<()> {
        tokens.clear();
        let start = Instant::now();
        loop {
            self.events.clear();
            let waited = start.elapsed();
            let sleep = if self.active.elapsed() < SPIN {
                Duration::ZERO
            } else {
                timeout.saturating_sub(waited)
            };
            let sleep = rustix::event::Timespec::try_from(sleep)?;
            let space = rustix::buffer::spare_capacity(&mut self.events);
            match epoll::wait(&self.epoll, space, Some(&sleep)) {
                Ok(0) | Err(Errno::INTR) if waited < timeout => {}
                Ok(_) | Err(Errno::INTR) => break,
                Err(error) => return Err(error.into()),
            }
        }
        if !self.events.is_empty() {
            self.active = Instant::now();
        }
        tokens.extend(self.events.iter().map(|event| event.data.u64()));
        Ok(())
    }
}

//! TCP connections that misbehave on purpose: they never block, send and read as slowly as they
//! like, and close in every way.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};
use support::incoming::Incoming;

use crate::tls::{Tls, TlsLink};

/// Clients come from this many addresses, so that ports never run short.
const SOURCES: u32 = 200;
const EVENTS_MAX: usize = 1_024;
/// Receive buffer of a slow reader: as little as the kernel gives.
const NARROW_BYTES: usize = 4_096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadRate {
    Fast,
    /// A few bytes now and then.
    Slow,
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Close {
    Orderly,
    Reset,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Received {
    /// All that there is, for now.
    Drained,
    /// There may be more.
    Some,
    /// The server sends nothing more.
    End,
    /// The server reset the connection, or does not run.
    Broken,
    /// The server breaks the protocol of TLS, or says that the client does.
    Malformed(String),
}

pub(crate) struct Link {
    socket: OwnedFd,
    pub(crate) incoming: Incoming,
    /// Bytes that the kernel did not take.
    unsent: Vec<u8>,
    /// The server's end comes after what there is to read.
    is_ending: bool,
    pub(crate) rate: ReadRate,
    tls: Option<Box<TlsLink>>,
    /// The server has told in TLS that it sends nothing more.
    is_told_end: bool,
    /// Closes its side once all is sent.
    half_closes: bool,
}

impl Link {
    /// Begins to connect from the address that belongs to `number`.
    pub(crate) fn connect(
        (server, tls): (SocketAddrV4, Option<&Tls>),
        number: u32,
        rate: ReadRate,
    ) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if rate != ReadRate::Fast {
            sockopt::set_socket_recv_buffer_size(&socket, NARROW_BYTES)?;
        }
        let source = Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8);
        net::bind(&socket, &SocketAddrV4::new(source, 0))?;
        match net::connect(&socket, &server) {
            // An error is found again at the first read.
            Ok(()) | Err(Errno::INPROGRESS | Errno::CONNREFUSED) => {}
            Err(error) => return Err(error.into()),
        }
        let tls = tls.map(Tls::begin).transpose()?.map(Box::new);
        Ok(Self {
            socket,
            incoming: Incoming::default(),
            unsent: Vec::new(),
            is_ending: false,
            rate,
            tls,
            is_told_end: false,
            half_closes: false,
        })
    }

    /// Sends, or sends later as the kernel can take it. An error is found again at the next read.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => tls.seal(bytes).expect("rustls has room"),
            None => self.unsent.extend_from_slice(bytes),
        }
        self.flush();
    }

    /// Says whether it has to receive something before it can send.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    pub(crate) fn flush(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.take_output(&mut self.unsent).expect("a Vec takes all bytes");
        }
        if !self.unsent.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let sent = net::send(&self.socket, &self.unsent, flags).unwrap_or(0);
            self.unsent.drain(..sent);
        }
        if self.half_closes && self.unsent.is_empty() && !self.is_handshaking() {
            self.half_closes = false;
            self.tell_end();
            let _ = net::shutdown(&self.socket, Shutdown::Write);
        }
    }

    /// Receives at most as much as `buffer` can hold.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        let wanted = buffer.len();
        match net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Received::End,
            Ok((received, _)) => {
                if let Some(tls) = &mut self.tls {
                    let result = tls.open(&buffer[..received], |bytes| self.incoming.extend(bytes));
                    match result {
                        Ok(is_over) => self.is_told_end |= is_over,
                        Err(error) => return Received::Malformed(error.to_string()),
                    }
                    self.flush();
                } else {
                    self.incoming.extend(&buffer[..received]);
                }
                let is_drained = received < wanted && !self.is_ending;
                if is_drained { Received::Drained } else { Received::Some }
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => Received::Drained,
            Err(_) => Received::Broken,
        }
    }

    pub(crate) fn half_close(&mut self) {
        self.half_closes = true;
        self.flush();
    }

    /// Says whether the server has told the end, if it has to.
    pub(crate) fn has_told_end(&self) -> bool {
        self.is_told_end || self.tls.is_none() || self.is_handshaking()
    }

    /// Tells in TLS that nothing more is sent.
    fn tell_end(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close();
            self.flush();
        }
    }

    pub(crate) fn close(mut self, how: Close) {
        if how == Close::Orderly {
            self.tell_end();
        }
        if how == Close::Reset {
            // A linger of no time makes the kernel reset the connection when it is closed.
            let _ = sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
        }
    }
}

/// A link by its slot, and which of the links of that slot it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct Token {
    slot: u32,
    generation: u32,
}

/// All links with their clients, and the wait for them.
pub(crate) struct Links<T> {
    slots: Vec<(u32, Option<(Link, T)>)>,
    free: Vec<u32>,
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl<T> Links<T> {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            slots: Vec::new(),
            free: Vec::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
        })
    }

    pub(crate) fn insert(&mut self, link: Link, client: T) -> io::Result<Token> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let (generation, content) = &mut self.slots[slot as usize];
        let token = Token { slot, generation: *generation };
        let data = EventData::new_u64(u64::from(token.generation) << 32 | u64::from(slot));
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &link.socket, data, flags)?;
        *content = Some((link, client));
        Ok(token)
    }

    pub(crate) fn get(&mut self, token: Token) -> Option<&mut (Link, T)> {
        let (generation, content) = self.slots.get_mut(token.slot as usize)?;
        content.as_mut().filter(|_| *generation == token.generation)
    }

    pub(crate) fn client(&mut self, token: Token) -> Option<&mut T> {
        self.get(token).map(|(_, client)| client)
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<(Link, T)> {
        self.get(token)?;
        let (generation, content) = &mut self.slots[token.slot as usize];
        *generation += 1;
        self.free.push(token.slot);
        content.take()
    }

    pub(crate) fn tokens(&self) -> Vec<Token> {
        let taken = (0..).zip(&self.slots).filter(|(_, (_, content))| content.is_some());
        taken.map(|(slot, (generation, _))| Token { slot, generation: *generation }).collect()
    }

    pub(crate) fn clients(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|(_, content)| content.as_ref()).map(|(_, client)| client)
    }

    /// Returns the links to which something happened; none after `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<Vec<Token>> {
        self.events.clear();
        let timeout = rustix::event::Timespec::try_from(timeout).map_err(io::Error::other)?;
        let space = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, space, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        let mut tokens = Vec::new();
        for event in &self.events {
            let data = event.data.u64();
            let token = Token { slot: data as u32, generation: (data >> 32) as u32 };
            let (generation, content) = &mut self.slots[token.slot as usize];
            if let Some((link, _)) = content.as_mut().filter(|_| *generation == token.generation) {
                let flags = event.flags;
                link.is_ending |= flags.intersects(ends);
                tokens.push(token);
            }
        }
        Ok(tokens)
    }
}

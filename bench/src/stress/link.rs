//! TCP connections that misbehave on purpose: they never block, send and read as slowly as they like, and close in every way.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};

use crate::Result;

/// Clients come from this many addresses, so that ports never run short.
const SOURCES: u32 = 200;
const EVENTS_MAX: usize = 1_024;
/// What a slow reader lets the kernel take for it, as little as that may be.
const NARROW_BYTES: usize = 4_096;

/// How a link takes what is sent to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReadRate {
    Fast,
    /// A few bytes now and then.
    Slow,
    /// Nothing.
    None,
}

/// How a link ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Close {
    Orderly,
    Reset,
}

/// What a look at a socket brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// All that there is, for now.
    Drained,
    /// There may be more.
    Some,
    /// The server sends nothing more.
    End,
    /// The server reset it, or is not there.
    Broken,
}

pub(super) struct Link {
    socket: OwnedFd,
    /// What was received and is no whole answer.
    pub(super) inbox: Vec<u8>,
    /// What the kernel did not take.
    outbox: Vec<u8>,
    /// The server's end stands behind what there is to read.
    is_ending: bool,
    pub(super) thirst: ReadRate,
}

impl Link {
    /// Begins to connect from the address that belongs to `number`.
    pub(super) fn connect(server: SocketAddrV4, number: u32, thirst: ReadRate) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if thirst != ReadRate::Fast {
            sockopt::set_socket_recv_buffer_size(&socket, NARROW_BYTES)?;
        }
        let source = Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8);
        net::bind(&socket, &SocketAddrV4::new(source, 0))?;
        match net::connect(&socket, &server) {
            // What is wrong is told when it is first used.
            Ok(()) | Err(Errno::INPROGRESS | Errno::CONNREFUSED) => {}
            Err(error) => return Err(format!("cannot connect: {error}").into()),
        }
        Ok(Self { socket, inbox: Vec::new(), outbox: Vec::new(), is_ending: false, thirst })
    }

    /// Sends, or has sent once the kernel can. An error is found again when it is read from.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.outbox.is_empty() {
            let sent = self.push(bytes);
            self.outbox.extend_from_slice(&bytes[sent..]);
        } else {
            self.outbox.extend_from_slice(bytes);
        }
    }

    /// Sends what waited.
    pub(super) fn flush(&mut self) {
        if !self.outbox.is_empty() {
            let sent = self.push(&self.outbox);
            self.outbox.drain(..sent);
        }
    }

    fn push(&self, bytes: &[u8]) -> usize {
        net::send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).unwrap_or(0)
    }

    /// Takes at most as much as `buffer` holds into the inbox.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        let wanted = buffer.len();
        match net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Received::End,
            Ok((received, _)) => {
                self.inbox.extend_from_slice(&buffer[..received]);
                if received < wanted && !self.is_ending {
                    Received::Drained
                } else {
                    Received::Some
                }
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => Received::Drained,
            Err(_) => Received::Broken,
        }
    }

    /// Sends nothing more, and goes on reading.
    pub(super) fn half_close(&self) {
        let _ = net::shutdown(&self.socket, Shutdown::Write);
    }

    pub(super) fn close(self, how: Close) {
        if how == Close::Reset {
            // A linger of no time makes the kernel reset the connection when it is closed.
            let _ = sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
        }
        drop(self.socket);
    }
}

/// A link by its place, and which of the links of that place it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct Token {
    place: u32,
    generation: u32,
}

/// All links with what their owner keeps at each, and the wait for them.
pub(super) struct Links<T> {
    places: Vec<(u32, Option<(Link, T)>)>,
    free: Vec<u32>,
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl<T> Links<T> {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            places: Vec::new(),
            free: Vec::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
        })
    }

    pub(super) fn insert(&mut self, link: Link, owned: T) -> Result<Token> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() as u32 - 1
        });
        let (generation, slot) = &mut self.places[place as usize];
        let token = Token { place, generation: *generation };
        let data = EventData::new_u64(u64::from(token.generation) << 32 | u64::from(place));
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &link.socket, data, flags)?;
        *slot = Some((link, owned));
        Ok(token)
    }

    pub(super) fn get(&mut self, token: Token) -> Option<&mut (Link, T)> {
        let (generation, slot) = self.places.get_mut(token.place as usize)?;
        slot.as_mut().filter(|_| *generation == token.generation)
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<(Link, T)> {
        let (generation, slot) = self.places.get_mut(token.place as usize)?;
        if *generation != token.generation {
            return None;
        }
        let removed = slot.take()?;
        *generation += 1;
        self.free.push(token.place);
        Some(removed)
    }

    pub(super) fn tokens(&self) -> Vec<Token> {
        let taken = (0..).zip(&self.places).filter(|(_, (_, slot))| slot.is_some());
        taken.map(|(place, (generation, _))| Token { place, generation: *generation }).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The first of those owned of which something holds.
    pub(super) fn find(&self, holds: impl Fn(&T) -> bool) -> Option<&T> {
        self.owned().find(|owned| holds(owned))
    }

    pub(super) fn owned(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|(_, slot)| slot.as_ref()).map(|(_, owned)| owned)
    }

    /// Replaces `tokens` by those of the links to which something happened; by none after `patience`.
    pub(super) fn wait(&mut self, patience: Duration, tokens: &mut Vec<Token>) -> Result<()> {
        tokens.clear();
        self.events.clear();
        let timeout = rustix::event::Timespec::try_from(patience)?;
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            Some(&timeout),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let data = event.data.u64();
            let token = Token { place: data as u32, generation: (data >> 32) as u32 };
            let flags = event.flags;
            let (generation, slot) = &mut self.places[token.place as usize];
            if let Some((link, _)) = slot.as_mut().filter(|_| *generation == token.generation) {
                link.is_ending |=
                    flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
                tokens.push(token);
            }
        }
        Ok(())
    }
}

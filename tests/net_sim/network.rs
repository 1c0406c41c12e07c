//! A simulated network that behaves like Linux: streams that come in segments, buffers that fill,
//! peers that half-close, reset or vanish, edges that are reported once, and descriptors that run
//! out.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::rc::Rc;

use speak::hub::{Key, Now};
use speak::service::{Event, Listener, Service, Socket};

use support::random::Random;

const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
const ENOBUFS: i32 = 105;
const ENOSPC: i32 = 28;

/// Time in which no client is to be accepted after descriptors ran out.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Bytes, or an end, on the way from a peer to the server.
#[derive(Debug)]
pub(crate) enum Segment {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// Faults of the network: once in so many times; 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) interrupted: u64,
    pub(crate) short_write: u64,
    pub(crate) out_of_room: u64,
    pub(crate) cannot_register: u64,
}

/// One connection, as the kernel sees it. Times are the loop's, in milliseconds.
#[derive(Default)]
pub(crate) struct Connection {
    pub(crate) address: Option<IpAddr>,
    pub(crate) key: Option<Key>,
    pub(crate) is_accepted: bool,
    inbound: Vec<u8>,
    taken: usize,
    flight: VecDeque<(u64, Segment)>,
    /// Number of bytes that reached the server's socket, and that the server read.
    pub(crate) arrived: u64,
    pub(crate) consumed: u64,
    pub(crate) arrival_at: u64,
    /// Nothing comes after what arrived.
    pub(crate) has_fin: bool,
    pub(crate) is_reset: bool,
    has_error: bool,
    /// After so many calls on the socket the peer resets it.
    pub(crate) fuse: Option<u32>,
    /// Bytes that the server wrote and the simulation did not look at yet.
    pub(crate) tape: Vec<u8>,
    /// Number of bytes that the peer did not take yet.
    pub(crate) queued: usize,
    pub(crate) capacity: usize,
    /// The kernel owes an event for room to write.
    pub(crate) is_full: bool,
    /// Time since when something does not fit.
    pub(crate) full_since: Option<u64>,
    pub(crate) last_written: u64,
    /// Time of the last write of something that did not fit before.
    pub(crate) last_drained: u64,
    pub(crate) has_server_fin: bool,
    pub(crate) is_dropped: bool,
    /// The peer has closed both ways: a write is answered by a reset.
    pub(crate) is_peer_gone: bool,
    pub(crate) has_write_failed: bool,
    /// It takes all that is written at once.
    pub(crate) is_perfect: bool,
    is_ready: bool,
    is_touched: bool,
    pub(crate) turn: TurnWork,
}

/// Work of the server on one socket in one turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TurnWork {
    pub(crate) events: u32,
    pub(crate) bytes_read: usize,
    pub(crate) bytes_written: usize,
}

#[derive(Default)]
pub(crate) struct Network {
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) links: Vec<Connection>,
    /// Links with an edge that was not reported yet.
    ready: Vec<usize>,
    touched: Vec<usize>,
    backlog: VecDeque<usize>,
    is_listener_ready: bool,
    pub(crate) descriptors: usize,
    pub(crate) descriptors_max: usize,
    /// The reserve descriptor was given up, and the server did not ask for another one.
    pub(crate) owes_reserve: bool,
    /// Number of calls that the server made in this turn.
    pub(crate) calls: u64,
    pub(crate) accepts: usize,
    pub(crate) refusals: u64,
    /// Turn and time of the last refusal.
    refused: Option<(u64, u64)>,
    turns: u64,
}

pub(crate) type Net = Rc<RefCell<Network>>;

pub(crate) struct SimSocket {
    net: Net,
    place: usize,
}

pub(crate) struct SimListener(pub(crate) Net);

/// An open descriptor.
pub(crate) struct Descriptor(Net);

impl Drop for Descriptor {
    fn drop(&mut self) {
        let mut net = self.0.borrow_mut();
        net.descriptors -= 1;
        net.owes_reserve = true;
    }
}

/// Runs one turn of the loop with these events, and whether a client has connected.
pub(crate) fn turn(
    net: &Net,
    service: &mut Service<SimListener>,
    now: Now,
    (events, has_arrivals): (Vec<(Key, Event)>, bool),
) {
    service.begin_turn(now);
    for (key, event) in events {
        service.handle_event(key, event);
    }
    if has_arrivals {
        service.listener_ready(0);
    }
    service.end_turn(|socket, key| net.borrow_mut().register(socket, key));
    assert!(!service.hub().0.has_undelivered(), "a delivery is left for a turn that may come late");
}

impl Network {
    pub(crate) fn new(random: Random, faults: Faults, descriptors_max: usize) -> Self {
        Self { random, faults, descriptors_max, ..Self::default() }
    }

    fn happens(&mut self, once_in: u64) -> bool {
        once_in > 0 && self.random.once_in(once_in)
    }

    /// A client connects. The kernel completes that by itself.
    pub(crate) fn connect(&mut self, address: Option<IpAddr>, capacity: usize) -> usize {
        self.links.push(Connection { address, capacity, ..Connection::default() });
        let place = self.links.len() - 1;
        self.backlog.push_back(place);
        self.is_listener_ready = true;
        place
    }

    /// Puts a segment on its way, after the others.
    pub(crate) fn send(&mut self, place: usize, segment: Segment, delay_ms: u64) {
        let link = &mut self.links[place];
        let at = link.flight.back().map_or(0, |(at, _)| *at).max(self.now + delay_ms);
        link.flight.push_back((at, segment));
        self.deliver(place);
    }

    /// Returns the time at which the next segment arrives.
    pub(crate) fn next_landing(&self) -> Option<u64> {
        let links = self.links.iter().filter(|link| !link.is_dropped);
        links.filter_map(|link| link.flight.front().map(|(at, _)| *at)).min()
    }

    /// All segments under way arrive now.
    pub(crate) fn deliver_due(&mut self) {
        for place in 0..self.links.len() {
            self.links[place].flight.iter_mut().for_each(|(at, _)| *at = 0);
            self.deliver(place);
        }
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.now += ms;
        for place in 0..self.links.len() {
            if !self.links[place].flight.is_empty() {
                self.deliver(place);
            }
        }
    }

    fn deliver(&mut self, place: usize) {
        let mut has_arrived = false;
        while self.links[place].flight.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, segment) = self.links[place].flight.pop_front().expect("it is there");
            let link = &mut self.links[place];
            if link.is_reset || link.has_fin && !matches!(segment, Segment::Reset) {
                continue;
            }
            has_arrived = true;
            match segment {
                Segment::Bytes(bytes) => {
                    link.arrived += bytes.len() as u64;
                    link.inbound.extend_from_slice(&bytes);
                }
                Segment::Fin => link.has_fin = true,
                Segment::Reset => self.reset(place),
            }
        }
        if has_arrived {
            self.links[place].arrival_at = self.now;
            self.make_ready(place);
            self.mark_touched(place);
        }
    }

    /// The peer resets the connection. Its last bytes may be lost with that.
    pub(crate) fn reset(&mut self, place: usize) {
        let purges = self.random.once_in(2);
        let link = &mut self.links[place];
        if link.is_reset {
            return;
        }
        (link.is_reset, link.has_error) = (true, true);
        (link.is_full, link.queued) = (false, 0);
        link.flight.clear();
        if purges {
            link.inbound.clear();
            link.taken = 0;
        }
        self.make_ready(place);
        self.mark_touched(place);
    }

    pub(crate) fn make_ready(&mut self, place: usize) {
        let link = &mut self.links[place];
        if link.key.is_some() && !link.is_dropped && !link.is_ready {
            link.is_ready = true;
            self.ready.push(place);
        }
    }

    fn mark_touched(&mut self, place: usize) {
        let link = &mut self.links[place];
        if !link.is_touched {
            link.is_touched = true;
            self.touched.push(place);
        }
    }

    /// The peer takes bytes out of its buffer, so there is room for more.
    pub(crate) fn drain(&mut self, place: usize, bytes: usize) {
        let link = &mut self.links[place];
        link.queued -= bytes.min(link.queued);
        if link.is_full
            && link.capacity - link.queued.min(link.capacity) >= link.capacity.div_ceil(3)
        {
            link.is_full = false;
            self.make_ready(place);
        }
    }

    pub(crate) fn has_events(&self) -> bool {
        self.is_listener_ready || !self.ready.is_empty()
    }

    /// Says whether a client connected and was not accepted.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Polls: reports some of the events, in any order. A later poll reports the rest.
    pub(crate) fn poll_events(&mut self, max: usize, shuffles: bool) -> (Vec<(Key, Event)>, bool) {
        self.turns += 1;
        let mut events = Vec::new();
        while events.len() < max && !self.ready.is_empty() {
            let at = if shuffles { self.random.index(self.ready.len()) } else { 0 };
            let place = self.ready.remove(at);
            self.links[place].is_ready = false;
            if let Some(event) = self.event_of(place) {
                events.push(event);
            }
        }
        (events, std::mem::take(&mut self.is_listener_ready))
    }

    /// Returns the state of a socket as an edge-triggered poll reports it, with or without a cause.
    pub(crate) fn event_of(&mut self, place: usize) -> Option<(Key, Event)> {
        let link = &mut self.links[place];
        let key = link.key.filter(|_| !link.is_dropped)?;
        link.turn.events += 1;
        let event = Event {
            is_readable: link.has_inbound() || link.has_fin || link.is_reset,
            is_writable: link.is_reset || !link.is_full,
            is_read_closed: link.has_fin || link.is_reset,
            is_error: link.has_error,
        };
        self.mark_touched(place);
        Some((key, event))
    }

    /// Returns the links on which something happened since the last call.
    pub(crate) fn take_touched(&mut self) -> Vec<usize> {
        let touched = std::mem::take(&mut self.touched);
        for place in &touched {
            self.links[*place].is_touched = false;
        }
        touched
    }

    /// Registers a link under its key: events are reported, also those that were before.
    pub(crate) fn register(&mut self, socket: &SimSocket, key: Key) -> io::Result<()> {
        if self.happens(self.faults.cannot_register) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        self.links[socket.place].key = Some(key);
        self.make_ready(socket.place);
        Ok(())
    }

    /// Counts a call on a socket, during which a peer may reset it.
    fn call(&mut self, place: usize) {
        self.calls += 1;
        self.mark_touched(place);
        let link = &mut self.links[place];
        if let Some(fuse) = &mut link.fuse {
            *fuse = fuse.saturating_sub(1);
            if *fuse == 0 {
                link.fuse = None;
                self.reset(place);
            }
        }
    }

    fn read(&mut self, place: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.call(place);
        if self.happens(self.faults.interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let link = &mut self.links[place];
        let there = &link.inbound[link.taken..];
        if there.is_empty() {
            return match (std::mem::take(&mut link.has_error), link.has_fin || link.is_reset) {
                (true, _) => Err(io::ErrorKind::ConnectionReset.into()),
                (false, true) => Ok(0),
                (false, false) => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        link.taken += length;
        link.consumed += length as u64;
        link.turn.bytes_read += length;
        if link.taken == link.inbound.len() {
            link.inbound.clear();
            link.taken = 0;
        }
        Ok(length)
    }

    fn write(&mut self, place: usize, bytes: &[u8]) -> io::Result<usize> {
        self.call(place);
        if self.happens(self.faults.interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        let is_short = !self.links[place].is_perfect && self.happens(self.faults.short_write);
        let shortened = if is_short { 1 + self.random.index(bytes.len()) } else { bytes.len() };
        let now = self.now;
        let link = &mut self.links[place];
        if link.is_reset || link.has_server_fin {
            link.has_write_failed = true;
            let has_error = std::mem::take(&mut link.has_error);
            return Err(if has_error {
                io::ErrorKind::ConnectionReset
            } else {
                io::ErrorKind::BrokenPipe
            }
            .into());
        }
        if link.full_since.is_some() {
            link.last_drained = now;
        }
        let room = link.capacity.saturating_sub(link.queued);
        let length = shortened.min(room);
        if length < bytes.len() {
            link.is_full = true;
            link.full_since.get_or_insert(now);
        }
        if length > 0 {
            link.last_written = now;
        }
        link.queued += length;
        link.turn.bytes_written += length;
        link.tape.extend_from_slice(&bytes[..length]);
        let is_peer_gone = link.is_peer_gone;
        if length > 0 && is_peer_gone {
            let delay_ms = self.random.below(20);
            self.send(place, Segment::Reset, delay_ms);
        }
        if length == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(length) }
    }
}

impl Connection {
    pub(crate) fn has_inbound(&self) -> bool {
        self.inbound.len() > self.taken
    }
}

impl Read for SimSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.net.borrow_mut().read(self.place, buffer)
    }
}

impl Write for SimSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.net.borrow_mut().write(self.place, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for SimSocket {
    fn shut_down_writing(&self) -> io::Result<()> {
        let mut net = self.net.borrow_mut();
        net.call(self.place);
        let link = &mut net.links[self.place];
        if link.is_reset {
            return Err(io::ErrorKind::NotConnected.into());
        }
        link.has_server_fin = true;
        Ok(())
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let mut net = self.net.borrow_mut();
        net.descriptors -= 1;
        net.links[self.place].is_dropped = true;
        net.mark_touched(self.place);
    }
}

impl Listener for SimListener {
    type Socket = SimSocket;
    type Reserve = Descriptor;

    fn accept(&mut self) -> io::Result<(SimSocket, Option<IpAddr>)> {
        let mut net = self.0.borrow_mut();
        net.calls += 1;
        let is_out = net.descriptors >= net.descriptors_max;
        if is_out
            || (!net.backlog.is_empty() && net.faults.out_of_room > 0 && {
                let once_in = net.faults.out_of_room;
                net.random.once_in(once_in)
            })
        {
            net.refusals += 1;
            let (turn, now) = (net.turns, net.now);
            let (last_turn, last) = net.refused.replace((turn, now)).unwrap_or((turn, now));
            assert!(
                turn == last_turn || now >= last + ACCEPT_PAUSE_MS,
                "the listener does not rest without descriptors"
            );
            let errno = if is_out { EMFILE } else { net.random.pick(&[ENFILE, ENOBUFS]) };
            return Err(io::Error::from_raw_os_error(errno));
        }
        let Some(place) = net.backlog.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        net.accepts += 1;
        if net.links[place].is_reset && net.random.once_in(2) {
            net.links[place].is_dropped = true;
            net.mark_touched(place);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        net.descriptors += 1;
        net.links[place].is_accepted = true;
        let address = net.links[place].address;
        net.mark_touched(place);
        drop(net);
        Ok((SimSocket { net: Rc::clone(&self.0), place }, address))
    }

    fn reserve_fd(&mut self) -> Option<Descriptor> {
        let mut net = self.0.borrow_mut();
        net.owes_reserve = false;
        if net.descriptors >= net.descriptors_max {
            return None;
        }
        net.descriptors += 1;
        drop(net);
        Some(Descriptor(Rc::clone(&self.0)))
    }
}

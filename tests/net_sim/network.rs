//! A simulated network that behaves like Linux: streams that come in segments, buffers that fill,
//! peers that half-close, reset or vanish, edges that are reported once, and descriptors that run
//! out.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use speak::hub::Key;
use speak::service::Event;

use support::random::Random;

use crate::tls_link::TlsLink;

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
    /// The last write took less than all.
    pub(crate) was_short: bool,
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
    /// Nothing of the peer arrives, until the network heals.
    pub(crate) is_cut: bool,
    /// The poll owes an event.
    pub(crate) is_ready: bool,
    is_touched: bool,
    pub(crate) turn: TurnWork,
    /// The client speaks TLS: `arrived` and `consumed` are of plaintext.
    pub(crate) tls: Option<Box<TlsLink>>,
    /// The server sends nothing of a response now.
    pub(crate) is_quiet: bool,
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
    /// Connections with TLS whose state has moved to another process.
    pub(crate) moved: u64,
    /// Turn and time of the last refusal.
    refused: Option<(u64, u64)>,
    turns: u64,
}

impl Network {
    /// Returns a network without faults.
    pub(crate) fn new(random: Random) -> Self {
        Self { random, descriptors_max: usize::MAX, ..Self::default() }
    }

    /// Sets the faults and the number of descriptors. Returns what they were.
    pub(crate) fn set_faults(&mut self, (faults, descriptors): (Faults, usize)) -> (Faults, usize) {
        let faults = std::mem::replace(&mut self.faults, faults);
        (faults, std::mem::replace(&mut self.descriptors_max, descriptors))
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

    /// The process of the server has died, and its sockets with it.
    pub(crate) fn forget_clients(&mut self) {
        self.backlog.clear();
        self.ready.clear();
        self.touched.clear();
        (self.owes_reserve, self.refused) = (false, None);
        self.is_listener_ready = false;
        for link in &mut self.links {
            (link.is_dropped, link.is_touched) = (true, false);
            link.flight.clear();
        }
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
        let links = self.links.iter().filter(|link| !link.is_dropped && !link.is_cut);
        links.filter_map(|link| link.flight.front().map(|(at, _)| *at)).min()
    }

    /// All segments under way arrive now, also those that a cut held back.
    pub(crate) fn deliver_due(&mut self) {
        for place in 0..self.links.len() {
            self.links[place].is_cut = false;
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
        let is_due = |link: &Connection, now| {
            !link.is_cut && link.flight.front().is_some_and(|(at, _)| *at <= now)
        };
        while is_due(&self.links[place], self.now) {
            let (_, segment) = self.links[place].flight.pop_front().expect("it is there");
            let link = &mut self.links[place];
            if link.is_reset || link.has_fin && !matches!(segment, Segment::Reset) {
                continue;
            }
            has_arrived = true;
            match segment {
                Segment::Bytes(bytes) => {
                    link.arrived = match &mut link.tls {
                        Some(tls) => tls.arrive(bytes.len()),
                        None => link.arrived + bytes.len() as u64,
                    };
                    link.inbound.extend_from_slice(&bytes);
                }
                Segment::Fin => link.has_fin = true,
                Segment::Reset => self.reset(place),
            }
        }
        if has_arrived {
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

    pub(crate) fn mark_touched(&mut self, place: usize) {
        let link = &mut self.links[place];
        if !link.is_touched {
            link.is_touched = true;
            self.touched.push(place);
        }
    }

    /// The peer takes bytes out of its buffer, so there is room for more.
    pub(crate) fn drain(&mut self, place: usize, bytes: usize) {
        let link = &mut self.links[place];
        link.queued = link.queued.saturating_sub(bytes);
        let room = link.capacity.saturating_sub(link.queued);
        if link.is_full && room >= link.capacity.div_ceil(3) {
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
    pub(crate) fn register(&mut self, place: usize, key: Key) -> io::Result<()> {
        if self.happens(self.faults.cannot_register) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        self.links[place].key = Some(key);
        self.make_ready(place);
        Ok(())
    }

    /// Accepts the first client of the backlog, if there is a descriptor for it.
    pub(crate) fn accept(&mut self) -> io::Result<(usize, Option<IpAddr>)> {
        self.calls += 1;
        let is_out = self.descriptors >= self.descriptors_max;
        if is_out || (self.has_backlog() && self.happens(self.faults.out_of_room)) {
            self.refusals += 1;
            let (turn, now) = (self.turns, self.now);
            let (last_turn, last) = self.refused.replace((turn, now)).unwrap_or((turn, now));
            let rests = turn == last_turn || now >= last + ACCEPT_PAUSE_MS;
            assert!(rests, "the listener does not rest without descriptors");
            let errno = if is_out { EMFILE } else { self.random.pick(&[ENFILE, ENOBUFS]) };
            return Err(io::Error::from_raw_os_error(errno));
        }
        let place = self.backlog.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        self.accepts += 1;
        self.mark_touched(place);
        if self.links[place].is_reset && self.random.once_in(2) {
            self.links[place].is_dropped = true;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.descriptors += 1;
        self.links[place].is_accepted = true;
        Ok((place, self.links[place].address))
    }

    /// Counts a call on a socket, during which a peer may reset it.
    pub(crate) fn call(&mut self, place: usize) {
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

    pub(crate) fn read(&mut self, place: usize, buffer: &mut [u8]) -> io::Result<usize> {
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
        match &mut link.tls {
            Some(tls) => tls.consume(length),
            None => link.consumed += length as u64,
        }
        link.turn.bytes_read += length;
        if link.taken == link.inbound.len() {
            link.inbound.clear();
            link.taken = 0;
        }
        Ok(length)
    }

    pub(crate) fn write(&mut self, place: usize, bytes: &[u8]) -> io::Result<usize> {
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
            link.has_write_failed |= !link.is_quiet;
            let has_error = std::mem::take(&mut link.has_error);
            let [reset, broken] = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
            return Err(if has_error { reset } else { broken }.into());
        }
        if link.full_since.is_some() && !link.is_quiet {
            link.last_drained = now;
        }
        let room = link.capacity.saturating_sub(link.queued);
        let length = shortened.min(room);
        link.was_short = length < bytes.len();
        if link.was_short {
            link.is_full = true;
            if !link.is_quiet {
                link.full_since.get_or_insert(now);
            }
        }
        if length > 0 && !link.is_quiet {
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

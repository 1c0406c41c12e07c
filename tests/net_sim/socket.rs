//! The server on the simulated network: its sockets, its listener and its descriptors.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::rc::Rc;

use speak::hub::{Key, Now};
use speak::options::Options;
use speak::service::{AcceptLimits, Event, Listener, Service, Socket};
use speak::tls::{TlsContext, TlsSocket};
use support::random::Random;

use crate::network::Network;
use crate::tls_link::context;

pub(crate) type Net = Rc<RefCell<Network>>;

/// A socket of the kernel.
struct RawSocket {
    net: Net,
    place: usize,
}

/// A client's socket, with TLS or without.
pub(crate) struct SimSocket {
    tls: TlsSocket<RawSocket>,
    context: Rc<TlsContext>,
    /// Dropped last.
    end: End,
}

/// The end of a socket of the kernel.
struct End {
    net: Net,
    place: usize,
}

/// The listener of the server, with what its clients need if they speak TLS.
pub(crate) struct SimListener(pub(crate) Net, pub(crate) Rc<TlsContext>);

/// An open descriptor.
pub(crate) struct Descriptor(Net);

impl Drop for Descriptor {
    fn drop(&mut self) {
        let mut net = self.0.borrow_mut();
        net.descriptors -= 1;
        net.owes_reserve = true;
    }
}

/// Unix seconds at which a simulation begins.
pub(crate) const START_S: u64 = 1_700_000_000;

/// Starts a server on a network without faults. Each step of its turns counts for `weight`.
pub(crate) fn start(
    options: &Options,
    clients_max: usize,
    weight: usize,
    random: Random,
    fill: fn(&mut [u8]),
) -> (Net, Service<SimListener>) {
    let net = Rc::new(RefCell::new(Network::new(random)));
    let listeners = vec![SimListener(Rc::clone(&net), context(START_S))];
    let mut service =
        Service::new(options, listeners, AcceptLimits::new(clients_max, usize::MAX), fill);
    service.set_step_weight(weight);
    (net, service)
}

/// Runs one turn of the loop with these events, and whether a client has connected.
pub(crate) fn turn(
    net: &Net,
    service: &mut Service<SimListener>,
    now: Now,
    (events, has_arrivals): (Vec<(Key, Event)>, bool),
) {
    service.begin_turn(now);
    service.listeners().for_each(|listener| listener.1.set_time(now.unix_ms / 1000));
    for (key, event) in events {
        service.handle_event(key, event);
    }
    if has_arrivals {
        service.listener_ready(0);
    }
    service.end_turn(|socket, key| net.borrow_mut().register(socket.end.place, key));
    assert!(!service.hub().0.has_undelivered(), "a delivery is left for a turn that may come late");
}

impl Read for RawSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.net.borrow_mut().read(self.place, buffer)
    }
}

impl Write for RawSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.net.borrow_mut().write(self.place, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for RawSocket {
    fn shut_down_writing(&mut self) -> io::Result<()> {
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

impl SimSocket {
    /// Makes a call in which the socket sends something that is no part of a response: of a
    /// handshake, or the end.
    fn call_quietly<T>(&mut self, call: impl FnOnce(&mut TlsSocket<RawSocket>) -> T) -> T {
        let set_quiet =
            |is_quiet| self.end.net.borrow_mut().links[self.end.place].is_quiet = is_quiet;
        set_quiet(true);
        let result = call(&mut self.tls);
        set_quiet(false);
        result
    }

    /// Moves the state of TLS to another process, if it is to be moved and can be.
    fn move_if_due(&mut self) {
        let End { net, place } = &self.end;
        let mut its = net.borrow_mut();
        let Some(tls) = &mut its.links[*place].tls else { return };
        if !std::mem::take(&mut tls.moves) {
            return;
        }
        drop(its);
        let Some(state) = self.tls.export() else { return };
        let raw = RawSocket { net: Rc::clone(net), place: *place };
        let moved = if state.is_empty() {
            TlsSocket::accept(raw, &self.context)
        } else {
            net.borrow_mut().moved += 1;
            TlsSocket::import(raw, &state)
        };
        self.tls = moved.expect("what was exported");
    }

    fn note(&mut self, plaintext: usize) {
        let is_handshaking = self.tls.is_handshaking();
        self.end.net.borrow_mut().note_tls(self.end.place, plaintext, is_handshaking);
    }
}

impl Read for SimSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.move_if_due();
        let result = self.call_quietly(|tls| tls.read(buffer));
        self.note(result.as_ref().map_or(0, |length| *length));
        result
    }
}

impl Write for SimSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.move_if_due();
        self.tls.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.move_if_due();
        self.call_quietly(TlsSocket::flush)
    }
}

impl Socket for SimSocket {
    fn shut_down_writing(&mut self) -> io::Result<()> {
        self.tls.shut_down_writing()
    }

    fn is_tls(&self) -> bool {
        self.tls.is_tls()
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn has_input(&self) -> bool {
        self.tls.has_input()
    }

    fn has_progressed(&self) -> bool {
        self.tls.has_progressed()
    }

    fn memory(&self) -> usize {
        self.tls.memory()
    }

    fn take_steps(&mut self) -> usize {
        self.tls.take_steps()
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.end.net.borrow_mut().links[self.end.place].is_quiet = true;
    }
}

impl Drop for End {
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
        let (place, address) = self.0.borrow_mut().accept()?;
        let net = Rc::clone(&self.0);
        let is_tls = net.borrow().links[place].tls.is_some();
        let raw = RawSocket { net: Rc::clone(&net), place };
        let tls = if is_tls {
            TlsSocket::accept(raw, &self.1).expect("random bytes")
        } else {
            TlsSocket::plain(raw)
        };
        let (context, end) = (Rc::clone(&self.1), End { net, place });
        Ok((SimSocket { tls, context, end }, address))
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

//! The server on the simulated network: its sockets, its listener and its descriptors.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::rc::Rc;

use speak::hub::{Key, Now};
use speak::options::Options;
use speak::service::{AcceptLimits, Event, Listener, Service, Socket};
use support::random::Random;

use crate::network::Network;

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

/// Starts a server on a network without faults. Each step of its turns counts for `weight`.
pub(crate) fn start(
    options: &Options,
    clients_max: usize,
    weight: usize,
    random: Random,
    fill: fn(&mut [u8]),
) -> (Net, Service<SimListener>) {
    let net = Rc::new(RefCell::new(Network::new(random)));
    let listeners = vec![SimListener(Rc::clone(&net))];
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
    for (key, event) in events {
        service.handle_event(key, event);
    }
    if has_arrivals {
        service.listener_ready(0);
    }
    service.end_turn(|socket, key| net.borrow_mut().register(socket.place, key));
    assert!(!service.hub().0.has_undelivered(), "a delivery is left for a turn that may come late");
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
        let (place, address) = self.0.borrow_mut().accept()?;
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

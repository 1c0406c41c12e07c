//! A server on the simulated network whose clients are driven by hand.

use std::net::IpAddr;

use speak::hub::{Key, Millis, Now};
use speak::service::{Event, NextWake, Service};
use support::http::get;
use support::random::Random;

use crate::network::Segment;
use crate::plan::options;
use crate::socket::{Net, SimListener, start, turn};

pub(crate) struct Room {
    pub(crate) net: Net,
    pub(crate) service: Service<SimListener>,
    pub(crate) now_ms: u64,
}

impl Room {
    /// Starts a server with these options; each step of a turn counts for so many.
    pub(crate) fn new<const N: usize>(weight: usize, arguments: [&str; N]) -> Self {
        let options = options(arguments.map(str::to_owned));
        let fill = |bytes: &mut [u8]| bytes.fill(7);
        let (net, service) = start(&options, 1_000, weight, Random::new(1), fill);
        Self { net, service, now_ms: 0 }
    }

    /// Connects a client that takes all that it is sent.
    pub(crate) fn connect(&mut self) -> usize {
        self.connect_from(None, 1 << 30)
    }

    /// Connects a client that takes nothing, with room for so many bytes.
    pub(crate) fn connect_from(&mut self, address: Option<IpAddr>, capacity: usize) -> usize {
        let place = self.net.borrow_mut().connect(address, capacity);
        self.net.borrow_mut().links[place].is_perfect = true;
        place
    }

    pub(crate) fn send(&self, place: usize, bytes: impl Into<Vec<u8>>) {
        self.net.borrow_mut().send(place, Segment::Bytes(bytes.into()), 0);
    }

    /// Runs a turn. If all are at the same time, a client that was left out is not just one that
    /// waits.
    pub(crate) fn turn(&mut self) {
        let events = self.poll();
        self.turn_with(events);
    }

    /// Returns the events that are there.
    pub(crate) fn poll(&mut self) -> (Vec<(Key, Event)>, bool) {
        self.net.borrow_mut().poll_events(usize::MAX, false)
    }

    /// Runs a turn with these events.
    pub(crate) fn turn_with(&mut self, events: (Vec<(Key, Event)>, bool)) {
        let now = Now { mono: Millis(self.now_ms), unix_ms: 1_700_000_000_000 };
        turn(&self.net, &mut self.service, now, events);
    }

    /// Runs turns until nothing is left to do.
    pub(crate) fn rest(&mut self) {
        let most = (0..500).find(|_| {
            self.turn();
            self.is_at_rest()
        });
        assert!(most.is_some(), "the loop never rests");
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        self.service.next_wake() != NextWake::Now && !self.net.borrow().has_events()
    }

    /// Introduces a session, and returns its credentials for a query.
    pub(crate) fn introduce(&mut self, writer: usize) -> String {
        self.send(writer, get("/introduce?channel=d&message=Josh"));
        self.rest();
        let answer = self.text(writer);
        let (_, json) = answer.split_once("\r\n\r\n").expect("a body");
        let me: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let auth = me["auth"].as_str().expect("a secret");
        format!("&connection={}&auth={auth}", me["connection"])
    }

    /// Has a client take all that it is sent, and runs turns until it has it.
    pub(crate) fn take_all(&mut self, place: usize) {
        {
            let mut net = self.net.borrow_mut();
            net.links[place].capacity = 1 << 30;
            net.drain(place, usize::MAX);
        }
        self.rest();
    }

    /// Returns the bytes that count against `--max-memory` between two turns.
    pub(crate) fn counted(&self) -> usize {
        self.service.memory()
    }

    pub(crate) fn has_got(&self, place: usize, what: &str) -> bool {
        let net = self.net.borrow();
        memchr::memmem::find(&net.links[place].tape, what.as_bytes()).is_some()
    }

    /// Returns all that a client got, as text.
    pub(crate) fn text(&self, place: usize) -> String {
        String::from_utf8_lossy(&self.net.borrow().links[place].tape).into_owned()
    }
}

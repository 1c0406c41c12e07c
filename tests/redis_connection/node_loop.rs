//! The loop of a server around one connection to Redis.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use speak::cluster::{ClusterUrl, Connection, Event, Failure, ServerInfo, Value as Reply};
use speak::hub::Millis;
use speak::server::{RedisSocket, RedisTarget};

/// A test in which nothing happens for longer has failed.
const GUARD: Duration = Duration::from_secs(30);
/// Longest time of a connection between a command and its reply.
pub const REPLY_MS: u64 = 5_000;

/// A loop with one connection, as the server has it. Its clock can be set forward.
pub struct Loop {
    poll: Poll,
    pub socket: RedisSocket,
    start: Instant,
    pub skipped_ms: u64,
}

impl Loop {
    pub fn new(url: &str) -> Self {
        Self::with_ca(url, None)
    }

    /// With the file of the authorities that are trusted.
    pub fn with_ca(url: &str, ca: Option<&Path>) -> Self {
        let url = ClusterUrl::parse(url).expect("a URL");
        let target = Rc::new(RedisTarget::resolve(url, ca).expect("an address"));
        let poll = Poll::new().expect("a poll");
        let socket = RedisSocket::new(target, poll.registry(), Token(7), REPLY_MS);
        let socket = socket.expect("a connection");
        Self { poll, socket, start: Instant::now(), skipped_ms: 0 }
    }

    pub fn now(&self) -> Millis {
        Millis(self.start.elapsed().as_millis() as u64 + self.skipped_ms)
    }

    /// Waits until there is something to do, and does it.
    pub fn turn(&mut self) {
        let wait = self.socket.next_deadline().map_or(GUARD, |deadline| {
            Duration::from_millis(deadline.0.saturating_sub(self.now().0)).min(GUARD)
        });
        let mut events = Events::with_capacity(16);
        self.poll.poll(&mut events, Some(wait)).expect("the poll");
        self.socket.begin_turn(self.now());
        for event in &events {
            self.socket.on_event(event);
        }
        self.socket.end_turn();
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        self.socket.end_turn();
    }

    pub fn next(&mut self) -> Event {
        let start = Instant::now();
        loop {
            if let Some(event) = self.socket.poll() {
                return event;
            }
            assert!(start.elapsed() < GUARD, "no event");
            self.flush();
            self.turn();
        }
    }

    /// Waits for a connection, if need be after failed attempts.
    pub fn connected(&mut self) -> ServerInfo {
        loop {
            match self.next() {
                Event::Connected(server) => return server,
                Event::Disconnected(_) => {}
                Event::Reply(reply) => panic!("a reply to no command: {reply:?}"),
            }
        }
    }

    pub fn failure(&mut self) -> Failure {
        match self.next() {
            Event::Disconnected(failure) => failure,
            other => panic!("no failure: {other:?}"),
        }
    }

    pub fn reply(&mut self) -> Reply {
        match self.next() {
            Event::Reply(reply) => reply,
            other => panic!("no reply: {other:?}"),
        }
    }

    pub fn ask(&mut self, args: &[&str]) -> Reply {
        self.send(args);
        self.reply()
    }

    pub fn send(&mut self, args: &[&str]) {
        let args: Vec<_> = args.iter().map(|arg| arg.as_bytes()).collect();
        self.socket.send(&args);
    }
}

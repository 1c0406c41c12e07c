//! The service with clients that speak TLS: it does not know, and counts what they cost.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use speak::hub::{Key, Millis, Now};
use speak::options::{Command, parse};
use speak::service::{AcceptLimits, Event, Listener, Service, Socket};
use speak::tls::{TlsContext, TlsSocket};

use crate::client::{Client, config};
use crate::pipe::{NOW_S, Wire, WireSocket, context};

type Arrivals = Rc<RefCell<VecDeque<Rc<RefCell<Wire>>>>>;

struct TlsListener {
    arrivals: Arrivals,
    context: Rc<TlsContext>,
}

impl Listener for TlsListener {
    type Socket = TlsSocket<WireSocket>;
    type Reserve = ();

    fn accept(&mut self) -> io::Result<(Self::Socket, Option<IpAddr>)> {
        let arrived = self.arrivals.borrow_mut().pop_front();
        let wire = arrived.ok_or(ErrorKind::WouldBlock)?;
        let socket = TlsSocket::accept(WireSocket(wire), &self.context).expect("random bytes");
        Ok((socket, Some(Ipv4Addr::LOCALHOST.into())))
    }

    fn reserve_fd(&mut self) -> Option<()> {
        Some(())
    }
}

struct World {
    service: Service<TlsListener>,
    arrivals: Arrivals,
    keys: Vec<Key>,
    clients: Vec<Client>,
    now_ms: u64,
}

impl World {
    fn new(certificate: &str) -> Self {
        let (arrivals, context) = (Arrivals::default(), context(&[certificate]));
        let listener = TlsListener { arrivals: Rc::clone(&arrivals), context };
        let limits = AcceptLimits::new(1000, usize::MAX);
        let Ok(Command::Run(options)) = parse([], |_| None) else { panic!("no options") };
        let service = Service::new(&options, vec![listener], limits, |bytes| bytes.fill(7));
        Self { service, arrivals, keys: Vec::new(), clients: Vec::new(), now_ms: 0 }
    }

    /// Adds a client that has sent its hello.
    fn add_client(&mut self, name: &str) -> usize {
        let wire = Rc::new(RefCell::new(Wire::default()));
        let mut client = Client::new(&Arc::new(config()), name, &wire);
        client.send_output();
        self.arrivals.borrow_mut().push_back(wire);
        self.clients.push(client);
        self.clients.len() - 1
    }

    /// Runs a turn, with an event for each client that has sent something since the last one, and
    /// has the clients handle what they get.
    fn turn(&mut self) {
        self.now_ms += 1;
        let unix_ms = NOW_S * 1000 + self.now_ms;
        self.service.begin_turn(Now { mono: Millis(self.now_ms), unix_ms });
        for (key, client) in self.keys.iter().zip(&mut self.clients) {
            let event = Event {
                is_readable: std::mem::take(&mut client.has_sent),
                is_writable: true,
                is_read_closed: false,
                is_error: false,
            };
            self.service.handle_event(*key, event);
        }
        self.service.listener_ready(0);
        self.service.end_turn(|_, key| {
            self.keys.push(key);
            Ok(())
        });
        for client in &mut self.clients {
            client.receive();
            client.send_output();
        }
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.turn();
        }
    }

    /// Takes what a client has got.
    fn response(&mut self, client: usize) -> String {
        String::from_utf8(std::mem::take(&mut self.clients[client].received)).expect("text")
    }
}

const WRITE: &[u8] = b"GET /write?channel=room&message=howdy HTTP/1.1\r\nHost: x\r\n\r\n";
const READ: &[u8] = b"GET /read?channel=room HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_message_reaches_readers_and_an_open_connection_has_no_buffers() {
    let mut world = World::new("ecdsa");
    let base = world.service.memory();
    for _ in 0..20 {
        world.add_client("ecdsa.example.test");
    }
    world.turn();
    world.turn();
    assert!(world.service.memory() > base + 20 * 1000, "handshakes are counted");
    world.turns(3);
    assert_eq!(world.service.memory(), base, "an open connection has no buffers");
    for client in &mut world.clients[1..] {
        client.send(READ);
    }
    world.turns(2);
    assert!(world.clients.iter().all(|client| client.received.is_empty()));
    world.clients[0].send(WRITE);
    world.turns(2);
    for client in 0..20 {
        let response = world.response(client);
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{client}: {response}");
        assert_eq!(response.contains("howdy"), client > 0, "{response}");
    }
}

#[test]
fn a_flight_that_has_no_room_continues_when_the_client_is_writable() {
    let mut world = World::new("ecdsa");
    let client = world.add_client("ecdsa.example.test");
    for _ in 0..200 {
        world.clients[client].wire.borrow_mut().room = Some(10);
        world.turn();
    }
    assert!(!world.clients[client].tls.is_handshaking());
    world.clients[client].send(WRITE);
    for _ in 0..100 {
        world.clients[client].wire.borrow_mut().room = Some(10);
        world.turn();
    }
    assert!(world.response(client).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_record_that_is_taken_in_small_pieces_is_progress() {
    let mut world = World::new("ecdsa");
    let client = world.add_client("ecdsa.example.test");
    world.turns(4);
    let message = "x".repeat(3_000);
    let write = format!("GET /write?channel=room&message={message} HTTP/1.1\r\nHost: x\r\n\r\n");
    world.clients[client].send(write.as_bytes());
    world.turns(2);
    world.response(client);
    world.clients[client].send(b"GET /read?channel=room&from_id=0 HTTP/1.1\r\nHost: x\r\n\r\n");
    // Each piece comes in time, and all of them take far longer than a response may.
    let pieces = (0..100).find(|_| {
        world.clients[client].wire.borrow_mut().room = Some(50);
        world.now_ms += 5_000;
        world.turn();
        !world.clients[client].received.is_empty()
    });
    assert!(pieces.is_some_and(|pieces| pieces > 50), "{pieces:?}");
    assert!(world.response(client).contains(&message));
    // A client that takes nothing is closed.
    world.clients[client].wire.borrow_mut().room = Some(0);
    world.clients[client].send(b"GET /read?channel=room&from_id=0 HTTP/1.1\r\nHost: x\r\n\r\n");
    world.turn();
    assert_eq!(world.service.gauges().clients, 1);
    for _ in 0..3 {
        world.now_ms += 5_000;
        world.turn();
    }
    assert_eq!(world.service.gauges().clients, 0);
}

#[test]
fn a_reader_that_waits_gets_the_rest_of_its_ticket() {
    let mut world = World::new("ecdsa");
    let client = world.add_client("ecdsa.example.test");
    world.turns(2);
    // With the last flight of its handshake, the client sends a request.
    world.clients[client].send(READ);
    world.clients[client].wire.borrow_mut().room = Some(10);
    world.turn();
    assert!(world.service.gauges().memory > 300, "most of it waits");
    world.clients[client].wire.borrow_mut().room = None;
    world.turn();
    assert_eq!(world.service.gauges().memory, 0);
}

#[test]
fn a_turn_has_a_limited_number_of_handshakes() {
    // A full handshake with an RSA key costs 146 steps, and a turn has 2,048.
    let mut world = World::new("rsa");
    for _ in 0..60 {
        world.add_client("rsa.example.test");
    }
    let mut answered = Vec::new();
    for _ in 0..10 {
        world.turn();
        let all = world.clients.iter().filter(|client| !client.tls.wants_write());
        answered.push(all.filter(|client| !client.tls.is_handshaking()).count());
    }
    let steps: Vec<_> = answered.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(answered.last() == Some(&60) && steps.iter().all(|step| *step <= 20), "{answered:?}");
}

#[test]
fn records_of_a_client_that_lingers_are_not_charged_to_the_next_one() {
    let mut world = World::new("ecdsa");
    let client = world.add_client("ecdsa.example.test");
    world.turns(4);
    world.clients[client].send(b"no HTTP\r\n\r\n");
    world.turns(2);
    assert!(world.response(client).starts_with("HTTP/1.1 400 "));
    for _ in 0..1200 {
        world.clients[client].send(b"1");
    }
    world.turn();
    assert!(world.clients[client].wire.borrow().to_server.is_empty(), "they are discarded");
    let next = WireSocket(Rc::new(RefCell::new(Wire::default())));
    let mut next = TlsSocket::accept(next, &context(&["ecdsa"])).expect("random bytes");
    assert_eq!(next.take_steps(), 0);
}

#[test]
fn a_client_may_end_its_connection() {
    let mut world = World::new("ecdsa");
    let client = world.add_client("ecdsa.example.test");
    world.turns(4);
    world.clients[client].send(&WRITE.repeat(3));
    world.clients[client].tls.send_close_notify();
    world.clients[client].send_output();
    world.turns(3);
    assert_eq!(world.response(client).matches("HTTP/1.1 200 OK").count(), 3);
    assert!(world.clients[client].is_closed, "the server ends it as well");
}

//! The four transports side by side: the same messages in the same order on each, and a slow or
//! vanished reader affects no other.

mod common;

use std::ops::Range;

use common::{
    CLOSE, Client, Event, HANDSHAKE, Identity, PING, PONG, Server, masked, raise_file_limit,
    request, until,
};
use serde_json::{Value, json};
use support::incoming::Cutter;

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Poll,
    Script,
    Events,
    Socket,
}

const ALL: [Transport; 4] =
    [Transport::Poll, Transport::Script, Transport::Events, Transport::Socket];
const STREAMS: [Transport; 2] = [Transport::Events, Transport::Socket];

/// A reader that follows `c` from a cursor.
struct Follower {
    transport: Transport,
    client: Client,
    cutter: Cutter,
    /// Credentials, if it has a connection: `&connection=…&auth=…`.
    proof: String,
    epoch: String,
    /// The cursor with which it would return.
    next_id: u64,
    /// Received messages that were not asked for yet.
    came: Vec<Value>,
}

impl Follower {
    /// Prepares to read from `from_id` over this TCP connection.
    fn new(transport: Transport, client: Client, who: Option<&Identity>, from_id: u64) -> Self {
        let proof = who.map(|who| format!("&connection={}&auth={}", who.connection, who.auth));
        Self {
            transport,
            client,
            cutter: Cutter::default(),
            proof: proof.unwrap_or_default(),
            epoch: String::new(),
            next_id: from_id,
            came: Vec::new(),
        }
    }

    /// Returns once the long poll is sent or the stream open.
    fn begin(mut self) -> Self {
        self.send_read();
        self.opened()
    }

    /// Reads what a stream begins with.
    fn opened(mut self) -> Self {
        let blocks = match self.transport {
            Transport::Poll | Transport::Script => 0,
            Transport::Events => 2,
            Transport::Socket => 1,
        };
        for _ in 0..blocks {
            self.item().expect("a head or the first event");
        }
        self
    }

    /// Sends the read of a stream, or the next long poll.
    fn send_read(&mut self) {
        let mut path = format!("/read?channel=c&from_id={}{}", self.next_id, self.proof);
        if !self.epoch.is_empty() {
            path = format!("{path}&epoch={}", self.epoch);
        }
        let headers: &[(&str, &str)] = match self.transport {
            Transport::Poll => &[],
            Transport::Script => {
                path.push_str("&callback=f");
                &[]
            }
            Transport::Events => &[("Accept", "text/event-stream")],
            Transport::Socket => &HANDSHAKE,
        };
        self.client.send(request("GET", &path, headers, None));
    }

    /// Returns the bytes of the next response, event or frame, and the place of its body in them.
    /// `None` if the server closes first.
    #[track_caller]
    fn item(&mut self) -> Option<(Vec<u8>, Range<usize>)> {
        self.client.take_or_end("a message", |received| {
            let item = self.cutter.next(received).expect("a response, an event or a frame")?;
            assert!(matches!(item.status, None | Some(101 | 200)), "{}", item.lossy());
            let body = item.head_bytes..item.head_bytes + item.body().len();
            Some(((item.bytes.to_vec(), body), item.bytes.len()))
        })
    }

    /// Returns the next message, or `None` if the stream was closed.
    #[track_caller]
    fn maybe_next(&mut self) -> Option<Value> {
        while self.came.is_empty() {
            let (item, body) = self.item()?;
            if self.transport == Transport::Events {
                if body.is_empty() {
                    // The last chunk.
                    return None;
                }
                let event = Event::parse(&item[body]).expect("an event");
                if event.is_heartbeat {
                    continue;
                }
                let (epoch, next_id) = event.cursor().split_once(':').expect("a cursor");
                (self.epoch, self.next_id) = (epoch.to_owned(), next_id.parse().expect("a number"));
                return Some(event.message());
            }
            if self.transport == Transport::Socket && item[0] == PING {
                self.client.send(masked(PONG, &item[body]));
                continue;
            }
            let text = std::str::from_utf8(&item[body]).expect("UTF-8");
            let script = text.strip_prefix("/**/f(").and_then(|text| text.strip_suffix(");"));
            assert_eq!(script.is_some(), self.transport == Transport::Script, "{text}");
            let answer: Value = serde_json::from_str(script.unwrap_or(text)).expect("JSON");
            assert_eq!((answer.get("missed"), answer.get("reset")), (None, None), "{answer}");
            self.next_id = answer["next_id"].as_u64().expect("a next_id");
            answer["epoch"].as_str().expect("an epoch").clone_into(&mut self.epoch);
            self.came.clone_from(answer["messages"].as_array().expect("messages"));
            self.came.reverse();
            if self.transport != Transport::Socket {
                self.send_read();
            }
        }
        self.came.pop()
    }

    #[track_caller]
    fn next(&mut self) -> Value {
        self.maybe_next().unwrap_or_else(|| panic!("{:?} was cut", self.transport))
    }

    /// Returns a reader that continues where this one was.
    fn back(&self, transport: Transport, server: &Server) -> Self {
        let mut back = Self::new(transport, server.client(), None, self.next_id);
        back.epoch.clone_from(&self.epoch);
        back.begin()
    }
}

impl Transport {
    fn follow(self, server: &Server, from_id: u64) -> Follower {
        Follower::new(self, server.client(), None, from_id).begin()
    }

    fn follow_as(self, server: &Server, who: &Identity, from_id: u64) -> Follower {
        let before = server.readers("c");
        let follower = Follower::new(self, server.client(), Some(who), from_id).begin();
        server.wait_for_readers("c", before + 1);
        follower
    }
}

fn patient() -> Server {
    patient_with(&[])
}

fn patient_with(options: &[&str]) -> Server {
    Server::patient(&[&["--history", "5000"], options].concat())
}

#[test]
fn joining_writing_and_leaving_is_seen_on_every_transport() {
    let server = patient();
    let mut watchers = ALL.map(|transport| transport.follow(&server, 1));
    let all_see = |watchers: &mut [Follower], kind: &str, from: u64| {
        for watcher in watchers {
            let message = watcher.next();
            assert_eq!(
                (&message["type"], &message["from"]),
                (&kind.into(), &from.into()),
                "{message}"
            );
        }
    };
    for transport in ALL {
        let me = server.introduce("c", "Josh");
        all_see(&mut watchers, "introduction", me.number);
        server.wait_for_readers("c", 4);
        let mut own = transport.follow_as(&server, &me, me.id + 1);
        server.get("/write", &me.and(&[("channel", "c"), ("message", "howdy")])).ok();
        all_see(&mut watchers, "message", me.number);
        assert_eq!(own.next()["message"], "howdy", "{transport:?}");
        server.wait_for_readers("c", 5);
        server.get("/goodbye", &me.and(&[])).ok();
        all_see(&mut watchers, "goodbye", me.number);
        assert_eq!(own.next()["reason"], "left", "{transport:?}");
    }
}

/// Closes a client, and returns the part that must stay open.
type Closing = (&'static str, fn(Client) -> Option<Client>);

#[test]
fn a_vanished_member_gets_its_goodbye_at_once_on_every_transport() {
    let of_all: [Closing; 4] = [
        ("closed", |_| None),
        ("reset", |client| {
            client.reset();
            None
        }),
        ("half-closed", |client| {
            client.half_close();
            Some(client)
        }),
        ("closed after bytes that are nothing", |mut client| {
            client.send("GET / HTTP/1.1\r\n\r\n");
            None
        }),
    ];
    let of_sockets: [Closing; 2] = [
        ("a Close", |mut client| {
            client.send(masked(CLOSE, 1001_u16.to_be_bytes()));
            Some(client)
        }),
        ("a violation", |mut client| {
            client.send([0xff; 2]);
            Some(client)
        }),
    ];
    let all = ALL.into_iter().flat_map(|transport| of_all.map(|closing| (transport, closing)));
    let sockets = of_sockets.map(|closing| (Transport::Socket, closing));
    let server = patient();
    for (transport, (how, close)) in all.chain(sockets) {
        let me = server.introduce("c", "Josh");
        let mut watchers = ALL.map(|transport| transport.follow(&server, me.id + 1));
        server.wait_for_readers("c", 4);
        let _kept = close(transport.follow_as(&server, &me, me.id + 1).client);
        for watcher in &mut watchers {
            let goodbye = watcher.next();
            let seen = (&goodbye["reason"], &goodbye["from"]);
            assert_eq!(seen, (&"closed".into(), &me.number.into()), "{transport:?} {how}");
        }
        assert!(server.readers("c") <= 4, "{transport:?} {how}: it is still a reader");
        drop(watchers);
        server.wait_for_readers("c", 0);
        server.get("/goodbye", &me.and(&[])).fails_with(410, "connection_ended");
    }
}

#[test]
fn a_returning_reader_loses_nothing_and_sees_nothing_twice() {
    let server = patient();
    let mut writer = server.client();
    let mut followers = ALL.map(|transport| transport.follow(&server, 1));
    for round in 0..30 {
        for number in 0..3 {
            writer
                .get("/write", &[("channel", "c"), ("message", &format!("{round} {number}"))])
                .ok();
        }
        for follower in &mut followers {
            // It reads some of the messages; then it is lost and continues with another transport.
            for number in 0..3 {
                assert_eq!(follower.next()["message"], format!("{round} {number}"));
            }
            let place = ALL.iter().position(|its| *its == follower.transport).expect("one of all");
            let next = ALL[(place + 1) % ALL.len()];
            *follower = follower.back(next, &server);
        }
    }
}

#[test]
fn all_readers_see_the_same_messages_in_the_same_order() {
    let server = patient();
    let mut followers: Vec<Follower> =
        (0..40).map(|place| ALL[place % 4].follow(&server, 1)).collect();
    // Writers of each kind, all at once.
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let mut socket = (writer % 2 == 0).then(|| server.socket(&[("channel", "elsewhere")]));
            let mut client = server.client();
            scope.spawn(move || {
                for line in 0..100 {
                    let text = format!("{writer} {line}");
                    if let Some(socket) = &mut socket {
                        socket.call(&json!({"call": "write", "channel": "c", "message": text}));
                    } else {
                        client.get("/write", &[("channel", "c"), ("message", &text)]).ok();
                    }
                }
            });
        }
        let first: Vec<Value> = (0..800).map(|_| followers[0].next()).collect();
        assert!(first.iter().map(|it| it["id"].as_u64()).eq((1..=800).map(Some)));
        for writer in 0..8 {
            let prefix = format!("{writer} ");
            let texts = first.iter().filter_map(|it| it["message"].as_str());
            let lines = texts.filter_map(|text| text.strip_prefix(&prefix));
            assert!(lines.eq((0..100).map(|line| line.to_string())), "writer {writer}");
        }
        for follower in &mut followers[1..] {
            for message in &first {
                assert_eq!(follower.next(), *message, "{:?}", follower.transport);
            }
        }
    });
}

#[test]
fn a_slow_consumer_is_closed_without_affecting_others() {
    const OTHERS: usize = 1000;
    raise_file_limit();
    let server = patient_with(&["--max-backlog", "100k"]);
    let slow = STREAMS.map(|transport| {
        Follower::new(transport, Client::connect_narrow(server.address()), None, 1).begin()
    });
    let mut others: Vec<Follower> =
        (0..OTHERS).map(|place| STREAMS[place % 2].follow(&server, 1)).collect();
    server.wait_for_readers("c", OTHERS as u64 + 2);
    let mut writer = server.client();
    let text = "x".repeat(8_000);
    let mut written = 0;
    // Until both are closed, and some more.
    while server.readers("c") > OTHERS as u64 {
        let body = format!("{written} {text}");
        writer.post("/write?channel=c", "text/plain", &body).ok();
        written += 1;
        assert!(written < 5_000, "they are never cut");
        // All readers of a kind get the same bytes: one of each parses them, the others compare.
        let same = [0, 1].map(|place| others[place].item().expect("a message").0);
        let start = format!("\"message\":\"{} x", written - 1);
        for bytes in &same {
            assert!(String::from_utf8_lossy(bytes).contains(&start), "{start}");
        }
        for (place, other) in others.iter_mut().enumerate().skip(2) {
            let expected = &same[place % 2];
            let came = other.client.take_maybe(expected.len());
            assert!(came.as_ref() == Some(expected), "{start}: reader {place}");
        }
    }
    writer.post("/write?channel=c", "text/plain", format!("{written} {text}")).ok();
    written += 1;
    for mut slow in slow {
        let mut seen = 0;
        let mut check = |message: &Value| {
            let text = message["message"].as_str().expect("a text");
            assert!(text.starts_with(&format!("{seen} x")), "{seen}: {text:.9}");
            seen += 1;
        };
        while let Some(message) = slow.maybe_next() {
            check(&message);
        }
        let mut back = slow.back(slow.transport, &server);
        assert!(slow.next_id < written, "it was not cut");
        for _ in slow.next_id..=written {
            check(&back.next());
        }
    }
}

#[test]
fn memory_does_not_grow_with_slow_consumers() {
    let server = patient_with(&["--max-backlog", "1m", "--history", "10"]);
    let text = "x".repeat(60_000);
    // A node of a cluster also keeps the last 8 MiB of the log.
    server.fill("c", &text, 160);
    let before = server.rss_kib();
    // Each would need a megabyte of its own, but all share the same.
    let slow: Vec<Follower> = (0..60)
        .map(|place| {
            let client = Client::connect_narrow(server.address());
            Follower::new(STREAMS[place % 2], client, None, 1_000_000).begin()
        })
        .collect();
    server.wait_for_readers("c", 60);
    let mut most = before;
    until("they are cut", || {
        server.fill("c", &text, 1);
        most = most.max(server.rss_kib());
        server.readers("c") == 0
    });
    assert!(most < before + 16 * 1024, "from {before} to {most} KiB");
    drop(slow);
    server.fill("c", &text, 10);
    let after = server.rss_kib();
    assert!(after < before + 4 * 1024, "from {before} to {after} KiB");
}

#[test]
fn a_long_history_arrives_complete_while_messages_come() {
    // `--max-reply` and `--max-backlog`.
    let sizes = [
        ("64m", "600k"),
        ("500k", "600k"),
        ("20k", "1m"),
        ("64m", "20k"),
        ("20k", "20k"),
        ("1", "1"),
    ];
    for (transport, options) in
        STREAMS.into_iter().flat_map(|transport| sizes.map(|sizes| (transport, sizes)))
    {
        let (max_reply, max_backlog) = options;
        let server = patient_with(&["--max-reply", max_reply, "--max-backlog", max_backlog]);
        let text = "x".repeat(60_000);
        let mut writer = server.client();
        let mut write = |number: usize| {
            writer.post("/write?channel=c", "text/plain", format!("{number} {text}")).ok();
        };
        (0..100).for_each(&mut write);
        let client = Client::connect_narrow(server.address());
        let mut follower = Follower::new(transport, client, None, 1);
        // Its first response, or the first part of it, is in progress when a message comes.
        follower.send_read();
        until("it comes", || follower.client.has_something());
        write(100);
        for _ in 0..20 {
            if transport == Transport::Socket {
                // Frames from the peer are no sign that it has read anything.
                follower.client.send(masked(PONG, ""));
            }
            write(0);
        }
        follower = follower.opened();
        for number in (0..101).chain([0; 20]).chain([101]) {
            let message = follower.next();
            if number == 2 {
                write(101);
            }
            let text = message["message"].as_str().expect("a text");
            let is_next = text.starts_with(&format!("{number} x"));
            assert!(is_next, "{transport:?} {options:?} {number}: {text:.9}");
        }
    }
}

#[test]
fn a_stalled_stream_is_closed_after_two_heartbeats() {
    // Nodes count each other's readers half a second later.
    let heartbeat = if common::has_nodes() { "1s" } else { "80ms" };
    let server = Server::with(&[
        "--heartbeat",
        heartbeat,
        "--max-backlog",
        "64m",
        "--connection-timeout",
        "1h",
    ]);
    let text = "x".repeat(60_000);
    for transport in STREAMS {
        let me = server.introduce("d", "Josh");
        let client = Client::connect_narrow(server.address());
        let stuck = Follower::new(transport, client, Some(&me), 1).begin();
        server.wait_for_readers("c", 1);
        server.fill("c", &text, 100);
        // Messages that wait after the others do not delay that.
        until("it is closed", || {
            server.write("c", "m");
            server.readers("c") == 0
        });
        assert_eq!(server.next_events("d", me.id + 1), ["goodbye closed"], "{transport:?}");
        drop(stuck);
    }
}

#[test]
fn a_crowd_of_every_transport_comes_and_goes() {
    let server = patient();
    let before = server.rss_kib();
    for _ in 0..3 {
        let crowd: Vec<Follower> =
            (0..300).map(|place| ALL[place % 4].follow(&server, 1)).collect();
        server.wait_for_readers("c", 300);
        drop(crowd);
        server.wait_for_readers("c", 0);
    }
    let after = server.rss_kib();
    assert!(after < before + 2 * 1024, "from {before} to {after} KiB");
}

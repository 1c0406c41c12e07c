//! The four transports side by side: the same messages in the same order on each, and a slow or
//! vanished reader affects no other.

mod common;

use std::fs;

use common::{
    Client, EventStream, Identity, PONG, Params, Server, Socket, TEXT, handshake, masked, request,
    target, until,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

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

/// A reader that follows one channel from a cursor.
struct Follower {
    transport: Transport,
    way: ReadTransport,
    /// Credentials, if it has a connection: `&connection=…&auth=…`.
    proof: String,
    epoch: String,
    /// The cursor with which it would return.
    next_id: u64,
    /// Received messages that were not asked for yet.
    came: Vec<Value>,
}

enum ReadTransport {
    Polls(Client),
    Events(EventStream),
    Socket(Socket),
}

impl Follower {
    /// Follows `c` from `from_id` over this TCP connection. Returns once the read is pending or the
    /// stream open.
    fn begin(
        transport: Transport,
        client: Client,
        who: Option<&Identity>,
        from_id: u64,
        epoch: &str,
    ) -> Self {
        let proof = who
            .map(|who| format!("&connection={}&auth={}", who.connection, who.auth))
            .unwrap_or_default();
        let from = from_id.to_string();
        let mut params = vec![("channel", "c"), ("from_id", &*from)];
        params.extend((!epoch.is_empty()).then_some(("epoch", epoch)));
        let params = who.map_or_else(|| params.clone(), |who| who.and(&params));
        let way = match transport {
            Transport::Poll | Transport::Script => ReadTransport::Polls(client),
            Transport::Events => {
                let mut stream = EventStream::open(client, &params, &[]);
                stream.beginning();
                ReadTransport::Events(stream)
            }
            Transport::Socket => ReadTransport::Socket(Socket::open(client, &params, &[])),
        };
        let mut follower = Self {
            transport,
            way,
            proof,
            epoch: epoch.to_owned(),
            next_id: from_id,
            came: Vec::new(),
        };
        follower.poll();
        follower
    }

    /// Sends the next long poll, for that transport.
    fn poll(&mut self) {
        let script = if self.transport == Transport::Script { "&callback=f" } else { "" };
        let epoch =
            if self.epoch.is_empty() { String::new() } else { format!("&epoch={}", self.epoch) };
        let path = format!("/read?channel=c&from_id={}{epoch}{}{script}", self.next_id, self.proof);
        if let ReadTransport::Polls(client) = &mut self.way {
            client.send(request("GET", &path, &[], None));
        }
    }

    /// Returns the next message, or `None` if the stream was closed.
    #[track_caller]
    fn maybe_next(&mut self) -> Option<Value> {
        while self.came.is_empty() {
            let text = match &mut self.way {
                ReadTransport::Events(stream) => {
                    let event = stream.maybe_event()?;
                    let (epoch, next_id) = event.cursor().split_once(':').expect("a cursor");
                    (self.epoch, self.next_id) =
                        (epoch.to_owned(), next_id.parse().expect("a number"));
                    return Some(event.message());
                }
                ReadTransport::Socket(socket) => socket.maybe_text()?,
                ReadTransport::Polls(client) => {
                    let answer = client.response().ok();
                    let text = answer.text();
                    let script =
                        text.strip_prefix("/**/f(").and_then(|text| text.strip_suffix(");"));
                    assert_eq!(script.is_some(), self.transport == Transport::Script, "{text}");
                    script.unwrap_or(text).to_owned()
                }
            };
            let answer: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!((answer.get("missed"), answer.get("reset")), (None, None), "{answer}");
            self.next_id = answer["next_id"].as_u64().expect("a next_id");
            answer["epoch"].as_str().expect("an epoch").clone_into(&mut self.epoch);
            self.came.clone_from(answer["messages"].as_array().expect("messages"));
            self.came.reverse();
            self.poll();
        }
        self.came.pop()
    }

    #[track_caller]
    fn next(&mut self) -> Value {
        self.maybe_next().unwrap_or_else(|| panic!("{:?} was cut", self.transport))
    }

    /// Returns the bytes of the next event, or of the next frame of medium length.
    fn raw(&mut self) -> Vec<u8> {
        match &mut self.way {
            ReadTransport::Events(stream) => {
                [stream.client.take_until(b"\n\n").expect("an event"), b"\n\n".to_vec()].concat()
            }
            ReadTransport::Socket(socket) => {
                let payload = socket.frame().payload;
                let length = u16::try_from(payload.len()).expect("a medium length").to_be_bytes();
                [vec![TEXT, 126], length.to_vec(), payload].concat()
            }
            ReadTransport::Polls(_) => unreachable!("it is no stream"),
        }
    }

    fn client_mut(&mut self) -> &mut Client {
        match &mut self.way {
            ReadTransport::Polls(client) => client,
            ReadTransport::Events(stream) => &mut stream.client,
            ReadTransport::Socket(socket) => &mut socket.client,
        }
    }

    fn client(self) -> Client {
        match self.way {
            ReadTransport::Polls(client) => client,
            ReadTransport::Events(stream) => stream.client,
            ReadTransport::Socket(socket) => socket.client,
        }
    }
}

impl Transport {
    fn follow(self, server: &Server, from_id: u64) -> Follower {
        Follower::begin(self, server.client(), None, from_id, "")
    }

    fn follow_as(self, server: &Server, who: &Identity, from_id: u64) -> Follower {
        let before = server.readers("c");
        let follower = Follower::begin(self, server.client(), Some(who), from_id, "");
        server.wait_for_readers("c", before + 1);
        follower
    }
}

fn patient_with(options: &[&str]) -> Server {
    let patient = [
        "--connection-timeout",
        "1h",
        "--poll-timeout",
        "1h",
        "--heartbeat",
        "1h",
        "--history",
        "5000",
    ];
    Server::with(&[&patient, options].concat())
}

#[test]
fn joining_writing_and_leaving_is_seen_on_every_transport() {
    let server = patient_with(&[]);
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

#[test]
fn a_vanished_member_gets_its_goodbye_on_every_transport() {
    let server = patient_with(&[]);
    for transport in ALL {
        for how in ["FIN", "RST"] {
            let me = server.introduce("c", "Josh");
            let mut watchers = ALL.map(|transport| transport.follow(&server, me.id + 1));
            server.wait_for_readers("c", 4);
            let client = transport.follow_as(&server, &me, me.id + 1).client();
            if how == "RST" {
                client.reset();
            } else {
                drop(client);
            }
            for watcher in &mut watchers {
                let goodbye = watcher.next();
                assert_eq!(
                    (&goodbye["reason"], &goodbye["from"]),
                    (&"closed".into(), &me.number.into()),
                    "{how}"
                );
            }
            drop(watchers);
            server.wait_for_readers("c", 0);
        }
    }
}

#[test]
fn a_returning_reader_loses_nothing_and_sees_nothing_twice() {
    let server = patient_with(&[]);
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
            *follower =
                Follower::begin(next, server.client(), None, follower.next_id, &follower.epoch);
        }
    }
}

#[test]
fn all_readers_see_the_same_messages_in_the_same_order() {
    let server = patient_with(&[]);
    let mut followers: Vec<Follower> =
        (0..40).map(|place| ALL[place % 4].follow(&server, 1)).collect();
    // Writers of each kind, all at once.
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let mut socket = (writer % 2 == 0).then(|| server.socket(&[("channel", "elsewhere")]));
            let mut client = server.client();
            scope.spawn(move || {
                for line in 0..100 {
                    let text = format!("{writer} {line}");
                    if let Some(socket) = &mut socket {
                        socket.call(
                            &serde_json::json!({"call": "write", "channel": "c", "message": text}),
                        );
                    } else {
                        client.get("/write", &[("channel", "c"), ("message", &text)]).ok();
                    }
                }
            });
        }
        let first: Vec<Value> = (0..400).map(|_| followers[0].next()).collect();
        assert!(first.iter().map(|it| it["id"].as_u64()).eq((1..=400).map(Some)));
        for follower in &mut followers[1..] {
            for message in &first {
                assert_eq!(follower.next(), *message, "{:?}", follower.transport);
            }
        }
    });
}

/// Returns the memory of the server's process in KiB.
fn resident_kib(server: &Server) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{}/status", server.id())).expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its size");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

#[test]
fn a_slow_consumer_is_closed_without_affecting_others() {
    const OTHERS: usize = 1000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .expect("raising a soft limit");

    let server = patient_with(&["--max-backlog", "100k"]);
    let slow = STREAMS.map(|transport| {
        Follower::begin(transport, Client::connect_narrow(server.address()), None, 1, "")
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
        let (same_events, same_frame) = (others[0].raw(), others[1].raw());
        let start = format!("\"message\":\"{} x", written - 1);
        for bytes in [&same_events, &same_frame] {
            assert!(String::from_utf8_lossy(bytes).contains(&start), "{start}");
        }
        for (place, other) in others.iter_mut().enumerate().skip(2) {
            let expected = if place % 2 == 0 { &same_events } else { &same_frame };
            let came = other.client_mut().take_maybe(expected.len());
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
        let (next_id, epoch) = (slow.next_id, slow.epoch.clone());
        let mut back = Follower::begin(slow.transport, server.client(), None, next_id, &epoch);
        assert!(next_id < written, "it was not cut");
        for _ in next_id..=written {
            check(&back.next());
        }
    }
}

#[test]
fn memory_does_not_grow_with_slow_consumers() {
    let server = patient_with(&["--max-backlog", "1m", "--history", "10"]);
    let mut writer = server.client();
    let text = "x".repeat(60_000);
    let mut write = |count: usize| {
        for _ in 0..count {
            writer.post("/write?channel=c", "text/plain", &text).ok();
        }
    };
    write(50);
    let before = resident_kib(&server);
    // Each would need a megabyte of its own, but all share the same.
    let slow: Vec<Client> = (0..60)
        .map(|place| {
            Follower::begin(
                STREAMS[place % 2],
                Client::connect_narrow(server.address()),
                None,
                1_000_000,
                "",
            )
        })
        .map(Follower::client)
        .collect();
    server.wait_for_readers("c", 60);
    let mut most = before;
    until("they are cut", || {
        write(1);
        most = most.max(resident_kib(&server));
        server.readers("c") == 0
    });
    assert!(most < before + 16 * 1024, "from {before} to {most} KiB");
    drop(slow);
    write(10);
    let after = resident_kib(&server);
    assert!(after < before + 4 * 1024, "from {before} to {after} KiB");
}

#[test]
fn a_long_history_arrives_complete_while_messages_come() {
    for (transport, max_reply) in
        STREAMS.into_iter().flat_map(|transport| [(transport, "64m"), (transport, "500k")])
    {
        let server = patient_with(&["--max-reply", max_reply, "--max-backlog", "600k"]);
        let text = "x".repeat(60_000);
        let mut writer = server.client();
        let mut write = |number: usize| {
            writer.post("/write?channel=c", "text/plain", format!("{number} {text}")).ok();
        };
        (0..100).for_each(&mut write);
        let mut client = Client::connect_narrow(server.address());
        let params: &Params = &[("channel", "c"), ("from_id", "1")];
        // Its first response, or the first part of it, is in progress when a message comes.
        client.send(match transport {
            Transport::Socket => handshake(params, &[]),
            _ => request("GET", &target("/read", params), &[("Accept", "text/event-stream")], None),
        });
        until("it comes", || client.has_something());
        write(100);
        for _ in 0..20 {
            if transport == Transport::Socket {
                // Frames from the peer are no sign that it has read anything.
                client.send(masked(PONG, ""));
            }
            write(0);
        }
        let head = client.head();
        let way = if transport == Transport::Socket {
            ReadTransport::Socket(Socket { client, pings: 0 })
        } else {
            let mut stream = EventStream { client, head };
            stream.beginning();
            ReadTransport::Events(stream)
        };
        let (proof, epoch) = (String::new(), String::new());
        let mut follower = Follower { transport, way, proof, epoch, next_id: 1, came: Vec::new() };
        for number in (0..101).chain([0; 20]) {
            let message = follower.next();
            let text = message["message"].as_str().expect("a text");
            assert!(text.starts_with(&format!("{number} x")), "{transport:?} {number}: {text:.9}");
        }
    }
}

#[test]
fn a_stalled_stream_is_closed_after_two_heartbeats() {
    let server = Server::with(&[
        "--heartbeat",
        "80ms",
        "--max-backlog",
        "64m",
        "--connection-timeout",
        "1h",
    ]);
    let text = "x".repeat(60_000);
    for transport in STREAMS {
        let me = server.introduce("d", "Josh");
        let stuck =
            Follower::begin(transport, Client::connect_narrow(server.address()), Some(&me), 1, "");
        server.wait_for_readers("c", 1);
        let mut writer = server.client();
        for _ in 0..100 {
            writer.post("/write?channel=c", "text/plain", &text).ok();
        }
        server.wait_for_readers("c", 0);
        let goodbye =
            server.get("/read", &[("channel", "d"), ("from_id", &(me.id + 1).to_string())]).ok();
        assert_eq!(goodbye.events(), ["goodbye closed"], "{transport:?}");
        drop(stuck);
    }
}

#[test]
fn a_crowd_of_every_transport_comes_and_goes() {
    let server = patient_with(&[]);
    let before = resident_kib(&server);
    for _ in 0..3 {
        let crowd: Vec<Follower> =
            (0..300).map(|place| ALL[place % 4].follow(&server, 1)).collect();
        server.wait_for_readers("c", 300);
        drop(crowd);
        server.wait_for_readers("c", 0);
    }
    let after = resident_kib(&server);
    assert!(after < before + 2 * 1024, "from {before} to {after} KiB");
}

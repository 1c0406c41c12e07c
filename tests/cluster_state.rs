//! `--cluster`: the state of a node comes from Redis and stays there, whichever nodes end.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Identity, Server, until};
use minicbor::Decoder;
use rustix::process::Signal;
use speak::hub::{Command, SharedSettings};
use support::redis::{Redis, Value};

/// Text of which some 300 make a log that is worth a snapshot.
const LARGE_BYTES: usize = 60_000;
const LARGE_COUNT: usize = 300;

struct Cluster {
    redis: Redis,
}

impl Cluster {
    fn start() -> Self {
        Self { redis: Redis::start() }
    }

    /// Starts a node, and waits until it serves.
    fn node(&self, options: &[&str]) -> Server {
        let node = Server::with(&[&["--cluster", &self.redis.url()], options].concat());
        wait_until_ready(&node);
        node
    }

    /// Returns all records that are in the stream, as nodes with sequence numbers and commands.
    fn records(&self) -> Vec<(u64, u64, Vec<u8>)> {
        let Value::Array(entries) = self.redis.command(&["XRANGE", "{speak}:log", "-", "+"]) else {
            panic!("there is no stream");
        };
        let record = |entry: &Value| {
            let Value::Array(entry) = entry else { panic!("no entry") };
            let Value::Array(fields) = &entry[1] else { panic!("no fields") };
            let Value::Text(bytes) = &fields[1] else { panic!("no record") };
            let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            (number(0), number(8), bytes[16..].to_vec())
        };
        entries.iter().map(record).collect()
    }

    /// Counts the commands in the stream that are as `is_one` says.
    fn count(&self, is_one: impl Fn(&Command<'_>) -> bool) -> usize {
        let mut count = 0;
        for (_, _, commands) in self.records() {
            let mut decoder = Decoder::new(&commands);
            while decoder.position() < commands.len() {
                let command: Command<'_> = decoder.decode().expect("a command");
                count += usize::from(is_one(&command));
            }
        }
        count
    }

    fn number(&self, command: &[&str]) -> i64 {
        match self.redis.command(command) {
            Value::Int(number) => number,
            other => panic!("{command:?}: {other:?}"),
        }
    }

    fn snapshot_keys(&self) -> usize {
        match self.redis.command(&["KEYS", "{speak}:snapshot:*"]) {
            Value::Array(keys) => keys.len(),
            other => panic!("{other:?}"),
        }
    }

    /// Writes so much that a snapshot becomes the newest one.
    fn make_snapshot(&self, node: &Server, channel: &str) {
        let before = self.newest_id();
        node.fill(channel, &"x".repeat(LARGE_BYTES), LARGE_COUNT);
        until("there is a snapshot", || self.newest_id() != before);
    }

    /// Returns the id of the entry that describes the newest snapshot.
    fn newest_id(&self) -> Option<String> {
        let command = ["XREVRANGE", "{speak}:snapshots", "+", "-", "COUNT", "1"];
        let Value::Array(entries) = self.redis.command(&command) else { panic!("no array") };
        entries.first().map(|entry| match entry {
            Value::Array(entry) => entry[0].text(),
            _ => panic!("no entry"),
        })
    }

    /// Appends a record as a node would.
    fn append(&self, node: u64, sequence: u64, commands: &[Command<'_>]) {
        let mut record = [node.to_le_bytes(), sequence.to_le_bytes()].concat();
        for command in commands {
            minicbor::encode(command, &mut record).expect("a Vec takes all bytes");
        }
        let mut request = b"*5\r\n".to_vec();
        for argument in [b"XADD".as_slice(), b"{speak}:log", b"*", b"r", &record] {
            request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            request.extend_from_slice(argument);
            request.extend_from_slice(b"\r\n");
        }
        let mut stream = TcpStream::connect(self.redis.address()).expect("a running server");
        stream.write_all(&request).expect("it takes the command");
        let mut kind = [0];
        stream.read_exact(&mut kind).expect("a reply");
        assert_eq!(&kind, b"$", "an error");
    }
}

fn wait_until_ready(node: &Server) {
    until("the node serves", || node.get("/health", &[]).status == 200);
}

/// Returns the only goodbyes in a channel, as the reasons.
fn goodbyes(node: &Server, channel: &str) -> Vec<String> {
    let answer = node.read(channel, "0").json();
    let messages = answer["messages"].as_array().expect("messages").clone();
    let reasons = messages.iter().filter_map(|message| message["reason"].as_str());
    reasons.map(ToOwned::to_owned).collect()
}

fn says(node: &Server, me: &Identity, text: &str) -> u64 {
    let answer = node.call_as(me, "/write", "room", text).json();
    answer["id"].as_u64().expect("an id")
}

#[test]
fn a_snapshot_shortens_the_stream_and_a_node_begins_with_it() {
    let cluster = Cluster::start();
    let options = ["--connection-timeout", "1h", "--history", "50"];
    let first = cluster.node(&options);
    let josh = first.introduce("room", "Josh");
    says(&first, &josh, "before");
    cluster.make_snapshot(&first, "large");
    assert!(cluster.number(&["XLEN", "{speak}:log"]) < 100, "it was trimmed");
    assert_eq!(cluster.snapshot_keys(), 1);
    assert_eq!(cluster.number(&["EXISTS", "{speak}:lock"]), 0);

    let second = cluster.node(&options);
    until("it tells of the state", || second.logged("loaded state") == 1);
    let of = |node: &Server| node.read("room", "0").json();
    assert_eq!(of(&second), of(&first));
    assert_eq!(second.read("large", "0").ids(), first.read("large", "0").ids());
    assert_eq!(second.members("room")["members"], first.members("room")["members"]);
    assert_eq!(says(&second, &josh, "after"), 3);
    assert_eq!(first.read("room", "3").texts(), ["after"]);
    assert_eq!(second.introduce("room", "Ann").number, josh.number + 1);

    // The next one replaces it, by whichever node.
    cluster.make_snapshot(&second, "large");
    cluster.make_snapshot(&first, "other");
    assert_eq!(cluster.snapshot_keys(), 1);
    assert_eq!(cluster.number(&["XLEN", "{speak}:snapshots"]), 1);
    let third = cluster.node(&options);
    assert_eq!(of(&third), of(&first));
    assert_eq!(third.read("large", "0").ids(), first.read("large", "0").ids());
    assert_eq!(first.logged("different states") + second.logged("different states"), 0);
}

#[test]
fn all_is_there_after_the_death_of_all_nodes() {
    let cluster = Cluster::start();
    let options = ["--connection-timeout", "2s"];
    let mut nodes = [cluster.node(&options), cluster.node(&options)];
    let josh = nodes[0].introduce("room", "Josh");
    cluster.make_snapshot(&nodes[1], "large");
    let ann = nodes[1].introduce("room", "Ann");
    let before = nodes[0].read("room", "0").json();
    for node in &mut nodes {
        node.signal(Signal::KILL);
        node.forget();
        node.wait();
    }
    let node = cluster.node(&options);
    assert_eq!(node.read("room", "0").json(), before);
    // Both have an heir as soon as the nodes are buried. One of them comes back.
    until("the other one times out", || {
        let _ = says(&node, &ann, "still here");
        !goodbyes(&node, "room").is_empty()
    });
    assert_eq!(goodbyes(&node, "room"), ["timeout"]);
    node.get("/write", &josh.and(&[("channel", "room"), ("message", "late")]))
        .fails_with(410, "connection_ended");
}

#[test]
fn a_redis_that_is_emptied_gets_the_state_as_a_snapshot() {
    let mut cluster = Cluster::start();
    let options = ["--connection-timeout", "1h", "--history", "50"];
    let (first, second) = (cluster.node(&options), cluster.node(&options));
    let josh = first.introduce("room", "Josh");
    cluster.make_snapshot(&first, "large");
    for restarts in [false, true] {
        let before = second.read("room", "0").json();
        if restarts {
            cluster.redis.restart();
        } else {
            cluster.redis.command(&["FLUSHALL"]);
        }
        // The records before the last ones are gone, and so is the snapshot.
        let mut third = cluster.node(&options);
        until("it tells of the state", || third.logged("loaded state") == 1);
        assert_eq!(third.read("room", "0").json(), before);
        assert_eq!(third.read("large", "0").ids(), first.read("large", "0").ids());
        says(&third, &josh, "there");
        assert_eq!(first.read("room", "0").json(), third.read("room", "0").json());
        third.stop();
    }
    assert!(goodbyes(&first, "room").is_empty());
    assert_eq!(first.logged("different states") + second.logged("different states"), 0);
}

#[test]
fn a_redis_that_is_older_than_all_kept_records_gets_the_state_as_a_snapshot() {
    let mut cluster = Cluster::start();
    let options = ["--connection-timeout", "1h", "--history", "50"];
    let nodes = [cluster.node(&options), cluster.node(&options)];
    let josh = nodes[0].introduce("room", "Josh");
    cluster.redis.command(&["SAVE"]);
    // A node keeps 8 MiB of records.
    nodes[1].fill("large", &"x".repeat(LARGE_BYTES), 200);
    says(&nodes[1], &josh, "late");
    let before = nodes[1].read("room", "0").json();
    cluster.redis.restart();
    // It begins with the snapshot: the records before it are lost.
    let third = cluster.node(&options);
    until("it tells of the state", || third.logged("loaded state") == 1);
    assert_eq!(third.read("room", "0").json(), before, "also the epoch is the same");
    assert_eq!(third.read("large", "0").ids(), nodes[0].read("large", "0").ids());
    assert_eq!(says(&third, &josh, "there"), 3);
    for node in &nodes {
        assert_eq!(node.read("room", "0").json(), third.read("room", "0").json());
        assert_eq!(node.logged("different states"), 0);
    }
}

#[test]
fn a_node_that_the_log_has_outrun_loads_the_state() {
    let cluster = Cluster::start();
    let options = ["--connection-timeout", "1h", "--poll-timeout", "1h"];
    let (first, second) = (cluster.node(&options), cluster.node(&options));
    let josh = first.introduce("room", "Josh");
    let mut poll = second.park(&[("channel", "room"), ("from_id", "2")]);
    let mut events = second.events(&[("channel", "room"), ("from_id", "2")]);
    second.wait_for_readers("room", 2);
    second.signal(Signal::STOP);
    // Until the other node is buried, its records stay.
    cluster.make_snapshot(&first, "large");
    says(&first, &josh, "meanwhile");
    second.signal(Signal::CONT);
    assert!(poll.response().ok().ids().is_empty());
    events.ends();
    until("it has the state", || second.logged("loaded state") == 1);
    wait_until_ready(&second);
    assert_eq!(second.read("room", "0").json(), first.read("room", "0").json());
    assert_eq!(says(&second, &josh, "there"), 3);
    assert_eq!(first.read("room", "3").texts(), ["there"]);
    assert!(goodbyes(&first, "room").is_empty());
}

#[test]
fn a_node_with_another_state_than_the_others_loads_it_again() {
    let cluster = Cluster::start();
    let url = cluster.redis.url();
    let options = ["--cluster", &url, "--connection-timeout", "1h", "--poll-timeout", "1h"];
    let node = Server::watched(&options);
    wait_until_ready(&node);
    let has_count = |count: u8| {
        let page = node.operator().get("/metrics", &[]).ok();
        page.text().contains(&format!("\nspeak_log_reloads_total {count}\n"))
    };
    assert!(has_count(0));
    let josh = node.introduce("room", "Josh");
    let mut poll = node.park(&[("channel", "room"), ("from_id", "2")]);
    let settings =
        SharedSettings { history: 100, retention_ms: 3_600_000, session_timeout_ms: 3_600_000 };
    cluster.append(1, 1, &[Command::Join { settings }]);
    // All positions that there are, with a hash that none has.
    let heartbeats =
        (1..200).map(|position| Command::Heartbeat { position, hash: 1, readers: Vec::new() });
    until("it says so", || {
        let heartbeats: Vec<_> = heartbeats.clone().collect();
        cluster.append(1, 2, &heartbeats);
        node.logged("different states") == 1
    });
    assert!(poll.response().ok().ids().is_empty());
    wait_until_ready(&node);
    assert!(has_count(1));
    assert_eq!(says(&node, &josh, "howdy"), 2);
    assert_eq!(node.members("room")["members"][0]["message"], "Josh");
}

#[test]
fn a_node_that_stops_hands_its_connections_over() {
    let cluster = Cluster::start();
    let options = ["--connection-timeout", "1s"];
    let mut first = cluster.node(&options);
    let second = cluster.node(&options);
    let _josh = first.introduce("room", "Josh");
    let ann = first.introduce("room", "Ann");
    first.stop();
    let has_heir = |command: &Command<'_>| matches!(command, Command::Part { heir: Some(_) });
    assert_eq!(cluster.count(has_heir), 1);
    until("one of them times out", || {
        let _ = says(&second, &ann, "still here");
        !goodbyes(&second, "room").is_empty()
    });
    assert_eq!(goodbyes(&second, "room"), ["timeout"]);
    assert_eq!(cluster.count(|command| matches!(command, Command::Bury { .. })), 0);
}

#[test]
fn the_last_node_that_stops_leaves_its_connections_to_the_next() {
    let cluster = Cluster::start();
    let options = ["--connection-timeout", "1s"];
    let mut node = cluster.node(&options);
    let _josh = node.introduce("room", "Josh");
    node.stop();
    let node = cluster.node(&options);
    until("the connection times out", || !goodbyes(&node, "room").is_empty());
    assert_eq!(goodbyes(&node, "room"), ["timeout"]);
}

#[test]
fn no_client_notices_an_upgrade_of_a_node() {
    let cluster = Cluster::start();
    let options = ["--connection-timeout", "3s", "--poll-timeout", "1h"];
    let mut first = cluster.node(&options);
    let second = cluster.node(&options);
    let josh = first.introduce("room", "Josh");
    let mut idle = first.client();
    idle.get("/health", &[]).ok();
    let mut next = 2;
    for from_id in ["1", "2", "3"] {
        let mut waiting = first.park(&josh.and(&[("channel", "elsewhere"), ("from_id", from_id)]));
        second.wait_for_readers("elsewhere", 1);
        first.upgrade();
        assert!(waiting.response().ok().ids().is_empty());
        waiting.send_get("/read", &josh.and(&[("channel", "elsewhere"), ("from_id", from_id)]));
        second.wait_for_readers("elsewhere", 1);
        second.write("elsewhere", "howdy");
        assert_eq!(waiting.response().ok().texts(), ["howdy"]);
        assert_eq!(says(&second, &josh, "over there"), next);
        assert_eq!(says(&first, &josh, "and here"), next + 1);
        idle.get("/write", &[("channel", "room"), ("message", "idle")]).ok();
        next += 3;
    }
    assert_eq!(first.read("room", "0").json(), second.read("room", "0").json());
    assert!(goodbyes(&second, "room").is_empty());
    // It is the same node all the time.
    assert_eq!(cluster.count(|command| matches!(command, Command::Join { .. })), 2);
    assert_eq!(cluster.count(|command| matches!(command, Command::Bury { .. })), 0);
    first.stop();
}

#[test]
fn a_client_that_wanders_costs_one_hold_for_each_node() {
    let cluster = Cluster::start();
    let options = ["--connection-timeout", "1h"];
    let nodes = [cluster.node(&options), cluster.node(&options), cluster.node(&options)];
    let josh = nodes[0].introduce("room", "Josh");
    for round in 0..20 {
        let params = josh.and(&[("channel", "room"), ("from_id", "0"), ("timeout", "0")]);
        nodes[round % 3].get("/read", &params).ok();
    }
    for round in 0..20 {
        says(&nodes[round % 3], &josh, "howdy");
    }
    // The first node holds it since the introduction.
    let is_hold = |command: &Command<'_>| matches!(command, Command::Hold { .. });
    assert_eq!(cluster.count(is_hold), 2);
    let is_release = |command: &Command<'_>| matches!(command, Command::Release { .. });
    assert_eq!(cluster.count(is_release), 0);
}

//! `--cluster`: what clients see when Redis is away, slow, full, emptied or another one.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, EventStream, Finished, Server, command, run, until};
use rustix::process::{Signal, kill_process};
use serde_json::Value as Json;
use support::redis::Redis;

/// A TCP proxy in front of Redis, which fails as networks do.
struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    links: Arc<Mutex<Vec<Link>>>,
}

/// A connection through the proxy.
struct Link {
    /// Bytes are taken, and go nowhere.
    is_stalled: Arc<AtomicBool>,
    client: TcpStream,
}

impl Proxy {
    fn start(target: SocketAddr) -> Self {
        Self::far_away(target, Duration::ZERO)
    }

    /// All bytes take `delay`, in both directions.
    fn far_away(target: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let proxy = Self { address, target: Arc::new(Mutex::new(target)), links: Arc::default() };
        let (target, links) = (Arc::clone(&proxy.target), Arc::clone(&proxy.links));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let target = *target.lock().expect("no panic");
                let Ok(server) = TcpStream::connect(target) else { continue };
                let is_stalled = Arc::new(AtomicBool::new(false));
                forward(&client, &server, &is_stalled, delay);
                forward(&server, &client, &is_stalled, delay);
                links.lock().expect("no panic").push(Link { is_stalled, client });
            }
        });
        proxy
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Makes all connections look as if they were alive.
    fn stall(&self) {
        for link in &*self.links.lock().expect("no panic") {
            link.is_stalled.store(true, Ordering::Relaxed);
        }
    }

    /// Ends all connections. New ones lead to another server.
    fn switch_to(&self, target: SocketAddr) {
        *self.target.lock().expect("no panic") = target;
        for link in self.links.lock().expect("no panic").drain(..) {
            // Fails if it has ended already.
            let _ = link.client.shutdown(Shutdown::Both);
        }
    }
}

/// Copies what comes from one end to the other one, until either ends.
fn forward(from: &TcpStream, to: &TcpStream, is_stalled: &Arc<AtomicBool>, delay: Duration) {
    let mut from = from.try_clone().expect("a second handle");
    let mut to = to.try_clone().expect("a second handle");
    let is_stalled = Arc::clone(is_stalled);
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (arrives_at, bytes) in receiver {
            thread::sleep(arrives_at.saturating_duration_since(Instant::now()));
            if !is_stalled.load(Ordering::Relaxed) && to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// Nodes and the Redis that they share.
struct Cluster {
    // Dropped first: nodes without a Redis log errors.
    nodes: Vec<Server>,
    redis: Redis,
}

fn start_node(url: &str, options: &[&str]) -> Server {
    let node = Server::with(&[&["--cluster", url], options].concat());
    wait_until_joined(&node);
    node
}

fn wait_until_joined(node: &Server) {
    let params = [("channel", "lobby"), ("timeout", "0")];
    until("the node has joined", || node.get("/read", &params).status == 200);
}

impl Cluster {
    fn start(count: usize) -> Self {
        Self::with(Redis::start(), count, &[])
    }

    fn with(redis: Redis, count: usize, options: &[&str]) -> Self {
        redis.promise_no_nodes();
        let nodes = (0..count).map(|_| start_node(&redis.url(), options)).collect();
        Self { nodes, redis }
    }

    fn epoch(&self, node: usize) -> Json {
        self.nodes[node].read("lobby", "0").json()["epoch"].clone()
    }

    /// Waits until a node says this.
    #[track_caller]
    fn wait_for(&self, node: usize, text: &str) {
        until(&format!("node {node} logs {text:?}"), || self.nodes[node].logged(text) > 0);
    }

    /// Writes until the log takes it, and returns the id.
    #[track_caller]
    fn write_in_time(&self, node: usize, channel: &str, text: &str) -> u64 {
        let mut id = None;
        until("a write succeeds", || {
            let params = [("channel", channel), ("message", text)];
            let answer = self.nodes[node].get("/write", &params);
            id = (answer.status == 200).then(|| answer.json()["id"].as_u64().expect("an id"));
            id.is_some()
        });
        id.expect("it succeeded")
    }

    /// Claims that all nodes have these messages, under these ids, and one epoch.
    #[track_caller]
    fn agree_on(&self, channel: &str, expected: &[(u64, &str)]) {
        for node in &self.nodes {
            let messages = node.read(channel, "0").messages();
            let got: Vec<_> =
                messages.iter().map(|it| (it["id"].as_u64(), &it["message"])).collect();
            let expected: Vec<_> =
                expected.iter().map(|(id, text)| (Some(*id), Json::from(*text))).collect();
            let expected: Vec<_> = expected.iter().map(|(id, text)| (*id, text)).collect();
            assert_eq!(got, expected);
        }
        let epochs: Vec<_> = (0..self.nodes.len()).map(|node| self.epoch(node)).collect();
        assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
    }
}

/// Starts a node that has to fail.
fn fail_to_start(url: &str) -> Finished {
    let mut node = command();
    node.args(["--listen", "127.0.0.1:0", "--cluster", url]);
    run(node)
}

fn long_poll(node: &Server, channel: &str, from_id: &str) -> Client {
    node.park(&[("channel", channel), ("from_id", from_id)])
}

#[test]
fn a_redis_that_drops_keys_is_refused_at_the_start() {
    let redis = Redis::with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let finished = fail_to_start(&redis.url());
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("set its maxmemory-policy to noeviction"), "{finished:?}");
}

#[test]
fn a_wrong_password_ends_the_start_and_is_waited_out_later() {
    let redis = Redis::start();
    redis.promise_no_nodes();
    let mut client = redis.client();
    client.command(&["CONFIG", "SET", "requirepass", "right"]);
    client.command(&["AUTH", "right"]);
    let url = |password: &str| redis.url().replace("redis://", &format!("redis://:{password}@"));
    let finished = fail_to_start(&url("wrong"));
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("refuses the user or the password"), "{finished:?}");
    assert!(!finished.stderr.contains(":wrong@"), "{finished:?}");

    let node = start_node(&url("right"), &[]);
    node.write("room", "before");
    client.command(&["CONFIG", "SET", "requirepass", "other"]);
    client.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    until("the node is told", || node.logged("refuses the user or the password") > 0);
    client.command(&["CONFIG", "SET", "requirepass", "right"]);
    let params = [("channel", "room"), ("message", "after")];
    until("it goes on", || node.get("/write", &params).status == 200);
    assert_eq!(node.read("room", "0").texts()[0], "before");
}

#[test]
fn the_documented_rules_of_an_acl_are_enough() {
    let redis = Redis::start();
    redis.promise_no_nodes();
    let rules = [
        "ACL",
        "SETUSER",
        "speak",
        "on",
        ">secret",
        "~{speak}:*",
        "resetchannels",
        "+info",
        "+time",
        "+select",
        "+client|setname",
        "+xadd",
        "+xread",
        "+xrange",
        "+xrevrange",
        "+xtrim",
        "+get",
        "+set",
        "+hset",
        "+hget",
        "+hgetall",
        "+hlen",
        "+del",
        "+unlink",
        "+pexpire",
        "+persist",
        "+watch",
        "+unwatch",
        "+multi",
        "+exec",
    ];
    assert_eq!(redis.command(&rules).text(), "OK");
    let url = redis.url().replace("redis://", "redis://speak:secret@");
    let nodes = [0, 1].map(|_| start_node(&url, &[]));
    nodes[0].write("room", "howdy");
    assert_eq!(nodes[1].read("room", "0").texts(), ["howdy"]);
    // All of a round of vouches is permitted as well.
    redis.command(&["FLUSHALL"]);
    until("the log is whole again", || nodes[0].logged("the log goes on") > 0);
    assert_eq!(nodes[0].write("room", "again"), 2);
    assert_eq!(nodes[1].read("room", "0").texts(), ["howdy", "again"]);
    // And so is all of a snapshot.
    nodes[0].fill("large", &"x".repeat(60_000), 300);
    until("there is a snapshot", || {
        nodes.iter().any(|node| node.logged("cluster snapshot complete") > 0)
    });
    let third = start_node(&url, &[]);
    assert_eq!(third.read("room", "0").texts(), ["howdy", "again"]);
    for node in &nodes {
        assert_eq!(node.logged("ACL"), 0, "{:?}", node.log());
    }
}

#[test]
fn a_redis_that_is_away_for_a_moment_is_not_noticed() {
    let cluster = Cluster::start(2);
    let [one, other] = &cluster.nodes[..] else { unreachable!("two were started") };
    let epoch = cluster.epoch(0);
    one.write("room", "first");
    let mut waiting = long_poll(other, "room", "2");
    let mut stream = EventStream::open(one.client(), &[("channel", "room")], &[]);
    stream.beginning();
    // All connections end: what was on its way may have arrived or not.
    for _ in 0..3 {
        cluster.redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    assert_eq!(one.write("room", "second"), 2);
    assert_eq!(waiting.response().ok().texts(), ["second"]);
    assert_eq!(stream.texts(1), ["second"]);
    cluster.agree_on("room", &[(1, "first"), (2, "second")]);
    assert_eq!(cluster.epoch(1), epoch);
}

#[test]
fn while_redis_is_stopped_reads_are_answered_and_writes_refused_and_then_all_goes_on() {
    let cluster = Cluster::with(Redis::start(), 2, &["--connection-timeout", "4s"]);
    let [one, other] = &cluster.nodes[..] else { unreachable!("two were started") };
    let josh = one.introduce("room", "Josh");
    let mut waiting = long_poll(other, "room", "2");
    cluster.redis.signal(Signal::STOP);
    // It is sent, so the outcome is unknown.
    let target = |text: &str| format!("/write?channel=room&message={text}");
    let mut client = one.client();
    client.send(common::request("GET", &target("perhaps"), &[], None));
    let read = other.read("room", "1");
    assert_eq!(read.texts(), ["Josh"]);
    client.response().fails_with(503, "outcome_unknown");
    // The connections are gone by now, or full of what has no reply.
    until("a write is refused", || {
        let refused = one.get("/write", &[("channel", "room"), ("message", "never")]);
        assert_eq!(refused.status, 503, "{refused:?}");
        refused.json()["error"] == "over_capacity" && refused.header("retry-after").is_some()
    });
    assert!(!waiting.has_something(), "a read that waits goes on waiting");
    // Longer than the timeout of connections.
    thread::sleep(Duration::from_secs(2));
    cluster.redis.signal(Signal::CONT);
    let event = waiting.response().ok().json();
    assert_eq!(event["messages"][0]["message"], "perhaps", "{event}");
    cluster.write_in_time(0, "room", "after");
    let after = one.call_as(&josh, "/write", "room", "still here").json();
    let texts = other.read("room", "0").texts();
    assert_eq!(texts, ["Josh", "perhaps", "after", "still here"], "{after}");
    assert_eq!(cluster.epoch(0), cluster.epoch(1));
    // Neither node took the other one for dead, and its client is said goodbye to in time.
    until("the timeout runs again", || other.read("room", "0").text().contains("goodbye"));
    let texts = one.read("room", "0").events();
    assert_eq!(texts.iter().filter(|it| it.contains("goodbye")).count(), 1, "{texts:?}");
}

/// A read that moves to another node while the log does not respond waits there all the same.
#[test]
fn a_read_that_moves_to_another_node_meanwhile_keeps_its_connection() {
    let cluster = Cluster::with(Redis::start(), 2, &["--connection-timeout", "3s"]);
    let [one, other] = &cluster.nodes[..] else { unreachable!("two were started") };
    let josh = one.introduce("room", "Josh");
    cluster.redis.signal(Signal::STOP);
    let immediate = josh.and(&[("channel", "room"), ("from_id", "1"), ("timeout", "0")]);
    assert_eq!(other.get("/read", &immediate).ok().texts(), ["Josh"]);
    let mut waiting = other.client();
    waiting.send_get("/read", &josh.and(&[("channel", "room"), ("from_id", "2")]));
    until("writes are refused", || {
        let answer = other.get("/write", &[("channel", "other"), ("message", "never")]);
        answer.status == 503 && answer.json()["error"] == "over_capacity"
    });
    // The read has given up waiting for the log by now.
    let read = other.get("/read", &immediate).ok();
    assert_eq!(read.texts(), ["Josh"]);
    cluster.redis.signal(Signal::CONT);
    cluster.write_in_time(0, "lobby", "it responds again");
    // More than twice the timeout.
    thread::sleep(Duration::from_secs(7));
    one.write("room", "still here?");
    let answer = waiting.response().ok();
    assert_eq!(answer.events(), ["message"], "{answer:?}");
    other.call_as(&josh, "/write", "room", "yes");
}

/// A script, or a slow disk, stops the one thread of Redis in the same way.
#[test]
fn a_pause_of_clients_and_one_of_redis_pass_unnoticed() {
    let cluster = Cluster::start(2);
    let epoch = cluster.epoch(0);
    cluster.redis.command(&["CLIENT", "PAUSE", "1500", "ALL"]);
    assert_eq!(cluster.nodes[0].write("room", "one"), 1);
    cluster.redis.signal(Signal::STOP);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(1_500));
            cluster.redis.signal(Signal::CONT);
        });
        assert_eq!(cluster.nodes[1].write("room", "two"), 2);
    });
    cluster.agree_on("room", &[(1, "one"), (2, "two")]);
    assert_eq!(cluster.epoch(1), epoch);
}

#[test]
fn a_redis_whose_memory_is_full_refuses_writes_and_recovers() {
    let cluster = Cluster::start(2);
    let [one, other] = &cluster.nodes[..] else { unreachable!("two were started") };
    let josh = one.introduce("room", "Josh");
    cluster.redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = one.get("/write", &[("channel", "room"), ("message", "never")]);
    refused.fails_with(503, "over_capacity");
    assert!(refused.text().contains("the log is full"), "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(other.read("room", "1").texts(), ["Josh"]);
    cluster.wait_for(0, "its memory is full");
    cluster.redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let id = cluster.write_in_time(1, "room", "after");
    assert_eq!(id, 2);
    one.call_as(&josh, "/write", "room", "here");
    cluster.agree_on("room", &[(1, "Josh"), (2, "after"), (3, "here")]);
}

#[test]
fn a_redis_that_is_emptied_gets_the_log_again() {
    let cluster = Cluster::start(3);
    let epoch = cluster.epoch(0);
    cluster.nodes[0].write("room", "first");
    cluster.nodes[1].write("room", "second");
    let mut waiting = long_poll(&cluster.nodes[2], "room", "3");
    cluster.redis.command(&["FLUSHALL"]);
    assert_eq!(cluster.nodes[1].write("room", "third"), 3);
    assert_eq!(waiting.response().ok().texts(), ["third"]);
    let texts = [(1, "first"), (2, "second"), (3, "third")];
    cluster.agree_on("room", &texts);
    assert_eq!(cluster.epoch(2), epoch);
    // A node that starts reads what was appended again.
    let late = start_node(&cluster.redis.url(), &[]);
    assert_eq!(late.read("room", "0").texts(), ["first", "second", "third"]);
    assert_eq!(late.read("room", "0").json()["epoch"], epoch);
}

#[test]
fn a_redis_that_comes_back_empty_gets_the_log_again() {
    let mut cluster = Cluster::start(2);
    let epoch = cluster.epoch(0);
    let josh = cluster.nodes[0].introduce("room", "Josh");
    let mut waiting = long_poll(&cluster.nodes[1], "room", "2");
    for round in 1..=2 {
        cluster.redis.restart();
        let text = format!("after {round}");
        let id = cluster.write_in_time(0, "room", &text);
        assert_eq!(id, 1 + round);
        assert_eq!(cluster.nodes[1].read("room", &id.to_string()).texts(), [text]);
    }
    assert_eq!(waiting.response().ok().texts(), ["after 1"]);
    cluster.nodes[1].call_as(&josh, "/write", "room", "elsewhere");
    let texts = [(1, "Josh"), (2, "after 1"), (3, "after 2"), (4, "elsewhere")];
    cluster.agree_on("room", &texts);
    assert_eq!(cluster.epoch(1), epoch);
}

#[test]
fn a_redis_that_keeps_its_data_comes_back_with_the_log() {
    let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut cluster = Cluster::with(redis, 2, &[]);
    let epoch = cluster.epoch(0);
    cluster.nodes[0].write("room", "first");
    cluster.redis.restart();
    assert_eq!(cluster.write_in_time(1, "room", "second"), 2);
    cluster.agree_on("room", &[(1, "first"), (2, "second")]);
    assert_eq!(cluster.epoch(0), epoch);
}

#[test]
fn an_upgrade_of_a_node_waits_for_redis() {
    let mut cluster = Cluster::start(2);
    cluster.nodes[0].write("room", "before");
    cluster.redis.kill();
    let node = &cluster.nodes[0];
    let mut waiting = node.client();
    waiting.send_get("/write", &[("channel", "room"), ("message", "meanwhile")]);
    node.signal(Signal::USR2);
    until("the new process is there", || node.logged("upgrade waits for Redis") == 1);
    // One that ends meanwhile makes way for another one at once.
    kill_process(node.successors()[0], Signal::KILL).expect("it waits");
    until("the end is noticed", || node.logged("the new process has ended") == 1);
    node.signal(Signal::USR2);
    until("the new process is there", || node.logged("upgrade waits for Redis") == 2);
    cluster.redis.restart();
    let node = &mut cluster.nodes[0];
    assert_eq!(waiting.response().ok().json()["id"], 2);
    node.wait_for_upgrades(1);
    node.adopt_successor();
    assert_eq!(cluster.write_in_time(0, "room", "after"), 3);
    cluster.agree_on("room", &[(1, "before"), (2, "meanwhile"), (3, "after")]);
}

#[test]
fn a_node_that_does_not_vouch_makes_readers_begin_again() {
    let mut cluster = Cluster::start(3);
    let epoch = cluster.epoch(0);
    for node in &cluster.nodes {
        node.write("room", "text");
    }
    let mut waiting = long_poll(&cluster.nodes[0], "room", "4");
    let mut beginner = long_poll(&cluster.nodes[0], "other", "0");
    let mut stream =
        EventStream::open(cluster.nodes[1].client(), &[("channel", "room"), ("from_id", "3")], &[]);
    stream.beginning();
    assert_eq!(stream.texts(1), ["text"]);
    // The node knew something that Redis has lost, as far as the others know.
    let mut dead = cluster.nodes.pop().expect("three were started");
    dead.signal(Signal::KILL);
    dead.forget();
    dead.wait();
    cluster.redis.restart();
    let answer = waiting.response().ok();
    assert!(answer.is("reset"), "{answer:?}");
    assert_eq!(answer.ids(), [1, 2, 3]);
    assert_ne!(answer.json()["epoch"], epoch);
    let event = stream.event();
    assert_eq!(event.kind.as_deref(), Some("reset"), "{event:?}");
    assert_eq!(stream.messages(3).len(), 3);
    assert!(!beginner.has_something(), "a read that knows no id goes on waiting");
    assert_eq!(cluster.write_in_time(1, "room", "after"), 4);
    cluster.agree_on("room", &[(1, "text"), (2, "text"), (3, "text"), (4, "after")]);
    // The old ids are those of another numbering.
    let node = &cluster.nodes[0];
    let epoch = epoch.as_str().expect("an epoch");
    let params = [("channel", "room"), ("from_id", "4"), ("timeout", "0"), ("epoch", epoch)];
    assert!(node.get("/read", &params).ok().is("reset"));
    node.write("other", "first");
    assert!(!beginner.response().ok().is("reset"));
}

#[test]
fn a_node_that_was_stopped_meanwhile_loads_the_log_of_the_others() {
    let cluster = Cluster::start(2);
    let epoch = cluster.epoch(0);
    cluster.nodes[0].write("room", "first");
    assert_eq!(cluster.nodes[1].read("room", "0").texts(), ["first"]);
    cluster.nodes[1].signal(Signal::STOP);
    cluster.redis.command(&["FLUSHALL"]);
    assert_eq!(cluster.write_in_time(0, "room", "second"), 2);
    let reset = cluster.epoch(0);
    assert_ne!(reset, epoch, "the stopped node may have told its readers more");
    cluster.nodes[1].signal(Signal::CONT);
    cluster.agree_on("room", &[(1, "first"), (2, "second")]);
}

/// The others have taken it for dead, and its connection has timed out at another node.
#[test]
fn a_node_that_was_stopped_knows_that_a_connection_has_ended_before_it_answers() {
    let cluster = Cluster::with(Redis::start(), 2, &["--connection-timeout", "1s"]);
    let [one, other] = &cluster.nodes[..] else { unreachable!("two were started") };
    let josh = one.introduce("room", "Josh");
    one.signal(Signal::STOP);
    until("the timeout is over", || other.read("room", "0").text().contains("goodbye"));
    let mut late = one.client();
    late.send_get("/read", &josh.and(&[("channel", "room"), ("from_id", "2")]));
    one.signal(Signal::CONT);
    let answer = late.response();
    assert!([410, 503].contains(&answer.status), "{answer:?}");
}

#[test]
fn connections_time_out_however_far_away_redis_is() {
    let redis = Redis::start();
    redis.promise_no_nodes();
    let proxy = Proxy::far_away(redis.address(), Duration::from_millis(300));
    let node = start_node(&proxy.url(), &["--connection-timeout", "1s"]);
    node.introduce("room", "Josh");
    until("the timeout is over", || node.read("room", "0").text().contains("goodbye"));
}

#[test]
fn a_connection_that_is_dead_without_a_word_is_replaced() {
    let redis = Redis::start();
    redis.promise_no_nodes();
    let proxy = Proxy::start(redis.address());
    let node = start_node(&proxy.url(), &[]);
    let other = start_node(&redis.url(), &[]);
    let epoch = node.read("room", "0").json()["epoch"].clone();
    node.write("room", "first");
    proxy.stall();
    // Sent on a connection that is dead, and again on another one.
    node.write("room", "second");
    let read = other.read("room", "0");
    assert_eq!(read.texts(), ["first", "second"], "once");
    assert_eq!(read.json()["epoch"], epoch);
    // The other connection is replaced as well.
    other.write("room", "third");
    until("the record arrives", || node.read("room", "0").texts().len() == 3);
}

/// A failover to a replica that lacks the last records.
#[test]
fn records_that_a_new_primary_lacks_are_appended_again() {
    let old = Redis::start();
    old.promise_no_nodes();
    let new = old.replica();
    let proxy = Proxy::start(old.address());
    let nodes = [0, 1].map(|_| start_node(&proxy.url(), &[]));
    let epoch = nodes[0].read("room", "0").json()["epoch"].clone();
    let josh = nodes[0].introduce("room", "Josh");
    new.wait_for("the introduction", |_| {
        new.command(&["XLEN", "{speak}:log"]) == old.command(&["XLEN", "{speak}:log"])
    });
    new.command(&["REPLICAOF", "NO", "ONE"]);
    nodes[0].call_as(&josh, "/write", "room", "acknowledged");
    nodes[1].write("room", "and seen");
    let mut waiting = long_poll(&nodes[1], "room", "4");
    proxy.switch_to(new.address());
    let params = [("channel", "room"), ("message", "after")];
    until("a write succeeds", || nodes[0].get("/write", &params).status == 200);
    assert_eq!(waiting.response().ok().texts()[0], "after");
    for node in &nodes {
        let read = node.read("room", "0");
        assert_eq!(read.texts()[..4], ["Josh", "acknowledged", "and seen", "after"]);
        assert_eq!(read.json()["epoch"], epoch);
    }
    let late = start_node(&new.url(), &[]);
    assert_eq!(late.read("room", "0").text(), nodes[0].read("room", "0").text());
}

#[test]
fn a_primary_that_dies_is_replaced_by_the_one_of_the_sentinels() {
    let mut primary = Redis::start();
    primary.promise_no_nodes();
    let replica = primary.replica();
    let sentinel = primary.sentinel("speak", 1);
    let url = format!("redis-sentinel://{}/speak", sentinel.address());
    let nodes = [0, 1].map(|_| start_node(&url, &[]));
    let epoch = nodes[0].read("room", "0").json()["epoch"].clone();
    nodes[0].write("room", "before");
    let mut waiting = long_poll(&nodes[1], "room", "2");
    primary.kill();
    let params = [("channel", "room"), ("message", "after")];
    until("a write succeeds", || nodes[0].get("/write", &params).status == 200);
    let answer = waiting.response().ok();
    assert_eq!((answer.ids()[0], &*answer.texts()[0]), (2, "after"));
    assert_eq!(nodes[1].read("room", "0").json()["epoch"], epoch);
    replica.wait_for("the role of a primary", |info| info.contains("role:master"));
}

#[test]
fn a_replica_is_no_place_for_the_log() {
    let primary = Redis::start();
    primary.promise_no_nodes();
    let replica = primary.replica();
    let node = Server::with(&["--cluster", &replica.url()]);
    until("it is told", || node.logged("the server is a replica") > 0);
    let refused = node.get("/write", &[("channel", "room"), ("message", "never")]);
    refused.fails_with(503, "over_capacity");
    // The address may be that of the primary later.
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    wait_until_joined(&node);
    assert_eq!(node.write("room", "first"), 1);
}

/// Redis may have lost what they had acknowledged, so their ids are of no use.
#[test]
fn the_log_of_nodes_that_are_all_gone_goes_on_with_another_epoch() {
    let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut cluster = Cluster::with(redis, 2, &[]);
    let epoch = cluster.epoch(0);
    cluster.nodes[0].write("room", "first");
    // As long as Redis lives, it has lost nothing.
    for mut node in cluster.nodes.drain(..) {
        node.signal(Signal::KILL);
        node.forget();
        node.wait();
    }
    let mut node = start_node(&cluster.redis.url(), &[]);
    assert_eq!(node.read("room", "0").texts(), ["first"]);
    assert_eq!(node.read("room", "0").json()["epoch"], epoch);
    node.signal(Signal::KILL);
    node.forget();
    node.wait();
    cluster.redis.restart();
    let node = start_node(&cluster.redis.url(), &[]);
    assert_eq!(node.read("room", "0").texts(), ["first"]);
    assert_ne!(node.read("room", "0").json()["epoch"], epoch);
    assert_eq!(node.write("room", "second"), 2);
}

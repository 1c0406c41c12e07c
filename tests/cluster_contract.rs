//! `--cluster`: what docs/cluster.md promises about nodes that die, join, wander or disagree, and
//! that nodes are like one server.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, EventStream, Folder, Server, Socket, command, run, until};
use rustix::process::Signal;
use support::redis::{Redis, Value};

/// Nodes and the Redis that they share.
struct Cluster {
    // Dropped first: nodes without a Redis log errors.
    nodes: Vec<Server>,
    redis: Redis,
}

/// Starts a node with an admin listener, and waits until it serves.
fn start_node(url: &str, options: &[&str]) -> Server {
    let node = Server::watched(&[&["--cluster", url], options].concat());
    until("the node has joined", || node.get("/health", &[]).status == 200);
    node
}

impl Cluster {
    fn with(count: usize, options: &[&str]) -> Self {
        let redis = Redis::start();
        redis.promise_no_nodes();
        let nodes = (0..count).map(|_| start_node(&redis.url(), options)).collect();
        Self { nodes, redis }
    }

    /// Ends a node as a crash does.
    fn kill(&mut self, node: usize) {
        let mut dead = self.nodes.remove(node);
        dead.signal(Signal::KILL);
        dead.forget();
        dead.wait();
    }

    fn keys(&self) -> Vec<String> {
        match self.redis.command(&["KEYS", "*"]) {
            Value::Array(keys) => keys.iter().map(Value::text).collect(),
            other => panic!("{other:?}"),
        }
    }
}

/// Returns the value of a metric without labels.
fn metric(node: &Server, name: &str) -> String {
    let page = node.operator().get("/metrics", &[]).ok();
    let is_it = |line: &str| line.strip_prefix(&format!("{name} ")[..]).map(str::to_owned);
    page.text().lines().find_map(is_it).unwrap_or_else(|| panic!("no {name}"))
}

fn goodbyes(node: &Server, channel: &str) -> Vec<String> {
    let events = node.read(channel, "0").events();
    events.into_iter().filter(|event| event.starts_with("goodbye")).collect()
}

#[test]
fn a_first_start_is_no_reason_for_a_warning() {
    let redis = Redis::start();
    let nodes = [0, 1].map(|_| start_node(&redis.url(), &[]));
    nodes[0].write("room", "howdy");
    assert_eq!(nodes[1].read("room", "0").texts(), ["howdy"]);
    let begins = " INFO cluster: Redis is empty, and no other node is there: beginning a new log";
    until("it tells of the new log", || nodes[0].logged(begins) == 1);
    assert_eq!(nodes[0].logged(" INFO cluster: waiting up to 3 s for nodes"), 1);
    for node in &nodes {
        let problems = node.logged(" WARN cluster") + node.logged(" ERROR ");
        assert_eq!(problems, 0, "{:?}", node.log());
    }
}

#[test]
fn a_node_that_dies_leaves_its_connections_to_the_others() {
    let mut cluster = Cluster::with(3, &["--connection-timeout", "2s", "--poll-timeout", "1h"]);
    let josh = cluster.nodes[0].introduce("room", "Josh");
    let ann = cluster.nodes[0].introduce("room", "Ann");
    let waits = |node: &Server, me: &common::Identity, from_id: &str| {
        node.park(&me.and(&[("channel", "room"), ("from_id", from_id)]))
    };
    let polls = [&josh, &ann].map(|me| waits(&cluster.nodes[0], me, "3"));
    let died = Instant::now();
    cluster.kill(0);
    drop(polls);
    // Her client comes back to another node, and no member notices.
    let mut poll = waits(&cluster.nodes[0], &ann, "3");
    let event = poll.response().ok();
    assert!(died.elapsed() >= Duration::from_secs(2), "before the timeout");
    assert_eq!(event.events(), ["goodbye timeout"]);
    assert_eq!(event.json()["messages"][0]["from"], josh.number);
    for node in &cluster.nodes {
        node.call_as(&ann, "/write", "room", "still here");
        assert_eq!(goodbyes(node, "room"), ["goodbye timeout"], "one of one connection");
    }
}

#[test]
fn the_admin_listener_tells_of_an_outage_and_the_public_one_does_not() {
    let cluster = Cluster::with(2, &["--heartbeat", "300ms", "--poll-timeout", "1h"]);
    let [one, other] = &cluster.nodes[..] else { unreachable!("two were started") };
    let health = |node: &Server| node.operator().get("/health", &[]).status;
    assert_eq!([health(one), health(other)], [200, 200]);
    until("both have joined", || metric(one, "speak_log_nodes") == "2");
    let position = || metric(other, "speak_log_position").parse::<u64>().expect("a number");
    let before = position();
    until("heartbeats are records", || position() > before);
    let mut stream = one.events(&[("channel", "room")]);
    cluster.redis.signal(Signal::STOP);
    until("the operator is told", || {
        health(one) == 503 && metric(one, "speak_log_up") == "0" && health(other) == 503
    });
    let lag = metric(one, "speak_log_lag_seconds");
    assert!(lag.split('.').next().expect("whole seconds").parse::<u64>().expect("a number") >= 5);
    for node in &cluster.nodes {
        node.get("/health", &[]).ok();
    }
    // A stream does not notice.
    for _ in 0..20 {
        assert!(stream.block().expect("a heartbeat").is_heartbeat);
    }
    cluster.redis.signal(Signal::CONT);
    until("all is well", || health(one) == 200 && metric(one, "speak_log_up") == "1");
    until("a write succeeds", || {
        one.get("/write", &[("channel", "room"), ("message", "after")]).status == 200
    });
    assert_eq!(stream.texts(1), ["after"]);
    assert_eq!(metric(one, "speak_log_epochs_total"), "0");
}

#[test]
fn a_call_that_is_refused_does_not_end_the_outage_that_the_operator_sees() {
    let mut cluster = Cluster::with(1, &[]);
    let lag = |node: &Server| -> f64 {
        metric(node, "speak_log_lag_seconds").parse().expect("a number of seconds")
    };
    cluster.redis.kill();
    let node = &cluster.nodes[0];
    // Nothing of the call is sent, so it is taken back.
    until("the connection has ended", || node.logged("cluster: no connection to Redis") > 0);
    node.get("/write", &[("channel", "room"), ("message", "m")]).fails_with(503, "over_capacity");
    assert!(lag(node) >= 5.0, "{}", lag(node));
    assert_eq!(metric(node, "speak_log_up"), "0");
    assert_eq!(node.operator().get("/health", &[]).status, 503);
    cluster.redis.restart();
    let node = &cluster.nodes[0];
    until("all is well", || metric(node, "speak_log_up") == "1" && lag(node) < 1.0);
}

#[test]
fn a_redis_with_too_few_replicas_refuses_writes_and_recovers() {
    let cluster = Cluster::with(2, &[]);
    let [one, other] = &cluster.nodes[..] else { unreachable!("two were started") };
    one.write("room", "before");
    cluster.redis.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let write = || one.get("/write", &[("channel", "room"), ("message", "never")]);
    let refused = write();
    refused.fails_with(503, "over_capacity");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(other.read("room", "0").texts(), ["before"]);
    // A replica comes, and is one only once it has confirmed what it has.
    let _replica = cluster.redis.replica();
    until("a write succeeds", || {
        other.get("/write", &[("channel", "room"), ("message", "after")]).status == 200
    });
    assert_eq!(one.read("room", "0").texts(), ["before", "after"]);
}

#[test]
fn a_new_epoch_is_counted_at_all_nodes() {
    let cluster = Cluster::with(2, &[]);
    let [one, other] = &cluster.nodes[..] else { unreachable!("two were started") };
    one.write("room", "first");
    let epochs = |node: &Server| metric(node, "speak_log_epochs_total");
    assert_eq!([epochs(one), epochs(other)], ["0", "0"]);
    // It cannot say what it has read, so the other one begins a new epoch.
    other.signal(Signal::STOP);
    cluster.redis.command(&["FLUSHALL"]);
    until("a write succeeds", || {
        one.get("/write", &[("channel", "room"), ("message", "second")]).status == 200
    });
    assert_eq!(epochs(one), "1");
    other.signal(Signal::CONT);
    until("it has read the new epoch", || epochs(other) == "1");
    assert_eq!(other.read("room", "0").texts(), ["first", "second"]);
    // A node that starts later reads of an epoch that began before.
    let late = start_node(&cluster.redis.url(), &[]);
    assert_eq!(epochs(&late), "0");
}

/// Returns the settings of dist/cluster/redis.conf, as options, with those for replicas.
fn printed_settings() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/cluster/redis.conf");
    let text = fs::read_to_string(path).expect("the file");
    // A setting that is commented out has no space after its `#`.
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    let option = |line: &str| {
        let line = line.trim_start_matches('#');
        let (name, value) = line.split_once(' ').expect("a name and a value");
        [format!("--{name}"), value.trim_matches('"').to_owned()]
    };
    lines.flat_map(option).collect()
}

#[test]
fn the_printed_settings_of_redis_keep_the_log() {
    let settings = printed_settings();
    assert!(settings.len() >= 14, "{settings:?}");
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let redis = Redis::with(&settings);
    let _replica = redis.replica();
    redis.wait_for("a good replica", |info| info.contains("min_slaves_good_slaves:1"));
    redis.promise_no_nodes();
    let mut cluster = Cluster { nodes: Vec::new(), redis };
    for _ in 0..2 {
        cluster.nodes.push(start_node(&cluster.redis.url(), &[]));
    }
    let epoch = |node: &Server| node.read("room", "0").json()["epoch"].clone();
    let before = epoch(&cluster.nodes[0]);
    let write = |node: &Server, text: &str| {
        until("a write succeeds", || {
            node.get("/write", &[("channel", "room"), ("message", text)]).status == 200
        });
    };
    write(&cluster.nodes[0], "first");
    cluster.redis.restart();
    write(&cluster.nodes[1], "second");
    assert_eq!(epoch(&cluster.nodes[1]), before);
    // All of it ends at once.
    cluster.kill(1);
    cluster.kill(0);
    cluster.redis.restart();
    let node = start_node(&cluster.redis.url(), &[]);
    assert_eq!(node.read("room", "0").texts(), ["first", "second"]);
    assert_ne!(epoch(&node), before);
}

#[test]
fn a_node_serves_only_once_it_has_read_the_log() {
    let mut cluster = Cluster::with(0, &[]);
    cluster.redis.kill();
    let folder = Folder::new("notify");
    let systemd = UnixDatagram::bind(folder.file("notify")).expect("a socket");
    systemd.set_nonblocking(true).expect("a socket that does not block");
    let mut speak = command();
    speak.args(["--listen", "127.0.0.1:0", "--cluster", &cluster.redis.url()]);
    speak.env("NOTIFY_SOCKET", folder.file("notify"));
    let node = Server::spawn_node(speak, 1);
    until("the operator is told", || node.logged("cluster: ") > 0);
    for path in ["/write", "/introduce", "/read", "/members", "/health"] {
        let params = [("channel", "room"), ("message", "m"), ("timeout", "0")];
        node.get(path, &params).fails_with(503, "over_capacity");
    }
    let mut text = [0; 256];
    assert!(systemd.recv(&mut text).is_err(), "systemd would take it for ready");
    cluster.redis.restart();
    until("it is ready", || {
        systemd.recv(&mut text).is_ok_and(|length| text[..length].starts_with(b"READY=1"))
    });
    node.get("/health", &[]).ok();
    assert_eq!(node.write("room", "first"), 1);
}

#[test]
fn a_node_with_another_setting_that_is_shared_does_not_join() {
    let cluster = Cluster::with(1, &[]);
    cluster.nodes[0].write("room", "before");
    for (option, value, problem) in [
        ("--history", "7", "--history is 7 here and 100 there"),
        ("--retention", "1m", "--retention in ms is 60000 here and 3600000 there"),
        ("--connection-timeout", "1s", "--connection-timeout in ms is 1000 here and 5000 there"),
    ] {
        let mut node = command();
        let url = cluster.redis.url();
        node.args(["--listen", "127.0.0.1:0", "--cluster", &url, option, value]);
        let finished = run(node);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        let text = format!("cannot join the cluster: {problem}");
        assert!(finished.stderr.contains(&text), "{finished:?}");
    }
    assert_eq!(cluster.nodes[0].write("room", "after"), 2);
    assert_eq!(metric(&cluster.nodes[0], "speak_log_nodes"), "1");
}

#[test]
fn a_process_with_another_setting_that_is_shared_does_not_take_over_a_node() {
    let cluster = Cluster::with(1, &[]);
    let folder = Folder::new("settings");
    let program = folder.file("speak");
    let speak = command().get_program().to_owned();
    let replace = || fs::remove_file(&program).expect("the old program");
    symlink(&speak, &program).expect("a link");
    let mut start = Command::new(&program);
    // The sandbox lets a server start no program outside of its own folder.
    start.args(["--listen", "127.0.0.1:0", "--no-sandbox", "--cluster", &cluster.redis.url()]);
    let mut node = Server::spawn_node(start, 1);
    until("the node has joined", || node.get("/health", &[]).status == 200);
    assert_eq!(node.write("room", "before"), 1);
    for (variables, problems) in [
        ("SPEAK_HISTORY=7", "--history is 7 here and 100 there"),
        (
            "SPEAK_RETENTION=1m SPEAK_CONNECTION_TIMEOUT=1s",
            "--retention in ms is 60000 here and 3600000 there, \
             --connection-timeout in ms is 1000 here and 5000 there",
        ),
    ] {
        replace();
        let script = format!("#!/bin/sh\n{variables} exec {} \"$@\"\n", speak.display());
        fs::write(&program, script).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("a program");
        let before = node.logged("upgrade failed");
        node.signal(Signal::USR2);
        until("the upgrade has failed", || node.logged("upgrade failed") > before);
        assert_eq!(node.logged(&format!("cannot join the cluster: {problems}")), 1);
        node.write("room", "still here");
    }
    replace();
    symlink(&speak, &program).expect("a link");
    node.signal(Signal::USR2);
    node.wait_for_upgrades(1);
    node.adopt_successor();
    assert_eq!(node.write("room", "after"), 4);
    assert_eq!(metric(&cluster.nodes[0], "speak_log_nodes"), "2");
}

#[test]
fn a_node_that_was_taken_for_dead_comes_back_with_its_connections() {
    let cluster = Cluster::with(2, &["--connection-timeout", "30s", "--poll-timeout", "1h"]);
    let [one, other] = &cluster.nodes[..] else { unreachable!("two were started") };
    let josh = other.introduce("room", "Josh");
    let mut poll = other.park(&josh.and(&[("channel", "room"), ("from_id", "2")]));
    other.signal(Signal::STOP);
    until("it is taken for dead", || metric(one, "speak_log_nodes") == "1");
    one.call_as(&josh, "/write", "elsewhere", "another node has it");
    other.signal(Signal::CONT);
    until("it is back", || other.logged("took this one for dead; joining again") == 1);
    for node in &cluster.nodes {
        until("both are there", || metric(node, "speak_log_nodes") == "2");
    }
    one.write("room", "howdy");
    assert_eq!(poll.response().ok().texts(), ["howdy"]);
    other.call_as(&josh, "/write", "room", "hello");
    assert_eq!(one.read("room", "0").texts(), ["Josh", "howdy", "hello"]);
    assert!(goodbyes(one, "room").is_empty());
    assert_eq!(metric(other, "speak_log_reloads_total"), "0");
}

#[test]
fn a_close_at_one_node_is_a_goodbye_at_all() {
    let cluster = Cluster::with(3, &["--connection-timeout", "1h", "--poll-timeout", "1h"]);
    for (index, node) in cluster.nodes.iter().enumerate() {
        let channel = format!("room-{index}");
        let josh = cluster.nodes[0].introduce(&channel, "Josh");
        let poll = node.park(&josh.and(&[("channel", &channel), ("from_id", "2")]));
        drop(poll);
        for reader in &cluster.nodes {
            assert_eq!(reader.next_events(&channel, 2), ["goodbye closed"]);
            let members = reader.members(&channel);
            assert_eq!(members["members"].as_array().map(Vec::len), Some(0), "{members}");
        }
    }
}

#[test]
fn what_was_acknowledged_is_seen_at_every_node() {
    let cluster = Cluster::with(3, &[]);
    let node = |index: usize| &cluster.nodes[index % 3];
    let params = [("channel", "room"), ("from_id", "-1")];
    for index in 0..30 {
        let text = format!("message {index}");
        node(index).write("room", &text);
        let newest = [&params[..], &[("timeout", "0")]].concat();
        assert_eq!(node(index + 1).get("/read", &newest).ok().texts(), [&*text]);
        // The newest message, and not an older one that would be the newest of a node behind.
        let mut stream = EventStream::open(node(index + 2).client(), &params, &[]);
        stream.beginning();
        assert_eq!(stream.texts(1), [&*text]);
        let mut socket = Socket::open(node(index + 1).client(), &params, &[]);
        assert_eq!(socket.texts(), [&*text]);
        let me = node(index).introduce("members", &text);
        let members = node(index + 1).members("members");
        let is_there = |member: &serde_json::Value| member["connection"] == me.number;
        assert!(members["members"].as_array().expect("members").iter().any(is_there));
        node(index + 1).goodbye(&me);
        let members = node(index + 2).members("members");
        assert!(!members["members"].as_array().expect("members").iter().any(is_there));
    }
}

#[test]
fn all_readers_see_the_messages_of_all_nodes_in_one_order() {
    const COUNT: usize = 40;
    let cluster = Cluster::with(3, &["--history", "1000"]);
    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(Server::address).collect();
    let mut streams: Vec<_> =
        cluster.nodes.iter().map(|node| node.events(&[("channel", "room")])).collect();
    thread::scope(|scope| {
        for (node, address) in addresses.iter().enumerate() {
            scope.spawn(move || {
                let mut client = Client::connect(*address);
                for index in 0..COUNT {
                    let text = format!("{node}-{index}");
                    client.get("/write", &[("channel", "room"), ("message", &text)]).ok();
                }
            });
        }
    });
    let seen: Vec<Vec<_>> = streams
        .iter_mut()
        .map(|stream| {
            let messages = stream.messages(3 * COUNT);
            messages.iter().map(|it| (it["id"].as_u64(), it["message"].to_string())).collect()
        })
        .collect();
    let ids: Vec<_> = seen[0].iter().map(|(id, _)| id.expect("an id")).collect();
    assert!(ids.iter().copied().eq(1..=3 * COUNT as u64), "{ids:?}");
    assert!(seen.iter().all(|one| *one == seen[0]));
}

#[test]
fn readers_of_all_nodes_are_counted() {
    let cluster = Cluster::with(3, &["--poll-timeout", "1h"]);
    let polls: Vec<_> =
        cluster.nodes.iter().map(|node| node.park(&[("channel", "room")])).collect();
    for node in &cluster.nodes {
        until("all are counted", || node.members("room")["readers"] == 3);
    }
    drop(polls);
    for node in &cluster.nodes {
        until("none is left", || node.members("room")["readers"] == 0);
    }
}

#[test]
fn a_limit_counts_at_each_node_alone() {
    let redis = Redis::start();
    redis.promise_no_nodes();
    let strict = start_node(&redis.url(), &["--max-channels", "2"]);
    let other = start_node(&redis.url(), &[]);
    strict.write("a", "m");
    strict.write("b", "m");
    let refused = strict.get("/write", &[("channel", "c"), ("message", "m")]);
    refused.fails_with(503, "over_capacity");
    other.write("c", "m");
    // It is there now, at each node.
    assert_eq!(strict.write("c", "n"), 2);
}

#[test]
fn all_keys_have_one_tag_and_clusters_with_other_prefixes_are_others() {
    let cluster = Cluster::with(1, &[]);
    cluster.nodes[0].write("room", "one");
    cluster.nodes[0].fill("large", &"x".repeat(60_000), 300);
    until("there is a snapshot", || cluster.nodes[0].logged("cluster snapshot complete") > 0);
    let keys = cluster.keys();
    assert!(keys.len() >= 3 && keys.iter().all(|key| key.starts_with("{speak}:")), "{keys:?}");
    let elsewhere = start_node(&format!("{}?prefix=other", cluster.redis.url()), &[]);
    assert_eq!(elsewhere.write("room", "two"), 1);
    assert_eq!(cluster.nodes[0].read("room", "0").texts(), ["one"]);
    let others = cluster.keys().into_iter().filter(|key| !keys.contains(key));
    let others: Vec<_> = others.filter(|key| !key.starts_with("{speak}:")).collect();
    assert!(!others.is_empty() && others.iter().all(|key| key.starts_with("{other}:")));
}

/// The remedy of docs/cluster.md is tried as well.
#[test]
fn a_state_that_is_lost_with_all_nodes_is_waited_for() {
    let mut cluster = Cluster::with(2, &["--history", "10"]);
    cluster.nodes[0].fill("large", &"x".repeat(60_000), 300);
    until("there is a snapshot", || {
        cluster.nodes.iter().any(|node| node.logged("cluster snapshot complete") > 0)
    });
    // As if another node were writing its state, until it dies.
    until("the lock is free", || {
        let lock = ["SET", "{speak}:lock", "another node", "PX", "600000", "NX"];
        cluster.redis.command(&lock) == Value::Text(b"OK".to_vec())
    });
    for key in cluster.keys().iter().filter(|key| *key != "{speak}:lock") {
        cluster.redis.command(&["DEL", key]);
    }
    until("the log goes on", || {
        cluster.nodes.iter().all(|node| node.logged("cluster: the log goes on") > 0)
    });
    cluster.kill(1);
    cluster.kill(0);
    let node = Server::watched(&["--cluster", &cluster.redis.url(), "--history", "10"]);
    until("it says what is missing", || node.logged("no node has written it since Redis") > 0);
    node.get("/health", &[]).fails_with(503, "over_capacity");
    for key in cluster.keys() {
        cluster.redis.command(&["DEL", &key]);
    }
    until("it begins with an empty state", || node.get("/health", &[]).status == 200);
    assert_eq!(node.write("large", "first"), 1);
}

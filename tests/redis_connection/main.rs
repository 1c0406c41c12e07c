//! The connection to Redis, with real servers and Sentinels.

#[cfg(feature = "cluster-tls")]
#[path = "../common/mod.rs"]
mod common;
mod node_loop;
#[cfg(feature = "cluster-tls")]
mod over_tls;

use std::io::{Read, Write};
use std::net::TcpListener;

use rustix::process::Signal;
use speak::cluster::{Connection, ErrorKind, Value as Reply};
use support::redis::{Redis, Value};

use node_loop::{Loop, REPLY_MS};

const MIB: usize = 1 << 20;

fn text(text: &str) -> Reply {
    Reply::Text(text.as_bytes().into())
}

fn kind(reply: &Reply) -> ErrorKind {
    reply.error_kind().unwrap_or_else(|| panic!("no error: {reply:?}"))
}

fn info(redis: &Redis, field: &str) -> String {
    let info = redis.command(&["INFO"]).text();
    let mut values = info.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    values.next().expect("a field of INFO").to_owned()
}

fn with_login(url: &str, login: &str) -> String {
    url.replace("redis://", &format!("redis://{login}@"))
}

#[test]
fn replies_come_in_the_order_of_commands() {
    let redis = Redis::start();
    let mut node = Loop::new(&redis.url());
    node.send(&["SET", "early", "1"]);
    let server = node.connected();
    assert_eq!(*server.run_id, *info(&redis, "run_id"));
    let version = server.version;
    let version = format!("{}.{}.{}", version.0, version.1, version.2);
    assert_eq!(version, info(&redis, "redis_version"));
    assert!(server.is_writable && !server.evicts && server.unix_ms > 1_700_000_000_000);
    assert_eq!(node.ask(&["GET", "early"]), Reply::Nil, "a command before the connection");
    for number in 1..=1000 {
        node.send(&["INCR", "counter"]);
        node.send(&["APPEND", "text", "x"]);
        if number % 100 == 0 {
            node.send(&["INCR", "text"]);
        }
    }
    for number in 1..=1000 {
        assert_eq!(node.reply(), Reply::Int(number));
        assert_eq!(node.reply(), Reply::Int(number));
        if number % 100 == 0 {
            assert_eq!(kind(&node.reply()), ErrorKind::Other);
        }
    }
    let list = redis.command(&["CLIENT", "LIST"]).text();
    assert!(list.contains("name=speak"), "{list}");
    assert_eq!(node.socket.buffered_bytes(), 0);
}

#[test]
fn a_user_of_an_acl_logs_in() {
    let redis = Redis::start();
    let rules = ["ACL", "SETUSER", "ann", "on", ">a/b:c@d", "allkeys", "+@all", "-flushall"];
    redis.command(&rules);
    let mut node = Loop::new(&with_login(&redis.url(), "ann:a%2fb:c@d"));
    node.connected();
    assert_eq!(node.ask(&["ACL", "WHOAMI"]), text("ann"));
    assert_eq!(kind(&node.ask(&["FLUSHALL"])), ErrorKind::NoPermission);
}

#[test]
fn a_login_that_is_refused_says_what_to_do() {
    let redis = Redis::start();
    redis.command(&["ACL", "SETUSER", "limited", "on", ">pass1", "allkeys", "+@all", "-info"]);
    let mut node = Loop::new(&with_login(&redis.url(), "limited:hunter2"));
    let failure = node.failure();
    assert!(failure.needs_operator && failure.reason.contains("SPEAK_CLUSTER_PASSWORD"));
    assert!(!failure.reason.contains("hunter2") && !failure.reason.contains("limited"));
    let failure = Loop::new(&with_login(&redis.url(), "limited:pass1")).failure();
    assert!(failure.needs_operator && failure.reason.contains("INFO server"), "{failure}");
    let failure = Loop::new(&with_login(&redis.url(), ":hunter2")).failure();
    assert!(failure.needs_operator && !failure.reason.contains("hunter2"), "{failure}");
    redis.command(&["CONFIG", "SET", "requirepass", "pass2"]);
    let failure = Loop::new(&redis.url()).failure();
    assert!(failure.needs_operator && failure.reason.contains("wants a password"), "{failure}");
    // The operator corrects the password of the server while attempts go on.
    let mut admin = redis.client();
    assert_eq!(admin.command(&["AUTH", "pass2"]), Value::Text(b"OK".to_vec()));
    admin.command(&["ACL", "SETUSER", "limited", ">hunter2", "+info"]);
    node.connected();
}

#[test]
fn the_database_of_the_url_is_selected() {
    let redis = Redis::start();
    let mut node = Loop::new(&format!("{}/3", redis.url()));
    node.connected();
    assert_eq!(node.ask(&["SET", "key", "three"]), text("OK"));
    let mut client = redis.client();
    assert_eq!(client.command(&["GET", "key"]), Value::Nil);
    client.command(&["SELECT", "3"]);
    assert_eq!(client.command(&["GET", "key"]).text(), "three");
    let failure = Loop::new(&format!("{}/99", redis.url())).failure();
    assert!(failure.needs_operator && failure.reason.contains("SELECT"), "{failure}");
}

#[test]
fn a_unix_socket_serves_too() {
    let mut redis = Redis::start();
    let mut node = Loop::new(&redis.unix_url());
    node.connected();
    assert_eq!(node.ask(&["PING"]), text("PONG"));
    redis.kill();
    assert!(node.failure().reason.contains("closed the connection"));
    assert!(node.failure().reason.contains("cannot connect"));
    redis.restart();
    node.connected();
}

#[test]
fn a_server_that_was_killed_is_another_one_after_its_restart() {
    let mut redis = Redis::start();
    let mut node = Loop::new(&redis.url());
    let before = node.connected();
    node.send(&["BLPOP", "nothing", "0"]);
    node.flush();
    redis.wait_for("a blocked client", |info| info.contains("blocked_clients:1"));
    redis.kill();
    let failure = node.failure();
    assert!(!failure.needs_operator, "{failure}");
    node.send(&["SET", "lost", "1"]);
    let failure = node.failure();
    assert!(failure.reason.contains("refused"), "{failure}");
    redis.restart();
    let after = node.connected();
    assert_ne!(before.run_id, after.run_id);
    assert_eq!(node.ask(&["GET", "lost"]), Reply::Nil);
}

#[test]
fn a_server_that_does_not_reply_is_left() {
    let redis = Redis::start();
    let mut node = Loop::new(&redis.url());
    node.connected();
    redis.signal(Signal::STOP);
    node.send(&["PING"]);
    node.flush();
    node.skipped_ms += REPLY_MS - 1;
    node.socket.begin_turn(node.now());
    let waits = node.socket.next_deadline().expect("a deadline");
    node.skipped_ms += waits.0.saturating_sub(node.now().0);
    let failure = node.failure();
    assert!(failure.reason.contains("within 5000 ms"), "{failure}");
    // The kernel connects, but the process is stopped.
    node.skipped_ms += REPLY_MS;
    node.turn();
    node.turn();
    node.skipped_ms += REPLY_MS;
    let failure = node.failure();
    assert!(failure.reason.contains("within 2000 ms"), "{failure}");
    redis.signal(Signal::CONT);
    node.connected();
}

#[test]
fn a_pause_that_is_over_in_time_loses_nothing() {
    let redis = Redis::start();
    let mut node = Loop::new(&redis.url());
    node.connected();
    redis.command(&["CLIENT", "PAUSE", "300", "ALL"]);
    assert_eq!(node.ask(&["PING"]), text("PONG"));
    // If this process was late itself, the reply is taken before the deadline ends the connection.
    node.send(&["SET", "key", "1"]);
    node.flush();
    while redis.command(&["GET", "key"]) == Value::Nil {}
    // Redis sends the replies of one turn of its loop in any order.
    redis.command(&["PING"]);
    node.skipped_ms += 10 * REPLY_MS;
    node.socket.begin_turn(node.now());
    node.socket.end_turn();
    assert_eq!(node.reply(), text("OK"));
}

/// Asks for more than a connection keeps, and takes the replies when it has stopped reading.
fn large_replies_wait(node: &mut Loop) {
    let value = "0123456789abcdef".repeat(8 * MIB / 16);
    assert_eq!(node.ask(&["SET", "large", &value]), text("OK"));
    for _ in 0..6 {
        node.send(&["GET", "large"]);
    }
    // Nothing is polled until the connection stops reading.
    loop {
        node.flush();
        let is_full = node.socket.buffered_bytes() >= 16 * MIB;
        if is_full && node.socket.next_deadline().is_none() {
            break;
        }
        node.turn();
    }
    assert!(node.socket.buffered_bytes() < 25 * MIB);
    for _ in 0..6 {
        assert_eq!(node.reply().as_text(), Some(value.as_bytes()));
    }
}

#[test]
fn large_replies_come_in_pieces_and_wait_within_a_bound() {
    let redis = Redis::start();
    let mut node = Loop::new(&redis.url());
    node.connected();
    large_replies_wait(&mut node);
    let script = "for i = 1, 200000 do redis.call('RPUSH', 'list', i) end";
    assert_eq!(node.ask(&["EVAL", script, "0"]), Reply::Nil);
    let list = node.ask(&["LRANGE", "list", "0", "-1"]);
    let numbers = list.as_array().expect("a list");
    assert_eq!((numbers.len(), &numbers[199_999]), (200_000, &text("200000")));
    assert_eq!(node.socket.buffered_bytes(), 0);
}

#[test]
fn commands_wait_within_a_bound() {
    let redis = Redis::start();
    let mut node = Loop::new(&redis.url());
    node.connected();
    redis.signal(Signal::STOP);
    let value = "x".repeat(MIB);
    for _ in 0..40 {
        node.send(&["SET", "key", &value]);
        assert!(node.socket.buffered_bytes() <= 17 * MIB);
    }
    let failure = node.failure();
    assert!(failure.reason.contains("does not take commands"), "{failure}");
    redis.signal(Signal::CONT);
    node.connected();
}

#[test]
fn a_reset_drops_all_replies_and_reconnects() {
    let redis = Redis::start();
    let mut node = Loop::new(&redis.url());
    node.connected();
    node.send(&["PING"]);
    node.flush();
    while node.socket.buffered_bytes() == 0 {
        node.turn();
    }
    node.send(&["ECHO", "lost"]);
    node.socket.reset();
    node.send(&["ECHO", "too early"]);
    assert_eq!(node.socket.buffered_bytes(), 0);
    node.connected();
    assert_eq!(node.ask(&["ECHO", "later"]), text("later"));
}

#[test]
fn errors_of_memory_and_of_replicas_are_distinguished() {
    let redis = Redis::start();
    let mut node = Loop::new(&redis.url());
    assert!(!node.connected().evicts);
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(kind(&node.ask(&["SET", "key", "1"])), ErrorKind::OutOfMemory);
    for (name, value) in
        [("maxmemory", "0"), ("maxmemory-policy", "allkeys-lru"), ("min-replicas-to-write", "1")]
    {
        redis.command(&["CONFIG", "SET", name, value]);
    }
    assert_eq!(kind(&node.ask(&["SET", "key", "1"])), ErrorKind::NoReplicas);
    node.socket.reset();
    assert!(node.connected().evicts);
    let mut replica = Loop::new(&redis.replica().url());
    let mut kept = redis.replica();
    let mut node = Loop::new(&kept.url());
    assert!(!node.connected().is_writable);
    assert_eq!(kind(&node.ask(&["SET", "key", "1"])), ErrorKind::ReadOnly);
    kept.kill();
    // The other one was ended at once.
    assert!(!replica.failure().needs_operator);
}

#[test]
fn a_server_of_another_kind_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let mut node = Loop::new(&format!("redis://{address}"));
    for (answer, reason) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "malformed"),
        ("+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n", "not a Redis"),
        ("-ERR max number of clients reached\r\n", "max number of clients"),
        ("*x\r\n", "malformed"),
        ("", "closed the connection"),
    ] {
        let server = std::thread::spawn({
            let listener = listener.try_clone().expect("a descriptor");
            move || {
                let (mut stream, _) = listener.accept().expect("a client");
                let handshake = stream.read(&mut [0; 4096]).expect("a handshake");
                assert!(handshake > 0, "the client has left");
                stream.write_all(answer.as_bytes()).expect("an open client");
            }
        });
        let failure = node.failure();
        assert!(failure.reason.contains(reason), "{failure}");
        server.join().expect("the server");
    }
}

#[test]
fn a_promoted_replica_is_found_through_sentinels() {
    let mut primary = Redis::start();
    let replica = primary.replica();
    let sentinel = primary.sentinel("main", 1);
    let mut dead = Redis::start();
    dead.kill();
    let hosts = format!("{},{}", dead.address(), sentinel.address());
    let mut node = Loop::new(&format!("redis-sentinel://{hosts}/main"));
    let before = node.connected();
    assert_eq!(*before.run_id, *info(&primary, "run_id"));
    primary.kill();
    let after = node.connected();
    assert_eq!(*after.run_id, *info(&replica, "run_id"));
    assert!(after.is_writable);
    assert_eq!(node.ask(&["SET", "key", "1"]), text("OK"));
    let mut unknown = Loop::new(&format!("redis-sentinel://{}/other", sentinel.address()));
    let failure = unknown.failure();
    assert!(failure.needs_operator && failure.reason.contains("of this name"), "{failure}");
    let mut server = Loop::new(&format!("redis-sentinel://{}/main", replica.address()));
    let failure = server.failure();
    assert!(failure.needs_operator && failure.reason.contains("not a Sentinel"), "{failure}");
}

//! The same connection over TLS, with real servers and certificates of `openssl`.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};

use speak::cluster::{Connection, ServerInfo, Value as Reply};
use support::redis::Redis;

use super::common::{ECDSA, Folder, Pair, RSA, text as path};
use super::node_loop::Loop;
use super::{large_replies_wait, text};

/// Port of a Redis for TLS. Each Redis of the tests has an IP address of its own.
const TLS_PORT: &str = "6380";

/// An authority, and the folder with its certificates.
struct World {
    folder: Folder,
    authority: Pair,
}

impl World {
    fn new() -> Self {
        let folder = Folder::new("redis-tls");
        let authority = Pair::authority(&folder, "authority");
        Self { folder, authority }
    }

    /// Issues a certificate for the address of a server, which has begun.
    fn certificate_for(&self, redis: &Redis, key: &[&str], days: &str) -> Pair {
        let names = format!("DNS:redis.test,IP:{}", redis.address().ip());
        self.authority.issue(&self.folder, "server", &names, key, days)
    }

    fn connect(&self, url: &str) -> Loop {
        Loop::with_ca(url, Some(&self.authority.certificate))
    }

    fn failure(&self, url: &str) -> String {
        let failure = self.connect(url).failure();
        assert!(failure.needs_operator, "{failure}");
        failure.reason
    }
}

/// Makes a server speak TLS too, at [`TLS_PORT`]: `further` has pairs of name and value.
fn speak_tls(redis: &Redis, pair: &Pair, further: &[&str]) {
    let files = ["tls-cert-file", path(&pair.certificate), "tls-key-file", path(&pair.key)];
    if !further.contains(&"tls-auth-clients") {
        redis.command(&["CONFIG", "SET", "tls-auth-clients", "no"]);
    }
    let all = [&["CONFIG", "SET"], &files[..], further, &["tls-port", TLS_PORT]];
    assert_eq!(redis.command(&all.concat()).text(), "OK");
}

fn url_of(redis: &Redis) -> String {
    format!("rediss://{}:{TLS_PORT}", redis.address().ip())
}

#[test]
fn a_redis_with_tls_serves() {
    let world = World::new();
    for key in [&ECDSA[..], &RSA, &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"], &["ed25519"]] {
        let redis = Redis::start();
        speak_tls(&redis, &world.certificate_for(&redis, key, "30"), &[]);
        redis.command(&["ACL", "SETUSER", "ann", "on", ">a/b:c@d", "allkeys", "+@all"]);
        let url = url_of(&redis).replace("rediss://", "rediss://ann:a%2fb:c@d@");
        let mut node = world.connect(&format!("{url}/3"));
        let ServerInfo { is_writable, .. } = node.connected();
        assert!(is_writable);
        assert_eq!(node.ask(&["ACL", "WHOAMI"]), text("ann"));
        for number in 1..=1000 {
            node.send(&["INCR", "counter"]);
            if number % 7 == 0 {
                node.flush();
            }
        }
        for number in 1..=1000 {
            assert_eq!(node.reply(), Reply::Int(number));
        }
        assert_eq!(node.socket.buffered_bytes(), 0);
    }
}

#[test]
fn each_suite_of_a_server_will_do() {
    let world = World::new();
    for suite in ["AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"] {
        let suite = format!("TLS_{suite}");
        let redis = Redis::start();
        let pair = world.certificate_for(&redis, &ECDSA, "30");
        speak_tls(&redis, &pair, &["tls-ciphersuites", &suite]);
        let mut node = world.connect(&url_of(&redis));
        node.connected();
        assert_eq!(node.ask(&["ECHO", &suite]), text(&suite));
    }
}

#[test]
fn large_commands_and_replies_are_many_records() {
    let world = World::new();
    let redis = Redis::start();
    speak_tls(&redis, &world.certificate_for(&redis, &ECDSA, "30"), &[]);
    let mut node = world.connect(&url_of(&redis));
    node.connected();
    large_replies_wait(&mut node);
    assert_eq!(node.socket.buffered_bytes(), 0);
}

#[test]
fn a_name_of_the_url_is_checked_too() {
    let world = World::new();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("its address").port().to_string();
    let redis = Redis::start();
    let ip = redis.address().ip().to_string();
    drop(free);
    let pair = world.authority.issue(&world.folder, "name", "DNS:localhost", &ECDSA, "30");
    assert_eq!(redis.command(&["CONFIG", "SET", "bind", &format!("{ip} 127.0.0.1")]).text(), "OK");
    speak_tls(&redis, &pair, &[]);
    assert_eq!(redis.command(&["CONFIG", "SET", "tls-port", &port]).text(), "OK");
    let mut node = world.connect(&format!("rediss://localhost:{port}"));
    node.connected();
    assert_eq!(node.ask(&["PING"]), text("PONG"));
    let reason = world.failure(&format!("rediss://127.0.0.1:{port}"));
    assert_eq!(reason, format!("127.0.0.1:{port}: its certificate is for another name"));
}

#[test]
fn a_server_that_cannot_be_verified_is_refused_until_it_can() {
    let world = World::new();
    let redis = Redis::start();
    let url = url_of(&redis);
    let says = |reason: &str, said: String| {
        assert_eq!(said, format!("{}:{TLS_PORT}: {reason}", redis.address().ip()));
    };
    let right = world.certificate_for(&redis, &ECDSA, "30");
    let other_name = world.authority.issue(&world.folder, "other", "DNS:a.test", &ECDSA, "30");
    speak_tls(&redis, &other_name, &[]);
    says("its certificate is for another name", world.failure(&url));
    let ip = redis.address().ip();
    let IpAddr::V4(ip) = ip else { panic!("an IPv4 address") };
    let neighbour = IpAddr::from([ip.octets()[0], 0, 0, 1]);
    let names = format!("IP:{neighbour},DNS:{ip}");
    let other_ip = world.authority.issue(&world.folder, "ip", &names, &ECDSA, "30");
    speak_tls(&redis, &other_ip, &[]);
    says("its certificate is for another name", world.failure(&url));
    let expired =
        world.authority.issue(&world.folder, "expired", &format!("IP:{ip}"), &ECDSA, "-1");
    speak_tls(&redis, &expired, &[]);
    says("its certificate has expired", world.failure(&url));
    let stranger = Pair::authority(&world.folder, "stranger");
    // Its name alone does not make an authority.
    let namesake_folder = Folder::new("namesake");
    let namesake = Pair::authority(&namesake_folder, "authority");
    for (authority, reason) in [
        (&stranger, "its certificate is not of an authority in --cluster-ca"),
        (&namesake, "its certificate is not of an authority in --cluster-ca"),
    ] {
        let issued = authority.issue(&world.folder, "issued", &format!("IP:{ip}"), &ECDSA, "30");
        speak_tls(&redis, &issued, &[]);
        says(reason, world.failure(&url));
    }
    // The operator corrects the server while attempts go on.
    let mut node = world.connect(&url);
    assert!(node.failure().needs_operator);
    speak_tls(&redis, &right, &[]);
    node.connected();
    assert_eq!(node.ask(&["PING"]), text("PONG"));
}

#[test]
fn a_server_without_tls_or_with_an_old_one_is_refused() {
    let world = World::new();
    let redis = Redis::start();
    // Redis waits for the end of the line that a hello is for it.
    let failure = world.connect(&format!("rediss://{}", redis.address())).failure();
    assert!(failure.reason.ends_with("within 2000 ms: does it speak TLS at this port?"));
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("its address");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().expect("a client");
        stream.write_all(b"-ERR plain\r\n").expect("an open client");
        // Keeps the socket until the client has left.
        stream.read_to_end(&mut Vec::new())
    });
    let said = world.failure(&format!("rediss://{address}"));
    assert_eq!(said, format!("{address}: it does not speak TLS at this port"));
    server.join().expect("the server").expect("no reset");
    let pair = world.certificate_for(&redis, &ECDSA, "30");
    speak_tls(&redis, &pair, &["tls-protocols", "TLSv1.2"]);
    let said = world.failure(&url_of(&redis));
    assert!(said.ends_with(": it does not speak TLS 1.3"), "{said}");
    // Without TLS, a server with it makes no sense of the commands.
    let failure = Loop::new(&url_of(&redis).replace("rediss", "redis")).failure();
    assert!(!failure.needs_operator, "{failure}");
}

#[test]
fn a_server_that_wants_a_certificate_of_its_client_is_refused() {
    let world = World::new();
    let redis = Redis::start();
    let pair = world.certificate_for(&redis, &ECDSA, "30");
    let ca = path(&world.authority.certificate);
    speak_tls(&redis, &pair, &["tls-ca-cert-file", ca, "tls-auth-clients", "yes"]);
    let said = world.failure(&url_of(&redis));
    assert!(said.contains("asks for a certificate of its client"), "{said}");
}

#[test]
fn a_killed_server_with_tls_is_found_again() {
    let world = World::new();
    let mut redis = Redis::start();
    let pair = world.certificate_for(&redis, &ECDSA, "30");
    speak_tls(&redis, &pair, &[]);
    let mut node = world.connect(&url_of(&redis));
    let before = node.connected();
    redis.kill();
    let failure = node.failure();
    assert!(!failure.needs_operator, "{failure}");
    redis.restart();
    speak_tls(&redis, &pair, &[]);
    let after = node.connected();
    assert_ne!(before.run_id, after.run_id);
    assert_eq!(node.ask(&["PING"]), text("PONG"));
}

#[test]
fn sentinels_and_their_primary_speak_tls() {
    let world = World::new();
    let primary = Redis::start();
    let pair = world.certificate_for(&primary, &ECDSA, "30");
    speak_tls(&primary, &pair, &[]);
    let watched = TLS_PORT.parse().expect("a port");
    let sentinel = primary.sentinel_with("main", 0, watched, |ip| {
        let names = format!("IP:{ip}");
        let pair = world.authority.issue(&world.folder, "sentinel", &names, &ECDSA, "30");
        format!(
            "tls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients no\n\
             tls-replication yes\ntls-port {TLS_PORT}\n",
            path(&pair.certificate),
            path(&pair.key),
            path(&world.authority.certificate),
        )
    });
    let ip = sentinel.address().ip();
    let mut node = world.connect(&format!("rediss-sentinel://{ip}:{TLS_PORT}/main"));
    node.connected();
    assert_eq!(node.ask(&["PING"]), text("PONG"));
}

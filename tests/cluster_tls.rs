//! `--cluster rediss://` with `--cluster-ca`: nodes whose Redis speaks TLS.

mod common;

use common::{ECDSA, Finished, Folder, Pair, Server, command, run, text, until};
use support::redis::Redis;

/// A Redis with TLS, and the authority of its certificate.
struct World {
    folder: Folder,
    authority: Pair,
    redis: Redis,
    names: String,
}

impl World {
    fn new() -> Self {
        let (folder, redis) = (Folder::new("cluster-tls"), Redis::start());
        redis.promise_no_nodes();
        let authority = Pair::authority(&folder, "authority");
        let names = format!("IP:{}", redis.address().ip());
        let world = Self { folder, authority, redis, names };
        world.set_certificate("server", &world.names, "30");
        world
    }

    /// Gives Redis a certificate for these names, which is valid for so many days.
    fn set_certificate(&self, file: &str, names: &str, days: &str) {
        let pair = self.authority.issue(&self.folder, file, names, &ECDSA, days);
        let set = [
            ["tls-auth-clients", "no"],
            ["tls-cert-file", text(&pair.certificate)],
            ["tls-key-file", text(&pair.key)],
            ["tls-port", "6380"],
        ];
        let set = [&["CONFIG", "SET"][..], set.as_flattened()].concat();
        assert_eq!(self.redis.command(&set).text(), "OK");
    }

    fn url(&self) -> String {
        format!("rediss://{}:6380", self.redis.address().ip())
    }

    fn start_node(&self) -> Server {
        let ca = text(&self.authority.certificate);
        let node = Server::with(&["--cluster", &self.url(), "--cluster-ca", ca]);
        wait_until_joined(&node);
        node
    }
}

fn wait_until_joined(node: &Server) {
    let params = [("channel", "lobby"), ("timeout", "0")];
    until("the node has joined", || node.get("/read", &params).status == 200);
}

fn fail_to_start(options: &[&str]) -> Finished {
    let mut node = command();
    node.args(["--listen", "127.0.0.1:0"]).args(options);
    run(node)
}

#[test]
fn nodes_share_a_redis_with_tls_also_after_an_upgrade() {
    let world = World::new();
    let mut nodes = [0, 1].map(|_| world.start_node());
    let clients = world.redis.command(&["CLIENT", "LIST"]).text();
    let of_nodes = clients.lines().filter(|line| line.contains("name=speak"));
    assert!(of_nodes.clone().count() >= 4, "{clients}");
    assert!(of_nodes.clone().all(|line| line.contains(":6380 ")), "{clients}");
    let mut reader = nodes[1].park(&[("channel", "room"), ("from_id", "1")]);
    nodes[0].write("room", "howdy");
    assert_eq!(reader.response().texts(), ["howdy"]);
    // The process that takes over is in the sandbox already, and reads the authority again.
    nodes[0].upgrade();
    wait_until_joined(&nodes[0]);
    assert_eq!(nodes[0].write("room", "after"), 2);
    assert_eq!(nodes[1].read("room", "0").texts(), ["howdy", "after"]);
}

#[test]
fn a_start_says_what_is_wrong_with_the_authority_or_the_server() {
    let world = World::new();
    let url = world.url();
    let stranger = Pair::authority(&world.folder, "stranger");
    let (missing, empty) = (world.folder.file("missing.pem"), world.folder.file("empty.pem"));
    std::fs::write(&empty, "").expect("a file");
    let (right, key) = (text(&world.authority.certificate), text(&world.authority.key));
    let plain = world.redis.url();
    for (options, code, reason) in [
        (vec!["--cluster", &url], 1, "rediss:// needs --cluster-ca FILE"),
        (vec!["--cluster", &plain, "--cluster-ca", right], 1, "only for a Redis with TLS"),
        (vec!["--cluster-ca", right], 2, "only with --cluster"),
        (vec!["--cluster", &url, "--cluster-ca", text(&missing)], 1, "missing.pem: cannot read"),
        (vec!["--cluster", &url, "--cluster-ca", text(&empty)], 1, "no valid certificate found"),
        (vec!["--cluster", &url, "--cluster-ca", key], 1, "no valid certificate found"),
        (
            vec!["--cluster", &url, "--cluster-ca", text(&stranger.certificate)],
            1,
            "its certificate is not of an authority in --cluster-ca",
        ),
    ] {
        let finished = fail_to_start(&options);
        assert_eq!(finished.code, Some(code), "{options:?} {finished:?}");
        assert!(finished.stderr.contains(reason), "{options:?} {finished:?}");
    }
}

#[test]
fn a_check_tells_about_the_certificate_of_redis() {
    let world = World::new();
    let (url, ca) = (world.url(), text(&world.authority.certificate));
    let stranger = Pair::authority(&world.folder, "stranger");
    let check =
        |url: &str, ca: &str| fail_to_start(&["--check", "--cluster", url, "--cluster-ca", ca]);
    let assert_says = |finished: &Finished, code: i32, line: &str| {
        assert_eq!(finished.code, Some(code), "{finished:?}");
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(said.contains(line), "{finished:?}");
    };
    let is_left = "days left of the certificate of its Redis";
    let good = check(&url, ca);
    assert_says(&good, 0, is_left);
    assert!(!good.stdout.contains("warn"), "{good:?}");
    let other = text(&stranger.certificate);
    assert_says(&check(&url, other), 1, "its certificate is not of an authority in --cluster-ca");
    let away = format!("rediss://{}:1", world.redis.address().ip());
    assert_says(&check(&away, ca), 0, "a start waits for its Redis");
    world.set_certificate("soon", &world.names, "5");
    assert_says(&check(&url, ca), 0, "warn  cluster");
    world.set_certificate("other", "DNS:other.example.test", "30");
    assert_says(&check(&url, ca), 1, "its certificate is for another name");
}

#[test]
fn the_store_of_the_system_will_do() {
    // It has certificates of all ages, and none for this server.
    let world = World::new();
    let store = "/etc/ssl/certs/ca-certificates.crt";
    let finished = fail_to_start(&["--cluster", &world.url(), "--cluster-ca", store]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("not of an authority in --cluster-ca"), "{finished:?}");
}

//! Speak behind proxies, as docs/proxies.md recommends: the real programs, with the files that it
//! quotes.

mod common;
#[path = "proxies/link.rs"]
mod link;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use common::{
    CLUSTER_FOLDER, Client, EventStream, Folder, Identity, PROXY_FOLDER, Params, ProxyProcess,
    RECIPES, Recipe, Server, Socket, command, free_address, get_at, raise_file_limit, request,
    trusting, until,
};
use link::Link;
use serde_json::json;
use support::redis::Redis;

const GUIDE: &str = include_str!("../docs/proxies.md");
/// The same for a cluster.
const CLUSTER_GUIDE: &str = include_str!("../docs/cluster.md");

/// A running proxy, and Speak behind it.
struct Proxy {
    name: &'static str,
    process: ProxyProcess,
    server: Server,
    /// Further nodes.
    others: Vec<Server>,
}

impl Recipe {
    fn start(&self, options: &[&str]) -> Proxy {
        self.start_at(free_address(), &[&["--connection-timeout", "1h"], options].concat())
    }

    fn start_at(&self, address: SocketAddr, options: &[&str]) -> Proxy {
        let server = Server::with(&[&["--trust-proxy", "127.0.0.1"], options].concat());
        self.start_before(PROXY_FOLDER, address, vec![server])
    }

    /// Starts two nodes with a Redis, and the proxy before them.
    fn start_before_cluster(&self) -> (Redis, Proxy) {
        let redis = Redis::start();
        let start = |_| {
            let url = redis.url();
            let options = ["--trust-proxy", "127.0.0.1", "--poll-timeout", "2s"];
            let mut speak = command();
            speak.args(["--listen", "127.0.0.1:0", "--cluster", &url]).args(options);
            let node = Server::spawn_node(speak, 1);
            until("a node has joined", || node.client().get("/health", &[]).status == 200);
            node
        };
        let nodes = (0..2).map(start).collect();
        let proxy = self.start_before(CLUSTER_FOLDER, free_address(), nodes);
        (redis, proxy)
    }

    fn start_before(&self, files: &str, address: SocketAddr, mut nodes: Vec<Server>) -> Proxy {
        let addresses: Vec<_> = nodes.iter().map(Server::address).collect();
        let process = self.run_before(files, address, &addresses);
        let server = nodes.remove(0);
        Proxy { name: self.file, process, server, others: nodes }
    }
}

impl Proxy {
    fn client(&self) -> Client {
        Client::connect(self.process.address)
    }

    /// Connects with TLS.
    #[track_caller]
    fn tls_client(&self) -> Client {
        let config = trusting(&[&self.process.pair]);
        let mut client = Client::connect_tls(self.process.tls_address, &config, "chat.test");
        let shaken = client.try_shake_hands();
        assert!(shaken.is_ok(), "{}: {shaken:?}: {}", self.name, self.process.logs());
        client
    }

    /// Asserts that a member whose read is closed by `close` gets its goodbye at once, although its
    /// connection would live for an hour.
    #[track_caller]
    fn says_goodbye<T>(&self, way: &str, read: impl FnOnce(&Identity) -> T) {
        let channel = &*format!("leaving-{way}");
        let josh = self.server.introduce(channel, "Josh");
        let open = read(&josh);
        self.server.wait_for_readers(channel, 1);
        drop(open);
        until(&format!("{} tells Speak that {way} has closed", self.name), || {
            self.server.read(channel, "1").events().contains(&"goodbye closed".to_owned())
        });
    }
}

/// Opens an event stream and reads its head. Proxies cut the body into chunks, which do not matter
/// here.
fn stream(proxy: &Proxy, params: &Params) -> Client {
    EventStream::open(proxy.client(), params, &[]).client
}

fn each(check: impl Fn(&Proxy)) {
    for recipe in &RECIPES {
        check(&recipe.start(&[]));
    }
}

#[test]
fn the_guides_quote_the_tested_files() {
    for recipe in &RECIPES {
        assert_quoted(GUIDE, PROXY_FOLDER, recipe.file);
    }
    for file in ["nginx.conf", "haproxy.cfg", "redis.conf"] {
        assert_quoted(CLUSTER_GUIDE, CLUSTER_FOLDER, file);
    }
}

/// Claims that a page has the text of a file.
#[track_caller]
fn assert_quoted(page: &str, folder: &str, file: &str) {
    let text = fs::read_to_string(Path::new(folder).join(file)).expect("the file");
    assert!(page.contains(&format!("```\n{text}```\n")), "{folder}/{file} is not quoted");
}

#[test]
fn consecutive_long_polls_are_answered_when_a_message_comes() {
    each(|proxy| {
        let mut client = proxy.client();
        for id in 1..=3 {
            client.send_get("/read", &[("channel", "room"), ("from_id", &id.to_string())]);
            proxy.server.wait_for_readers("room", 1);
            proxy.server.write("room", "howdy");
            assert_eq!(client.response().ok().ids(), [id], "{}", proxy.name);
        }
        // A read that gets no message is answered at its timeout.
        let answer = client.get("/read", &[("channel", "room"), ("timeout", "2")]).ok();
        assert_eq!(answer.ids(), [0; 0], "{}", proxy.name);
    });
}

/// A script tag writes by its query. `HAProxy` has no room for more than 16 KiB of a head.
#[test]
fn a_query_of_15_kib_passes_nginx_and_caddy() {
    let text = "x".repeat(15 * 1024);
    let write = [("channel", "room"), ("message", &*text)];
    each(|proxy| {
        let status = proxy.client().get("/write", &write).status;
        assert_eq!(status, if proxy.name == "haproxy.cfg" { 400 } else { 200 }, "{}", proxy.name);
    });
    let (_redis, nginx) = RECIPES[0].start_before_cluster();
    nginx.client().get("/write", &write).ok();
}

#[test]
fn https_carries_calls_long_polls_streams_and_web_sockets() {
    each(|proxy| {
        let connect = || proxy.tls_client();
        let mut client = connect();
        client.send_get("/read", &[("channel", "room")]);
        proxy.server.wait_for_readers("room", 1);
        connect().get("/write", &[("channel", "room"), ("message", "howdy")]).ok();
        assert_eq!(client.response().ok().texts(), ["howdy"], "{}", proxy.name);
        let params = [("channel", "room"), ("from_id", "2")];
        let mut events = EventStream::open(connect(), &params, &[]).client;
        let mut socket = Socket::open(connect(), &params, &[]);
        proxy.server.wait_for_readers("room", 2);
        proxy.server.write("room", "twice");
        assert!(events.take_until(b"twice").is_some(), "{}", proxy.name);
        assert!(socket.text().contains("twice"), "{}", proxy.name);
    });
}

#[test]
fn plain_http_is_redirected_if_speak_is_to_do_that() {
    for recipe in &RECIPES {
        let proxy = recipe.start(&["--redirect-https"]);
        let plain = proxy.client().get("/", &[]);
        let location = plain.header("Location").unwrap_or_default().to_owned();
        assert_eq!(plain.status, 308, "{}", proxy.name);
        assert!(location.starts_with("https://"), "{}: {location}", proxy.name);
        proxy.tls_client().get("/members", &[("channel", "room")]).ok();
        proxy.client().get("/health", &[]).ok();
    }
}

#[test]
fn nginx_serves_http_2() {
    let proxy = RECIPES[0].start(&[]);
    proxy.server.write("room", "howdy");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--http2", "--write-out", " HTTP/%{http_version}", "--cacert"]);
    curl.arg(&proxy.process.pair.certificate);
    let address = proxy.process.tls_address;
    curl.arg("--resolve").arg(format!("chat.test:{}:{}", address.port(), address.ip()));
    let target = format!("https://chat.test:{}/read?channel=room&from_id=0", address.port());
    let finished = run_command(curl.arg(target));
    assert!(finished.contains("howdy") && finished.ends_with(" HTTP/2"), "{finished}");
}

/// Returns the output of a command that succeeds.
fn run_command(command: &mut Command) -> String {
    let output = command.output().expect("a program of `make deps`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn each_event_of_a_stream_comes_before_the_next_is_written() {
    each(|proxy| {
        let mut events = stream(proxy, &[("channel", "room"), ("from_id", "1")]);
        proxy.server.wait_for_readers("room", 1);
        for text in ["one", "two", "three"] {
            proxy.server.write("room", text);
            let data = events.take_until(format!("\"message\":\"{text}\"}}\n\n").as_bytes());
            assert!(data.is_some(), "{} ends the stream", proxy.name);
        }
    });
}

#[test]
fn a_websocket_works_in_both_directions() {
    each(|proxy| {
        let mut socket = Socket::open(proxy.client(), &[("channel", "room")], &[]);
        for text in ["one", "two"] {
            socket.ask(&json!({"call": "write", "channel": "room", "message": text, "ref": 1}));
            let frames = [socket.json(), socket.json()];
            let is_there = frames.iter().any(|it| it["messages"][0]["message"] == text);
            let is_answered = frames.iter().any(|it| it["ref"] == 1);
            assert!(is_there && is_answered, "{}: {frames:?}", proxy.name);
        }
    });
}

#[test]
fn a_closed_client_gets_its_goodbye_at_once() {
    each(|proxy| {
        proxy.says_goodbye("a long poll", |josh| {
            let mut client = proxy.client();
            client.send_get("/read", &josh.and(&[("channel", "leaving-a long poll")]));
            client
        });
        proxy.says_goodbye("a stream", |josh| {
            stream(proxy, &josh.and(&[("channel", "leaving-a stream")]))
        });
        proxy.says_goodbye("a socket", |josh| {
            Socket::open(proxy.client(), &josh.and(&[("channel", "leaving-a socket")]), &[])
        });
    });
}

#[test]
fn a_member_whose_link_to_nginx_is_cut_is_gone_in_time() {
    if !link::is_ready("a_member_whose_link_to_nginx_is_cut_is_gone_in_time") {
        return;
    }
    let link = Link::new();
    let options = ["--heartbeat", "300ms", "--stream-life", "2s", "--connection-timeout", "2s"];
    let proxy = RECIPES[0].start_at(link.free_address(), &options);
    let server = &proxy.server;
    let connect = || link.connect(proxy.process.address);
    let ann = server.introduce("socket", "Ann");
    let mut socket = Socket::open(connect(), &ann.and(&[("channel", "busy")]), &[]);
    until("the socket has answered some pings in a busy channel", || {
        server.write("busy", "m");
        socket.texts() == ["m"] && socket.pings > 3
    });
    let josh = server.introduce("stream", "Josh");
    let events = EventStream::open(connect(), &josh.and(&[("channel", "busy")]), &[]);
    server.wait_for_readers("busy", 2);
    link.cut();
    until("both are gone", || {
        server.write("busy", "m");
        server.readers("busy") == 0 && server.read("stream", "2").ids() == [2]
    });
    // The socket was closed, since its peer did not answer. The stream ended, and did not return.
    let goodbyes = ["socket", "stream"].map(|channel| server.read(channel, "2").events());
    assert_eq!(goodbyes, [["goodbye closed"], ["goodbye timeout"]]);
    drop((socket, events));
}

#[test]
fn a_log_has_paths_and_no_channel_message_or_auth_code() {
    for recipe in &RECIPES {
        let mut proxy = recipe.start(&[]);
        let channel = "quietroom";
        let page = [("Referer", "http://chat.example.org/?channel=quietroom")];
        let mut client = proxy.client();
        let params = [("channel", channel), ("message", "hushedname")];
        let josh = Identity::from_answer(&client.get("/introduce", &params).ok());
        let text = josh.and(&[("channel", channel), ("message", "hushedtext")]);
        client.get_with("/write", &text, &page).ok();
        client.post_form("/write", &text).ok();
        let inbox = client.get("/create", &[]).ok().json();
        let inbox = ["read", "write"].map(|key| inbox[key].as_str().expect("a name").to_owned());
        client.get("/write", &[("channel", &*inbox[1]), ("message", "hushedtext")]).ok();
        let own = [("channel", channel), ("channel", &*inbox[0])];
        let params = josh.and(&[own[0], own[1], ("from_id", "0"), ("from_id", "0")]);
        let answer = client.get_with("/read", &params, &page).ok();
        assert_eq!(answer.text().matches("hushedtext").count(), 3, "{}", proxy.name);
        client.get("/members", &[own[0], ("callback", "quietcallback")]).ok();
        drop(stream(&proxy, &josh.and(&own)));
        drop(Socket::open(proxy.client(), &own, &[]));
        // A request that the proxy rejects, and one that it cannot pass on.
        let head = "GET /read?channel=quietroom HTTP/1.1\r\nHost: x\r\nHushedtext\r\n\r\n";
        proxy.client().send(head);
        proxy.server.stop();
        let status = proxy.client().get_with("/read", &own, &page).status;
        assert!([502, 503].contains(&status), "{}: {status}", proxy.name);
        let is_logged = |logs: &str, path, times| logs.matches(path).count() >= times;
        until(&format!("{} has logged each path", proxy.name), || {
            let logs = proxy.process.logs();
            [("/introduce", 1), ("/write", 3), ("/create", 1), ("/read", 4), ("/members", 1)]
                .iter()
                .all(|(path, times)| is_logged(&logs, path, *times))
        });
        let logs = proxy.process.logs();
        let [read, write] = &inbox;
        for secret in ["quiet", "ushed", &josh.auth, &read[1..], &write[1..]] {
            assert!(!logs.contains(secret), "{} has logged {secret}: {logs}", proxy.name);
        }
    }
}

#[test]
fn an_address_has_at_most_a_hundred_clients() {
    // Caddy has no such limit.
    for recipe in &RECIPES[..2] {
        let proxy = recipe.start(&["--poll-timeout", "1h"]);
        let read = |from: [u8; 4]| {
            let mut client = Client::connect_from(from, proxy.process.address);
            client.send_get("/read", &[("channel", "room")]);
            client
        };
        let _readers: Vec<_> = (0..100).map(|_| read([127, 0, 0, 2])).collect();
        proxy.server.wait_for_readers("room", 100);
        assert_eq!(read([127, 0, 0, 2]).response().status, 429, "{}", proxy.name);
        let mut other = read([127, 0, 0, 3]);
        proxy.server.wait_for_readers("room", 101);
        proxy.server.write("room", "howdy");
        assert_eq!(other.response().ok().ids(), [1], "{}", proxy.name);
    }
}

#[test]
fn a_thousand_readers_wait_at_once() {
    raise_file_limit();
    for recipe in &RECIPES {
        let proxy = recipe.start(&["--poll-timeout", "1h"]);
        let reader = |number: u8| {
            let mut client = Client::connect_from([127, 0, 0, number], proxy.process.address);
            client.send_get("/read", &[("channel", "room")]);
            client
        };
        // 50 clients for each of 20 addresses.
        let _readers: Vec<_> = (2..22).cycle().take(1_000).map(reader).collect();
        proxy.server.wait_for_readers("room", 1_000);
    }
}

#[test]
fn limits_count_the_client_not_the_proxy_or_a_forged_address() {
    for recipe in &RECIPES {
        let proxy = &recipe.start(&["--max-rate", "1"]);
        let params = [("channel", "room"), ("message", "m")];
        let mut one = Client::connect_from([127, 0, 0, 2], proxy.process.address);
        until("the limit is reached", || {
            // An address forged by the client has no effect.
            one.get_with("/write", &params, &[("X-Forwarded-For", "192.0.2.1")]).status == 429
        });
        let mut other = Client::connect_from([127, 0, 0, 3], proxy.process.address);
        for _ in 0..5 {
            assert_eq!(other.get("/write", &params).status, 200, "{}", proxy.name);
        }
    }
}

#[test]
fn requests_share_connections_to_speak() {
    for recipe in &RECIPES {
        let folder = Folder::new("admin");
        let socket = folder.file("sock");
        let admin = format!("unix:{}", socket.display());
        let proxy = &recipe.start(&["--admin-listen", &admin, "--log", "debug"]);
        let mut client = proxy.client();
        for _ in 0..20 {
            client.get("/health", &[]).ok();
        }
        drop(client);
        // One connection stays although its client has closed; the client that asks has the other.
        let metrics = get_at(&socket, "/metrics");
        let clients = metrics.lines().find_map(|line| line.strip_prefix("speak_clients "));
        let clients: u32 = clients.expect("a number").parse().expect("a number");
        assert!((1..5).contains(&clients), "{}: {clients} connections", proxy.name);
    }
}

#[test]
fn cross_origin_pages_can_call_and_caches_keep_nothing() {
    each(|proxy| {
        let mut client = proxy.client();
        let origin = [("Origin", "https://example.org")];
        let params = [("channel", "room"), ("from_id", "0"), ("timeout", "0")];
        let answer = client.get_with("/read", &params, &origin).ok();
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{}", proxy.name);
        let cache = answer.header("cache-control").unwrap_or_default();
        assert!(cache.contains("no-store"), "{}: {answer:?}", proxy.name);
        let asks = [origin[0], ("Access-Control-Request-Method", "POST")];
        client.send(request("OPTIONS", "/write", &asks, None));
        let head = client.head();
        assert!(head.header("access-control-allow-methods").is_some(), "{}: {head:?}", proxy.name);
    });
}

/// nginx and `HAProxy` give consecutive requests to different nodes, also those of one client.
#[test]
fn two_nodes_in_turn_are_like_one() {
    for recipe in &RECIPES[..2] {
        let (_redis, proxy) = recipe.start_before_cluster();
        let name = proxy.name;
        let mut client = proxy.client();
        let mut call = |path: &str, params: &Params| client.get(path, params).ok();
        let greeting = [("channel", "room"), ("message", "Josh")];
        let josh = Identity::from_answer(&call("/introduce", &greeting));
        let mut waiting = proxy.client();
        let in_room = ("channel", "room");
        waiting.send_get("/read", &josh.and(&[in_room, ("from_id", "2")]));
        let mut events = stream(&proxy, &[in_room, ("from_id", "2")]);
        let mut socket = Socket::open(proxy.client(), &[in_room, ("from_id", "2")], &[]);
        // What was acknowledged is seen by the next read, at the other node.
        for id in 2..=9 {
            let text = id.to_string();
            let written = call("/write", &josh.and(&[in_room, ("message", &text)]));
            assert_eq!(written.json()["id"], id, "{name}");
            let read = call("/read", &[in_room, ("from_id", &text), ("timeout", "0")]);
            assert_eq!(read.texts(), [text], "{name}");
            let members = call("/members", &[in_room]).json();
            assert_eq!(members["members"][0]["connection"], josh.number, "{name}");
        }
        assert_eq!(waiting.response().ok().ids().first(), Some(&2), "{name}");
        let data = events.take_until(b"\"message\":\"9\"}\n\n").expect("an event");
        assert!(String::from_utf8_lossy(&data).contains("\"message\":\"2\"}"), "{name}");
        let mut texts = Vec::new();
        while texts.len() < 8 {
            texts.extend(socket.texts());
        }
        assert_eq!(texts.concat(), "23456789", "{name}");
        socket.ask(&json!({"call": "write", "channel": "room", "message": "by frame", "ref": 1}));
        let frames = [socket.json(), socket.json()];
        assert!(frames.iter().any(|it| it["id"] == 10), "{name}: {frames:?}");
        // A newer poll supersedes the older one at the other node.
        let mut polls = [proxy.client(), proxy.client()];
        let poll = josh.and(&[in_room, ("from_id", "11")]);
        for poller in &mut polls {
            poller.send_get("/read", &poll);
            let nodes = [&proxy.server].into_iter().chain(&proxy.others);
            nodes.for_each(|node| node.wait_for_readers("room", 3));
        }
        assert_eq!(polls[0].response().ok().ids(), [0; 0], "{name}");
        call("/goodbye", &josh.and(&[]));
        assert_eq!(polls[1].response().ok().events(), ["goodbye left"], "{name}");
        for _ in 0..2 {
            let members = call("/members", &[in_room]).json();
            assert_eq!(members["members"].as_array().map(Vec::len), Some(0), "{name}");
        }
    }
}

/// A proxy that loses a node goes on with the other one, and so do its clients.
#[test]
fn a_node_may_go_behind_a_proxy() {
    for recipe in &RECIPES[..2] {
        let (_redis, mut proxy) = recipe.start_before_cluster();
        proxy.server.write("room", "before");
        let mut gone = proxy.others.remove(0);
        gone.forget();
        drop(gone);
        let read = [("channel", "room"), ("from_id", "1"), ("timeout", "0")];
        let mut count = 0;
        until("the other node answers all requests", || {
            let answer = proxy.client().get("/read", &read);
            count = if answer.status == 200 { count + 1 } else { 0 };
            count == 10
        });
        assert_eq!(proxy.client().get("/read", &read).ok().texts(), ["before"], "{}", proxy.name);
    }
}

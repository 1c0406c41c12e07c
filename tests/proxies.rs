//! Speak behind proxies, as docs/proxies.md recommends: the real programs, with the files that it
//! quotes.

mod common;
#[path = "proxies/link.rs"]
mod link;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{
    Client, EventStream, Folder, Identity, Params, Running, Server, Socket, command, free_address,
    get_at, raise_file_limit, request, until,
};
use link::Link;
use rustix::process::{Pid, Signal, getuid, kill_process_group};
use serde_json::json;
use support::redis::Redis;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/proxies");
/// The same for a cluster of two nodes.
const CLUSTER_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/cluster");
/// Addresses of the nodes in the files.
const NODES: [&str; 2] = ["127.0.0.1:8080", "127.0.0.1:8081"];
/// Folder of nginx's logs, as in its file.
const NGINX_LOGS: &str = "/var/log/nginx";
const GUIDE: &str = include_str!("../docs/proxies.md");

/// A proxy and its configuration.
struct Recipe {
    file: &'static str,
    /// The public address in the file, and its replacement in a test.
    listener: (&'static str, &'static str),
    run: fn(&Path, &Path) -> Command,
}

const RECIPES: [Recipe; 3] = [
    Recipe { file: "nginx.conf", listener: ("listen 80;", "listen ADDRESS;"), run: nginx },
    Recipe { file: "haproxy.cfg", listener: ("bind :80 ", "bind ADDRESS "), run: haproxy },
    Recipe {
        file: "Caddyfile",
        listener: ("chat.example.org {", "http://:PORT {\n\tbind IP"),
        run: caddy,
    },
];

/// Returns the lines outside of the http block that the comment of nginx's file asks for.
fn main_lines(folder: &Path, file: &Path) -> String {
    let text = fs::read_to_string(file).expect("the configuration");
    let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("#     ")).collect();
    lines.join("\n").replace(NGINX_LOGS, &folder.display().to_string())
}

/// nginx needs a frame around the contents of its http block. As Debian's, it logs queries.
fn nginx(folder: &Path, file: &Path) -> Command {
    let place = |name: &str| folder.join(name).display().to_string();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|name| format!("{name}_temp_path {};", place(name))).join(" ");
    // Root has to name a user; in a namespace, it may be the only one.
    let user = if getuid().is_root() { "user root;" } else { "" };
    let frame = format!(
        "daemon off; {user} pid {}; {} http {{ access_log {}; {temporary} include {}; }}",
        place("pid"),
        main_lines(folder, file),
        place("access.log"),
        file.display(),
    );
    fs::write(folder.join("frame.conf"), frame).expect("a configuration");
    // systemd starts it with this limit.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 1024 && exec nginx -e stderr -c \"$1\"", "sh"]);
    command.arg(folder.join("frame.conf"));
    command
}

fn haproxy(_: &Path, file: &Path) -> Command {
    // As Debian's, its defaults log queries.
    let text = fs::read_to_string(file).expect("the configuration");
    let frame = "global\n log stdout format raw local0\ndefaults\n log global\n option httplog\n";
    fs::write(file, format!("{frame}{text}")).expect("a configuration");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    command
}

fn caddy(folder: &Path, file: &Path) -> Command {
    // Its admin port would be the same for all instances.
    let text = fs::read_to_string(file).expect("the configuration");
    let (comment, rules) = text.split_once("\n{\n").expect("global options");
    fs::write(file, format!("{comment}\n{{\n\tadmin off\n{rules}")).expect("a configuration");
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    command
}

/// A running proxy, and Speak behind it.
struct Proxy {
    name: &'static str,
    running: Running,
    address: SocketAddr,
    folder: Folder,
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
        self.start_before(FOLDER, address, vec![server])
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
        let nodes = NODES.map(start).into();
        let proxy = self.start_before(CLUSTER_FOLDER, free_address(), nodes);
        (redis, proxy)
    }

    fn start_before(&self, files: &str, address: SocketAddr, mut nodes: Vec<Server>) -> Proxy {
        let folder = Folder::new("proxy");
        let file = folder.file(self.file);
        let addresses: Vec<_> = nodes.iter().map(Server::address).collect();
        let text = self.configuration(files, folder.path(), address, &addresses);
        let server = nodes.remove(0);
        fs::write(&file, text).expect("a configuration");
        let log = fs::File::create(folder.file("log")).expect("a log");
        let mut command = (self.run)(folder.path(), &file);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        // A process group of its own, so that its workers end with it.
        let running = Running::start(command.process_group(0));
        let mut proxy = Proxy { name: self.file, running, address, folder, server, others: nodes };
        until(&format!("{} listens", self.file), || {
            let status = proxy.running.status();
            let said = || fs::read_to_string(proxy.folder.file("log"));
            assert!(status.is_none(), "{} ended with {status:?}: {:?}", self.file, said());
            TcpStream::connect(address).is_ok()
        });
        proxy
    }

    /// Returns the file with other addresses, and with its logs in the folder.
    fn configuration(
        &self,
        files: &str,
        folder: &Path,
        address: SocketAddr,
        servers: &[SocketAddr],
    ) -> String {
        let text = fs::read_to_string(Path::new(files).join(self.file)).expect("the recipe");
        // The first lines, which are about Speak, stay unchanged.
        let (comment, rules) = text.split_once("\n\n").expect("lines about Speak");
        let replaced = |text: &str, old: &str, new: &str| {
            assert_eq!(text.matches(old).count(), 1, "{old:?} in {}", self.file);
            text.replace(old, new)
        };
        let mut rules = rules.to_owned();
        for (node, server) in NODES.iter().zip(servers) {
            rules = replaced(&rules, node, &server.to_string());
        }
        let listener = self.listener.1.replace("ADDRESS", &address.to_string());
        let listener = listener
            .replace("PORT", &address.port().to_string())
            .replace("IP", &address.ip().to_string());
        let rules = replaced(&rules, self.listener.0, &listener);
        let rules = rules.replace(NGINX_LOGS, &folder.display().to_string());
        format!("{comment}\n\n{rules}")
    }
}

impl Proxy {
    fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Returns everything that the proxy has logged.
    fn logs(&self) -> String {
        let files = fs::read_dir(self.folder.path()).expect("a folder");
        let paths = files.map(|file| file.expect("a file").path());
        let logs = paths.filter(|path| path.to_string_lossy().ends_with("log"));
        logs.map(|path| String::from_utf8_lossy(&fs::read(path).expect("a log")).into_owned())
            .collect()
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

impl Drop for Proxy {
    fn drop(&mut self) {
        // Fails only if the proxy has exited.
        let _ = kill_process_group(Pid::from_child(&self.running.0), Signal::KILL);
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
fn the_guide_quotes_the_tested_files() {
    for recipe in &RECIPES {
        let text = fs::read_to_string(Path::new(FOLDER).join(recipe.file)).expect("the recipe");
        let is_quoted = GUIDE.contains(&format!("```\n{text}```\n"));
        assert!(is_quoted, "docs/proxies.md does not quote {}", recipe.file);
    }
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
    let connect = || link.connect(proxy.address);
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
            let logs = proxy.logs();
            [("/introduce", 1), ("/write", 3), ("/create", 1), ("/read", 4), ("/members", 1)]
                .iter()
                .all(|(path, times)| is_logged(&logs, path, *times))
        });
        let logs = proxy.logs();
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
            let mut client = Client::connect_from(from, proxy.address);
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
            let mut client = Client::connect_from([127, 0, 0, number], proxy.address);
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
        let mut one = Client::connect_from([127, 0, 0, 2], proxy.address);
        until("the limit is reached", || {
            // An address forged by the client has no effect.
            one.get_with("/write", &params, &[("X-Forwarded-For", "192.0.2.1")]).status == 429
        });
        let mut other = Client::connect_from([127, 0, 0, 3], proxy.address);
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

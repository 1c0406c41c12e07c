//! The admin listener and its metrics. They are exact: each count is compared with the calls made.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, Stdio};

use common::{Client, EventStream, Server, command, request, until};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::json;

/// A server with an admin listener, and a persistent client of that.
struct Watched {
    server: Server,
    operator: Client,
}

/// A page of metrics.
struct Page(String);

impl Watched {
    fn with(options: &[&str]) -> Self {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).args(options);
        let server = Server::spawn(command, 2);
        let operator = Client::connect(admin_address(&server));
        Self { server, operator }
    }

    #[track_caller]
    fn page(&mut self) -> Page {
        let answer = self.operator.get("/metrics", &[]).ok();
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Page(answer.text().to_owned())
    }

    #[track_caller]
    fn metric(&mut self, sample: &str) -> u64 {
        self.page().count(sample)
    }

    /// Waits until a sample has this value.
    #[track_caller]
    fn wait_for(&mut self, sample: &str, value: u64) {
        until(&format!("{sample} is {value}"), || self.metric(sample) == value);
    }
}

fn admin_address(server: &Server) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.port(1)))
}

impl Page {
    /// Returns the value of a sample; 0 if it is not there.
    #[track_caller]
    fn value(&self, sample: &str) -> Option<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        lines.find(|(its, _)| *its == sample).map(|(_, value)| value)
    }

    #[track_caller]
    fn count(&self, sample: &str) -> u64 {
        self.value(sample)
            .unwrap_or("0")
            .parse()
            .unwrap_or_else(|_| panic!("{sample} is no whole number"))
    }

    /// Returns all samples of a name, with their labels.
    fn samples(&self, name: &str) -> Vec<String> {
        let start = format!("{name}{{");
        self.0
            .lines()
            .filter(|line| line.starts_with(&start))
            .map(|line| line[name.len()..].to_owned())
            .collect()
    }
}

#[test]
fn every_name_has_its_type_before_its_first_event() {
    let mut watched = Watched::with(&[]);
    let page = watched.page();
    let names = [
        ("speak_clients", "gauge"),
        ("speak_readers", "gauge"),
        ("speak_channels", "gauge"),
        ("speak_connections", "gauge"),
        ("speak_messages_retained", "gauge"),
        ("speak_memory_bytes", "gauge"),
        ("speak_requests_total", "counter"),
        ("speak_messages_total", "counter"),
        ("speak_deliveries_total", "counter"),
        ("speak_goodbyes_total", "counter"),
        ("speak_clients_refused_total", "counter"),
        ("speak_history_dropped_total", "counter"),
        ("speak_loop_seconds", "histogram"),
        ("process_cpu_seconds_total", "counter"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_virtual_memory_bytes", "gauge"),
        ("process_open_fds", "gauge"),
        ("process_max_fds", "gauge"),
        ("process_start_time_seconds", "gauge"),
        ("process_threads", "gauge"),
    ];
    let lines: Vec<_> = page.0.lines().collect();
    for (name, kind) in names {
        let place = lines.iter().position(|line| *line == format!("# TYPE {name} {kind}"));
        let place = place.unwrap_or_else(|| panic!("no {kind} {name} in {}", page.0));
        assert!(lines[place - 1].starts_with(&format!("# HELP {name} ")), "{}", lines[place - 1]);
    }
    assert_eq!(page.samples("speak_requests_total"), Vec::<String>::new());
    assert_eq!(page.value("process_threads"), Some("1"));
}

#[test]
fn every_request_is_counted_by_call_and_status() {
    let mut watched = Watched::with(&[]);
    let server = &watched.server;
    for _ in 0..3 {
        server.write("channel", "message");
    }
    server.get("/write", &[("channel", "channel")]).fails_with(400, "missing_parameter");
    // An error in a script tag counts as an error, whatever status the tag gets.
    let script = server.get("/write", &[("channel", "channel"), ("callback", "f")]);
    assert_eq!(script.status, 200);
    server.client().post_form("/write", &[("channel", "channel"), ("message", "form")]).ok();
    server.read("channel", "0");
    let me = server.introduce("channel", "Josh");
    server.get("/goodbye", &[("connection", "1"), ("auth", "wrong")]).fails_with(403, "bad_auth");
    server.get("/goodbye", &[("connection", "1"), ("auth", &me.auth)]).ok();
    server
        .get("/goodbye", &[("connection", "1"), ("auth", &me.auth)])
        .fails_with(410, "connection_ended");
    server.get("/create", &[]).ok();
    server.get("/health", &[]).ok();
    server.client().send("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n");
    server.get("/image-test", &[]).ok();
    server.get("/", &[]).ok();
    let tag = server.get("/speak.js", &[]).ok().header("etag").expect("a tag").to_owned();
    let mut client = server.client();
    client.send(request("GET", "/speak.js", &[("If-None-Match", &tag)], None));
    assert_eq!(client.head().status, 304);
    let call = |bytes: &str| server.client().call(bytes).status;
    assert_eq!(call("OPTIONS /write HTTP/1.1\r\nHost: x\r\n\r\n"), 204);
    assert_eq!(call("PUT /write HTTP/1.1\r\nHost: x\r\n\r\n"), 405);
    assert_eq!(call("POST /speak.js HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), 405);
    assert_eq!(call("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"), 404);
    assert_eq!(call("get / HTTP/1.1\r\nHost: x\r\n\r\n"), 501);
    assert_eq!(call("GET / HTTP/1.1\r\n\r\n"), 400);
    // Two requests in one send count as two.
    let mut client = server.client();
    client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
    assert_eq!([client.response().status, client.response().status], [200, 200]);
    watched.wait_for("speak_requests_total{call=\"health\",status=\"200\"}", 4);
    let expected = [
        "{call=\"read\",status=\"200\"} 1",
        "{call=\"write\",status=\"200\"} 4",
        "{call=\"write\",status=\"400\"} 2",
        "{call=\"introduce\",status=\"200\"} 1",
        "{call=\"goodbye\",status=\"200\"} 1",
        "{call=\"goodbye\",status=\"403\"} 1",
        "{call=\"goodbye\",status=\"410\"} 1",
        "{call=\"create\",status=\"200\"} 1",
        "{call=\"health\",status=\"200\"} 4",
        "{call=\"image-test\",status=\"200\"} 1",
        "{call=\"file\",status=\"200\"} 2",
        "{call=\"file\",status=\"304\"} 1",
        "{call=\"file\",status=\"405\"} 1",
        "{call=\"preflight\",status=\"204\"} 1",
        "{call=\"none\",status=\"400\"} 1",
        "{call=\"none\",status=\"404\"} 1",
        "{call=\"none\",status=\"501\"} 1",
        "{call=\"write\",status=\"405\"} 1",
    ];
    let mut counted = watched.page().samples("speak_requests_total");
    counted.sort_unstable();
    let mut expected = expected.map(str::to_owned);
    expected.sort_unstable();
    assert_eq!(counted, expected);
}

#[test]
fn long_polls_count_when_answered_and_streams_when_started() {
    let mut watched = Watched::with(&["--heartbeat", "1h"]);
    let read = "speak_requests_total{call=\"read\",status=\"200\"}";
    let params = [("channel", "channel")];
    let mut poll = watched.server.client();
    poll.send_get("/read", &params);
    watched.wait_for("speak_readers", 1);
    assert_eq!(watched.metric(read), 0);
    let mut events = EventStream::open(watched.server.client(), &params, &[]);
    events.beginning();
    let mut socket = watched.server.socket(&params);
    let page = watched.page();
    assert_eq!(page.count("speak_readers"), 3);
    assert_eq!(page.count(read), 1);
    assert_eq!(page.count("speak_requests_total{call=\"read\",status=\"101\"}"), 1);
    assert_eq!(page.count("speak_deliveries_total"), 0);

    watched.server.write("channel", "one");
    assert_eq!(poll.response().texts(), ["one"]);
    assert_eq!((events.texts(1), socket.texts()), (vec!["one".to_owned()], vec!["one".to_owned()]));
    let page = watched.page();
    assert_eq!((page.count(read), page.count("speak_readers")), (2, 2));
    assert_eq!(page.count("speak_deliveries_total"), 3);

    // Frames count as the calls they make; a frame without a call is counted too.
    let write = json!({"call": "write", "channel": "elsewhere", "message": "two", "ref": 1});
    assert_eq!(socket.call(&write), json!({"ref": 1, "id": 1}));
    socket.call(&json!({"call": "write", "channel": "elsewhere"}));
    socket.call(&json!({"call": "dance"}));
    let page = watched.page();
    let status_of = |call, status| {
        page.count(&format!("speak_requests_total{{call=\"{call}\",status=\"{status}\"}}"))
    };
    assert_eq!(
        (status_of("write", 200), status_of("write", 400), status_of("none", 400)),
        (2, 1, 1)
    );
    // No reader waits there, and a read that is answered at once did not wait.
    watched.server.read("elsewhere", "0");
    assert_eq!(watched.metric("speak_deliveries_total"), 3);
}

#[test]
fn an_empty_long_poll_is_no_delivery() {
    let mut watched = Watched::with(&["--poll-timeout", "50ms"]);
    watched.server.get("/read", &[("channel", "channel")]).ok();
    let page = watched.page();
    assert_eq!(page.count("speak_requests_total{call=\"read\",status=\"200\"}"), 1);
    assert_eq!((page.count("speak_deliveries_total"), page.count("speak_readers")), (0, 0));
}

#[test]
fn goodbyes_are_counted_by_reason_and_gauges_return_to_zero() {
    let mut watched = Watched::with(&["--connection-timeout", "300ms", "--retention", "1s"]);
    let goodbyes = |reason: &str| format!("speak_goodbyes_total{{reason=\"{reason}\"}}");
    let server = &watched.server;
    let params = |auth| [("channel", "channel"), ("connection", "1"), ("auth", auth)];
    let me = server.introduce("channel", "closes");
    let mut reader = server.client();
    reader.send_get("/read", &params(&me.auth));
    watched.wait_for("speak_readers", 1);
    let page = watched.page();
    assert_eq!((page.count("speak_connections"), page.count("speak_channels")), (1, 1));
    assert!(page.count("speak_clients") >= 1, "the reader at least");
    assert!(page.count("speak_memory_bytes") > 0);
    reader.reset();
    watched.wait_for(&goodbyes("closed"), 1);

    let other = watched.server.introduce("channel", "leaves");
    watched.server.get("/goodbye", &[("connection", "2"), ("auth", &other.auth)]).ok();
    assert_eq!(watched.metric(&goodbyes("left")), 1);
    watched.server.introduce("channel", "falls silent");
    watched.wait_for(&goodbyes("timeout"), 1);
    let page = watched.page();
    assert_eq!((page.count(&goodbyes("closed")), page.count(&goodbyes("left"))), (1, 1));
    let of_type = |kind: &str| page.count(&format!("speak_messages_total{{type=\"{kind}\"}}"));
    assert_eq!((of_type("introduction"), of_type("goodbye"), of_type("message")), (3, 3, 0));
    for gauge in ["speak_clients", "speak_readers", "speak_connections", "speak_messages_retained"]
    {
        watched.wait_for(gauge, 0);
    }
    assert_eq!(watched.metric("speak_history_dropped_total{reason=\"age\"}"), 6);
}

#[test]
fn dropped_history_is_counted_by_reason() {
    let dropped = |reason: &str| format!("speak_history_dropped_total{{reason=\"{reason}\"}}");
    for (history, retained) in [("2", 2), ("0", 0)] {
        let mut watched = Watched::with(&["--history", history]);
        for _ in 0..5 {
            watched.server.write("channel", "message");
        }
        watched.wait_for("speak_messages_retained", retained);
        let page = watched.page();
        assert_eq!(page.count(&dropped("count")), 5 - retained, "--history {history}");
        assert_eq!((page.count(&dropped("age")), page.count(&dropped("memory"))), (0, 0));
        assert_eq!(page.count("speak_messages_total{type=\"message\"}"), 5);
    }

    let mut watched = Watched::with(&["--max-memory", "64k"]);
    for _ in 0..40 {
        watched.server.write("channel", &"m".repeat(4_000));
    }
    let page = watched.page();
    let (gone, left) = (page.count(&dropped("memory")), page.count("speak_messages_retained"));
    assert!(gone > 0 && left > 0, "{gone} gone and {left} left");
    assert_eq!(
        (gone + left, page.count(&dropped("count")), page.count(&dropped("age"))),
        (40, 0, 0)
    );
    assert!(page.count("speak_memory_bytes") <= page.count("speak_memory_max_bytes"));
    assert_eq!(page.count("speak_memory_max_bytes"), 64 << 10);
}

#[test]
fn rejected_clients_are_counted_and_the_admin_listener_still_serves() {
    let refused = |reason: &str| format!("speak_clients_refused_total{{reason=\"{reason}\"}}");
    let mut watched = Watched::with(&["--max-clients", "2"]);
    let mut clients = [watched.server.client(), watched.server.client()];
    for client in &mut clients {
        client.get("/health", &[]).ok();
    }
    for _ in 0..3 {
        let mut shed = watched.server.client();
        shed.response().fails_with(503, "over_capacity");
    }
    let page = watched.page();
    assert_eq!((page.count("speak_clients"), page.count("speak_clients_max")), (2, 2));
    assert_eq!(page.count(&refused("max_clients")), 3);
    // These clients sent no request: none of theirs was refused.
    assert_eq!(page.samples("speak_requests_total"), ["{call=\"health\",status=\"200\"} 2"]);

    let mut watched = Watched::with(&["--max-clients-per-address", "2"]);
    let mut clients = [watched.server.client(), watched.server.client()];
    for client in &mut clients {
        client.get("/health", &[]).ok();
    }
    watched.server.client().response().fails_with(429, "too_many_requests");
    let page = watched.page();
    assert_eq!(
        (page.count(&refused("max_clients_per_address")), page.count(&refused("max_clients"))),
        (1, 0)
    );
}

#[test]
fn clients_without_a_descriptor_are_counted_and_logged_at_most_once_per_second() {
    let mut watched = Watched::with(&[]);
    let mut inside = watched.server.client();
    inside.get("/health", &[]).ok();
    let open = watched.metric("process_open_fds");
    let pid = Pid::from_raw(i32::try_from(watched.server.id()).expect("a process id"))
        .expect("one above 0");
    let all =
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(open), maximum: Some(open) });
    assert!(all.expect("limiting our own child").current > Some(open));
    assert_eq!(watched.metric("process_max_fds"), open);
    let refused = "speak_clients_refused_total{reason=\"descriptors\"}";
    // Lower descriptors may be free.
    let mut others = Vec::new();
    until("there is no descriptor left", || {
        others.push(watched.server.client());
        watched.metric(refused) > 0
    });
    let before = watched.metric(refused);
    for round in 1..=3 {
        watched.server.client().response().fails_with(503, "over_capacity");
        until("it is counted", || watched.metric(refused) >= before + round);
    }
    inside.get("/health", &[]).ok();
    // Four or more in some 0.4 seconds. On a machine so slow that it takes longer, once for each
    // second.
    let warnings: Vec<_> =
        watched.server.log().into_iter().filter(|line| line.contains("cannot accept")).collect();
    let second = |line: &String| line[..19].to_owned();
    let mut seconds: Vec<_> = warnings.iter().map(second).collect();
    seconds.dedup();
    assert!(!warnings.is_empty() && warnings.len() == seconds.len(), "{warnings:?}");
}

#[test]
fn the_admin_listener_serves_only_its_two_pages() {
    let mut watched = Watched::with(&["--allow-origin", "*"]);
    let health = watched.operator.get("/health", &[]).ok();
    assert_eq!(health.text(), r#"{"status":"ok"}"#);
    assert_eq!(health.header("access-control-allow-origin"), None);
    for path in
        ["/", "/read", "/write", "/introduce", "/members", "/speak.js", "/metrics/", "/Metrics"]
    {
        let params = [("channel", "channel"), ("message", "message")];
        watched.operator.get(path, &params).fails_with(404, "not_found");
    }
    let mut operator = Client::connect(admin_address(&watched.server));
    operator.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = operator.head();
    assert_eq!((head.status, head.header("content-type").is_some()), (200, true));
    for method in ["POST", "PUT", "OPTIONS", "DELETE"] {
        for path in ["/metrics", "/health"] {
            let answer = operator
                .call(format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("GET, HEAD")),
                "{method} {path}"
            );
        }
    }
    // A public listener has no such page, and requests of the admin listener are not counted.
    watched.server.get("/metrics", &[]).fails_with(404, "not_found");
    let page = watched.page();
    assert_eq!(page.samples("speak_requests_total"), ["{call=\"none\",status=\"404\"} 1"]);
    assert_eq!(
        (page.count("speak_channels"), page.count("speak_messages_total{type=\"message\"}")),
        (0, 0)
    );
    operator.call("nonsense\r\n\r\n");
    assert_eq!(watched.page().samples("speak_requests_total").len(), 1);
}

#[test]
fn there_is_no_admin_listener_by_default() {
    let server = Server::start();
    assert!(!server.log().iter().any(|line| line.contains("admin")));
    server.get("/metrics", &[]).fails_with(404, "not_found");
}

#[test]
fn an_admin_listener_can_be_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("speak-{}-admin.sock", std::process::id()));
    let address = format!("unix:{}", path.display());
    let mut command = command();
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", &address]);
    let mut server = Server::spawn(command, 2);
    assert_eq!(server.url(1), address);
    let mut stream = UnixStream::connect(&path).expect("connecting to the server");
    stream.set_read_timeout(Some(common::GUARD)).expect("a time-out");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("sending a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer to its end");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("\nspeak_clients 0\n"),
        "{answer}"
    );
    server.signal(Signal::TERM);
    server.wait();
    assert!(!path.exists(), "its file goes with the server");
}

#[test]
fn a_crowd_at_the_admin_listener_takes_no_public_slots() {
    let mut watched = Watched::with(&["--max-clients", "10"]);
    // Clients beyond some sixteen are closed without a response.
    let mut crowd: Vec<_> =
        (0..100).map(|_| Client::connect(admin_address(&watched.server))).collect();
    for client in &mut crowd[50..] {
        client.is_closed();
    }
    let mut clients: Vec<_> = (0..10).map(|_| watched.server.client()).collect();
    for client in &mut clients {
        client.get("/health", &[]).ok();
    }
    let page = watched.page();
    assert_eq!(page.count("speak_clients"), 10);
    assert!(page.count("process_open_fds") < 60, "{}", page.0);
    let refused = "speak_clients_refused_total{reason=\"max_clients\"}";
    assert_eq!(page.count(refused), 0);
    drop(crowd);
    let mut again = Client::connect(admin_address(&watched.server));
    until("there is room for operators again", || {
        let is_served = again.try_send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            && again.take_maybe(12).is_some();
        if !is_served {
            again = Client::connect(admin_address(&watched.server));
        }
        is_served
    });
}

#[test]
fn the_histogram_of_turns_only_rises() {
    let mut watched = Watched::with(&[]);
    let counts = |page: &Page| {
        let buckets = page.samples("speak_loop_seconds_bucket");
        let bounds = buckets
            .iter()
            .map(|line| line.split('"').nth(1).expect("a bound").to_owned())
            .collect::<Vec<_>>();
        let counts = buckets
            .iter()
            .map(|line| line.rsplit_once(' ').expect("a value").1.parse::<u64>().expect("a count"));
        (bounds, counts.collect::<Vec<_>>(), page.count("speak_loop_seconds_count"))
    };
    let (bounds, _, before) = counts(&watched.page());
    assert_eq!((bounds[0].as_str(), bounds.last().map(String::as_str)), ("0.00001", Some("+Inf")));
    for _ in 0..20 {
        watched.server.write("channel", "message");
    }
    let page = watched.page();
    let (_, cumulative, after) = counts(&page);
    assert!(cumulative.is_sorted(), "{cumulative:?}");
    assert_eq!(cumulative.last(), Some(&after));
    assert!(
        after >= before + 20,
        "a turn for each write, one after the other: {before} and {after}"
    );
    let sum: f64 = page.value("speak_loop_seconds_sum").expect("a sum").parse().expect("a number");
    assert!(sum > 0.0);
}

/// A server whose standard error is read only when the test does it.
struct Unread {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Unread {
    fn start() -> Self {
        let mut command = command();
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--log",
            "debug",
        ]);
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starting the server");
        let stderr = BufReader::new(child.stderr.take().expect("its standard error is a pipe"));
        Self { child, stderr }
    }

    /// Returns a client of the listener that the next line announces.
    fn next_client(&mut self) -> Client {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("a line");
        let (_, port) = line.trim_end().rsplit_once(':').expect("a port");
        Client::connect(SocketAddr::from((
            [127, 0, 0, 1],
            port.parse().expect("a number of a port"),
        )))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // Fails only if the process has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_unread_log_blocks_nothing_and_reports_the_gap() {
    let mut server = Unread::start();
    let (mut client, mut operator) = (server.next_client(), server.next_client());
    let mut lost = || {
        let answer = operator.get("/metrics", &[]).ok();
        Page(answer.text().to_owned()).count("speak_log_lines_lost_total")
    };
    // A pipe holds 64 KiB.
    until("the pipe is full", || {
        for _ in 0..500 {
            client.get("/health", &[]).ok();
        }
        lost() > 0
    });
    let gone = lost();
    let mut text = String::new();
    until("the log goes on", || {
        client.get("/health", &[]).ok();
        let read = server.stderr.fill_buf().expect("a log");
        text.push_str(std::str::from_utf8(read).expect("text"));
        let length = read.len();
        server.stderr.consume(length);
        text.contains(" log lines dropped\n")
    });
    let line = text.lines().find(|line| line.contains(" log lines dropped")).expect("found before");
    let reported: u64 = line.split(' ').nth(2).expect("a word").parse().expect("a number");
    assert!(line.contains(" WARN ") && reported >= gone, "{line}, and {gone} before that");
    let mut levels = text.lines().map(|line| line.split(' ').nth(1).unwrap_or_default());
    assert!(levels.all(|level| ["INFO", "DEBUG", "WARN"].contains(&level)), "every line is whole");
}

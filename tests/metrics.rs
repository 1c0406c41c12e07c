//! The admin listener and its metrics. They are exact: each count is compared with the calls made.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{ChildStderr, Stdio};

use common::{Client, EventStream, Folder, Running, Server, command, get_at, request, until};
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
        let server = Server::watched(options);
        let operator = server.operator();
        Self { server, operator }
    }

    /// Returns a client that was served.
    #[track_caller]
    fn served(&self) -> Client {
        let mut client = self.server.client();
        client.get("/health", &[]).ok();
        client
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

impl Page {
    /// Returns the value of a sample; 0 if it is not there.
    #[track_caller]
    fn value(&self, sample: &str) -> Option<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        lines.find(|(its, _)| *its == sample).map(|(_, value)| value)
    }

    #[track_caller]
    fn count(&self, sample: &str) -> u64 {
        let value = self.value(sample).unwrap_or("0").parse();
        value.unwrap_or_else(|_| panic!("{sample} is no whole number"))
    }

    /// Returns all samples of a name, with their labels.
    fn samples(&self, name: &str) -> Vec<String> {
        let start = format!("{name}{{");
        let samples = self.0.lines().filter(|line| line.starts_with(&start));
        samples.map(|line| line[name.len()..].to_owned()).collect()
    }
}

#[test]
fn every_name_has_its_type_before_its_first_event() {
    let mut watched = Watched::with(&[]);
    let page = watched.page();
    // `tests/docs.rs` compares names and kinds with the table in docs/operating.md.
    let lines: Vec<_> = page.0.lines().collect();
    for pair in lines.windows(2) {
        if let Some(kind) = pair[1].strip_prefix("# TYPE ") {
            let name = kind.split(' ').next().expect("a name");
            assert!(pair[0].starts_with(&format!("# HELP {name} ")), "{pair:?}");
        }
    }
    assert!(page.0.matches("# TYPE ").count() >= 20, "{}", page.0);
    assert_eq!(page.samples("speak_requests_total"), Vec::<String>::new());
    let threads = if common::has_journal() { "2" } else { "1" };
    assert_eq!(page.value("process_threads"), Some(threads));
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
    server.goodbye(&me);
    server.get("/goodbye", &me.and(&[])).fails_with(410, "connection_ended");
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
    let counted = watched.page().samples("speak_requests_total");
    assert_eq!(counted.len(), expected.len(), "{counted:?}");
    assert_eq!(BTreeSet::from_iter(counted), BTreeSet::from(expected.map(str::to_owned)));
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
    assert_eq!(watched.metric(read), 1);
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
    assert_eq!((status_of("write", 200), status_of("write", 400)), (2, 1));
    assert_eq!(status_of("none", 400), 1);
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
    let me = server.introduce("channel", "closes");
    let reader = server.park(&me.and(&[("channel", "channel")]));
    let page = watched.page();
    assert_eq!((page.count("speak_connections"), page.count("speak_channels")), (1, 1));
    assert!(page.count("speak_clients") >= 1, "the reader at least");
    assert!(page.count("speak_memory_bytes") > 0);
    reader.reset();
    watched.wait_for(&goodbyes("closed"), 1);

    let other = watched.server.introduce("channel", "leaves");
    watched.server.goodbye(&other);
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
    assert_eq!(gone + left, 40);
    assert_eq!((page.count(&dropped("count")), page.count(&dropped("age"))), (0, 0));
    assert!(page.count("speak_memory_bytes") <= page.count("speak_memory_max_bytes"));
    assert_eq!(page.count("speak_memory_max_bytes"), 64 << 10);
}

#[test]
fn rejected_clients_are_counted_and_the_admin_listener_still_serves() {
    let refused = |reason: &str| format!("speak_clients_refused_total{{reason=\"{reason}\"}}");
    let mut watched = Watched::with(&["--max-clients", "2"]);
    let _clients = [(); 2].map(|()| watched.served());
    for _ in 0..3 {
        watched.server.client().response().fails_with(503, "over_capacity");
    }
    let page = watched.page();
    assert_eq!((page.count("speak_clients"), page.count("speak_clients_max")), (2, 2));
    assert_eq!(page.count(&refused("max_clients")), 3);
    // These clients sent no request: none of theirs was refused.
    assert_eq!(page.samples("speak_requests_total"), ["{call=\"health\",status=\"200\"} 2"]);

    let mut watched = Watched::with(&["--max-clients-per-address", "2"]);
    let _clients = [(); 2].map(|()| watched.served());
    watched.server.client().response().fails_with(429, "too_many_requests");
    let page = watched.page();
    assert_eq!(page.count(&refused("max_clients_per_address")), 1);
    assert_eq!(page.count(&refused("max_clients")), 0);
}

#[test]
fn clients_without_a_descriptor_are_counted_and_logged_at_most_once_per_second() {
    let mut watched = Watched::with(&[]);
    let mut inside = watched.served();
    let open = watched.metric("process_open_fds");
    let pid = i32::try_from(watched.server.id()).ok().and_then(Pid::from_raw);
    let limit = Rlimit { current: Some(open), maximum: Some(open) };
    let before = prlimit(Some(pid.expect("a process id")), Resource::Nofile, limit);
    assert!(before.expect("limiting our own child").current > Some(open));
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
    let mut warnings = watched.server.log();
    warnings.retain(|line| line.contains("cannot accept"));
    let seconds: BTreeSet<_> = warnings.iter().map(|line| &line[..19]).collect();
    assert!(!warnings.is_empty() && warnings.len() == seconds.len(), "{warnings:?}");
}

#[test]
fn the_admin_listener_serves_only_its_two_pages() {
    let mut watched = Watched::with(&["--allow-origin", "*"]);
    let health = watched.operator.get("/health", &[]).ok();
    assert_eq!(health.text(), r#"{"status":"ok"}"#);
    assert_eq!(health.header("access-control-allow-origin"), None);
    let params = [("channel", "channel"), ("message", "message")];
    for path in
        ["/", "/read", "/write", "/introduce", "/members", "/speak.js", "/metrics/", "/Metrics"]
    {
        watched.operator.get(path, &params).fails_with(404, "not_found");
    }
    let mut operator = watched.server.operator();
    operator.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = operator.head();
    assert_eq!((head.status, head.header("content-type").is_some()), (200, true));
    for method in ["POST", "PUT", "OPTIONS", "DELETE"] {
        for path in ["/metrics", "/health"] {
            let answer = operator.call(request(method, path, &[], Some(b"")));
            let refusal = (answer.status, answer.header("allow"));
            assert_eq!(refusal, (405, Some("GET, HEAD")), "{method} {path}");
        }
    }
    // A public listener has no such page, and requests of the admin listener are not counted.
    watched.server.get("/metrics", &[]).fails_with(404, "not_found");
    let page = watched.page();
    assert_eq!(page.samples("speak_requests_total"), ["{call=\"none\",status=\"404\"} 1"]);
    assert_eq!(page.count("speak_channels"), 0);
    assert_eq!(page.count("speak_messages_total{type=\"message\"}"), 0);
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
    let folder = Folder::new("admin");
    let path = folder.file("sock");
    let address = format!("unix:{}", path.display());
    let mut command = command();
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", &address]);
    let mut server = Server::spawn(command, 2);
    assert_eq!(server.url(1), address);
    let page = get_at(&path, "/metrics");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("\nspeak_clients 0\n"), "{page}");
    server.signal(Signal::TERM);
    server.wait();
    assert!(!path.exists(), "its file goes with the server");
}

#[test]
fn a_crowd_at_the_admin_listener_takes_no_public_slots() {
    let mut watched = Watched::with(&["--max-clients", "10"]);
    // Clients beyond some sixteen are closed without a response.
    let mut crowd = [(); 100].map(|()| watched.server.operator());
    for client in &mut crowd[50..] {
        client.is_closed();
    }
    let _clients = [(); 10].map(|()| watched.served());
    let page = watched.page();
    assert_eq!(page.count("speak_clients"), 10);
    assert!(page.count("process_open_fds") < 60, "{}", page.0);
    let refused = "speak_clients_refused_total{reason=\"max_clients\"}";
    assert_eq!(page.count(refused), 0);
    drop(crowd);
    let mut again = watched.server.operator();
    until("there is room for operators again", || {
        let is_served = again.try_send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            && again.take_maybe(12).is_some();
        if !is_served {
            again = watched.server.operator();
        }
        is_served
    });
}

#[test]
fn the_histogram_of_turns_only_rises() {
    let mut watched = Watched::with(&[]);
    let counts = |page: &Page| {
        let buckets = page.samples("speak_loop_seconds_bucket").into_iter().map(|line| {
            let (bound, count) = line.split_once("\"} ").expect("a bound and a count");
            (bound.to_owned(), count.parse::<u64>().expect("a count"))
        });
        let (bounds, counts): (Vec<_>, Vec<_>) = buckets.unzip();
        (bounds, counts, page.count("speak_loop_seconds_count"))
    };
    let (bounds, _, before) = counts(&watched.page());
    assert_eq!(bounds[0], "{le=\"0.00001");
    assert_eq!(bounds.last().expect("buckets"), "{le=\"+Inf");
    for _ in 0..20 {
        watched.server.write("channel", "message");
    }
    let page = watched.page();
    let (_, cumulative, after) = counts(&page);
    assert!(cumulative.is_sorted(), "{cumulative:?}");
    assert_eq!(cumulative.last(), Some(&after));
    // A turn for each write, one after the other.
    assert!(after >= before + 20, "{before} and {after}");
    let sum: f64 = page.value("speak_loop_seconds_sum").expect("a sum").parse().expect("a number");
    assert!(sum > 0.0);
}

/// A server whose standard error is read only when the test does it.
struct Unread {
    _running: Running,
    stderr: BufReader<ChildStderr>,
}

impl Unread {
    fn start() -> Self {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(["--log", "debug"]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut running = Running::start(&mut command);
        let stderr = BufReader::new(running.0.stderr.take().expect("a pipe"));
        Self { _running: running, stderr }
    }

    /// Returns a client of the listener that the next line announces.
    fn next_client(&mut self) -> Client {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("a line");
        let line = line.trim_end().trim_end_matches(" (admin)");
        let (_, address) = line.rsplit_once('/').expect("a URL");
        Client::connect(address.parse().expect("an address with a port"))
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

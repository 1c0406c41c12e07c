//! A server's life outside its calls: stops, idle silence, and its log.

mod common;

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, Folder, Server, until};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_stop_answers_every_pending_read() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::patient(&[]);
        let me = server.introduce("c", "Josh");
        let c = ("channel", "c");
        let mut plain = server.park(&[c, ("from_id", "2")]);
        let mut proven = server.park(&me.and(&[c]));
        let mut both = server.park(&[c, ("channel", "d")]);
        let mut script = server.park(&[c, ("callback", "f")]);
        let mut idle = server.client();
        idle.get("/health", &[]).ok();
        let mut half = server.client();
        half.send("GET /hea");

        server.signal(signal);
        for reader in [&mut plain, &mut proven] {
            let answer = reader.response().ok();
            // A stop adds no goodbyes.
            assert_eq!((answer.ids(), answer.next_id()), (vec![], 2));
            assert!(answer.says_close());
            reader.is_closed();
        }
        let answer = both.response().ok();
        assert!(answer.says_close());
        let expected = r#"{"channels":[{"channel":"c","messages":[],"next_id":2},{"channel":"d","#;
        assert!(answer.text().starts_with(expected), "{}", answer.text());
        let answer = script.response().ok();
        assert!(answer.says_close());
        assert!(answer.text().starts_with(r#"/**/f({"messages":[],"next_id":2,"#));
        idle.is_closed();
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn a_stop_without_clients_exits_with_0() {
    let mut server = Server::start();
    server.stop();
}

#[test]
fn a_hangup_without_a_terminal_is_logged_and_ends_nothing() {
    let server = Server::start();
    let mut reader = server.park(&[("channel", "c")]);
    server.signal(Signal::HUP);
    let line = " INFO ignoring SIGHUP: no certificates to read again";
    until("the signal is logged", || server.logged(line) == 1);
    server.write("c", "m");
    assert_eq!(reader.response().ok().ids(), [1]);
}

/// A server that has begun a response too long for the buffers between it and its client.
fn in_the_middle_of_an_answer() -> (Server, Client) {
    let server = Server::patient(&["--max-message", "1m", "--max-reply", "64m"]);
    server.fill("c", &"x".repeat(1 << 20), 16);
    let mut slow = server.client();
    slow.send_get("/read", &[("channel", "c"), ("from_id", "1")]);
    until("the answer begins", || slow.has_something());
    (server, slow)
}

#[test]
fn a_stop_finishes_the_response_in_progress() {
    let (mut server, mut slow) = in_the_middle_of_an_answer();
    let mut reader = server.park(&[("channel", "d")]);
    server.signal(Signal::TERM);
    reader.response().ok();
    let answer = slow.response().ok();
    assert_eq!(answer.ids(), (1..=16).collect::<Vec<_>>());
    slow.is_closed();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_stop_does_not_wait_for_a_client_that_does_not_read() {
    let (mut server, slow) = in_the_middle_of_an_answer();
    server.stop();
    drop(slow);
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let (mut server, slow) = in_the_middle_of_an_answer();
    let mut reader = server.park(&[("channel", "d")]);
    server.signal(Signal::TERM);
    // The client has its response, so the first signal is handled before the second.
    reader.response().ok();
    let second = Instant::now();
    server.signal(Signal::TERM);
    server.wait();
    assert!(second.elapsed() < Duration::from_secs(4), "as slow as one signal");
    drop(slow);
}

/// strace attached to a process, and a folder with its output. Killed when dropped.
struct Trace {
    strace: Child,
    folder: Folder,
}

impl Trace {
    fn attach(id: u32) -> Self {
        let folder = Folder::new("trace");
        let strace = Command::new("strace")
            .args(["-f", "-p", &id.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.file("trace")).expect("a file"))
            .spawn()
            .expect("strace, from the package of that name");
        let trace = Self { strace, folder };
        until("strace has attached", || trace.seen().contains("attached"));
        trace
    }

    fn seen(&self) -> String {
        fs::read_to_string(self.folder.file("trace")).expect("the output of strace")
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let id = i32::try_from(self.strace.id()).ok().and_then(Pid::from_raw);
        // An interrupt lets strace detach in order. It is a child of this process, not reaped yet.
        let _ = kill_process(id.expect("a process id"), Signal::INT);
        let _ = self.strace.wait();
    }
}

#[test]
fn an_idle_server_makes_no_system_call() {
    // Deadlines set and moved before are over when the watch begins.
    let options = [
        "--poll-timeout",
        "1h",
        "--connection-timeout",
        "600ms",
        "--request-timeout",
        "300ms",
        "--keep-alive",
        "300ms",
    ];
    let server = Server::with(&options);
    server.write("c", "m");
    let me = server.introduce("c", "Josh");
    let _proven = server.park(&me.and(&[("channel", "c")]));
    let _readers = [(); 20].map(|()| server.park(&[("channel", "c")]));

    let trace = Trace::attach(server.id());
    // Attaching interrupts the wait in progress, which shows.
    thread::sleep(Duration::from_millis(1500));
    let before = trace.seen();
    thread::sleep(Duration::from_secs(3));
    let after = trace.seen();
    assert_eq!(after, before, "it woke up");

    server.get("/health", &[]).ok();
    until("strace sees a call", || trace.seen().len() > after.len());
}

#[test]
fn the_log_has_no_secrets() {
    let mut server = Server::with(&["--log", "debug", "--max-message", "100"]);
    let pair = server.get("/create", &[]).ok().json();
    let name = |half: &str| pair[half].as_str().expect("a name").to_owned();
    let (read, write) = (name("read"), name("write"));
    let me = server.introduce("secretchannel", "secretname");
    let secret = ("channel", "secretchannel");
    let reader = server.park(&me.and(&[secret]));
    server.write("secretchannel", "secretmessage");
    server.write(&write, "secretmessage");
    server.read(&read, "1");
    server.get("/members", &[secret, ("secretquery", "secretquery")]).ok();
    let mut requests = 8;

    // Failed requests are logged too, and hold secrets as well.
    let too_long = "secretmessage".repeat(20);
    let wrong = [secret, ("message", "secretmessage"), ("connection", "1")];
    let failing = [
        ("/write", vec![secret, ("message", &*too_long)]),
        ("/write", [&wrong[..], &[("auth", "secretauth")]].concat()),
        ("/write", [&wrong[..], &[("secretquery", "x")]].concat()),
        ("/read", vec![secret, ("from_id", "secretquery")]),
        ("/read", vec![("channel", "secretchannel\0")]),
        ("/read", vec![secret, ("callback", "secretquery()")]),
        ("/goodbye", vec![("connection", "77"), ("auth", "secretauth")]),
        ("/nothing", vec![secret]),
    ];
    for (path, params) in &failing {
        server.get(path, params);
    }
    requests += failing.len();
    let malformed = [
        "GET /write?channel=secretchannel HTTP/1.1\r\n\r\n",
        "GET /write?channel=secretchannel HTTP/7.7\r\nHost: x\r\n\r\n",
        "secretmessage secretquery\r\n\r\n",
        "POST /write?secretquery HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: secretmessage\r\n\r\n",
    ];
    for bytes in malformed {
        server.client().call(bytes);
    }
    // The end of a connection must not appear either.
    reader.reset();
    server.wait_for_readers("secretchannel", 0);

    server.stop();
    let log = server.log();
    let secrets = [&*me.auth, &read, &write, "secret"];
    for line in &log {
        for secret in secrets {
            assert!(!line.contains(secret), "{line}");
        }
    }
    let debug = log.iter().filter(|line| level(line) == "debug").count();
    assert!(debug >= requests, "{debug} lines for {requests} requests");
}

/// Returns the second word of a log line.
#[track_caller]
fn level(line: &str) -> String {
    let word = line.split(' ').nth(1).unwrap_or_default();
    word.to_ascii_lowercase()
}

#[test]
fn every_log_line_has_a_time_and_a_level() {
    let mut server = Server::with(&["--log", "debug"]);
    server.write("c", "m");
    server.get("/nothing", &[]);
    server.stop();
    let log = server.log();
    assert!(log.len() > 2, "{log:?}");
    for line in &log[1..] {
        assert!(line.starts_with(|first: char| first.is_ascii_digit()), "{line}");
        let levels = ["error", "warn", "info", "debug"];
        assert!(levels.contains(&&*level(line)), "{line}");
        assert!(line.split(' ').count() > 2, "{line}");
    }
}

#[test]
fn a_quiet_log_has_only_the_first_line() {
    let mut server = Server::with(&["--log", "error"]);
    server.write("c", "m");
    server.get("/nothing", &[]);
    server.stop();
    assert_eq!(server.log().len(), 1, "{:?}", server.log());
}

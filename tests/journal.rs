//! `--journal`: what was acknowledged survives the end of the process at any moment.

mod common;

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::{Folder, Server, command, free_address, request, run, run_with, until};
use rustix::process::Signal;
use serde_json::json;

/// A journal in a folder of its own.
struct Journal(Folder);

impl Journal {
    fn new(name: &str) -> Self {
        Self(Folder::new(name))
    }

    fn path(&self) -> String {
        self.0.file("journal").display().to_string()
    }

    fn start(&self, options: &[&str]) -> Server {
        Server::with(&[&["--journal", &self.path()], options].concat())
    }

    /// Starts a server in which a system call fails, as strace's `inject` says.
    fn start_with_fault(&self, fault: &str, options: &[&str]) -> Server {
        let own = command();
        let mut strace = Command::new("strace");
        strace.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={fault}")]);
        strace.arg(own.get_program()).args(["--listen", "127.0.0.1:0"]);
        strace.args(["--journal", &self.path()]).args(options);
        Server::spawn(strace, 1 + usize::from(options.contains(&"--admin-listen")))
    }
}

/// Ends a server as the kernel does that needs its memory.
fn kill(mut server: Server) {
    server.signal(Signal::KILL);
    server.forget();
    server.wait();
}

/// Writes texts until the server refuses one or ends. Returns those that it acknowledged, with
/// their ids, and the last answer.
fn write_on(server: &Server, limit: usize) -> (Vec<(u64, String)>, Option<serde_json::Value>) {
    let mut client = server.client();
    let mut acknowledged = Vec::new();
    for number in 0..limit {
        let text = format!("text {number}");
        let target = format!("/write?channel=room&message=text+{number}");
        if !client.try_send(request("GET", &target, &[], None)) {
            return (acknowledged, None);
        }
        let Some(head) = client.take_until(b"\r\n\r\n") else { return (acknowledged, None) };
        let head = String::from_utf8_lossy(&head).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.expect("a length").parse().expect("a number");
        let Some(body) = client.take_maybe(length) else { return (acknowledged, None) };
        let answer: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        match answer["id"].as_u64() {
            Some(id) => acknowledged.push((id, text)),
            None => return (acknowledged, Some(answer)),
        }
    }
    (acknowledged, None)
}

/// Returns the time for which a server with an admin listener has been writing a record.
fn lag(server: &Server) -> f64 {
    let page = server.operator().get("/metrics", &[]).ok().text().to_owned();
    let lag = page.lines().find_map(|line| line.strip_prefix("speak_log_lag_seconds "));
    lag.expect("the lag").parse().expect("a number")
}

/// Claims that the channel has these texts under these ids.
#[track_caller]
fn has_all(server: &Server, acknowledged: &[(u64, String)]) {
    let messages = server.read("room", "1").messages();
    for (id, text) in acknowledged {
        let found = messages.iter().any(|it| it["id"] == *id && it["message"] == **text);
        assert!(found, "{id} {text:?} was acknowledged: {messages:?}");
    }
}

#[test]
fn all_that_was_acknowledged_survives_a_kill() {
    for sync in ["always", "os"] {
        let journal = Journal::new("goes-on");
        let options = ["--journal-sync", sync];
        let server = journal.start(&options);
        let josh = server.introduce("room", "Josh");
        let eve = server.introduce("room", "Eve");
        server.write("room", "howdy");
        server.goodbye(&eve);
        let pair = server.get("/create", &[]).ok().json();
        let [read, write] =
            ["read", "write"].map(|half| pair[half].as_str().expect("a name").to_owned());
        server.write(&write, "whisper");
        let before = server.read("room", "0");
        let members = server.members("room");
        kill(server);

        let server = journal.start(&options);
        assert_eq!(server.read("room", "0").text(), before.text(), "{sync}");
        assert_eq!(server.members("room"), members, "{sync}");
        assert_eq!(server.read(&read, "1").messages()[0]["message"], "whisper");
        // The connection lives on, its credentials are valid, and ids continue.
        let answer = server.call_as(&josh, "/write", "room", "after").ok().json();
        assert_eq!(answer["id"], before.next_id(), "{sync}");
        let next = server.introduce("room", "Mallory").and(&[])[0].1.to_owned();
        assert_eq!(next, "3", "numbers of connections continue");
        kill(server);
        let server = journal.start(&options);
        assert_eq!(server.read("room", "0").next_id(), before.next_id() + 2, "{sync}");
    }
}

#[test]
fn a_connection_that_stays_silent_after_a_kill_ends_once() {
    let journal = Journal::new("silent");
    let options = ["--connection-timeout", "300ms"];
    let server = journal.start(&options);
    server.introduce("room", "Josh");
    kill(server);
    let server = journal.start(&options);
    until("the goodbye", || server.read("room", "1").events().len() > 1);
    kill(server);
    let server = journal.start(&options);
    assert_eq!(server.read("room", "1").events(), ["introduction", "goodbye timeout"]);
}

/// A read that was answered with 200 would promise that the connection lives on.
#[test]
fn a_read_while_the_end_of_its_connection_is_being_written_gets_410() {
    let journal = Journal::new("ending");
    kill(journal.start(&[]));
    let options = ["--connection-timeout", "300ms", "--admin-listen", "127.0.0.1:0"];
    let server = journal.start_with_fault("fdatasync:delay_enter=900000:when=2+", &options);
    let josh = server.introduce("room", "Josh");
    until("the end is being written", || lag(&server) > 0.0);
    let mut socket = server.socket(&[("channel", "elsewhere")]);
    let (number, auth) = (josh.number, &josh.auth);
    let call = json!({
        "call": "read", "channel": "room", "from_id": 1, "connection": number, "auth": auth,
    });
    socket.client.send(common::masked(common::TEXT, call.to_string().as_bytes()));
    let params = josh.and(&[("channel", "room"), ("from_id", "1"), ("timeout", "0")]);
    server.get("/read", &params).fails_with(410, "connection_ended");
    assert_eq!(socket.json()["error"], "connection_ended");
    assert_eq!(server.read("room", "1").events(), ["introduction", "goodbye timeout"]);
}

#[test]
fn a_write_that_needs_the_place_of_an_idle_channel_waits_for_its_drop() {
    let journal = Journal::new("place");
    let server = journal.start(&["--max-channels", "1", "--history", "0"]);
    for name in ["one", "other", "one"] {
        server.write(name, "m");
    }
    let _josh = server.introduce("other", "Josh");
    let refused = server.get("/write", &[("channel", "one"), ("message", "m")]);
    refused.fails_with(503, "over_capacity");
}

#[test]
fn requests_of_one_client_are_answered_in_order() {
    let journal = Journal::new("in-order");
    let server = journal.start(&[]);
    let mut client = server.client();
    let get = |target: &str| request("GET", target, &[], None);
    client.send(
        [
            get("/write?channel=room&message=one"),
            get("/write?channel=room"),
            get("/write?channel=room&message=two&callback=f"),
            get("/read?channel=room&from_id=1"),
            get("/introduce?channel=room&message=Josh"),
            get("/members?channel=room"),
        ]
        .concat(),
    );
    assert_eq!(client.response().ok().json(), json!({"id": 1}));
    client.response().fails_with(400, "missing_parameter");
    assert_eq!(client.response().text(), "/**/f({\"id\":2});");
    assert_eq!(client.response().ok().texts(), ["one", "two"]);
    assert_eq!(client.response().ok().json()["id"], 3);
    assert_eq!(client.response().ok().json()["members"][0]["message"], "Josh");

    let mut socket = server.socket(&[("channel", "room")]);
    let frame = |call: serde_json::Value| common::masked(common::TEXT, call.to_string().as_bytes());
    socket.client.send(
        [
            frame(json!({"call": "introduce", "channel": "other", "message": "Eve", "ref": 1})),
            frame(json!({"call": "write", "channel": "other", "ref": 2})),
            frame(json!({"call": "members", "channel": "other", "ref": 3})),
            frame(json!({"call": "write", "channel": "other", "message": "m", "ref": "4"})),
        ]
        .concat(),
    );
    let answers: Vec<_> = (0..4).map(|_| socket.json()).collect();
    let refs: Vec<_> = answers.iter().map(|it| it["ref"].clone()).collect();
    assert_eq!(refs, [json!(1), json!(2), json!(3), json!("4")]);
    assert_eq!(answers[1]["error"], "missing_parameter");
    assert_eq!(answers[2]["members"][0]["message"], "Eve");
    assert_eq!(answers[3]["id"], 2);
}

#[test]
fn a_client_that_half_closes_gets_its_answers() {
    let journal = Journal::new("half-closed");
    let server = journal.start(&[]);
    let mut client = server.client();
    client.send(request("GET", "/write?channel=room&message=one", &[], None));
    client.half_close();
    assert_eq!(client.response().ok().json()["id"], 1);
    client.is_closed();
}

#[test]
fn a_second_server_on_the_same_journal_does_not_start() {
    let journal = Journal::new("two");
    let server = journal.start(&[]);
    let path = journal.path();
    run_with(&["--listen", "127.0.0.1:0", "--journal", &path])
        .fails_with(1, &["in use by another process", "--journal"]);
    assert_eq!(server.write("room", "m"), 1);
}

#[test]
fn a_journal_that_was_restored_from_a_backup_begins_a_new_epoch() {
    let journal = Journal::new("restored");
    let server = journal.start(&[]);
    server.write("room", "howdy");
    let before = server.read("room", "1").json();
    kill(server);
    let path = journal.path();
    run_with(&["journal", &path, "--restored"]).prints("the next start begins a new epoch\n");
    for _ in 0..2 {
        let server = journal.start(&[]);
        let after = server.read("room", "1").json();
        assert_eq!(after["messages"], before["messages"]);
        assert_ne!(after["epoch"], before["epoch"]);
        kill(server);
    }
}

#[test]
fn an_upgrade_hands_the_journal_over() {
    let journal = Journal::new("upgrade");
    let mut server = journal.start(&[]);
    let josh = server.introduce("room", "Josh");
    for round in 0..3 {
        server.write("room", &format!("before {round}"));
        server.upgrade();
        server.adopt_successor();
        server.call_as(&josh, "/write", "room", &format!("after {round}")).ok();
    }
    let before = server.read("room", "0");
    assert_eq!(before.ids(), (1..=7).collect::<Vec<_>>());
    kill(server);
    let server = journal.start(&[]);
    assert_eq!(server.read("room", "0").text(), before.text());
}

/// Clients wait while the new process opens the journal.
#[test]
fn an_upgrade_reads_only_the_newest_segment_of_a_large_journal() {
    const SEGMENT_BYTES: u64 = 16 << 20;
    let journal = Journal::new("large");
    // The history is the largest part of a snapshot, and no new snapshot is made before the records
    // after it are twice as large.
    let options = ["--journal-sync", "os", "--history", "600", "--max-message", "64k"];
    let mut server = journal.start(&options);
    let text = "x".repeat(64_000);
    let size = || -> u64 {
        let files = fs::read_dir(journal.path()).expect("the journal");
        files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |it| it.len())).sum()
    };
    while size() < 6 * SEGMENT_BYTES {
        server.fill("room", &text, 50);
    }
    server.write("room", "last");
    server.upgrade();
    let io = fs::read_to_string(format!("/proc/{}/io", server.id())).expect("our own process");
    let read: u64 = io
        .lines()
        .find_map(|line| line.strip_prefix("rchar: "))
        .and_then(|count| count.parse().ok())
        .expect("a number of bytes");
    assert!(read < SEGMENT_BYTES + (4 << 20), "it has read {read} bytes of {}", size());
    let before = server.read("room", "-1");
    kill(server);
    let server = journal.start(&options);
    assert_eq!(server.read("room", "-1").text(), before.text());
}

/// The kill comes before the old process has sent its state, or after that.
#[test]
fn a_kill_of_the_old_process_during_an_upgrade_loses_nothing_acknowledged() {
    let journal = Journal::new("kill-old");
    // The new process may have to bind the address itself, so it has to know the port.
    let port = free_address();
    let path = journal.path();
    let mut all = Vec::new();
    for pause_ms in [0, 5, 20, 60] {
        let options = ["--journal", &path];
        let mut server = Server::on(&[&port.to_string()], &options);
        let mut write = |server: &Server, text: &str| {
            all.push((server.write("room", text), text.to_owned()));
        };
        let josh = server.introduce("other room", "Josh");
        let epoch = server.read("room", "1").json()["epoch"].clone();
        write(&server, &format!("before {pause_ms}"));
        server.signal(Signal::USR2);
        until("an upgrade has started", || !server.successors().is_empty());
        thread::sleep(Duration::from_millis(pause_ms));
        server.signal(Signal::KILL);
        server.adopt_successor();
        until("the new one serves", || TcpStream::connect(port).is_ok());
        write(&server, &format!("after {pause_ms}"));
        server.call_as(&josh, "/write", "other room", "here still").ok();
        assert_eq!(server.read("room", "1").json()["epoch"], epoch, "{pause_ms}");
        has_all(&server, &all);
        let ids: Vec<_> = all.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>(), "{pause_ms}");
    }
    let server = journal.start(&[]);
    has_all(&server, &all);
}

/// At each of its system calls, the process may be killed.
#[test]
fn a_kill_at_any_step_of_a_commit_loses_nothing_acknowledged() {
    for (sync, call) in [("always", "pwrite64"), ("always", "fdatasync"), ("os", "pwrite64")] {
        let journal = Journal::new("steps");
        let options = ["--journal-sync", sync];
        kill(journal.start(&options));
        let mut all: Vec<(u64, String)> = Vec::new();
        for nth in 3..9 {
            let fault = format!("{call}:signal=SIGKILL:when={nth}");
            let mut server = journal.start_with_fault(&fault, &options);
            server.forget();
            let (acknowledged, refusal) = write_on(&server, 20);
            assert!(refusal.is_none() && acknowledged.len() < 20, "{call} {nth}: {refusal:?}");
            until("it is killed", || server.has_ended());
            all.extend(acknowledged);
            let server = journal.start(&options);
            has_all(&server, &all);
            let ids = server.read("room", "1").ids();
            assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>(), "{call} {nth}");
            kill(server);
        }
        assert!(all.len() > 6, "{call}: {all:?}");
    }
}

#[test]
fn a_disk_that_fails_stops_the_server_and_loses_nothing_acknowledged() {
    for (sync, call) in [("always", "fdatasync"), ("always", "pwrite64"), ("os", "pwrite64")] {
        let journal = Journal::new("fails");
        let options = ["--journal-sync", sync];
        kill(journal.start(&options));
        let fault = format!("{call}:error=EIO:when=4");
        let with_admin = [&options[..], &["--admin-listen", "127.0.0.1:0"]].concat();
        let mut server = journal.start_with_fault(&fault, &with_admin);
        let (acknowledged, refusal) = write_on(&server, 20);
        assert!(!acknowledged.is_empty(), "{call}");
        let refusal = refusal.expect("an answer");
        assert_eq!(refusal["error"], "outcome_unknown", "{call}");
        assert_eq!(refusal["status"], 503, "{call}");
        // It tells so before it stops. Reads go on, and nothing more is written.
        has_all(&server, &acknowledged);
        let (none, refusal) = write_on(&server, 1);
        assert_eq!(
            (none.len(), &refusal.expect("an answer")["error"]),
            (0, &json!("over_capacity"))
        );
        let page = server.operator().get("/metrics", &[]).ok().text().to_owned();
        assert!(page.lines().any(|line| line == "speak_log_up 0"), "{call}: {page}");
        assert_eq!(server.wait().code(), Some(1), "{call}: {:?}", server.log());
        assert_eq!(server.logged("ERROR stopping: the journal has failed"), 1, "{call}");
        let server = journal.start(&options);
        has_all(&server, &acknowledged);
    }
}

#[test]
fn a_full_disk_refuses_changes_and_recovers() {
    for sync in ["always", "os"] {
        let journal = Journal::new("full");
        let options = ["--journal-sync", sync];
        kill(journal.start(&options));
        let server = journal.start_with_fault("pwrite64:error=ENOSPC:when=4..5", &options);
        let (mut acknowledged, refusal) = write_on(&server, 20);
        let refusal = refusal.expect("an answer");
        assert_eq!(refusal["error"], "over_capacity", "{sync}");
        assert!(refusal["detail"].as_str().expect("text").contains("full"), "{refusal}");
        // Reads go on, and writes wait for the next attempt.
        has_all(&server, &acknowledged);
        until("it recovers", || {
            let answer = server.get("/write", &[("channel", "room"), ("message", "again")]);
            let id = answer.json()["id"].as_u64();
            acknowledged.extend(id.map(|id| (id, "again".to_owned())));
            id.is_some()
        });
        kill(server);
        let server = journal.start(&options);
        has_all(&server, &acknowledged);
        assert_eq!(server.read("room", "1").ids().len(), acknowledged.len(), "{sync}");
    }
}

#[test]
fn a_full_disk_does_not_prevent_an_upgrade() {
    let journal = Journal::new("full-upgrade");
    kill(journal.start(&[]));
    let mut server = journal.start_with_fault("pwrite64:error=ENOSPC:when=4+", &[]);
    let (acknowledged, refusal) = write_on(&server, 20);
    assert_eq!(refusal.expect("an answer")["error"], "over_capacity");
    // It waits for the next attempt.
    let mut waiting = server.client();
    waiting.send_get("/write", &[("channel", "room"), ("message", "waits")]);
    server.upgrade();
    waiting.response().fails_with(503, "over_capacity");
    has_all(&server, &acknowledged);
    assert_eq!(server.read("room", "1").ids().len(), acknowledged.len());
}

#[test]
fn a_disk_smaller_than_a_segment_is_used() {
    let journal = Journal::new("small");
    // No space can be reserved.
    let server = journal.start_with_fault("fallocate:error=ENOSPC", &[]);
    let (acknowledged, refusal) = write_on(&server, 20);
    assert_eq!((acknowledged.len(), refusal), (20, None));
    kill(server);
    let server = journal.start(&[]);
    has_all(&server, &acknowledged);
}

#[test]
fn an_empty_folder_that_others_could_read_becomes_that_of_the_journal() {
    let journal = Journal::new("open");
    let mode = || fs::metadata(journal.path()).expect("a folder").permissions().mode() & 0o777;
    fs::create_dir(journal.path()).expect("a folder");
    fs::set_permissions(journal.path(), Permissions::from_mode(0o755)).expect("its mode");
    let checked = run_with(&["--journal", &journal.path(), "--check", "--listen", "127.0.0.1:0"]);
    assert_eq!((checked.code, mode()), (Some(0), 0o755), "a check changes nothing: {checked:?}");
    kill(journal.start(&[]));
    assert_eq!(mode(), 0o700);
}

#[test]
fn a_disk_that_does_not_respond_is_told_and_waited_for() {
    let journal = Journal::new("slow");
    kill(journal.start(&[]));
    // One of the next records takes 7 s.
    let fault = "fdatasync:delay_enter=7000000:when=4";
    let options = ["--connection-timeout", "2s", "--admin-listen", "127.0.0.1:0"];
    let server = journal.start_with_fault(fault, &options);
    let josh = server.introduce("room", "Josh");
    let is_late = || lag(&server) > 1.0;
    let mut late = server.client();
    let mut acknowledged = 0;
    loop {
        let text = format!("text {acknowledged}");
        late.send_get("/write", &josh.and(&[("channel", "room"), ("message", &text)]));
        until("an answer, or a disk that is late", || late.has_something() || is_late());
        if !late.has_something() {
            break;
        }
        late.response().ok();
        acknowledged += 1;
    }
    let mut waiting = server.client();
    waiting.send_get("/write", &[("channel", "room"), ("message", "refused")]);
    // Reads are answered meanwhile, with what is in the journal.
    assert_eq!(server.read("room", "1").ids().len(), 1 + acknowledged);
    late.response().fails_with(503, "outcome_unknown");
    let refusal = waiting.response();
    refusal.fails_with(503, "over_capacity");
    assert_eq!(refusal.header("Retry-After"), Some("1"));
    until("it responds", || server.read("room", "1").ids().len() == 2 + acknowledged);
    // An outage counts for no timeout.
    server.call_as(&josh, "/write", "room", "last").ok();
    let texts = server.read("room", "1").texts();
    assert_eq!(texts.len(), 3 + acknowledged, "the refused one is not there: {texts:?}");
    assert!(!texts.contains(&"refused".to_owned()), "{texts:?}");
}

#[test]
fn a_state_file_and_a_journal_are_an_error() {
    let mut both = command();
    both.args(["--journal", "/nonexistent/j", "--state", "/nonexistent/s"]);
    run(both).fails_with(2, &["--journal", "--state"]);
}

#[test]
fn the_metrics_show_the_journal() {
    let journal = Journal::new("metrics");
    let server = Server::watched(&["--journal", &journal.path()]);
    server.write("room", "m");
    let page = server.operator().get("/metrics", &[]).ok().text().to_owned();
    let value = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.rsplit_once(' ')).expect("a value").1.to_owned()
    };
    assert_eq!(value("speak_log_up"), "1");
    assert_eq!(value("speak_log_position"), "2", "the first record begins the numbering");
    assert_ne!(value("speak_log_bytes"), "0");
    assert_eq!(value("speak_log_lag_seconds"), "0");
}

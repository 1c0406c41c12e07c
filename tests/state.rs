//! `--state`: a stop and a start lose nothing.

mod common;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use common::{Client, Folder, Running, Server, command, free_address, run, run_with, until};
use rustix::process::Signal;

/// A state file in a folder of its own.
struct State(Folder);

impl State {
    fn new(name: &str) -> Self {
        Self(Folder::new(name))
    }

    fn path(&self) -> String {
        self.0.file("state").display().to_string()
    }

    fn start(&self, options: &[&str]) -> Server {
        Server::with(&[&["--state", &self.path()], options].concat())
    }

    /// Returns the names of the files in the folder.
    fn around(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("a folder");
        entries
            .map(|entry| entry.expect("a file").file_name().into_string().expect("a name"))
            .collect()
    }
}

#[test]
fn channels_connections_and_ids_survive_a_restart() {
    let state = State::new("goes-on");
    let mut server = state.start(&[]);
    let josh = server.introduce("room", "Josh");
    server.write("room", "before");
    let inbox = server.get("/create", &[]).ok().json();
    let [read, write] =
        ["read", "write"].map(|half| inbox[half].as_str().expect("a name").to_owned());
    server.write(&write, "whisper");
    let before = server.read("room", "0");
    let mut waiting = server.park(&josh.and(&[("channel", "room"), ("from_id", "3")]));
    server.stop();
    assert_eq!(waiting.response().ok().ids(), Vec::<u64>::new());
    assert_eq!(state.around(), ["state"]);
    let rights = fs::metadata(state.path()).expect("the file").permissions().mode();
    assert_eq!(rights & 0o777, 0o600, "it holds secrets");

    let server = state.start(&[]);
    assert_eq!(server.read("room", "0").text(), before.text());
    assert!(state.around().is_empty(), "an old state must not be read twice");
    assert_eq!(server.read(&read, "1").messages()[0]["message"], "whisper");
    let params = josh.and(&[("channel", "room"), ("message", "after")]);
    assert_eq!(server.get("/write", &params).ok().json()["id"], 3);
    // No other connection has a goodbye: the member is still there.
    assert_eq!(server.members("room")["members"][0]["message"], "Josh");
    assert_eq!(server.introduce("room", "Ann").number, 2);
}

#[test]
fn a_server_whose_terminal_is_closed_keeps_its_state() {
    let state = State::new("terminal");
    let address = free_address();
    // `script` gives the server a terminal. The end of `script` closes the terminal.
    let mut script = Command::new("script");
    script
        .args(["-qec", r#"exec "$SPEAK" --listen "$ADDRESS" --state "$STATE""#, "/dev/null"])
        .env("SPEAK", command().get_program())
        .env("ADDRESS", address.to_string())
        .env("STATE", state.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let terminal = Running::start(&mut script);
    until("the server listens", || TcpStream::connect(address).is_ok());
    let params = [("channel", "room"), ("message", "before")];
    Client::connect(address).get("/write", &params).ok();
    assert!(state.around().is_empty());
    drop(terminal);
    until("the server has stopped", || state.around() == ["state"]);
    let server = state.start(&[]);
    assert_eq!(server.read("room", "0").messages()[0]["message"], "before");
}

#[test]
fn a_connection_that_does_not_return_after_a_restart_gets_its_goodbye() {
    let state = State::new("goodbye");
    let mut server = state.start(&["--connection-timeout", "500ms"]);
    server.introduce("room", "Josh");
    server.stop();
    let server = state.start(&["--connection-timeout", "500ms"]);
    assert_eq!(server.next_events("room", 2), ["goodbye timeout"]);
}

#[test]
fn a_damaged_state_file_is_set_aside_and_the_server_starts_empty() {
    let state = State::new("damaged");
    let mut server = state.start(&[]);
    server.write("room", "one");
    server.stop();
    let good = fs::read(state.path()).expect("the state");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let other = [b"speak state 9\n", &good[14..]].concat();
    let cases: [(&[u8], &str); 5] = [
        (&good[..good.len() - 1], "truncated"),
        (b"", "truncated"),
        (b"something else entirely", "not a state file of Speak"),
        (&flipped, "corrupt"),
        (&other, "another version of Speak"),
    ];
    for (bytes, why) in cases {
        fs::write(state.path(), bytes).expect("a state");
        let mut server = state.start(&[]);
        assert_eq!(server.write("room", "again"), 1);
        until("it is logged", || server.logged(" ERROR ") == 1);
        let said = server.log().join("\n");
        assert!(said.contains(why), "{why}: {said}");
        assert!(!said.contains("room"), "a secret: {said}");
        let around = state.around();
        let [aside] = &around[..] else { panic!("one file set aside: {around:?}") };
        assert!(said.contains(aside.as_str()), "it says where: {said}");
        let aside = state.0.file(aside);
        assert_eq!(fs::read(&aside).expect("what was set aside"), bytes);
        fs::remove_file(aside).expect("what was set aside");
        server.signal(Signal::KILL);
        server.wait();
    }
}

#[test]
fn a_state_that_cannot_be_written_is_an_error_and_leaves_the_old_file() {
    // `ulimit -f` counts blocks of 512 bytes. /dev/full is a disk without space.
    let cases = [
        ("file size", "ulimit -f 16;", None, "File too large"),
        ("full disk", "", Some("/dev/full"), "No space left on device"),
    ];
    for (name, before, disk, cause) in cases {
        let state = State::new(name);
        let mut shell = Command::new("sh");
        let line = format!("{before} exec \"$0\" --listen 127.0.0.1:0 --no-sandbox --state \"$1\"");
        shell.args(["-c", &line]).arg(command().get_program()).arg(state.path());
        let mut server = Server::spawn(shell, 1);
        server.fill("room", &"secret".repeat(1_000), 20);
        let mut waiting = server.park(&[("channel", "other")]);
        fs::write(state.path(), "old").expect("an old state");
        if let Some(disk) = disk {
            symlink(disk, state.0.file("state.new")).expect("a link");
        }
        server.signal(Signal::TERM);
        assert_eq!(server.wait().code(), Some(1), "{name}: {:?}", server.log());
        assert_eq!(waiting.response().ok().ids(), Vec::<u64>::new());
        let log = server.log().join("\n");
        assert!(log.contains(" ERROR ") && log.contains(cause), "{name}: {log}");
        assert!(!log.contains("secret"), "{name}: {log}");
        assert_eq!(state.around(), ["state"], "{name}");
        assert_eq!(fs::read(state.path()).expect("the old state"), b"old");
    }
}

#[test]
fn a_killed_server_starts_empty() {
    let state = State::new("killed");
    let mut server = state.start(&[]);
    server.write("room", "one");
    server.stop();
    let mut server = state.start(&[]);
    let epoch = server.read("room", "1").json()["epoch"].clone();
    server.signal(Signal::KILL);
    server.wait();
    let server = state.start(&[]);
    assert_ne!(server.read("room", "0").json()["epoch"], epoch);
    assert_eq!(server.read("room", "0").ids(), Vec::<u64>::new());
    let help = run_with(&["--help"]).stdout;
    assert!(help.contains("a crash loses them"), "{help}");
}

#[test]
fn an_unwritable_state_path_stops_the_start() {
    for (path, cause) in [("/proc/none/state", "/proc/none/state"), ("/tmp/", "--state")] {
        let mut start = command();
        start.args(["--listen", "127.0.0.1:0", "--state", path]);
        let finished = run(start);
        assert_ne!(finished.code, Some(0), "{finished:?}");
        assert!(
            finished.stderr.contains(cause) && finished.stderr.lines().count() == 1,
            "{finished:?}"
        );
    }
}

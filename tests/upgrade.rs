//! SIGUSR2: another process takes over, and no client loses anything.

mod common;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::{Client, EventStream, Folder, Server, command, free_address, until};
use rustix::process::{Signal, kill_process, test_kill_process};

#[test]
fn channels_connections_and_ids_survive_an_upgrade() {
    let mut server = Server::with(&["--connection-timeout", "1h"]);
    let josh = server.introduce("room", "Josh");
    server.write("room", "before");
    let before = server.read("room", "1");
    for round in 0..3 {
        server.upgrade();
        let after = server.read("room", "1");
        assert!(after.messages().starts_with(&before.messages()));
        assert_eq!(after.json()["epoch"], before.json()["epoch"]);
        let say = josh.and(&[("channel", "room"), ("message", "after")]);
        assert_eq!(server.get("/write", &say).ok().json()["id"], 3 + round);
        assert_eq!(server.members("room")["members"][0]["message"], "Josh");
    }
    assert_eq!(server.introduce("room", "Ann").number, josh.number + 1);
}

#[test]
fn a_client_continues_on_the_same_tcp_connection() {
    let mut server = Server::with(&["--connection-timeout", "1h", "--poll-timeout", "1h"]);
    let josh = server.introduce("room", "Josh");
    let mut idle = server.client();
    idle.get("/health", &[]).ok();
    let mut half = server.client();
    half.send("GET /write?channel=room&mess");
    let mut body = server.client();
    body.send(
        "POST /write?channel=room HTTP/1.1\r\nHost: h\r\n\
         Content-Type: text/plain\r\nContent-Length: 9\r\n\r\nhalf ",
    );
    let mut waiting = server.park(&josh.and(&[("channel", "room"), ("from_id", "2")]));
    server.upgrade();
    let answer = waiting.response().ok();
    assert_eq!((answer.ids(), answer.next_id(), answer.says_close()), (vec![], 2, false));
    idle.get("/write", &[("channel", "room"), ("message", "idle")]).ok();
    half.call("age=half HTTP/1.1\r\nHost: h\r\n\r\n").ok();
    body.call("body").ok();
    let answer = waiting.get("/read", &josh.and(&[("channel", "room"), ("from_id", "2")])).ok();
    assert_eq!(answer.texts(), ["idle", "half", "half body"]);
}

#[test]
fn streams_end_and_reconnect_to_the_new_process_without_a_goodbye() {
    let mut server = Server::with(&["--connection-timeout", "1h"]);
    let josh = server.introduce("room", "Josh");
    let mut events = server.events(&josh.and(&[("channel", "room"), ("from_id", "1")]));
    let cursor = events.event().id.expect("a cursor");
    let mut socket = server.socket(&[("channel", "room")]);
    server.upgrade();
    events.ends();
    socket.ends_with(1001);
    server.write("room", "meanwhile");
    let params = josh.and(&[("channel", "room")]);
    let mut events = server.events_after(&params, Some(&cursor));
    assert_eq!(events.texts(1), ["meanwhile"]);
}

#[test]
fn a_stream_with_unsent_events_ends_whole_through_an_upgrade() {
    let mut server = Server::with(&["--history", "1000", "--max-backlog", "64m"]);
    let text = "x".repeat(60_000);
    let mut writer = server.client();
    for number in 0..100 {
        writer.post("/write?channel=room", "text/plain", format!("{number} {text}")).ok();
    }
    // More than both kernels buffer: the rest waits in the server.
    let params = [("channel", "room"), ("from_id", "1")];
    let mut stream = EventStream::open(Client::connect_narrow(server.address()), &params, &[]);
    let cursor = stream.beginning();
    server.signal(Signal::USR2);
    until("the new process serves", || !server.successors().is_empty());
    let mut seen = 0;
    let mut last = cursor;
    while let Some(event) = stream.maybe_event() {
        let message = event.message();
        let text = message["message"].as_str().expect("a text");
        assert!(text.starts_with(&format!("{seen} x")), "{seen}: {text:.9}");
        event.cursor().clone_into(&mut last);
        seen += 1;
    }
    assert!(stream.has_ended(), "the stream was cut after {seen} messages");
    until("the old process has exited", || {
        server.log().iter().any(|line| line.ends_with(" upgrade finished: old process exited"))
    });
    server.adopt_successor();
    let mut rest = server.events_after(&params, Some(&last));
    for number in seen..100 {
        assert!(rest.texts(1)[0].starts_with(&format!("{number} x")));
    }
}

#[test]
fn no_waiting_connection_times_out_through_an_upgrade() {
    // Less than the time until the last of them is answered, so that they return one by one.
    let mut server = Server::with(&["--connection-timeout", "700ms", "--poll-timeout", "1h"]);
    let mut waiting = Vec::new();
    for number in 1..=20 {
        let me = server.introduce("room", &format!("number {number}"));
        let client = server.park(&me.and(&[("channel", "elsewhere")]));
        waiting.push((client, me));
    }
    for _ in 0..2 {
        server.signal(Signal::USR2);
        for (client, me) in &mut waiting {
            assert_eq!(client.response().ok().ids(), Vec::<u64>::new());
            client.send_get("/read", &me.and(&[("channel", "elsewhere")]));
        }
        server.wait_for_upgrades(server.successors().len());
        server.adopt_successor();
    }
    server.wait_for_readers("elsewhere", 20);
    assert_eq!(server.read("room", "0").ids(), (1..=20).collect::<Vec<u64>>());
}
#[test]
fn a_chunked_request_cut_by_an_upgrade_is_refused_and_changes_nothing() {
    let mut server = Server::start();
    let mut chunked = server.client();
    chunked.send(
        "POST /write?channel=room HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    // The server has read it once it has answered a later client.
    server.write("room", "one");
    server.upgrade();
    chunked.response().fails_with(503, "over_capacity");
    assert_eq!(server.read("room", "0").ids(), [1]);
}

#[test]
fn a_successor_that_does_not_start_leaves_the_old_process_serving() {
    let folder = Folder::new("broken");
    let program = folder.file("speak");
    let speak = command().get_program().to_owned();
    symlink(&speak, &program).expect("a link");
    let mut start = Command::new(&program);
    // The sandbox lets a server start no program outside of its own folder.
    start.args(["--listen", "127.0.0.1:0", "--no-sandbox"]);
    let server = Server::spawn(start, 1);
    server.write("room", "one");
    let silent = folder.file("silent");
    // If the server does not end it, it must not keep the server's log open.
    fs::write(&silent, "#!/bin/sh\nexec sleep 60 2>/dev/null\n").expect("a program");
    fs::set_permissions(&silent, fs::Permissions::from_mode(0o700)).expect("a program");
    // The file under that name is now another program: one that exits at once, with or without an
    // error, and one that says nothing.
    for broken in [Path::new("/bin/false"), Path::new("/bin/true"), &silent] {
        fs::remove_file(&program).expect("the link");
        symlink(broken, &program).expect("a link");
        let before = server.logged("upgrade failed");
        server.signal(Signal::USR2);
        until("the upgrade has failed", || server.logged("upgrade failed") > before);
        server.write("room", "two");
    }
    assert_eq!(server.read("room", "1").ids(), [1, 2, 3, 4]);
    // All were started, and the last of them was ended.
    let successors = server.successors();
    assert_eq!(successors.len(), 3);
    until("it is gone", || test_kill_process(successors[2]).is_err());
}

#[test]
fn a_signal_does_not_interrupt_an_upgrade() {
    let folder = Folder::new("interrupted");
    let program = folder.file("speak");
    symlink(command().get_program(), &program).expect("a link");
    let mut start = Command::new(&program);
    start.args(["--listen", "127.0.0.1:0", "--no-sandbox"]);
    let server = Server::spawn(start, 1);
    fs::remove_file(&program).expect("the link");
    // It begins a message, for the rest of which the server waits. Meanwhile it sends signals.
    let script = "#!/bin/sh\n\
                  [ -e \"$0.first\" ] && exit 1\n\
                  touch \"$0.first\"\n\
                  printf '\\0\\0\\0\\11' >&0\n\
                  for _ in 1 2 3 4 5 6 7 8; do sleep 0.1; kill -USR2 $PPID; done\n";
    fs::write(&program, script).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("a program");
    server.signal(Signal::USR2);
    // The signals have started the second upgrade.
    until("both have failed", || server.logged("upgrade failed") == 2);
    assert_eq!(server.logged("unexpected end of file"), 2, "{}", server.log().join("\n"));
    assert_eq!(server.write("room", "one"), 1);
}

#[test]
fn a_successor_killed_before_it_serves_leaves_the_old_process_serving() {
    for _ in 0..4 {
        let mut server = Server::with(&["--connection-timeout", "1h"]);
        server.write("room", "one");
        server.signal(Signal::USR2);
        until("an upgrade has started", || !server.successors().is_empty());
        // Fails only if the process was ended already.
        let _ = kill_process(server.successors()[0], Signal::KILL);
        until("one of them is gone", || server.logged("upgrade failed") > 0 || server.has_ended());
        if server.has_ended() {
            // It was killed too late: it served already.
            server.forget();
        } else {
            assert_eq!(server.read("room", "1").ids(), [1]);
        }
    }
}

/// Prints the log if a test fails.
struct PrintLog<'a>(&'a Server);

impl Drop for PrintLog<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0.log().join("\n"));
        }
    }
}

#[test]
fn an_old_process_killed_during_an_upgrade_leaves_a_serving_successor() {
    // The new process may have to bind the address itself, so it has to know the port.
    let port = free_address();
    for pause_ms in [0, 5, 20, 60] {
        let mut server = Server::on(&[&port.to_string()], &[]);
        server.write("room", "one");
        server.signal(Signal::USR2);
        until("an upgrade has started", || !server.successors().is_empty());
        thread::sleep(Duration::from_millis(pause_ms));
        server.signal(Signal::KILL);
        server.adopt_successor();
        let printed = PrintLog(&server);
        until("the new one serves", || TcpStream::connect(port).is_ok());
        drop(printed);
        let id = server.write("room", "two");
        assert!((1..=2).contains(&id), "{id}");
    }
}

#[test]
fn admin_clients_are_not_transferred() {
    let mut server = Server::watched(&[]);
    let mut operator = server.operator();
    operator.get("/metrics", &[]).ok();
    server.upgrade();
    operator.is_closed();
    server.operator().get("/metrics", &[]).ok();
    server.get("/metrics", &[]).fails_with(404, "not_found");
}

#[test]
fn a_unix_socket_keeps_its_path_through_an_upgrade() {
    let folder = Folder::new("unix");
    let path = folder.file("speak.sock");
    let mut server = Server::on(&["127.0.0.1:0", &format!("unix:{}", path.display())], &[]);
    server.upgrade();
    UnixStream::connect(&path).expect("the new process listens there");
    server.signal(Signal::TERM);
    until("its file is gone", || !path.exists());
}

//! Starts that fail, and what they say to do about it.

mod common;

use std::net::TcpListener;
use std::process::Command;

use common::{Finished, Server, command, run};

#[track_caller]
fn says(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "one line: {finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "no {word:?} in {finished:?}");
    }
}

/// Runs the server on an address, after a shell has run `before` for it.
fn start_behind(before: &str, address: &str) -> Command {
    let speak = command().get_program().to_owned();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{before} && exec \"$0\" --listen \"$1\"")).arg(speak).arg(address);
    shell
}

#[test]
fn a_port_that_is_taken_is_told_with_who_has_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    let mut start = command();
    start.args(["--listen", &address]);
    let own = format!("(process {})", std::process::id());
    says(&run(start), 1, &[&address, "in use", &own, "--listen"]);
}

#[test]
fn an_address_that_this_machine_has_not_is_told() {
    let mut start = command();
    // TEST-NET-1 of RFC 5737.
    start.args(["--listen", "192.0.2.1:0"]);
    says(&run(start), 1, &["192.0.2.1", "no such address"]);
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let mut start = command();
    start.args(["--listen", "unix:/nonexistent/speak.sock"]);
    says(&run(start), 1, &["/nonexistent", "has to be there"]);
}

#[test]
fn a_port_that_only_root_may_have_is_told_with_the_command_that_mends_it() {
    // Whoever runs this may be root, and the kernel may give low ports to anybody: in namespaces of its own neither holds.
    let mut start = Command::new("unshare");
    start.args(["--user", "--net"]).arg(command().get_program()).args(["--listen", "0.0.0.0:80"]);
    let finished = run(start);
    says(&finished, 1, &["0.0.0.0:80", "setcap cap_net_bind_service=+ep"]);
}

#[test]
fn a_limit_on_open_files_that_is_too_low_is_told_with_what_to_set() {
    says(
        &run(start_behind("ulimit -n 5", "127.0.0.1:0")),
        1,
        &["limit on open files is 5", "ulimit -n", "LimitNOFILE"],
    );
    let server = Server::spawn(start_behind("ulimit -n 200", "127.0.0.1:0"), 1);
    common::until("it warns", || {
        server.log().iter().any(|line| line.contains(" WARN ") && line.contains("ulimit -n"))
    });
    server.write("room", "howdy");
}

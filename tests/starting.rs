//! Starts that fail, and the errors that say what to do.

mod common;

use std::net::TcpListener;
use std::process::Command;

use common::{Finished, Server, command, run};

#[track_caller]
fn assert_says(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "one line: {finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "no {word:?} in {finished:?}");
    }
}

/// Returns a command that runs `before` in a shell, then the server on `address`.
fn start_after(before: &str, address: &str) -> Command {
    let speak = command().get_program().to_owned();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{before} && exec \"$0\" --listen \"$1\"")).arg(speak).arg(address);
    shell
}

#[test]
fn the_error_for_a_port_in_use_names_the_process_that_has_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    let mut start = command();
    start.args(["--listen", &address]);
    let own = format!("(process {})", std::process::id());
    assert_says(&run(start), 1, &[&address, "in use", &own, "--listen"]);
}

#[test]
fn the_error_for_an_address_of_another_machine_says_so() {
    let mut start = command();
    // TEST-NET-1 of RFC 5737.
    start.args(["--listen", "192.0.2.1:0"]);
    assert_says(&run(start), 1, &["192.0.2.1", "no such address"]);
}

#[test]
fn the_error_for_a_missing_directory_names_it() {
    let mut start = command();
    start.args(["--listen", "unix:/nonexistent/speak.sock"]);
    assert_says(&run(start), 1, &["/nonexistent", "has to be there"]);
}

#[test]
fn the_error_for_a_port_that_needs_root_has_the_command_that_fixes_it() {
    // The test may run as root, and the kernel may allow low ports for all users. Neither is true
    // in new namespaces.
    let mut start = Command::new("unshare");
    start.args(["--user", "--net"]).arg(command().get_program()).args(["--listen", "0.0.0.0:80"]);
    let finished = run(start);
    assert_says(&finished, 1, &["0.0.0.0:80", "setcap cap_net_bind_service=+ep"]);
}

#[test]
fn the_error_for_too_low_a_limit_on_open_files_says_what_to_set() {
    assert_says(
        &run(start_after("ulimit -n 5", "127.0.0.1:0")),
        1,
        &["limit on open files is 5", "ulimit -n", "LimitNOFILE"],
    );
    let server = Server::spawn(start_after("ulimit -n 200", "127.0.0.1:0"), 1);
    common::until("it warns", || {
        server.log().iter().any(|line| line.contains(" WARN ") && line.contains("ulimit -n"))
    });
    server.write("room", "howdy");
}

//! Starts that fail, and the errors that say what to do.

mod common;

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use common::{Folder, Server, command, run, run_with};

/// Returns a command that runs `before` in a shell, then the server on `address`.
fn start_after(before: &str, address: &str) -> Command {
    let speak = command().get_program().to_owned();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{before} && exec \"$0\" --listen \"$1\"")).arg(speak).arg(address);
    shell
}

#[test]
fn the_error_for_an_address_says_what_is_wrong_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("its address").to_string();
    let own = format!("(process {})", std::process::id());
    let cases: [(&str, &[&str]); 3] = [
        (&taken, &[&taken, "in use", &own, "--listen"]),
        // TEST-NET-1 of RFC 5737.
        ("192.0.2.1:0", &["192.0.2.1", "no such address"]),
        ("unix:/nonexistent/speak.sock", &["/nonexistent", "has to be there"]),
    ];
    for (address, words) in cases {
        run_with(&["--listen", address]).fails_with(1, words);
        run_with(&["--listen", "127.0.0.1:0", "--listen", address]).fails_with(1, words);
    }
}

#[test]
fn the_error_for_a_folder_is_about_permissions_only_if_they_are_the_cause() {
    let folder = Folder::new("starts");
    let path = |name: &str| folder.file(name).display().to_string();
    fs::write(folder.file("file"), "").expect("a file");
    let cases = [
        ("--state", path("missing/state"), "has to be there"),
        ("--state", path("file/state"), "is no folder"),
        ("--listen", format!("unix:{}", path("missing/socket")), "has to be there"),
        ("--listen", format!("unix:{}", path("file/socket")), "is no folder"),
    ];
    for (option, value, cause) in cases {
        let finished = run_with(&["--listen", "127.0.0.1:0", option, &value]);
        finished.fails_with(1, &[cause, option, &path("")]);
        for word in ["permission", "writable"] {
            assert!(!finished.stderr.contains(word), "{finished:?}");
        }
    }
}

#[test]
fn the_error_for_a_port_that_needs_root_has_the_command_that_fixes_it() {
    // The test may run as root, and the kernel may allow low ports for all users. Neither is true
    // in new namespaces.
    let mut start = Command::new("unshare");
    start.args(["--user", "--net"]).arg(command().get_program()).args(["--listen", "0.0.0.0:80"]);
    run(start).fails_with(1, &["0.0.0.0:80", "setcap cap_net_bind_service=+ep"]);
}

#[test]
fn the_error_for_too_low_a_limit_on_open_files_says_what_to_set() {
    run(start_after("ulimit -n 5", "127.0.0.1:0"))
        .fails_with(1, &["limit on open files is 5", "ulimit -n", "LimitNOFILE"]);
    let server = Server::spawn(start_after("ulimit -n 200", "127.0.0.1:0"), 1);
    common::until("it warns", || {
        server.log().iter().any(|line| line.contains(" WARN ") && line.contains("ulimit -n"))
    });
    server.write("room", "howdy");
}

#[test]
fn the_addresses_are_the_first_lines_whatever_was_loaded() {
    let folder = Folder::new("first-lines");
    for (option, name) in [("--state", "state"), ("--journal", "journal")] {
        let path = folder.file(name).display().to_string();
        let start = || Server::with(&[option, &path, "--admin-listen", "127.0.0.1:0"]);
        let mut server = start();
        server.write("room", "howdy");
        server.stop();
        let server = start();
        common::until("it is logged", || server.logged(" channels=1 ") == 1);
        let log = server.log();
        let greetings = log.iter().take_while(|line| line.contains(" listening on http"));
        assert_eq!(greetings.count(), 2, "{option}: {log:?}");
    }
}

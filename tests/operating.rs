//! The command line, the environment, the listeners and the limits of a server.

mod common;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use common::{Client, Folder, Params, Server, command, get_at, run, run_with, until};
use rustix::process::Signal;

#[test]
fn an_error_names_the_bad_option() {
    let fails = |arguments: &[&str], cause: &str| {
        let arguments = [&["--listen", "127.0.0.1:0"], arguments].concat();
        run_with(&arguments).fails_with(2, &[cause]);
    };
    for argument in ["--nonsense", "-x", "extra", "--history"] {
        fails(&[argument], argument);
    }
    for address in ["nonsense", "127.0.0.1:99999", "127.0.0.1:x", "[::1:80"] {
        fails(&["--listen", address], address);
    }
    let cases: [(&str, &[&str]); 15] = [
        ("--history", &["abc", "", "-1", "1.5", "99999999999999999999999"]),
        ("--poll-timeout", &["5x", "ms", "-1", "soon"]),
        ("--connection-timeout", &["nan"]),
        ("--keep-alive", &["inf"]),
        ("--request-timeout", &["99999999999999999999h"]),
        ("--max-message", &["1q", "k"]),
        ("--max-head", &["big"]),
        ("--max-reply", &["99999999999999999999g"]),
        ("--max-clients", &["many"]),
        ("--max-channels", &["-5"]),
        ("--trust-proxy", &["10.0.0.0/33"]),
        ("--max-rate", &["fast"]),
        ("--user", &[""]),
        ("--cluster", &["", "http://localhost", "redis://", "redis://localhost/first"]),
        ("--log", &["loud"]),
    ];
    for (option, values) in cases {
        for value in values {
            fails(&[option, value], option);
        }
    }
}

#[test]
fn an_error_names_the_variable_with_a_bad_value() {
    let cases = [
        ("SPEAK_HISTORY", "abc", "SPEAK_HISTORY"),
        ("SPEAK_POLL_TIMEOUT", "5x", "SPEAK_POLL_TIMEOUT"),
        ("SPEAK_LISTEN", "127.0.0.1:0,nonsense", "nonsense"),
    ];
    for (name, value, cause) in cases {
        let mut command = command();
        command.env("SPEAK_LISTEN", "127.0.0.1:0").env(name, value);
        run(command).fails_with(2, &[cause]);
    }
}

#[test]
fn an_unknown_option_gets_the_nearest_and_the_way_to_help() {
    let cases: [(&[&str], &str); 10] = [
        (
            &["--poll-timout", "5"],
            "invalid option '--poll-timout'; did you mean --poll-timeout? see",
        ),
        (&["--histroy=5"], "invalid option '--histroy'; did you mean --history? see --help"),
        (&["--hlep"], "invalid option '--hlep'; did you mean --help? see --help"),
        (&["--x"], "invalid option '--x'; see --help"),
        (&["-x"], "invalid option '-x'; see --help"),
        (&["wirte", "room", "x"], "\"wirte\"; did you mean speak write? see --help"),
        (&["docter"], "\"docter\"; did you mean speak doctor? see --help"),
        (&["help"], "\"help\"; use --help"),
        (&["extra"], "unexpected argument \"extra\"; see --help"),
        (&["--no-demo=x"], "; see --help"),
    ];
    for (options, cause) in cases {
        run_with(options).fails_with(2, &[cause]);
    }
}

#[test]
fn a_value_that_is_no_whole_number_is_called_that() {
    let cases = [
        ("--history", "1.5"),
        ("--history", "0.5s"),
        ("--max-clients", "2e3"),
        ("--max-rate", "-1"),
        ("--max-message", "1.5k"),
        ("--max-memory", "0.5g"),
    ];
    for (option, value) in cases {
        run_with(&[option, value]).fails_with(2, &[option, "whole number"]);
    }
}

#[test]
fn an_origin_that_could_never_match_is_refused() {
    let origins = [
        "example.org",
        "https://example.org/",
        "https://example.org/chat",
        "https://*",
        "https://a.*.example.org",
        "https://*example.org",
        "https://.example.org",
        "https://example.org:0",
        "https://example.org:https",
        "https://b\u{fc}cher.example",
        "https://192.0.2.256",
        "wss://example.org",
        "file:///home",
    ];
    for origin in origins {
        let fault = format!("--allow-origin: '{origin}' can match no origin: ");
        run_with(&["--allow-origin", origin]).fails_with(2, &[&fault]);
        let mut command = command();
        command.env("SPEAK_ALLOW_ORIGIN", format!("https://example.org,{origin}"));
        run(command).fails_with(2, &["SPEAK_ALLOW_ORIGIN: ", "can match no origin"]);
    }
}

#[test]
fn an_unknown_variable_is_logged_with_the_nearest_name() {
    let spawn = |variables: &[(&str, &str)]| {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0"]).envs(variables.iter().copied());
        let mut server = Server::spawn(command, 1);
        server.stop();
        let log = server.log();
        log.into_iter().filter(|line| line.contains(" WARN unknown variable ")).collect::<Vec<_>>()
    };
    let warnings = spawn(&[("SPEAK_HISTROY", "secret"), ("SPEAK_ALLOW_ORIGINS", "secret")]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (name, nearest) in
        [("SPEAK_HISTROY", "SPEAK_HISTORY"), ("SPEAK_ALLOW_ORIGINS", "SPEAK_ALLOW_ORIGIN")]
    {
        let text = format!(" WARN unknown variable {name}: the nearest is {nearest}; see --help");
        assert!(warnings.iter().any(|line| line.ends_with(&text)), "no{text} in {warnings:?}");
    }
    assert_eq!(spawn(&[("SPEAK_SERVER", "x"), ("SPEAK_HISTORY", "5"), ("SPEAKER", "x")]), [""; 0]);
    assert_eq!(spawn(&[("SPEAK_A\nWARN b", "x")]).len(), 1);
}

#[test]
fn the_first_lines_say_which_address_is_that_of_the_admin() {
    let mut command = command();
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log", "error"]);
    let server = Server::spawn(command, 2);
    // Another thread reads the log.
    until("both lines are there", || server.log().len() >= 2);
    let log = server.log();
    let line = |note: &str, index| {
        let version = env!("CARGO_PKG_VERSION");
        format!("speak {version} listening on http://127.0.0.1:{}{note}", server.port(index))
    };
    assert_eq!(log[..2], [line("", 0), line(" (admin)", 1)]);
}

#[test]
fn help_names_every_option() {
    let help = run_with(&["--help"]);
    assert_eq!((help.code, &*help.stderr), (Some(0), ""));
    // `tests/docs.rs` compares their names with the table in docs/operating.md.
    for option in speak::options::SPECS {
        assert!(help.stdout.contains(&format!("--{}", option.name)), "no --{}", option.name);
    }
}

#[test]
fn version_prints_the_version() {
    run_with(&["--version"]).prints(concat!("speak ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// Returns the `timeout` of an introduction: the --connection-timeout as the server parsed it.
fn connection_timeout(server: &Server) -> String {
    let params = [("channel", "c"), ("message", "m")];
    let response = server.get("/introduce", &params).ok();
    response.json()["timeout"].to_string()
}

#[test]
fn durations_are_in_seconds_or_have_a_unit() {
    let cases = [
        ("5", "5"),
        ("0.2", "0.2"),
        ("2.5", "2.5"),
        ("200ms", "0.2"),
        ("1500ms", "1.5"),
        ("5s", "5"),
        ("10m", "600"),
        ("1h", "3600"),
    ];
    for (duration, seconds) in cases {
        let server = Server::with(&["--connection-timeout", duration]);
        assert_eq!(connection_timeout(&server), seconds, "{duration}");
    }
    assert_eq!(connection_timeout(&Server::start()), "5");
    let server = Server::with(&["--connection-timeout=7s"]);
    assert_eq!(connection_timeout(&server), "7");
}

#[test]
fn a_server_starts_with_the_longest_times() {
    let times = [
        "--poll-timeout",
        "--connection-timeout",
        "--close-grace",
        "--keep-alive",
        "--request-timeout",
        "--heartbeat",
        "--stream-life",
        "--retention",
    ];
    for time in ["600h", "87600h"] {
        let options = times.map(|option| [option, time]).concat();
        let server = Server::with(&options);
        let me = server.introduce("c", "Josh");
        let mut reader = server.park(&me.and(&[("channel", "c"), ("from_id", "2")]));
        server.write("c", "howdy");
        assert_eq!(reader.response().ok().texts(), ["howdy"], "{time}");
    }
}

#[test]
fn sizes_are_in_bytes_or_have_a_unit() {
    for (size, bytes) in [("10", 10), ("1k", 1024), ("2m", 2 << 20)] {
        let server = Server::with(&["--max-message", size]);
        let write = |bytes: usize| {
            let body = "x".repeat(bytes);
            server.client().post("/write?channel=c", "text/plain", body).status
        };
        assert_eq!((write(bytes), write(bytes + 1)), (200, 413), "{size}");
    }
}

#[test]
fn the_environment_sets_options_that_the_command_line_does_not() {
    let spawn = |options: &[&str]| {
        let mut command = command();
        command.env("SPEAK_LISTEN", "127.0.0.1:0,127.0.0.1:0");
        command.env("SPEAK_CONNECTION_TIMEOUT", "90s");
        command.env("SPEAK_ALLOW_ORIGIN", "https://a.example,https://b.example");
        command.env("SPEAK_HISTORY", "");
        command.args(options);
        Server::spawn(command, 2)
    };
    let server = spawn(&[]);
    assert_ne!(server.port(0), server.port(1));
    assert_eq!(connection_timeout(&server), "90");
    for (origin, status) in [("https://a.example", 200), ("https://b.example", 200), ("x", 403)] {
        let params = [("channel", "c"), ("message", "m")];
        let headers = [("Origin", origin)];
        let response = server.client().get_with("/write", &params, &headers);
        assert_eq!(response.status, status, "{origin}");
    }
    let server = spawn(&["--connection-timeout", "2m"]);
    assert_eq!(connection_timeout(&server), "120");
}

#[test]
fn all_listeners_serve_the_same_channels() {
    let server = Server::on(&["127.0.0.1:0", "127.0.0.1:0"], &["--log", "error"]);
    assert_ne!(server.port(0), server.port(1));
    assert_eq!(server.url(1), format!("http://127.0.0.1:{}", server.port(1)));
    let mut reader = server.park(&[("channel", "c")]);
    Client::connect(server.address_of(1))
        .get("/write", &[("channel", "c"), ("message", "hi")])
        .ok();
    assert_eq!(reader.response().texts(), ["hi"]);
}

/// Returns whether this machine has IPv6.
fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[track_caller]
fn assert_served(address: SocketAddr) {
    let response = Client::connect(address).get("/health", &[]).ok();
    assert_eq!(response.text(), r#"{"status":"ok"}"#);
}

#[test]
fn a_server_listens_on_an_ipv6_address() {
    if has_ipv6() {
        let server = Server::on(&["[::1]:0"], &[]);
        assert_eq!(server.url(0), format!("http://[::1]:{}", server.port(0)));
        assert_served(server.address());
    }
}

#[test]
fn a_listener_for_all_addresses_accepts_ipv4_too() {
    for listen in ["[::]:0", "0"] {
        let server = Server::on(&[listen], &[]);
        assert_served(server.address());
        if has_ipv6() {
            assert_eq!(server.url(0), format!("http://[::]:{}", server.port(0)));
            assert_served(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], server.port(0))));
        }
    }
}

/// Path of a socket that no other test uses.
struct SocketPath {
    _folder: Folder,
    path: PathBuf,
}

impl SocketPath {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        Self { path: folder.file("sock"), _folder: folder }
    }

    /// Returns the path of a socket without a listener.
    fn stale(name: &str) -> Self {
        let socket = Self::new(name);
        drop(UnixListener::bind(&socket.path).expect("a socket"));
        // A child process that another test is starting may have a copy of the listener until exec.
        until("the socket has no listener", || UnixStream::connect(&socket.path).is_err());
        socket
    }

    fn url(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    #[track_caller]
    fn assert_served(&self) {
        let response = get_at(&self.path, "/health");
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert!(response.ends_with(r#"{"status":"ok"}"#), "{response}");
    }

    /// Asserts that a server does not start with this socket.
    #[track_caller]
    fn assert_refused(&self) {
        let finished = run_with(&["--listen", &self.url()]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
    }
}

#[test]
fn a_server_listens_on_a_unix_socket() {
    let path = SocketPath::new("listener");
    let server = Server::on(&["127.0.0.1:0", &path.url()], &[]);
    assert_eq!(server.url(1), path.url());
    path.assert_served();
    assert_served(server.address());
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let path = SocketPath::stale("stale");
    assert!(path.path.exists());
    let server = Server::on(&[&path.url()], &[]);
    path.assert_served();
    // A killed server leaves its file. The next server replaces it.
    drop(server);
    let _next = Server::on(&[&path.url()], &[]);
    path.assert_served();
}

#[test]
fn a_unix_socket_in_use_is_left_alone() {
    let path = SocketPath::new("taken");
    let _server = Server::on(&[&path.url()], &[]);
    path.assert_refused();
    path.assert_served();
}

#[test]
fn the_umask_decides_who_may_use_a_unix_socket() {
    for (umask, mode) in [("022", 0o755), ("007", 0o770), ("077", 0o700), ("000", 0o777)] {
        let path = SocketPath::new(umask);
        let script = format!("umask {umask}; exec \"$0\" --listen \"$1\"");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script]).arg(command().get_program()).arg(path.url());
        shell.env_clear();
        let _server = Server::spawn(shell, 1);
        path.assert_served();
        let socket = fs::symlink_metadata(&path.path).expect("the socket");
        assert_eq!(socket.permissions().mode() & 0o777, mode, "umask {umask}");
    }
}

#[test]
fn a_symbolic_link_is_left_alone_wherever_it_points() {
    let target = SocketPath::stale("target");
    let nowhere = SocketPath::new("nowhere");
    for target in [&target.path, &nowhere.path] {
        let link = SocketPath::new("link");
        symlink(target, &link.path).expect("a link");
        link.assert_refused();
        assert_eq!(fs::read_link(&link.path).expect("the link is still there"), *target);
    }
    assert!(target.path.exists() && !nowhere.path.exists());
}

#[test]
fn a_stop_removes_the_socket_of_the_server_and_no_other() {
    let path = SocketPath::new("own");
    let mut server = Server::on(&[&path.url()], &[]);
    server.signal(Signal::TERM);
    server.wait();
    assert!(!path.path.exists());

    let mut server = Server::on(&[&path.url()], &[]);
    fs::remove_file(&path.path).expect("the socket");
    let theirs = UnixListener::bind(&path.path).expect("a socket of another process");
    server.signal(Signal::TERM);
    server.wait();
    UnixStream::connect(&path.path).expect("it is still there");
    drop(theirs);
}

#[test]
fn a_file_that_is_not_a_socket_is_left_alone() {
    let path = SocketPath::new("file");
    fs::write(&path.path, "precious").expect("a file");
    path.assert_refused();
    assert_eq!(fs::read_to_string(&path.path).expect("the file is still there"), "precious");
}

#[test]
fn a_client_over_the_limit_is_rejected() {
    let server = Server::with(&["--max-clients", "3"]);
    let mut clients = [(); 3].map(|()| server.client());
    for client in &mut clients {
        client.get("/health", &[]).ok();
    }
    let mut rejected = server.client();
    rejected.try_send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    let response = rejected.response();
    assert_eq!(response.status, 503);
    assert!(response.says_close());
    rejected.is_closed();

    // Accepted clients are still served. If one disconnects, another is accepted.
    let [first, mut second, mut third] = clients;
    second.send_get("/read", &[("channel", "c")]);
    drop(first);
    until("there is room again", || {
        let mut client = server.client();
        client.try_send("GET /write?channel=c&message=m HTTP/1.1\r\nHost: x\r\n\r\n");
        client.response().status == 200
    });
    assert_eq!(second.response().ok().texts(), ["m"]);
    third.get("/health", &[]).ok();
}

#[test]
fn a_channel_over_the_limit_is_refused() {
    let server = Server::with(&["--max-channels", "2"]);
    server.write("a", "m");
    server.write("b", "m");
    for path in ["/write", "/introduce"] {
        let params: &Params = &[("channel", "c"), ("message", "m")];
        let response = server.get(path, params);
        response.fails_with(503, "over_capacity");
        let after = response.header("retry-after").expect("a Retry-After");
        after.parse::<u32>().expect("a number of seconds");
        assert_eq!(response.header("access-control-expose-headers"), Some("Retry-After"));
    }
    assert_eq!(server.write("a", "m"), 2);
    // The refused introduction created no connection.
    assert_eq!(server.introduce("b", "m").number, 1);
}

#[test]
fn the_demo_page_is_served_unless_no_demo_is_set() {
    let server = Server::start();
    let page = server.get("/", &[]).ok();
    let content_type = page.header("content-type").expect("a type");
    assert!(content_type.starts_with("text/html"), "{content_type}");
    assert!(page.text().to_lowercase().contains("<!doctype html>"));

    let server = Server::with(&["--no-demo"]);
    for path in ["/", "/demo.js"] {
        server.get(path, &[]).fails_with(404, "not_found");
    }
    server.get("/image-test", &[]).ok();
    server.write("c", "m");
}

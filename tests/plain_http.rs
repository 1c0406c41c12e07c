//! Plain HTTP next to https: challenges of ACME (`--acme-challenges`) and redirects
//! (`--redirect-https`).

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use common::{Client, Folder, Response, Server, ask_at, command, handshake, request, run, until};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::geteuid;

const PREFIX: &str = "/.well-known/acme-challenge/";

/// A token and its response, as in RFC 8555, section 8.3.
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const RESPONSE: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0\
    .9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

/// A redirect needs a listener with TLS, or a proxy that speaks it: this one, which no client is.
const REDIRECT: &str = "--redirect-https";
const PROXY: &str = "--trust-proxy=192.0.2.1";

/// A user that no file mentions.
const OTHER_USER: &str = "65533:65532";

/// A folder that every user can enter.
fn open_folder() -> Folder {
    let folder = Folder::new("challenges");
    set_mode(folder.path(), 0o755);
    folder
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its rights");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn challenge(client: &mut Client, name: &str) -> Response {
    client.get(&format!("{PREFIX}{name}"), &[])
}

#[test]
fn a_challenge_is_answered_with_the_file_of_its_name() {
    let folder = open_folder();
    for options in [&[][..], &["--no-sandbox"], &[REDIRECT, PROXY]] {
        let server = Server::with(&[&["--acme-challenges", text(folder.path())], options].concat());
        let mut client = server.client();
        challenge(&mut client, TOKEN).fails_with(404, "not_found");

        // Hooks write a file and move it to its name.
        fs::write(folder.file("new.tmp"), RESPONSE).expect("a file");
        fs::rename(folder.file("new.tmp"), folder.file(TOKEN)).expect("its name");
        let response = challenge(&mut client, TOKEN).ok();
        assert_eq!(response.text(), RESPONSE);
        assert_eq!(response.header("content-type"), Some("application/octet-stream"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(challenge(&mut client, &format!("{TOKEN}?query=1")).ok().text(), RESPONSE);

        client.send(request("HEAD", &format!("{PREFIX}{TOKEN}"), &[], None));
        let head = client.head();
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-length"), Some(&*RESPONSE.len().to_string()));
        // Nothing follows that head except the next response.
        fs::write(folder.file(TOKEN), "another").expect("a file");
        assert_eq!(challenge(&mut client, TOKEN).ok().text(), "another");

        fs::remove_file(folder.file(TOKEN)).expect("no file");
        challenge(&mut client, TOKEN).fails_with(404, "not_found");
        assert_eq!(server.logged("ACME"), 0, "{:?}", server.log());
    }
}

#[test]
fn without_the_option_there_are_no_challenges() {
    challenge(&mut Server::start().client(), TOKEN).fails_with(404, "not_found");
}

#[test]
fn a_challenge_takes_only_get_and_head() {
    let folder = open_folder();
    fs::write(folder.file(TOKEN), RESPONSE).expect("a file");
    let server = Server::with(&["--acme-challenges", text(folder.path()), REDIRECT, PROXY]);
    for method in ["POST", "OPTIONS", "PUT", "DELETE"] {
        let target = format!("{PREFIX}{TOKEN}");
        let response = server.client().call(request(method, &target, &[], Some(b"")));
        response.fails_with(405, "method_not_allowed");
        assert_eq!(response.header("allow"), Some("GET, HEAD"), "{method}");
    }
}

#[test]
fn nothing_but_small_regular_files_of_the_directory_is_served() {
    let outside = open_folder();
    fs::write(outside.file("secret"), "precious").expect("a file");
    let directory = outside.file("challenges");
    let file = |name: &str| directory.join(name);
    fs::create_dir(&directory).expect("a directory");
    fs::create_dir(file("directory")).expect("a directory");
    fs::write(file("directory").join("inner"), "precious").expect("a file");
    fs::write(file("with.dot"), "precious").expect("a file");
    fs::write(file("empty"), "").expect("a file");
    fs::write(file("full"), "x".repeat(1024)).expect("a file");
    fs::write(file("over"), "x".repeat(1025)).expect("a file");
    fs::write(file(&"n".repeat(255)), "long name").expect("a file");
    symlink(outside.file("secret"), file("link-out")).expect("a link");
    symlink("full", file("link-in")).expect("a link");
    symlink("nowhere", file("link-nowhere")).expect("a link");
    symlink(outside.path(), file("link-directory")).expect("a link");
    mknodat(CWD, file("fifo"), FileType::Fifo, Mode::RWXU, 0).expect("a FIFO");
    let _socket = UnixListener::bind(file("socket")).expect("a socket");

    let long = "n".repeat(5000);
    let refused = [
        "",
        ".",
        "..",
        "../secret",
        "..%2fsecret",
        "..%2Fsecret",
        "%2e%2e/secret",
        "..\\secret",
        "/secret",
        "//",
        "./full",
        "full/",
        "full/.",
        "full%00",
        "ful%6c",
        "full+",
        "full\u{301}",
        "with.dot",
        "directory",
        "directory/inner",
        "directory%2finner",
        "link-out",
        "link-in",
        "link-nowhere",
        "link-directory",
        "link-directory/secret",
        "fifo",
        "socket",
        "over",
        &long[..256],
        &long,
    ];
    for options in [&[][..], &["--no-sandbox"]] {
        let server = Server::with(&[&["--acme-challenges", text(&directory)], options].concat());
        let mut client = server.client();
        for name in refused {
            let response = challenge(&mut client, name);
            assert_eq!(response.status, 404, "{name:?}: {response:?}");
            response.fails_with(404, "not_found");
        }
        for (name, content) in [
            ("empty", String::new()),
            ("full", "x".repeat(1024)),
            (&long[..255], "long name".to_owned()),
        ] {
            assert_eq!(challenge(&mut client, name).ok().text(), content, "{name}");
        }
        // A byte that is no part of a target.
        let line = format!("GET {PREFIX}full\0 HTTP/1.1\r\nHost: h\r\n\r\n");
        server.client().call(line).fails_with(400, "bad_request");
        // Several of the files are a reason for a warning, but only one a minute is logged.
        let is_warning = |line: &&String| line.contains("WARN cannot serve an ACME challenge");
        assert_eq!(server.log().iter().filter(is_warning).count(), 1, "{:?}", server.log());
        assert!(!server.log().iter().any(|line| line.contains("link-")), "{:?}", server.log());
    }
}

/// Starts a server that may not read what this process makes unreadable.
fn start_unprivileged(directory: &Path, options: &[&str]) -> Server {
    let user: &[&str] = if geteuid().is_root() { &["--user", OTHER_USER] } else { &[] };
    Server::with(&[&["--acme-challenges", text(directory)], user, options].concat())
}

#[test]
fn an_unreadable_file_is_logged() {
    for options in [&[][..], &["--no-sandbox"]] {
        let folder = open_folder();
        fs::write(folder.file(TOKEN), RESPONSE).expect("a file");
        set_mode(&folder.file(TOKEN), 0);
        let server = start_unprivileged(folder.path(), options);
        challenge(&mut server.client(), TOKEN).fails_with(404, "not_found");
        until("it is logged", || server.logged("ACME") == 1);
        let reason = format!("dir={}: Permission denied", folder.path().display());
        assert_eq!(server.logged(&reason), 1, "{:?}", server.log());
        assert_eq!(server.logged(TOKEN), 0, "{:?}", server.log());

        set_mode(&folder.file(TOKEN), 0o644);
        assert_eq!(challenge(&mut server.client(), TOKEN).ok().text(), RESPONSE);
    }
}

#[test]
fn a_directory_that_vanishes_is_logged() {
    let outside = open_folder();
    let directory = outside.file("challenges");
    fs::create_dir(&directory).expect("a directory");
    let server = Server::with(&["--acme-challenges", text(&directory), "--no-sandbox"]);
    // It listens before it checks the directory.
    server.get("/health", &[]).ok();
    fs::remove_dir(&directory).expect("no directory");
    challenge(&mut server.client(), TOKEN).fails_with(404, "not_found");
    until("it is logged", || server.logged("No such file or directory") == 1);
    // Without Landlock, another directory takes its place.
    fs::create_dir(&directory).expect("a directory");
    fs::write(directory.join(TOKEN), RESPONSE).expect("a file");
    assert_eq!(challenge(&mut server.client(), TOKEN).ok().text(), RESPONSE);
}

#[test]
fn a_directory_that_cannot_be_used_stops_the_start() {
    let folder = open_folder();
    fs::write(folder.file("file"), "").expect("a file");
    fs::create_dir(folder.file("closed")).expect("a directory");
    set_mode(&folder.file("closed"), 0o600);
    for (name, reason) in [
        ("missing", "No such file or directory"),
        ("file", "Not a directory"),
        ("closed", "Permission denied"),
    ] {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0", "--log", "error", "--acme-challenges"]);
        command.arg(folder.file(name));
        if geteuid().is_root() {
            command.args(["--user", OTHER_USER]);
        }
        let finished = run(command);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        let last = finished.stderr.lines().last().expect("a line");
        for word in ["--acme-challenges", name, reason, "create it"] {
            assert!(last.contains(word), "no {word:?} in {finished:?}");
        }
    }
}

#[test]
fn challenges_and_redirects_survive_upgrades() {
    let folder = open_folder();
    fs::write(folder.file(TOKEN), RESPONSE).expect("a file");
    let mut server = start_unprivileged(folder.path(), &[REDIRECT, PROXY]);
    for _ in 0..2 {
        server.upgrade();
        assert_eq!(challenge(&mut server.client(), TOKEN).ok().text(), RESPONSE);
        assert_eq!(server.get("/create", &[]).status, 308);
    }
}

#[test]
fn a_challenge_after_a_write_is_answered_after_it() {
    let folder = open_folder();
    fs::write(folder.file(TOKEN), RESPONSE).expect("a file");
    let journal = folder.file("journal");
    let directory = text(folder.path());
    let server = Server::with(&["--acme-challenges", directory, "--journal", text(&journal)]);
    let mut client = server.client();
    let write = request("GET", "/write?channel=c&message=m", &[], None);
    let ask = request("GET", &format!("{PREFIX}{TOKEN}"), &[], None);
    client.send([&*write, &*ask, &*write, &*ask].concat());
    for _ in 0..2 {
        assert!(client.response().ok().json()["id"].is_u64());
        assert_eq!(client.response().ok().text(), RESPONSE);
    }
}

/// Returns the response to a request with this line and these header fields.
#[track_caller]
fn ask(server: &Server, line: &str, fields: &str) -> Response {
    server.client().call(format!("{line}\r\n{fields}\r\n"))
}

#[test]
fn get_and_head_are_redirected_to_the_same_url_of_https() {
    let server = Server::with(&[REDIRECT, PROXY]);
    let cases = [
        ("/", "h.example", "https://h.example/"),
        ("/", "h.example:8080", "https://h.example/"),
        ("/", "h.example:", "https://h.example/"),
        ("/", "192.0.2.7:80", "https://192.0.2.7/"),
        ("/", "[2001:db8::1]:80", "https://[2001:db8::1]/"),
        ("/read?channel=a%26b&from_id=-1", "h", "https://h/read?channel=a%26b&from_id=-1"),
        ("/write?message=a+b%0d%0ac", "h", "https://h/write?message=a+b%0d%0ac"),
        ("/nowhere", "h", "https://h/nowhere"),
        ("/metrics", "h", "https://h/metrics"),
        ("/health/", "h", "https://h/health/"),
        ("/a?", "h", "https://h/a"),
        ("/a??b?", "h", "https://h/a??b?"),
        ("/a?m=#b", "h", "https://h/a?m=%23b"),
        ("/\u{fc}?m=\u{fc}", "h", "https://h/%C3%BC?m=%C3%BC"),
        ("/a?m=\"<>\\^`{|}[]", "h", "https://h/a?m=%22%3C%3E%5C%5E%60%7B%7C%7D%5B%5D"),
        ("//evil.example/..", "h", "https://h//evil.example/.."),
        ("/\\evil.example", "h", "https://h/%5Cevil.example"),
        ("/@evil.example", "h", "https://h/@evil.example"),
        ("http://h.example:81/a?b", "other.example", "https://h.example/a?b"),
        ("HTTP://h.example?b", "other.example", "https://h.example/?b"),
        (&*format!("{PREFIX}{TOKEN}"), "h", &*format!("https://h{PREFIX}{TOKEN}")),
    ];
    for (target, host, location) in cases {
        let fields = format!("Host: {host}\r\n");
        let response = ask(&server, &format!("GET {target} HTTP/1.1"), &fields);
        assert_eq!((response.status, response.text()), (308, ""), "{target}: {response:?}");
        assert_eq!(response.header("location"), Some(location), "{target}");
        assert_eq!(response.header("cache-control"), Some("no-store"), "{target}");
        // Pages of other origins follow the redirect only with this header.
        assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{target}");
        let head = ask(&server, &format!("HEAD {target} HTTP/1.1"), &fields);
        assert_eq!((head.status, head.header("location")), (308, Some(location)), "{target}");
    }
    let response = ask(&server, "GET /a HTTP/1.0", "Host: h\r\n");
    assert_eq!(response.header("location"), Some("https://h/a"));

    // The client stays.
    let mut client = server.client();
    client.send([request("GET", "/a", &[], None), request("GET", "/b", &[], None)].concat());
    assert_eq!(client.response().header("location"), Some("https://speak.test/a"));
    assert_eq!(client.response().header("location"), Some("https://speak.test/b"));
}

#[test]
fn a_host_that_is_none_is_not_redirected_to() {
    let server = Server::with(&[REDIRECT, PROXY]);
    for host in [
        "",
        ":80",
        "[]",
        "[::1%25lo]",
        "[v1.a]",
        "a b",
        "a/b",
        "a\\b",
        "a@b",
        "a?b",
        "a#b",
        "a,b",
        "a;b",
        "a'b",
        "a%0d%0ab",
        "a%2eb",
        "a:b",
        "\u{fc}",
        "a\r\nHost: b",
    ] {
        let response = ask(&server, "GET /a HTTP/1.1", &format!("Host: {host}\r\n"));
        response.fails_with(400, "bad_request");
        assert_eq!(response.header("location"), None, "{host}");
    }
    for fields in ["", "Host:\r\n"] {
        ask(&server, "GET /a HTTP/1.0", fields).fails_with(400, "bad_request");
    }
    ask(&server, "GET /a HTTP/1.1", "").fails_with(400, "bad_request");
    ask(&server, "GET http:///a HTTP/1.1", "Host: h\r\n").fails_with(400, "bad_request");
}

#[test]
fn what_cannot_be_redirected_is_rejected() {
    // The second listener serves this test: Unix sockets are not redirected.
    let folder = Folder::new("plain");
    let socket = folder.file("socket");
    let addresses = ["127.0.0.1:0", &format!("unix:{}", text(&socket))];
    let server = Server::on(&addresses, &[REDIRECT, PROXY]);
    let target = "/write?channel=c&message=m";
    for method in ["POST", "OPTIONS", "PUT", "DELETE", "PATCH"] {
        let response = server.client().call(request(method, target, &[], Some(b"body")));
        response.fails_with(403, "https_only");
        assert_eq!(response.header("location"), None, "{method}");
        assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{method}");
    }
    let everything = ask(&server, "OPTIONS * HTTP/1.1", "Host: h\r\n");
    everything.fails_with(403, "https_only");
    // A client of WebSockets does not follow a redirect.
    let response = server.client().call(handshake(&[("channel", "c")], &[]));
    response.fails_with(403, "https_only");
    assert!(response.text().contains("wss://"), "{}", response.text());

    let read = ask_at(&socket, "/read?channel=c&from_id=0&timeout=0", "");
    assert!(read.starts_with("HTTP/1.1 200 "), "{read}");
    assert!(read.contains(r#""messages":[]"#), "{read}");
}

#[test]
fn health_checks_are_not_redirected() {
    let server = Server::with(&[REDIRECT, PROXY]);
    for method in ["GET", "HEAD", "POST"] {
        let mut client = server.client();
        client.send(request(method, "/health?a=b", &[], None));
        assert_eq!(client.head().status, 200, "{method}");
    }
}

#[test]
fn a_proxy_decides_and_its_clients_of_http_are_redirected() {
    let folder = Folder::new("plain");
    let socket = folder.file("socket");
    let addresses = ["127.0.0.1:0", &format!("unix:{}", text(&socket))];
    let cases = [
        ("", 200),
        ("X-Forwarded-Proto: https\r\n", 200),
        ("X-Forwarded-Proto: wss\r\n", 200),
        ("X-Forwarded-Proto:\r\n", 200),
        ("X-Forwarded-Proto: http\r\n", 308),
        ("x-forwarded-proto: HTTP\r\n", 308),
        ("X-Forwarded-Proto: https, http\r\n", 308),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n", 308),
    ];
    let trusting = [REDIRECT, "--trust-proxy", "127.0.0.1", "--trust-proxy", "unix"];
    for (options, trusts) in [(&[REDIRECT, PROXY][..], false), (&trusting, true)] {
        let server = Server::on(&addresses, options);
        for (fields, status) in cases {
            let over_tcp = if trusts { status } else { 308 };
            let head = format!("Host: h\r\n{fields}");
            let response = ask(&server, "GET /create HTTP/1.1", &head);
            assert_eq!(response.status, over_tcp, "{trusts} {fields:?}");
            let response = ask_at(&socket, "/create", fields);
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{fields:?} {response}");
        }
    }
}

#[test]
fn the_admin_listener_is_not_redirected_and_counts() {
    let folder = open_folder();
    fs::write(folder.file(TOKEN), RESPONSE).expect("a file");
    let server = Server::watched(&[REDIRECT, PROXY, "--acme-challenges", text(folder.path())]);
    challenge(&mut server.client(), TOKEN).ok();
    challenge(&mut server.client(), "missing").fails_with(404, "not_found");
    assert_eq!(server.get("/create", &[]).status, 308);
    server.client().post("/write?channel=c", "text/plain", "m").fails_with(403, "https_only");
    let metrics = server.operator().get("/metrics", &[]).ok();
    for sample in [
        r#"{call="acme-challenge",status="200"} 1"#,
        r#"{call="acme-challenge",status="404"} 1"#,
        r#"{call="redirect-https",status="308"} 1"#,
        r#"{call="redirect-https",status="403"} 1"#,
    ] {
        assert!(metrics.text().contains(sample), "no {sample} in {}", metrics.text());
    }
    server.operator().get("/health", &[]).ok();
}

#[test]
fn only_pages_of_listed_origins_may_read_a_redirect() {
    let server = Server::with(&[REDIRECT, PROXY, "--allow-origin", "https://a.example"]);
    for (origin, allowed) in
        [("https://a.example", Some("https://a.example")), ("https://b.example", None)]
    {
        let response = server.client().get_with("/create", &[], &[("Origin", origin)]);
        assert_eq!(response.status, 308);
        assert_eq!(response.header("access-control-allow-origin"), allowed);
        assert_eq!(response.header("vary"), Some("Origin"));
    }
}

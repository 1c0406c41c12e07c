//! `speak doctor` through a real nginx, with each wrong configuration of docs/doctor.md.
//!
//! Checks through a broken proxy have short timeouts: a slow machine can only make the failure
//! worse. Checks that should succeed have all the time of the harness.

mod common;
#[path = "doctor/nginx.rs"]
mod nginx;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{ClosedPort, Finished, Folder, Pair, Server, command, run, run_with, until};
use nginx::{Nginx, Site};
use rustix::process::Signal;
use support::redis::Redis;

/// A claim of docs/doctor.md about one misconfiguration.
#[derive(Debug)]
struct Claim {
    configuration: String,
    /// As `FAIL wait`.
    result: String,
    fix: String,
}

/// Returns the rows of the last table of docs/doctor.md.
fn claims() -> Vec<Claim> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/doctor.md");
    let text = fs::read_to_string(path).expect("the doctor's page");
    let (_, table) = text.split_once("| nginx with |").expect("the table");
    let claim = |row: &str| {
        let cells = row.split(" | ").map(|cell| cell.trim_matches(['|', ' ']).trim_matches('`'));
        let cells: Vec<String> = cells.map(str::to_owned).collect();
        let [configuration, result, fix] = cells.try_into().expect("a row of three cells");
        Claim { configuration, result, fix }
    };
    table.lines().skip(2).map(claim).collect()
}

fn doctor(url: &str, options: &[&str]) -> Finished {
    run_with(&[&["doctor", url], options].concat())
}

/// Returns the line about one check, and the indented lines after it.
fn lines_about(finished: &Finished, check: &str) -> Vec<String> {
    let is_it =
        |line: &&str| line.split_whitespace().nth(1) == Some(check) && !line.starts_with(' ');
    let mut lines = finished.stdout.lines().skip_while(|line| !is_it(line));
    let first = lines.next().unwrap_or_else(|| panic!("nothing about {check}: {finished:?}"));
    let fixes = lines.take_while(|line| line.starts_with(' ')).map(|line| line.trim().to_owned());
    std::iter::once(first.to_owned()).chain(fixes).collect()
}

/// Asserts a result, as `FAIL wait`, and a line with `fix` in it. Returns the lines about the
/// check.
#[track_caller]
fn assert_says(finished: &Finished, result: &str, fix: &str) -> Vec<String> {
    let (level, check) = result.split_once(' ').expect("a level and a check");
    let lines = lines_about(finished, check);
    assert!(lines[0].starts_with(level), "not {result}: {}", finished.stdout);
    assert!(lines[1..].iter().any(|line| line.contains(fix)), "no {fix:?}: {}", finished.stdout);
    lines
}

#[test]
fn each_misconfiguration_of_the_page_is_found_and_its_fix_is_named() {
    let server = Server::with(&["--connection-timeout", "60"]);
    let claims = claims();
    assert!(claims.len() >= 8, "{claims:?}");
    let sites: Vec<Site> = claims.iter().map(|claim| Site::plain(&claim.configuration)).collect();
    let nginx = Nginx::start("claims", server.address(), &sites);
    let direct = server.port(0).to_string();
    thread::scope(|scope| {
        for (index, claim) in claims.iter().enumerate() {
            let (url, direct) = (nginx.url(index), &direct);
            scope.spawn(move || {
                let options = ["--wait", "2s", "--patience", "2s", "--direct-port", direct];
                let finished = doctor(url, &options);
                let lines = assert_says(&finished, &claim.result, &claim.fix);
                assert!(lines.contains(&claim.fix), "{claim:?}: {lines:?}");
                let code = if claim.result.starts_with("FAIL") { 1 } else { 3 };
                assert_eq!(finished.code, Some(code), "{claim:?}: {finished:?}");
            });
        }
    });
}

#[test]
fn no_problem_is_found_with_a_correct_proxy_or_without_one() {
    let server = Server::with(&["--heartbeat", "1s"]);
    let nginx = Nginx::start("good", server.address(), &[Site::plain("")]);
    let direct = server.port(0).to_string();
    let options = ["--wait", "3s", "--patience", "14s", "--direct-port", &direct];
    for url in [nginx.url(0), server.url(0)] {
        let finished = doctor(url, &options);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
        assert!(finished.stdout.ends_with("\nno problems found\n"), "{finished:?}");
        assert!(lines_about(&finished, "stream")[0].contains("with heartbeats: "), "{finished:?}");
        assert!(!finished.stdout.contains("doctor-"), "a secret name: {finished:?}");
        let lines = finished.stdout.lines().count();
        assert_eq!(lines, 16, "one line per check and one at the end: {finished:?}");
    }
    assert!(server.log().iter().all(|line| !line.contains("doctor-")), "{:?}", server.log());
}

#[test]
fn the_direct_port_may_speak_tls_too() {
    let folder = Folder::new("doctor");
    let pair = Pair::usual(&folder, "doctor");
    let addresses = ["tls:127.0.0.1:0"; 2];
    let server = Server::on(&addresses, &pair.options());
    let mut doctor = command();
    doctor.args(["doctor", "--wait", "1s", "--direct-port", &server.port(1).to_string()]);
    doctor.arg(server.url(0)).env("SSL_CERT_FILE", &pair.certificate);
    let finished = run(doctor);
    let expected = format!("ok    direct     {} is open", server.url(1));
    assert_eq!(lines_about(&finished, "direct"), [expected], "{finished:?}");
}

#[test]
fn problems_that_no_proxy_causes_are_found_too() {
    let closed = ClosedPort::new();
    let wait = ["--wait", "1s", "--patience", "1s"];
    let closed_port = closed.address().port().to_string();
    // A stream and its writer are two clients of one address.
    let server = Server::with(&["--max-clients-per-address", "1"]);
    assert_says(&doctor(server.url(0), &wait), "FAIL stream", "--trust-proxy");
    let server = Server::with(&["--allow-origin", "https://chat.test"]);
    let finished = doctor(server.url(0), &[&wait[..], &["--direct-port", &closed_port]].concat());
    assert_says(&finished, "warn direct", "open port 7732 in the firewall");
    assert!(lines_about(&finished, "headers")[0].contains("not in --allow-origin"), "{finished:?}");
    let listed = [&wait[..], &["--origin", "https://chat.test", "--direct-port", "0"]].concat();
    let listed = doctor(server.url(0), &listed);
    assert!(lines_about(&listed, "headers")[0].starts_with("ok"), "{listed:?}");
    assert!(lines_about(&listed, "direct")[0].starts_with("skip"), "{listed:?}");
    // No server listens there.
    let finished = doctor(&format!("http://{}", closed.address()), &wait);
    let fix = "nginx: proxy_pass http://127.0.0.1:8080;";
    assert!(assert_says(&finished, "FAIL reach", fix).contains(&fix.to_owned()), "{finished:?}");
    assert_eq!(finished.code, Some(1), "{finished:?}");
}

#[test]
fn a_wrong_clock_is_found() {
    let server = Server::start();
    // The proxy replaces the first digit of all times, which is easier than to set a clock.
    let wrong = concat!(
        r#"sub_filter '"time":1' '"time":2'; "#,
        "sub_filter_types application/json; sub_filter_once off;"
    );
    let nginx = Nginx::start("clock", server.address(), &[Site::plain(wrong)]);
    let options = ["--wait", "1s", "--patience", "1s", "--direct-port", "0"];
    let lines = assert_says(&doctor(nginx.url(0), &options), "warn clock", "timedatectl");
    assert!(lines[0].contains("days ahead"), "{lines:?}");
}

/// Starts a node with an admin listener, and waits until it serves.
fn watched_node(redis: &Redis) -> Server {
    let node = Server::watched(&["--cluster", &redis.url()]);
    until("the node has joined", || node.get("/health", &[]).status == 200);
    node
}

#[test]
fn the_admin_listener_tells_the_nodes_and_the_lag_of_a_cluster() {
    let redis = Redis::start();
    redis.promise_no_nodes();
    let ask = |node: &Server| doctor(node.url(1), &["--admin"]);
    let node = watched_node(&redis);
    let alone = ask(&node);
    assert_says(&alone, "warn nodes", "start another node with the same --cluster");
    assert_eq!(alone.code, Some(3), "{alone:?}");

    let others = [watched_node(&redis), watched_node(&redis)];
    until("all nodes are known", || get_metric(&node, "speak_log_nodes") == "3");
    let healthy = ask(&node);
    assert_eq!((healthy.code, healthy.stderr.as_str()), (Some(0), ""), "{healthy:?}");
    for (check, text) in [
        ("reach", "Speak "),
        ("health", "accepted"),
        ("lag", "a record waits for at most "),
        ("nodes", "the cluster has 3 nodes"),
        ("trouble", "refused calls 0, loads of another state 0, new epochs 0"),
    ] {
        let line = &lines_about(&healthy, check)[0];
        assert!(line.starts_with("ok") && line.contains(text), "{healthy:?}");
    }
    assert_eq!(healthy.stdout.lines().count(), 6, "{healthy:?}");

    redis.signal(Signal::STOP);
    let status = || node.operator().get("/health", &[]).status;
    until("the log does not respond", || status() == 503);
    let stalled = ask(&node);
    redis.signal(Signal::CONT);
    assert_says(&stalled, "FAIL health", "redis-cli -u URL ping");
    let lines = assert_says(&stalled, "FAIL lag", "redis-cli -u URL ping");
    assert!(lines[0].contains("no record has come in two seconds"), "{lines:?}");
    assert_eq!(stalled.code, Some(1), "{stalled:?}");
    drop(others);
}

#[test]
fn a_log_that_loses_calls_or_is_slow_is_told_at_the_admin_listener() {
    let redis = Redis::start();
    redis.promise_no_nodes();
    let node = watched_node(&redis);
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let params = [("channel", "room"), ("message", "never")];
    let is_refused = || node.get("/write", &params).status == 503;
    until("a write is refused", is_refused);
    thread::scope(|scope| {
        let asked = scope.spawn(|| doctor(node.url(1), &["--admin"]));
        while !asked.is_finished() {
            is_refused();
        }
        let full = asked.join().expect("no panic");
        assert_says(&full, "warn trouble", "info memory");
        assert_says(&full, "FAIL health", "the log of Speak has the reason");
    });
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    until("it recovers", || node.operator().get("/health", &[]).status == 200);
    // Redis pauses, again and again.
    thread::scope(|scope| {
        let asked = scope.spawn(|| doctor(node.url(1), &["--admin"]));
        while !asked.is_finished() {
            redis.signal(Signal::STOP);
            thread::sleep(Duration::from_millis(1_500));
            redis.signal(Signal::CONT);
            thread::sleep(Duration::from_millis(300));
        }
        let slow = asked.join().expect("no panic");
        assert_says(&slow, "warn lag", "redis-cli -u URL --latency");
    });
}

#[test]
fn an_address_without_metrics_is_no_admin_listener() {
    let closed = ClosedPort::new();
    let server = Server::watched(&[]);
    for url in [server.url(0).to_owned(), format!("http://{}", closed.address())] {
        let finished = doctor(&url, &["--admin"]);
        assert_says(&finished, "FAIL reach", "--admin-listen 127.0.0.1:9100");
        assert_eq!(finished.code, Some(1), "{finished:?}");
    }
    if !common::has_journal() && !common::has_nodes() {
        let finished = doctor(server.url(1), &["--admin"]);
        assert!(lines_about(&finished, "lag")[0].starts_with("skip"), "{finished:?}");
        assert_eq!(finished.code, Some(0), "{finished:?}");
    }
}

/// Returns the value of a metric without labels.
fn get_metric(node: &Server, name: &str) -> String {
    let answer = node.operator().get("/metrics", &[]).ok();
    let page = answer.text().to_owned();
    let value = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")[..]));
    value.unwrap_or_else(|| panic!("no {name}")).to_owned()
}

#[test]
fn bad_certificates_are_distinguished_and_https_works_with_a_good_one() {
    let server = Server::start();
    let folder = Folder::new("certificates");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor/certificates.sh");
    let made =
        Command::new(script).arg(folder.path()).stderr(Stdio::piped()).output().expect("a shell");
    assert!(made.status.success(), "{made:?}");
    let names = ["good", "self-signed", "expired", "other-name"];
    let sites: Vec<Site> = names.iter().map(|name| Site::tls(&folder.file(name))).collect();
    let nginx = Nginx::start("tls", server.address(), &sites);
    let speak = |arguments: &[&str]| {
        let mut speak = command();
        // Trust the authority of the tests, and no other.
        speak
            .env("SSL_CERT_FILE", folder.file("authority.crt"))
            .env("SSL_CERT_DIR", folder.path())
            .args(arguments);
        run(speak)
    };
    let cases = [
        ("good", "ok", "trusts: 29 days left, ECDSA 256 bit, chain of 1, for localhost", 0),
        ("self-signed", "FAIL", "reject it (29 days left, ECDSA 256 bit, chain of 1, for", 1),
        ("expired", "FAIL", "has expired (0 days left, ECDSA 256 bit, chain of 1, for", 1),
        ("other-name", "FAIL", "another name than localhost (29 days left, ECDSA", 1),
    ];
    thread::scope(|scope| {
        for (index, (name, level, text, code)) in cases.into_iter().enumerate() {
            let (url, speak) = (nginx.url(index), &speak);
            scope.spawn(move || {
                let finished = speak(&["doctor", url, "--wait", "1s", "--patience", "14s"]);
                let line = &lines_about(&finished, "tls")[0];
                assert!(line.starts_with(level) && line.contains(text), "{name}: {finished:?}");
                // The other checks run over TLS in any case.
                for check in ["websocket", "close"] {
                    let line = &lines_about(&finished, check)[0];
                    assert!(line.starts_with("ok"), "{name}: {finished:?}");
                }
                assert_eq!(finished.code, Some(code), "{name}: {finished:?}");
            });
        }
    });
    let (good, bad) = (nginx.url(0), nginx.url(1));
    assert_eq!(speak(&["write", "--server", good, "room", "howdy"]).stdout, "1\n");
    assert_eq!(speak(&["read", "--server", good, "room", "--from", "1"]).stdout, "howdy\n");
    // A server that is not trusted receives nothing.
    let refused = speak(&["write", "--server", bad, "room", "howdy"]);
    refused.fails_with(1, &["not trusted: self-signed"]);
    assert_eq!(server.read("room", "1").texts(), ["howdy"]);
    let mut without = command();
    without.env("PATH", folder.path()).args(["write", "--server", good, "room", "howdy"]);
    run(without).fails_with(1, &["apt-get install openssl"]);
}

//! `speak doctor`, before a real nginx that is configured wrong in each way of docs/doctor.md.
//!
//! A broken proxy is looked at with little patience: a slow machine can only make its failure worse. One that should be found well
//! gets all the time that the harness has for anything.

mod common;
#[path = "doctor/nginx.rs"]
mod nginx;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use common::{ClosedPort, Finished, Folder, Server, command, run};
use nginx::{Nginx, Site};

/// What the manual claims of one misconfiguration.
#[derive(Debug)]
struct Claim {
    configuration: String,
    /// `FAIL wait`.
    verdict: String,
    mend: String,
}

/// The rows of the last table of docs/doctor.md.
fn claims() -> Vec<Claim> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/doctor.md");
    let text = fs::read_to_string(path).expect("the doctor's page");
    let (_, table) = text.split_once("| nginx with |").expect("the table");
    let cells = |row: &str| -> Vec<String> {
        row.split(" | ")
            .map(|cell| cell.trim_matches(['|', ' ']).trim_matches('`').to_owned())
            .collect()
    };
    table
        .lines()
        .skip(2)
        .map(|row| match &cells(row)[..] {
            [configuration, verdict, mend] => Claim {
                configuration: configuration.clone(),
                verdict: verdict.clone(),
                mend: mend.clone(),
            },
            other => panic!("a row of three cells: {other:?}"),
        })
        .collect()
}

fn doctor(url: &str, options: &[&str]) -> Finished {
    let mut doctor = command();
    doctor.arg("doctor").arg(url).args(options);
    run(doctor)
}

/// The line about one check, with what is indented behind it.
fn about(finished: &Finished, check: &str) -> Vec<String> {
    let is_it =
        |line: &&str| line.split_whitespace().nth(1) == Some(check) && !line.starts_with(' ');
    let mut lines = finished.stdout.lines().skip_while(|line| !is_it(line));
    let first = lines.next().unwrap_or_else(|| panic!("nothing about {check}: {finished:?}"));
    let behind = lines.take_while(|line| line.starts_with(' ')).map(|line| line.trim().to_owned());
    std::iter::once(first.to_owned()).chain(behind).collect()
}

#[track_caller]
fn says(finished: &Finished, verdict: &str, mend: &str) {
    let (level, check) = verdict.split_once(' ').expect("a level and a check");
    let lines = about(finished, check);
    assert!(lines[0].starts_with(level), "{verdict} is claimed: {}", finished.stdout);
    assert!(lines[1..].iter().any(|line| line == mend), "{mend:?} is claimed: {}", finished.stdout);
    assert_eq!(finished.code, Some(if level == "FAIL" { 1 } else { 3 }), "{finished:?}");
}

#[test]
fn each_misconfiguration_of_the_manual_is_found_and_its_mend_is_named() {
    let server = Server::with(&["--connection-timeout", "60"]);
    let claims = claims();
    assert!(claims.len() >= 8, "{claims:?}");
    let sites: Vec<Site> = claims.iter().map(|claim| Site::plain(&claim.configuration)).collect();
    let nginx = Nginx::start("claims", server.address(), &sites);
    let direct = server.port(0).to_string();
    thread::scope(|scope| {
        for (place, claim) in claims.iter().enumerate() {
            let (url, direct) = (nginx.url(place), &direct);
            scope.spawn(move || {
                let options = ["--wait", "2s", "--patience", "2s", "--direct-port", direct];
                says(&doctor(url, &options), &claim.verdict, &claim.mend);
            });
        }
    });
}

#[test]
fn a_good_proxy_is_well_and_so_is_no_proxy() {
    let server = Server::with(&["--heartbeat", "1s"]);
    let nginx = Nginx::start("good", server.address(), &[Site::plain("")]);
    let direct = server.port(0).to_string();
    let options = ["--wait", "3s", "--patience", "14s", "--direct-port", &direct];
    for url in [nginx.url(0), server.url(0)] {
        let finished = doctor(url, &options);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
        assert!(finished.stdout.ends_with("\nall is well\n"), "{finished:?}");
        assert!(about(&finished, "stream")[0].contains("signs of life"), "{finished:?}");
        assert!(!finished.stdout.contains("doctor-"), "a secret name: {finished:?}");
        let lines = finished.stdout.lines().count();
        assert_eq!(lines, 16, "a line a check and one at the end: {finished:?}");
    }
    assert!(server.log().iter().all(|line| !line.contains("doctor-")), "{:?}", server.log());
}

#[test]
fn what_is_no_fault_of_a_proxy_is_found_as_well() {
    let closed = ClosedPort::new();
    let (wait, closed_port) =
        (["--wait", "1s", "--patience", "1s"], closed.address().port().to_string());
    // A stream and its writer are two clients, whoever else is refused.
    let server = Server::with(&["--max-clients-per-address", "1"]);
    says_part(&doctor(server.url(0), &wait), "FAIL stream", "--trust-proxy");
    let server = Server::with(&["--allow-origin", "https://chat.test"]);
    let finished = doctor(server.url(0), &[&wait[..], &["--direct-port", &closed_port]].concat());
    let (verdict, mend) = ("warn direct", "port 7732 open in the firewall");
    says_part(&finished, verdict, mend);
    assert!(about(&finished, "headers")[0].contains("not in --allow-origin"), "{finished:?}");
    let listed = doctor(
        server.url(0),
        &[&wait[..], &["--origin", "https://chat.test", "--direct-port", "0"]].concat(),
    );
    assert!(about(&listed, "headers")[0].starts_with("ok"), "{listed:?}");
    assert!(about(&listed, "direct")[0].starts_with("skip"), "{listed:?}");
    // Nobody is there.
    says(
        &doctor(&format!("http://{}", closed.address()), &wait),
        "FAIL reach",
        "nginx: proxy_pass http://127.0.0.1:8080;",
    );
}

#[track_caller]
fn says_part(finished: &Finished, verdict: &str, mend: &str) {
    let (level, check) = verdict.split_once(' ').expect("a level and a check");
    let lines = about(finished, check);
    assert!(lines[0].starts_with(level), "{verdict}: {}", finished.stdout);
    assert!(lines[1..].iter().any(|line| line.contains(mend)), "{mend:?}: {}", finished.stdout);
}

#[test]
fn a_wrong_clock_is_told() {
    let server = Server::start();
    // The first digit of all times: a proxy is the easiest clock to set.
    let wrong = r#"sub_filter '"time":1' '"time":2'; sub_filter_types application/json; sub_filter_once off;"#;
    let nginx = Nginx::start("clock", server.address(), &[Site::plain(wrong)]);
    let finished =
        doctor(nginx.url(0), &["--wait", "1s", "--patience", "1s", "--direct-port", "0"]);
    says_part(&finished, "warn clock", "timedatectl");
    assert!(about(&finished, "clock")[0].contains("days ahead"), "{finished:?}");
}

#[test]
fn certificates_are_told_apart_and_https_works_where_they_are_good() {
    let server = Server::start();
    let folder = Folder::new("certificates");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor/certificates.sh");
    let made =
        Command::new(script).arg(folder.path()).stderr(Stdio::piped()).output().expect("a shell");
    assert!(made.status.success(), "{made:?}");
    let names = ["good", "self-signed", "expired", "other-name"];
    let sites: Vec<Site> = names.iter().map(|name| Site::tls(&folder.file(name))).collect();
    let nginx = Nginx::start("tls", server.address(), &sites);
    let speak = |words: &[&str]| {
        let mut speak = command();
        // The tests' own authority, and nobody else.
        speak
            .env("SSL_CERT_FILE", folder.file("authority.crt"))
            .env("SSL_CERT_DIR", folder.path())
            .args(words);
        run(speak)
    };
    let cases = [
        ("good", "ok", "trusts", 0),
        ("self-signed", "FAIL", "self-signed", 1),
        ("expired", "FAIL", "expired", 1),
        ("other-name", "FAIL", "another name", 1),
    ];
    thread::scope(|scope| {
        for (place, (name, level, words, code)) in cases.into_iter().enumerate() {
            let (url, speak) = (nginx.url(place), &speak);
            scope.spawn(move || {
                let finished = speak(&["doctor", url, "--wait", "1s", "--patience", "14s"]);
                let line = &about(&finished, "tls")[0];
                assert!(line.starts_with(level) && line.contains(words), "{name}: {finished:?}");
                // What else there is to say is said all the same, over TLS.
                assert!(about(&finished, "websocket")[0].starts_with("ok"), "{name}: {finished:?}");
                assert!(about(&finished, "close")[0].starts_with("ok"), "{name}: {finished:?}");
                assert_eq!(finished.code, Some(code), "{name}: {finished:?}");
            });
        }
    });
    let (good, bad) = (nginx.url(0), nginx.url(1));
    assert_eq!(speak(&["write", "--server", good, "room", "howdy"]).stdout, "1\n");
    assert_eq!(speak(&["read", "--server", good, "room", "--from", "1"]).stdout, "howdy\n");
    // Whoever cannot be trusted is told nothing.
    let refused = speak(&["write", "--server", bad, "room", "howdy"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    assert!(refused.stderr.contains("not trusted: self-signed"), "{refused:?}");
    assert_eq!(server.read("room", "1").json()["messages"].as_array().map(Vec::len), Some(1));
    let mut without = command();
    without.env("PATH", folder.path()).args(["write", "--server", good, "room", "howdy"]);
    let without = run(without);
    assert_eq!(without.code, Some(1), "{without:?}");
    assert!(without.stderr.contains("apt-get install openssl"), "{without:?}");
}

//! Malformed and ambiguous requests: Speak's verdicts compared with nginx's, and what Speak does
//! with the requests that nginx forwards.
//!
//! The cases and their verdicts are the tables in `differential/`. `SPEAK_DIFFERENTIAL=record`
//! writes the current verdicts into them.

use std::env;
use std::io::{self, Write};

mod common;
#[path = "differential/nginx.rs"]
mod nginx;
#[path = "differential/relay.rs"]
mod relay;
#[path = "differential/table.rs"]
mod table;
#[path = "differential/verdict.rs"]
mod verdict;

use common::{Folder, Server, until};
use nginx::{Forwarded, Log, Nginx};
use relay::Relay;
use table::{Case, Table, read_tables};
use verdict::{Answers, Listener, probe_bytes};

/// Version of nginx whose verdicts are in the tables, as in Debian 12.
const NGINX_RECORDED: &str = "1.22.1";
const PROXIES: [&str; 3] = ["buffering", "passing", "upgrading"];

/// Small limits keep the cases about limits small. nginx has the same limits.
fn start_speak() -> Server {
    Server::with(&["--max-head=4k", "--max-message=1k", "--request-timeout=1m", "--keep-alive=10m"])
}

fn is_recording() -> bool {
    env::var("SPEAK_DIFFERENTIAL").is_ok_and(|what| what == "record")
}

/// Prints a message even if the test passes.
fn tell(what: &str) {
    writeln!(io::stderr(), "{what}").expect("writing to standard error");
}

/// Runs `look` on every case. It returns the recorded verdict and the current one. Returns the rows
/// that differ, and writes the tables if recording.
fn differing(
    mut look: impl FnMut(usize, &Case) -> String,
    recorded: fn(&mut Case) -> &mut String,
) -> Vec<String> {
    let mut differing = Vec::new();
    let mut number = 0;
    for mut table in read_tables() {
        for case in table.cases_mut() {
            number += 1;
            let verdict = look(number, case);
            let known = recorded(case);
            if *known != verdict {
                let differs = format!("'{verdict}' now, and '{known}' on record");
                *known = verdict;
                differing.push(format!("{}: {differs}", case.name));
            }
        }
        if is_recording() {
            table.write();
        }
    }
    differing
}

fn verdicts_of_speak() -> Vec<String> {
    let server = start_speak();
    let listener = Listener::Tcp(server.address());
    differing(|number, case| listener.verdict(case, number), |case| &mut case.speak)
}

fn verdicts_of_nginx() -> Vec<String> {
    let nginx = Nginx::start(Folder::new("second-opinion"));
    let listener = nginx.listener("origin");
    differing(|number, case| listener.verdict(case, number), |case| &mut case.nginx)
}

#[test]
fn speak_answers_malformed_and_ambiguous_requests_as_recorded() {
    if is_recording() {
        return;
    }
    let differing = verdicts_of_speak();
    assert!(differing.is_empty(), "Speak changed its mind:\n{}", differing.join("\n"));
}

#[test]
fn nginx_answers_malformed_and_ambiguous_requests_as_recorded() {
    let version = nginx::version();
    if is_recording() {
        // One after the other, since both write the same files.
        let changed = [verdicts_of_speak(), verdicts_of_nginx()].concat();
        return tell(&format!("recorded, with nginx {version}:\n{}", changed.join("\n")));
    }
    let differing = verdicts_of_nginx();
    let branch = |version: &str| version.rsplit_once('.').map(|(branch, _)| branch.to_owned());
    let is_recorded = branch(&version) == branch(NGINX_RECORDED);
    if !differing.is_empty() {
        let what = if is_recorded { "a fault" } else { "no fault here" };
        tell(&format!("nginx {version} differs from {NGINX_RECORDED}, which is {what}:"));
        tell(&differing.join("\n"));
    }
    assert!(!is_recorded || differing.is_empty(), "nginx {version} is not as recorded, see above");
}

#[test]
fn every_difference_between_nginx_and_speak_has_a_recorded_reason() {
    let tables = read_tables();
    let cases: Vec<&Case> = tables.iter().flat_map(Table::cases).collect();
    assert!(cases.len() >= 300, "a few hundred, not {}", cases.len());
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "two cases have the same name");
    let wrong = cases.iter().filter(|case| (case.nginx == case.speak) != case.why.is_empty());
    let wrong = wrong.map(|case| format!("{}: {} | {}\n", case.name, case.nginx, case.speak));
    let wrong: String = wrong.collect();
    let is_right = is_recording() || wrong.is_empty();
    assert!(is_right, "a reason where they differ, and only there:\n{wrong}");
}

/// For every case and proxy, the forwarded requests, Speak's responses and its writes agree.
#[test]
fn one_request_for_nginx_is_one_request_for_speak() {
    let server = start_speak();
    let folder = Folder::new("proxies");
    let start = |proxy| Relay::start(&folder.file(&format!("to-{proxy}")), server.address());
    let relays = PROXIES.map(start);
    let mut nginx = Nginx::start(folder);
    let tables = read_tables();
    let mut logs = PROXIES.map(|proxy| nginx.log(proxy));
    for ((proxy, relay), log) in PROXIES.iter().zip(&relays).zip(&mut logs) {
        let mut route =
            Route { server: &server, proxy, listener: nginx.listener(proxy), relay, log };
        let cases: Vec<&Case> = tables.iter().flat_map(Table::cases).collect();
        let came = (1..).zip(&cases).filter(|(number, case)| route.carries(case, *number)).count();
        assert!(came > cases.len() / 3, "only {came} cases came to Speak through '{proxy}'");
        // Otherwise no request would meet the remains of another.
        let connections = relay.connections();
        assert!(connections < came / 4, "'{proxy}': {connections} connections for {came} cases");
    }
    // Unsolicited responses of Speak would arrive by the time the connections end.
    nginx.stop();
    until("the connections to Speak have ended", || relays.iter().all(Relay::is_over));
    for (relay, log) in relays.iter().zip(&mut logs) {
        let (answered, newest) = (relay.answered(), relay.newest());
        assert_eq!(answered, log.answered(), "answers of Speak, and requests of nginx: {newest}");
    }
}

/// The path through one of the proxies.
struct Route<'a> {
    server: &'a Server,
    proxy: &'a str,
    listener: Listener,
    relay: &'a Relay,
    log: &'a mut Log,
}

impl Route<'_> {
    /// Sends a case followed by a probe, and then a probe of another client on the same connection
    /// to Speak. Returns whether Speak got anything of the case.
    fn carries(&mut self, case: &Case, number: usize) -> bool {
        let Self { server, proxy, listener, relay, log } = self;
        let (answered_before, logged_before) = (relay.answered(), log.forwarded().len());
        let channel = format!("{}{number:05}", &proxy[..1]);
        let own_probe = format!("own{number}");
        let others_probe = format!("other{number}");
        let own = listener.ask(&[case.bytes(&channel), probe_bytes(&own_probe)].concat());
        let others = listener.ask(&probe_bytes(&others_probe));

        let show = || {
            let (name, own, newest) = (&case.name, own.escape_ascii(), relay.newest());
            format!("{name} through the proxy '{proxy}':\nanswered {own}\n{newest}")
        };
        let answers = Answers::parse(&others);
        let has_its = answers.whole.len() == 1 && answers.end_with(&others_probe);
        let has_others = memchr::memmem::find(&own, others_probe.as_bytes()).is_some();
        assert!(has_its && !has_others, "another's answer: {}", show());

        // nginx logs a request when it has finished it, which may be after the response.
        until(&format!("the log of nginx has all that Speak answered: {}", show()), || {
            let mut new = log.forwarded()[logged_before..].iter();
            let is_logged = new.any(|it| it.request_line.contains(&others_probe));
            is_logged && log.answered() >= relay.answered()
        });
        let are_same = relay.answered() == log.answered();
        assert!(are_same, "Speak saw other requests than nginx: {}", show());

        let logged = &log.forwarded()[logged_before..];
        let is_failed = logged.iter().any(|it| matches!(it.status, Some(502 | 504)));
        assert!(!is_failed, "nginx could not make sense of Speak's answer: {}", show());
        let names_channel = |line: &str| line.contains("/write?") && line.contains(&channel);
        let is_write = |it: &&Forwarded| it.status == Some(200) && names_channel(&it.request_line);
        let writes = logged.iter().filter(is_write).count();
        let messages = server.read(&channel, "0").json()["messages"].as_array().map_or(0, Vec::len);
        assert_eq!(messages, writes, "messages, and writes that nginx knows of: {}", show());
        relay.answered() > answered_before + 1
    }
}

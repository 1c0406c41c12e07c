//! `speak doctor URL`: talks to a server through whatever stands between, and says what it found.
//!
//! A check is a function that asks the server something and comes to one [`Verdict`]. Nothing here knows what is configured: only
//! what a client can see counts. What takes long runs beside the rest.

mod basics;
mod fix;
mod long_poll;
mod passthrough;
mod streams;
mod target;
mod verdict;

use std::ffi::OsString;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use fix::Proxy;
use target::Target;
use verdict::{CheckResult, Level};

use super::cli_options::CliOptions;
use super::outcome::{Failure, Outcome};
use super::output::print;
use super::server_url::ServerUrl;
use super::tls::Verify;

/// What `--quick` waits where it would wait for longer.
const QUICK_WAIT: Duration = Duration::from_secs(5);

/// The verdicts so far, as they were told.
struct Report {
    proxy: Option<Proxy>,
    failures: u32,
    warnings: u32,
}

pub(super) fn run(choices: &CliOptions, operands: &[OsString]) -> Result<Outcome, Failure> {
    let [url] = operands else { unreachable!("the table asks for one") };
    let url = url.to_str().ok_or_else(|| Failure::Usage("URL is not UTF-8".to_owned()))?;
    let mut patient = Target {
        server: ServerUrl::parse(url).map_err(Failure::Usage)?,
        trust: Verify::Yes,
        prompt_timeout: choices.timeout,
        wait: if choices.quick { choices.wait.min(QUICK_WAIT) } else { choices.wait },
        direct_port: choices.direct_port,
        origin: choices.origin.clone(),
    };
    let mut report = Report { proxy: None, failures: 0, warnings: 0 };
    if let Some(verdict) = basics::tls(&mut patient) {
        report.tell("tls", &verdict)?;
    }
    let mut client = patient.client();
    match basics::reach(&patient, &mut client) {
        Ok((verdict, proxy)) => {
            report.proxy = proxy;
            report.tell("reach", &verdict)?;
        }
        Err(verdict) => {
            report.tell("reach", &verdict)?;
            return report.end();
        }
    }
    thread::scope(|scope| {
        let stream = scope.spawn(|| merge_results(streams::stream(&patient)));
        let wait = scope.spawn(|| merge_results(long_poll::wait(&patient)));
        report.tell("direct", &basics::direct(&patient))?;
        report.tell("latency", &merge_results(basics::latency(&mut client)))?;
        report.tell("clock", &merge_results(basics::clock(&mut client)))?;
        report.tell("keep-alive", &merge_results(basics::keep_alive(&mut client)))?;
        report.tell("headers", &merge_results(passthrough::headers(&patient, &mut client)))?;
        report.tell("errors", &merge_results(passthrough::errors(&mut client)))?;
        report.tell("cache", &merge_results(passthrough::cache(&mut client)))?;
        report.tell("post", &merge_results(passthrough::post(&mut client)))?;
        report.tell("uri", &merge_results(passthrough::uri(&mut client)))?;
        report.tell("prompt", &merge_results(long_poll::prompt(&patient)))?;
        report.tell("close", &merge_results(long_poll::close(&patient)))?;
        report.tell("websocket", &merge_results(streams::websocket(&patient)))?;
        report.tell("stream", &join_words(stream))?;
        report.tell("wait", &join_words(wait))
    })?;
    report.end()
}

/// A check that could not be finished has come to a verdict as well.
fn merge_results(outcome: Result<CheckResult, CheckResult>) -> CheckResult {
    outcome.unwrap_or_else(|verdict| verdict)
}

fn join_words(check: ScopedJoinHandle<CheckResult>) -> CheckResult {
    check.join().expect("a check does not panic")
}

impl Report {
    fn tell(&mut self, check: &str, verdict: &CheckResult) -> Result<(), Failure> {
        match verdict.level {
            Level::Fail => self.failures += 1,
            Level::Warn => self.warnings += 1,
            Level::Fine | Level::Skip => {}
        }
        print(&verdict.text(check, self.proxy))
    }

    fn end(&self) -> Result<Outcome, Failure> {
        let (outcome, words) = match (self.failures, self.warnings) {
            (0, 0) => (Outcome::Done, "all is well".to_owned()),
            (0, warnings) => (Outcome::Warnings, format!("warnings: {warnings}")),
            (failures, warnings) => {
                (Outcome::Faults, format!("failures: {failures}, warnings: {warnings}"))
            }
        };
        print(&format!("{words}\n"))?;
        Ok(outcome)
    }
}

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
use target::Patient;
use verdict::{Level, Verdict};

use super::server_url::Server;
use super::tls::Trust;
use super::{Choices, Failure, Outcome, print};

/// What `--quick` waits where it would wait for longer.
const QUICK_WAIT: Duration = Duration::from_secs(5);

/// The verdicts so far, as they were told.
struct Report {
    proxy: Option<Proxy>,
    failures: u32,
    warnings: u32,
}

pub(super) fn run(choices: &Choices, operands: &[OsString]) -> Result<Outcome, Failure> {
    let [url] = operands else { unreachable!("the table asks for one") };
    let url = url.to_str().ok_or_else(|| Failure::Usage("URL is not UTF-8".to_owned()))?;
    let mut patient = Patient {
        server: Server::parse(url).map_err(Failure::Usage)?,
        trust: Trust::Checked,
        patience: choices.patience,
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
        let stream = scope.spawn(|| either(streams::stream(&patient)));
        let wait = scope.spawn(|| either(long_poll::wait(&patient)));
        report.tell("direct", &basics::direct(&patient))?;
        report.tell("latency", &either(basics::latency(&mut client)))?;
        report.tell("clock", &either(basics::clock(&mut client)))?;
        report.tell("keep-alive", &either(basics::keep_alive(&mut client)))?;
        report.tell("headers", &either(passthrough::headers(&patient, &mut client)))?;
        report.tell("errors", &either(passthrough::errors(&mut client)))?;
        report.tell("cache", &either(passthrough::cache(&mut client)))?;
        report.tell("post", &either(passthrough::post(&mut client)))?;
        report.tell("uri", &either(passthrough::uri(&mut client)))?;
        report.tell("prompt", &either(long_poll::prompt(&patient)))?;
        report.tell("close", &either(long_poll::close(&patient)))?;
        report.tell("websocket", &either(streams::websocket(&patient)))?;
        report.tell("stream", &joined(stream))?;
        report.tell("wait", &joined(wait))
    })?;
    report.end()
}

/// A check that could not be finished has come to a verdict as well.
fn either(outcome: Result<Verdict, Verdict>) -> Verdict {
    outcome.unwrap_or_else(|verdict| verdict)
}

fn joined(check: ScopedJoinHandle<Verdict>) -> Verdict {
    check.join().expect("a check does not panic")
}

impl Report {
    fn tell(&mut self, check: &str, verdict: &Verdict) -> Result<(), Failure> {
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
            (failures, warnings) => (Outcome::Faults, format!("failures: {failures}, warnings: {warnings}")),
        };
        print(&format!("{words}\n"))?;
        Ok(outcome)
    }
}

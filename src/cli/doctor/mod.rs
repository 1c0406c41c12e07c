//! `speak doctor URL`: checks a server as a client sees it, through all proxies in between.
//!
//! A check is a function that talks to the server and returns one [`CheckResult`]. It does not read
//! any configuration, and depends only on the behaviour that a client can observe. The two slow
//! checks run in parallel with the rest.
//!
//! With `--admin`, it checks a node of a cluster instead, by its admin listener.

mod basics;
mod certificate;
mod check_result;
mod fix;
mod long_poll;
mod node;
mod passthrough;
mod streams;
mod target;

use std::ffi::OsString;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use check_result::{CheckResult, Level};
use fix::Proxy;
use target::Target;

use super::cli_options::CliOptions;
use super::exit_status::{ExitStatus, Failure};
use super::output::print;
use super::server_url::ServerUrl;
use super::tls::Verify;

/// Longest `--wait` under `--quick`.
const QUICK_WAIT: Duration = Duration::from_secs(5);

/// Counts of the results that were printed.
struct Report {
    /// Proxy in front of the server, if it is known.
    proxy: Option<Proxy>,
    failures: u32,
    warnings: u32,
}

pub(super) fn run(options: &CliOptions, operands: &[OsString]) -> Result<ExitStatus, Failure> {
    let [url] = operands else { unreachable!("the table asks for one") };
    let url = url.to_str().ok_or_else(|| Failure::Usage("URL is not UTF-8".to_owned()))?;
    let mut target = Target {
        server: ServerUrl::parse(url).map_err(Failure::Usage)?,
        verify: Verify::Yes,
        prompt_timeout: options.prompt_timeout,
        wait: if options.quick { options.wait.min(QUICK_WAIT) } else { options.wait },
        direct_port: options.direct_port,
        origin: options.origin.clone(),
    };
    let mut report = Report { proxy: None, failures: 0, warnings: 0 };
    if options.admin {
        return check_node(&target, &mut report);
    }
    if let Some(result) = basics::tls(&mut target) {
        report.add("tls", &result)?;
    }
    let mut client = target.client();
    match basics::reach(&target, &mut client) {
        Ok((result, proxy)) => {
            report.proxy = proxy;
            report.add("reach", &result)?;
        }
        Err(result) => {
            report.add("reach", &result)?;
            return report.finish();
        }
    }
    thread::scope(|scope| {
        let stream = scope.spawn(|| merge_results(streams::stream(&target)));
        let wait = scope.spawn(|| merge_results(long_poll::wait(&target)));
        report.add("direct", &basics::direct(&target))?;
        report.add("latency", &merge_results(basics::latency(&mut client)))?;
        report.add("clock", &merge_results(basics::clock(&mut client)))?;
        report.add("keep-alive", &merge_results(basics::keep_alive(&mut client)))?;
        report.add("headers", &merge_results(passthrough::headers(&target, &mut client)))?;
        report.add("errors", &merge_results(passthrough::errors(&mut client)))?;
        report.add("cache", &merge_results(passthrough::cache(&mut client)))?;
        report.add("post", &merge_results(passthrough::post(&mut client)))?;
        report.add("uri", &merge_results(passthrough::uri(&mut client)))?;
        report.add("prompt", &merge_results(long_poll::prompt(&target)))?;
        report.add("close", &merge_results(long_poll::close(&target)))?;
        report.add("websocket", &merge_results(streams::websocket(&target)))?;
        report.add("stream", &join_check(stream))?;
        report.add("wait", &join_check(wait))
    })?;
    report.finish()
}

/// Checks a node by its admin listener.
fn check_node(target: &Target, report: &mut Report) -> Result<ExitStatus, Failure> {
    let mut client = target.client();
    let reach = node::reach(target, &mut client);
    let is_reached = reach.is_ok();
    report.add("reach", &merge_results(reach))?;
    if is_reached {
        report.add("health", &merge_results(node::health(&mut client)))?;
        match node::observe(target, &mut client) {
            Ok(Some(log)) => {
                report.add("lag", &log.lag())?;
                report.add("nodes", &log.nodes())?;
                report.add("trouble", &log.trouble())?;
            }
            Ok(None) => {
                report.add("lag", &CheckResult::skip("there is no log, or nothing in it"))?;
            }
            Err(result) => report.add("lag", &result)?,
        }
    }
    report.finish()
}

/// Returns the result of a check, also if the check could not be finished.
fn merge_results(outcome: Result<CheckResult, CheckResult>) -> CheckResult {
    outcome.unwrap_or_else(|result| result)
}

fn join_check(check: ScopedJoinHandle<CheckResult>) -> CheckResult {
    check.join().expect("a check does not panic")
}

impl Report {
    /// Counts and prints the result of a check.
    fn add(&mut self, check: &str, result: &CheckResult) -> Result<(), Failure> {
        match result.level {
            Level::Fail => self.failures += 1,
            Level::Warn => self.warnings += 1,
            Level::Ok | Level::Skip => {}
        }
        print(&result.to_lines(check, self.proxy))
    }

    /// Prints the counts.
    fn finish(&self) -> Result<ExitStatus, Failure> {
        let (status, text) = match (self.failures, self.warnings) {
            (0, 0) => (ExitStatus::Success, "no problems found".to_owned()),
            (0, warnings) => (ExitStatus::FoundWarnings, format!("warnings: {warnings}")),
            (failures, warnings) => {
                (ExitStatus::FoundFailures, format!("failures: {failures}, warnings: {warnings}"))
            }
        };
        print(&format!("{text}\n"))?;
        Ok(status)
    }
}

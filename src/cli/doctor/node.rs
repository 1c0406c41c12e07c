//! `speak doctor --admin URL`: what a node of a cluster, or a server with a journal, tells about
//! its log at the admin listener.

use std::thread;
use std::time::Duration;

use super::check_result::CheckResult;
use super::fix::Fix;
use super::target::{RESPONSE_TIMEOUT, Target, milliseconds};
use crate::cli::client::Client;
use crate::cli::error::ClientError;
use crate::cli::http::Request;
use crate::options::parse_duration;

/// Interval of the samples. It is no divisor of the interval of heartbeats, half a second: else all
/// samples could fall between the same two.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(170);
/// Number of samples, which take two seconds: four heartbeats.
const SAMPLES: usize = 12;
/// Age of a record above which a chat feels slow.
const LAG_MAX: Duration = Duration::from_millis(500);

/// The page of `/metrics` at one moment.
struct Page(String);

/// What is known of the log at one moment.
struct Sample {
    nodes: u64,
    position: u64,
    lag: Duration,
    refused: u64,
    reloads: u64,
    epochs: u64,
}

/// The log during the check.
pub(super) struct Observed {
    first: Sample,
    last: Sample,
    /// The highest of all samples.
    lag: Duration,
}

impl Page {
    /// Returns all samples of a name, as the labels and the value.
    fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value))
        })
    }

    /// Returns the sum of the samples of a name; 0 if there are none, as before the version that
    /// introduced it.
    fn sum(&self, name: &str) -> u64 {
        self.samples(name).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }

    /// Returns the version of the server. None if this is no page of Speak.
    fn version(&self) -> Option<&str> {
        let (labels, _) = self.samples("speak_build_info").next()?;
        labels.strip_prefix("{version=\"")?.strip_suffix("\"}")
    }

    fn sample(&self) -> Sample {
        let lag = self.samples("speak_log_lag_seconds").next();
        Sample {
            nodes: self.sum("speak_log_nodes"),
            position: self.sum("speak_log_position"),
            lag: lag.and_then(|(_, value)| parse_duration(value).ok()).unwrap_or_default(),
            refused: self.sum("speak_log_refused_total"),
            reloads: self.sum("speak_log_reloads_total"),
            epochs: self.sum("speak_log_epochs_total"),
        }
    }
}

/// Gets the page of metrics. An error is one of the check `reach`.
fn page(target: &Target, client: &mut Client) -> Result<Page, CheckResult> {
    let server = &target.server;
    match client.call(&Request::get("/metrics"), RESPONSE_TIMEOUT) {
        Ok(response) if response.head.status == 200 => {
            Ok(Page(String::from_utf8_lossy(&response.body).into_owned()))
        }
        Ok(response) => {
            let text = format!("{server} answers /metrics with {}", response.head.status);
            Err(CheckResult::fail(text, Fix::NotAdmin))
        }
        Err(
            error @ (ClientError::Connect(_)
            | ClientError::ClosedBeforeResponse
            | ClientError::Timeout),
        ) => Err(CheckResult::fail(format!("{server}: {error}"), Fix::NotAdmin)),
        Err(error) => Err(CheckResult::unexpected(format!("{server}: {error}"))),
    }
}

/// Checks that the admin listener of a Speak responds.
pub(super) fn reach(target: &Target, client: &mut Client) -> Result<CheckResult, CheckResult> {
    let page = page(target, client)?;
    let Some(version) = page.version() else {
        let text = format!("the metrics at {} are not those of Speak", target.server);
        return Err(CheckResult::fail(text, Fix::NotAdmin));
    };
    Ok(CheckResult::ok(format!("Speak {version} answers at {}", target.server)))
}

/// Checks whether calls that change something are accepted.
pub(super) fn health(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let response = client
        .call(&Request::get("/health"), RESPONSE_TIMEOUT)
        .map_err(|error| CheckResult::unexpected(format!("GET /health: {error}")))?;
    Ok(match response.rejection() {
        None => CheckResult::ok("calls that change something are accepted"),
        Some(why) => CheckResult::fail(why, Fix::LogDown),
    })
}

/// Looks at the log for two seconds. None if the server has none.
pub(super) fn observe(
    target: &Target,
    client: &mut Client,
) -> Result<Option<Observed>, CheckResult> {
    let first = page(target, client)?.sample();
    if first.nodes == 0 && first.position == 0 {
        return Ok(None);
    }
    let (mut last, mut lag) = (page(target, client)?.sample(), first.lag);
    for _ in 0..SAMPLES {
        thread::sleep(SAMPLE_INTERVAL);
        last = page(target, client)?.sample();
        lag = lag.max(last.lag);
    }
    Ok(Some(Observed { first, last, lag }))
}

impl Observed {
    /// Checks how long a record waits for the log.
    pub fn lag(&self) -> CheckResult {
        let position = self.last.position;
        // Each node appends heartbeats. One that loads its state begins at a lower position.
        if self.last.nodes > 0 && position == self.first.position {
            let text = format!("no record has come in two seconds; the last one is {position}");
            return CheckResult::fail(text, Fix::LogDown);
        }
        let text =
            format!("a record waits for at most {}; position {position}", milliseconds(self.lag));
        if self.lag > LAG_MAX {
            CheckResult::warn(text, Fix::LogSlow)
        } else {
            CheckResult::ok(text)
        }
    }

    /// Checks the number of nodes. It is the same at all of them.
    pub fn nodes(&self) -> CheckResult {
        match self.last.nodes {
            0 => CheckResult::skip("this server has a journal, and no cluster"),
            1 => CheckResult::warn("this is the only node of its cluster", Fix::OnlyNode),
            nodes => CheckResult::ok(format!("the cluster has {nodes} nodes")),
        }
    }

    /// Checks what the log did not take. Only what happens during the check is a problem.
    pub fn trouble(&self) -> CheckResult {
        let Sample { refused, reloads, epochs, .. } = self.last;
        let text = format!(
            "since the start: refused calls {refused}, loads of another state {reloads}, \
             new epochs {epochs}"
        );
        let before = (self.first.refused, self.first.reloads, self.first.epochs);
        if (refused, reloads, epochs) == before {
            CheckResult::ok(text)
        } else {
            CheckResult::warn(text, Fix::LogDown)
        }
    }
}

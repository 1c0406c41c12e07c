//! `speak write CHANNEL MESSAGE`.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, Instant};

use super::cli_options::CliOptions;
use super::client::Client;
use super::exit_status::{ExitStatus, Failure};
use super::http::{Request, form};
use super::output::print;
use super::tls::Verify;

/// Time for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before a retry, if the server requires none.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

pub(super) fn run(options: &CliOptions, operands: &[OsString]) -> Result<ExitStatus, Failure> {
    let mut client = Client::new(options.server.clone(), Verify::Yes);
    let [channel, message] = operands else { unreachable!("the table asks for two") };
    let channel = channel.as_bytes();
    if message != "-" {
        let id = write_message(&mut client, channel, message.as_bytes(), options.retry)
            .map_err(Failure::Error)?;
        print(&format!("{id}\n"))?;
        return Ok(ExitStatus::Success);
    }
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let line_error = |why: String| Failure::Error(format!("line {number}: {why}"));
        let count =
            input.read_until(b'\n', &mut line).map_err(|error| line_error(error.to_string()))?;
        if count == 0 {
            break;
        }
        let message = line.strip_suffix(b"\n").unwrap_or(&line);
        let id = write_message(&mut client, channel, message, options.retry).map_err(line_error)?;
        print(&format!("{id}\n"))?;
    }
    Ok(ExitStatus::Success)
}

/// Writes one message and returns its id. Retries for `retry` while a busy server rejects the
/// message.
///
/// A write that may have succeeded is not retried: the channel could get the message twice.
fn write_message(
    client: &mut Client,
    channel: &[u8],
    message: &[u8],
    retry: Duration,
) -> Result<u64, String> {
    let form = form(&[("channel", channel), ("message", message)]);
    let until = Instant::now() + retry;
    loop {
        let server = client.server.to_string();
        let response = client.call(&Request::form("/write", &form), RESPONSE_TIMEOUT);
        let response = response.map_err(|error| format!("{server}: {error}"))?;
        let Some(rejection) = response.rejection() else {
            let id = response.json()["id"].as_u64();
            return id.ok_or_else(|| format!("{server}: the response has no id"));
        };
        let pause = response.retry_after().map_or(RETRY_PAUSE, Duration::from_secs);
        let may_be_written = response.json()["error"] == "outcome_unknown";
        let is_busy = matches!(response.head.status, 429 | 503) && !may_be_written;
        if !is_busy || Instant::now() + pause > until {
            return Err(rejection);
        }
        thread::sleep(pause);
    }
}

//! `speak write CHANNEL MESSAGE`.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, Instant};

use super::cli_options::CliOptions;
use super::client::Client;
use super::http::{Request, form};
use super::outcome::{Failure, Outcome};
use super::output::print;
use super::tls::Verify;

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// The pause before another try where the server names none.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn run(choices: &CliOptions, operands: &[OsString]) -> Result<Outcome, Failure> {
    let mut client = Client::new(choices.server.clone(), Verify::Yes);
    let [channel, message] = operands else { unreachable!("the table asks for two") };
    let channel = channel.as_bytes();
    if message != "-" {
        write_message(&mut client, channel, message.as_bytes(), choices.retry)
            .map_err(Failure::Error)??;
        return Ok(Outcome::Done);
    }
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let fault = |why: String| Failure::Error(format!("line {number}: {why}"));
        let count = input.read_until(b'\n', &mut line).map_err(|error| fault(error.to_string()))?;
        if count == 0 {
            break;
        }
        let message = line.strip_suffix(b"\n").unwrap_or(&line);
        write_message(&mut client, channel, message, choices.retry).map_err(fault)??;
    }
    Ok(Outcome::Done)
}

/// Writes one message and prints its id; what a busy server refuses is tried again for `retry`.
///
/// What may have been written is never tried again: nobody wants to say things twice.
fn write_message(
    client: &mut Client,
    channel: &[u8],
    message: &[u8],
    retry: Duration,
) -> Result<Result<(), Failure>, String> {
    let form = form(&[("channel", channel), ("message", message)]);
    let until = Instant::now() + retry;
    loop {
        let server = client.server.to_string();
        let answer = client.call(&Request::form("/write", &form), ANSWER_TIME);
        let answer = answer.map_err(|fault| format!("{server}: {fault}"))?;
        let Some(refusal) = answer.refusal() else {
            let id = answer.json()["id"]
                .as_u64()
                .ok_or_else(|| format!("{server}: an answer without an id"))?;
            return Ok(print(&format!("{id}\n")));
        };
        let pause = answer.retry_after().map_or(PAUSE, Duration::from_secs);
        if !matches!(answer.head.status, 429 | 503) || Instant::now() + pause > until {
            return Err(refusal);
        }
        thread::sleep(pause);
    }
}

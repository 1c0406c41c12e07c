//! `speak read CHANNEL [--from ID] [--follow]`.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

use super::cli_options::CliOptions;
use super::client::Client;
use super::error::ClientError;
use super::exit_status::{ExitStatus, Failure};
use super::format::{Output, json_line, text_line};
use super::http::{Request, form};
use super::output::{eprint_line, print};
use super::socket::to_timespec;
use super::tls::Verify;

/// Longest wait that a read asks for. The server may respond earlier.
const WAIT_SECONDS: u64 = 25;
/// Time for a response, after the wait that the read asks for.
const RESPONSE_GRACE: Duration = Duration::from_secs(15);
/// First and last of the growing pauses between failures.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// A reader of one channel, with its cursor.
struct Follower<'a> {
    client: Client,
    channel: &'a [u8],
    options: &'a CliOptions,
    output: Output,
    /// Next `from_id`: the `next_id` of the last response. None before the first.
    from: Option<i64>,
    /// Epoch of the last response. Empty before the first.
    epoch: String,
    /// Lines printed so far.
    lines: u64,
}

/// Reason why a read has no response.
enum ReadError {
    /// A retry may succeed. Has the text, and the pause if the server requires one.
    Transient(String, Option<Duration>),
    Permanent(Failure),
}

pub(super) fn run(options: &CliOptions, operands: &[OsString]) -> Result<ExitStatus, Failure> {
    let [channel] = operands else { unreachable!("the table asks for one") };
    let mut client = Client::new(options.server.clone(), Verify::Yes);
    client.watches_output = true;
    let output = if io::stdout().is_terminal() { Output::Terminal } else { Output::Program };
    let channel = channel.as_bytes();
    let mut follower =
        Follower { client, channel, options, output, from: None, epoch: String::new(), lines: 0 };
    follower.run()?;
    Ok(ExitStatus::Success)
}

impl Follower<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        // Failures are retried only after a first success. Its `next_id` is the end of the present
        // messages.
        let end = self.request(0).map_err(Failure::from)?;
        let end = end["next_id"].as_i64();
        let Some(from) = self.options.from else { return self.follow() };
        self.from = Some(from);
        self.read_once(0).map_err(Failure::from)?;
        if self.options.follow {
            return self.follow();
        }
        // All messages may not fit into one response.
        while self.from < end {
            self.read_once(0).map_err(Failure::from)?;
        }
        Ok(())
    }

    /// Waits for new messages: forever with `--follow`, else until a line was printed.
    fn follow(&mut self) -> Result<(), Failure> {
        let mut pause = Duration::ZERO;
        while self.options.follow || self.lines == 0 {
            match self.read_once(WAIT_SECONDS) {
                Ok(()) if pause.is_zero() => {}
                Ok(()) => {
                    eprint_line("connected again");
                    pause = Duration::ZERO;
                }
                Err(ReadError::Permanent(failure)) => return Err(failure),
                Err(ReadError::Transient(why, after)) => {
                    if pause.is_zero() {
                        eprint_line(&format!("{why}; retrying"));
                    }
                    pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                    sleep_while_output_open(
                        after.unwrap_or(pause).clamp(pause, PAUSE_MAX.max(pause)),
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Reads once, and prints the messages.
    fn read_once(&mut self, wait_seconds: u64) -> Result<(), ReadError> {
        let response = self.request(wait_seconds)?;
        for (key, warning) in [
            ("missed", "messages are missing here: they are no longer retained"),
            ("reset", "the server restarted without its history: all that it has now follows"),
        ] {
            if response[key] == true {
                eprint_line(warning);
            }
        }
        let mut text = String::new();
        for message in response["messages"].as_array().into_iter().flatten() {
            let line = if self.options.json {
                Some(json_line(message, self.output))
            } else {
                text_line(message, self.output)
            };
            if let Some(line) = line {
                text.push_str(&line);
                text.push('\n');
                self.lines += 1;
            }
        }
        print(&text).map_err(ReadError::Permanent)
    }

    /// Calls `/read`, and moves the cursor.
    fn request(&mut self, wait_seconds: u64) -> Result<Value, ReadError> {
        let timeout = wait_seconds.to_string();
        let from = self.from.map(|from| from.to_string());
        let mut pairs = vec![("channel", self.channel), ("timeout", timeout.as_bytes())];
        pairs.extend(from.as_ref().map(|from| ("from_id", from.as_bytes())));
        // Ids above 0 belong to an epoch. 0 and negative numbers mean the same in all epochs.
        if !self.epoch.is_empty() && self.from > Some(0) {
            pairs.push(("epoch", self.epoch.as_bytes()));
        }
        let form = form(&pairs);
        let within = Duration::from_secs(wait_seconds) + RESPONSE_GRACE;
        let server = self.client.server.to_string();
        let response = self.client.call(&Request::form("/read", &form), within).map_err(
            |error| match error {
                ClientError::OutputClosed => ReadError::Permanent(Failure::OutputClosed),
                ClientError::Certificate(..) | ClientError::NoOpenssl => {
                    ReadError::Permanent(Failure::Error(format!("{server}: {error}")))
                }
                _ => ReadError::Transient(format!("{server}: {error}"), None),
            },
        )?;
        if let Some(rejection) = response.rejection() {
            let status = response.head.status;
            return Err(if status >= 500 || matches!(status, 408 | 429) {
                ReadError::Transient(rejection, response.retry_after().map(Duration::from_secs))
            } else {
                ReadError::Permanent(Failure::Error(rejection))
            });
        }
        let json = response.json();
        let (Some(next), Some(epoch)) = (json["next_id"].as_i64(), json["epoch"].as_str()) else {
            return Err(ReadError::Permanent(Failure::Error(format!(
                "{server}: the response is not from Speak"
            ))));
        };
        self.from = Some(next);
        epoch.clone_into(&mut self.epoch);
        Ok(json)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Transient(why, _) => Self::Error(why),
            ReadError::Permanent(failure) => failure,
        }
    }
}

/// Sleeps. Returns an error as soon as standard output is closed.
fn sleep_while_output_open(pause: Duration) -> Result<(), Failure> {
    let output = io::stdout();
    let until = Instant::now() + pause;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let mut fds = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::empty())];
        if poll(&mut fds, Some(&to_timespec(left))).is_ok_and(|ready| ready > 0) {
            return Err(Failure::OutputClosed);
        }
    }
}

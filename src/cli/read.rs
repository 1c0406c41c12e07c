//! `speak read CHANNEL [--from ID] [--follow]`.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

use super::cli_options::CliOptions;
use super::client::{Client, WatchOutput};
use super::error::ClientError;
use super::format::{Output, json_line, text_line};
use super::http::{Request, form};
use super::outcome::{Failure, Outcome};
use super::output::{eprint_line, print};
use super::socket::to_timespec;
use super::tls::Verify;

/// The longest that a read asks to wait; the server may wait for less.
const WAIT_SECONDS: u64 = 25;
/// How much longer than that an answer may take.
const GRACE: Duration = Duration::from_secs(15);
/// The pauses after failures grow from the one to the other.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// A reader of one channel with its place in it.
struct Follower<'a> {
    client: Client,
    channel: &'a [u8],
    choices: &'a CliOptions,
    output: Output,
    /// Where to go on, as the server said; before its first answer, where to begin.
    from: Option<i64>,
    epoch: String,
    /// Lines printed so far.
    lines: u64,
}

/// Why there is no answer.
enum ReadError {
    /// It may pass: trying again makes sense, perhaps after so long.
    Transient(String, Option<Duration>),
    Permanent(Failure),
}

pub(super) fn run(choices: &CliOptions, operands: &[OsString]) -> Result<Outcome, Failure> {
    let [channel] = operands else { unreachable!("the table asks for one") };
    let mut client = Client::new(choices.server.clone(), Verify::Yes);
    client.watch = WatchOutput::Output;
    let output = if io::stdout().is_terminal() { Output::Terminal } else { Output::Program };
    let channel = channel.as_bytes();
    let mut reading =
        Follower { client, channel, choices, output, from: None, epoch: String::new(), lines: 0 };
    reading.run()?;
    Ok(Outcome::Done)
}

impl Follower<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        // Only what answers at the start is worth coming back to; and with the end of what is there, nothing is told twice.
        let end = self.request(0).map_err(Failure::from)?;
        let end = end["next_id"].as_i64();
        let Some(from) = self.choices.from else { return self.follow() };
        self.from = Some(from);
        self.read_once(0).map_err(Failure::from)?;
        if self.choices.follow {
            return self.follow();
        }
        // One answer need not hold all of it.
        while self.from < end {
            self.read_once(0).map_err(Failure::from)?;
        }
        Ok(())
    }

    /// Waits for what comes: for good, or until there was something to print.
    fn follow(&mut self) -> Result<(), Failure> {
        let mut pause = Duration::ZERO;
        while self.choices.follow || self.lines == 0 {
            match self.read_once(WAIT_SECONDS) {
                Ok(()) if pause.is_zero() => {}
                Ok(()) => {
                    eprint_line("going on");
                    pause = Duration::ZERO;
                }
                Err(ReadError::Permanent(failure)) => return Err(failure),
                Err(ReadError::Transient(why, after)) => {
                    if pause.is_zero() {
                        eprint_line(&format!("{why}; trying again"));
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

    /// One read: prints what it brought, and moves on.
    fn read_once(&mut self, wait_seconds: u64) -> Result<(), ReadError> {
        let answer = self.request(wait_seconds)?;
        for (key, words) in [
            ("missed", "messages are missing here: they are no longer retained"),
            ("reset", "the server has begun anew: what follows is all that it has"),
        ] {
            if answer[key] == true {
                eprint_line(words);
            }
        }
        let mut text = String::new();
        for message in answer["messages"].as_array().into_iter().flatten() {
            let line = if self.choices.json {
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

    /// Calls `/read`, and notes where to go on.
    fn request(&mut self, wait_seconds: u64) -> Result<Value, ReadError> {
        let timeout = wait_seconds.to_string();
        let from = self.from.map(|from| from.to_string());
        let mut pairs = vec![("channel", self.channel), ("timeout", timeout.as_bytes())];
        pairs.extend(from.as_ref().map(|from| ("from_id", from.as_bytes())));
        // The first answer names it; before, there is no place that it could be about.
        if !self.epoch.is_empty() && self.from > Some(0) {
            pairs.push(("epoch", self.epoch.as_bytes()));
        }
        let form = form(&pairs);
        let within = Duration::from_secs(wait_seconds) + GRACE;
        let server = self.client.server.to_string();
        let answer =
            self.client.call(&Request::form("/read", &form), within).map_err(
                |fault| match fault {
                    ClientError::OutputClosed => ReadError::Permanent(Failure::OutputClosed),
                    ClientError::Certificate(..) | ClientError::NoOpenssl => {
                        ReadError::Permanent(Failure::Error(format!("{server}: {fault}")))
                    }
                    _ => ReadError::Transient(format!("{server}: {fault}"), None),
                },
            )?;
        if let Some(refusal) = answer.refusal() {
            let status = answer.head.status;
            return Err(if status >= 500 || matches!(status, 408 | 429) {
                ReadError::Transient(refusal, answer.retry_after().map(Duration::from_secs))
            } else {
                ReadError::Permanent(Failure::Error(refusal))
            });
        }
        let json = answer.json();
        let (Some(next), Some(epoch)) = (json["next_id"].as_i64(), json["epoch"].as_str()) else {
            return Err(ReadError::Permanent(Failure::Error(format!(
                "{server}: an answer that is not Speak's"
            ))));
        };
        self.from = Some(next);
        epoch.clone_into(&mut self.epoch);
        Ok(json)
    }
}

impl From<ReadError> for Failure {
    fn from(trouble: ReadError) -> Self {
        match trouble {
            ReadError::Transient(why, _) => Self::Error(why),
            ReadError::Permanent(failure) => failure,
        }
    }
}

/// Pauses, but no longer than somebody reads what we print.
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

//! The server that is looked at, and the calls that the checks make.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fix::Mend;
use super::verdict::CheckResult;
use crate::cli::client::Client;
use crate::cli::error::ClientError;
use crate::cli::http::{Request, Response, form};
use crate::cli::server_url::ServerUrl;
use crate::cli::tls::Verify;

/// Longest wait for an answer that waits for nothing.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(20);

/// Whom the checks look at, and with how much patience.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub server: ServerUrl,
    pub trust: Verify,
    /// How long what should come at once may take.
    pub prompt_timeout: Duration,
    /// How long a read and a silent stream have to survive.
    pub wait: Duration,
    pub direct_port: u16,
    pub origin: String,
}

/// An identity of the doctor's.
pub(super) struct Identity {
    pub connection: String,
    pub auth: String,
    /// Its introduction.
    pub id: u64,
}

impl Target {
    pub fn client(&self) -> Client {
        Client::new(self.server.clone(), self.trust)
    }

    /// Patience in the whole seconds that a read can ask for.
    pub fn patience_seconds(&self) -> u64 {
        whole_seconds(self.prompt_timeout)
    }
}

pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000) as u64
}

/// A name that nobody else has.
pub(super) fn secret_name() -> Result<String, CheckResult> {
    let bytes: [u8; 16] = random()?;
    Ok(bytes.iter().fold(String::from("doctor-"), |name, byte| format!("{name}{byte:02x}")))
}

pub(super) fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], CheckResult> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| {
        CheckResult::unexpected(format!("this machine has no randomness: {error}"))
    })?;
    Ok(bytes)
}

/// A call by a form, which has to succeed.
#[inline(never)]
pub(super) fn call(
    client: &mut Client,
    path: &str,
    pairs: &[(&str, &str)],
) -> Result<Value, CheckResult> {
    call_for(client, path, pairs, ANSWER_TIME)
}

/// The same, for a read that waits.
#[inline(never)]
pub(super) fn call_for(
    client: &mut Client,
    path: &str,
    pairs: &[(&str, &str)],
    within: Duration,
) -> Result<Value, CheckResult> {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let answer = client.call(&Request::form(path, &form(&pairs)), within);
    value(answer, &format!("POST {path}"))
}

/// What was answered as JSON, or a verdict about `what` was asked.
#[inline(never)]
pub(super) fn value(
    answer: Result<Response, ClientError>,
    what: &str,
) -> Result<Value, CheckResult> {
    success(answer, what).map(|answer| answer.json())
}

/// The answer, if it is one of Speak's and no refusal.
#[inline(never)]
pub(super) fn success(
    answer: Result<Response, ClientError>,
    what: &str,
) -> Result<Response, CheckResult> {
    let answer = answer.map_err(|fault| CheckResult::unexpected(format!("{what}: {fault}")))?;
    match answer.refusal() {
        None => Ok(answer),
        Some(why) if answer.head.status == 429 => {
            Err(CheckResult::fail(format!("{what}: {why}"), Mend::Rate))
        }
        Some(why) => Err(CheckResult::unexpected(format!("{what}: {why}"))),
    }
}

#[inline(never)]
pub(super) fn write(client: &mut Client, channel: &str, message: &str) -> Result<u64, CheckResult> {
    let answer = call(client, "/write", &[("channel", channel), ("message", message)])?;
    answer["id"]
        .as_u64()
        .ok_or_else(|| CheckResult::unexpected("POST /write: an answer without an id"))
}

pub(super) fn introduce(client: &mut Client, channel: &str) -> Result<Identity, CheckResult> {
    let answer = call(client, "/introduce", &[("channel", channel), ("message", "doctor")])?;
    match (answer["connection"].as_u64(), answer["auth"].as_str(), answer["id"].as_u64()) {
        (Some(connection), Some(auth), Some(id)) => {
            Ok(Identity { connection: connection.to_string(), auth: auth.to_owned(), id })
        }
        _ => Err(CheckResult::unexpected("POST /introduce: an answer without a connection")),
    }
}

/// Waits until somebody waits on `channel`, but not for longer than is patient: what comes of it is seen later.
pub(super) fn await_reader(
    patient: &Target,
    client: &mut Client,
    channel: &str,
) -> Result<(), CheckResult> {
    let until = Instant::now() + patient.prompt_timeout;
    while Instant::now() < until {
        let answer = call(client, "/members", &[("channel", channel)])?;
        if answer["readers"].as_u64() > Some(0) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Seconds with one digit behind the point; without floating point, whose printing is large.
pub(super) fn seconds(time: Duration) -> String {
    format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100)
}

/// The same in milliseconds.
pub(super) fn milliseconds(time: Duration) -> String {
    let tenths = time.as_micros() / 100;
    format!("{}.{} ms", tenths / 10, tenths % 10)
}

//! The checked server, and calls that the checks share.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::check_result::CheckResult;
use super::fix::Fix;
use crate::cli::client::Client;
use crate::cli::error::ClientError;
use crate::cli::http::{Request, Response, form};
use crate::cli::server_url::ServerUrl;
use crate::cli::tls::Verify;

/// Time for a response to a call that does not wait.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// The server, and the parameters of the checks.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub server: ServerUrl,
    pub verify: Verify,
    /// Time for a response or an event that should be immediate.
    pub prompt_timeout: Duration,
    /// Time for which a pending read and an idle stream must survive.
    pub wait: Duration,
    /// Port of the same host without a proxy. 0 for none.
    pub direct_port: u16,
    /// Origin of the page for which the headers are checked.
    pub origin: String,
}

/// A session of the doctor.
pub(super) struct Identity {
    pub connection: String,
    pub auth: String,
    /// Id of the introduction.
    pub id: u64,
}

impl Target {
    pub fn client(&self) -> Client {
        Client::new(self.server.clone(), self.verify)
    }

    /// Returns `prompt_timeout` in whole seconds, for the `timeout` of a read.
    pub fn prompt_timeout_seconds(&self) -> u64 {
        ceil_seconds(self.prompt_timeout)
    }
}

pub(super) fn ceil_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000) as u64
}

/// Returns the name of a channel that no other client uses.
pub(super) fn random_channel() -> Result<String, CheckResult> {
    let bytes: [u8; 16] = random()?;
    Ok(bytes.iter().fold(String::from("doctor-"), |name, byte| format!("{name}{byte:02x}")))
}

pub(super) fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], CheckResult> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| {
        CheckResult::unexpected(format!("this machine has no random numbers: {error}"))
    })?;
    Ok(bytes)
}

/// Makes a call with a form. It must succeed.
#[inline(never)]
pub(super) fn call(
    client: &mut Client,
    path: &str,
    pairs: &[(&str, &str)],
) -> Result<Value, CheckResult> {
    call_for(client, path, pairs, RESPONSE_TIMEOUT)
}

/// Makes a call as [`call`] does, with another timeout: for a read that waits.
#[inline(never)]
pub(super) fn call_for(
    client: &mut Client,
    path: &str,
    pairs: &[(&str, &str)],
    within: Duration,
) -> Result<Value, CheckResult> {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let response = client.call(&Request::form(path, &form(&pairs)), within);
    value(response, &format!("POST {path}"))
}

/// Returns the JSON of a response, or a failure of the call `name`.
#[inline(never)]
pub(super) fn value(
    response: Result<Response, ClientError>,
    name: &str,
) -> Result<Value, CheckResult> {
    success(response, name).map(|response| response.json())
}

/// Returns the response if it is Speak's and a success, or a failure of the call `name`.
#[inline(never)]
pub(super) fn success(
    response: Result<Response, ClientError>,
    name: &str,
) -> Result<Response, CheckResult> {
    let response = response.map_err(|error| CheckResult::unexpected(format!("{name}: {error}")))?;
    match response.rejection() {
        None => Ok(response),
        Some(why) if response.head.status == 429 => {
            Err(CheckResult::fail(format!("{name}: {why}"), Fix::RateLimited))
        }
        Some(why) => Err(CheckResult::unexpected(format!("{name}: {why}"))),
    }
}

/// Writes a message and returns its id.
#[inline(never)]
pub(super) fn write(client: &mut Client, channel: &str, message: &str) -> Result<u64, CheckResult> {
    let response = call(client, "/write", &[("channel", channel), ("message", message)])?;
    response["id"]
        .as_u64()
        .ok_or_else(|| CheckResult::unexpected("POST /write: the response has no id"))
}

pub(super) fn introduce(client: &mut Client, channel: &str) -> Result<Identity, CheckResult> {
    let response = call(client, "/introduce", &[("channel", channel), ("message", "doctor")])?;
    match (response["connection"].as_u64(), response["auth"].as_str(), response["id"].as_u64()) {
        (Some(connection), Some(auth), Some(id)) => {
            Ok(Identity { connection: connection.to_string(), auth: auth.to_owned(), id })
        }
        _ => Err(CheckResult::unexpected("POST /introduce: the response has no connection")),
    }
}

/// Waits until `channel` has a reader. Stops waiting after the prompt timeout, without an error:
/// the check finds the problem later.
pub(super) fn wait_for_reader(
    target: &Target,
    client: &mut Client,
    channel: &str,
) -> Result<(), CheckResult> {
    let until = Instant::now() + target.prompt_timeout;
    while Instant::now() < until {
        let response = call(client, "/members", &[("channel", channel)])?;
        if response["readers"].as_u64() > Some(0) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Formats a time in seconds with one decimal. Code that prints floating point is large.
pub(super) fn seconds(time: Duration) -> String {
    format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100)
}

/// Formats a time in milliseconds with one decimal.
pub(super) fn milliseconds(time: Duration) -> String {
    let tenths = time.as_micros() / 100;
    format!("{}.{} ms", tenths / 10, tenths % 10)
}

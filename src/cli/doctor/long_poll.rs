//! Checks that long polls survive, are completed at once, and end when the client closes them.

use std::time::{Duration, Instant};

use super::check_result::CheckResult;
use super::fix::Fix;
use super::target::{
    RESPONSE_TIMEOUT, Target, call, call_for, ceil_seconds, introduce, milliseconds,
    random_channel, seconds, value, wait_for_reader, write,
};
use crate::cli::client::Client;
use crate::cli::error::ClientError;
use crate::cli::http::{Request, form};

/// Timeout of the read that the check closes.
const CLOSED_READ_SECONDS: &str = "20";

/// Checks that a pending read without a message survives.
pub(super) fn wait(target: &Target) -> Result<CheckResult, CheckResult> {
    let wait_seconds = ceil_seconds(target.wait);
    let path = format!("/read?timeout={wait_seconds}&channel={}", random_channel()?);
    let mut client = target.client();
    let start = Instant::now();
    let response =
        client.call(&Request::get(&path), Duration::from_secs(wait_seconds) + RESPONSE_TIMEOUT);
    let after = seconds(start.elapsed());
    let cut = |why: String| {
        CheckResult::fail(
            format!("a read of {wait_seconds} s is cut after {after}: {why}"),
            Fix::StreamCut,
        )
    };
    match response {
        Ok(response) => {
            let status = response.head.status;
            if status >= 500 || (status == 200 && !response.json().is_object()) {
                return Ok(cut(format!("{status}, not from Speak")));
            }
            value(Ok(response), "GET /read")?;
            // The server may respond earlier: after its --poll-timeout.
            Ok(CheckResult::ok(format!(
                "the server answers a read of {wait_seconds} s after {after}"
            )))
        }
        Err(ClientError::Timeout) => Ok(CheckResult::fail(
            format!("a read of {wait_seconds} s is not answered at all"),
            Fix::DelayedResponse,
        )),
        Err(error @ (ClientError::ClosedBeforeResponse | ClientError::ClosedMidResponse)) => {
            Ok(cut(error.to_string()))
        }
        Err(error) => Err(CheckResult::unexpected(format!("GET /read: {error}"))),
    }
}

/// Checks that a pending read is completed as soon as there is a message.
pub(super) fn prompt(target: &Target) -> Result<CheckResult, CheckResult> {
    let channel = random_channel()?;
    let (mut reader, mut writer) = (target.client(), target.client());
    let unexpected = |error: ClientError| CheckResult::unexpected(format!("GET /read: {error}"));
    // Long enough that the read does not end by itself during the check.
    let timeout = 2 * target.prompt_timeout_seconds() + 5;
    let path = format!("/read?timeout={timeout}&channel={channel}");
    reader.send(&Request::get(&path), RESPONSE_TIMEOUT).map_err(unexpected)?;
    wait_for_reader(target, &mut writer, &channel)?;
    write(&mut writer, &channel, "are you there?")?;
    let written = Instant::now();
    let body = match read_body(&mut reader, written + target.prompt_timeout) {
        Ok((200, body)) => body,
        Ok((status, _)) => {
            let text = format!("a pending read is answered with {status}");
            return Ok(CheckResult::unexpected(text));
        }
        Err(ClientError::Timeout) => {
            let limit = seconds(target.prompt_timeout);
            let text = format!("a pending read is not answered within {limit} of a message");
            return Ok(CheckResult::fail(text, Fix::DelayedResponse));
        }
        Err(error) => return Err(unexpected(error)),
    };
    if !body.windows(9).any(|nine| nine == b"are you t") {
        let text = "a pending read is answered without the message that was written";
        return Ok(CheckResult::unexpected(text));
    }
    let took = milliseconds(written.elapsed());
    Ok(CheckResult::ok(format!("a pending read is answered {took} after a message")))
}

/// Returns the status and the body of a response. The body may be incomplete unless the status is
/// 200.
fn read_body(client: &mut Client, until: Instant) -> Result<(u16, Vec<u8>), ClientError> {
    let head = client.read_head("GET", until)?;
    let mut body = Vec::new();
    while head.status == 200
        && let Some(chunk) = client.next_chunk(until)?
    {
        body.extend_from_slice(&chunk);
    }
    Ok((head.status, body))
}

/// Checks that the server notices when a client closes a pending read.
pub(super) fn close(target: &Target) -> Result<CheckResult, CheckResult> {
    let channel = random_channel()?;
    let (mut member, mut observer) = (target.client(), target.client());
    let identity = introduce(&mut member, &channel)?;
    let next = (identity.id + 1).to_string();
    let (connection, auth) = (identity.connection.as_str(), identity.auth.as_str());
    let pairs = [
        ("channel", channel.as_str()),
        ("from_id", &next),
        ("timeout", CLOSED_READ_SECONDS),
        ("connection", connection),
        ("auth", auth),
    ];
    let form = form(&pairs.map(|(name, value)| (name, value.as_bytes())));
    member
        .send(&Request::form("/read", &form), RESPONSE_TIMEOUT)
        .map_err(|error| CheckResult::unexpected(format!("POST /read: {error}")))?;
    wait_for_reader(target, &mut observer, &channel)?;
    member.close();
    let closed = Instant::now();
    let timeout = target.prompt_timeout_seconds().to_string();
    let pairs = [("channel", channel.as_str()), ("from_id", &next), ("timeout", &timeout)];
    let within = target.prompt_timeout + RESPONSE_TIMEOUT;
    let response = call_for(&mut observer, "/read", &pairs, within)?;
    let took = closed.elapsed();
    match response["messages"][0]["reason"].as_str() {
        Some("closed") => {
            let took = milliseconds(took);
            return Ok(CheckResult::ok(format!("the goodbye comes {took} after a read is closed")));
        }
        Some(reason) => {
            let text = format!("the server does not see that a read is closed: it says {reason}");
            return Ok(CheckResult::fail(text, Fix::CloseNotForwarded));
        }
        None => {}
    }
    // Otherwise the member would stay until the timeout of the closed read.
    call(&mut observer, "/goodbye", &[("connection", connection), ("auth", auth)])?;
    let took = seconds(took);
    let text = format!(
        "the server does not see within {took} that a read is closed: \
         members who leave stay on the list"
    );
    Ok(CheckResult::fail(text, Fix::CloseNotForwarded))
}

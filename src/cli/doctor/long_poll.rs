//! Long polls: do they last, are they answered at once, and is their closing noticed.

use std::time::{Duration, Instant};

use super::fix::Mend;
use super::target::{
    ANSWER_TIME, Target, await_reader, call, call_for, introduce, milliseconds, seconds,
    secret_name, value, whole_seconds, write,
};
use super::verdict::CheckResult;
use crate::cli::error::ClientError;
use crate::cli::http::{Request, form};

/// How long the read waits whose closing is tried.
const CLOSED_READ_SECONDS: &str = "20";

/// Whether a read with nothing to tell is left alone.
pub(super) fn wait(patient: &Target) -> Result<CheckResult, CheckResult> {
    let asked = whole_seconds(patient.wait);
    let target = format!("/read?timeout={asked}&channel={}", secret_name()?);
    let mut client = patient.client();
    let start = Instant::now();
    let answer = client.call(&Request::get(&target), Duration::from_secs(asked) + ANSWER_TIME);
    let after = seconds(start.elapsed());
    let cut = |why: String| {
        CheckResult::fail(format!("a read of {asked} s is cut after {after}: {why}"), Mend::Cut)
    };
    match answer {
        Ok(answer) => {
            let status = answer.head.status;
            if status >= 500 || (status == 200 && !answer.json().is_object()) {
                return Ok(cut(format!("{status}, and not from Speak")));
            }
            value(Ok(answer), "GET /read")?;
            // The server cuts it to its --poll-timeout.
            Ok(CheckResult::ok(format!(
                "a read of {asked} s is answered after {after}, by the server"
            )))
        }
        Err(ClientError::Timeout) => Ok(CheckResult::fail(
            format!("a read of {asked} s is not answered at all"),
            Mend::Delay,
        )),
        Err(fault @ (ClientError::ClosedBeforeResponse | ClientError::ClosedMidResponse)) => {
            Ok(cut(fault.to_string()))
        }
        Err(fault) => Err(CheckResult::unexpected(format!("GET /read: {fault}"))),
    }
}

/// Whether a waiting read is answered when there is something.
pub(super) fn prompt(patient: &Target) -> Result<CheckResult, CheckResult> {
    let channel = secret_name()?;
    let (mut reader, mut writer) = (patient.client(), patient.client());
    let odd = |fault: ClientError| CheckResult::unexpected(format!("GET /read: {fault}"));
    // So long that the read does not end by itself while it is looked at.
    let target = format!("/read?timeout={}&channel={channel}", 2 * patient.patience_seconds() + 5);
    reader.send(&Request::get(&target), ANSWER_TIME).map_err(odd)?;
    await_reader(patient, &mut writer, &channel)?;
    write(&mut writer, &channel, "are you there?")?;
    let written = Instant::now();
    let until = written + patient.prompt_timeout;
    let late = || {
        let words = format!(
            "a waiting read is not answered within {} of a message",
            seconds(patient.prompt_timeout)
        );
        Ok(CheckResult::fail(words, Mend::Delay))
    };
    match reader.head("GET", until) {
        Ok(head) if head.status == 200 => {}
        Ok(head) => {
            return Ok(CheckResult::unexpected(format!(
                "a waiting read is answered with {}",
                head.status
            )));
        }
        Err(ClientError::Timeout) => return late(),
        Err(fault) => return Err(odd(fault)),
    }
    let mut body = Vec::new();
    loop {
        match reader.piece(until) {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => break,
            Err(ClientError::Timeout) => return late(),
            Err(fault) => return Err(odd(fault)),
        }
    }
    if !body.windows(9).any(|nine| nine == b"are you t") {
        return Ok(CheckResult::unexpected(
            "a waiting read is answered without the message that was written",
        ));
    }
    let took = milliseconds(written.elapsed());
    Ok(CheckResult::ok(format!("a waiting read is answered {took} after a message")))
}

/// Whether the server learns that somebody has closed a waiting read.
pub(super) fn close(patient: &Target) -> Result<CheckResult, CheckResult> {
    let channel = secret_name()?;
    let (mut leaver, mut witness) = (patient.client(), patient.client());
    let identity = introduce(&mut leaver, &channel)?;
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
    leaver
        .send(&Request::form("/read", &form), ANSWER_TIME)
        .map_err(|fault| CheckResult::unexpected(format!("POST /read: {fault}")))?;
    await_reader(patient, &mut witness, &channel)?;
    leaver.close();
    let closed = Instant::now();
    let timeout = patient.patience_seconds().to_string();
    let pairs = [("channel", channel.as_str()), ("from_id", &next), ("timeout", &timeout)];
    let answer = call_for(&mut witness, "/read", &pairs, patient.prompt_timeout + ANSWER_TIME)?;
    let took = closed.elapsed();
    let last = &answer["messages"][0];
    match last["reason"].as_str() {
        Some("closed") => {
            return Ok(CheckResult::ok(format!(
                "the goodbye of a closed read comes after {}",
                milliseconds(took)
            )));
        }
        Some(reason) => {
            let words =
                format!("closing a waiting read does not arrive: the goodbye says {reason}");
            return Ok(CheckResult::fail(words, Mend::Closing));
        }
        None => {}
    }
    // It would stay for as long as the read that nobody hears.
    call(&mut witness, "/goodbye", &[("connection", connection), ("auth", auth)])?;
    let words = format!(
        "closing a waiting read does not arrive within {}: who leaves stays on the list",
        seconds(took)
    );
    Ok(CheckResult::fail(words, Mend::Closing))
}

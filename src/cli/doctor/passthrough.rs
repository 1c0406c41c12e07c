//! Does what is asked get there, and what is answered come back, as it was sent.

use super::fix::Mend;
use super::target::{ANSWER_TIME, Target, call, secret_name, success, value, write};
use super::verdict::CheckResult;
use crate::cli::client::Client;
use crate::cli::error::ClientError;
use crate::cli::http::{Request, form};

/// A message as large as they are by default (`--max-message`).
const MESSAGE_BYTES: usize = 65_536;
/// Lengths of request lines, the longest first; the head of a request has 16 KiB by default (`--max-head`).
const LINE_BYTES: [usize; 3] = [15 * 1024, 7 * 1024, 3 * 1024];

/// Whether browsers get the fields that they go by.
pub(super) fn headers(patient: &Target, client: &mut Client) -> Result<CheckResult, CheckResult> {
    let target = format!("/read?timeout=0&channel={}", secret_name()?);
    let origin = [("Origin", patient.origin.as_str())];
    let answer = client.call(&Request { fields: &origin, ..Request::get(&target) }, ANSWER_TIME);
    let head = success(answer, "GET /read")?.head;
    let allowed: Vec<_> = head.get_all("access-control-allow-origin").collect();
    let page = &patient.origin;
    match allowed[..] {
        [one] if one == "*" || one.eq_ignore_ascii_case(page) => {}
        [] => {
            let words = format!(
                "Access-Control-Allow-Origin is lost, or {page} is not in --allow-origin: its pages cannot read answers"
            );
            return Ok(CheckResult::fail(words, Mend::LostHeader));
        }
        [one] if !one.contains(',') => {
            let words = format!(
                "Access-Control-Allow-Origin is {one}: pages of {page} cannot read answers"
            );
            return Ok(CheckResult::fail(words, Mend::LostHeader));
        }
        _ => {
            let words = "Access-Control-Allow-Origin is there twice: browsers then refuse answers";
            return Ok(CheckResult::fail(words, Mend::DoubleHeader));
        }
    }
    if !head.list_contains("cache-control", "no-store") {
        return Ok(CheckResult::fail(
            "Cache-Control: no-store is lost: answers may be kept by whoever is between",
            Mend::LostHeader,
        ));
    }
    if !head.list_contains("x-content-type-options", "nosniff") {
        return Ok(CheckResult::warn(
            "X-Content-Type-Options: nosniff is lost: old browsers guess types",
            Mend::LostHeader,
        ));
    }
    let fields = [
        origin[0],
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type"),
    ];
    let ask = Request { method: "OPTIONS", target: "/write", fields: &fields, body: None };
    let answer = client
        .call(&ask, ANSWER_TIME)
        .map_err(|fault| CheckResult::unexpected(format!("OPTIONS /write: {fault}")))?;
    if answer.head.status != 204 || answer.head.field("access-control-allow-methods").is_none() {
        let words = format!("a preflight is answered with {} and not by Speak", answer.head.status);
        return Ok(CheckResult::fail(words, Mend::Preflight));
    }
    Ok(CheckResult::ok("CORS, no-store and nosniff arrive; a preflight passes"))
}

/// Whether errors arrive as the server words them.
pub(super) fn errors(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let answer = client.call(&Request::get("/write"), ANSWER_TIME);
    let answer = answer.map_err(|fault| CheckResult::unexpected(format!("GET /write: {fault}")))?;
    let status = answer.head.status;
    if status == 400 && answer.json()["error"] == "missing_parameter" {
        return Ok(CheckResult::ok("errors arrive as Speak words them"));
    }
    let words = format!(
        "an error arrives as a page of the proxy ({status}): pages cannot tell what is wrong"
    );
    Ok(CheckResult::fail(words, Mend::Errors))
}

/// Whether an answer is kept and given again.
pub(super) fn cache(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let channel = secret_name()?;
    let target = format!("/read?from_id=1&timeout=0&channel={channel}");
    let mut read = || value(client.call(&Request::get(&target), ANSWER_TIME), "GET /read");
    // A cache may want to see a thing twice before it keeps it.
    read()?;
    let before = read()?;
    let id = write(client, &channel, "a second answer differs")?;
    let after = value(client.call(&Request::get(&target), ANSWER_TIME), "GET /read")?;
    if after["next_id"].as_u64() == Some(id + 1) {
        return Ok(CheckResult::ok("answers come from the server, not from a cache"));
    }
    let is_old = after["next_id"] == before["next_id"];
    let words = if is_old {
        "an old answer came again: they are cached"
    } else {
        "the answer is not of this channel: they are cached"
    };
    Ok(CheckResult::fail(words, Mend::Cache))
}

/// Whether the largest message passes, whole.
pub(super) fn post(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let channel = secret_name()?;
    let message = "x".repeat(MESSAGE_BYTES);
    let form = form(&[("channel", channel.as_bytes()), ("message", message.as_bytes())]);
    let answer = match client.call(&Request::form("/write", &form), ANSWER_TIME) {
        Ok(answer) => answer,
        Err(ClientError::ClosedBeforeResponse | ClientError::ClosedMidResponse) => {
            return Ok(CheckResult::fail(
                "a message of 64 KiB has the connection closed",
                Mend::Body,
            ));
        }
        Err(fault) => return Err(CheckResult::unexpected(format!("a message of 64 KiB: {fault}"))),
    };
    if answer.head.status == 413 {
        let is_ours = answer.json()["error"] == "message_too_large";
        return Ok(if is_ours {
            CheckResult::ok("the server itself takes no message of 64 KiB (--max-message)")
        } else {
            CheckResult::fail(
                "a message of 64 KiB is refused with 413, and not by Speak",
                Mend::Body,
            )
        });
    }
    let id =
        value(Ok(answer), "a message of 64 KiB")?["id"].as_u64().unwrap_or_default().to_string();
    let answer =
        call(client, "/read", &[("channel", &channel), ("from_id", &id), ("timeout", "0")])?;
    match answer["messages"][0]["message"].as_str() {
        Some(text) if text != message => {
            Ok(CheckResult::unexpected("a message of 64 KiB comes back changed"))
        }
        _ => Ok(CheckResult::ok("a message of 64 KiB passes")),
    }
}

/// Whether long addresses pass: script tags write with them.
pub(super) fn uri(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let mut last = String::new();
    for (tried, length) in LINE_BYTES.into_iter().enumerate() {
        let target = format!("/health?_={}", "x".repeat(length));
        let kib = length / 1024;
        match client.call(&Request::get(&target), ANSWER_TIME) {
            Ok(answer) if answer.refusal().is_none() => {
                let words = format!("an address of {kib} KiB passes");
                return Ok(match tried {
                    0 => CheckResult::ok(words),
                    _ => CheckResult::warn(
                        format!(
                            "{words}, but {last}: script tags (JSONP) cannot write long messages"
                        ),
                        Mend::Head,
                    ),
                });
            }
            Ok(answer) => {
                last = format!("one of {kib} KiB is answered with {}", answer.head.status);
            }
            Err(
                fault @ (ClientError::ClosedBeforeResponse
                | ClientError::ClosedMidResponse
                | ClientError::NotHttp),
            ) => last = format!("one of {kib} KiB: {fault}"),
            Err(fault) => {
                return Err(CheckResult::unexpected(format!("an address of {kib} KiB: {fault}")));
            }
        }
    }
    Ok(CheckResult::fail(format!("long addresses do not pass: {last}"), Mend::Head))
}

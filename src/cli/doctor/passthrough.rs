//! Checks that requests and responses pass unchanged: headers, errors, caches and sizes.

use super::check_result::CheckResult;
use super::fix::Fix;
use super::target::{RESPONSE_TIMEOUT, Target, call, random_channel, success, value, write};
use crate::cli::client::Client;
use crate::cli::error::ClientError;
use crate::cli::http::{Head, Request, form};

/// Size of the largest message by default (`--max-message`).
const MESSAGE_BYTES: usize = 65_536;
/// Lengths of URLs to try, the longest first. A request head has at most 16 KiB by default
/// (`--max-head`).
const URI_BYTES: [usize; 3] = [15 * 1024, 7 * 1024, 3 * 1024];

/// Checks the headers that browsers need.
pub(super) fn headers(target: &Target, client: &mut Client) -> Result<CheckResult, CheckResult> {
    let path = format!("/read?timeout=0&channel={}", random_channel()?);
    let origin = ("Origin", target.origin.as_str());
    let request = Request { fields: &[origin], ..Request::get(&path) };
    let head = success(client.call(&request, RESPONSE_TIMEOUT), "GET /read")?.head;
    if let Some(problem) = header_problem(&head, &target.origin) {
        return Ok(problem);
    }
    let fields = [
        origin,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type"),
    ];
    let request = Request { method: "OPTIONS", target: "/write", fields: &fields, body: None };
    let head = client
        .call(&request, RESPONSE_TIMEOUT)
        .map_err(|error| CheckResult::unexpected(format!("OPTIONS /write: {error}")))?
        .head;
    if head.status != 204 || head.field("access-control-allow-methods").is_none() {
        let text = format!("a preflight is answered with {}, and not by Speak", head.status);
        return Ok(CheckResult::fail(text, Fix::PreflightBlocked));
    }
    Ok(CheckResult::ok("CORS, no-store and nosniff arrive; a preflight passes"))
}

/// Returns the first problem with the headers of a response to a page of `origin`.
fn header_problem(head: &Head, origin: &str) -> Option<CheckResult> {
    let allowed: Vec<_> = head.get_all("access-control-allow-origin").collect();
    match allowed[..] {
        [one] if one == "*" || one.eq_ignore_ascii_case(origin) => {}
        [] => {
            let text = format!(
                "Access-Control-Allow-Origin is missing, or {origin} is not in --allow-origin: \
                 its pages cannot read responses; `--origin` checks for another page"
            );
            return Some(CheckResult::fail(text, Fix::MissingHeader));
        }
        [one] if !one.contains(',') => {
            let text = format!(
                "Access-Control-Allow-Origin is {one}: pages of {origin} cannot read responses"
            );
            return Some(CheckResult::fail(text, Fix::MissingHeader));
        }
        _ => {
            let text = "Access-Control-Allow-Origin comes twice: browsers reject such responses";
            return Some(CheckResult::fail(text, Fix::DuplicateHeader));
        }
    }
    if !head.list_contains("cache-control", "no-store") {
        let text = "Cache-Control: no-store is missing: caches may keep responses";
        return Some(CheckResult::fail(text, Fix::MissingHeader));
    }
    if !head.list_contains("x-content-type-options", "nosniff") {
        let text = "X-Content-Type-Options: nosniff is missing: old browsers guess types";
        return Some(CheckResult::warn(text, Fix::MissingHeader));
    }
    None
}

/// Checks that errors arrive as the server sends them.
pub(super) fn errors(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let response = client
        .call(&Request::get("/write"), RESPONSE_TIMEOUT)
        .map_err(|error| CheckResult::unexpected(format!("GET /write: {error}")))?;
    let status = response.head.status;
    if status == 400 && response.json()["error"] == "missing_parameter" {
        return Ok(CheckResult::ok("errors arrive with their status and JSON"));
    }
    let text = format!(
        "a page of the proxy replaces an error ({status}): pages cannot tell what is wrong"
    );
    Ok(CheckResult::fail(text, Fix::ErrorsReplaced))
}

/// Checks that no cache repeats responses.
pub(super) fn cache(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let channel = random_channel()?;
    let path = format!("/read?from_id=1&timeout=0&channel={channel}");
    let mut read = || value(client.call(&Request::get(&path), RESPONSE_TIMEOUT), "GET /read");
    // A cache may keep a response only after the second request.
    read()?;
    let before = read()?;
    let id = write(client, &channel, "a second response differs")?;
    let after = value(client.call(&Request::get(&path), RESPONSE_TIMEOUT), "GET /read")?;
    if after["next_id"].as_u64() == Some(id + 1) {
        return Ok(CheckResult::ok("responses come from the server, not from a cache"));
    }
    let is_old = after["next_id"] == before["next_id"];
    let text = if is_old {
        "a cache repeats an old response"
    } else {
        "the response is not of this channel: a cache mixes them up"
    };
    Ok(CheckResult::fail(text, Fix::ResponsesCached))
}

/// Checks that the largest message passes unchanged.
pub(super) fn post(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let channel = random_channel()?;
    let message = "x".repeat(MESSAGE_BYTES);
    let form = form(&[("channel", channel.as_bytes()), ("message", message.as_bytes())]);
    let response = match client.call(&Request::form("/write", &form), RESPONSE_TIMEOUT) {
        Ok(response) => response,
        Err(ClientError::ClosedBeforeResponse | ClientError::ClosedMidResponse) => {
            let text = "a message of 64 KiB closes the connection";
            return Ok(CheckResult::fail(text, Fix::BodyTooLarge));
        }
        Err(error) => return Err(CheckResult::unexpected(format!("a message of 64 KiB: {error}"))),
    };
    if response.head.status == 413 {
        let is_from_speak = response.json()["error"] == "message_too_large";
        return Ok(if is_from_speak {
            CheckResult::ok("the server itself rejects a message of 64 KiB (--max-message)")
        } else {
            let text = "a message of 64 KiB is rejected with 413, and not by Speak";
            CheckResult::fail(text, Fix::BodyTooLarge)
        });
    }
    let id =
        value(Ok(response), "a message of 64 KiB")?["id"].as_u64().unwrap_or_default().to_string();
    let response =
        call(client, "/read", &[("channel", &channel), ("from_id", &id), ("timeout", "0")])?;
    match response["messages"][0]["message"].as_str() {
        Some(text) if text != message => {
            Ok(CheckResult::unexpected("a message of 64 KiB comes back changed"))
        }
        _ => Ok(CheckResult::ok("a message of 64 KiB passes")),
    }
}

/// Checks that long URLs pass: script tags write with them.
pub(super) fn uri(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let mut last = String::new();
    for (tried, length) in URI_BYTES.into_iter().enumerate() {
        let path = format!("/health?_={}", "x".repeat(length));
        let kib = length / 1024;
        match client.call(&Request::get(&path), RESPONSE_TIMEOUT) {
            Ok(response) if response.rejection().is_none() => {
                let text = format!("a URL of {kib} KiB passes");
                if tried == 0 {
                    return Ok(CheckResult::ok(text));
                }
                let text =
                    format!("{text}, but {last}: script tags (JSONP) cannot write long messages");
                return Ok(CheckResult::warn(text, Fix::HeadTooLarge));
            }
            Ok(response) => {
                last = format!("one of {kib} KiB is answered with {}", response.head.status);
            }
            Err(
                error @ (ClientError::ClosedBeforeResponse
                | ClientError::ClosedMidResponse
                | ClientError::NotHttp),
            ) => last = format!("one of {kib} KiB: {error}"),
            Err(error) => {
                return Err(CheckResult::unexpected(format!("a URL of {kib} KiB: {error}")));
            }
        }
    }
    Ok(CheckResult::fail(format!("long URLs do not pass: {last}"), Fix::HeadTooLarge))
}

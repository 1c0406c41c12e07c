//! Basic checks: TLS, reachability, latency, clock and keep-alive.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::certificate::ServerCertificate;
use super::check_result::CheckResult;
use super::fix::{Fix, Proxy};
use super::target::{
    RESPONSE_TIMEOUT, Target, call, milliseconds, random_channel, success, value, write,
};
use crate::cli::client::Client;
use crate::cli::error::ClientError;
use crate::cli::http::Request;
use crate::cli::server_url::{Scheme, ServerUrl};
use crate::cli::tls::Verify;

/// Difference of the clocks above which a chat shows wrong times.
const CLOCK_SKEW_MS_MAX: u64 = 2_000;
/// Duration of a call above which a chat feels slow.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);
/// Calls of which the median counts.
const ROUNDS: usize = 5;

/// Checks the certificate. None without TLS. If the certificate is bad, the other checks accept it:
/// they send no secrets.
pub(super) fn tls(target: &mut Target) -> Option<CheckResult> {
    let Scheme::Https(host) = &target.server.scheme else { return None };
    let mut client = target.client();
    let Err(error) = client.call(&Request::get("/health"), RESPONSE_TIMEOUT) else {
        let version = client.tls_version().unwrap_or_else(|| "TLS".to_owned());
        let mut text = format!("{version} with a certificate that this machine trusts");
        let is_old = matches!(version.as_str(), "TLSv1" | "TLSv1.1" | "SSLv3");
        let (certificate, now) = (ServerCertificate::get(host), SystemTime::now());
        if let Some(certificate) = &certificate {
            text = format!("{text}: {}", certificate.describe(now));
        }
        return Some(if is_old {
            CheckResult::warn(text, Fix::OldTls)
        } else if certificate.is_some_and(|certificate| certificate.is_overdue(now)) {
            CheckResult::warn(text, Fix::RenewalOverdue)
        } else {
            CheckResult::ok(text)
        });
    };
    let ClientError::Certificate(code, why) = error else {
        // The next check has the same error, and reports it.
        return Some(CheckResult::skip("no connection could be made"));
    };
    let (mut text, fix) = certificate_problem(code, &why, &host.name);
    if let Some(certificate) = ServerCertificate::get(host) {
        text = format!("{text} ({})", certificate.describe(SystemTime::now()));
    }
    target.verify = Verify::No;
    Some(CheckResult::fail(text, fix))
}

/// Returns the text and the fix for an error of OpenSSL about the certificate of `host`.
fn certificate_problem(code: u32, why: &str, host: &str) -> (String, Fix) {
    // OpenSSL's codes (X509_V_ERR_…) are part of its interface.
    match code {
        9 => (
            "the certificate is not valid yet, or the clock of this machine is wrong".to_owned(),
            Fix::InvalidCertificate,
        ),
        10 => ("the certificate has expired".to_owned(), Fix::InvalidCertificate),
        18 | 19 => (
            "the certificate is self-signed; browsers reject it".to_owned(),
            Fix::InvalidCertificate,
        ),
        20 | 21 => (
            "the issuer of the certificate is unknown: \
             the server does not send the whole chain, or the authority is your own"
                .to_owned(),
            Fix::IncompleteChain,
        ),
        62 | 64 => {
            (format!("the certificate is for another name than {host}"), Fix::InvalidCertificate)
        }
        _ => (format!("the certificate is not trusted: {why}"), Fix::InvalidCertificate),
    }
}

/// Checks that Speak responds. Returns the proxy in front of it, if the proxy can be recognized.
pub(super) fn reach(
    target: &Target,
    client: &mut Client,
) -> Result<(CheckResult, Option<Proxy>), CheckResult> {
    let server = &target.server;
    let response = match client.call(&Request::get("/health"), RESPONSE_TIMEOUT) {
        Ok(response) => response,
        Err(
            error @ (ClientError::Connect(_)
            | ClientError::ClosedBeforeResponse
            | ClientError::Timeout),
        ) => return Err(CheckResult::fail(format!("{server}: {error}"), Fix::Unreachable)),
        Err(error) => return Err(CheckResult::unexpected(format!("{server}: {error}"))),
    };
    let head = &response.head;
    let proxy = Proxy::detect(head);
    match head.status {
        200 if response.json()["status"] == "ok" => {}
        300..=399 => {
            let location = head.field("location").unwrap_or("no address");
            let text = format!("the server redirects to {location}");
            return Err(CheckResult::fail(text, Fix::Redirected));
        }
        status @ (502..=504) => {
            let text = format!("the proxy answers {status}: it cannot reach Speak");
            return Err(CheckResult::fail(text, Fix::Unreachable));
        }
        status => {
            let content_type = head.field("content-type").unwrap_or("no content type");
            let text = format!("the response is not from Speak: {status}, {content_type}");
            return Err(CheckResult::fail(text, Fix::NotSpeak));
        }
    }
    let path = format!("/read?timeout=0&channel={}", random_channel()?);
    let response = value(client.call(&Request::get(&path), RESPONSE_TIMEOUT), "GET /read")?;
    let Some(epoch) = response["epoch"].as_str() else {
        let text = "/health is from Speak, but /read is not";
        return Err(CheckResult::fail(text, Fix::NotSpeak));
    };
    let proxy_name = match proxy {
        Some(Proxy::Nginx) => ", behind nginx",
        Some(Proxy::Caddy) => ", behind Caddy",
        Some(Proxy::Cloudflare) => ", behind Cloudflare",
        _ => "",
    };
    let text = format!("Speak answers at {server}{proxy_name}; its epoch is {epoch}");
    Ok((CheckResult::ok(text), proxy))
}

/// Checks the port that has no proxy in front of it.
pub(super) fn direct(target: &Target) -> CheckResult {
    let port = target.direct_port;
    let Some(server) = target.server.with_port(port, Scheme::Http).filter(|_| port != 0) else {
        return CheckResult::skip("there is no direct port");
    };
    match &target.server.scheme {
        Scheme::Http(host) | Scheme::Https(host) if host.port == port => {
            return CheckResult::ok("this is the direct port");
        }
        _ => {}
    }
    let get_image = |server: &ServerUrl| {
        Client::new(server.clone(), target.verify)
            .call(&Request::get("/image-test"), RESPONSE_TIMEOUT)
    };
    // A server with certificates of its own speaks TLS there, too.
    if let Scheme::Https(_) = target.server.scheme
        && let Some(secure) = target.server.with_port(port, Scheme::Https)
        && get_image(&secure).is_ok_and(|response| response.head.status == 200)
    {
        return CheckResult::ok(format!("{secure} is open"));
    }
    match get_image(&server) {
        Ok(response) if response.head.status == 200 && response.body.starts_with(b"GIF8") => {
            CheckResult::ok(format!("{server} is open"))
        }
        Ok(response) => CheckResult::warn(
            format!("{server} answers /image-test with {}, and no image", response.head.status),
            Fix::DirectPortClosed,
        ),
        // It is for servers without a proxy in front of their certificates.
        Err(_) if matches!(target.server.scheme, Scheme::Https(_)) => {
            CheckResult::skip(format!("{server} does not answer: no TLS without a proxy"))
        }
        Err(error) => CheckResult::warn(format!("{server}: {error}"), Fix::DirectPortClosed),
    }
}

/// Checks the duration of a call.
pub(super) fn latency(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let mut rounds = [Duration::ZERO; ROUNDS];
    for round in &mut rounds {
        let start = Instant::now();
        value(client.call(&Request::get("/health"), RESPONSE_TIMEOUT), "GET /health")?;
        *round = start.elapsed();
    }
    rounds.sort();
    let median = rounds[ROUNDS / 2];
    let text = format!("a call takes {} (median of {ROUNDS})", milliseconds(median));
    Ok(if median > ROUND_TRIP_MAX {
        CheckResult::warn(text, Fix::HighLatency)
    } else {
        CheckResult::ok(text)
    })
}

/// Checks that the times of messages agree with the clock of this machine.
pub(super) fn clock(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let channel = random_channel()?;
    let before = now_ms();
    let id = write(client, &channel, "what time is it?")?.to_string();
    let after = now_ms();
    let response =
        call(client, "/read", &[("channel", &channel), ("from_id", &id), ("timeout", "0")])?;
    let Some(time) = response["messages"][0]["time"].as_u64() else {
        return Ok(CheckResult::skip("the server retains no messages, which would have its time"));
    };
    let (skew_ms, direction) = if time < before {
        (before - time, "behind")
    } else {
        (time.saturating_sub(after), "ahead of")
    };
    if skew_ms <= CLOCK_SKEW_MS_MAX {
        return Ok(CheckResult::ok("the server's clock agrees with this machine's"));
    }
    let skew = coarse_duration(skew_ms / 1000);
    let text = format!("the server's clock is {skew} {direction} this machine's");
    Ok(CheckResult::warn(text, Fix::ClockSkew))
}

fn coarse_duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn now_ms() -> u64 {
    // A clock before 1970 counts as 1970: the check reports both as wrong.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Checks that a connection can be used for more than one call.
pub(super) fn keep_alive(client: &mut Client) -> Result<CheckResult, CheckResult> {
    client.close();
    let response = client.call(&Request::get("/health"), RESPONSE_TIMEOUT);
    let minor = success(response, "GET /health")?.head.minor;
    if client.is_reusable() {
        return Ok(CheckResult::ok(format!("HTTP/1.{minor}, connections stay open")));
    }
    let text = "connections are closed after each response: every call needs a new one";
    Ok(CheckResult::warn(text, Fix::NoKeepAlive))
}

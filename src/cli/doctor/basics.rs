//! Is somebody there, who, how far away, and what time is it there.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::fix::{Mend, Proxy};
use super::target::{ANSWER_TIME, Target, call, milliseconds, secret_name, success, value, write};
use super::verdict::CheckResult;
use crate::cli::client::Client;
use crate::cli::error::ClientError;
use crate::cli::http::Request;
use crate::cli::server_url::Scheme;
use crate::cli::tls::Verify;

/// A clock that is wrong by more shows in a chat.
const CLOCK_MS_MAX: u64 = 2_000;
/// More is felt in a chat: each message takes it.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);
/// Rounds of which the middle one counts.
const ROUNDS: usize = 5;

/// Whether the certificate is good. Where it is not, the rest is tried all the same: nothing of it is a secret.
pub(super) fn tls(patient: &mut Target) -> Option<CheckResult> {
    let Scheme::Tls(host) = &patient.server.place else { return None };
    let mut client = patient.client();
    let Err(fault) = client.call(&Request::get("/health"), ANSWER_TIME) else {
        let version = client.tls_version().unwrap_or_else(|| "TLS".to_owned());
        let words = format!("{version}, with a certificate that this machine trusts");
        let is_old = matches!(version.as_str(), "TLSv1" | "TLSv1.1" | "SSLv3");
        return Some(if is_old {
            CheckResult::warn(words, Mend::OldTls)
        } else {
            CheckResult::ok(words)
        });
    };
    let ClientError::Certificate(code, why) = fault else {
        // Whatever else it is, the next check runs into it as well, and tells.
        return Some(CheckResult::skip("no connection came about"));
    };
    patient.trust = Verify::No;
    let name = &host.name;
    // The codes of OpenSSL (X509_V_ERR_…), which are part of its interface.
    let (words, mend) = match code {
        9 => ("the certificate is not valid yet: or is the clock of this machine wrong?".to_owned(), Mend::Certificate),
        10 => ("the certificate has expired".to_owned(), Mend::Certificate),
        18 | 19 => ("the certificate is self-signed: browsers refuse it".to_owned(), Mend::Certificate),
        20 | 21 => (
            "who signed the certificate is not known: a link of its chain is not sent, or is your own".to_owned(),
            Mend::Chain,
        ),
        62 | 64 => (format!("the certificate is for another name than {name}"), Mend::Certificate),
        _ => (format!("the certificate is not trusted: {why}"), Mend::Certificate),
    };
    Some(CheckResult::fail(words, mend))
}

/// Whether it is Speak that answers, and who stands before it.
pub(super) fn reach(
    patient: &Target,
    client: &mut Client,
) -> Result<(CheckResult, Option<Proxy>), CheckResult> {
    let answer = match client.call(&Request::get("/health"), ANSWER_TIME) {
        Ok(answer) => answer,
        Err(
            fault @ (ClientError::Connect(_)
            | ClientError::ClosedBeforeResponse
            | ClientError::Timeout),
        ) => {
            return Err(CheckResult::fail(format!("{}: {fault}", patient.server), Mend::Nobody));
        }
        Err(fault) => return Err(CheckResult::unexpected(format!("{}: {fault}", patient.server))),
    };
    let head = &answer.head;
    let proxy = Proxy::of(head);
    match head.status {
        200 if answer.json()["status"] == "ok" => {}
        300..=399 => {
            let place = head.field("location").unwrap_or("nowhere");
            return Err(CheckResult::fail(format!("it sends us on to {place}"), Mend::Moved));
        }
        status @ (502..=504) => {
            return Err(CheckResult::fail(
                format!("the proxy answers {status}: it finds nobody behind it"),
                Mend::Nobody,
            ));
        }
        status => {
            let kind = head.field("content-type").unwrap_or("nothing that has a type");
            let words = format!("something else than Speak answers: {status}, {kind}");
            return Err(CheckResult::fail(words, Mend::Stranger));
        }
    }
    let target = format!("/read?timeout=0&channel={}", secret_name()?);
    let answer = value(client.call(&Request::get(&target), ANSWER_TIME), "GET /read")?;
    let Some(epoch) = answer["epoch"].as_str() else {
        return Err(CheckResult::fail(
            "/health is well, but /read is not that of Speak",
            Mend::Stranger,
        ));
    };
    let before = match proxy {
        Some(Proxy::Nginx) => ", behind nginx",
        Some(Proxy::Caddy) => ", behind Caddy",
        Some(Proxy::Cloudflare) => ", behind Cloudflare",
        _ => "",
    };
    Ok((
        CheckResult::ok(format!(
            "Speak answers at {}{before}; its epoch is {epoch}",
            patient.server
        )),
        proxy,
    ))
}

/// Whether the door is open that no proxy stands in.
pub(super) fn direct(patient: &Target) -> CheckResult {
    let port = patient.direct_port;
    let Some(server) = patient.server.with_port(port).filter(|_| port != 0) else {
        return CheckResult::skip("no direct door is asked for");
    };
    match &patient.server.place {
        Scheme::Tls(_) => return CheckResult::skip("pages over https do not use the direct door"),
        Scheme::Plain(host) if host.port == port => {
            return CheckResult::ok("this is the direct door");
        }
        _ => {}
    }
    let answer =
        Client::new(server.clone(), Verify::Yes).call(&Request::get("/image-test"), ANSWER_TIME);
    match answer {
        Ok(answer) if answer.head.status == 200 && answer.body.starts_with(b"GIF8") => {
            CheckResult::ok(format!("{server} is open"))
        }
        Ok(answer) => CheckResult::warn(
            format!("{server} answers /image-test with {}, and no picture", answer.head.status),
            Mend::DirectDoor,
        ),
        Err(fault) => CheckResult::warn(format!("{server} is closed: {fault}"), Mend::DirectDoor),
    }
}

/// How long a call takes.
pub(super) fn latency(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let mut rounds = [Duration::ZERO; ROUNDS];
    for round in &mut rounds {
        let start = Instant::now();
        value(client.call(&Request::get("/health"), ANSWER_TIME), "GET /health")?;
        *round = start.elapsed();
    }
    rounds.sort();
    let middle = rounds[ROUNDS / 2];
    let words = format!("a call takes {}, the middle one of {ROUNDS}", milliseconds(middle));
    Ok(if middle > ROUND_TRIP_MAX {
        CheckResult::warn(words, Mend::Distance)
    } else {
        CheckResult::ok(words)
    })
}

/// Whether the times of messages are those of this machine.
pub(super) fn clock(client: &mut Client) -> Result<CheckResult, CheckResult> {
    let channel = secret_name()?;
    let before = now_ms();
    let id = write(client, &channel, "what time is it?")?.to_string();
    let after = now_ms();
    let answer =
        call(client, "/read", &[("channel", &channel), ("from_id", &id), ("timeout", "0")])?;
    let Some(time) = answer["messages"][0]["time"].as_u64() else {
        return Ok(CheckResult::skip("the server retains no messages that would tell its time"));
    };
    let (off, word) = if time < before {
        (before - time, "behind")
    } else {
        (time.saturating_sub(after), "ahead of")
    };
    if off <= CLOCK_MS_MAX {
        return Ok(CheckResult::ok("the server's clock agrees with that of this machine"));
    }
    let words =
        format!("the server's clock is {} {word} that of this machine", http_version(off / 1000));
    Ok(CheckResult::warn(words, Mend::Clock))
}

fn http_version(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn now_ms() -> u64 {
    // A clock before 1970 is as wrong as one in 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Whether the next call needs no new connection.
pub(super) fn keep_alive(client: &mut Client) -> Result<CheckResult, CheckResult> {
    client.close();
    let answer = client.call(&Request::get("/health"), ANSWER_TIME);
    let minor = success(answer, "GET /health")?.head.minor;
    if client.is_reusable() {
        return Ok(CheckResult::ok(format!("HTTP/1.{minor}, and connections are kept")));
    }
    let words = "connections are closed after each answer: every call pays for a new one";
    Ok(CheckResult::warn(words, Mend::KeepAlive))
}

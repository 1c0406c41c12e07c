//! Is somebody there, who, how far away, and what time is it there.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::fix::{Mend, Proxy};
use super::target::{ANSWER_TIME, Patient, call, milliseconds, secret_name, success, value, write};
use super::verdict::Verdict;
use crate::cli::client::{Ask, Client};
use crate::cli::error::Fault;
use crate::cli::server_url::Place;
use crate::cli::tls::Trust;

/// A clock that is wrong by more shows in a chat.
const CLOCK_MS_MAX: u64 = 2_000;
/// More is felt in a chat: each message takes it.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);
/// Rounds of which the middle one counts.
const ROUNDS: usize = 5;

/// Whether the certificate is good. Where it is not, the rest is tried all the same: nothing of it is a secret.
pub(super) fn tls(patient: &mut Patient) -> Option<Verdict> {
    let Place::Tls(host) = &patient.server.place else { return None };
    let mut client = patient.client();
    let Err(fault) = client.call(&Ask::get("/health"), ANSWER_TIME) else {
        let version = client.tls_version().unwrap_or_else(|| "TLS".to_owned());
        let words = format!("{version}, with a certificate that this machine trusts");
        let is_old = matches!(version.as_str(), "TLSv1" | "TLSv1.1" | "SSLv3");
        return Some(if is_old { Verdict::warn(words, Mend::OldTls) } else { Verdict::fine(words) });
    };
    let Fault::Certificate(code, why) = fault else {
        // Whatever else it is, the next check runs into it as well, and tells.
        return Some(Verdict::skip("no connection came about"));
    };
    patient.trust = Trust::Anybody;
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
    Some(Verdict::fail(words, mend))
}

/// Whether it is Speak that answers, and who stands before it.
pub(super) fn reach(patient: &Patient, client: &mut Client) -> Result<(Verdict, Option<Proxy>), Verdict> {
    let answer = match client.call(&Ask::get("/health"), ANSWER_TIME) {
        Ok(answer) => answer,
        Err(fault @ (Fault::Connect(_) | Fault::Ended | Fault::Late)) => {
            return Err(Verdict::fail(format!("{}: {fault}", patient.server), Mend::Nobody));
        }
        Err(fault) => return Err(Verdict::odd(format!("{}: {fault}", patient.server))),
    };
    let head = &answer.head;
    let proxy = Proxy::of(head);
    match head.status {
        200 if answer.json()["status"] == "ok" => {}
        300..=399 => {
            let place = head.field("location").unwrap_or("nowhere");
            return Err(Verdict::fail(format!("it sends us on to {place}"), Mend::Moved));
        }
        status @ (502..=504) => {
            return Err(Verdict::fail(format!("the proxy answers {status}: it finds nobody behind it"), Mend::Nobody));
        }
        status => {
            let kind = head.field("content-type").unwrap_or("nothing that has a type");
            let words = format!("something else than Speak answers: {status}, {kind}");
            return Err(Verdict::fail(words, Mend::Stranger));
        }
    }
    let target = format!("/read?timeout=0&channel={}", secret_name()?);
    let answer = value(client.call(&Ask::get(&target), ANSWER_TIME), "GET /read")?;
    let Some(epoch) = answer["epoch"].as_str() else {
        return Err(Verdict::fail("/health is well, but /read is not that of Speak", Mend::Stranger));
    };
    let before = match proxy {
        Some(Proxy::Nginx) => ", behind nginx",
        Some(Proxy::Caddy) => ", behind Caddy",
        Some(Proxy::Cloudflare) => ", behind Cloudflare",
        _ => "",
    };
    Ok((Verdict::fine(format!("Speak answers at {}{before}; its epoch is {epoch}", patient.server)), proxy))
}

/// Whether the door is open that no proxy stands in.
pub(super) fn direct(patient: &Patient) -> Verdict {
    let port = patient.direct_port;
    let Some(server) = patient.server.beside(port).filter(|_| port != 0) else {
        return Verdict::skip("no direct door is asked for");
    };
    match &patient.server.place {
        Place::Tls(_) => return Verdict::skip("pages over https do not use the direct door"),
        Place::Plain(host) if host.port == port => return Verdict::fine("this is the direct door"),
        _ => {}
    }
    let answer = Client::new(server.clone(), Trust::Checked).call(&Ask::get("/image-test"), ANSWER_TIME);
    match answer {
        Ok(answer) if answer.head.status == 200 && answer.body.starts_with(b"GIF8") => {
            Verdict::fine(format!("{server} is open"))
        }
        Ok(answer) => Verdict::warn(
            format!("{server} answers /image-test with {}, and no picture", answer.head.status),
            Mend::DirectDoor,
        ),
        Err(fault) => Verdict::warn(format!("{server} is closed: {fault}"), Mend::DirectDoor),
    }
}

/// How long a call takes.
pub(super) fn latency(client: &mut Client) -> Result<Verdict, Verdict> {
    let mut rounds = [Duration::ZERO; ROUNDS];
    for round in &mut rounds {
        let start = Instant::now();
        value(client.call(&Ask::get("/health"), ANSWER_TIME), "GET /health")?;
        *round = start.elapsed();
    }
    rounds.sort();
    let middle = rounds[ROUNDS / 2];
    let words = format!("a call takes {}, the middle one of {ROUNDS}", milliseconds(middle));
    Ok(if middle > ROUND_TRIP_MAX { Verdict::warn(words, Mend::Distance) } else { Verdict::fine(words) })
}

/// Whether the times of messages are those of this machine.
pub(super) fn clock(client: &mut Client) -> Result<Verdict, Verdict> {
    let channel = secret_name()?;
    let before = now_ms();
    let id = write(client, &channel, "what time is it?")?.to_string();
    let after = now_ms();
    let answer = call(client, "/read", &[("channel", &channel), ("from_id", &id), ("timeout", "0")])?;
    let Some(time) = answer["messages"][0]["time"].as_u64() else {
        return Ok(Verdict::skip("the server retains no messages that would tell its time"));
    };
    let (off, word) = if time < before { (before - time, "behind") } else { (time.saturating_sub(after), "ahead of") };
    if off <= CLOCK_MS_MAX {
        return Ok(Verdict::fine("the server's clock agrees with that of this machine"));
    }
    let words = format!("the server's clock is {} {word} that of this machine", spoken(off / 1000));
    Ok(Verdict::warn(words, Mend::Clock))
}

fn spoken(seconds: u64) -> String {
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
pub(super) fn keep_alive(client: &mut Client) -> Result<Verdict, Verdict> {
    client.close();
    let answer = client.call(&Ask::get("/health"), ANSWER_TIME);
    let minor = success(answer, "GET /health")?.head.minor;
    if client.is_kept() {
        return Ok(Verdict::fine(format!("HTTP/1.{minor}, and connections are kept")));
    }
    let words = "connections are closed after each answer: every call pays for a new one";
    Ok(Verdict::warn(words, Mend::KeepAlive))
}

//! The server that is looked at, and the calls that the checks make.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fix::Mend;
use super::verdict::Verdict;
use crate::cli::client::{Answer, Ask, Client, form};
use crate::cli::error::Fault;
use crate::cli::server_url::Server;
use crate::cli::tls::Trust;

/// Longest wait for an answer that waits for nothing.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(20);

/// Whom the checks look at, and with how much patience.
#[derive(Clone, Debug)]
pub(super) struct Patient {
    pub server: Server,
    pub trust: Trust,
    /// How long what should come at once may take.
    pub patience: Duration,
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

impl Patient {
    pub fn client(&self) -> Client {
        Client::new(self.server.clone(), self.trust)
    }

    /// Patience in the whole seconds that a read can ask for.
    pub fn patience_seconds(&self) -> u64 {
        whole_seconds(self.patience)
    }
}

pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000) as u64
}

/// A name that nobody else has.
pub(super) fn secret_name() -> Result<String, Verdict> {
    let bytes: [u8; 16] = random()?;
    Ok(bytes.iter().fold(String::from("doctor-"), |name, byte| format!("{name}{byte:02x}")))
}

pub(super) fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], Verdict> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| Verdict::odd(format!("this machine has no randomness: {error}")))?;
    Ok(bytes)
}

/// A call by a form, which has to succeed.
#[inline(never)]
pub(super) fn call(client: &mut Client, path: &str, pairs: &[(&str, &str)]) -> Result<Value, Verdict> {
    call_for(client, path, pairs, ANSWER_TIME)
}

/// The same, for a read that waits.
#[inline(never)]
pub(super) fn call_for(
    client: &mut Client,
    path: &str,
    pairs: &[(&str, &str)],
    within: Duration,
) -> Result<Value, Verdict> {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let answer = client.call(&Ask::form(path, &form(&pairs)), within);
    value(answer, &format!("POST {path}"))
}

/// What was answered as JSON, or a verdict about `what` was asked.
#[inline(never)]
pub(super) fn value(answer: Result<Answer, Fault>, what: &str) -> Result<Value, Verdict> {
    success(answer, what).map(|answer| answer.json())
}

/// The answer, if it is one of Speak's and no refusal.
#[inline(never)]
pub(super) fn success(answer: Result<Answer, Fault>, what: &str) -> Result<Answer, Verdict> {
    let answer = answer.map_err(|fault| Verdict::odd(format!("{what}: {fault}")))?;
    match answer.refusal() {
        None => Ok(answer),
        Some(why) if answer.head.status == 429 => Err(Verdict::fail(format!("{what}: {why}"), Mend::Rate)),
        Some(why) => Err(Verdict::odd(format!("{what}: {why}"))),
    }
}

#[inline(never)]
pub(super) fn write(client: &mut Client, channel: &str, message: &str) -> Result<u64, Verdict> {
    let answer = call(client, "/write", &[("channel", channel), ("message", message)])?;
    answer["id"].as_u64().ok_or_else(|| Verdict::odd("POST /write: an answer without an id"))
}

pub(super) fn introduce(client: &mut Client, channel: &str) -> Result<Identity, Verdict> {
    let answer = call(client, "/introduce", &[("channel", channel), ("message", "doctor")])?;
    match (answer["connection"].as_u64(), answer["auth"].as_str(), answer["id"].as_u64()) {
        (Some(connection), Some(auth), Some(id)) => {
            Ok(Identity { connection: connection.to_string(), auth: auth.to_owned(), id })
        }
        _ => Err(Verdict::odd("POST /introduce: an answer without a connection")),
    }
}

/// Waits until somebody waits on `channel`, but not for longer than is patient: what comes of it is seen later.
pub(super) fn await_reader(patient: &Patient, client: &mut Client, channel: &str) -> Result<(), Verdict> {
    let until = Instant::now() + patient.patience;
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

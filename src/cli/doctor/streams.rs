//! Reads that stay: event streams and `WebSocket`s.

use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use serde_json::Value;

use super::fix::Mend;
use super::target::{ANSWER_TIME, Target, random, seconds, secret_name, write};
use super::verdict::CheckResult;
use crate::cli::client::Client;
use crate::cli::error::ClientError;
use crate::cli::http::{Head, Request};
use crate::http::accept_key;

/// Events that have to arrive one by one.
const EVENTS: u32 = 3;

/// A stream that is listened to, with what has come of it.
struct Listener {
    client: Client,
    heard: Vec<u8>,
}

impl Listener {
    /// Listens until `wanted` has come.
    fn hear(&mut self, wanted: &str, until: Instant) -> Result<(), ClientError> {
        while !self.heard.windows(wanted.len()).any(|part| part == wanted.as_bytes()) {
            match self.client.piece(until)? {
                Some(piece) => self.heard.extend_from_slice(&piece),
                None => return Err(ClientError::ClosedMidResponse),
            }
        }
        Ok(())
    }

    /// Signs of life so far: lines that are a comment.
    fn heartbeats(&self) -> usize {
        self.heard.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b":")).count()
    }
}

/// Whether events come one by one, and the stream outlives a silence.
pub(super) fn stream(patient: &Target) -> Result<CheckResult, CheckResult> {
    let channel = secret_name()?;
    let target = format!("/read?channel={channel}");
    let mut listener = Listener { client: patient.client(), heard: Vec::new() };
    let mut writer = patient.client();
    let odd = |fault: ClientError| CheckResult::unexpected(format!("an event stream: {fault}"));
    let ask = Request { fields: &[("Accept", "text/event-stream")], ..Request::get(&target) };
    listener.client.send(&ask, ANSWER_TIME).map_err(odd)?;
    let soon = || Instant::now() + patient.prompt_timeout;
    let delayed = |what: &str| {
        let words = format!(
            "an event stream is held back: {what} did not come within {}",
            seconds(patient.prompt_timeout)
        );
        Ok(CheckResult::fail(words, Mend::Buffering))
    };
    match listener.client.head("GET", soon()) {
        Ok(head) if is_stream(&head) => {}
        Ok(head) if head.status == 429 => {
            return Ok(CheckResult::fail("an event stream is refused with 429", Mend::Rate));
        }
        Ok(head) => {
            let kind = head.field("content-type").unwrap_or("no type");
            return Ok(CheckResult::unexpected(format!(
                "an event stream is answered with {}, {kind}",
                head.status
            )));
        }
        Err(ClientError::Timeout) => return delayed("its beginning"),
        Err(fault) => return Err(odd(fault)),
    }
    match listener.hear("id:", soon()) {
        Ok(()) => {}
        Err(ClientError::Timeout) => return delayed("its beginning"),
        Err(fault) => return Err(odd(fault)),
    }
    for number in 1..=EVENTS {
        let text = format!("event-{number}-of-{EVENTS}");
        write(&mut writer, &channel, &text)?;
        match listener.hear(&text, soon()) {
            Ok(()) => {}
            Err(ClientError::Timeout) => return delayed("an event"),
            Err(fault) => return Err(odd(fault)),
        }
    }
    let start = Instant::now();
    let signs = listener.heartbeats();
    if listener.hear("never", start + patient.wait) != Err(ClientError::Timeout) {
        let words = format!("a silent event stream is cut after {}", seconds(start.elapsed()));
        return Ok(CheckResult::fail(words, Mend::Cut));
    }
    let signs = listener.heartbeats() - signs;
    let silence = seconds(patient.wait);
    write(&mut writer, &channel, "still-there")?;
    match listener.hear("still-there", soon()) {
        Ok(()) => {}
        Err(ClientError::Timeout) => return delayed("an event after the silence"),
        Err(fault) => return Err(odd(fault)),
    }
    let words = match signs {
        0 => format!(
            "events come one by one, and {silence} of silence pass (too short for a sign of life)"
        ),
        _ => format!(
            "events come one by one, and {silence} of silence pass, with signs of life: {signs}"
        ),
    };
    Ok(CheckResult::ok(words))
}

fn is_stream(head: &Head) -> bool {
    head.status == 200
        && head.field("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
}

/// Whether an upgrade passes, and both sides are heard.
pub(super) fn websocket(patient: &Target) -> Result<CheckResult, CheckResult> {
    let channel = secret_name()?;
    let key = Base64::encode_string(&random::<16>()?);
    // Without the upgrade this is a plain read, which then ends soon.
    let target = format!("/read?timeout=1&channel={channel}");
    let mut client = patient.client();
    let odd = |fault: ClientError| CheckResult::unexpected(format!("a WebSocket: {fault}"));
    let fields = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", &key),
    ];
    client.send(&Request { fields: &fields, ..Request::get(&target) }, ANSWER_TIME).map_err(odd)?;
    let head = match client.head("GET", Instant::now() + ANSWER_TIME) {
        Ok(head) => head,
        Err(ClientError::ClosedBeforeResponse) => {
            return Ok(CheckResult::fail(
                "an upgrade to a WebSocket has the connection closed",
                Mend::Upgrade,
            ));
        }
        Err(fault) => return Err(odd(fault)),
    };
    if head.status == 429 {
        return Ok(CheckResult::fail("a WebSocket is refused with 429", Mend::Rate));
    }
    if head.status != 101 {
        let words =
            format!("an upgrade to a WebSocket is not passed on: {} in place of 101", head.status);
        return Ok(CheckResult::fail(words, Mend::Upgrade));
    }
    if head.field("sec-websocket-accept") != accept_key(key.as_bytes()).as_deref() {
        return Ok(CheckResult::unexpected(
            "a WebSocket is accepted by somebody who does not know its key",
        ));
    }
    let call = format!(r#"{{"call":"write","channel":"{channel}","message":"howdy","ref":1}}"#);
    let until = Instant::now() + patient.prompt_timeout;
    let late = |fault: ClientError| match fault {
        ClientError::Timeout => {
            CheckResult::fail("a WebSocket opens, but its frames do not arrive", Mend::Upgrade)
        }
        fault => odd(fault),
    };
    client.send_raw(&masked(call.as_bytes(), random()?), until).map_err(late)?;
    let (mut is_answered, mut is_delivered) = (false, false);
    while !(is_answered && is_delivered) {
        let frame = frame(&mut client, until).map_err(late)?;
        is_answered |= frame["ref"] == 1 && frame["id"].is_u64();
        is_delivered |= frame["messages"][0]["message"] == "howdy";
    }
    // Closing without a word is rude, and no fault: the server learns it from TCP.
    let _ = client.send_raw(&[0x88, 0x80, 0, 0, 0, 0], Instant::now() + Duration::from_secs(1));
    Ok(CheckResult::ok("an upgrade to a WebSocket passes, and frames come and go"))
}

/// A text frame, as clients send them (RFC 6455, section 5.2). `text` has under 64 KiB.
fn masked(text: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x81];
    // The high bit says that it is masked.
    if let Ok(length @ 0..=125) = u8::try_from(text.len()) {
        frame.push(0x80 | length);
    } else {
        frame.push(0xfe);
        frame.extend((text.len() as u16).to_be_bytes());
    }
    frame.extend(mask);
    frame.extend(text.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The next frame with text of the server, as JSON; others are passed over.
fn frame(client: &mut Client, until: Instant) -> Result<Value, ClientError> {
    let mut received = client.raw(until)?;
    loop {
        if let [first, second, rest @ ..] = &received[..] {
            let (length, rest) = match (second & 0x7f, rest) {
                (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
                (127, _) => return Err(ClientError::TooLarge),
                (126, _) => (usize::MAX, rest),
                (length, rest) => (usize::from(length), rest),
            };
            if rest.len() >= length {
                let value = serde_json::from_slice(&rest[..length]).unwrap_or_default();
                let is_text = first & 0x0f == 1;
                let left = rest[length..].to_vec();
                client.put_back(left);
                if is_text {
                    return Ok(value);
                }
                received = client.raw(until)?;
                continue;
            }
        }
        received.extend(client.raw(until)?);
    }
}

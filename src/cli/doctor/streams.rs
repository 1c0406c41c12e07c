//! Checks of streams: event streams and `WebSocket`s.

use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use serde_json::Value;

use super::check_result::CheckResult;
use super::fix::Fix;
use super::target::{RESPONSE_TIMEOUT, Target, random, random_channel, seconds, write};
use crate::cli::client::Client;
use crate::cli::error::ClientError;
use crate::cli::http::{Head, Request};
use crate::http::accept_key;

/// Events that must arrive one by one.
const EVENTS: u32 = 3;

/// A client with an event stream.
struct StreamReader {
    client: Client,
    /// The stream so far.
    received: Vec<u8>,
    /// Time for anything that should arrive at once.
    prompt_timeout: Duration,
}

impl StreamReader {
    /// Opens an event stream, and waits for its first id.
    fn open(target: &Target, channel: &str) -> Result<Self, CheckResult> {
        let path = format!("/read?channel={channel}");
        let fields = [("Accept", "text/event-stream")];
        let mut client = target.client();
        client
            .send(&Request { fields: &fields, ..Request::get(&path) }, RESPONSE_TIMEOUT)
            .map_err(|error| unexpected_stream(&error))?;
        let prompt_timeout = target.prompt_timeout;
        let mut reader = Self { client, received: Vec::new(), prompt_timeout };
        match reader.client.read_head("GET", Instant::now() + prompt_timeout) {
            Ok(head) if is_stream(&head) => {}
            Ok(head) if head.status == 429 => {
                let text = "an event stream is rejected with 429";
                return Err(CheckResult::fail(text, Fix::RateLimited));
            }
            Ok(head) => {
                let status = head.status;
                let content_type = head.field("content-type").unwrap_or("no content type");
                let text = format!("an event stream is answered with {status}, {content_type}");
                return Err(CheckResult::unexpected(text));
            }
            Err(error) => return Err(reader.stream_error(&error, "its start")),
        }
        reader.expect("id:", "its start")?;
        Ok(reader)
    }

    /// Waits until the stream has `wanted`. Failures call it `name`.
    fn expect(&mut self, wanted: &str, name: &str) -> Result<(), CheckResult> {
        self.wait_for(wanted, Instant::now() + self.prompt_timeout)
            .map_err(|error| self.stream_error(&error, name))
    }

    fn stream_error(&self, error: &ClientError, name: &str) -> CheckResult {
        if *error != ClientError::Timeout {
            return unexpected_stream(error);
        }
        let limit = seconds(self.prompt_timeout);
        let text = format!("an event stream is delayed: {name} did not arrive within {limit}");
        CheckResult::fail(text, Fix::StreamBuffered)
    }

    fn wait_for(&mut self, wanted: &str, until: Instant) -> Result<(), ClientError> {
        while !self.received.windows(wanted.len()).any(|part| part == wanted.as_bytes()) {
            match self.client.next_chunk(until)? {
                Some(chunk) => self.received.extend_from_slice(&chunk),
                None => return Err(ClientError::ClosedMidResponse),
            }
        }
        Ok(())
    }

    /// Returns the number of heartbeats so far. A heartbeat is a comment.
    fn heartbeats(&self) -> usize {
        self.received.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b":")).count()
    }
}

fn unexpected_stream(error: &ClientError) -> CheckResult {
    CheckResult::unexpected(format!("an event stream: {error}"))
}

fn is_stream(head: &Head) -> bool {
    head.status == 200
        && head.field("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
}

/// Checks that events arrive one by one, and that the stream survives silence.
pub(super) fn stream(target: &Target) -> Result<CheckResult, CheckResult> {
    let channel = random_channel()?;
    let mut reader = StreamReader::open(target, &channel)?;
    let mut writer = target.client();
    for number in 1..=EVENTS {
        let text = format!("event-{number}-of-{EVENTS}");
        write(&mut writer, &channel, &text)?;
        reader.expect(&text, "an event")?;
    }
    let start = Instant::now();
    let heartbeats = reader.heartbeats();
    if reader.wait_for("never", start + target.wait) != Err(ClientError::Timeout) {
        let text = format!("an idle event stream is cut after {}", seconds(start.elapsed()));
        return Ok(CheckResult::fail(text, Fix::StreamCut));
    }
    let heartbeats = reader.heartbeats() - heartbeats;
    write(&mut writer, &channel, "still-there")?;
    reader.expect("still-there", "an event after silence")?;
    let silence = seconds(target.wait);
    let text = match heartbeats {
        0 => format!(
            "events arrive one by one, and {silence} of silence pass (too short for a heartbeat)"
        ),
        _ => format!(
            "events arrive one by one, and {silence} of silence pass, with heartbeats: {heartbeats}"
        ),
    };
    Ok(CheckResult::ok(text))
}

/// Checks that an upgrade passes, and frames in both directions.
pub(super) fn websocket(target: &Target) -> Result<CheckResult, CheckResult> {
    let channel = random_channel()?;
    let mut client = target.client();
    upgrade(&mut client, &channel)?;
    let call = format!(r#"{{"call":"write","channel":"{channel}","message":"howdy","ref":1}}"#);
    let until = Instant::now() + target.prompt_timeout;
    let frame_error = |error: ClientError| match error {
        ClientError::Timeout => {
            let text = "a WebSocket opens, but its frames do not arrive";
            CheckResult::fail(text, Fix::UpgradeBlocked)
        }
        error => unexpected_socket(&error),
    };
    client.send_raw(&masked_frame(call.as_bytes(), random()?), until).map_err(frame_error)?;
    let (mut is_answered, mut is_delivered) = (false, false);
    while !(is_answered && is_delivered) {
        let frame = read_frame(&mut client, until).map_err(frame_error)?;
        is_answered |= frame["ref"] == 1 && frame["id"].is_u64();
        is_delivered |= frame["messages"][0]["message"] == "howdy";
    }
    // If the Close frame cannot be sent, the server notices the end of the TCP connection.
    let _ = client.send_raw(&[0x88, 0x80, 0, 0, 0, 0], Instant::now() + Duration::from_secs(1));
    Ok(CheckResult::ok("an upgrade to a WebSocket passes, and frames arrive in both directions"))
}

/// Upgrades the connection of `client` to a WebSocket that reads `channel`.
fn upgrade(client: &mut Client, channel: &str) -> Result<(), CheckResult> {
    let key = Base64::encode_string(&random::<16>()?);
    // Without the upgrade this is a read, and the timeout ends it soon.
    let path = format!("/read?timeout=1&channel={channel}");
    let fields = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", &key),
    ];
    let request = Request { fields: &fields, ..Request::get(&path) };
    client.send(&request, RESPONSE_TIMEOUT).map_err(|error| unexpected_socket(&error))?;
    let head = match client.read_head("GET", Instant::now() + RESPONSE_TIMEOUT) {
        Ok(head) => head,
        Err(ClientError::ClosedBeforeResponse) => {
            let text = "the connection is closed instead of upgraded to a WebSocket";
            return Err(CheckResult::fail(text, Fix::UpgradeBlocked));
        }
        Err(error) => return Err(unexpected_socket(&error)),
    };
    match head.status {
        101 => {}
        429 => {
            return Err(CheckResult::fail("a WebSocket is rejected with 429", Fix::RateLimited));
        }
        status => {
            let text = format!("an upgrade to a WebSocket is not forwarded: {status}, not 101");
            return Err(CheckResult::fail(text, Fix::UpgradeBlocked));
        }
    }
    if head.field("sec-websocket-accept") != accept_key(key.as_bytes()).as_deref() {
        return Err(CheckResult::unexpected("a WebSocket is accepted with the wrong key"));
    }
    Ok(())
}

fn unexpected_socket(error: &ClientError) -> CheckResult {
    CheckResult::unexpected(format!("a WebSocket: {error}"))
}

/// Returns a masked text frame, as clients send them (RFC 6455, section 5.2). `text` must be
/// shorter than 64 KiB.
fn masked_frame(text: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x81];
    // The high bit of the length marks a masked frame.
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

/// Returns the JSON of the next text frame. Skips other frames.
fn read_frame(client: &mut Client, until: Instant) -> Result<Value, ClientError> {
    let mut received = client.read_raw(until)?;
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
                client.unread(left);
                if is_text {
                    return Ok(value);
                }
                received = client.read_raw(until)?;
                continue;
            }
        }
        received.extend(client.read_raw(until)?);
    }
}

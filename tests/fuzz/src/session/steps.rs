//! The steps, and how an input spells them.
//!
//! A step is a letter, the digit of a client if one acts, and its choices. `w0010hello` and a line
//! feed have client 0 write to the first channel as the first session, in the plainest style; an
//! `s` sends any bytes up to a NUL.

use serde_json::{Map, Value};
use support::{http, ws};

use super::super::source::Source;
use super::client::{Delivered, State};
use super::settings::{EPOCH, LISTED};
use super::world::{CLIENTS, World};

const STEPS: &[u8] = b"wigrmcopskftdbla";

/// Takes one step.
pub(super) fn step(world: &mut World, source: &mut Source<'_>) {
    let step = source.key(STEPS);
    match step {
        b't' => return pass(world, source),
        b'd' => return world.stop_or_turn(source),
        _ => {}
    }
    let place = source.below(CLIENTS);
    match step {
        b'w' => say(world, source, place, "write"),
        b'i' => say(world, source, place, "introduce"),
        b'g' => say(world, source, place, "goodbye"),
        b'r' => read(world, source, place),
        b'm' => {
            let mut call = Call::new("members");
            call.channels.push(channel(world, source));
            let style = source.below(STYLES);
            call.send(world, place, style);
        }
        b'c' => {
            let name = source.pick(&["create", "health"]);
            let style = source.below(STYLES);
            Call::new(name).send(world, place, style);
        }
        b'o' => {
            let method = source.pick(&["GET", "HEAD", "OPTIONS", "POST", "PUT", "get"]);
            let target = String::from_utf8_lossy(source.line()).into_owned();
            let more = source.pick(&[
                "",
                "Accept-Encoding: gzip\r\n",
                "If-None-Match: *\r\n",
                "Content-Length: 3\r\n",
            ]);
            world.send(
                place,
                format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n").as_bytes(),
            );
        }
        b'p' => world.client(place).piece_bytes = source.below(64),
        b's' => {
            let bytes = source.up_to(0);
            world.send(place, bytes);
        }
        b'k' => world.close(place),
        b'f' => {
            let first = source.pick(&[0x81, 0x01, 0x80, 0x00, 0x88, 0x89, 0x8a]);
            world.send(place, &ws::client_frame(first, source.up_to(0)));
        }
        b'b' => world.block(place),
        b'a' => world.pause(place),
        b'l' => go_on(world, source, place),
        _ => unreachable!("a letter of STEPS"),
    }
}

/// Ends the turn, and lets some time pass.
fn pass(world: &mut World, source: &mut Source<'_>) {
    let until = world.until_deadline();
    let ms = match source.below(10) {
        0 => 0,
        1 => 1,
        2 => until,
        3 => until.saturating_sub(1),
        4 => until + 1,
        5 => 29,
        6 => 1_000,
        7 => 5_000,
        8 => 60_000,
        _ => 700_000,
    };
    world.turn(ms);
}

impl World {
    fn stop_or_turn(&mut self, source: &mut Source<'_>) {
        if source.below(10) == 9 { self.stop() } else { self.turn(0) }
    }
}

/// Chooses a channel name. Private pairs come after the public names.
fn channel(world: &World, source: &mut Source<'_>) -> String {
    let place = source.below(64);
    match place {
        0 => "a".to_owned(),
        1 => "b".to_owned(),
        2 => "c d&\u{2028}\"".to_owned(),
        3 => "~bad".to_owned(),
        4 => String::new(),
        5 => "x".repeat(129),
        16.. => format!("n{place}"),
        _ => {
            let pair = world.pairs.get((place - 6) / 2);
            let pair = pair.cloned().unwrap_or_else(|| ("d".to_owned(), "e".to_owned()));
            if place.is_multiple_of(2) { pair.0 } else { pair.1 }
        }
    }
}

/// Chooses the caller: anonymous, a session, or an impostor.
fn identity(world: &World, source: &mut Source<'_>) -> Option<(String, String)> {
    let wrong = || "x".repeat(22);
    match source.below(10) {
        0 => None,
        9 => Some(("1".to_owned(), wrong())),
        8 => Some(("99".to_owned(), wrong())),
        place => {
            let identity = world.identities.get(place - 1).or(world.identities.last());
            Some(
                identity.map_or(("0".to_owned(), wrong()), |it| {
                    (it.session.to_string(), it.auth.clone())
                }),
            )
        }
    }
}

fn say(world: &mut World, source: &mut Source<'_>, place: usize, name: &'static str) {
    let mut call = Call::new(name);
    call.channels.push(channel(world, source));
    call.identity = identity(world, source);
    let style = source.below(STYLES);
    let text = source.line();
    call.message = Some(String::from_utf8_lossy(text).into_owned());
    if name == "goodbye" {
        if text.starts_with(b"-") {
            call.channels.clear();
        }
        if text.len() < 2 {
            call.message = None;
        }
    }
    call.send(world, place, style);
}

fn read(world: &mut World, source: &mut Source<'_>, place: usize) {
    let mut call = Call::new("read");
    call.identity = identity(world, source);
    let style = source.below(STYLES);
    let how = source.key(b"pewt");
    let count = [1, 2, 3, 33][source.below(4)];
    let has_ids = source.below(2) == 1;
    for number in 0..count {
        let name = if number < 3 { channel(world, source) } else { format!("n{number}") };
        if has_ids {
            let last_id = speak::hub::ChannelName::parse(&name)
                .ok()
                .and_then(|name| name.for_reading().ok())
                .map_or(0, |log| world.knowledge.last_id(log.as_str()));
            call.from_ids.push(match source.below(10) {
                0 => "0".to_owned(),
                1 => "1".to_owned(),
                2 => "-1".to_owned(),
                3 => (last_id + 1).to_string(),
                4 => last_id.to_string(),
                5 => (last_id + 2).to_string(),
                6 => "-3".to_owned(),
                7 => "9007199254740991".to_owned(),
                8 => "-9007199254740991".to_owned(),
                _ => "1.5".to_owned(),
            });
        }
        call.channels.push(name);
    }
    match how {
        b'e' => call.fields.push("Accept: text/event-stream".to_owned()),
        b'w' => call.fields.extend(ws::HANDSHAKE.map(|(name, value)| format!("{name}: {value}"))),
        b't' => call.timeout = Some(source.pick(&["0", "1", "60", "x"])),
        _ => {}
    }
    call.epoch = source.pick(&[None, Some(EPOCH), Some("other")]);
    call.send(world, place, style);
}

/// Cuts a client's event stream some events before the last, and resumes it.
fn go_on(world: &mut World, source: &mut Source<'_>, place: usize) {
    if matches!(&world.clients[place].state, State::Streaming { got: Delivered::Events(_), .. }) {
        world.close(place);
    }
    let lost = source.below(4);
    let Some(stream) = &mut world.client(place).last_stream else { return };
    let Some(last_event_id) = stream.cut(lost) else { return };
    let mut call = Call::new("read");
    call.channels = stream.reader.names().into_iter().map(str::to_owned).collect();
    call.fields.push("Accept: text/event-stream".to_owned());
    call.fields.push(format!("Last-Event-ID: {last_event_id}"));
    call.send(world, place, 0);
}

/// Number of ways to make a call.
const STYLES: usize = 11;

#[derive(Default)]
struct Call {
    name: &'static str,
    channels: Vec<String>,
    from_ids: Vec<String>,
    identity: Option<(String, String)>,
    message: Option<String>,
    timeout: Option<&'static str>,
    epoch: Option<&'static str>,
    /// Lines of the head, without their ends.
    fields: Vec<String>,
}

impl Call {
    fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// Sends the call: as a frame on a WebSocket, else as a request in the given style.
    fn send(mut self, world: &mut World, place: usize, style: usize) {
        if matches!(&world.client(place).state, State::Streaming { got: Delivered::Frames(_), .. })
        {
            let frame = self.frame(style);
            return world.send(place, &ws::client_frame(ws::TEXT, frame));
        }
        let mut body = None;
        match style {
            1 => body = Some(("application/x-www-form-urlencoded", self.query())),
            2 => body = self.message.take().map(|text| ("text/plain", text)),
            6 => self.fields.push(format!("Origin: {LISTED}")),
            7 => self.fields.push("Origin: http://evil\r\nSec-Fetch-Site: cross-site".to_owned()),
            5 => self.fields.push("Connection: keep-alive".to_owned()),
            8 => self.fields.push("Connection: close".to_owned()),
            10 => self.fields.push(
                "X-Forwarded-For: 192.0.2.7:80, nonsense, [2001:db8::1], 10.0.0.1".to_owned(),
            ),
            9 => body = Some(("application/x-www-form-urlencoded; charset=utf-8", self.query())),
            _ => {}
        }
        let version = if matches!(style, 4 | 5) { "1.0" } else { "1.1" };
        let method = if body.is_some() { "POST" } else { "GET" };
        let mut query = if matches!(style, 1 | 9) { "_=1".to_owned() } else { self.query() };
        if style == 3 {
            query += "&callback=$cb.x_1[0]";
        }
        let mut request = format!("{method} /{}?{query} HTTP/{version}\r\nHost: a\r\n", self.name);
        for field in &self.fields {
            request += field;
            request += "\r\n";
        }
        match body {
            None => request += "\r\n",
            Some((content_type, body)) if style == 9 => {
                request.extend([format!(
                    "Content-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
                )]);
                request.extend([format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())]);
            }
            Some((content_type, body)) => {
                request.extend([format!(
                    "Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )]);
            }
        }
        world.send(place, request.as_bytes());
    }

    fn query(&self) -> String {
        let mut pairs: Vec<_> = self.channels.iter().map(|name| ("channel", &**name)).collect();
        pairs.extend(self.from_ids.iter().map(|id| ("from_id", &**id)));
        if let Some((connection, auth)) = &self.identity {
            pairs.extend([("connection", &**connection), ("auth", &**auth)]);
        }
        pairs.extend(self.message.iter().map(|text| ("message", &**text)));
        pairs.extend(self.timeout.iter().map(|timeout| ("timeout", *timeout)));
        pairs.extend(self.epoch.iter().map(|epoch| ("epoch", *epoch)));
        http::form(&pairs)
    }

    fn frame(&self, style: usize) -> String {
        let mut frame = Map::new();
        let mut put = |name: &str, value: Value| drop(frame.insert(name.to_owned(), value));
        let several = |values: &[String]| match values {
            [one] => Value::from(&**one),
            several => Value::from(several),
        };
        put("call", Value::from(self.name));
        if !self.channels.is_empty() {
            put("channel", several(&self.channels));
        }
        if !self.from_ids.is_empty() {
            put("from_id", several(&self.from_ids));
        }
        if let Some((connection, auth)) = &self.identity {
            let number: u64 = connection.parse().expect("a number");
            put(
                "connection",
                if style == 1 { Value::from(&**connection) } else { Value::from(number) },
            );
            put("auth", Value::from(&**auth));
        }
        if let Some(text) = &self.message {
            put("message", Value::from(&**text));
        }
        if let Some(epoch) = self.epoch {
            put("epoch", Value::from(epoch));
        }
        match style {
            2 => put("ref", Value::from(1)),
            3 => put("ref", Value::from("one\u{2028}\"")),
            4 => put("ref", Value::Null),
            5 => put("ref", Value::from(-1.5e300)),
            _ => {}
        }
        Value::Object(frame).to_string()
    }
}

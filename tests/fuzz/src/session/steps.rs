//! The steps, and how an input spells them.
//!
//! A step is a letter, the digit of a client if one acts, and its choices. `w0010hello` and a line
//! feed have client 0 write to the first channel as the first session, in the plainest style; an
//! `s` sends any bytes up to a NUL.

use serde_json::{Map, Value};
use support::{http, ws};

use super::super::source::Source;
use super::settings::{EPOCH, LISTED};
use super::world::{CLIENTS, Delivered, State, World};

const STEPS: &[u8] = b"wigrmcopskftdblaxq";

pub(super) fn step(world: &mut World, source: &mut Source<'_>) {
    let step = source.key(STEPS);
    match step {
        b't' => return pass(world, source),
        b'd' if source.below(10) == 9 => return world.stop(),
        b'd' => return world.turn(0),
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
            call.params.push(("channel", channel(world, source)));
            let style = source.below(STYLES);
            let last = world.identities.len().to_string();
            let numbers =
                [None, Some("0"), Some("1"), Some("2"), Some("-1"), Some("x"), Some(&*last)];
            let after = source.pick(&numbers);
            call.params.extend(after.map(|number| ("from", number.to_owned())));
            call.send(world, place, style);
        }
        b'c' => {
            let (name, kind) = source.pick(&[
                ("create", None),
                ("health", None),
                ("create", Some("feed")),
                ("create", Some("room")),
                ("create", Some("inbox")),
                ("create", Some("other")),
            ]);
            let style = source.below(STYLES);
            let mut call = Call::new(name);
            call.params.extend(kind.map(|kind| ("kind", kind.to_owned())));
            call.send(world, place, style);
        }
        b'x' => {
            let mut call = Call::new("remove");
            let name = channel(world, source);
            let last_id = speak::hub::ChannelName::parse(&name)
                .map_or(0, |name| world.knowledge.last_id(name.key().as_str()));
            let back = (source.below(10) as u64).cast_signed();
            let id = if back < 8 { last_id.cast_signed() - back } else { back - 8 };
            call.params.extend([("channel", name), ("id", id.to_string())]);
            let style = source.below(STYLES);
            call.send(world, place, style);
        }
        b'q' => {
            let mut call = Call::new("kick");
            call.params.push(("channel", channel(world, source)));
            call.params.push(("connection", source.below(10).to_string()));
            let seconds = source.pick(&[None, Some("0"), Some("1"), Some("300"), Some("86401")]);
            call.params.extend(seconds.map(|seconds| ("seconds", seconds.to_owned())));
            let text = source.pick(&[None, Some(""), Some("enough")]);
            call.params.extend(text.map(|text| ("message", text.to_owned())));
            let style = source.below(STYLES);
            call.send(world, place, style);
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
    let before = until.saturating_sub(1);
    world.turn(source.pick(&[0, 1, until, before, until + 1, 29, 1_000, 5_000, 60_000, 700_000]));
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
fn credentials(world: &World, source: &mut Source<'_>) -> Vec<Param> {
    let wrong = || "x".repeat(22);
    let (number, auth) = match source.below(10) {
        0 => return Vec::new(),
        9 => (1, wrong()),
        8 => (99, wrong()),
        place => {
            let identity = world.identities.get(place - 1).or(world.identities.last());
            identity.map_or((0, wrong()), |it| (it.session, it.auth.clone()))
        }
    };
    vec![("connection", number.to_string()), ("auth", auth)]
}

fn say(world: &mut World, source: &mut Source<'_>, place: usize, name: &'static str) {
    let mut call = Call::new(name);
    let channel = channel(world, source);
    call.params.extend(credentials(world, source));
    let style = source.below(STYLES);
    let text = source.line();
    let is_goodbye = name == "goodbye";
    if !is_goodbye || !text.starts_with(b"-") {
        call.params.push(("channel", channel));
    }
    if !is_goodbye || text.len() >= 2 {
        call.params.push(("message", String::from_utf8_lossy(text).into_owned()));
    }
    call.send(world, place, style);
}

fn read(world: &mut World, source: &mut Source<'_>, place: usize) {
    let mut call = Call::new("read");
    call.params.extend(credentials(world, source));
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
            let [last, next, ahead] = [0, 1, 2].map(|more| (last_id + more).to_string());
            let most = ["9007199254740991", "-9007199254740991"];
            let ids = ["0", "1", "-1", &next, &last, &ahead, "-3", most[0], most[1], "1.5"];
            call.params.push(("from_id", source.pick(&ids).to_owned()));
        }
        call.params.push(("channel", name));
    }
    match how {
        b'e' => call.fields.push("Accept: text/event-stream".to_owned()),
        b'w' => call.fields.extend(ws::HANDSHAKE.map(|(name, value)| format!("{name}: {value}"))),
        b't' => call.params.push((TIMEOUT, source.pick(&["0", "1", "60", "x"]).to_owned())),
        _ => {}
    }
    let epoch = source.pick(&[None, Some(EPOCH), Some("other")]);
    call.params.extend(epoch.map(|epoch| ("epoch", epoch.to_owned())));
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
    call.params.extend(stream.reader.names().into_iter().map(|name| ("channel", name.to_owned())));
    call.fields.push("Accept: text/event-stream".to_owned());
    call.fields.push(format!("Last-Event-ID: {last_event_id}"));
    call.send(world, place, 0);
}

/// Number of ways to make a call.
const STYLES: usize = 11;

type Param = (&'static str, String);

/// Parameter that frames do not have.
const TIMEOUT: &str = "timeout";

struct Call {
    name: &'static str,
    params: Vec<Param>,
    /// Lines of the head, without their ends.
    fields: Vec<String>,
}

impl Call {
    fn new(name: &'static str) -> Self {
        Self { name, params: Vec::new(), fields: Vec::new() }
    }

    /// Sends the call: as a frame on a WebSocket, else as a request in the given style.
    fn send(mut self, world: &mut World, place: usize, style: usize) {
        if matches!(&world.client(place).state, State::Streaming { got: Delivered::Frames(_), .. })
        {
            let frame = self.frame(style);
            return world.send(place, &ws::client_frame(ws::TEXT, frame));
        }
        let text = self.params.iter().position(|(name, _)| *name == "message");
        let form = http::form(&self.params);
        let content = match (style, text) {
            (1, _) => Some(("application/x-www-form-urlencoded", form)),
            (2, Some(at)) => Some(("text/plain", self.params.remove(at).1)),
            (9, _) => Some(("application/x-www-form-urlencoded; charset=utf-8", form)),
            _ => None,
        };
        let field = match style {
            5 => "Connection: keep-alive",
            6 => &format!("Origin: {LISTED}"),
            7 => "Origin: http://evil\r\nSec-Fetch-Site: cross-site",
            8 => "Connection: close",
            10 => "X-Forwarded-For: 192.0.2.7:80, nonsense, [2001:db8::1], 10.0.0.1",
            _ => "",
        };
        self.fields.extend((!field.is_empty()).then(|| field.to_owned()));
        let method = if content.is_some() { "POST" } else { "GET" };
        let body = content.map_or_else(String::new, |(content_type, text)| {
            self.fields.push(format!("Content-Type: {content_type}"));
            let (framing, body) = match style {
                9 => (
                    "Transfer-Encoding: chunked".to_owned(),
                    format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()),
                ),
                _ => (format!("Content-Length: {}", text.len()), text),
            };
            self.fields.push(framing);
            body
        });
        let version = if matches!(style, 4 | 5) { "1.0" } else { "1.1" };
        let query = match style {
            1 | 9 => "_=1".to_owned(),
            3 => http::form(&self.params) + "&callback=$cb.x_1[0]",
            _ => http::form(&self.params),
        };
        // Each line of the head ends, also the last one.
        self.fields.push(String::new());
        let (name, fields) = (self.name, self.fields.join("\r\n"));
        let head = format!("{method} /{name}?{query} HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        world.send(place, (head + &body).as_bytes());
    }

    fn frame(&self, style: usize) -> String {
        let mut frame = Map::from_iter([("call".to_owned(), Value::from(self.name))]);
        for (name, value) in self.params.iter().filter(|(name, _)| *name != TIMEOUT) {
            let value = match *name {
                "connection" | "id" | "seconds" if style != 1 => {
                    Value::from(value.parse::<i64>().expect("a number"))
                }
                _ => Value::from(&**value),
            };
            match frame.get_mut(*name) {
                Some(Value::Array(values)) => values.push(value),
                Some(first) => *first = Value::from([first.take(), value]),
                None => _ = frame.insert((*name).to_owned(), value),
            }
        }
        let reference = match style {
            2 => Value::from(1),
            3 => Value::from("one\u{2028}\""),
            4 => Value::Null,
            5 => Value::from(-1.5e300),
            _ => return Value::Object(frame).to_string(),
        };
        frame.insert("ref".to_owned(), reference);
        Value::Object(frame).to_string()
    }
}

//! The calls and the hub with the clients around them: what `net` does, without sockets.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::{env, mem};

use serde_json::{Map, Value};
use speak::api::{Api, Context, Handled, Phase, RequestSource, Transport, WebSocket};
use speak::http::{self, Opcode, Parsed, Persistence, Progress};
use speak::hub::{
    ChannelName, Hub, Millis, Mode, Now, ReadRequest, ReadResult, ResumeBatch, Since, Wake,
};

use super::answer::{self, Head};
use super::asked::Asked;
use super::client::{Client, Delivered, State};
use super::events::StreamCheck;
use super::ledger::Ledger;
use super::part::Follows;
use super::settings::{self, MAX_BACKLOG, Settings};

pub(super) const CLIENTS: usize = 6;

/// Somebody introduced.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) connection: u64,
    pub(super) auth: String,
}

pub(super) struct World {
    pub(super) settings: Settings,
    hub: Hub,
    api: Api,
    now: Now,
    pub(super) clients: [Client; CLIENTS],
    last_number: u64,
    closed_this_turn: BTreeSet<u64>,
    is_stopping: bool,
    pub(super) ledger: Ledger,
    pub(super) identities: Vec<Identity>,
    /// Names that were made for somebody.
    pub(super) pairs: Vec<(String, String)>,
    out: Vec<u8>,
    diary: History,
}

/// With `SPEAK_FUZZ_TRACE` set, tells what happens in a session.
#[derive(Clone, Copy)]
struct History(bool);

impl History {
    fn note(self, who: u64, what: &str, bytes: &[u8]) {
        if self.0 {
            eprintln!("{who} {what}: {}", bytes.escape_ascii());
        }
    }
}

/// What a client reads of an answer.
struct Knowledge {
    asked: Asked,
    json: Option<Value>,
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        settings::reset_chance();
        let hub = Hub::new(settings.of_hub());
        let mut api = Api::new(settings.of_api(), &hub, settings::chance);
        let now = Now { mono: Millis(0), unix_ms: 1_763_802_330_123 };
        api.set_time(now);
        Self {
            settings,
            hub,
            api,
            now,
            clients: Default::default(),
            last_number: 0,
            closed_this_turn: BTreeSet::new(),
            is_stopping: false,
            ledger: Ledger::default(),
            identities: Vec::new(),
            pairs: Vec::new(),
            out: Vec::new(),
            diary: History(env::var_os("SPEAK_FUZZ_TRACE").is_some()),
        }
    }

    /// The client on this place, which comes anew where it has gone.
    pub(super) fn client(&mut self, place: usize) -> &mut Client {
        let client = &mut self.clients[place];
        if client.number == 0 || matches!(client.state, State::Closed) {
            self.last_number += 1;
            let last_track = client.last_track.take();
            *client = Client { number: self.last_number, last_track, ..Client::default() };
        }
        client
    }

    /// A client sends something.
    pub(super) fn send(&mut self, place: usize, bytes: &[u8]) {
        let size = match self.client(place).piece_bytes {
            0 => bytes.len().max(1),
            size => size,
        };
        self.diary.note(self.clients[place].number, "sends", bytes);
        for piece in bytes.chunks(size) {
            self.clients[place].held.extend_from_slice(piece);
            self.take(place);
        }
    }

    /// Takes what a client has sent, as far as that goes.
    fn take(&mut self, place: usize) {
        loop {
            let goes_on = match &self.clients[place].state {
                State::Reading => self.take_request(place),
                State::Following { stream, .. } if stream.transport == Transport::WebSocket => {
                    self.take_frame(place)
                }
                State::Following { .. } => {
                    self.clients[place].held.clear();
                    false
                }
                State::Waiting { .. } | State::Closed => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Tells whether there may be another.
    fn take_request(&mut self, place: usize) -> bool {
        let limits = self.api.limits();
        let Client { held, progress, number, .. } = &mut self.clients[place];
        if *progress == Progress::default() {
            let blank = http::leading_blank_lines(held);
            held.drain(..blank);
        }
        if held.is_empty() {
            return false;
        }
        let mut bytes = mem::take(held);
        let is_http_10 = bytes
            .split(|byte| *byte == b'\n')
            .next()
            .is_some_and(|line| line.trim_ascii_end().ends_with(b"HTTP/1.0"));
        let whole = if *progress == Progress::default() {
            http::parse_complete(&bytes, &limits)
        } else {
            None
        };
        let parsed = match whole {
            Some((request, length)) => Ok(Parsed::Complete(request, length)),
            None => http::parse(&mut bytes, progress, &limits),
        };
        self.out.clear();
        match parsed {
            Ok(Parsed::Complete(request, length)) => {
                let asked = Asked::of(&request, is_http_10);
                let closes = self.is_stopping || request.persistence == Persistence::Close;
                let address = IpAddr::from([10, 0, 0, place as u8 % 3]);
                let source = RequestSource {
                    address: Some(address.into()),
                    is_proxy: self.api.is_trusted(Some(address)),
                };
                let mut context =
                    Context { hub: &mut self.hub, now: self.now, source, token: *number };
                let outcome = self.api.handle(&mut context, &request, &mut self.out);
                bytes.drain(..length);
                self.clients[place].held = bytes;
                self.outcome(place, asked, outcome, closes)
            }
            Ok(Parsed::Incomplete { .. }) => {
                progress.compact(&mut bytes);
                *held = bytes;
                false
            }
            Err(reject) => {
                self.api.push_rejection(reject.into(), &mut self.out);
                self.diary.note(self.clients[place].number, "is refused", &self.out);
                let asked = Asked::default();
                let json = answer::check(&self.out, &asked, self.settings.has_list, true)
                    .expect("an error");
                assert!(json["error"].is_string());
                self.clients[place].state = State::Closed;
                false
            }
        }
    }

    fn outcome(&mut self, place: usize, asked: Asked, outcome: Handled, closes: bool) -> bool {
        self.diary.note(self.clients[place].number, "is answered", &self.out);
        match outcome {
            Handled::Responded(persistence) => {
                // What follows a handshake that failed may be no HTTP.
                let is_over = persistence == Persistence::Close;
                let json = answer::check(&self.out, &asked, self.settings.has_list, is_over);
                let has_failed = json.as_ref().is_some_and(|json| json["error"] == "bad_request");
                assert_eq!(is_over, closes || has_failed);
                let closes = is_over;
                if persistence == Persistence::PersistentIfAnnounced {
                    assert!(asked.is_http_10);
                }
                self.learn(Knowledge { asked, json });
                if closes {
                    self.clients[place].state = State::Closed;
                }
                !closes
            }
            Handled::LongPoll { reader, format, wait_ms } => {
                assert!(self.out.is_empty(), "who waits is not answered");
                assert!((1..=self.settings.poll_timeout_ms).contains(&wait_ms));
                let until = self.now.mono.after(wait_ms);
                let mut follows = Follows::of(&asked, false);
                follows.wait(&self.next_ids(&follows.channels), false);
                let asked = Box::new(asked);
                self.clients[place].state =
                    State::Waiting { reader, format, until, asked, follows, closes };
                false
            }
            Handled::Stream { reader, stream } => {
                let (head, rest) = Head::parse(&self.out);
                let told = match stream.transport {
                    Transport::Sse => {
                        head.check(&asked, self.settings.has_list);
                        assert_eq!(head.field("content-type"), Some("text/event-stream"));
                        assert_eq!((head.status, head.field("connection")), (200, Some("close")));
                        assert_eq!(head.field("content-length"), None);
                        let mut track = StreamCheck::new(Follows::of(&asked, true));
                        if asked.last_event_id.is_some()
                            && let Some(last) = &self.clients[place].last_track
                            && last.follows.channels == track.follows.channels
                            && last.clone().cut(0) == asked.last_event_id
                        {
                            track.is_open(last);
                        }
                        track.take(rest, &mut self.ledger);
                        track.wait(&self.next_ids(&track.follows.channels));
                        self.clients[place].last_track = None;
                        Delivered::Events(track)
                    }
                    Transport::WebSocket => {
                        assert_eq!((head.status, head.field("upgrade")), (101, Some("websocket")));
                        let mut follows = Follows::of(&asked, false);
                        let texts = texts(rest);
                        match texts[..] {
                            [] => follows.wait(&self.next_ids(&follows.channels), true),
                            [text] => follows.take(&answer::parse_json(text), &mut self.ledger),
                            _ => panic!("a socket begins with one answer at most"),
                        }
                        Delivered::Frames(follows)
                    }
                };
                let connection = asked.connection();
                self.clients[place].state =
                    State::Following { reader, stream, told, connection, fragments: None };
                self.clients[place].is_owed = true;
                self.resume(place);
                true
            }
        }
    }

    /// Remembers what an answer tells, and checks it against all that others tell.
    fn learn(&mut self, Knowledge { asked, json }: Knowledge) {
        let Some(json) = json.filter(|json| json.get("error").is_none()) else { return };
        let shown = || asked.connection();
        match &*asked.call {
            "write" => {
                let id = json["id"].as_u64().expect("an id");
                let text = asked.one("message").expect("it was accepted");
                self.ledger.write(&asked.log().expect("it was accepted"), id, text, shown());
            }
            "introduce" => {
                let connection = json["connection"].as_u64().expect("a number");
                let auth = json["auth"].as_str().expect("a secret").to_owned();
                let id = json["id"].as_u64().expect("an id");
                let text = asked.one("message").expect("it was accepted");
                self.ledger.write(
                    &asked.log().expect("it was accepted"),
                    id,
                    text,
                    Some(connection),
                );
                if let Some(shown) = shown() {
                    assert_eq!(shown, connection);
                } else {
                    assert_eq!(self.identities.len() as u64 + 1, connection, "numbers rise by one");
                    self.identities.push(Identity { connection, auth });
                }
            }
            "create" => {
                let name = |key: &str| json[key].as_str().expect("a name").to_owned();
                self.pairs.push((name("read"), name("write")));
            }
            "read" => Follows::of(&asked, false).take(&json, &mut self.ledger),
            "members" => {
                let members = json["members"].as_array().expect("members");
                assert!(members.is_sorted_by_key(|member| member["connection"].as_u64()));
                assert!(json["readers"].as_u64().expect("a count") <= CLIENTS as u64);
            }
            "goodbye" => assert_eq!(json["ok"], true),
            _ => {}
        }
    }

    /// Tells whether there may be another.
    fn take_frame(&mut self, place: usize) -> bool {
        let most = self.api.frame_bytes_max();
        let mut bytes = mem::take(&mut self.clients[place].held);
        let State::Following { fragments, .. } = &mut self.clients[place].state else {
            return false;
        };
        let room = most.saturating_sub(fragments.as_ref().map_or(0, Vec::len));
        let frame = match http::parse_frame(&mut bytes, room) {
            Err(_) => {
                self.close(place);
                return false;
            }
            Ok(None) => {
                self.clients[place].held = bytes;
                return false;
            }
            Ok(Some((frame, length))) => {
                let payload = frame.payload.to_vec();
                let (opcode, is_final) = (frame.opcode, frame.is_final);
                bytes.drain(..length);
                self.clients[place].held = bytes;
                (opcode, is_final, payload)
            }
        };
        let (opcode, is_final, payload) = frame;
        match opcode {
            Opcode::Ping | Opcode::Pong => return true,
            Opcode::Close => {
                self.close(place);
                return false;
            }
            Opcode::Text | Opcode::Continuation => {}
        }
        if fragments.is_some() != (opcode == Opcode::Continuation) {
            self.close(place);
            return false;
        }
        let mut text = fragments.take().unwrap_or_default();
        text.extend_from_slice(&payload);
        if !is_final {
            *fragments = Some(text);
            return true;
        }
        let Ok(text) = str::from_utf8(&text) else {
            self.close(place);
            return false;
        };
        self.call_in_frame(place, text);
        true
    }

    fn call_in_frame(&mut self, place: usize, text: &str) {
        let Client { state, number, .. } = &mut self.clients[place];
        let State::Following { reader, stream, told, .. } = state else {
            unreachable!("only a WebSocket has frames")
        };
        self.out.clear();
        // Calls in frames count for the client of the handshake, which `stream` remembers.
        let source = RequestSource::default();
        let mut context = Context { hub: &mut self.hub, now: self.now, source, token: *number };
        let mut socket = WebSocket { reader, stream };
        self.api.handle_frame(&mut context, text, &mut socket, &mut self.out);
        self.diary.note(*number, "is answered", &self.out);
        let texts = texts(&self.out);
        let [answer] = texts[..] else { panic!("a frame is answered by one") };
        let json = answer::parse_json(answer);
        let frame: Option<Map<String, Value>> = serde_json::from_str(text).ok();
        let reference = frame
            .as_ref()
            .and_then(|frame| frame.get("ref"))
            .filter(|it| it.is_string() || it.is_number());
        assert_eq!(json.get("ref"), reference, "an answer has the reference of its call");
        assert!(reference.is_none() || answer.starts_with(b"{\"ref\":"), "and has it first");
        assert!(json.get("error").is_none() || json["status"].as_u64() >= Some(400));
        let asked = frame.as_ref().map(Asked::of_frame).unwrap_or_default();
        if asked.call == "read" && json.get("error").is_none() {
            let mut follows = Follows::of(&asked, false);
            follows.take(&json, &mut self.ledger);
            *told = Delivered::Frames(follows);
            self.clients[place].is_owed = true;
            self.resume(place);
        } else {
            self.learn(Knowledge { asked, json: Some(json) });
        }
    }

    /// A client is gone.
    pub(super) fn close(&mut self, place: usize) {
        let client = &mut self.clients[place];
        self.diary.note(client.number, "closes", b"");
        match mem::replace(&mut client.state, State::Closed) {
            State::Waiting { reader, .. } => self.hub.on_reader_closed(self.now, reader),
            State::Following { reader, told, .. } => {
                self.hub.on_reader_closed(self.now, reader);
                if let Delivered::Events(track) = told {
                    client.last_track = Some(track);
                }
            }
            State::Reading | State::Closed => {}
        }
        self.closed_this_turn.insert(client.number);
    }

    /// A client takes nothing any more, or again.
    pub(super) fn block(&mut self, place: usize) {
        let client = self.client(place);
        client.backlog = if client.backlog.is_some() { None } else { Some(0) };
        self.resume(place);
    }

    /// A stream is told nothing more before it has taken what it was told.
    pub(super) fn put_off(&mut self, place: usize) {
        if let Client { state: State::Following { reader, .. }, is_owed, .. } =
            &mut self.clients[place]
        {
            self.hub.pause(*reader);
            *is_owed = true;
        }
    }

    /// Gives a stream that takes what it is told all that there is for it.
    fn resume(&mut self, place: usize) {
        let Self { hub, api, clients, ledger, diary, now, .. } = self;
        for _ in 0..10_000 {
            let client = &mut clients[place];
            let State::Following { reader, .. } = &client.state else { return };
            if client.backlog.is_some() {
                return;
            }
            let was_owed = client.is_owed;
            if !hub.resume(*now, *reader, &mut ResumeBatch::default(), |wake| {
                tell(api, client, ledger, *diary, &wake);
            }) {
                client.is_owed = false;
                return;
            }
            assert!(was_owed, "there is more, and nobody said so");
        }
        panic!("a stream that never comes to its end");
    }

    /// The end of a turn, and the beginning of the next.
    pub(super) fn turn(&mut self, passed_ms: u64) {
        self.end_turn();
        self.diary.note(0, "a turn ends, milliseconds", passed_ms.to_string().as_bytes());
        self.now.mono = self.now.mono.after(passed_ms);
        self.now.unix_ms += passed_ms;
        self.api.set_time(self.now);
        for place in 0..CLIENTS {
            // What was held while a read waited.
            self.take(place);
            self.resume(place);
        }
    }

    fn end_turn(&mut self) {
        for place in 0..CLIENTS {
            if let State::Waiting { reader, until, .. } = &self.clients[place].state
                && *until <= self.now.mono
            {
                self.hub.complete_empty(self.now, *reader);
            }
        }
        self.hub.expire(self.now);
        let deadline = self.hub.next_deadline();
        assert!(deadline.is_none_or(|deadline| deadline > self.now.mono), "what is due was done");
        self.deliver();
        self.api.end_turn();
        self.closed_this_turn.clear();
        self.check_census();
    }

    fn deliver(&mut self) {
        loop {
            let Self { hub, api, clients, ledger, settings, closed_this_turn, diary, .. } = self;
            hub.deliver(self.now, |wake| {
                let Some(place) = clients.iter().position(|client| client.number == wake.token)
                else {
                    assert!(closed_this_turn.contains(&wake.token), "somebody who is long gone");
                    return;
                };
                let client = &mut clients[place];
                match mem::take(&mut client.state) {
                    State::Waiting { format, asked, mut follows, closes, .. } => {
                        assert!(wake.is_last);
                        let (payload, persistence) = api.encode_reply(&wake, format.as_deref());
                        diary.note(wake.token, "is woken", payload.bytes());
                        let closes = closes || persistence == Persistence::Close;
                        let json =
                            answer::check(payload.bytes(), &asked, settings.has_list, closes);
                        assert_eq!(persistence == Persistence::Close, closes);
                        assert!(json.is_some(), "a read is answered in JSON");
                        client.state = if closes { State::Closed } else { State::Reading };
                        follows.take(&json.expect("seen above"), ledger);
                    }
                    state @ State::Following { .. } => {
                        client.state = state;
                        tell(api, client, ledger, *diary, &wake);
                    }
                    State::Closed if closed_this_turn.contains(&wake.token) => {
                        client.state = State::Closed;
                    }
                    State::Reading | State::Closed => panic!("it is woken who did not wait"),
                }
            });
            let is_cut = |client: &Client| client.backlog.is_some_and(|bytes| bytes > MAX_BACKLOG);
            let cut: Vec<_> = (0..CLIENTS)
                .filter(|place| {
                    is_cut(&self.clients[*place])
                        && matches!(self.clients[*place].state, State::Following { .. })
                })
                .collect();
            if cut.is_empty() {
                return;
            }
            for place in cut {
                self.close(place);
            }
        }
    }

    /// Streams that take what they are told have been told all that there is.
    fn check_streams(&mut self) {
        let mut known = Vec::new();
        for client in self.clients.iter().filter(|client| client.backlog.is_none()) {
            let State::Following { told, .. } = &client.state else { continue };
            let cursors: Box<dyn Iterator<Item = _>> = match told {
                Delivered::Events(track) => Box::new(track.next_ids()),
                Delivered::Frames(follows) => Box::new(follows.next_ids()),
            };
            known.extend(cursors.map(|(channel, cursor)| (channel.to_owned(), cursor)));
        }
        for (channel, cursor) in known {
            assert_eq!(self.next_ids(&[channel]), [cursor], "a stream has not been told all");
        }
    }

    /// The id that comes next in each channel that somebody reads, and has used just now.
    fn next_ids(&mut self, channels: &[String]) -> Vec<u64> {
        let next_id = |channel: &String| {
            let log = ChannelName::parse(channel)
                .expect("it was accepted")
                .for_reading()
                .expect("it was accepted");
            let targets = &[(log, Since::Now)];
            let call = ReadRequest {
                targets,
                epoch: None,
                credentials: None,
                mode: Mode::Immediate,
                token: 0,
            };
            let Ok(ReadResult::Ready(reply)) = self.hub.read(self.now, &call) else {
                panic!("it is answered")
            };
            reply.slices()[0].next_id()
        };
        channels.iter().map(next_id).collect()
    }

    fn waiting(&self) -> usize {
        let waits = |client: &&Client| {
            matches!(client.state, State::Waiting { .. } | State::Following { .. })
        };
        self.clients.iter().filter(waits).count()
    }

    fn check_census(&self) {
        let census = self.hub.gauges();
        assert_eq!(census.readers, self.waiting(), "reads that wait");
        let kept = self.clients.iter().filter_map(|client| match &client.state {
            State::Waiting { asked, .. } => asked.connection(),
            State::Following { connection, .. } => *connection,
            State::Reading | State::Closed => None,
        });
        let kept = kept.collect::<BTreeSet<_>>().len();
        assert!(
            (kept..=self.identities.len()).contains(&census.sessions),
            "who reads with a connection has it"
        );
        let max = self.settings.max_channels;
        assert!(max == 0 || census.channels <= max, "{census:?}");
        assert!(census.timers <= census.channels + census.sessions, "{census:?}");
    }

    /// The server stops: everybody who waits is told.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.api.set_phase(Phase::Stopping);
        self.hub.complete_all_empty(self.now);
        self.turn(0);
        assert_eq!(self.hub.gauges().readers, self.waiting());
    }

    /// Everybody goes, and time passes until nothing is left to do.
    pub(super) fn finish(&mut self) {
        self.end_turn();
        (0..CLIENTS).for_each(|place| self.resume(place));
        self.check_streams();
        for place in 0..CLIENTS {
            self.clients[place].held.clear();
            self.close(place);
        }
        self.turn(0);
        for _ in 0..10_000 {
            let Some(deadline) = self.hub.next_deadline() else { break };
            let ms = deadline.0 - self.now.mono.0.min(deadline.0);
            self.turn(ms);
        }
        self.turn(0);
        let census = self.hub.gauges();
        let held = self.hub.memory();
        let nothing = [
            census.channels,
            census.sessions,
            census.readers,
            census.timers,
            census.messages,
            held,
        ];
        assert_eq!(nothing, [0; 6], "all have gone");
        self.ledger.check_goodbyes();
    }

    /// A millisecond before, at, or behind the moment when the hub is due.
    pub(super) fn until_deadline(&self) -> u64 {
        self.hub.next_deadline().map_or(0, |deadline| deadline.0.saturating_sub(self.now.mono.0))
    }
}

/// A stream is told something, or that it ends.
fn tell(api: &mut Api, client: &mut Client, ledger: &mut Ledger, diary: History, wake: &Wake<'_>) {
    let State::Following { stream, told, .. } = &mut client.state else {
        unreachable!("it is a stream")
    };
    let payload = api.encode_update(wake, stream);
    let bytes = payload.bytes();
    diary.note(client.number, "is told", bytes);
    if let Some(backlog) = &mut client.backlog {
        *backlog += bytes.len();
    }
    match told {
        Delivered::Events(track) => track.take(bytes, ledger),
        Delivered::Frames(follows) if !wake.is_last => {
            let texts = texts(bytes);
            assert_eq!(texts.len(), 1, "a frame for each answer");
            follows.take(&answer::parse_json(texts[0]), ledger);
        }
        Delivered::Frames(_) => assert_eq!((bytes.len(), bytes[0]), (4, 0x88), "a farewell"),
    }
    client.is_owed = wake.has_more;
    if wake.is_last {
        assert!(bytes.is_empty() || matches!(told, Delivered::Frames(_)));
        client.state = State::Closed;
    }
}

/// The texts in frames of the server.
fn texts(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut texts) = (bytes, Vec::new());
    while let [first, short, after @ ..] = rest {
        assert_eq!(*first, 0x81, "a text in one frame");
        let (length, after) = match *short {
            126 => (u16::from_be_bytes([after[0], after[1]]) as usize, &after[2..]),
            127 => (
                u64::from_be_bytes(after[..8].try_into().expect("eight bytes")) as usize,
                &after[8..],
            ),
            short => (usize::from(short), after),
        };
        let (text, after) = after.split_at(length);
        texts.push(text);
        rest = after;
    }
    assert!(rest.is_empty());
    texts
}

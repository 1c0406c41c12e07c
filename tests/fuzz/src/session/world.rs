//! The calls and the hub with the clients around them: the part of the service, without sockets.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::{env, mem};

use serde_json::{Map, Value};
use speak::api::{Api, Context, Handled, Phase, RequestSource, Transport, WebSocket};
use speak::http::{self, Opcode, Parsed, Persistence, Progress};
use speak::hub::{
    ChannelName, Hub, Millis, Mode, Now, ReadRequest, ReadResult, ResumeBatch, Since, Wake,
};
use support::incoming::{self, Item};
use support::message::Kind;
use support::ws;

use super::asked::Asked;
use super::client::{Client, Delivered, State};
use super::knowledge::{Knowledge, StreamCheck, wait};
use super::responses::{self, check_head, items, parse_head, parse_json};
use super::settings::{self, MAX_BACKLOG, Settings};

pub(super) const CLIENTS: usize = 6;

/// An introduced session.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) session: u64,
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
    pub(super) knowledge: Knowledge,
    pub(super) identities: Vec<Identity>,
    /// Names of private pairs.
    pub(super) pairs: Vec<(String, String)>,
    out: Vec<u8>,
    history: History,
}

/// Prints the events of a session, if `SPEAK_FUZZ_TRACE` is set.
#[derive(Clone, Copy)]
struct History(bool);

impl History {
    fn note(self, who: u64, what: &str, bytes: &[u8]) {
        if self.0 {
            eprintln!("{who} {what}: {}", bytes.escape_ascii());
        }
    }
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
            knowledge: Knowledge::new(),
            identities: Vec::new(),
            pairs: Vec::new(),
            out: Vec::new(),
            history: History(env::var_os("SPEAK_FUZZ_TRACE").is_some()),
        }
    }

    /// Returns the client with this index; a new one if the last has closed.
    pub(super) fn client(&mut self, place: usize) -> &mut Client {
        let client = &mut self.clients[place];
        if client.number == 0 || matches!(client.state, State::Closed) {
            self.last_number += 1;
            let last_stream = client.last_stream.take();
            *client = Client { number: self.last_number, last_stream, ..Client::default() };
        }
        client
    }

    /// Sends bytes from a client.
    pub(super) fn send(&mut self, place: usize, bytes: &[u8]) {
        let size = match self.client(place).piece_bytes {
            0 => bytes.len().max(1),
            size => size,
        };
        self.history.note(self.clients[place].number, "sends", bytes);
        for piece in bytes.chunks(size) {
            self.clients[place].input.extend_from_slice(piece);
            self.take(place);
        }
    }

    /// Handles the input of a client, as far as possible.
    fn take(&mut self, place: usize) {
        loop {
            let continues = match &self.clients[place].state {
                State::Reading => self.take_request(place),
                State::Streaming { stream, .. } if stream.transport == Transport::WebSocket => {
                    self.take_frame(place)
                }
                State::Streaming { .. } => {
                    self.clients[place].input.clear();
                    false
                }
                State::LongPolling { .. } | State::Closed => false,
            };
            if !continues {
                return;
            }
        }
    }

    /// Handles one request. Returns whether there may be another.
    fn take_request(&mut self, place: usize) -> bool {
        let limits = self.api.limits();
        let Client { input, progress, number, .. } = &mut self.clients[place];
        if *progress == Progress::default() {
            let blank = http::leading_blank_lines(input);
            input.drain(..blank);
        }
        if input.is_empty() {
            return false;
        }
        let mut bytes = mem::take(input);
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
                self.clients[place].input = bytes;
                self.outcome(place, asked, outcome, closes)
            }
            Ok(Parsed::Incomplete { .. }) => {
                progress.compact(&mut bytes);
                *input = bytes;
                false
            }
            Err(reject) => {
                self.api.push_rejection(reject.into(), &mut self.out);
                self.history.note(self.clients[place].number, "is refused", &self.out);
                let asked = Asked::default();
                let json = responses::check(&self.out, &asked, self.settings.has_list, true)
                    .expect("an error");
                assert!(json["error"].is_string());
                self.clients[place].state = State::Closed;
                false
            }
        }
    }

    fn outcome(&mut self, place: usize, asked: Asked, outcome: Handled, closes: bool) -> bool {
        self.history.note(self.clients[place].number, "is answered", &self.out);
        match outcome {
            Handled::Responded(persistence) => {
                // Bytes after a failed handshake may be no HTTP.
                let is_over = persistence == Persistence::Close;
                let json = responses::check(&self.out, &asked, self.settings.has_list, is_over);
                let has_failed = json.as_ref().is_some_and(|json| json["error"] == "bad_request");
                assert_eq!(is_over, closes || has_failed);
                let closes = is_over;
                if persistence == Persistence::PersistentIfAnnounced {
                    assert!(asked.is_http_10);
                }
                if let Some(json) = &json {
                    self.learn(&asked, json);
                }
                if closes {
                    self.clients[place].state = State::Closed;
                }
                !closes
            }
            Handled::LongPoll { reader, format, wait_ms } => {
                assert!(self.out.is_empty(), "a pending read is not answered");
                assert!((1..=self.settings.poll_timeout_ms).contains(&wait_ms));
                let until = self.now.mono.after(wait_ms);
                let mut its = self.knowledge.reader(&asked, None);
                let next_ids = self.next_ids(&its.names());
                wait(&mut its, &next_ids, false);
                let asked = Box::new(asked);
                self.clients[place].state =
                    State::LongPolling { reader, format, until, asked, its, closes };
                false
            }
            Handled::Stream { reader, stream } => {
                let got = self.begin_stream(place, &asked, stream.transport);
                let session = asked.connection();
                self.clients[place].state =
                    State::Streaming { reader, stream, got, session, fragments: None };
                self.clients[place].has_more = true;
                self.resume(place);
                true
            }
        }
    }

    /// Checks the head of a stream and its first messages.
    fn begin_stream(&mut self, place: usize, asked: &Asked, transport: Transport) -> Delivered {
        let out = mem::take(&mut self.out);
        let (head, rest) = parse_head(&out);
        let mut its = self.knowledge.reader(asked, Some(transport));
        let next_ids = self.next_ids(&its.names());
        if transport == Transport::WebSocket {
            assert_eq!((head.status, head.field("upgrade")), (101, Some("websocket")));
            match texts(rest)[..] {
                [] => wait(&mut its, &next_ids, true),
                [text] => self.knowledge.take(&mut its, &parse_json(text)),
                _ => panic!("a socket begins with one answer at most"),
            }
            return Delivered::Frames(its);
        }
        check_head(&head, asked, self.settings.has_list);
        assert!(head.begins_events() && head.closes());
        assert_eq!(head.field("content-length"), None);
        let mut stream = StreamCheck::new(its);
        if asked.last_event_id.is_some()
            && let Some(last) = self.clients[place].last_stream.take()
            && last.reader.names() == stream.reader.names()
            && last.clone().cut(0) == asked.last_event_id
        {
            stream.resume(&last);
        }
        self.knowledge.take_events(&mut stream, rest);
        stream.wait(&next_ids);
        self.clients[place].last_stream = None;
        Delivered::Events(stream)
    }

    /// Checks a response against all responses of other clients.
    fn learn(&mut self, asked: &Asked, json: &Value) {
        if json.get("error").is_some() {
            return;
        }
        let shown = asked.connection();
        let number = |key: &str| json[key].as_u64().expect("a number");
        let text = |key: &str| json[key].as_str().expect("a text").to_owned();
        match &*asked.call {
            "write" => self.knowledge.answered(asked, json, Kind::Message, shown),
            "introduce" => {
                let session = number("connection");
                self.knowledge.answered(asked, json, Kind::Introduction, Some(session));
                if let Some(shown) = shown {
                    assert_eq!(shown, session);
                } else {
                    assert_eq!(self.identities.len() as u64 + 1, session, "numbers rise by one");
                    self.identities.push(Identity { session, auth: text("auth") });
                }
            }
            "create" => self.pairs.push((text("read"), text("write"))),
            "read" => {
                let mut reader = self.knowledge.reader(asked, None);
                self.knowledge.take(&mut reader, json);
            }
            "members" => {
                let members = json["members"].as_array().expect("members");
                assert!(members.is_sorted_by_key(|member| member["connection"].as_u64()));
                assert!(number("readers") <= CLIENTS as u64);
            }
            "goodbye" => assert_eq!(json["ok"], true),
            _ => {}
        }
    }

    /// Handles one frame. Returns whether there may be another.
    fn take_frame(&mut self, place: usize) -> bool {
        let most = self.api.frame_bytes_max();
        let mut bytes = mem::take(&mut self.clients[place].input);
        let State::Streaming { fragments, .. } = &mut self.clients[place].state else {
            return false;
        };
        let room = most.saturating_sub(fragments.as_ref().map_or(0, Vec::len));
        let frame = match http::parse_frame(&mut bytes, room) {
            Err(_) => {
                self.close(place);
                return false;
            }
            Ok(None) => {
                self.clients[place].input = bytes;
                return false;
            }
            Ok(Some((frame, length))) => {
                let payload = frame.payload.to_vec();
                let (opcode, is_final) = (frame.opcode, frame.is_final);
                bytes.drain(..length);
                self.clients[place].input = bytes;
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
        let State::Streaming { reader, stream, got, .. } = state else {
            unreachable!("only a WebSocket has frames")
        };
        self.out.clear();
        // Calls in frames count for the client of the handshake, which `stream` remembers.
        let source = RequestSource::default();
        let mut context = Context { hub: &mut self.hub, now: self.now, source, token: *number };
        let mut socket = WebSocket { reader, stream };
        self.api.handle_frame(&mut context, text, &mut socket, &mut self.out);
        self.history.note(*number, "is answered", &self.out);
        let texts = texts(&self.out);
        let [answer] = texts[..] else { panic!("a frame is answered by one") };
        let json = parse_json(answer);
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
            let mut its = self.knowledge.reader(&asked, Some(Transport::WebSocket));
            self.knowledge.take(&mut its, &json);
            *got = Delivered::Frames(its);
            self.clients[place].has_more = true;
            self.resume(place);
        } else {
            self.learn(&asked, &json);
        }
    }

    /// Closes a client.
    pub(super) fn close(&mut self, place: usize) {
        let client = &mut self.clients[place];
        self.history.note(client.number, "closes", b"");
        match mem::replace(&mut client.state, State::Closed) {
            State::LongPolling { reader, .. } => self.hub.on_reader_closed(self.now, reader),
            State::Streaming { reader, got, .. } => {
                self.hub.on_reader_closed(self.now, reader);
                if let Delivered::Events(stream) = got {
                    client.last_stream = Some(stream);
                }
            }
            State::Reading | State::Closed => {}
        }
        self.closed_this_turn.insert(client.number);
    }

    /// Makes a client read nothing, or everything again.
    pub(super) fn block(&mut self, place: usize) {
        let client = self.client(place);
        client.backlog = if client.backlog.is_some() { None } else { Some(0) };
        self.resume(place);
    }

    /// Pauses a stream until it has read what was sent.
    pub(super) fn pause(&mut self, place: usize) {
        if let Client { state: State::Streaming { reader, .. }, has_more, .. } =
            &mut self.clients[place]
        {
            self.hub.pause(*reader);
            *has_more = true;
        }
    }

    /// Sends all pending messages to a stream that reads.
    fn resume(&mut self, place: usize) {
        let Self { hub, api, clients, knowledge, history, now, .. } = self;
        for _ in 0..10_000 {
            let client = &mut clients[place];
            let State::Streaming { reader, .. } = &client.state else { return };
            if client.backlog.is_some() {
                return;
            }
            let had_more = client.has_more;
            if !hub.resume(*now, *reader, &mut ResumeBatch::default(), |wake| {
                send(api, client, knowledge, *history, &wake);
            }) {
                client.has_more = false;
                return;
            }
            assert!(had_more, "there is more, and the hub did not say so");
        }
        panic!("a stream that never comes to its end");
    }

    /// Ends the turn and begins the next.
    pub(super) fn turn(&mut self, passed_ms: u64) {
        self.end_turn();
        self.history.note(0, "a turn ends, milliseconds", passed_ms.to_string().as_bytes());
        self.now.mono = self.now.mono.after(passed_ms);
        self.now.unix_ms += passed_ms;
        self.api.set_time(self.now);
        for place in 0..CLIENTS {
            // Its input waited for the pending read.
            self.take(place);
            self.resume(place);
        }
    }

    fn end_turn(&mut self) {
        for place in 0..CLIENTS {
            if let State::LongPolling { reader, until, .. } = &self.clients[place].state
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
            let Self { hub, api, clients, knowledge, settings, closed_this_turn, history, .. } =
                self;
            hub.deliver(self.now, |wake| {
                let Some(place) = clients.iter().position(|client| client.number == wake.token)
                else {
                    assert!(closed_this_turn.contains(&wake.token), "a client that is long gone");
                    return;
                };
                let client = &mut clients[place];
                match mem::take(&mut client.state) {
                    State::LongPolling { format, asked, mut its, closes, .. } => {
                        assert!(wake.is_last);
                        let (payload, persistence) = api.encode_reply(&wake, format.as_deref());
                        history.note(wake.token, "is woken", payload.bytes());
                        let closes = closes || persistence == Persistence::Close;
                        let json =
                            responses::check(payload.bytes(), &asked, settings.has_list, closes);
                        assert_eq!(persistence == Persistence::Close, closes);
                        client.state = if closes { State::Closed } else { State::Reading };
                        knowledge.take(&mut its, &json.expect("a read is answered in JSON"));
                    }
                    state @ State::Streaming { .. } => {
                        client.state = state;
                        send(api, client, knowledge, *history, &wake);
                    }
                    State::Closed if closed_this_turn.contains(&wake.token) => {
                        client.state = State::Closed;
                    }
                    State::Reading | State::Closed => {
                        panic!("a client without a pending read is woken")
                    }
                }
            });
            let is_cut = |client: &Client| client.backlog.is_some_and(|bytes| bytes > MAX_BACKLOG);
            let cut: Vec<_> = (0..CLIENTS)
                .filter(|place| {
                    is_cut(&self.clients[*place])
                        && matches!(self.clients[*place].state, State::Streaming { .. })
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

    /// Asserts that streams which read have got every message.
    fn check_streams(&mut self) {
        let mut known = Vec::new();
        for client in self.clients.iter().filter(|client| client.backlog.is_none()) {
            let State::Streaming { got, .. } = &client.state else { continue };
            let (Delivered::Events(StreamCheck { reader, .. }) | Delivered::Frames(reader)) = got;
            let its = reader.subscriptions.iter();
            known.extend(its.filter_map(|its| its.id().map(|id| (its.name.clone(), id))));
        }
        for (channel, id) in known {
            assert_eq!(self.next_ids(&[&channel]), [id], "a stream has not been sent all");
        }
    }

    /// Returns the next id of each channel that a client has just read.
    fn next_ids(&mut self, channels: &[&str]) -> Vec<u64> {
        let next_id = |channel: &&str| {
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
            matches!(client.state, State::LongPolling { .. } | State::Streaming { .. })
        };
        self.clients.iter().filter(waits).count()
    }

    fn check_census(&self) {
        let census = self.hub.gauges();
        assert_eq!(census.readers, self.waiting(), "reads that wait");
        let kept = self.clients.iter().filter_map(|client| match &client.state {
            State::LongPolling { asked, .. } => asked.connection(),
            State::Streaming { session, .. } => *session,
            State::Reading | State::Closed => None,
        });
        let kept = kept.collect::<BTreeSet<_>>().len();
        assert!(
            (kept..=self.identities.len()).contains(&census.sessions),
            "a session with a pending read lives"
        );
        let max = self.settings.max_channels;
        assert!(max == 0 || census.channels <= max, "{census:?}");
        assert!(census.timers <= census.channels + census.sessions, "{census:?}");
    }

    /// Stops the server: all pending reads are answered.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.api.set_phase(Phase::Stopping);
        self.hub.complete_all_empty(self.now);
        self.turn(0);
        assert_eq!(self.hub.gauges().readers, self.waiting());
    }

    /// Closes all clients and lets time pass until nothing is left to do.
    pub(super) fn finish(&mut self) {
        self.end_turn();
        (0..CLIENTS).for_each(|place| self.resume(place));
        self.check_streams();
        for place in 0..CLIENTS {
            self.clients[place].input.clear();
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
        self.knowledge.ledger.finish().expect("one goodbye for each introduction");
    }

    /// Returns the time until the hub is due.
    pub(super) fn until_deadline(&self) -> u64 {
        self.hub.next_deadline().map_or(0, |deadline| deadline.0.saturating_sub(self.now.mono.0))
    }
}

/// Sends a message to a stream, or its end.
fn send(
    api: &mut Api,
    client: &mut Client,
    knowledge: &mut Knowledge,
    history: History,
    wake: &Wake<'_>,
) {
    let State::Streaming { stream, got, .. } = &mut client.state else {
        unreachable!("it is a stream")
    };
    let payload = api.encode_update(wake, stream);
    let bytes = payload.bytes();
    history.note(client.number, "is sent", bytes);
    if let Some(backlog) = &mut client.backlog {
        *backlog += bytes.len();
    }
    match got {
        Delivered::Events(stream) => knowledge.take_events(stream, bytes),
        Delivered::Frames(reader) if !wake.is_last => {
            let texts = texts(bytes);
            assert_eq!(texts.len(), 1, "a frame for each answer");
            knowledge.take(reader, &parse_json(texts[0]));
        }
        Delivered::Frames(_) => assert_eq!((bytes.len(), bytes[0]), (4, ws::CLOSE), "a Close"),
    }
    client.has_more = wake.has_more;
    if wake.is_last {
        assert!(bytes.is_empty() || matches!(got, Delivered::Frames(_)));
        client.state = State::Closed;
    }
}

/// Returns the texts in frames of the server.
fn texts(bytes: &[u8]) -> Vec<&[u8]> {
    let frames = items(incoming::Mode::Frames, bytes);
    assert!(frames.iter().all(|frame| frame.is_frame(ws::TEXT)), "texts in one frame each");
    frames.iter().map(Item::body).collect()
}

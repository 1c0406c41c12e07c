//! Bytes from a client: requests and frames, and the checks of their responses.

use std::mem;
use std::net::IpAddr;

use serde_json::{Map, Value};
use speak::api::{Context, Handled, RequestSource, Transport, WebSocket};
use speak::http::{self, Frame, Opcode, Parsed, Persistence, Progress};
use support::http::Framing;
use support::message::Kind;

use super::asked::Asked;
use super::knowledge::{StreamCheck, wait};
use super::responses::{self, check_head, parse_head, parse_json, texts};
use super::world::{CLIENTS, Client, Delivered, Identity, State, World};

impl World {
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
    pub(super) fn take(&mut self, place: usize) {
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
                    address: Some(Some(address).into()),
                    is_proxy: self.api.is_trusted(Some(address)),
                    is_tls: false,
                    is_admin: false,
                };
                let mut context = Context {
                    hub: &mut self.hub,
                    now: self.now,
                    source,
                    token: *number,
                    is_waiting: false,
                    waited: None,
                };
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
                let has_failed = json
                    .as_ref()
                    .is_some_and(|json| json["error"] == "bad_request" && json["status"] == 400);
                assert_eq!(is_over, closes || has_failed);
                if persistence == Persistence::PersistentIfAnnounced {
                    assert!(asked.is_http_10);
                }
                if let Some(json) = &json {
                    self.learn(&asked, json);
                }
                if is_over {
                    self.clients[place].state = State::Closed;
                }
                !is_over
            }
            Handled::Proposed(_) | Handled::Behind(_) | Handled::Held => {
                unreachable!("there is no log")
            }
            Handled::LongPoll { reader, format, wait_ms } => {
                assert!(self.out.is_empty(), "a pending read is not answered");
                let most_ms = self.settings.api.poll_timeout.as_millis();
                assert!((1..=most_ms).contains(&wait_ms.into()));
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
        let framing = if asked.is_http_10 { Framing::ToEnd } else { Framing::Chunked };
        assert_eq!(head.framing().expect("a framing"), framing);
        let mut stream = StreamCheck { reader: its, before: Vec::new(), framing, has_ended: false };
        if asked.last_event_id.is_some()
            && let Some(last) = self.clients[place].last_stream.take()
            && last.reader.names() == stream.reader.names()
            && last.clone().cut(0) == asked.last_event_id
        {
            stream.resume(&last);
        }
        self.knowledge.take_events(&mut stream, rest);
        if stream.before.is_empty() {
            wait(&mut stream.reader, &next_ids, true);
        }
        self.clients[place].last_stream = None;
        Delivered::Events(stream)
    }

    /// Checks a response against all responses of other clients.
    fn learn(&mut self, asked: &Asked, json: &Value) {
        if let Some(text) = asked.one("message").filter(|_| asked.call == "introduce") {
            let api = &self.settings.api;
            let is_too_large = text.len() > api.max_introduction.min(api.max_message);
            let is_refused_for_size = json["error"] == "message_too_large";
            let is_right =
                if is_too_large { json["error"].is_string() } else { !is_refused_for_size };
            assert!(is_right, "an introduction of {} bytes: {json}", text.len());
        }
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
            "create" => {
                let (secret, given) = match asked.one("kind") {
                    Some("feed") => ("write", "read"),
                    Some("room") => ("owner", "channel"),
                    _ => ("read", "write"),
                };
                self.pairs.push((text(secret), text(given)));
            }
            "remove" => self.knowledge.removed(asked, json),
            "read" => {
                let mut reader = self.knowledge.reader(asked, None);
                self.knowledge.take(&mut reader, json);
            }
            "members" => {
                let members = json["members"].as_array().expect("members");
                let number_of = |member: &Value| member["connection"].as_u64();
                assert!(members.is_sorted_by(|one, next| number_of(one) < number_of(next)));
                let after =
                    asked.one("from").map_or(0, |text| text.parse::<i64>().expect("it was"));
                let is_after = |first| number_of(first) > u64::try_from(after).ok();
                assert!(members.first().is_none_or(is_after));
                let bytes: usize = members.iter().map(|member| member.to_string().len()).sum();
                assert!(members.len() < 2 || bytes <= self.settings.hub.max_reply);
                assert!(json.get("more").is_none() || !members.is_empty());
                assert!(number("readers") <= CLIENTS as u64);
            }
            "goodbye" | "kick" => assert_eq!(json["ok"], true),
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
        let Ok(parsed) = http::parse_frame(&mut bytes, room) else {
            self.close(place);
            return false;
        };
        let Some((Frame { opcode, is_final, payload }, length)) = parsed else {
            self.clients[place].input = bytes;
            return false;
        };
        let mut text = fragments.clone().unwrap_or_default();
        text.extend_from_slice(payload);
        self.clients[place].input = bytes.split_off(length);
        if matches!(opcode, Opcode::Ping | Opcode::Pong) {
            return true;
        }
        if opcode == Opcode::Close || fragments.is_some() != (opcode == Opcode::Continuation) {
            self.close(place);
            return false;
        }
        *fragments = None;
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
        let State::Streaming { reader, stream, got, session, .. } = state else {
            unreachable!("only a WebSocket has frames")
        };
        self.out.clear();
        // Calls in frames count for the client of the handshake, which `stream` remembers.
        let source = RequestSource::default();
        let mut context = Context {
            hub: &mut self.hub,
            now: self.now,
            source,
            token: *number,
            is_waiting: false,
            waited: None,
        };
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
        // This text is JSON without half of a surrogate pair, and may have a reference.
        let is_half = json["detail"].as_str().is_some_and(|detail| detail.contains("surrogate"));
        let is_its = if is_half { frame.is_none() } else { json.get("ref") == reference };
        assert!(is_its, "an answer has the reference of its call: {json}");
        assert!(reference.is_none() || answer.starts_with(b"{\"ref\":"), "and has it first");
        assert!(json.get("error").is_none() || json["status"].as_u64() >= Some(400));
        let asked = frame.as_ref().map(Asked::of_frame).unwrap_or_default();
        if asked.call == "read" && json.get("error").is_none() {
            let mut its = self.knowledge.reader(&asked, Some(Transport::WebSocket));
            self.knowledge.take(&mut its, &json);
            *got = Delivered::Frames(its);
            // The stream keeps this session alive from now on.
            *session = asked.connection().or(*session);
            self.clients[place].has_more = true;
            self.resume(place);
        } else {
            self.learn(&asked, &json);
        }
    }
}

//! Responses, events and frames, held against what their clients asked.

use std::iter;

use serde_json::Value;
use support::http::{Framing, Head};
use support::incoming::Item;
use support::ledger::Clock;
use support::message::Kind as MessageKind;
use support::reader::Reader;
use support::sse::Event;
use support::ws;

use crate::peer::{Following, IdleCause, Kind, Request};
use crate::world::World;

impl World {
    /// Takes all that the server sent to a client in this turn.
    pub(crate) fn receive(&mut self, peer: usize) {
        let (full_since, tape) = {
            let link = &mut self.net.borrow_mut().links[peer];
            (link.full_since, std::mem::take(&mut link.tape))
        };
        if tape.is_empty() {
            return;
        }
        let tape = self.open_records(peer, tape);
        let now = self.now.mono.0;
        // An observer gets a message no later than the loop sleeps.
        let earliest = if self.peers[peer].is_observer { self.model.slept_at } else { 0 };
        self.model.ledger.clock = Clock::Between(earliest, now);
        // A late response was made when it did not fit, or after.
        let done_at = full_since.unwrap_or(now);
        let mut incoming = std::mem::take(&mut self.peers[peer].incoming);
        incoming.extend(&tape);
        while let Some(item) = incoming.next().expect("well formed") {
            self.record.note(|| format!("    {peer} gets {:?}", item.lossy()));
            self.handle(peer, &item, done_at);
        }
        self.peers[peer].incoming = incoming;
    }

    fn handle(&mut self, peer: usize, item: &Item, done_at: u64) {
        match item.status {
            Some(100) => {
                self.tally("asked to continue");
                self.send_rest(peer);
            }
            Some(101) => self.begin_stream(peer, true, done_at),
            Some(_) => {
                let head = item.head().expect("a head");
                if head.begins_events() {
                    self.tally(match head.framing().expect("a framing") {
                        Framing::Chunked => "stream in chunks",
                        _ => "stream of HTTP/1.0",
                    });
                    self.begin_stream(peer, false, done_at);
                } else {
                    self.response(peer, &head, &String::from_utf8_lossy(item.body()), done_at);
                }
            }
            None if self.following(peer).is_frames && item.is_frame(ws::TEXT) => {
                self.text(peer, item.body(), done_at);
            }
            None if self.following(peer).is_frames => {
                self.control(peer, item.bytes[0], item.body(), done_at);
            }
            None if item.ends_events() => self.peers[peer].has_last_chunk = true,
            None => {
                let event = item.event().expect("an event");
                if event.is_heartbeat {
                    self.tally("heartbeat");
                    self.heartbeat(peer, done_at);
                } else {
                    self.event(peer, &event, done_at);
                }
            }
        }
    }

    fn following(&mut self, peer: usize) -> &mut Following {
        self.peers[peer].following.as_mut().expect("it has a stream")
    }

    /// A stream got a heartbeat, or an event stream got an event, and needs none for a while.
    fn was_sent(&mut self, peer: usize, done_at: u64) {
        let now = self.now.mono.0;
        let following = self.following(peer);
        following.beat_at = (following.beat_at.0.max(done_at), now);
    }

    /// A stream got a heartbeat, which has a cost if it is not needed.
    fn heartbeat(&mut self, peer: usize, done_at: u64) {
        let now = self.now.mono.0;
        // A Ping that came late may have been made before the socket was heard.
        let is_new = self.following(peer).is_frames && done_at == now;
        let heard_at = Some(self.peers[peer].heard_at).filter(|at| is_new && *at < now);
        let heard_at = heard_at.unwrap_or(0);
        let due = self.following(peer).beat_at.0.max(heard_at) + self.plan.numbers.heartbeat;
        assert!(now >= due, "client {peer} gets a heartbeat at {now}, which was due at {due}");
        self.was_sent(peer, done_at);
    }

    /// Sends the body that waited.
    pub(crate) fn send_rest(&mut self, peer: usize) {
        if let Some(rest) = self.peers[peer].rest.take() {
            self.peers[peer].sent += rest.len() as u64;
            self.transmit(peer, rest);
        }
    }

    fn response(&mut self, place: usize, head: &Head, body: &str, done_at: u64) {
        let (status, closes) = (head.status, head.closes());
        self.peers[place].was_answered = true;
        assert!(!self.peers[place].is_dismissed, "client {place} gets more after the last word");
        if self.is_unasked(place, (status, closes), body) {
            assert!(closes, "a client that gets {status} is closed");
            self.peers[place].may_linger = true;
        } else {
            let peer = &mut self.peers[place];
            // A fault is answered as soon as it shows.
            let is_fatal = |request: &Request| matches!(request.kind, Kind::Fatal(_));
            let is_whole = |request: &Request| request.has_arrived() || is_fatal(request);
            let is_asked = peer.outstanding.front().is_some_and(is_whole);
            assert!(is_asked, "client {place} gets {status} and asked nothing: {body}");
            let request = peer.outstanding.pop_front().expect("just looked");
            peer.may_linger = is_fatal(&request);
            let is_over = request.closes || is_fatal(&request) || self.stops_at.is_some();
            let kind = request.kind;
            let is_agreed = closes == is_over || (self.stops_at.is_some() && self.has_lag());
            assert!(is_agreed, "client {place} stays or not as agreed, after {kind:?}");
            let script = body.strip_prefix("/**/f(").and_then(|rest| rest.strip_suffix(");"));
            let json = if request.is_script { script.expect("a script") } else { body };
            self.check_outcome(place, &request, status, json, done_at);
        }
        if closes {
            let peer = &mut self.peers[place];
            peer.dismiss(self.now.mono.0);
            // Requests after that are not done.
            self.model.refuse_all(&mut peer.outstanding);
        }
    }

    /// Says whether this is no response to a request, and checks that it has a reason then.
    fn is_unasked(&mut self, place: usize, (status, closes): (u16, bool), body: &str) -> bool {
        let (now, numbers) = (self.now.mono.0, self.plan.numbers);
        let peer = &mut self.peers[place];
        match status {
            408 => {
                let since = peer.overdue_since.or(peer.partial_since);
                let due = since.expect("an unfinished request") + numbers.request_timeout;
                assert!(now >= due, "408 at {now}, due at {due}");
                self.tally("request timed out");
                true
            }
            503 | 429 if body.contains("client limit") || body.contains("too many connections") => {
                peer.is_rejected = true;
                let is_full = status == 503;
                self.tally(if is_full { "rejected" } else { "too many of one address" });
                let is_short = self.net.borrow().refusals > 0;
                assert!(!is_full || numbers.max_clients < 1000 || is_short, "there is room");
                assert!(is_full || numbers.max_per_address > 0);
                true
            }
            503 if closes && numbers.is_tight => {
                self.record.tally.count("no memory for a request");
                // It may be for calls that have arrived, and that the server did not look at.
                let is_answer = |request: &Request| {
                    // These are never refused so by themselves.
                    let is_exempt = matches!(request.kind, Kind::Plain(_) | Kind::Fatal(_))
                        || needs_no_memory(request.kind);
                    let is_script = body.starts_with("/**/");
                    let is_whole = request.has_arrived() || matches!(request.kind, Kind::Fatal(_));
                    is_whole && request.closes && !is_exempt && request.is_script == is_script
                };
                !peer.outstanding.front().is_some_and(is_answer)
            }
            _ => false,
        }
    }

    /// Checks the response to a request or to a call in a frame.
    fn check_outcome(
        &mut self,
        place: usize,
        request: &Request,
        status: u16,
        json: &str,
        done_at: u64,
    ) {
        let now = self.now.mono.0;
        let (is_tight, has_rate) = (self.plan.numbers.is_tight, self.plan.numbers.max_rate > 0);
        let kind = request.kind;
        let value: Value = match kind {
            Kind::Plain(_) | Kind::Fatal(_) => Value::Null,
            _ => serde_json::from_str(json).unwrap_or_else(|fault| panic!("{fault}: {json}")),
        };
        let status = value["status"].as_u64().map_or(status, |status| status as u16);
        let introduced = request.text.filter(|_| kind == Kind::Introduce);
        let max_introduction = self.plan.numbers.max_introduction;
        let is_too_large = introduced.is_some_and(|text| text.write().len() > max_introduction);
        match (kind, status) {
            (Kind::Plain(expected) | Kind::Fatal(expected), _) => {
                // The rate limit comes first, also for a call that could not be done.
                let is_limited = has_rate && (status, expected) == (429, 400);
                assert!(is_limited || status == expected, "{status} for {kind:?}: {json}");
                self.tally(&format!("status {status}"));
                return;
            }
            (_, 200) => assert!(!is_too_large, "a large introduction is answered with {json}"),
            (Kind::Introduce, 413) => {
                assert!(is_too_large, "{json}");
                self.tally("introduction too large");
            }
            (_, 410) => {
                self.ended_claims.push(request.carries.expect("only a session ends"));
                self.tally("call of a session that ended");
            }
            (Kind::Write | Kind::Introduce, 429) => assert!(has_rate, "{json}"),
            (_, 503) if self.has_lag() && request.may_wait_for_disk() => {
                if let Some(session) = request.carries {
                    // The disk is to blame, so its client counts as heard of.
                    self.model.session(session).alive_most_ms = now;
                }
                let error = value["error"].as_str();
                if error == Some("outcome_unknown") {
                    return self.tally("outcome unknown");
                }
                assert_eq!(error, Some("over_capacity"), "{json}");
                self.tally("refused for want of the disk");
            }
            (_, 503) => {
                assert!(is_tight && !needs_no_memory(kind), "{json}");
                self.tally("no memory for a call");
            }
            _ => panic!("{kind:?} is answered with {json}"),
        }
        if status != 200 {
            return self.model.refuse(request);
        }
        if let Some(session) = request.carries {
            self.model.lived(session, done_at, now);
        }
        let number = |key: &str| value[key].as_u64().unwrap_or_else(|| panic!("no {key}: {json}"));
        match kind {
            Kind::Write => {
                let text = request.text.expect("it has one");
                let place = (text.channel as usize, number("id"));
                let ledger = &mut self.model.ledger;
                ledger
                    .answered(place, MessageKind::Message, request.carries, &text.write())
                    .unwrap();
                self.tally("write");
            }
            Kind::Introduce => {
                let (session, text) = (number("connection"), request.text.expect("it has one"));
                let is_its = request.carries.is_none_or(|its| its == session);
                assert!(is_its, "another client's session");
                let auth = value["auth"].as_str().expect("an auth code");
                let claim = (session, request.carries.is_none());
                self.model.introduced(claim, auth, done_at, text, number("id"));
                self.model.session(session).alive_most_ms = now;
                self.tally("introduction");
            }
            Kind::Goodbye => {
                self.model.known(request.carries.expect("a session's goodbye")).has_left = true;
                self.tally("goodbye");
            }
            Kind::GoodbyeToOne => self.tally("goodbye to one"),
            Kind::Members { after } => self.members(after, &value),
            Kind::ReadNow | Kind::Poll { .. } => self.answer(place, request, &value),
            _ => unreachable!("these are not answered so"),
        }
    }

    /// Checks a list of members: its order, and its size.
    fn members(&mut self, after: u64, value: &Value) {
        let members = value["members"].as_array().expect("a list");
        let numbers = members.iter().map(|member| member["connection"].as_u64());
        let numbers: Vec<_> = iter::once(Some(after)).chain(numbers).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "after {after}: {value}");
        let bytes: usize = members.iter().map(|member| member.to_string().len()).sum();
        let max_reply = self.plan.numbers.max_reply;
        assert!(members.len() < 2 || bytes <= max_reply, "{bytes} bytes of members: {value}");
        let has_more = value["more"] == true;
        assert!(!has_more || !members.is_empty() && max_reply == 300, "{value}");
        self.record.tally.count_if(has_more, "members cut");
        self.record.tally.count_if(after > 0 && !members.is_empty(), "rest of the members");
    }

    /// Checks the answer of a read.
    fn answer(&mut self, place: usize, request: &Request, value: &Value) {
        let now = self.now.mono.0;
        let mut reader = request.reader.clone().expect("it reads");
        let taken = self.model.ledger.take_answer(&mut reader, value).unwrap();
        self.advance(place, &reader);
        self.record.tally.count_if(taken.missed > 0, "missed");
        let Kind::Poll { wait_ms } = request.kind else { return };
        let is_empty = taken.messages == 0 && taken.missed == 0;
        self.tally(if is_empty { "poll answered with nothing" } else { "poll answered" });
        if is_empty && request.carries.is_none() && self.stops_at.is_none() {
            let due = request.arrived_at.expect("it was answered") + wait_ms;
            assert!(now >= due, "a read is answered with nothing at {now}, and had until {due}");
        }
    }

    /// A client has come so far as this reader.
    fn advance(&mut self, place: usize, reader: &Reader) {
        let cursors = &mut self.peers[place].cursors;
        for its in &reader.subscriptions {
            cursors[its.channel] = cursors[its.channel].max(its.id().unwrap_or(0));
        }
    }

    fn begin_stream(&mut self, place: usize, is_frames: bool, done_at: u64) {
        let now = self.now.mono.0;
        let request = self.peers[place].outstanding.pop_front().expect("it asked for a stream");
        assert_eq!(request.kind, if is_frames { Kind::Frames } else { Kind::Events });
        if let Some(session) = request.carries {
            self.model.lived(session, done_at, now);
        }
        self.tally(if is_frames { "socket opened" } else { "stream opened" });
        self.peers[place].following = Some(Following {
            is_frames,
            reader: request.reader.expect("it reads"),
            carries: request.carries,
            grace: request.grace,
            is_settled: false,
            began_at: (done_at, now),
            beat_at: (done_at, now),
            fed_at: now,
            idle: IdleCause::default(),
        });
    }

    fn event(&mut self, place: usize, event: &Event, done_at: u64) {
        let following = self.peers[place].following.as_mut().expect("it has a stream");
        let reader = &mut following.reader;
        let taken = self.model.ledger.take_event(reader, event).unwrap();
        let reader = reader.clone();
        self.advance(place, &reader);
        self.record.tally.count_if(taken.missed > 0, "stream got a gap");
        self.record.tally.count_if(taken.messages > 0, "event");
        self.was_sent(place, done_at);
    }

    /// Takes a Ping, Pong or Close.
    fn control(&mut self, place: usize, first: u8, payload: &[u8], done_at: u64) {
        let now = self.now.mono.0;
        match first {
            ws::PING => {
                self.tally("ping");
                self.heartbeat(place, done_at);
                let peer = &mut self.peers[place];
                if peer.may_pong() {
                    let pong = ws::client_frame(ws::PONG, payload);
                    peer.sent += pong.len() as u64;
                    peer.ends.push_back(peer.sent);
                    self.transmit(place, pong);
                }
            }
            ws::CLOSE => {
                self.tally("socket closed");
                let has_lag = self.has_lag();
                let peer = &mut self.peers[place];
                peer.dismiss(now);
                peer.may_linger = true;
                // Calls that wait for the disk have their effect without a response.
                let is_unknown = |it: &Request| has_lag && it.kind.is_logged() && it.has_arrived();
                peer.outstanding.retain(|it| !is_unknown(it));
                self.model.refuse_all(&mut peer.outstanding);
                let following = peer.following.as_mut();
                let ended = following
                    .and_then(|its| Some((its.carries.take()?, its.is_settled, its.grace)));
                if let Some((session, is_settled, grace)) = ended {
                    self.model.may_close(session, now, grace);
                    // A call may have kept it alive since the Close was made.
                    let is_sure = is_settled && self.model.known(session).busy_at < done_at;
                    let why = "its socket was closed";
                    let counts = "socket closed that carried a session";
                    let is_running = self.stops_at.is_none();
                    let end = is_running.then_some((why, counts));
                    self.end_read((session, grace), is_sure, end);
                }
            }
            _ => {}
        }
    }

    /// Takes a text of a WebSocket: the response to a call, or messages.
    fn text(&mut self, place: usize, payload: &[u8], done_at: u64) {
        let json = str::from_utf8(payload).expect("text is UTF-8");
        let value: Value = serde_json::from_str(json).expect("a text is JSON");
        if value["ref"].is_null() {
            self.tally("frame");
            let following = self.peers[place].following.as_mut().expect("it has a stream");
            self.model.ledger.take_answer(&mut following.reader, &value).unwrap();
            following.fed_at = self.now.mono.0;
            let reader = following.reader.clone();
            self.advance(place, &reader);
        } else {
            let request = self.peers[place].outstanding.pop_front();
            let request = request.filter(|it| it.has_arrived() && it.is_frame);
            let request = request.expect("a response to a call that has arrived");
            self.peers[place].was_answered = true;
            self.tally("call in a frame");
            self.check_outcome(place, &request, 200, json, done_at);
        }
    }
}

/// Says whether a call is never refused for want of memory.
fn needs_no_memory(kind: Kind) -> bool {
    matches!(kind, Kind::Goodbye | Kind::GoodbyeToOne | Kind::Members { .. })
}

//! What clients are told, held against what they asked.

use serde_json::Value;

use crate::asking::masked;
use crate::ear::Parsed;
use crate::ledger::Message;
use crate::peer::{Following, Kind, Request, Since};
use crate::world::World;

impl World {
    /// Takes in what the server said to a client in this turn.
    pub(crate) fn listen(&mut self, peer: usize) {
        let (full_since, mut tape) = {
            let link = &mut self.net.borrow_mut().links[peer];
            (link.full_since, std::mem::take(&mut link.tape))
        };
        if tape.is_empty() {
            return;
        }
        // What was said late was done when its answer did not fit, or after.
        let done_at = full_since.unwrap_or(self.now.mono.0);
        self.peers[peer].ear.hear(&mut tape);
        while let Some(said) = self.peers[peer].ear.next() {
            self.record.note(|| format!("    {peer} hears {said:?}"));
            match said {
                Parsed::Continue => {
                    self.tally("asked to continue");
                    self.go_on_sending(peer);
                }
                Parsed::Answer { status, closes, body } => {
                    self.answer(peer, status, closes, &body, done_at);
                }
                Parsed::BeginsEvents | Parsed::BeginsFrames => {
                    let is_frames = matches!(said, Parsed::BeginsFrames);
                    self.begin_following(peer, is_frames, done_at);
                }
                Parsed::Event { id, name, data } => {
                    self.event(peer, id.as_deref(), name.as_deref(), data.as_deref());
                    self.was_told(peer, done_at);
                }
                Parsed::Comment => {
                    self.tally("sign of life");
                    self.shown_life(peer, done_at);
                }
                Parsed::Frame { opcode, payload } => self.frame(peer, opcode, &payload, done_at),
            }
        }
    }

    /// A stream was told something, and need not be told that the server lives for a while.
    fn was_told(&mut self, peer: usize, done_at: u64) {
        let following = self.peers[peer].following.as_mut().expect("it follows");
        following.told_at = following.told_at.max(done_at);
    }

    /// A stream was shown that the server lives, which costs something where nobody needs it.
    fn shown_life(&mut self, peer: usize, done_at: u64) {
        let now = self.now.mono.0;
        let due = self.peers[peer].following.as_ref().expect("it follows").told_at
            + self.plan.numbers.heartbeat;
        assert!(now >= due, "client {peer} is shown life at {now}, which was due at {due}");
        self.was_told(peer, done_at);
    }

    /// Sends the body that was held back.
    pub(crate) fn go_on_sending(&mut self, peer: usize) {
        if let Some(rest) = self.peers[peer].rest.take() {
            self.peers[peer].sent += rest.len() as u64;
            self.transmit(peer, rest);
        }
    }

    fn answer(&mut self, place: usize, status: u16, closes: bool, body: &str, done_at: u64) {
        let now = self.now.mono.0;
        let numbers = self.plan.numbers;
        let peer = &mut self.peers[place];
        assert!(!peer.is_told_to_go, "client {place} is told more after it was told to go");
        // What is at fault is told as soon as it shows.
        let is_whole = |request: &Request| {
            request.arrived_at.is_some() || matches!(request.kind, Kind::Fatal(_))
        };
        let is_asked = peer.outstanding.front().is_some_and(is_whole);
        let is_unasked = match status {
            408 => {
                let since =
                    peer.overdue_since.or(peer.partial_since).expect("a request that is not whole");
                assert!(now >= since + numbers.request_timeout, "408 at {now}, since {since}");
                self.record.tally.count("request timed out");
                true
            }
            503 | 429 if body.contains("client limit") || body.contains("too many connections") => {
                peer.is_refused = true;
                self.record.tally.count(if status == 503 {
                    "turned away"
                } else {
                    "too many of one address"
                });
                let is_short = self.net.borrow().refusals > 0;
                assert!(status != 503 || numbers.max_clients < 1000 || is_short, "there is room");
                assert!(status != 429 || numbers.max_per_address > 0);
                true
            }
            503 if closes && numbers.is_tight => {
                self.record.tally.count("no memory for a request");
                // It may be for calls that lie here, and that nobody looked at.
                let is_answer = |request: &Request| {
                    // These are never refused so by themselves.
                    let is_exempt = matches!(
                        request.kind,
                        Kind::Plain(_) | Kind::Fatal(_) | Kind::Goodbye | Kind::GoodbyeToOne
                    );
                    request.closes && !is_exempt && request.is_script == body.starts_with("/**/")
                };
                !is_asked || !peer.outstanding.front().is_some_and(is_answer)
            }
            _ => false,
        };
        let peer = &mut self.peers[place];
        if is_unasked {
            assert!(closes, "whoever is told {status} is told to go");
            peer.may_linger = true;
        } else {
            assert!(is_asked, "client {place} is told {status} and asked nothing: {body}");
            let request = peer.outstanding.pop_front().expect("just looked");
            peer.may_linger = matches!(request.kind, Kind::Fatal(_));
            let is_over =
                request.closes || matches!(request.kind, Kind::Fatal(_)) || self.stops_at.is_some();
            assert_eq!(
                closes, is_over,
                "client {place} stays or goes as it was agreed, after {:?}",
                request.kind
            );
            let json = if request.is_script {
                body.strip_prefix("/**/f(")
                    .and_then(|rest| rest.strip_suffix(");"))
                    .expect("a script")
            } else {
                body
            };
            self.check_outcome(place, &request, status, json, done_at);
        }
        if closes {
            let peer = &mut self.peers[place];
            (peer.is_told_to_go, peer.told_to_go_at) = (true, now);
            // What stands behind that is not done.
            for request in std::mem::take(&mut self.peers[place].outstanding) {
                request.text.into_iter().for_each(|text| self.ledger.refuse(text));
            }
        }
    }

    /// An answer to a request or to a call in a frame.
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
        let value: Value = match request.kind {
            Kind::Plain(_) | Kind::Fatal(_) => Value::Null,
            _ => serde_json::from_str(json).unwrap_or_else(|fault| panic!("{fault}: {json}")),
        };
        let status = value["status"].as_u64().map_or(status, |status| status as u16);
        match (request.kind, status) {
            (Kind::Plain(expected) | Kind::Fatal(expected), _) => {
                // Who makes too many calls is told so first, also of one that could not be done.
                let is_limited = has_rate && (status, expected) == (429, 400);
                assert!(
                    is_limited || status == expected,
                    "{status} for {:?}: {json}",
                    request.kind
                );
                self.record.tally.count(&format!("status {status}"));
                return;
            }
            (_, 200) => {}
            (_, 410) => {
                let connection = request.carries.expect("only a connection ends");
                self.ended_claims.push(connection);
                self.tally("call of one that ended");
            }
            (Kind::Write | Kind::Introduce, 429) => assert!(has_rate, "{json}"),
            (kind, 503) => {
                assert!(is_tight && !matches!(kind, Kind::Goodbye | Kind::GoodbyeToOne), "{json}");
                self.tally("no memory for a call");
            }
            (kind, _) => panic!("{kind:?} is answered with {json}"),
        }
        if status != 200 {
            request.text.into_iter().for_each(|text| self.ledger.refuse(text));
            return;
        }
        if let Some(connection) = request.carries {
            let connection = &mut self.ledger.connections[connection];
            connection.alive_at = connection.alive_at.max(done_at);
            connection.alive_at_most = now;
            connection.busy_at = now;
        }
        match request.kind {
            Kind::Write => {
                let id = value["id"].as_u64().expect("an id");
                self.ledger.claim(request.text.expect("it has one"), request.channels[0], id);
                self.tally("write");
            }
            Kind::Introduce => {
                let number = value["connection"].as_u64().expect("a number");
                let auth = value["auth"].as_str().expect("an auth");
                let id = value["id"].as_u64().expect("an id");
                let place = self.ledger.connect(number, auth, done_at);
                let connection = &mut self.ledger.connections[place];
                connection.alive_at = connection.alive_at.max(done_at);
                connection.alive_at_most = now;
                assert!(
                    request.carries.is_none_or(|its| its == place),
                    "somebody else's connection"
                );
                self.ledger.claim(request.text.expect("it has one"), request.channels[0], id);
                self.tally("introduction");
            }
            Kind::Goodbye => {
                let connection = request.carries.expect("a goodbye is somebody's");
                self.ledger.connections[connection].has_left = true;
                self.tally("goodbye");
            }
            Kind::GoodbyeToOne => self.tally("goodbye to one"),
            Kind::ReadNow | Kind::Poll { .. } => self.reply(place, request, &value),
            _ => unreachable!("these are not answered so"),
        }
    }

    /// The answer of a read.
    fn reply(&mut self, place: usize, request: &Request, value: &Value) {
        let now = self.now.mono.0;
        let mut is_empty = true;
        for (at, (channel, since)) in request.channels.iter().zip(&request.since).enumerate() {
            let part = if request.channels.len() == 1 { value } else { &value["channels"][at] };
            assert!(
                request.channels.len() == 1 || part["channel"] == format!("c{channel}"),
                "in the order asked"
            );
            is_empty &= !self.part(place, *channel, *since, part);
        }
        let Kind::Poll { wait_ms } = request.kind else { return };
        self.record.tally.count(if is_empty {
            "poll answered with nothing"
        } else {
            "poll answered"
        });
        if is_empty && request.carries.is_none() && self.stops_at.is_none() {
            let due = request.arrived_at.expect("it was answered") + wait_ms;
            assert!(now >= due, "a read is answered with nothing at {now}, and had until {due}");
        }
    }

    /// What a read is told of one channel. Tells whether that is anything.
    fn part(&mut self, place: usize, channel: usize, since: Since, part: &Value) -> bool {
        let messages: Vec<_> =
            part["messages"].as_array().expect("messages").iter().map(Message::of).collect();
        let next_id = part["next_id"].as_u64().expect("next_id");
        let (is_missed, is_reset) = (part["missed"] == true, part["reset"] == true);
        assert!(!is_reset, "nobody asks beyond the end, or in another numbering");
        if is_missed {
            assert!(matches!(since, Since::Id(_)), "who asked for no id misses nothing");
            self.tally("missed");
        }
        assert!(messages.is_sorted_by(|a, b| a.id < b.id), "messages come in order, each once");
        assert!(messages.last().is_none_or(|last| last.id < next_id));
        if let Since::Id(from) = since {
            assert!(next_id >= from, "the cursor never goes back");
            let gapless =
                (if is_missed { messages.first().map_or(next_id, |first| first.id) } else { from })
                    ..next_id;
            assert!(
                messages.iter().map(|message| message.id).eq(gapless),
                "{from} to {next_id} without a gap"
            );
        }
        for message in &messages {
            self.ledger.see(channel, message, self.now.mono.0, false);
        }
        let cursors = &mut self.peers[place].cursors;
        cursors[channel] = cursors[channel].max(next_id);
        !messages.is_empty() || is_missed
    }

    fn begin_following(&mut self, place: usize, is_frames: bool, done_at: u64) {
        let request = self.peers[place].outstanding.pop_front().expect("it asked for a stream");
        assert_eq!(request.kind, if is_frames { Kind::Frames } else { Kind::Events });
        if let Some(connection) = request.carries {
            let connection = &mut self.ledger.connections[connection];
            connection.alive_at = connection.alive_at.max(done_at);
            connection.alive_at_most = self.now.mono.0;
            connection.busy_at = self.now.mono.0;
        }
        self.record.tally.count(if is_frames { "socket opened" } else { "stream opened" });
        let cursors = |since: &Since| if let Since::Id(id) = since { Some(*id) } else { None };
        self.peers[place].following = Some(Following {
            is_frames,
            cursors: request.since.iter().map(cursors).collect(),
            gaps: vec![false; request.channels.len()],
            channels: request.channels,
            since: request.since,
            carries: request.carries,
            is_settled: false,
            told_at: done_at,
            silence: crate::peer::IdleCause::default(),
        });
    }

    fn event(&mut self, place: usize, id: Option<&str>, name: Option<&str>, data: Option<&str>) {
        let peer = &mut self.peers[place];
        let following = peer.following.as_mut().expect("it follows");
        let Some(data) = data else { return };
        let value: Value = serde_json::from_str(data).expect("data is JSON");
        let at = match value["channel"].as_str() {
            None => 0,
            Some(name) => {
                let channel: usize = name[1..].parse().expect("a channel of ours");
                following
                    .channels
                    .iter()
                    .position(|its| *its == channel)
                    .expect("a channel that it follows")
            }
        };
        let channel = following.channels[at];
        if name == Some("missed") {
            following.gaps[at] = true;
            let is_witness = peer.is_witness;
            self.ledger.channels[channel].is_leaky |= is_witness;
            return self.tally("stream told of a gap");
        }
        assert!(name.is_none(), "no such event: {name:?}");
        let ids = id.and_then(|id| id.split_once(':')).expect("an id has an epoch").1;
        let next_id: i64 = ids
            .split(',')
            .nth(at)
            .and_then(|id| id.parse().ok())
            .expect("a cursor for each channel");
        let message = Message::of(&value);
        let is_past = next_id <= message.id.cast_signed();
        let is_witness = peer.is_witness;
        self.told(place, at, &message, is_past);
        self.ledger.see(channel, &message, self.now.mono.0, is_witness);
        if let Some(reason) = message.reason.as_ref().filter(|_| is_witness) {
            self.tally(&format!("goodbye seen: {reason}"));
        }
        self.tally("event");
    }

    /// A stream is told a message: the next one, or why not. `is_past` for an introduction that history has dropped.
    fn told(&mut self, place: usize, at: usize, message: &Message, is_past: bool) {
        let peer = &mut self.peers[place];
        let following = peer.following.as_mut().expect("it follows");
        if is_past {
            assert!(
                following.since[at] == Since::All && message.kind == "introduction",
                "{message:?} is past"
            );
            return;
        }
        let cursor = &mut following.cursors[at];
        if let Some(next_id) = *cursor {
            assert!(
                message.id >= next_id,
                "client {place} is told {message:?} again, and is at {next_id}"
            );
            assert!(
                message.id == next_id || following.gaps[at],
                "client {place} misses {next_id} to {message:?}"
            );
        }
        following.gaps[at] = false;
        *cursor = Some(message.id + 1);
        let channel = following.channels[at];
        peer.cursors[channel] = peer.cursors[channel].max(message.id + 1);
    }

    fn frame(&mut self, place: usize, opcode: u8, payload: &[u8], done_at: u64) {
        let now = self.now.mono.0;
        match opcode {
            0x9 => {
                let peer = &mut self.peers[place];
                peer.pings += 1;
                self.record.tally.count("ping");
                self.shown_life(place, done_at);
                let peer = &mut self.peers[place];
                if peer.answers_pings && !peer.has_closed && !peer.is_spoilt && peer.rest.is_none()
                {
                    let pong = masked(0x8a, payload);
                    peer.sent += pong.len() as u64;
                    peer.ends.push_back(peer.sent);
                    self.transmit(place, pong);
                }
            }
            0x8 => {
                let peer = &mut self.peers[place];
                (peer.is_told_to_go, peer.told_to_go_at, peer.may_linger) = (true, now, true);
                self.record.tally.count("socket closed");
                if let Some(following) = &mut peer.following
                    && let Some(carried) = following.carries.take()
                {
                    let connection = &mut self.ledger.connections[carried];
                    connection.alive_at_most = now;
                    connection.closings.push(now);
                    connection.closed_at = following.is_settled.then_some(now);
                    if following.is_settled && self.ledger.grace_ms == 0 && self.stops_at.is_none()
                    {
                        connection.must_have_ended = Some("its socket was closed");
                        self.record.tally.count("socket closed that carried a connection");
                    }
                }
                for request in std::mem::take(&mut self.peers[place].outstanding) {
                    request.text.into_iter().for_each(|text| self.ledger.refuse(text));
                }
            }
            0xa => {}
            0x1 => {
                let json = str::from_utf8(payload).expect("text is UTF-8");
                let value: Value = serde_json::from_str(json).expect("a text is JSON");
                if value["ref"].is_null() {
                    self.tally("frame");
                    self.frame_reply(place, &value);
                    self.was_told(place, done_at);
                } else {
                    let peer = &mut self.peers[place];
                    let request = peer.outstanding.pop_front().expect("an answer answers a call");
                    assert!(
                        request.arrived_at.is_some() && request.is_frame,
                        "answered before it was asked"
                    );
                    self.tally("call in a frame");
                    self.check_outcome(place, &request, 200, json, done_at);
                }
            }
            _ => panic!("no such frame: {opcode}"),
        }
    }

    fn frame_reply(&mut self, place: usize, value: &Value) {
        let following = self.peers[place].following.as_ref().expect("it follows");
        let channels = following.channels.clone();
        for (at, channel) in channels.iter().enumerate() {
            let part = if channels.len() == 1 { value } else { &value["channels"][at] };
            let following = self.peers[place].following.as_mut().expect("it follows");
            following.gaps[at] |= part["missed"] == true;
            let next_id = part["next_id"].as_u64().expect("next_id");
            let messages = part["messages"].as_array().expect("messages");
            let first_retained = next_id - messages.len() as u64;
            for (index, message) in messages.iter().enumerate() {
                let message = Message::of(message);
                let is_newcomer = self.peers[place]
                    .following
                    .as_ref()
                    .is_some_and(|it| it.since[at] == Since::All);
                let is_past = is_newcomer && message.id != first_retained + index as u64;
                self.told(place, at, &message, is_past);
                self.ledger.see(*channel, &message, self.now.mono.0, false);
            }
            let following = self.peers[place].following.as_mut().expect("it follows");
            following.gaps[at] = false;
            following.cursors[at] = Some(next_id);
        }
    }
}

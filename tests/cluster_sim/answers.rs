//! Responses, and what they promise.

use serde_json::Value;
use speak::hub::Pair;
use support::incoming::Cutter;
use support::message::{Kind as MessageKind, slices};
use support::reader::{Since, Terms};
use support::session::Verdict;

use crate::broker::UNIX_MS;
use crate::calls::ROOM;
use crate::person::Person;
use crate::request::{Kind, Request};
use crate::world::World;

/// Time for which a call waits for the log at most, and some for turns.
const PATIENCE_MS: u64 = 7_000;

/// The same for a call that changes something: five seconds, or one after it has waited for
/// another condition.
const CHANGE_MS: u64 = 5_500;

/// Time after which a call is answered from local state.
const BARRIER_MS: u64 = 1_000;

impl World {
    /// Takes the responses that a turn has sent.
    pub(crate) fn after_turn(&mut self, node: usize, touched: Vec<usize>) {
        for place in touched {
            let mut net = self.nodes[node].net.borrow_mut();
            net.drain(place, usize::MAX);
            let link = &mut net.links[place];
            let response = Cutter::default().next(&link.tape).expect("a response");
            let response = response.map(|item| {
                let body = String::from_utf8(item.body().to_vec()).expect("text");
                (item.status.expect("no stream"), item.bytes.len(), body)
            });
            let (is_dropped, has_closed) = (link.is_dropped, link.has_fin);
            if let Some((_, length, _)) = response {
                assert_eq!(length, link.tape.len(), "a response to nothing");
                link.tape.clear();
            }
            drop(net);
            let is_its = |it: &Request| it.node == node && it.place == place;
            let Some(at) = self.requests.iter().position(is_its) else {
                assert!(response.is_none() || has_closed, "a response to nothing");
                continue;
            };
            let Some((status, _, body)) = response else {
                assert!(!is_dropped, "a client was closed without a response");
                continue;
            };
            let request = self.requests.remove(at);
            let now = self.now;
            let kind = request.kind;
            self.record.note(|| format!("    {now} {node}/{place} {kind:?}: {status} {body}"));
            let body: Value = serde_json::from_str(&body).expect("JSON");
            if !is_dropped {
                self.nodes[node].idle.push(place);
            }
            self.take(request, status, &body);
        }
    }

    /// The node of a request has died.
    pub(crate) fn lose(&mut self, request: &Request) {
        if let (Some(person), Kind::IntroduceAs | Kind::Leave) = (request.person, request.kind) {
            self.people[person].unsure.insert(request.channels[0]);
        }
    }

    fn take(&mut self, request: Request, status: u16, body: &Value) {
        if status != 200 {
            return self.take_error(&request, status, body);
        }
        let kind = format!("{:?}", request.kind);
        self.tally(kind.split('(').next().unwrap_or_default());
        // A node without its log answers from what it has.
        let is_stale = self.nodes[request.node].cut_off_at >= request.sent_at;
        assert!(
            !request.is_of_ended || request.person.is_none() || is_stale,
            "a call of a session succeeded after its end"
        );
        let place = |world: &Self| {
            let id = body["id"].as_u64().expect("an id");
            assert!(id >= request.floors[0], "an id below one that was given: {id}");
            let channel = request.channels[0];
            (channel, id, world.answered[channel].max(id + 1))
        };
        let from = request.person.map(|person| self.people[person].number);
        match request.kind {
            Kind::Write => {
                let (channel, id, next_id) = place(self);
                let text = request.text.expect("a text").write();
                self.answered[channel] = next_id;
                self.ledger.answered((channel, id), MessageKind::Message, from, &text).unwrap();
                if let Some(person) = request.person {
                    self.hear(person, &request);
                }
            }
            Kind::Introduce | Kind::IntroduceAs => {
                let (channel, id, next_id) = place(self);
                let text = request.text.expect("a text").write();
                self.answered[channel] = next_id;
                let number = body["connection"].as_u64().expect("a number");
                let auth = body["auth"].as_str().expect("a secret");
                let is_new = request.kind == Kind::Introduce;
                let session = (number, is_new);
                let verdict = Verdict::Meant;
                let at = UNIX_MS + self.heard_at(&request);
                self.ledger.introduced(session, at, (channel, id), &text, verdict).unwrap();
                let person = if is_new {
                    self.people.push(Person::new(number, auth));
                    self.people.len() - 1
                } else {
                    request.person.expect("a session")
                };
                let its = &mut self.people[person];
                assert_eq!((its.number, its.auth.as_str()), (number, auth));
                its.channels.insert(channel);
                self.hear(person, &request);
            }
            Kind::Goodbye => {
                let its = &mut self.people[request.person.expect("a session")];
                its.has_ended = true;
                if let Some(session) = self.ledger.sessions.get_mut(&its.number) {
                    session.left();
                }
            }
            Kind::Leave => {
                let (person, channel) = (request.person.expect("a session"), request.channels[0]);
                let its = &mut self.people[person];
                its.left.insert(channel);
                if let Some(session) = self.ledger.sessions.get_mut(&its.number) {
                    session.left_channel(channel);
                }
                self.hear(person, &request);
            }
            Kind::Remove(of) => {
                let (channel, id, next_id) = place(self);
                self.answered[channel] = next_id;
                let kind = MessageKind::Removal(of);
                self.ledger.answered((channel, id), kind, None, "").unwrap();
            }
            Kind::Kick(..) => assert_eq!(body["ok"], true),
            Kind::Create(kind) => {
                let names = body.as_object().expect("names");
                let secret = names.values().filter_map(Value::as_str).find(|it| {
                    let code = it.get(2..).and_then(|code| code.as_bytes().try_into().ok());
                    code.is_some_and(|code| {
                        let pair = Pair::new(kind, code);
                        pair.secret == **it && names.values().any(|name| *name == *pair.given)
                    })
                });
                assert!(secret.is_some() && names.len() == 2, "{kind:?}: {body}");
            }
            Kind::Read | Kind::Poll => self.take_reply(request, body),
            Kind::Members => self.take_members(&request, body),
        }
    }

    /// A call of a session was answered, so that it does not time out for some time.
    fn hear(&mut self, person: usize, request: &Request) {
        self.hear_at(person, self.heard_at(request));
    }

    /// Returns the time at which a request was certainly handled that is answered now.
    fn heard_at(&self, request: &Request) -> u64 {
        // A node that had trouble may have been late to tell of it.
        let is_late = self.nodes[request.node].disturbed_at >= request.sent_at;
        if is_late { request.sent_at } else { self.now }
    }

    fn hear_at(&mut self, person: usize, at: u64) {
        let its = &mut self.people[person];
        its.heard_at = its.heard_at.max(UNIX_MS + at);
        if let Some(session) = self.ledger.sessions.get_mut(&its.number) {
            session.lived(UNIX_MS + at);
        }
    }

    fn take_error(&mut self, request: &Request, status: u16, body: &Value) {
        let error = body["error"].as_str().expect("an error");
        self.tally(&format!("error {status} {error}"));
        match error {
            "over_capacity" | "removed" => {
                let is_of_room = request.channels.first().is_none_or(|channel| *channel == ROOM);
                let may_be_away = self.may_be_away && is_of_room && request.adds();
                assert!(error != "removed" || may_be_away, "{:?} was {error}", request.kind);
                if let Some(text) = request.text {
                    self.ledger.forbid(text, "its request was refused").unwrap();
                }
            }
            "outcome_unknown" => assert!(request.changes(), "a read has no outcome"),
            "connection_ended" => {
                let person = request.person.expect("a session");
                let its = &self.people[person];
                let is_due = its.may_end || self.unix_ms() >= its.heard_at + self.plan.timeout_ms;
                let heard_at = its.heard_at - UNIX_MS;
                assert!(is_due, "session {} has ended too early after {heard_at}", its.number);
                self.people[person].has_ended = true;
            }
            other => panic!("{status} {other} for {:?}", request.kind),
        }
        self.lose(request);
    }

    fn take_reply(&mut self, mut request: Request, body: &Value) {
        let names: Vec<_> = request.subscriptions.iter().map(|it| it.name.clone()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let slices = slices(body, &names).unwrap();
        let mut is_empty = true;
        let terms = Terms::default();
        let waited = self.now - request.sent_at;
        for (place, slice) in slices.iter().enumerate() {
            let subscription = &mut request.subscriptions[place];
            let (channel, since) = (subscription.channel, subscription.since);
            subscription.take_slice(slice, terms).unwrap();
            is_empty &= slice.messages.is_empty() && !slice.is_missed && since != Since::All;
            if waited < BARRIER_MS && request.kind == Kind::Read {
                let floor = request.floors[place];
                let next_id = slice.next_id;
                assert!(next_id >= floor, "{next_id} after {floor} was answered elsewhere");
            }
            for message in &slice.messages {
                self.ledger.see(channel, message).unwrap();
            }
            if request.observes == Some(channel) {
                if slice.is_missed {
                    self.tally("observer missed");
                    self.ledger.skip_to(channel, slice.first_id()).unwrap();
                }
                self.observed[channel] = slice.next_id;
            }
        }
        if request.kind == Kind::Poll && is_empty {
            self.tally("poll without a message");
            let person = request.person.map(|person| &self.people[person]);
            let is_dismissed = person.is_some_and(|its| {
                let session = self.ledger.sessions.get(&its.number);
                let silent_ms = self.unix_ms() - its.heard_at;
                let is_of_another = |(poll, sent_at): &(u64, u64)| {
                    *poll != request.poll && sent_at + PATIENCE_MS >= request.sent_at
                };
                its.polls.iter().any(is_of_another)
                    || its.may_end
                    || silent_ms >= self.plan.timeout_ms
                    || session.is_none_or(|session| session.ended.is_some())
            });
            let is_late = waited >= self.plan.poll_ms;
            // A node for which the log lacks its beginning too early loads the snapshot.
            let is_trimmed = self.plan.sizes.are_small();
            let behind_until = self.nodes[request.node].disturbed_at + self.plan.quiet_ms();
            let has_loaded = is_trimmed && behind_until >= request.sent_at;
            let is_ok = is_late || is_dismissed || has_loaded;
            assert!(is_ok, "a poll was answered with nothing");
            self.record.tally.count_if(!is_late, "poll dismissed");
        }
        let (node, quiet_ms) = (&self.nodes[request.node], self.plan.quiet_ms());
        if let Some(person) = request.person {
            if node.disturbed_at + quiet_ms < request.sent_at {
                self.hear(person, &request);
            } else if node.cut_off_at + quiet_ms < request.sent_at {
                // It stood still, but asked how the log went on before it answered.
                self.hear_at(person, request.sent_at);
            }
        }
    }

    fn take_members(&self, request: &Request, body: &Value) {
        if self.now - request.sent_at >= BARRIER_MS {
            return;
        }
        let channel = request.channels[0];
        let members = body["members"].as_array().expect("members");
        let shown = |person: usize| {
            let number = self.people[person].number;
            members.iter().any(|member| member["connection"].as_u64() == Some(number))
        };
        for person in &request.present {
            let its = &self.people[*person];
            let lives = its.channels.contains(&channel)
                && !its.may_end
                && !its.has_ended
                && self.unix_ms() < its.heard_at + self.plan.timeout_ms;
            assert!(!lives || shown(*person), "session {} is not shown", its.number);
        }
        for person in &request.absent {
            let its = &self.people[*person];
            let has_left = its.left.contains(&channel) || (its.has_ended && its.may_end);
            assert!(!has_left || !shown(*person), "session {} is shown", its.number);
        }
    }

    /// Checks that no request waits for too long, and that polls keep their sessions alive.
    pub(crate) fn check_waits(&mut self) {
        let now = self.now;
        let mut heard = Vec::new();
        for request in &self.requests {
            let node = &self.nodes[request.node];
            let since = request.sent_at.max(node.paused_until);
            // A barrier waits a second after the last reply of a Redis that is far away, and so
            // does a call that waits for one first.
            let most = match request.kind {
                Kind::Poll => self.plan.poll_ms + PATIENCE_MS,
                _ if request.changes() => CHANGE_MS,
                _ => PATIENCE_MS,
            };
            let most = most + if self.plan.is_far { 1_000 } else { 0 };
            assert!(
                node.paused_until > now || now <= since + most,
                "{:?} at {}/{} waits since {since}",
                request.kind,
                request.node,
                request.place
            );
            let quiet_since = node.disturbed_at.max(request.sent_at);
            if let (Some(person), Kind::Poll) = (request.person, request.kind)
                && quiet_since + self.plan.quiet_ms() < now
                && !self.people[person].has_ended
            {
                heard.push(person);
            }
        }
        for person in heard {
            let number = self.people[person].number;
            let has_ended =
                self.ledger.sessions.get(&number).is_some_and(|session| session.ended.is_some());
            if !has_ended {
                self.hear_at(person, now);
            }
        }
    }
}

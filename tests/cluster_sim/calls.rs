//! Calls of the clients.

use speak::hub::{Pair, PairKind};
use support::http::{get, target};
use support::reader::{Since, Subscription};
use support::text::Text;

use crate::person::Person;
use crate::plan::Step;
use crate::request::{Kind, Request};
use crate::world::World;

/// Sessions that call.
const PEOPLE_MAX: usize = 12;

/// Time after which a record is applied at each node that is not in trouble.
const LAG_MS: u64 = 2_000;

/// Index of the channel that is a room, and of the one that is a feed.
pub(crate) const ROOM: usize = 0;
const FEED: usize = 1;

/// Returns the names of a channel that is one of a pair.
fn pair(channel: usize) -> Option<Pair> {
    let kind = match channel {
        ROOM => PairKind::Room,
        FEED => PairKind::Feed,
        _ => return None,
    };
    Some(Pair::new(kind, *b"ABCDEFGHIJKLMNOPQRSTUV"))
}

/// Returns the name under which a channel is read.
pub(crate) fn name(channel: usize) -> String {
    pair(channel).map_or_else(|| format!("c{channel}"), |pair| pair.given)
}

/// Returns the name under which a channel is changed.
fn name_to_change(channel: usize, kind: Kind) -> String {
    let is_secret = channel == FEED || matches!(kind, Kind::Remove(_) | Kind::Kick(..));
    match pair(channel).filter(|_| is_secret) {
        Some(pair) => pair.secret,
        None => name(channel),
    }
}

impl World {
    pub(crate) fn call(&mut self, step: Step) {
        let channel = self.random.index(self.plan.channels);
        match step {
            Step::Write => self.say(Kind::Write, None, channel),
            Step::WriteAs => {
                if let Some(person) = self.caller() {
                    self.say(Kind::Write, Some(person), channel);
                }
            }
            Step::Introduce => {
                if self.people.iter().filter(|it| !it.has_ended).count() < PEOPLE_MAX {
                    self.say(Kind::Introduce, None, channel);
                }
            }
            Step::IntroduceAs => {
                if let Some(person) = self.caller()
                    && !self.is_joining_or_leaving(person)
                {
                    self.people[person].left.remove(&channel);
                    self.unsettle_members(person, channel);
                    self.say(Kind::IntroduceAs, Some(person), channel);
                }
            }
            Step::Goodbye => {
                if let Some(person) = self.caller() {
                    self.people[person].may_end = true;
                    let number = self.people[person].number;
                    if let Some(session) = self.ledger.sessions.get_mut(&number) {
                        session.leave();
                    }
                    let text = self.random.once_in(2).then_some(Text::EVERY_CHANNEL);
                    self.request(Kind::Goodbye, Some(person), vec![], text);
                }
            }
            Step::Leave => {
                if let Some(person) = self.caller()
                    && !self.is_joining_or_leaving(person)
                {
                    self.people[person].channels.remove(&channel);
                    self.unsettle_members(person, channel);
                    let number = self.people[person].number;
                    if let Some(session) = self.ledger.sessions.get_mut(&number) {
                        session.leaves.push(channel);
                    }
                    let text = self.random.once_in(2).then_some(channel as u32);
                    self.request(Kind::Leave, Some(person), vec![channel], text);
                }
            }
            Step::Remove => {
                let channel = if self.plan.channels > FEED { channel.min(FEED) } else { ROOM };
                let id = self.random.below(self.answered[channel]);
                if id > 0 {
                    self.ledger.may_remove(channel, id);
                    self.request(Kind::Remove(id), None, vec![channel], None);
                }
            }
            Step::Kick => {
                if let Some(person) = self.caller()
                    && !self.is_joining_or_leaving(person)
                {
                    // It may be there or not, and come back at once.
                    self.unsettle_members(person, ROOM);
                    let its = &mut self.people[person];
                    its.channels.remove(&ROOM);
                    its.unsure.insert(ROOM);
                    let number = its.number;
                    self.ledger.may_kick(ROOM, number);
                    let seconds = self.random.pick(&[0, 0, 0, 1]);
                    self.may_be_away |= seconds > 0;
                    self.request(Kind::Kick(number, seconds), None, vec![ROOM], None);
                }
            }
            Step::Create => {
                let kind = self.random.pick(&[PairKind::Inbox, PairKind::Feed, PairKind::Room]);
                self.request(Kind::Create(kind), None, vec![], None);
            }
            Step::Read | Step::Poll => {
                let kind = if step == Step::Read { Kind::Read } else { Kind::Poll };
                self.read(kind, None);
            }
            Step::ReadAs | Step::PollAs => {
                let kind = if step == Step::ReadAs { Kind::Read } else { Kind::Poll };
                if let Some(person) = self.caller() {
                    self.read(kind, Some(person));
                }
            }
            Step::Members => self.request(Kind::Members, None, vec![channel], None),
            Step::ClosePoll => self.close_poll(),
            _ => unreachable!("no call"),
        }
    }

    fn say(&mut self, kind: Kind, person: Option<usize>, channel: usize) {
        self.request(kind, person, vec![channel], Some(channel as u32));
    }

    /// Returns a session that calls.
    fn caller(&mut self) -> Option<usize> {
        let calls = |it: &Person| !it.has_ended && !it.is_silent;
        let callers: Vec<_> =
            (0..self.people.len()).filter(|at| calls(&self.people[*at])).collect();
        let person = self.random.pick_any(&callers)?;
        // Some fall silent.
        self.people[person].is_silent = self.random.once_in(40);
        Some(person)
    }

    fn is_joining_or_leaving(&self, person: usize) -> bool {
        let kinds = [Kind::IntroduceAs, Kind::Leave];
        self.requests.iter().any(|it| it.person == Some(person) && kinds.contains(&it.kind))
    }

    /// A session is about to join a channel or to leave it. Members that are asked for already may
    /// be those of before, even if they are answered after the session has done the opposite.
    fn unsettle_members(&mut self, person: usize, channel: usize) {
        let asks = |it: &&mut Request| it.kind == Kind::Members && it.channels[0] == channel;
        for request in self.requests.iter_mut().filter(asks) {
            request.present.retain(|it| *it != person);
            request.absent.retain(|it| *it != person);
        }
    }

    fn read(&mut self, kind: Kind, person: Option<usize>) {
        let mut channels = vec![self.random.index(self.plan.channels)];
        if self.plan.channels > 1 && self.random.once_in(3) {
            channels = self.random.indexes(self.plan.channels, 2);
        }
        self.request(kind, person, channels, None);
    }

    /// Sends a request to any node. `text` names the channel of its text.
    fn request(
        &mut self,
        kind: Kind,
        person: Option<usize>,
        channels: Vec<usize>,
        text: Option<u32>,
    ) {
        let Some(node) = self.running_node() else { return };
        let from = person.map_or(0, |person| self.people[person].number);
        self.texts += 1;
        let place = self.nodes[node].client();
        let sender = (node as u32) << 16 | place as u32;
        let text = text.map(|channel| Text { sender, seq: self.texts, channel, from, filler: 0 });
        let answered = &self.answered;
        let subscriptions: Vec<_> = if matches!(kind, Kind::Read | Kind::Poll) {
            let since = |channel: usize| match self.random.below(4) {
                0 if kind == Kind::Read => Since::All,
                1 => Since::Id(1 + self.random.below(answered[channel])),
                _ => Since::Id(answered[channel]),
            };
            let mut since = since;
            channels
                .iter()
                .map(|channel| Subscription::new(*channel, name(*channel), since(*channel)))
                .collect()
        } else {
            Vec::new()
        };
        let mut request = Request {
            node,
            place,
            kind,
            person,
            text,
            floors: channels.iter().map(|channel| self.answered[*channel]).collect(),
            channels,
            subscriptions,
            sent_at: self.now,
            poll: 0,
            observes: None,
            present: Vec::new(),
            absent: Vec::new(),
            is_of_ended: false,
        };
        let now_ms = self.unix_ms();
        if let Some(person) = person {
            let its = &mut self.people[person];
            if kind == Kind::Poll {
                request.poll = its.polls.len() as u64 + 1;
                its.polls.push((request.poll, self.now));
            }
            let session = self.ledger.sessions.get(&its.number);
            // A poll may begin to wait at a node that has not applied the end: it gets the goodbye.
            let lag_ms = if kind == Kind::Poll { LAG_MS } else { 0 };
            let has_ended = |(_, at_ms)| at_ms + lag_ms <= now_ms;
            request.is_of_ended = session.and_then(|it| it.ended).is_some_and(has_ended);
        }
        if kind == Kind::Members {
            let channel = request.channels[0];
            let sure = |it: &&usize| !self.people[**it].unsure.contains(&channel);
            let all: Vec<_> = (0..self.people.len()).collect();
            let present = |it: &&usize| {
                let its = &self.people[**it];
                its.channels.contains(&channel) && !its.may_end && !its.has_ended
            };
            let absent = |it: &&usize| {
                let its = &self.people[**it];
                its.left.contains(&channel) || (its.has_ended && its.may_end)
            };
            request.present = all.iter().filter(sure).filter(present).copied().collect();
            request.absent = all.iter().filter(sure).filter(absent).copied().collect();
        }
        self.send(request);
    }

    /// Sends the read of an observer, unless it waits.
    pub(crate) fn observe(&mut self) {
        for channel in 0..self.plan.channels {
            if self.requests.iter().any(|it| it.observes == Some(channel)) {
                continue;
            }
            let Some(node) = self.running_node() else { return };
            let place = self.nodes[node].client();
            let since = Since::Id(self.observed[channel]);
            self.send(Request {
                node,
                place,
                kind: Kind::Poll,
                person: None,
                text: None,
                channels: vec![channel],
                subscriptions: vec![Subscription::new(channel, name(channel), since)],
                floors: vec![self.answered[channel]],
                sent_at: self.now,
                poll: 0,
                observes: Some(channel),
                present: Vec::new(),
                absent: Vec::new(),
                is_of_ended: false,
            });
        }
    }

    pub(crate) fn send(&mut self, request: Request) {
        let path = match request.kind {
            Kind::Write => "/write",
            Kind::Introduce | Kind::IntroduceAs => "/introduce",
            Kind::Goodbye | Kind::Leave => "/goodbye",
            Kind::Remove(_) => "/remove",
            Kind::Kick(..) => "/kick",
            Kind::Create(_) => "/create",
            Kind::Read | Kind::Poll => "/read",
            Kind::Members => "/members",
        };
        let mut params: Vec<(&str, String)> = Vec::new();
        for (place, channel) in request.channels.iter().enumerate() {
            let name = match request.kind {
                Kind::Read | Kind::Poll | Kind::Members => name(*channel),
                kind => name_to_change(*channel, kind),
            };
            params.push(("channel", name));
            if let Some(subscription) = request.subscriptions.get(place) {
                params.push(("from_id", subscription.id().unwrap_or(0).to_string()));
            }
        }
        if let Some(text) = &request.text {
            params.push(("message", text.write()));
        }
        if let Some(person) = request.person {
            let its = &self.people[person];
            params.push(("connection", its.number.to_string()));
            params.push(("auth", its.auth.clone()));
        }
        match request.kind {
            Kind::Remove(id) => params.push(("id", id.to_string())),
            Kind::Kick(number, seconds) => {
                params.push(("connection", number.to_string()));
                params.push(("seconds", seconds.to_string()));
            }
            Kind::Create(kind) => {
                params.push(("kind", format!("{kind:?}").to_lowercase()));
            }
            _ => {}
        }
        if request.kind == Kind::Read {
            params.push(("timeout", "0".to_owned()));
        }
        let params: Vec<_> = params.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let bytes = get(&target(path, &params));
        self.record.note(|| {
            let Request { node, place, kind, person, observes, .. } = &request;
            format!(
                "    {kind:?} at {node}/{place} of {person:?}, observer {observes:?}: {params:?}"
            )
        });
        self.nodes[request.node].send(request.place, bytes);
        self.requests.push(request);
    }

    fn close_poll(&mut self) {
        let is_right = |it: &Request| it.kind == Kind::Poll && it.person.is_some();
        let polls: Vec<_> =
            (0..self.requests.len()).filter(|at| is_right(&self.requests[*at])).collect();
        if let Some(at) = self.random.pick_any(&polls) {
            let request = self.requests.remove(at);
            self.close(&request);
        }
    }

    /// A client closes whose request has no response.
    pub(crate) fn close(&mut self, request: &Request) {
        self.record.note(|| format!("    {}/{} closes", request.node, request.place));
        self.tally("poll closed");
        self.nodes[request.node].close(request.place);
        let now = self.unix_ms();
        if let Some(person) = request.person {
            let its = &mut self.people[person];
            its.may_end = true;
            if let Some(session) = self.ledger.sessions.get_mut(&its.number) {
                session.closings.push(now);
            }
        }
    }
}

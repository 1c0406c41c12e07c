//! What everybody was told, held against itself and against what was asked: messages, and who is connected.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

/// A message as a reader sees it, and what is told with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: u64,
    pub(crate) kind: String,
    pub(crate) time: u64,
    pub(crate) from: Option<u64>,
    pub(crate) text: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Message {
    pub(crate) fn of(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Self {
            id: value["id"].as_u64().expect("a message has an id"),
            kind: text("type").expect("a message has a type"),
            time: value["time"].as_u64().expect("a message has a time"),
            from: value["from"].as_u64(),
            text: text("message"),
            reason: text("reason"),
        }
    }
}

#[derive(Default)]
pub(crate) struct Channel {
    messages: BTreeMap<u64, Message>,
    /// One above the highest id that anybody heard of.
    pub(crate) next_id: u64,
    /// The witness missed something here: what it did not see may have happened.
    pub(crate) is_leaky: bool,
}

/// A text that was sent, and what is known of its fate.
pub(crate) struct Saying {
    pub(crate) has_arrived: bool,
    pub(crate) is_refused: bool,
    seen_at: Option<(usize, u64)>,
}

/// An introduced connection. Times in milliseconds.
pub(crate) struct Connection {
    pub(crate) number: u64,
    pub(crate) auth: String,
    pub(crate) channels: BTreeSet<usize>,
    /// It lives at least so long from here; it may live that long from there.
    pub(crate) alive_at: u64,
    pub(crate) alive_at_most: u64,
    /// When clients on which a read waited with it closed.
    pub(crate) closings: Vec<u64>,
    /// A goodbye to all channels was sent; it was answered.
    pub(crate) asked_to_leave: bool,
    pub(crate) has_left: bool,
    pub(crate) asked_to_leave_one: BTreeSet<usize>,
    /// It has to have ended by the time that the loop sleeps, for what happened.
    pub(crate) must_have_ended: Option<&'static str>,
    pub(crate) ended: Option<(String, u64)>,
    /// Another call that carries it was under way in this turn.
    pub(crate) busy_at: u64,
    /// When the last read was closed that waited with it, unless what ended then beside that may keep it alive.
    pub(crate) closed_at: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) channels: Vec<Channel>,
    pub(crate) sayings: Vec<Saying>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) by_number: HashMap<u64, usize>,
    pub(crate) timeout_ms: u64,
    pub(crate) grace_ms: u64,
    pub(crate) goodbyes: u64,
    /// The wall clock does not jump.
    pub(crate) has_steady_clock: bool,
    /// When the loop last slept.
    pub(crate) slept_at: u64,
}

impl Ledger {
    /// A text of its own, for a message that is about to be sent.
    pub(crate) fn new_text(&mut self, padding: usize) -> (usize, String) {
        let number = self.sayings.len();
        self.sayings.push(Saying { has_arrived: false, is_refused: false, seen_at: None });
        (number, format!("t{number}-{}", "x".repeat(padding)))
    }

    /// Somebody was told a message, in the turn of `now`. `is_witness` for the one who sees all, in order.
    pub(crate) fn see(&mut self, channel: usize, message: &Message, now: u64, is_witness: bool) {
        let Message { id, ref text, .. } = *message;
        let known = self.channels[channel].messages.get(&id);
        if let Some(known) = known {
            assert_eq!(known, message, "a message is the same for everybody");
        } else {
            let next_id = &mut self.channels[channel].next_id;
            *next_id = (*next_id).max(id + 1);
            self.channels[channel].messages.insert(id, message.clone());
            if let Some(text) = text.as_deref().and_then(|text| text.strip_prefix('t')) {
                let number =
                    text.split('-').next().and_then(|it| it.parse().ok()).expect("a text of ours");
                self.claim(number, channel, id);
            }
        }
        if is_witness {
            match message.kind.as_str() {
                "introduction" => self.see_introduction(channel, message, now),
                "goodbye" => self.see_goodbye(channel, message, now),
                _ => {}
            }
        }
    }

    /// A text is under this id.
    pub(crate) fn claim(&mut self, text: usize, channel: usize, id: u64) {
        let next_id = &mut self.channels[channel].next_id;
        *next_id = (*next_id).max(id + 1);
        let saying = &mut self.sayings[text];
        assert!(saying.has_arrived, "message {text} was added before all of it arrived");
        assert!(!saying.is_refused, "message {text} was refused, and added");
        let seen_at = *saying.seen_at.get_or_insert((channel, id));
        assert_eq!(seen_at, (channel, id), "message {text} was added twice");
    }

    pub(crate) fn refuse(&mut self, text: usize) {
        let saying = &mut self.sayings[text];
        assert!(saying.seen_at.is_none(), "message {text} was added, and refused");
        saying.is_refused = true;
    }

    /// Somebody was told of a connection of its own.
    pub(crate) fn connect(&mut self, number: u64, auth: &str, now: u64) -> usize {
        let place = self.place_of(number, now);
        let connection = &mut self.connections[place];
        assert!(connection.auth.is_empty() || connection.auth == auth, "a connection has one auth");
        auth.clone_into(&mut connection.auth);
        place
    }

    fn place_of(&mut self, number: u64, now: u64) -> usize {
        let next = self.connections.len();
        let place = *self.by_number.entry(number).or_insert(next);
        if place == next {
            self.connections.push(Connection {
                number,
                auth: String::new(),
                channels: BTreeSet::new(),
                alive_at: now,
                alive_at_most: now,
                closings: Vec::new(),
                asked_to_leave: false,
                has_left: false,
                asked_to_leave_one: BTreeSet::new(),
                must_have_ended: None,
                ended: None,
                busy_at: 0,
                closed_at: None,
            });
        }
        place
    }

    fn see_introduction(&mut self, channel: usize, message: &Message, now: u64) {
        let number = message.from.expect("an introduction is from somebody");
        // The witness may be told late, but whatever came before the loop slept was told then.
        let place = self.place_of(number, self.slept_at);
        let connection = &mut self.connections[place];
        // The witness is told channel by channel: what was said last may be told first.
        let is_ended = connection
            .ended
            .as_ref()
            .is_some_and(|(_, at)| self.has_steady_clock && message.time > *at);
        assert!(
            !is_ended || self.channels[channel].is_leaky,
            "{number} is introduced after its end"
        );
        connection.channels.insert(channel);
        connection.alive_at_most = connection.alive_at_most.max(now);
    }

    fn see_goodbye(&mut self, channel: usize, message: &Message, now: u64) {
        let number = message.from.expect("a goodbye is from somebody");
        let reason = message.reason.clone().expect("a goodbye has a reason");
        self.goodbyes += 1;
        let is_leaky = self.channels[channel].is_leaky;
        let (timeout_ms, grace_ms) = (self.timeout_ms, self.grace_ms);
        let Some(&place) = self.by_number.get(&number) else {
            assert!(is_leaky, "goodbye of {number}, whom nobody knew");
            return;
        };
        let connection = &mut self.connections[place];
        assert!(connection.channels.remove(&channel) || is_leaky, "a second goodbye of {number}");
        let ends = match reason.as_str() {
            "left" if connection.asked_to_leave => true,
            "left" => {
                assert!(
                    connection.asked_to_leave_one.contains(&channel),
                    "{number} never said goodbye"
                );
                false
            }
            "timeout" => {
                let due = connection.alive_at + timeout_ms;
                assert!(now >= due, "{number} was given up at {now}, and lived to {due}");
                true
            }
            "closed" => {
                let due = |closed: &u64| now >= closed + grace_ms;
                let is_due = connection.closings.iter().any(due);
                assert!(is_due, "{number} closed at {now}, after {:?}", connection.closings);
                true
            }
            _ => panic!("no such reason: {reason}"),
        };
        if !ends
            || connection.asked_to_leave
                && reason == "left"
                && connection.asked_to_leave_one.contains(&channel)
        {
            // It may have been either.
            return;
        }
        match &connection.ended {
            None => connection.ended = Some((reason, message.time)),
            Some((its, at)) => {
                assert_eq!(
                    (its.as_str(), *at),
                    (reason.as_str(), message.time),
                    "{number} ends in all its channels at once"
                );
            }
        }
    }

    /// Whoever lives, on whom nothing else is known.
    pub(crate) fn is_ended(&self, connection: usize) -> bool {
        self.connections[connection].ended.is_some() || self.connections[connection].has_left
    }

    /// Whoever is in no channel any more, whatever the reason.
    pub(crate) fn is_over(&self, connection: usize) -> bool {
        self.is_ended(connection) || self.connections[connection].channels.is_empty()
    }
}

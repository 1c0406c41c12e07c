//! Messages and answers, as the contract describes them.

use serde_json::Value;
use speak::hub::{Reason, Reply};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Message,
    Introduction,
    Goodbye,
    Removal,
    /// What stays of a message that was removed.
    Removed,
}

/// One entry of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: u64,
    pub(crate) kind: Type,
    pub(crate) time: u64,
    pub(crate) from: Option<u64>,
    pub(crate) is_owner: bool,
    pub(crate) text: Option<String>,
    pub(crate) reason: Option<Reason>,
    /// Id of the message that this removal is about.
    pub(crate) of: Option<u64>,
}

impl Message {
    /// Parses a message of the hub, which must be written in one way.
    fn parse(json: &[u8]) -> Self {
        let json = str::from_utf8(json).expect("JSON is UTF-8");
        let value: Value =
            serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {json}"));
        let number = |key: &str| value.get(key).map(|number| number.as_u64().expect(key));
        let text = |key: &str| value.get(key).map(|text| text.as_str().expect(key));
        let message = Self {
            id: number("id").expect("every message has an id"),
            kind: match text("type") {
                Some("message") => Type::Message,
                Some("introduction") => Type::Introduction,
                Some("goodbye") => Type::Goodbye,
                Some("removal") => Type::Removal,
                Some("removed") => Type::Removed,
                other => panic!("type {other:?}"),
            },
            time: number("time").expect("every message has a time"),
            from: number("from"),
            is_owner: value.get("owner").is_some(),
            text: text("message").map(str::to_owned),
            reason: text("reason").map(|reason| match reason {
                "timeout" => Reason::Timeout,
                "closed" => Reason::Closed,
                "left" => Reason::Left,
                "removed" => Reason::Removed,
                other => panic!("reason {other}"),
            }),
            of: number("of"),
        };
        assert_eq!(message.json(), json, "keys, their order, or an escape");
        message
    }

    /// Returns the message as an answer contains it.
    pub(crate) fn json(&self) -> String {
        let kind = match self.kind {
            Type::Message => "message",
            Type::Introduction => "introduction",
            Type::Goodbye => "goodbye",
            Type::Removal => "removal",
            Type::Removed => "removed",
        };
        let owner = if self.is_owner { r#","owner":true"# } else { "" };
        let from = self.from.map(|from| format!(r#","from":{from}"#)).unwrap_or_default();
        let text = self.text.as_deref().map(|text| {
            let quoted = Value::from(text).to_string();
            let quoted = quoted.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
            format!(r#","message":{quoted}"#)
        });
        let text = text.unwrap_or_default();
        let reason = self.reason.map(|reason| format!(r#","reason":"{}""#, reason.as_str()));
        let of = self.of.map(|of| format!(r#","of":{of}"#)).unwrap_or_default();
        let (id, time, reason) = (self.id, self.time, reason.unwrap_or_default());
        format!(r#"{{"id":{id},"type":"{kind}","time":{time}{from}{owner}{text}{reason}{of}}}"#)
    }
}

/// Answer of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) messages: Vec<Message>,
    pub(crate) next_id: u64,
    pub(crate) missed: bool,
    pub(crate) reset: bool,
}

impl Part {
    pub(crate) fn is_nothing(&self) -> bool {
        self.messages.is_empty() && !self.missed && !self.reset
    }
}

/// Answer of a read: a part for each channel, in the order asked.
pub(crate) type Answer = Vec<Part>;

/// Parses an answer of the hub.
pub(crate) fn answer_of(reply: &Reply<'_>) -> Answer {
    let parts: Answer = reply.slices().iter().map(part_of).collect();
    let is_single = matches!(reply, Reply::One(_));
    assert_eq!(is_single, parts.len() == 1, "one channel has its own form of answer");
    parts
}

fn part_of(part: &speak::hub::ChannelSlice<'_>) -> Part {
    let messages: Vec<_> = part.messages().map(Message::parse).collect();
    let (missed, reset) = (part.missed(), part.reset());
    assert!(!(missed && reset), "never both");
    let are_sorted = messages.is_sorted_by(|earlier, later| earlier.id < later.id);
    assert!(are_sorted, "ordered by id, each once: {messages:?}");
    let are_before = messages.iter().all(|message| message.id < part.next_id());
    assert!(are_before, "the cursor is after all messages");
    Part { messages, next_id: part.next_id(), missed, reset }
}

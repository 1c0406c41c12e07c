//! One HTTP response, and the questions that tests ask about it.

use serde_json::Value;
use support::http::{Framing, Head};

/// Returns the framing of a body, which has a length if there is one.
#[track_caller]
pub fn framing_of(head: &Head) -> Framing {
    let framing = head.framing().expect("a framing");
    let has_length = matches!(framing, Framing::None | Framing::Length(_));
    assert!(has_length, "no Content-Length: {head:?}");
    framing
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// Parses a head, up to and with the empty line that ends it.
    #[track_caller]
    pub fn parse_head(head: &[u8]) -> Self {
        let head = Head::parse(head).expect("a head");
        Self::from_head(head.expect("all of the head").0)
    }

    pub fn from_head(head: Head) -> Self {
        Self { status: head.status, headers: head.fields, body: Vec::new() }
    }

    /// Returns the value of a header that occurs once, or not at all.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let its = |header: &&(String, String)| header.0.eq_ignore_ascii_case(name);
        let mut values = self.headers.iter().filter(its).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} occurs twice: {self:?}");
        value
    }

    pub fn says_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// Claims a failed call: its status, and the error's name in the JSON of the contract.
    #[track_caller]
    pub fn fails_with(&self, status: u16, error: &str) {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        let start = format!("{{\"error\":\"{error}\",\"detail\":\"");
        assert!(text.starts_with(&start), "{text} is not {error}");
        let end = format!("\",\"status\":{status}}}");
        assert!(text.ends_with(&end), "{text} does not end with {end}");
        assert_eq!(self.json().as_object().expect("an object").len(), 3);
    }

    /// Returns the messages of a read of one channel.
    #[track_caller]
    pub fn messages(&self) -> Vec<Value> {
        let answer = self.json();
        let messages = answer["messages"].as_array();
        messages.unwrap_or_else(|| panic!("no list of messages: {answer}")).clone()
    }

    #[track_caller]
    pub fn ids(&self) -> Vec<u64> {
        let messages = self.messages();
        let ids = messages.iter().map(|message| message["id"].as_u64());
        ids.map(|id| id.expect("an id")).collect()
    }

    /// Returns the texts of those messages that have one.
    #[track_caller]
    pub fn texts(&self) -> Vec<String> {
        let messages = self.messages();
        let texts = messages.iter().filter_map(|it| it["message"].as_str());
        texts.map(str::to_owned).collect()
    }

    /// Returns `type` and `reason` (or nothing) of each message.
    #[track_caller]
    pub fn events(&self) -> Vec<String> {
        let messages = self.messages();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events =
            messages.iter().map(|it| format!("{} {}", word(&it["type"]), word(&it["reason"])));
        events.map(|event| event.trim_end().to_owned()).collect()
    }

    #[track_caller]
    pub fn next_id(&self) -> u64 {
        self.json()["next_id"].as_u64().expect("a next_id")
    }

    /// Says whether the key is there and true; a key that is there is never false.
    #[track_caller]
    pub fn is(&self, key: &str) -> bool {
        let answer = self.json();
        let value = &answer[key];
        assert!(value.is_null() || *value == Value::Bool(true), "{answer}");
        *value == Value::Bool(true)
    }
}

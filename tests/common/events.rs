//! A reader of event streams, by the rules of HTML's "Server-sent events".

use serde_json::Value;

use super::{Client, Params, Response, Server, request, target};

/// An event stream of which the head has come.
pub struct EventStream {
    pub client: Client,
    pub head: Response,
}

/// One block of a stream, up to the empty line behind it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The field `event`.
    pub kind: Option<String>,
    pub id: Option<String>,
    pub data: Option<String>,
    pub retry: Option<String>,
    /// It has a comment.
    pub is_sign_of_life: bool,
}

impl EventStream {
    /// Sends the request and reads the head of what answers it.
    #[track_caller]
    pub fn open(mut client: Client, params: &Params, headers: &[(&str, &str)]) -> Self {
        let headers = [&[("Accept", "text/event-stream")], headers].concat();
        client.send(request("GET", &target("/read", params), &headers, None));
        let head = client.head();
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Self { client, head }
    }

    /// The next block. None if the stream ends first, with or without a part of one.
    #[track_caller]
    pub fn block(&mut self) -> Option<Event> {
        let block = self.client.take_until(b"\n\n")?;
        let block = String::from_utf8(block).expect("a stream in UTF-8");
        let mut event = Event::default();
        for line in block.split('\n') {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let place = match name {
                "" => {
                    event.is_sign_of_life = true;
                    continue;
                }
                "event" => &mut event.kind,
                "id" => &mut event.id,
                "data" => &mut event.data,
                "retry" => &mut event.retry,
                _ => panic!("a field of another kind: {line:?}"),
            };
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            assert_eq!(place.replace(value), None, "{name} stands there twice in {block:?}");
        }
        Some(event)
    }

    /// Reads what a stream begins with, and returns its first cursor.
    #[track_caller]
    pub fn beginning(&mut self) -> String {
        let retry = self.block().expect("a beginning");
        assert_eq!(retry, Event { retry: Some("1000".into()), ..Event::default() });
        let first = self.block().expect("a cursor");
        let cursor = first.id.clone().expect("an id");
        assert_eq!(
            first,
            Event { id: Some(cursor.clone()), ..Event::default() },
            "more than a cursor"
        );
        cursor
    }

    /// The next event that carries data; signs of life are passed over. None if the stream ends first.
    #[track_caller]
    pub fn maybe_event(&mut self) -> Option<Event> {
        loop {
            let event = self.block()?;
            if event.data.is_some() {
                return Some(event);
            }
            assert!(event.is_sign_of_life, "an event without data: {event:?}");
        }
    }

    #[track_caller]
    pub fn event(&mut self) -> Event {
        self.maybe_event().expect("an event, not an end")
    }

    /// The next `count` messages.
    #[track_caller]
    pub fn messages(&mut self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.event().message()).collect()
    }

    /// The texts of the next `count` messages.
    #[track_caller]
    pub fn texts(&mut self, count: usize) -> Vec<String> {
        self.messages(count)
            .iter()
            .map(|it| it["message"].as_str().expect("a text").to_owned())
            .collect()
    }

    /// Claims that the stream ends without a further event.
    #[track_caller]
    pub fn ends(&mut self) {
        let event = self.maybe_event();
        assert_eq!(event, None);
    }
}

impl Event {
    /// The message that it carries, which is no gap.
    #[track_caller]
    pub fn message(&self) -> Value {
        assert_eq!(self.kind, None, "{self:?}");
        serde_json::from_str(self.data.as_ref().expect("data"))
            .unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The kind and the data of an event that has no cursor of its own: a gap.
    #[track_caller]
    pub fn gap(&self) -> (&str, &str) {
        assert_eq!(self.id, None, "{self:?}");
        (self.kind.as_deref().expect("a kind"), self.data.as_deref().expect("data"))
    }

    #[track_caller]
    pub fn cursor(&self) -> &str {
        self.id.as_deref().expect("a cursor")
    }
}

impl Server {
    /// An event stream with its beginning read.
    #[track_caller]
    pub fn events(&self, params: &Params) -> EventStream {
        self.events_after(params, None)
    }

    /// The same, of a client that comes back with a cursor.
    #[track_caller]
    pub fn events_after(&self, params: &Params, last_event_id: Option<&str>) -> EventStream {
        let header = last_event_id.map(|id| ("Last-Event-ID", id));
        let mut stream = EventStream::open(self.client(), params, header.as_slice());
        stream.beginning();
        stream
    }
}

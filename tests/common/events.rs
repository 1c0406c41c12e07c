//! A client of event streams.

use serde_json::Value;
use support::http::{Params, request, target};

use super::client::Client;
use super::response::Response;
use super::server::Server;

pub use support::sse::Event;

/// An event stream of which the head has come.
pub struct EventStream {
    pub client: Client,
    pub head: Response,
}

impl EventStream {
    /// Sends the request and reads the head of the response.
    #[track_caller]
    pub fn open(mut client: Client, params: &Params, headers: &[(&str, &str)]) -> Self {
        let headers = [&[("Accept", "text/event-stream")], headers].concat();
        client.send(request("GET", &target("/read", params), &headers, None));
        let head = client.head();
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Self { client, head }
    }

    /// Reads the next block. `None` if the stream ends first, with or without a part of one.
    #[track_caller]
    pub fn block(&mut self) -> Option<Event> {
        let block = self.client.take_until(b"\n\n")?;
        Some(Event::parse(&block).expect("an event"))
    }

    /// Reads what a stream begins with, and returns its first cursor.
    #[track_caller]
    pub fn beginning(&mut self) -> String {
        let retry = self.block().expect("a beginning");
        assert_eq!(retry, Event { retry: Some("1000".into()), ..Event::default() });
        let first = self.block().expect("a cursor");
        assert_eq!(first, Event { id: first.id.clone(), ..Event::default() }, "more than a cursor");
        first.id.expect("an id")
    }

    /// Reads the next event with data, after heartbeats. `None` if the stream ends first.
    #[track_caller]
    pub fn maybe_event(&mut self) -> Option<Event> {
        loop {
            let event = self.block()?;
            if event.data.is_some() {
                return Some(event);
            }
            assert!(event.is_heartbeat, "an event without data: {event:?}");
        }
    }

    #[track_caller]
    pub fn event(&mut self) -> Event {
        self.maybe_event().expect("an event, not an end")
    }

    /// Reads the next `count` messages.
    #[track_caller]
    pub fn messages(&mut self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.event().message()).collect()
    }

    /// Reads the texts of the next `count` messages.
    #[track_caller]
    pub fn texts(&mut self, count: usize) -> Vec<String> {
        let messages = self.messages(count);
        messages.iter().map(|it| it["message"].as_str().expect("a text").to_owned()).collect()
    }

    /// Claims that the stream ends without a further event.
    #[track_caller]
    pub fn ends(&mut self) {
        assert_eq!(self.maybe_event(), None);
    }
}

impl Server {
    /// Opens an event stream, and reads its beginning.
    #[track_caller]
    pub fn events(&self, params: &Params) -> EventStream {
        self.events_after(params, None)
    }

    /// Opens an event stream for a client that comes back with a cursor.
    #[track_caller]
    pub fn events_after(&self, params: &Params, last_event_id: Option<&str>) -> EventStream {
        let header = last_event_id.map(|id| ("Last-Event-ID", id));
        let mut stream = EventStream::open(self.client(), params, header.as_slice());
        stream.beginning();
        stream
    }
}

//! A client of event streams.

use std::mem;

use serde_json::Value;
use support::http::{self, Params, request, target};
use support::sse::block_bytes;

use super::client::Client;
use super::response::Response;
use super::server::Server;

pub use support::sse::Event;

/// An event stream of which the head has come.
pub struct EventStream {
    pub client: Client,
    pub head: Response,
    /// Bytes of chunks without their framing: a proxy may cut chunks anywhere.
    decoded: Vec<u8>,
    /// The last chunk has come.
    has_ended: bool,
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
        Self::after(client, head)
    }

    /// Continues after the head of a stream.
    pub fn after(client: Client, head: Response) -> Self {
        Self { client, head, decoded: Vec::new(), has_ended: false }
    }

    /// Says whether the last chunk has come.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn is_chunked(&self) -> bool {
        self.head.header("transfer-encoding") == Some("chunked")
    }

    /// Reads the bytes of the next block. `None` if the stream ends first, with or without a part
    /// of one.
    #[track_caller]
    pub fn raw_block(&mut self) -> Option<Vec<u8>> {
        if !self.is_chunked() {
            return self.client.take_or_end("an event", |received| {
                block_bytes(received).map(|end| (received[..end].to_vec(), end))
            });
        }
        loop {
            if let Some(end) = block_bytes(&self.decoded) {
                let rest = self.decoded.split_off(end);
                return Some(mem::replace(&mut self.decoded, rest));
            }
            if self.has_ended {
                return None;
            }
            let data = self.client.take_or_end("a chunk", |received| {
                let chunk = http::chunk(received).expect("a chunk")?;
                Some((received[chunk.head_bytes..][..chunk.size].to_vec(), chunk.bytes()))
            })?;
            self.has_ended = data.is_empty();
            self.decoded.extend(data);
        }
    }

    /// Reads the next block. `None` if the stream ends first.
    #[track_caller]
    pub fn block(&mut self) -> Option<Event> {
        let block = self.raw_block()?;
        Some(Event::parse(&block).expect("an event"))
    }

    /// Reads the event with which a stream begins, and returns its cursor.
    #[track_caller]
    pub fn beginning(&mut self) -> String {
        let ready = self.block().expect("a beginning");
        let expected = Event {
            kind: Some("ready".into()),
            id: ready.id.clone(),
            data: Some("{}".into()),
            retry: Some("1000".into()),
            is_heartbeat: false,
        };
        assert_eq!(ready, expected);
        ready.id.expect("an id")
    }

    /// Reads the next event with data, after heartbeats. `None` if the stream ends first.
    #[track_caller]
    pub fn maybe_event(&mut self) -> Option<Event> {
        loop {
            let event = self.block()?;
            if !event.is_heartbeat {
                return Some(event);
            }
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

    /// Claims that the server ends the stream without a further event: in chunks, with the last.
    #[track_caller]
    pub fn ends(&mut self) {
        assert_eq!(self.maybe_event(), None);
        assert_eq!(self.has_ended, self.is_chunked(), "the last chunk");
        self.client.is_closed();
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

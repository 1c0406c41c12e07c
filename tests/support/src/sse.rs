//! Event streams, by the rules of HTML's "Server-sent events", as strict as Speak's are.

use memchr::memmem;
use serde_json::Value;

use crate::Malformed;

/// Returns the length of the first block of a stream: an event up to the empty line after it, or a
/// heartbeat, which is one line. `None` while the block is not whole.
pub fn block_bytes(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b':' => memchr::memchr(b'\n', bytes).map(|at| at + 1),
        _ => memmem::find(bytes, b"\n\n").map(|at| at + 2),
    }
}

/// One block of a stream: an event with its data, or a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub kind: Option<String>,
    pub id: Option<String>,
    pub data: Option<String>,
    pub retry: Option<String>,
    /// The block is a comment, and nothing else.
    pub is_heartbeat: bool,
}

impl Event {
    /// Parses a whole block. Some clients take each empty line for the end of an event: so each
    /// block with one has data.
    pub fn parse(block: &[u8]) -> Result<Self, Malformed> {
        let wrong = |what| Malformed::new(what, block);
        if block == b":\n" {
            return Ok(Self { is_heartbeat: true, ..Self::default() });
        }
        let text = str::from_utf8(block).map_err(|_| wrong("an event that is not UTF-8"))?;
        let lines = text.strip_suffix("\n\n").ok_or_else(|| wrong("an event without an end"))?;
        let mut event = Self::default();
        for line in lines.split('\n') {
            let (name, value) =
                line.split_once(':').ok_or_else(|| wrong("a line without colon"))?;
            let field = match name {
                "event" => &mut event.kind,
                "id" => &mut event.id,
                "data" => &mut event.data,
                "retry" => &mut event.retry,
                _ => return Err(wrong("an unknown field")),
            };
            let value = value.strip_prefix(' ').unwrap_or(value);
            if value.contains('\r') || field.replace(value.to_owned()).is_some() {
                return Err(wrong("a field that occurs twice, or contains a line end"));
            }
        }
        if event.data.is_none() { Err(wrong("an event without data")) } else { Ok(event) }
    }

    /// Says whether this is the first event of a stream.
    pub fn is_ready(&self) -> bool {
        self.kind.as_deref() == Some("ready")
    }

    /// Returns the epoch and the cursor of each channel, where the event has an id.
    pub fn cursors(&self) -> Result<Option<(&str, Vec<i64>)>, Malformed> {
        let Some(id) = &self.id else { return Ok(None) };
        let parse = || {
            let (epoch, cursors) = id.split_once(':')?;
            let cursors = cursors.split(',').map(|cursor| cursor.parse().ok());
            Some((epoch, cursors.collect::<Option<_>>()?))
        };
        parse().map(Some).ok_or_else(|| Malformed::new("an id without cursors", id.as_bytes()))
    }

    /// Returns the data, which is JSON.
    pub fn json(&self) -> Result<Option<Value>, Malformed> {
        let Some(data) = &self.data else { return Ok(None) };
        let value = serde_json::from_str(data);
        value.map(Some).map_err(|_| Malformed::new("data that is not JSON", data.as_bytes()))
    }

    /// Returns the message that it carries, which is no gap.
    #[track_caller]
    pub fn message(&self) -> Value {
        assert_eq!(self.kind, None, "{self:?}");
        self.json().expect("JSON").expect("data")
    }

    /// Returns kind and data of an event that has no cursor of its own: a gap.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cursors_and_comments_are_distinguished() {
        let event = Event::parse(b"id: e:5,1\nevent: missed\ndata: {\"a\":1}\n\n").unwrap();
        assert_eq!(event.cursors().unwrap(), Some(("e", vec![5, 1])));
        assert_eq!(event.kind.as_deref(), Some("missed"));
        assert_eq!(event.json().unwrap().unwrap()["a"], 1);
        let comment = Event { is_heartbeat: true, ..Event::default() };
        assert_eq!(Event::parse(b":\n"), Ok(comment));
        let ready = Event::parse(b"retry: 1000\nevent: ready\ndata: {}\n\n").unwrap();
        assert_eq!((ready.retry.as_deref(), ready.is_ready()), (Some("1000"), true));
    }

    #[test]
    fn a_block_ends_with_an_empty_line_and_a_heartbeat_with_its_own() {
        let cases: [(&[u8], _); 5] = [
            (b":\nid: e:1\ndata: {}\n\n", Some(2)),
            (b"data: {}\n\n:\n", Some(10)),
            (b"data: {}\n", None),
            (b":", None),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(block_bytes(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn events_that_no_server_sends_are_errors() {
        for wrong in [
            "data: 1\ndata: 2\n\n",
            "colour: red\ndata: 1\n\n",
            "data\n\n",
            "data: 1\r\n\n",
            "",
            "\n",
            "id: e\nid: e\ndata: 1\n\n",
            "data: 1\n",
            ":\n\n",
            ":\ndata: 1\n\n",
            "retry: 1000\n\n",
            "id: e:1\n\n",
            "data: 1\n\ndata: 2\n\n",
        ] {
            assert!(Event::parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert!(Event::parse(b"\xff: 1\n\n").is_err());
        for id in ["e", "e:", "e:1,x"] {
            assert!(Event { id: Some(id.into()), ..Event::default() }.cursors().is_err(), "{id}");
        }
    }
}

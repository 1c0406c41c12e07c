//! What the clients of Socket.IO, `ws` and Pushpin say, where it is unlike the other servers.
//!
//! Socket.IO greets in frames of a WebSocket, before a client is in its room: packet types of
//! Engine.IO version 4 (`0` open, `2` ping, `3` pong, `4` message), and within a message those of
//! Socket.IO version 5 (`0` connect, `2` event, `3` acknowledgement).

use support::incoming::Item;
use support::ws::{TEXT, client_frame_with};

use crate::dialect::Dialect;
use crate::result::Result;

/// A mask that changes nothing, so that digits of a frame can be patched.
const MASK: [u8; 4] = [0; 4];

/// A frame that is no message.
pub(crate) enum Greeting {
    /// It wants this frame in return.
    Reply(Vec<u8>),
    /// The client is in its room, or may write.
    Begun,
}

fn frame(text: &str) -> Vec<u8> {
    client_frame_with(TEXT, text.as_bytes(), MASK)
}

/// Returns a write with `text` as a frame, or as a request for Pushpin.
pub(crate) fn write(dialect: Dialect, room: u32, text: &str) -> Vec<u8> {
    match dialect {
        Dialect::Ws => frame(&format!(r#"{{"channel":"b{room:05}","message":"{text}"}}"#)),
        Dialect::SocketIo => frame(&format!(r#"420["message","b{room:05}","{text}"]"#)),
        _ => {
            let formats = format!(r#"{{"ws-message":{{"content":"{text}"}}}}"#);
            let body = format!(r#"{{"items":[{{"channel":"b{room:05}","formats":{formats}}}]}}"#);
            let length = body.len();
            format!(
                "POST /publish/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n\
                 {body}"
            )
            .into_bytes()
        }
    }
}

impl Dialect {
    /// Returns whether a client writes into its WebSocket.
    pub(crate) fn writes_frames(self) -> bool {
        matches!(self, Dialect::Ws | Dialect::SocketIo)
    }

    /// Returns whether the head of a WebSocket is the last that a reader waits for.
    pub(crate) fn begins_with_head(self) -> bool {
        self != Dialect::SocketIo
    }

    /// Returns whether each connection takes one write only.
    pub(crate) fn closes_after_write(self) -> bool {
        self == Dialect::Pushpin
    }

    /// Recognizes a frame that is no message. `room` is that of a reader; a writer has none.
    pub(crate) fn greeting(self, item: &Item, room: Option<u32>) -> Option<Greeting> {
        if self != Dialect::SocketIo || item.status.is_some() {
            return None;
        }
        let reply = |text: &str| Some(Greeting::Reply(frame(text)));
        match (item.body(), room) {
            (b"2", _) => reply("3"),
            ([b'0', b'{', ..], _) => reply("40"),
            (b"430[]", Some(_)) | ([b'4', b'0', ..], None) => Some(Greeting::Begun),
            ([b'4', b'0', ..], Some(room)) => reply(&format!(r#"420["join","b{room:05}"]"#)),
            _ => None,
        }
    }

    /// Returns the text of the message in a frame of one of these servers.
    pub(crate) fn text_in_frame<'a>(self, item: &Item<'a>) -> Result<&'a [u8]> {
        if self != Dialect::SocketIo {
            return Ok(item.body());
        }
        let text = item.body().strip_prefix(br#"42["message",""#);
        text.and_then(|text| text.strip_suffix(br#""]"#))
            .ok_or_else(|| format!("not an event: {}", item.lossy()).into())
    }

    /// Returns whether `item` acknowledges a write.
    pub(crate) fn acknowledges(self, item: &Item) -> bool {
        match self {
            Dialect::Ws => item.body() == b"ok",
            Dialect::SocketIo => item.body() == b"430[]",
            _ => item.status == Some(200),
        }
    }
}

#[cfg(test)]
mod tests {
    use support::incoming::{Cutter, Mode};

    use super::*;

    /// Returns the frame with `text` as a server sends it.
    fn received(text: &str) -> Vec<u8> {
        let mut frame = client_frame_with(TEXT, text.as_bytes(), MASK);
        frame[1] &= 0x7f;
        frame.drain(2..6);
        frame
    }

    fn with_frame<T>(text: &str, use_it: impl FnOnce(&Item) -> T) -> T {
        let bytes = received(text);
        use_it(&Cutter::new(Mode::Frames).next(&bytes).unwrap().unwrap())
    }

    #[test]
    fn a_client_of_socket_io_greets_until_it_is_in_its_room() {
        let reply = |text: &str, room| match with_frame(text, |item| {
            Dialect::SocketIo.greeting(item, room)
        }) {
            Some(Greeting::Reply(bytes)) => String::from_utf8_lossy(&bytes[6..]).into_owned(),
            Some(Greeting::Begun) => "begun".to_owned(),
            None => "none".to_owned(),
        };
        assert_eq!(reply(r#"0{"sid":"x"}"#, Some(7)), "40");
        assert_eq!(reply(r#"40{"sid":"x"}"#, Some(7)), r#"420["join","b00007"]"#);
        assert_eq!(reply("430[]", Some(7)), "begun");
        assert_eq!(reply(r#"40{"sid":"x"}"#, None), "begun");
        assert_eq!(reply("430[]", None), "none");
        assert_eq!(reply("2", None), "3");
    }
}

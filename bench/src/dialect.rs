//! The protocols of the servers, and the transports of their readers.

use support::incoming::Mode;

/// Key of the handshake of each WebSocket, from RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Protocol of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// Speak, and the baseline, which imitates it.
    Speak,
    /// nginx with nchan: messages are raw bodies, the cursor is in two headers.
    Nchan,
    /// nginx with one fixed answer.
    Fixed,
    /// Rooms in Node with `ws`: a frame is the message.
    Ws,
    SocketIo,
    /// Pushpin: a frame is the message. Writes go to a port of their own.
    Pushpin,
}

/// Transport of the messages to a reader.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Form {
    /// Long poll.
    Plain,
    /// Long poll as a call of a function with a name of its own.
    Jsonp,
    /// Server-sent events.
    Events,
    /// Frames of a WebSocket.
    Frames,
}

impl Form {
    pub(crate) fn mode(self) -> Mode {
        match self {
            Form::Plain | Form::Jsonp => Mode::Responses,
            Form::Events => Mode::Events,
            Form::Frames => Mode::Frames,
        }
    }

    /// Returns whether one read is the only request of a reader.
    pub(crate) fn stays(self) -> bool {
        self.mode() != Mode::Responses
    }

    /// Returns the header fields of a read after `Host`. The baseline recognizes the form by their
    /// last byte.
    pub(crate) fn headers(self) -> String {
        match self {
            Form::Plain | Form::Jsonp => String::new(),
            Form::Events => "Accept: text/event-stream\r\n".to_owned(),
            Form::Frames => format!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: {KEY}\r\n"
            ),
        }
    }
}

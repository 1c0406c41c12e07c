//! Ways in which a reader gets its messages.

use support::fault::Checked;
use support::incoming::Item;
use support::{ensure, ws};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Form {
    LongPoll,
    Jsonp,
    Events,
    WebSocket,
}

impl Form {
    pub(crate) const ALL: [Self; 4] = [Self::LongPoll, Self::Jsonp, Self::Events, Self::WebSocket];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LongPoll => "long poll",
            Self::Jsonp => "JSONP",
            Self::Events => "event stream",
            Self::WebSocket => "WebSocket",
        }
    }

    /// Says whether one read is all that a reader asks.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Events | Self::WebSocket)
    }

    /// Returns the header fields of a read.
    pub(crate) fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::LongPoll | Self::Jsonp => &[],
            Self::Events => &[("Accept", "text/event-stream")],
            Self::WebSocket => &ws::HANDSHAKE,
        }
    }

    /// Checks the head of a stream.
    pub(crate) fn check_head(self, item: &Item) -> Checked {
        let head = item.head()?;
        let is_right = match self {
            Self::LongPoll | Self::Jsonp => false,
            Self::Events => head.begins_events(),
            Self::WebSocket => {
                head.status == 101 && head.field("sec-websocket-accept") == Some(ws::ACCEPT)
            }
        };
        ensure!(is_right, "a stream was answered {head:?}");
        Ok(())
    }
}

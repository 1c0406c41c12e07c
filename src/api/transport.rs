//! How a stream is asked for, and what is known of it.

use super::client_addr::SourceKey;
use super::error::Error;
use crate::http::{Method, Request, list_contains};

/// By what a stream is told things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Server-sent events. They end with their TCP connection: framing each as a chunk would tell nobody anything
    /// that the events do not, and the same bytes serve HTTP/1.0.
    Sse,
    /// WebSocket.
    WebSocket,
}

/// What has to be known of a stream to tell it things.
#[derive(Debug)]
pub struct Stream {
    /// By what.
    pub transport: Transport,
    /// The channels as they were asked for, if they are several.
    pub(super) channel_labels: Box<[Box<str>]>,
    /// Whom its calls count for.
    pub(super) address: Option<SourceKey>,
}

impl Transport {
    /// How the answer of a read is to come, if it is to be more than one.
    ///
    /// # Errors
    ///
    /// [`Error::BadHandshake`] for an upgrade to WebSocket that is at fault.
    pub(super) fn from_request(request: &Request<'_>) -> Result<Option<Self>, Error> {
        if request.method != Method::Get {
            return Ok(None);
        }
        if request.wants_websocket {
            check_handshake(request)?;
            return Ok(Some(Self::WebSocket));
        }
        Ok(request.accepts_event_stream.then_some(Self::Sse))
    }
}

/// RFC 6455, section 4.2.1, as far as the head's syntax has not settled it. The key is checked where it is answered.
fn check_handshake(request: &Request<'_>) -> Result<(), Error> {
    if !request.field("connection").any(|options| list_contains(options, b"upgrade")) {
        return Err(Error::BadHandshake(
            "a WebSocket needs 'Connection: Upgrade': a proxy may have removed it",
        ));
    }
    if !request.field("sec-websocket-version").eq([b"13"]) {
        return Err(Error::BadHandshake("a WebSocket needs 'Sec-WebSocket-Version: 13'"));
    }
    Ok(())
}

impl Stream {
    pub(super) fn channel_labels(&self) -> impl Iterator<Item = &str> {
        self.channel_labels.iter().map(|name| &**name)
    }
}

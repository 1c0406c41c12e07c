//! Transports of a stream, and the state of a stream.

use std::rc::Rc;

use super::client_addr::SourceKey;
use super::error::Error;
use crate::http::{EventFraming, Method, Request, list_contains};
use crate::hub::ReaderKey;

/// Transport of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Server-sent events.
    Sse(EventFraming),
    /// WebSocket.
    WebSocket,
}

/// Properties of a stream that its updates depend on.
#[derive(Debug)]
pub struct Stream {
    /// Transport.
    pub transport: Transport,
    /// A session is alive as long as the stream is pending.
    pub has_session: bool,
    /// Names of the channels as the request spelled them, if there are several.
    pub(super) channel_labels: Option<Rc<[Box<str>]>>,
    /// Key against which the rate limit counts calls in frames.
    pub(super) address: Option<SourceKey>,
}

/// Format of the updates of a stream of several channels.
#[derive(Debug)]
pub struct UpdateFormat {
    pub(super) transport: Transport,
    pub(super) channel_labels: Rc<[Box<str>]>,
}

/// Open WebSocket from which a frame came.
pub struct WebSocket<'a> {
    /// Reader of the socket. A `read` replaces the key.
    pub reader: &'a mut ReaderKey,
    /// Stream of the socket. A `read` changes its channels.
    pub stream: &'a mut Stream,
}

impl Transport {
    /// Number of transports.
    pub(super) const COUNT: usize = 3;

    /// Returns the place of the transport in a table.
    #[inline]
    pub(super) fn index(self) -> usize {
        match self {
            Self::Sse(EventFraming::Chunked) => 0,
            Self::Sse(EventFraming::ToEnd) => 1,
            Self::WebSocket => 2,
        }
    }

    /// Returns the transport that a read asks for; `None` if it asks for no stream.
    ///
    /// # Errors
    ///
    /// [`Error::BadHandshake`] for a malformed upgrade to WebSocket.
    #[expect(clippy::inline_always, reason = "a step of each read that asks for no stream")]
    #[inline(always)]
    pub(super) fn from_request(request: &Request<'_>) -> Result<Option<Self>, Error> {
        if request.method != Method::Get {
            return Ok(None);
        }
        if request.wants_websocket {
            check_handshake(request)?;
            return Ok(Some(Self::WebSocket));
        }
        let framing =
            || if request.is_http_10() { EventFraming::ToEnd } else { EventFraming::Chunked };
        Ok(request.accepts_event_stream.then(|| Self::Sse(framing())))
    }
}

/// Checks a handshake (RFC 6455, section 4.2.1). The parser has checked the syntax of the head, and
/// the start of the stream will check the key.
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
    /// Returns the names of the channels; empty if there is one channel.
    pub(super) fn channel_labels(&self) -> &[Box<str>] {
        self.channel_labels.as_deref().unwrap_or_default()
    }

    /// Returns the format of the updates. `None` if there is one channel: other streams get the
    /// same updates.
    #[must_use]
    pub fn private_format(&self) -> Option<UpdateFormat> {
        let channel_labels = self.channel_labels.clone()?;
        Some(UpdateFormat { transport: self.transport, channel_labels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_updates_of_several_channels_have_a_format_of_their_own() {
        let format = |names: Option<[&str; 2]>| {
            let channel_labels = names.map(|names| names.map(Box::from).into());
            let transport = Transport::WebSocket;
            Stream { transport, has_session: false, channel_labels, address: None }.private_format()
        };
        assert!(format(None).is_none());
        let labels = format(Some(["one", "other"])).unwrap().channel_labels;
        assert_eq!(labels.iter().map(|label| &**label).collect::<Vec<_>>(), ["one", "other"]);
    }
}

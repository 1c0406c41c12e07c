//! `/read` as a stream: its start.

use super::api::{Api, Handled};
use super::calls::{Call, Context};
use super::error::Error;
use super::json;
use super::read_params::{ReadCall, ReadParams, parse_since};
use super::response::{BodyType, ResponseOptions};
use super::sse::SseEncoder;
use super::transport::{Stream, Transport};
use crate::http::{
    EVENT_STREAM, EventFraming, Opcode, Persistence, Request, accept_key, push_frame_head,
};
use crate::hub::{ChannelKey, Mode, ReadResult, Reply, Since};

/// Type of an event stream. `no-transform`: a proxy or a middleware that compresses would hold the
/// events back.
const EVENTS: BodyType<'static> =
    BodyType { content_type: EVENT_STREAM, cache_control: "no-store, no-transform" };

/// Header field for proxies: forward each event at once.
const NO_PROXY_BUFFERING: &str = "X-Accel-Buffering: no\r\n";

const SWITCHING_PROTOCOLS: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Accept: ";

/// Returns the `Sec-WebSocket-Accept` for the key of a handshake, which must have exactly one.
fn websocket_accept(request: &Request<'_>) -> Result<String, Error> {
    let mut keys = request.field("sec-websocket-key");
    let accepted = keys.next().and_then(accept_key).filter(|_| keys.next().is_none());
    accepted.ok_or(Error::BadHandshake(
        "a WebSocket needs one 'Sec-WebSocket-Key' of 16 bytes in Base64",
    ))
}

/// Value of `Last-Event-ID`: the cursors from which a stream continues.
struct LastEventId<'a> {
    epoch: &'a str,
    since: Vec<Since>,
}

impl<'a> LastEventId<'a> {
    /// Parses `EPOCH:NUMBER[,NUMBER…]` with one number for each channel. `None` for any other text.
    fn parse(text: &'a [u8], channels: usize) -> Option<Self> {
        let (epoch, numbers) = str::from_utf8(text).ok()?.split_once(':')?;
        let since: Vec<_> =
            numbers.split(',').map(|number| parse_since(number).ok()).collect::<Option<_>>()?;
        (since.len() == channels && !epoch.is_empty()).then_some(Self { epoch, since })
    }
}

/// Head of a stream that is to be sent.
enum Opening {
    Events(EventFraming),
    /// With the `Sec-WebSocket-Accept`.
    WebSocket {
        accept: String,
    },
}

/// Start of a stream.
struct StreamStart<'a> {
    targets: &'a [(ChannelKey<'a>, Since)],
    reply: &'a Reply<'a>,
    stream: &'a Stream,
}

impl Api {
    /// Starts a stream: appends its head and the first messages.
    pub(super) fn start_stream(
        &mut self,
        context: &mut Context<'_>,
        call: &ReadCall<'_>,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Result<Handled, Error> {
        let opening = match transport {
            Transport::Sse(framing) => Opening::Events(framing),
            Transport::WebSocket => Opening::WebSocket { accept: websocket_accept(call.request)? },
        };
        let mut params = ReadParams::parse(call.parameters, self.poll_timeout_ms)?;
        if transport != Transport::WebSocket
            && let Some(id) = call.request.field("last-event-id").next()
            && let Some(last) = LastEventId::parse(id, call.parameters.channels.len())
        {
            params.epoch = Some(last.epoch);
            let targets = params.targets.as_mut_slice().iter_mut();
            targets.zip(last.since).for_each(|((_, since), cursor)| *since = cursor);
        }
        let request = params.request(Mode::Stream, context.token);
        let ReadResult::Streaming(reader, reply) = context.hub.read(context.now, &request)? else {
            unreachable!("the mode is Stream")
        };
        let address = self.config.proxies.client_addr(context.source, call.request);
        let channel_labels = call.parameters.stream_labels();
        let has_session = params.credentials.is_some();
        let stream = Stream { transport, has_session, channel_labels, address };
        let start = StreamStart { targets: request.targets, reply: &reply, stream: &stream };
        match opening {
            Opening::Events(framing) => self.start_sse(call.options, framing, &start, out),
            Opening::WebSocket { accept } => self.start_websocket(&accept, &start, out),
        }
        self.record(Call::Read.into(), if transport == Transport::WebSocket { 101 } else { 200 });
        Ok(Handled::Stream { reader, stream })
    }

    fn start_sse(
        &mut self,
        options: ResponseOptions<'_>,
        framing: EventFraming,
        start: &StreamStart<'_>,
        out: &mut Vec<u8>,
    ) {
        let options = ResponseOptions { persistence: Persistence::Close, ..options };
        self.writer.head(options, 200, Some(EVENTS), NO_PROXY_BUFFERING).push_without_length(out);
        out.extend_from_slice(framing.header().as_bytes());
        out.extend_from_slice(b"\r\n");
        let (epoch, targets) = (self.epoch.as_bytes(), start.targets);
        let mut events = SseEncoder { out, framing, epoch, slices: start.reply.slices(), targets };
        events.push_beginning();
        events.push_all(start.stream.channel_labels(), Some(&mut self.insertions));
    }

    fn start_websocket(&mut self, accept: &str, start: &StreamStart<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(SWITCHING_PROTOCOLS);
        out.extend_from_slice(accept.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        if start.reply.is_nonempty() {
            let labels = start.stream.channel_labels().iter().map(|label| &**label);
            let added = Some(&mut self.insertions);
            json::push_reply(&mut self.json, start.reply.slices(), labels, self.epoch, added);
            let length = self.json.len() + self.insertions.json_bytes();
            push_frame_head(out, Opcode::Text, length);
            self.insertions.place_json(out.len());
            out.extend_from_slice(&self.json);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_event_id_is_used_only_if_this_server_could_have_sent_it() {
        let since = |text: &'static str, channels| {
            LastEventId::parse(text.as_bytes(), channels).map(|it| it.since)
        };
        assert_eq!(since("k3Jx9QaZ:8", 1), Some(vec![Since::Id(8)]));
        assert_eq!(
            since("k3Jx9QaZ:8,0,-3", 3),
            Some(vec![Since::Id(8), Since::All, Since::Last(3)])
        );
        for (text, channels) in
            [("", 1), ("8", 1), (":8", 1), ("e:", 1), ("e:8,", 2), ("e:8", 2), ("e:8,9", 1)]
        {
            assert_eq!(since(text, channels), None, "{text}");
        }
        for text in ["e:x", "e: 8", "e:8 ", "e:99999999999999999999", "e:8:9"] {
            assert_eq!(since(text, 1), None, "{text}");
        }
        assert!(LastEventId::parse(b"\xff:8", 1).is_none());
    }
}

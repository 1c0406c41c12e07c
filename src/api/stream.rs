//! Reads that stay: how a stream is asked for, and what it is told.

use super::api::{Api, Handled};
use super::client_addr::RequestSource;
use super::error::Error;
use super::params::Parameters;
use super::phase::Phase;
use super::request_stats::RequestKind;
use super::response::{self, BodyType, Payload, ResponseOptions, SharedBytes};
use super::transport::{Stream, Transport};
use crate::http::{
    CloseCode, EVENT_STREAM, Opcode, Persistence, RETRY, Request, accept_key, push_close,
    push_frame,
};
use crate::hub::{
    ChannelKey, ChannelSlice, Hub, Mode, Now, ReadRequest, ReadResult, Reply, Since, Wake,
    push_number, push_string,
};

/// Nobody between here and the client is to wait for more before handing on what there is.
const NO_PROXY_BUFFERING: &str = "X-Accel-Buffering: no\r\n";

const SWITCHING_PROTOCOLS: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";

/// The answer to the one key of the handshake.
fn websocket_key(request: &Request<'_>) -> Result<String, Error> {
    let mut keys = request.field("sec-websocket-key");
    let accepted = keys.next().and_then(accept_key).filter(|_| keys.next().is_none());
    accepted.ok_or(Error::BadHandshake(
        "a WebSocket needs one Sec-WebSocket-Key, of 16 bytes in Base64",
    ))
}

/// A place to go on from, as `Last-Event-ID` brings it back.
struct LastEventId<'a> {
    epoch: &'a str,
    since: Vec<Since>,
}

impl<'a> LastEventId<'a> {
    /// `EPOCH:NUMBER[,NUMBER…]`, one for each channel; `None` for whatever else somebody may send.
    fn parse(text: &'a [u8], channels: usize) -> Option<Self> {
        let (epoch, numbers) = str::from_utf8(text).ok()?.split_once(':')?;
        let since: Vec<_> = numbers
            .split(',')
            .map(|number| super::call::since(number).ok())
            .collect::<Option<_>>()?;
        (since.len() == channels && !epoch.is_empty()).then_some(Self { epoch, since })
    }
}

impl Api {
    /// Begins a stream: appends its head and what it begins with.
    #[expect(clippy::too_many_arguments, reason = "the request and all that it acts on")]
    pub(super) fn start_stream(
        &mut self,
        hub: &mut Hub,
        now: Now,
        (request, parameters): (&Request<'_>, &Parameters<'_>),
        transport: Transport,
        peer: RequestSource,
        dress: ResponseOptions<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Handled, Error> {
        let accept = match transport {
            Transport::Sse => None,
            Transport::WebSocket => Some(websocket_key(request)?),
        };
        let mut reading = parameters.parse_read(self.poll_timeout_ms)?;
        let follows = reading.follows.as_mut_slice();
        let last_event_id =
            request.field("last-event-id").next().filter(|_| transport == Transport::Sse);
        if let Some(cursors) = last_event_id.and_then(|id| LastEventId::parse(id, follows.len())) {
            reading.epoch = Some(cursors.epoch);
            follows.iter_mut().zip(cursors.since).for_each(|((_, since), cursor)| *since = cursor);
        }
        let targets = reading.follows.as_slice();
        let (epoch, credentials) = (reading.epoch, reading.credentials);
        let call =
            ReadRequest { targets, epoch, credentials, mode: Mode::Stream, token: peer.client };
        let ReadResult::Streaming(reader, reply) = hub.read(now, &call)? else {
            unreachable!("a stream follows")
        };
        let address = self.config.proxies.client_addr(peer, request);
        let stream = Stream { transport, channel_labels: names_of(parameters), address };
        match accept {
            None => self.start_sse(dress, targets, &reply, &stream, out),
            Some(accept) => self.start_websocket(&accept, &reply, &stream, out),
        }
        self.record(RequestKind::Read, if transport == Transport::WebSocket { 101 } else { 200 });
        Ok(Handled::Stream { reader, stream })
    }

    fn start_sse(
        &self,
        dress: ResponseOptions<'_>,
        follows: &[(ChannelKey<'_>, Since)],
        reply: &Reply<'_>,
        stream: &Stream,
        out: &mut Vec<u8>,
    ) {
        let content = BodyType::no_store(EVENT_STREAM);
        let dress = ResponseOptions { persistence: Persistence::Close, ..dress };
        self.writer.head(dress, 200, Some(content), NO_PROXY_BUFFERING).push_without_length(out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(RETRY);
        let asked = |place: usize, part: &ChannelSlice<'_>| match follows[place].1 {
            _ if part.reset => 0,
            Since::Id(id) => id.cast_signed(),
            Since::All => 0,
            Since::Last(count) => -count.cast_signed(),
            Since::Now => part.first_id().cast_signed(),
        };
        let mut events = SseEncoder { out, epoch: self.epoch.as_bytes(), reply, begins: asked };
        events.push_id_alone();
        events.push_all(&stream.channel_labels);
    }

    fn start_websocket(
        &mut self,
        accept: &str,
        reply: &Reply<'_>,
        stream: &Stream,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(SWITCHING_PROTOCOLS);
        out.extend_from_slice(accept.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        if reply.is_nonempty() {
            response::push_reply(&mut self.json, reply, stream.channel_labels(), self.epoch);
            push_frame(out, Opcode::Text, &self.json);
        }
    }

    /// Encodes what a stream is told, once for all that share it; what it ends with, if it ends.
    pub fn encode_update(&mut self, wake: &Wake<'_>, stream: &Stream) -> Payload<'_> {
        if wake.is_last {
            self.private_buf.clear();
            if stream.transport == Transport::WebSocket {
                let code = match self.writer.phase {
                    Phase::Serving => CloseCode::Normal,
                    Phase::Draining | Phase::Stopping => CloseCode::GoingAway,
                };
                push_close(&mut self.private_buf, code);
            }
            return Payload::Private(&self.private_buf);
        }
        self.reset_cache(wake);
        let is_encoded = match stream.transport {
            Transport::Sse => self.shared_buf.events.is_some(),
            Transport::WebSocket => self.shared_buf.frame.is_some(),
        };
        if !is_encoded {
            self.private_buf.clear();
            match stream.transport {
                Transport::Sse => {
                    let begins = |_, part: &ChannelSlice<'_>| part.first_id().cast_signed();
                    let epoch = self.epoch.as_bytes();
                    SseEncoder { out: &mut self.private_buf, epoch, reply: &wake.reply, begins }
                        .push_all(&stream.channel_labels);
                }
                Transport::WebSocket => {
                    if self.json.is_empty() {
                        response::push_reply(
                            &mut self.json,
                            &wake.reply,
                            stream.channel_labels(),
                            self.epoch,
                        );
                    }
                    push_frame(&mut self.private_buf, Opcode::Text, &self.json);
                }
            }
        }
        if !stream.channel_labels.is_empty() {
            return Payload::Private(&self.private_buf);
        }
        let Self { shared_buf, private_buf, cached, .. } = self;
        let shared = match stream.transport {
            Transport::Sse => &mut shared_buf.events,
            Transport::WebSocket => &mut shared_buf.frame,
        };
        Payload::Shared(shared.get_or_insert_with(|| SharedBytes::new(private_buf, cached)))
    }
}

/// The channels as they were asked for, if they are several.
pub(super) fn names_of(parameters: &Parameters<'_>) -> Box<[Box<str>]> {
    let channels = &parameters.channels;
    if channels.len() == 1 { Box::default() } else { channels.iter().map(Box::from).collect() }
}

/// A reply on its way to become events. `begins` tells where a client stands in a part of which it was given nothing.
struct SseEncoder<'o, 'r, 'h, B> {
    out: &'o mut Vec<u8>,
    epoch: &'o [u8],
    reply: &'r Reply<'h>,
    begins: B,
}

impl<B: Fn(usize, &ChannelSlice<'_>) -> i64> SseEncoder<'_, '_, '_, B> {
    /// A cursor for a client that is lost before its first message.
    fn push_id_alone(&mut self) {
        self.push_id(0, None);
        self.out.push(b'\n');
    }

    /// Gaps first, then every message with the cursors that follow it. `names` are those of the channels, where they are
    /// several.
    fn push_all(&mut self, names: &[Box<str>]) {
        let parts = self.reply.slices();
        for (place, part) in parts.iter().enumerate() {
            for (name, is_told) in [("missed", part.missed), ("reset", part.reset)] {
                if is_told {
                    self.push_gap(name, names.get(place).map(|name| &**name));
                }
            }
        }
        for (place, part) in parts.iter().enumerate() {
            for message in part.introductions() {
                self.push_message(place, (self.begins)(place, part), names, message);
            }
            for (next_id, message) in (part.first_id() + 1..).zip(part.retained()) {
                self.push_message(place, next_id.cast_signed(), names, message);
            }
        }
    }

    fn push_gap(&mut self, event: &str, channel: Option<&str>) {
        self.out.extend_from_slice(b"event: ");
        self.out.extend_from_slice(event.as_bytes());
        self.out.extend_from_slice(b"\ndata: {");
        if let Some(name) = channel {
            self.out.extend_from_slice(b"\"channel\":");
            push_string(self.out, name);
        }
        self.out.extend_from_slice(b"}\n\n");
    }

    fn push_message(&mut self, place: usize, next_id: i64, names: &[Box<str>], message: &[u8]) {
        self.push_id(place, Some(next_id));
        self.out.extend_from_slice(b"data: {");
        if let Some(name) = names.get(place) {
            self.out.extend_from_slice(b"\"channel\":");
            push_string(self.out, name);
            self.out.push(b',');
        }
        self.out.extend_from_slice(&message[1..]);
        self.out.extend_from_slice(b"\n\n");
    }

    /// The cursors when the parts before `place` are given, and that one up to `next_id`; none of it where that is `None`.
    fn push_id(&mut self, place: usize, next_id: Option<i64>) {
        self.out.extend_from_slice(b"id: ");
        self.out.extend_from_slice(self.epoch);
        for (its_place, part) in self.reply.slices().iter().enumerate() {
            self.out.push(if its_place == 0 { b':' } else { b',' });
            let cursor = match next_id {
                Some(_) if its_place < place => part.next_id().cast_signed(),
                Some(next_id) if its_place == place => next_id,
                _ => (self.begins)(its_place, part),
            };
            if cursor < 0 {
                self.out.push(b'-');
            }
            push_number(self.out, cursor.unsigned_abs());
        }
        self.out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_event_id_is_taken_only_if_it_is_one_of_ours() {
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

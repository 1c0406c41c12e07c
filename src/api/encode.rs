//! Encoding of a delivery: replies to long polls, and updates of streams. Readers that get the same
//! bytes share one encoding.

use super::api::Api;
use super::calls::Call;
use super::json;
use super::payload::{EncodeCache, Payload, SharedBytes};
use super::phase::Phase;
use super::response::{ReplyFormat, ResponseOptions};
use super::sse::SseEncoder;
use super::transport::{Stream, Transport};
use crate::http::{CloseCode, Opcode, Persistence, push_close, push_frame};
use crate::hub::Wake;

impl Api {
    /// Clears the encodings of the last wake-up, unless this one repeats it. Call for each wake-up,
    /// even if its client is gone: the next wake-up may repeat this one.
    pub fn reset_cache(&mut self, wake: &Wake<'_>) {
        if !wake.same_as_previous {
            self.json.clear();
            self.cache = EncodeCache::default();
        }
    }

    /// Encodes the response to a long poll, once for all readers that share it. Also returns the
    /// persistence of the client.
    pub fn encode_reply(
        &mut self,
        wake: &Wake<'_>,
        format: Option<&ReplyFormat>,
    ) -> (Payload<'_>, Persistence) {
        self.reset_cache(wake);
        if self.json.is_empty() {
            let labels = format
                .into_iter()
                .flat_map(|format| format.channel_labels.iter().map(|label| &**label));
            json::push_reply(&mut self.json, &wake.reply, labels, self.epoch);
        }
        self.record(Call::Read.into(), 200);
        let options = ResponseOptions::from_reply_format(format);
        let persistence = self.writer.persistence(options.persistence);
        if format.is_some() {
            self.private_buf.clear();
            self.writer.push_json(&mut self.private_buf, options, &self.json);
            return (Payload::Private(&self.private_buf), persistence);
        }
        let Self { cache, private_buf, writer, json, encoded_bytes, .. } = self;
        let shared = cache.response.get_or_insert_with(|| {
            private_buf.clear();
            writer.push_json(private_buf, options, json);
            SharedBytes::new(private_buf, encoded_bytes)
        });
        (Payload::Shared(shared), persistence)
    }

    /// Encodes an update of a stream, once for all streams that share it.
    pub fn encode_update(&mut self, wake: &Wake<'_>, stream: &Stream) -> Payload<'_> {
        if wake.is_last {
            return self.encode_end(stream);
        }
        self.reset_cache(wake);
        let index = stream.transport.index();
        if self.cache.updates[index].is_none() {
            self.push_update(wake, stream);
            // Streams of several channels share nothing: the hub compares no replies of several.
            if stream.channel_labels.is_empty() {
                let shared = SharedBytes::new(&self.private_buf, &self.encoded_bytes);
                self.cache.updates[index] = Some(shared);
            }
        }
        let shared = self.cache.updates[index].as_ref();
        shared.map_or(Payload::Private(&self.private_buf), Payload::Shared)
    }

    /// Encodes the last update of a stream: a Close frame for a WebSocket, the last chunk for an
    /// event stream of HTTP/1.1.
    #[cold]
    fn encode_end(&mut self, stream: &Stream) -> Payload<'_> {
        self.private_buf.clear();
        match (stream.transport, self.writer.phase) {
            (Transport::Sse(framing), _) => {
                self.private_buf.extend_from_slice(framing.end_stream());
            }
            (Transport::WebSocket, Phase::Serving) => {
                push_close(&mut self.private_buf, CloseCode::Normal);
            }
            (Transport::WebSocket, Phase::Draining | Phase::Stopping) => {
                push_close(&mut self.private_buf, CloseCode::GoingAway);
            }
        }
        Payload::Private(&self.private_buf)
    }

    /// Encodes an update into `self.private_buf`.
    fn push_update(&mut self, wake: &Wake<'_>, stream: &Stream) {
        self.private_buf.clear();
        match stream.transport {
            Transport::Sse(framing) => {
                let (out, epoch) = (&mut self.private_buf, self.epoch.as_bytes());
                SseEncoder { out, framing, epoch, reply: &wake.reply, targets: &[] }
                    .push_all(&stream.channel_labels);
            }
            Transport::WebSocket => {
                if self.json.is_empty() {
                    let labels = stream.channel_labels();
                    json::push_reply(&mut self.json, &wake.reply, labels, self.epoch);
                }
                push_frame(&mut self.private_buf, Opcode::Text, &self.json);
            }
        }
    }
}

//! Encoding of a delivery: replies to long polls, and updates of streams. Readers that get the same
//! bytes share one encoding.

use std::rc::Rc;

use super::api::Api;
use super::calls::Call;
use super::json;
use super::payload::{Chunk, EncodeCache, Payload, SharedBytes};
use super::phase::Phase;
use super::response::{ReplyFormat, ResponseOptions};
use super::shared_reply::{ReplySlice, SharedReply};
use super::sse::SseEncoder;
use super::transport::{Stream, Transport, UpdateFormat};
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

    /// Counts the response to a long poll. Returns the persistence of the client.
    pub fn count_reply(&mut self, format: Option<&ReplyFormat>) -> Persistence {
        self.record(Call::Read.into(), 200);
        self.writer.persistence(ResponseOptions::from_reply_format(format).persistence)
    }

    /// Encodes the response to a long poll in the default format, once for all readers that get the
    /// same one.
    pub fn encode_reply(&mut self, wake: &Wake<'_>) -> &Rc<SharedBytes> {
        self.encode_json(wake, None);
        let Self { cache, private_buf, writer, json, encoded_bytes, .. } = self;
        cache.response.get_or_insert_with(|| {
            private_buf.clear();
            writer.push_json(private_buf, ResponseOptions::DEFAULT, json, 0);
            SharedBytes::new(private_buf, encoded_bytes)
        })
    }

    /// Encodes the response to a long poll in another format.
    pub fn encode_reply_as(&mut self, wake: &Wake<'_>, format: &ReplyFormat) -> &[u8] {
        self.encode_json(wake, Some(format));
        self.private_buf.clear();
        let options = ResponseOptions::from_reply_format(Some(format));
        self.writer.push_json(&mut self.private_buf, options, &self.json, 0);
        &self.private_buf
    }

    fn encode_json(&mut self, wake: &Wake<'_>, format: Option<&ReplyFormat>) {
        self.reset_cache(wake);
        if self.json.is_empty() {
            let labels = channel_labels(format);
            json::push_reply(&mut self.json, wake.reply.slices(), labels, self.epoch, None);
        }
    }

    /// Forgets the messages that later replies could share. Call it before a delivery: calls of the
    /// turn may have created a channel with the index of one that was dropped.
    pub fn forget_messages(&mut self) {
        self.messages.clear();
    }

    /// Makes a reply that a later turn can send. It shares the messages with other replies.
    pub fn share_reply(&mut self, wake: &Wake<'_>) -> SharedReply {
        self.reset_cache(wake);
        self.messages.share(&wake.reply, wake.is_last, &self.encoded_bytes)
    }

    /// Returns the bytes of messages that were encoded to be shared since the last call.
    pub fn take_copied_bytes(&mut self) -> usize {
        self.messages.take_copied()
    }

    /// Splits the encoding for one client that was made last, of this wake-up, into chunks that
    /// share its messages. If the index of the channel was that of another one before, the
    /// encoding has none of the messages that are known, and shares nothing.
    pub fn split_private(&mut self, wake: &Wake<'_>) -> Vec<Chunk> {
        self.messages.share(&wake.reply, wake.is_last, &self.encoded_bytes).split(&self.private_buf)
    }

    /// Encodes the response to a long poll that was deferred. The format is `None` for the default.
    pub fn encode_shared_reply(
        &mut self,
        reply: &SharedReply,
        format: Option<&ReplyFormat>,
    ) -> &[u8] {
        self.json.clear();
        json::push_reply(&mut self.json, reply.slices(), channel_labels(format), self.epoch, None);
        self.private_buf.clear();
        let options = ResponseOptions::from_reply_format(format);
        self.writer.push_json(&mut self.private_buf, options, &self.json, 0);
        // It is not that of the last wake-up.
        self.json.clear();
        &self.private_buf
    }

    /// Encodes an update of a stream that was deferred.
    pub fn encode_shared_update(&mut self, reply: &SharedReply, format: &UpdateFormat) -> &[u8] {
        self.json.clear();
        self.push_update(reply.slices(), format.transport, &format.channel_labels);
        self.json.clear();
        &self.private_buf
    }

    /// Encodes an update of a stream, once for all streams that share it.
    pub fn encode_update(&mut self, wake: &Wake<'_>, stream: &Stream) -> Payload<'_> {
        if wake.is_last {
            return self.encode_end(stream);
        }
        self.reset_cache(wake);
        let index = stream.transport.index();
        if self.cache.updates[index].is_none() {
            self.push_update(wake.reply.slices(), stream.transport, stream.channel_labels());
            // Streams of several channels share nothing: the hub compares no replies of several.
            if stream.channel_labels.is_none() {
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
    fn push_update(
        &mut self,
        slices: &[impl ReplySlice],
        transport: Transport,
        labels: &[Box<str>],
    ) {
        self.private_buf.clear();
        match transport {
            Transport::Sse(framing) => {
                let (out, epoch) = (&mut self.private_buf, self.epoch.as_bytes());
                SseEncoder { out, framing, epoch, slices, targets: &[] }.push_all(labels, None);
            }
            Transport::WebSocket => {
                if self.json.is_empty() {
                    let labels = labels.iter().map(|label| &**label);
                    json::push_reply(&mut self.json, slices, labels, self.epoch, None);
                }
                push_frame(&mut self.private_buf, Opcode::Text, &self.json);
            }
        }
    }
}

/// Returns the names of the channels of a long poll, if it has several.
fn channel_labels(format: Option<&ReplyFormat>) -> impl Iterator<Item = &str> {
    format.into_iter().flat_map(|format| format.channel_labels.iter().map(|label| &**label))
}

//! Streams: reads that stay, and what is said on them both ways.

use super::client::AfterResponse;
use super::client_io::Io;
use super::conversation::Conversation;
use super::event::Event;
use super::http::Pause;
use super::socket::Socket;
use super::stream_state::{Backlog, StreamState};
use super::write_queue::Flush;
use crate::api::{Context, Payload, RequestSource, Stream, Transport, WebSocket};
use crate::http::{self, CloseCode, Frame, Opcode};
use crate::hub::{Key, ReaderKey, ResumeBatch};

/// Signs of life in a row that a peer may leave unanswered, or untaken.
const MISSED_HEARTBEATS_MAX: u8 = 2;

impl<S: Socket> Conversation<S> {
    /// A read of this client stays.
    pub(super) fn start_stream(&mut self, key: Key, reader: ReaderKey, stream: Stream) {
        let heartbeat_at = self.io.now.mono.after(self.io.patience.heartbeat_ms);
        let following = StreamState {
            reader,
            stream,
            heartbeat_at,
            missed_heartbeats: 0,
            fragments: None,
            message_started: None,
            oversized_bytes: 0,
        };
        self.io.clients.start_stream(key, following);
        self.io.clients.set_deadline(key, heartbeat_at);
    }

    /// Something happened to the client of a stream.
    pub(super) fn handle_stream_event(&mut self, key: Key, event: Event) {
        let Some((_, following)) = self.io.clients.stream_mut(key) else { return };
        let speaks = following.stream.transport == Transport::WebSocket;
        if event.is_read_closed && !speaks {
            return self.close(key);
        }
        if event.is_writable {
            self.flush_write_queue(key);
        }
        // What a WebSocket said before it closed counts.
        if speaks && (event.is_readable || event.is_read_closed) {
            self.process_input(key);
        }
    }

    /// Handles the frames at the start of `bytes`, one after the other; their answers gather in `self.out`. Returns how
    /// many bytes they took.
    pub(super) fn handle_frames(&mut self, key: Key, bytes: &mut [u8]) -> (usize, Pause) {
        let mut taken = 0;
        loop {
            let (_, following) = self.io.clients.stream_mut(key).expect("the caller looked");
            if following.stream.transport == Transport::Sse {
                // Nothing is to be said on an event stream: whatever it is, it is not for us.
                return (bytes.len(), Pause::NeedData);
            }
            // Who says anything lives, and has a time of its own for what it leaves half said.
            following.missed_heartbeats = 0;
            let gathered = following.fragments.as_ref().map_or(0, Vec::len);
            let parsed = http::parse_frame(
                &mut bytes[taken..],
                self.io.api.frame_bytes_max().saturating_sub(gathered),
            );
            let result = match parsed {
                Ok(None) => return (taken, Pause::NeedData),
                Ok(Some((frame, length))) => {
                    taken += length;
                    let answered = self.response.len();
                    let result = self.handle_frame(key, &frame);
                    self.io.clients.budget.charge_request(self.response.len() - answered);
                    result
                }
                Err(code) => Err(code),
            };
            if let Err(code) = result {
                http::push_close(&mut self.response, code);
                return (taken, Pause::Closing(AfterResponse::Linger));
            }
            if self.budget_spent() {
                return (taken, Pause::BudgetSpent);
            }
        }
    }

    /// The error is the farewell that follows.
    fn handle_frame(&mut self, key: Key, frame: &Frame<'_>) -> Result<(), CloseCode> {
        let Self { io: Io { clients, api, now, .. }, hub, response, .. } = self;
        clients.budget.charge_json(frame.payload.len());
        let (client, following) = clients.stream_mut(key).expect("the caller looked");
        let source = RequestSource { address: client.address, is_proxy: client.is_proxy };
        if following.fragments.is_none() && frame.is_final {
            // What was incomplete is whole: the next has its own time. The first part of a text is not.
            following.message_started = None;
        }
        match frame.opcode {
            Opcode::Ping => http::push_frame(response, Opcode::Pong, frame.payload),
            Opcode::Pong => {}
            Opcode::Close => return Err(http::close_reply(frame.payload)),
            Opcode::Text | Opcode::Continuation => {
                if following.fragments.is_some() != (frame.opcode == Opcode::Continuation) {
                    return Err(CloseCode::ProtocolError);
                }
                if !frame.is_final {
                    following.fragments.get_or_insert_default().extend_from_slice(frame.payload);
                    return Ok(());
                }
                following.message_started = None;
                let mut gathered = following.fragments.take();
                let text = gathered.as_mut().map_or(frame.payload, |text| {
                    text.extend_from_slice(frame.payload);
                    text
                });
                let text = str::from_utf8(text).map_err(|_| CloseCode::InvalidPayload)?;
                let mut socket =
                    WebSocket { reader: &mut following.reader, stream: &mut following.stream };
                let mut context = Context { hub, now: *now, source, token: key.to_bits() };
                api.handle_frame(&mut context, text, &mut socket, response);
            }
        }
        Ok(())
    }

    /// How much waits for a stream to take it. `was_blocked` tells that something waited before the last was sent.
    pub(super) fn backlog(&mut self, key: Key, was_blocked: bool) -> Backlog {
        let max = self.io.patience.max_backlog;
        let following = self.io.clients.stream_mut(key);
        following.map_or(Backlog::WithinLimit, |(client, following)| {
            following.backlog(client.queued_bytes(), was_blocked, max)
        })
    }

    /// A stream has enough to take for now.
    pub(super) fn pause(&mut self, key: Key) {
        // What was taken meanwhile is not waited for: nobody would say again that it was.
        if let Some((client, following)) = self.io.clients.stream_mut(key)
            && client.is_blocked()
        {
            self.hub.pause(following.reader);
        }
    }

    /// After something was handed to the kernel, wholly or in part: what is to be done with a stream now. `has_more` tells
    /// that some of what came was not looked at.
    pub(super) fn continue_stream(&mut self, key: Key, flush: Flush, has_more: bool) {
        let now = self.io.now.mono;
        let Some((client, following)) = self.io.clients.stream_mut(key) else { return };
        let has_input = has_more || client.is_readable;
        if client.is_read_closed && !has_input {
            return self.close(key);
        }
        let was_incomplete = following.message_started.is_some();
        let is_incomplete = client.incoming.is_some() || following.fragments.is_some();
        following.message_started = is_incomplete.then(|| following.message_started.unwrap_or(now));
        if is_incomplete && !was_incomplete {
            let due = following.next_check(self.io.patience);
            self.io.clients.set_deadline(key, due);
        }
        if has_input {
            self.io.clients.schedule(key);
        }
        if flush == Flush::Complete {
            self.resume(key);
        }
    }

    /// A stream took some of what waited for it.
    pub(super) fn on_writable(&mut self, key: Key, flush: Flush) {
        let Some((client, following)) = self.io.clients.stream_mut(key) else { return };
        if flush != (Flush::WouldBlock { any: false }) {
            following.missed_heartbeats = 0;
        }
        let has_input = client.is_scheduled || client.is_readable;
        if has_input && !self.is_leaving {
            // Told more first, it might be held again, turn after turn, and never be heard.
            return self.io.clients.schedule(key);
        }
        self.continue_stream(key, flush, false);
    }

    /// A stream has taken all that it was given: if that was not all that there is, it gets the next answer.
    fn resume(&mut self, key: Key) {
        let Self { hub, io, resume_batch, .. } = self;
        let Some((_, following)) = io.clients.stream_mut(key) else { return };
        let reader = following.reader;
        let mut alone = ResumeBatch::default();
        let resumed = resume_batch.as_mut().unwrap_or(&mut alone);
        hub.resume(io.now, reader, resumed, |wake| io.send_to_stream(key, &wake));
    }

    /// A stream was silent for a while, or its peer was: shows that it lives, and sees whether the peer does.
    pub(super) fn send_heartbeat(&mut self, key: Key) {
        let now = self.io.now.mono;
        let Some((client, following)) = self.io.clients.stream_mut(key) else { return };
        let is_blocked = client.is_blocked();
        if following.message_deadline(self.io.patience).is_some_and(|at| at <= now) {
            return self.close(key);
        }
        if following.heartbeat_at > now {
            // What was to be whole by now is.
            let due = following.next_check(self.io.patience);
            return self.io.clients.set_deadline(key, due);
        }
        if following.missed_heartbeats >= MISSED_HEARTBEATS_MAX {
            return self.close(key);
        }
        let asks = following.stream.transport == Transport::WebSocket;
        // A Ping that carries nothing, or a comment.
        let sign: &[u8] = if asks { &[0x80 | Opcode::Ping as u8, 0] } else { http::HEARTBEAT };
        following.missed_heartbeats += u8::from(asks || is_blocked);
        following.heartbeat_at = now.after(self.io.patience.heartbeat_ms);
        let due = following.next_check(self.io.patience);
        if !is_blocked && client.send(&Payload::Private(sign)).is_err() {
            return self.close(key);
        }
        self.io.clients.set_deadline(key, due);
    }
}

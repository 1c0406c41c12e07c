//! The stream of one client: an event stream or a WebSocket, in both directions.

use std::io;

use super::client::AfterResponse;
use super::client_io::ClientIo;
use super::fair_queue::DeferredSend;
use super::http::Pause;
use super::listener::Listener;
use super::run_queue::Weight;
use super::service::Service;
use super::stream_state::{Backlog, HeldFrame, StreamState};
use super::write_queue::Flush;
use crate::api::{Context, FrameHandled, Payload, Stream, Transport, WebSocket};
use crate::http::{self, CloseCode, Frame, Opcode, Persistence};
use crate::hub::{Key, Millis, ReaderKey, ResumeBatch};

/// A Ping frame without payload.
const PING: &[u8] = &[0x80 | Opcode::Ping as u8, 0];

impl<L: Listener> Service<L> {
    /// Moves a client to `Streaming`, and sets the time of its first check.
    pub(super) fn start_stream(&mut self, key: Key, reader: ReaderKey, stream: Stream) {
        let ClientIo { clients, limits, now, .. } = &mut self.io;
        let stream = StreamState::new(reader, stream, now.mono, *limits, key.index);
        let next_check = stream.next_check();
        clients.start_stream(key, stream);
        clients.set_deadline(key, next_check);
    }

    /// Ends a stream because of its peer's input, and closes its reader.
    pub(super) fn end_stream(&mut self, key: Key) {
        if let Some(reader) = self.io.clients.end_stream(key) {
            self.hub.on_reader_closed(self.io.now, reader);
        }
    }

    /// Handles the frames at the start of `bytes`, one after the other, and appends their
    /// responses. Returns the number of bytes handled.
    pub(super) fn handle_frames(&mut self, key: Key, bytes: &mut [u8]) -> (usize, Pause) {
        let mut handled = 0;
        loop {
            let (_, stream) =
                self.io.clients.stream_mut(key).expect("the caller has checked the state");
            if stream.stream.transport != Transport::WebSocket {
                // The peer of an event stream has nothing to send: its bytes are discarded.
                return (bytes.len(), Pause::NeedData);
            }
            let buffered = stream.fragments.as_ref().map_or(0, Vec::len);
            let max = self.io.api.frame_bytes_max().saturating_sub(buffered);
            let result = match http::parse_frame(&mut bytes[handled..], max) {
                Ok(None) => return (handled, Pause::NeedData),
                Ok(Some((frame, length))) => {
                    handled += length;
                    if frame.is_final && !frame.opcode.is_control() {
                        // The whole message, whose fragments may have come in earlier turns.
                        let message = buffered + frame.payload.len();
                        self.io.clients.budget.charge_json(message);
                    }
                    let (unsent, appended) = (self.io.response.len(), self.hub.appended_bytes());
                    let result = self.handle_frame(key, &frame);
                    let encoded = (self.hub.appended_bytes() - appended) as usize;
                    let bytes = encoded + self.io.response.len() - unsent;
                    self.io.clients.budget.charge_request(bytes);
                    result
                }
                Err(code) => Err(code),
            };
            if let Err(code) = result {
                let (_, stream) =
                    self.io.clients.stream_mut(key).expect("the caller has checked the state");
                if let Some(wait) = stream.log_wait.as_mut().filter(|wait| !wait.is_over) {
                    wait.held = Some(HeldFrame::Close(code));
                    return (handled, Pause::Waiting);
                }
                http::push_close(&mut self.io.response, code);
                return (handled, Pause::Closing(AfterResponse::Linger));
            }
            let (_, stream) =
                self.io.clients.stream_mut(key).expect("the caller has checked the state");
            let is_waiting = stream.is_waiting();
            let wait = stream.log_wait.as_ref();
            let is_held = wait.is_some_and(|wait| wait.held.is_some() || wait.awaits_end);
            if is_held || (is_waiting && self.is_budget_spent()) {
                return (handled, Pause::Waiting);
            }
            if self.is_budget_spent() {
                return (handled, Pause::BudgetSpent);
            }
        }
    }

    /// Handles one frame. An error is the code of the Close frame to send.
    fn handle_frame(&mut self, key: Key, frame: &Frame<'_>) -> Result<(), CloseCode> {
        let ClientIo { clients, response, .. } = &mut self.io;
        let (_, stream) = clients.stream_mut(key).expect("the caller has checked the state");
        if stream.fragments.is_none() && frame.is_final {
            // The frame is complete, and the next one has its own deadline. If the frame is the
            // first fragment of a message, the deadline of the message stays.
            stream.message_deadline = Millis::NEVER;
        }
        match frame.opcode {
            Opcode::Ping => http::push_frame(response, Opcode::Pong, frame.payload),
            Opcode::Pong => {}
            Opcode::Close => return Err(http::close_reply(frame.payload)),
            Opcode::Text | Opcode::Continuation => {
                if stream.fragments.is_some() != (frame.opcode == Opcode::Continuation) {
                    return Err(CloseCode::ProtocolError);
                }
                if !frame.is_final {
                    stream.fragments.get_or_insert_default().extend_from_slice(frame.payload);
                    return Ok(());
                }
                stream.message_deadline = Millis::NEVER;
                let mut message = stream.fragments.take();
                let text = message.as_mut().map_or(frame.payload, |message| {
                    message.extend_from_slice(frame.payload);
                    message
                });
                let text = str::from_utf8(text).map_err(|_| CloseCode::InvalidPayload)?;
                self.handle_message(key, text);
            }
        }
        Ok(())
    }

    /// Makes the call in a message.
    fn handle_message(&mut self, key: Key, text: &str) {
        let Self { io: ClientIo { clients, api, now, response, .. }, hub, commits, .. } = self;
        let (client, stream) = clients.stream_mut(key).expect("the caller has checked the state");
        let source = client.request_source();
        let is_waiting = stream.is_waiting();
        let waited = commits.begin_call(now.mono, client.waited.take());
        let mut socket = WebSocket { reader: &mut stream.reader, stream: &mut stream.stream };
        let (now, token) = (*now, key.to_bits());
        let mut context = Context { hub, now, source, token, is_waiting, waited };
        let unsent = response.len();
        match api.handle_frame(&mut context, text, &mut socket, response) {
            FrameHandled::Responded if is_waiting => {
                self.add_waiting_response(key, unsent, Persistence::Persistent);
            }
            FrameHandled::Responded => {}
            FrameHandled::Proposed(responder) => {
                stream.log_wait.get_or_insert_default().awaits_end = responder.ending().is_some();
                self.add_waiting_call(key, responder);
            }
            FrameHandled::Behind(behind) => {
                let held = HeldFrame::Message(text.into());
                stream.log_wait.get_or_insert_default().held = Some(held);
                self.io.clients.budget.postpone();
                if !is_waiting {
                    self.add_behind(key, behind);
                }
            }
            FrameHandled::Held => {
                let held = HeldFrame::Message(text.into());
                stream.log_wait.get_or_insert_default().held = Some(held);
            }
        }
    }

    /// Returns whether frames of a client may be handled: no call in a frame waits for the log.
    /// First handles the frame that had to wait for such calls, which may close the stream.
    pub(super) fn may_handle_frames(&mut self, key: Key) -> bool {
        let Some((_, stream)) = self.io.clients.stream_mut(key) else { return true };
        if stream.is_waiting() {
            return false;
        }
        match stream.log_wait.take().and_then(|wait| wait.held) {
            None => {}
            Some(HeldFrame::Message(text)) => self.handle_message(key, &text),
            Some(HeldFrame::Close(code)) => {
                http::push_close(&mut self.io.response, code);
                self.flush_responses(key, &Pause::Closing(AfterResponse::Linger));
                return false;
            }
        }
        true
    }

    /// Compares the unsent bytes of a stream with the limit. `was_blocked` is true if there were
    /// unsent bytes before the last send.
    pub(super) fn backlog(&mut self, key: Key, was_blocked: bool) -> Backlog {
        let max = self.io.limits.max_backlog;
        let stream = self.io.clients.stream_mut(key);
        stream.map_or(Backlog::WithinLimit, |(client, stream)| {
            stream.backlog(client.queued_bytes(), was_blocked, max)
        })
    }

    /// Pauses a stream in the hub until its unsent bytes are sent.
    pub(super) fn pause(&mut self, key: Key) {
        // If the bytes have been sent, no event would resume the stream.
        if let Some((client, stream)) = self.io.clients.stream_mut(key)
            && client.is_blocked()
        {
            self.hub.pause(stream.reader);
        }
    }

    /// Continues a stream after input was handled or bytes were sent: sets the deadline of an
    /// incomplete message, schedules remaining input, and resumes a paused stream whose bytes are
    /// all sent. `has_more` is true if some input was not handled.
    pub(super) fn continue_stream(&mut self, key: Key, flush: Flush, has_more: bool) {
        let now = self.io.now.mono;
        let Some((client, stream)) = self.io.clients.stream_mut(key) else { return };
        let has_input = has_more || client.is_readable;
        let is_waiting = stream.log_wait.is_some();
        if client.is_read_closed && !has_input && !is_waiting {
            return self.close(key);
        }
        // Frames after a call that waits for the log are not read: their time begins later.
        let is_incomplete = !is_waiting && (client.input.is_some() || stream.fragments.is_some());
        if !is_incomplete {
            stream.message_deadline = Millis::NEVER;
        } else if stream.message_deadline == Millis::NEVER {
            stream.message_deadline = now.after(self.io.limits.request_timeout_ms);
            let next_check = stream.next_check();
            self.io.clients.set_deadline(key, next_check);
        }
        if has_input {
            self.io.clients.schedule(key);
        }
        if flush == Flush::Complete {
            self.resume(key);
        }
    }

    /// Continues a stream after an attempt to send its unsent bytes.
    pub(super) fn on_writable(&mut self, key: Key, flush: Flush) {
        let Some((client, stream)) = self.io.clients.stream_mut(key) else { return };
        if flush != (Flush::WouldBlock { progress: false }) {
            stream.stalled_heartbeats = 0;
        }
        let has_input = client.is_scheduled || client.is_readable;
        if has_input && !self.phase.is_draining() {
            // Input comes before further updates. Otherwise a send to the stream could be deferred
            // turn after turn, and its input never be handled.
            return self.io.clients.schedule(key);
        }
        self.continue_stream(key, flush, false);
    }

    /// Resumes a stream without unsent bytes. If it was paused, sends the next update, or leaves it
    /// paused until the deferred sends of its channel come to it: streams at different cursors
    /// share no update, so none is encoded before it can be sent.
    fn resume(&mut self, key: Key) {
        let Self { hub, io, resume_batch, .. } = self;
        let Some((_, stream)) = io.clients.stream_mut(key) else { return };
        let reader = stream.reader;
        let Some(channel) = hub.end_pause(io.now, reader) else { return };
        if !io.clients.has_send_budget(channel) {
            io.clients.expect_mut(key).is_deferred = true;
            io.clients.deferred_sends.push(channel, (key, DeferredSend::Resume));
        } else if let Some(batch) = resume_batch {
            hub.resume(io.now, reader, batch, |wake| io.send_to_stream(key, &wake, true));
        } else {
            self.resume_alone(key, reader);
        }
    }

    /// Resumes a paused stream while events are handled. This costs what a request with that
    /// response does, and is charged as one: once the turn has no budget for requests, the events
    /// of other clients wait. The budget of deliveries is left to sends that were deferred.
    fn resume_alone(&mut self, key: Key, reader: ReaderKey) {
        let Self { hub, io, .. } = self;
        io.hub_bytes = hub.memory_without_history();
        io.clients.budget.begin_client();
        let mut batch = ResumeBatch::default();
        hub.resume(io.now, reader, &mut batch, |wake| io.send_to_stream(key, &wake, true));
        let clients = &mut io.clients;
        if clients.budget.client_weight() == Some(Weight::Heavy) {
            clients.expect_mut(key).weight = Weight::Heavy;
        }
    }

    /// Resumes a stream whose turn has come among the deferred sends of its channel. `flush` tells
    /// of the bytes that came meanwhile.
    pub(super) fn resume_deferred(&mut self, key: Key, flush: &io::Result<Flush>) {
        let Self { hub, io, resume_batch, .. } = self;
        if matches!(flush, Ok(Flush::Complete))
            && let Some((_, stream)) = io.clients.stream_mut(key)
            && let Some(batch) = resume_batch
        {
            // Its input is scheduled already.
            let reader = stream.reader;
            hub.resume(io.now, reader, batch, |wake| io.send_to_stream(key, &wake, true));
        } else {
            self.on_flushed(key, flush);
        }
    }

    /// Checks a stream: sends a heartbeat that is due, ends an event stream whose life is over, or
    /// closes a client whose peer is gone or has not completed a message in time.
    pub(super) fn check_stream(&mut self, key: Key) {
        let now = self.io.now.mono;
        let limits = self.io.limits;
        let Some((client, stream)) = self.io.clients.stream_mut(key) else { return };
        // While a call waits for the log, Pongs are not read.
        let is_heard = stream.log_wait.is_none();
        let is_gone = is_heard && stream.is_peer_gone();
        if stream.message_deadline <= now || (stream.heartbeat_at <= now && is_gone) {
            return self.close(key);
        }
        if stream.ends_at <= now {
            // The end comes after the messages of this turn, and sets the next deadline.
            return self.hub.complete_after_delivery(stream.reader);
        }
        if stream.heartbeat_at <= now {
            stream.heartbeat_at = now.after(limits.heartbeat_ms);
            let heartbeat = match stream.stream.transport {
                // A heartbeat would come after bytes that the peer does not take.
                _ if client.is_stalled() => {
                    stream.stalled_heartbeats += 1;
                    None
                }
                Transport::WebSocket => {
                    stream.unanswered_pings += u8::from(is_heard);
                    Some(PING)
                }
                // The deferred update is as good as a heartbeat.
                Transport::Sse(framing) => (!client.is_deferred).then(|| framing.heartbeat()),
            };
            if heartbeat.is_some_and(|bytes| client.send(&Payload::Private(bytes)).is_err()) {
                return self.close(key);
            }
        }
        let next_check = stream.next_check();
        self.io.clients.set_deadline(key, next_check);
    }
}

//! Streams: reads that stay, and what is said on them both ways.

use super::client::Next;
use super::client_io::Io;
use super::conversation::Conversation;
use super::event::Event;
use super::http::Stop;
use super::socket::Socket;
use super::stream_state::{Backlog, Following};
use super::write_queue::Flush;
use crate::api::{Payload, Stream, Transport};
use crate::http::{self, CloseCode, Frame, Opcode};
use crate::hub::{Key, ReaderKey, Resumed};

/// Signs of life in a row that a peer may leave unanswered, or untaken.
const UNANSWERED_MAX: u8 = 2;

impl<S: Socket> Conversation<S> {
    /// A read of this client stays.
    pub(super) fn begin_following(&mut self, key: Key, reader: ReaderKey, stream: Stream) {
        let silent_until = self.io.now.mono.after(self.io.patience.heartbeat_ms);
        let following = Following {
            reader,
            stream,
            silent_until,
            unanswered: 0,
            fragments: None,
            incomplete_since: None,
            too_long: 0,
        };
        self.io.clients.follow(key, following);
        self.io.clients.set_deadline(key, silent_until);
    }

    /// Something happened to the client of a stream.
    pub(super) fn hear_following(&mut self, key: Key, event: Event) {
        let Some((_, following)) = self.io.clients.following(key) else { return };
        let speaks = following.stream.transport == Transport::Frames;
        if event.is_closed && !speaks {
            return self.lose(key);
        }
        if event.is_writable {
            self.drain(key);
        }
        // What a WebSocket said before it closed counts.
        if speaks && (event.is_readable || event.is_closed) {
            self.go_on(key);
        }
    }

    /// Handles the frames at the start of `bytes`, one after the other; their answers gather in `self.out`. Returns how
    /// many bytes they took.
    pub(super) fn take_frames(&mut self, key: Key, bytes: &mut [u8]) -> (usize, Stop) {
        let mut taken = 0;
        loop {
            let (_, following) = self.io.clients.following(key).expect("the caller looked");
            if following.stream.transport == Transport::Events {
                // Nothing is to be said on an event stream: whatever it is, it is not for us.
                return (bytes.len(), Stop::NeedsInput);
            }
            // Who says anything lives, and has a time of its own for what it leaves half said.
            following.unanswered = 0;
            let gathered = following.fragments.as_ref().map_or(0, Vec::len);
            let parsed = http::parse_frame(&mut bytes[taken..], self.io.api.frame_bytes_max().saturating_sub(gathered));
            let result = match parsed {
                Ok(None) => return (taken, Stop::NeedsInput),
                Ok(Some((frame, length))) => {
                    taken += length;
                    let answered = self.out.len();
                    let result = self.hear_frame(key, &frame);
                    self.io.clients.budget.handled(self.out.len() - answered);
                    result
                }
                Err(code) => Err(code),
            };
            if let Err(code) = result {
                http::push_close(&mut self.out, code);
                return (taken, Stop::Ends(Next::Linger));
            }
            if self.has_its_share() {
                return (taken, Stop::Yields);
            }
        }
    }

    /// The error is the farewell that follows.
    fn hear_frame(&mut self, key: Key, frame: &Frame<'_>) -> Result<(), CloseCode> {
        let Self { io: Io { clients, api, now, .. }, hub, out, .. } = self;
        clients.budget.parses(frame.payload.len());
        let (_, following) = clients.following(key).expect("the caller looked");
        if following.fragments.is_none() && frame.is_final {
            // What was incomplete is whole: the next has its own time. The first part of a text is not.
            following.incomplete_since = None;
        }
        match frame.opcode {
            Opcode::Ping => http::push_frame(out, Opcode::Pong, frame.payload),
            Opcode::Pong => {}
            Opcode::Close => return Err(http::answer_to_close(frame.payload)),
            Opcode::Text | Opcode::Continuation => {
                if following.fragments.is_some() != (frame.opcode == Opcode::Continuation) {
                    return Err(CloseCode::ProtocolError);
                }
                if !frame.is_final {
                    following.fragments.get_or_insert_default().extend_from_slice(frame.payload);
                    return Ok(());
                }
                following.incomplete_since = None;
                let mut gathered = following.fragments.take();
                let text = gathered.as_mut().map_or(frame.payload, |text| {
                    text.extend_from_slice(frame.payload);
                    text
                });
                let text = str::from_utf8(text).map_err(|_| CloseCode::BadData)?;
                let socket = (&mut following.reader, &mut following.stream);
                api.handle_frame(hub, *now, text, key.to_bits(), socket, out);
            }
        }
        Ok(())
    }

    /// How much waits for a stream to take it. `was_blocked` tells that something waited before the last was sent.
    pub(super) fn backlog(&mut self, key: Key, was_blocked: bool) -> Backlog {
        let max = self.io.patience.max_backlog;
        let following = self.io.clients.following(key);
        following.map_or(Backlog::Fits, |(client, following)| following.backlog(client.backlog(), was_blocked, max))
    }

    /// A stream has enough to take for now.
    pub(super) fn put_off(&mut self, key: Key) {
        // What was taken meanwhile is not waited for: nobody would say again that it was.
        if let Some((client, following)) = self.io.clients.following(key)
            && client.is_blocked()
        {
            self.hub.fall_behind(following.reader);
        }
    }

    /// After something was handed to the kernel, wholly or in part: what is to be done with a stream now. `has_more` tells
    /// that some of what came was not looked at.
    pub(super) fn go_on_following(&mut self, key: Key, flush: Flush, has_more: bool) {
        let now = self.io.now.mono;
        let Some((client, following)) = self.io.clients.following(key) else { return };
        let has_input = has_more || client.can_read;
        if client.peer_closed && !has_input {
            return self.lose(key);
        }
        let was_incomplete = following.incomplete_since.is_some();
        let is_incomplete = client.incoming.is_some() || following.fragments.is_some();
        following.incomplete_since = is_incomplete.then(|| following.incomplete_since.unwrap_or(now));
        if is_incomplete && !was_incomplete {
            let due = following.due(self.io.patience);
            self.io.clients.set_deadline(key, due);
        }
        if has_input {
            self.io.clients.make_ready(key);
        }
        if flush == Flush::Drained {
            self.resume(key);
        }
    }

    /// A stream took some of what waited for it.
    pub(super) fn was_taken(&mut self, key: Key, flush: Flush) {
        let Some((client, following)) = self.io.clients.following(key) else { return };
        if flush != (Flush::Blocked { any: false }) {
            following.unanswered = 0;
        }
        let has_input = client.is_ready || client.can_read;
        if has_input && !self.is_leaving {
            // Told more first, it might be held again, turn after turn, and never be heard.
            return self.io.clients.make_ready(key);
        }
        self.go_on_following(key, flush, false);
    }

    /// A stream has taken all that it was given: if that was not all that there is, it gets the next answer.
    fn resume(&mut self, key: Key) {
        let Self { hub, io, resumed, .. } = self;
        let Some((_, following)) = io.clients.following(key) else { return };
        let reader = following.reader;
        let mut alone = Resumed::default();
        let resumed = resumed.as_mut().unwrap_or(&mut alone);
        hub.resume(io.now, reader, resumed, |wake| io.tell(key, &wake));
    }

    /// A stream was silent for a while, or its peer was: shows that it lives, and sees whether the peer does.
    pub(super) fn show_life(&mut self, key: Key) {
        let now = self.io.now.mono;
        let Some((client, following)) = self.io.clients.following(key) else { return };
        let is_blocked = client.is_blocked();
        if following.must_be_whole(self.io.patience).is_some_and(|at| at <= now) {
            return self.lose(key);
        }
        if following.silent_until > now {
            // What was to be whole by now is.
            let due = following.due(self.io.patience);
            return self.io.clients.set_deadline(key, due);
        }
        if following.unanswered >= UNANSWERED_MAX {
            return self.lose(key);
        }
        let asks = following.stream.transport == Transport::Frames;
        // A Ping that carries nothing, or a comment.
        let sign: &[u8] = if asks { &[0x80 | Opcode::Ping as u8, 0] } else { http::SIGN_OF_LIFE };
        following.unanswered += u8::from(asks || is_blocked);
        following.silent_until = now.after(self.io.patience.heartbeat_ms);
        let due = following.due(self.io.patience);
        if !is_blocked && client.send(&Payload::Private(sign)).is_err() {
            return self.lose(key);
        }
        self.io.clients.set_deadline(key, due);
    }
}

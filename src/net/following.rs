//! Streams: reads that stay, and what is said on them both ways.

use super::client::{Delivery, Next, State};
use super::clients::Clients;
use super::conversation::{Conversation, Event, Patience};
use super::outbox::Flush;
use super::serving::{Stop, settle};
use super::socket::Socket;
use crate::api::{Api, Payload, Stream, Transport};
use crate::http::{self, CloseCode, Frame, Opcode};
use crate::hub::{Key, Millis, Now, ReaderKey, Resumed, Wake};

/// Signs of life in a row that a peer may leave unanswered, or untaken.
const UNANSWERED_MAX: u8 = 2;

/// What belongs to a client whose read stays.
pub(super) struct Following {
    pub(super) reader: ReaderKey,
    stream: Stream,
    /// When the peer is to be shown that the server lives, if it was told nothing until then.
    silent_until: Millis,
    /// Signs of life in a row that the peer did not answer, or did not take.
    unanswered: u8,
    /// A text that is not whole: WebSocket allows it to come in several frames.
    fragments: Option<Vec<u8>>,
    /// When the first bytes came of a text that is not whole.
    incomplete_since: Option<Millis>,
    /// Bytes of an answer that alone is longer than what may wait for a stream, while it is being sent.
    too_long: usize,
}

/// How much waits for a stream, after something more was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backlog {
    /// No more than may.
    Fits,
    /// More than may, in one answer. It is sent to its end, and until then nothing comes on top of it: a client that
    /// reads would else never get an answer of that size in a channel that goes on.
    OneTooLong,
    /// More than may.
    TooMuch,
}

impl Following {
    /// Bytes that it holds beside itself.
    pub(super) fn memory(&self) -> usize {
        self.fragments.as_ref().map_or(0, Vec::capacity)
    }

    /// When what the peer has begun to say has to be whole.
    fn must_be_whole(&self, patience: Patience) -> Option<Millis> {
        self.incomplete_since.map(|since| since.after(patience.request_timeout_ms))
    }

    /// When a stream has to be looked at, for its silence or for what its peer leaves half said.
    fn due(&self, patience: Patience) -> Millis {
        self.must_be_whole(patience).map_or(self.silent_until, |at| at.min(self.silent_until))
    }

    /// How `waits` bytes that are to be sent compare to what may wait. `was_blocked` tells that something waited before.
    fn backlog(&mut self, waits: Option<usize>, was_blocked: bool, max: usize) -> Backlog {
        let Some(bytes) = waits else { return Backlog::Fits };
        if !was_blocked {
            self.too_long = if bytes > max { bytes } else { 0 };
        }
        match self.too_long {
            too_long if bytes > max + too_long => Backlog::TooMuch,
            0 => Backlog::Fits,
            _ => Backlog::OneTooLong,
        }
    }
}

impl<S: Socket> Conversation<S> {
    /// A read of this client stays.
    pub(super) fn begin_following(&mut self, key: Key, reader: ReaderKey, stream: Stream) {
        let silent_until = self.now.mono.after(self.patience.heartbeat_ms);
        let following = Following {
            reader,
            stream,
            silent_until,
            unanswered: 0,
            fragments: None,
            incomplete_since: None,
            too_long: 0,
        };
        self.clients.follow(key, following);
        self.clients.set_deadline(key, silent_until);
    }

    /// Something happened to the client of a stream.
    pub(super) fn hear_following(&mut self, key: Key, event: Event) {
        let Some((_, following)) = self.clients.following(key) else { return };
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
            let (_, following) = self.clients.following(key).expect("the caller looked");
            if following.stream.transport == Transport::Events {
                // Nothing is to be said on an event stream: whatever it is, it is not for us.
                return (bytes.len(), Stop::NeedsInput);
            }
            // Who says anything lives, and has a time of its own for what it leaves half said.
            following.unanswered = 0;
            let gathered = following.fragments.as_ref().map_or(0, Vec::len);
            let parsed = http::parse_frame(&mut bytes[taken..], self.api.frame_bytes_max().saturating_sub(gathered));
            let result = match parsed {
                Ok(None) => return (taken, Stop::NeedsInput),
                Ok(Some((frame, length))) => {
                    taken += length;
                    let answered = self.out.len();
                    let result = self.hear_frame(key, &frame);
                    self.clients.budget.handled(self.out.len() - answered);
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
        let Self { clients, api, hub, out, now, .. } = self;
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
        let max = self.patience.max_backlog;
        let following = self.clients.following(key);
        following.map_or(Backlog::Fits, |(client, following)| following.backlog(client.backlog(), was_blocked, max))
    }

    /// A stream has enough to take for now.
    pub(super) fn put_off(&mut self, key: Key) {
        // What was taken meanwhile is not waited for: nobody would say again that it was.
        if let Some((client, following)) = self.clients.following(key)
            && client.is_blocked()
        {
            self.hub.fall_behind(following.reader);
        }
    }

    /// After something was handed to the kernel, wholly or in part: what is to be done with a stream now. `has_more` tells
    /// that some of what came was not looked at.
    pub(super) fn go_on_following(&mut self, key: Key, flush: Flush, has_more: bool) {
        let now = self.now.mono;
        let Some((client, following)) = self.clients.following(key) else { return };
        let has_input = has_more || client.can_read;
        if client.peer_closed && !has_input {
            return self.lose(key);
        }
        let was_incomplete = following.incomplete_since.is_some();
        let is_incomplete = client.incoming.is_some() || following.fragments.is_some();
        following.incomplete_since = is_incomplete.then(|| following.incomplete_since.unwrap_or(now));
        if is_incomplete && !was_incomplete {
            let due = following.due(self.patience);
            self.clients.set_deadline(key, due);
        }
        if has_input {
            self.clients.make_ready(key);
        }
        if flush == Flush::Drained {
            self.resume(key);
        }
    }

    /// A stream took some of what waited for it.
    pub(super) fn was_taken(&mut self, key: Key, flush: Flush) {
        let Some((client, following)) = self.clients.following(key) else { return };
        if flush != (Flush::Blocked { any: false }) {
            following.unanswered = 0;
        }
        let has_input = client.is_ready || client.can_read;
        if has_input && !self.is_leaving {
            // Told more first, it might be held again, turn after turn, and never be heard.
            return self.clients.make_ready(key);
        }
        self.go_on_following(key, flush, false);
    }

    /// A stream has taken all that it was given: if that was not all that there is, it gets the next answer.
    fn resume(&mut self, key: Key) {
        let Self { hub, api, clients, patience, now, resumed, .. } = self;
        let Some((_, following)) = clients.following(key) else { return };
        let reader = following.reader;
        let mut alone = Resumed::default();
        let resumed = resumed.as_mut().unwrap_or(&mut alone);
        hub.resume(*now, reader, resumed, |wake| tell(api, clients, *patience, *now, key, &wake));
    }

    /// A stream was silent for a while, or its peer was: shows that it lives, and sees whether the peer does.
    pub(super) fn show_life(&mut self, key: Key) {
        let now = self.now.mono;
        let Some((client, following)) = self.clients.following(key) else { return };
        let is_blocked = client.is_blocked();
        if following.must_be_whole(self.patience).is_some_and(|at| at <= now) {
            return self.lose(key);
        }
        if following.silent_until > now {
            // What was to be whole by now is.
            let due = following.due(self.patience);
            return self.clients.set_deadline(key, due);
        }
        if following.unanswered >= UNANSWERED_MAX {
            return self.lose(key);
        }
        let asks = following.stream.transport == Transport::Frames;
        // A Ping that carries nothing, or a comment.
        let sign: &[u8] = if asks { &[0x80 | Opcode::Ping as u8, 0] } else { http::SIGN_OF_LIFE };
        following.unanswered += u8::from(asks || is_blocked);
        following.silent_until = now.after(self.patience.heartbeat_ms);
        let due = following.due(self.patience);
        if !is_blocked && client.send(&Payload::Private(sign)).is_err() {
            return self.lose(key);
        }
        self.clients.set_deadline(key, due);
    }
}

/// Tells a stream what is new, or its end.
pub(super) fn tell<S: Socket>(
    api: &mut Api,
    clients: &mut Clients<S>,
    patience: Patience,
    now: Now,
    key: Key,
    wake: &Wake<'_>,
) {
    let time = clients.time_for(wake.channel);
    let Some((client, following)) = clients.following(key) else { return api.begin_wake(wake) };
    following.silent_until = now.mono.after(patience.heartbeat_ms);
    let due = following.due(patience);
    let payload = api.tell(wake, &following.stream);
    let was_blocked = client.is_blocked();
    let Ok(delivery) = client.deliver(&payload, time) else { return clients.doom(key) };
    let is_held = matches!(delivery, Delivery::Held(_));
    let waits = if is_held { Some(payload.bytes().len()) } else { client.backlog() };
    let backlog = following.backlog(waits, was_blocked, patience.max_backlog);
    // Its own answer may be, or the one of another channel before it: it is not slow.
    let waits_for_time = client.is_held;
    let flush = delivery.flush();
    clients.delivered(key, wake.channel, payload.bytes().len(), delivery);
    if wake.is_last {
        // The hub knows already. The peer of a WebSocket has a farewell to send.
        clients.leave(key, State::Reading);
        return settle(clients, patience, now, key, Next::Linger, flush);
    }
    match backlog {
        // What comes meanwhile is told together, once it was sent this.
        _ if waits_for_time => clients.overload(key),
        Backlog::Fits => {}
        Backlog::OneTooLong => clients.overload(key),
        Backlog::TooMuch => return clients.doom(key),
    }
    if flush != Flush::Drained && clients.count_memory(key) && clients.memory() > patience.max_memory {
        return clients.doom(key);
    }
    clients.set_deadline(key, due);
    if wake.has_more && flush == Flush::Drained {
        // No event will tell that it was taken: the rest is for the next turn, which comes at once.
        clients.make_ready(key);
    }
}

//! Streams: reads that stay, and what is said on them both ways.

use super::client::{Client, Following, Next, State};
use super::clients::Clients;
use super::conversation::{ANSWERS_BYTES_A_TURN, Conversation, Patience, Stop, settle};
use super::outbox::Flush;
use crate::api::{Api, Payload, Stream, Transport};
use crate::http::{self, CloseCode, Frame, Opcode};
use crate::hub::{Key, Now, ReaderKey, Wake};

/// Signs of life in a row that a peer may leave unanswered, or untaken.
const UNANSWERED_MAX: u8 = 2;

impl Conversation {
    /// A read of this client stays.
    pub(super) fn begin_following(&mut self, key: Key, reader: ReaderKey, stream: Box<Stream>) {
        let following = Following { reader, stream, unanswered: 0, fragments: None, incomplete_since: None };
        self.clients.the(key).state = State::Following(Box::new(following));
        self.clients.set_deadline(key, self.now.mono.after(self.patience.heartbeat_ms));
    }

    /// Handles the frames at the start of `bytes`, one after the other; their answers gather in `self.out`. Returns how
    /// many bytes they took.
    pub(super) fn take_frames(&mut self, key: Key, bytes: &mut [u8]) -> (usize, Stop) {
        let mut taken = 0;
        loop {
            let State::Following(following) = &mut self.clients.the(key).state else {
                unreachable!("only a WebSocket has frames")
            };
            if following.stream.transport == Transport::Events {
                // Nothing is to be said on an event stream: whatever it is, it is not for us.
                return (bytes.len(), Stop::NeedsInput);
            }
            let gathered = following.fragments.as_ref().map_or(0, Vec::len);
            let parsed = http::parse_frame(&mut bytes[taken..], self.api.frame_bytes_max().saturating_sub(gathered));
            let result = match parsed {
                Ok(None) => return (taken, Stop::NeedsInput),
                Ok(Some((frame, length))) => {
                    taken += length;
                    self.hear_frame(key, &frame)
                }
                Err(code) => Err(code),
            };
            if let Err(code) = result {
                http::push_close(&mut self.out, code);
                return (taken, Stop::Ends(Next::Linger));
            }
            if self.out.len() >= ANSWERS_BYTES_A_TURN {
                return (taken, Stop::Yields);
            }
        }
    }

    /// The error is the farewell that follows.
    fn hear_frame(&mut self, key: Key, frame: &Frame<'_>) -> Result<(), CloseCode> {
        let Self { clients, api, hub, out, now, .. } = self;
        let State::Following(following) = &mut clients.the(key).state else { return Ok(()) };
        following.unanswered = 0;
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
                let mut gathered = following.fragments.take();
                let text = gathered.as_mut().map_or(frame.payload, |text| {
                    text.extend_from_slice(frame.payload);
                    text
                });
                let text = str::from_utf8(text).map_err(|_| CloseCode::BadData)?;
                let socket = (&mut following.reader, &mut *following.stream);
                api.handle_frame(hub, *now, text, key.to_bits(), socket, out);
            }
        }
        Ok(())
    }

    /// After something was handed to the kernel, wholly or in part: what is to be done with a stream now. `has_more` tells
    /// that some of what came was not looked at.
    pub(super) fn go_on_following(&mut self, key: Key, flush: Flush, has_more: bool) {
        let Patience { heartbeat_ms, request_timeout_ms, .. } = self.patience;
        let now = self.now.mono;
        let client = self.clients.the(key);
        let has_bytes = client.incoming.is_some();
        let has_input = has_more || client.can_read;
        let is_over = client.peer_closed && !has_input;
        let State::Following(following) = &mut client.state else { return };
        if is_over {
            return self.lose(key);
        }
        let was_incomplete = following.incomplete_since.is_some();
        let is_incomplete = has_bytes || following.fragments.is_some();
        following.incomplete_since = is_incomplete.then(|| following.incomplete_since.unwrap_or(now));
        if is_incomplete && !was_incomplete {
            self.clients.set_deadline(key, now.after(heartbeat_ms.min(request_timeout_ms)));
        }
        if has_input {
            self.clients.make_ready(key);
        }
        if flush == Flush::Drained {
            self.resume(key);
        }
    }

    /// A stream has taken all that it was given: if that was not all that there is, it gets the next answer.
    fn resume(&mut self, key: Key) {
        let Self { hub, api, clients, patience, now, .. } = self;
        let State::Following(following) = &clients.the(key).state else { return };
        hub.resume(following.reader, |wake| tell(api, clients, *patience, *now, key, &wake));
    }

    /// A stream was silent for a while, or its peer was: shows that it lives, and sees whether the peer does.
    pub(super) fn show_life(&mut self, key: Key) {
        let Patience { heartbeat_ms, request_timeout_ms, .. } = self.patience;
        let now = self.now.mono;
        let client = self.clients.the(key);
        let is_blocked = client.outbox.is_some();
        let State::Following(following) = &mut client.state else { return };
        let is_too_slow = following.incomplete_since.is_some_and(|since| since.after(request_timeout_ms) <= now);
        if is_too_slow || following.unanswered >= UNANSWERED_MAX {
            return self.lose(key);
        }
        let sign: &[u8] = match following.stream.transport {
            // A Ping that carries nothing.
            Transport::Frames => &[0x80 | Opcode::Ping as u8, 0],
            Transport::Events => http::SIGN_OF_LIFE,
        };
        let asks = following.stream.transport == Transport::Frames;
        following.unanswered += u8::from(asks || is_blocked);
        if !is_blocked && client.send(&Payload::Private(sign)).is_err() {
            return self.lose(key);
        }
        self.clients.set_deadline(key, now.after(heartbeat_ms));
    }
}

/// Tells a stream what is new, or its end.
pub(super) fn tell(api: &mut Api, clients: &mut Clients, patience: Patience, now: Now, key: Key, wake: &Wake<'_>) {
    let client: &mut Client = clients.the(key);
    let State::Following(following) = &client.state else { return };
    let payload = api.tell(wake, &following.stream);
    let is_blocked = client.outbox.is_some();
    let Ok(flush) = client.send(&payload) else { return clients.doom(key) };
    if wake.is_last {
        // The peer of a WebSocket has a farewell to send.
        settle(clients, patience, now, key, Next::Linger, flush);
    } else if is_blocked && client.backlog() > patience.max_backlog {
        // One answer may be longer than that; what comes on top of one that is not taken may not.
        clients.doom(key);
    } else {
        clients.set_deadline(key, now.mono.after(patience.heartbeat_ms));
        if wake.has_more && flush == Flush::Drained {
            // No event will tell that it was taken: the rest is for the next turn, which comes at once.
            clients.make_ready(key);
        }
    }
}

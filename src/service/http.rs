//! Requests in, answers out: what one client is at, from the read of its socket to the answer that it takes.

use std::io;
use std::mem;

use super::budget::Time;
use super::client::{Incoming, Input, Next, State};
use super::client_io::Io;
use super::conversation::Conversation;
use super::limits::Patience;
use super::socket::Socket;
use super::stream_state::Backlog;
use super::write_queue::Flush;
use crate::api::{Outcome, Payload, Peer};
use crate::http::{self, Parsed, Persistence, Progress};
use crate::hub::Key;

/// One read takes this much at most, and with it a client's turn.
pub const READ_BYTES: usize = 64 * 1024;

/// A client that pipelines gets this much of answers in one turn, then others have theirs.
pub const ANSWERS_BYTES_A_TURN: usize = 256 * 1024;

/// Why no more requests are taken from a client in this step.
pub(super) enum Stop {
    /// All that is there was handled, or more has to come first.
    NeedsInput,
    /// A read waits. What stands behind it is held.
    Waits,
    /// It had its share of the turn.
    Yields,
    /// It is to go.
    Ends(Next),
}

impl<S: Socket> Conversation<S> {
    /// Reads on, where the client is at that.
    pub(super) fn go_on(&mut self, key: Key) {
        let Some(client) = self.io.clients.get_mut(key) else { return };
        match client.state {
            State::Reading | State::Following(_) if self.is_leaving => {}
            // What it asks for would pile up behind what it was not sent yet, as if it were slow to take it.
            State::Following(_) if client.is_held => self.io.clients.make_ready(key),
            State::Reading | State::Following(_) => self.serve(key),
            State::Lingering => self.discard(key),
            State::Waiting { .. } | State::Writing(_) | State::Closing => {}
        }
    }

    /// Throws away what a client sends that was told to go.
    fn discard(&mut self, key: Key) {
        let client = self.io.clients.the(key);
        let result = if client.can_read { client.read(&mut self.buffer) } else { Ok(Input::Nothing) };
        let is_over = client.peer_closed && !client.can_read;
        match result {
            Ok(input) if !is_over => {
                if let Input::Bytes(length) = input {
                    self.io.clients.budget.handled(length);
                }
                let client = self.io.clients.the(key);
                if client.can_read {
                    self.io.clients.make_ready(key);
                }
            }
            _ => self.lose(key),
        }
    }

    /// Takes requests, or frames, from a client: first those held, then what one read brings.
    fn serve(&mut self, key: Key) {
        self.io.clients.budget.begin_client();
        let mut held = self.io.clients.the(key).incoming.take();
        let was_held = held.is_some();
        let (mut handled, mut stop) = match &mut held {
            Some(held) => self.take_held(key, held),
            None => (0, Stop::NeedsInput),
        };
        if matches!(stop, Stop::NeedsInput) && self.io.clients.the(key).can_read {
            let mut buffer = mem::take(&mut self.buffer);
            let result = self.read_requests(key, &mut buffer, &mut held);
            self.buffer = buffer;
            let Ok((fresh, its_stop)) = result else {
                self.out.clear();
                return self.lose(key);
            };
            handled += fresh;
            stop = its_stop;
        }
        let held = held.filter(|held| !held.bytes.is_empty());
        let is_held = held.is_some();
        self.io.clients.the(key).incoming = held;
        let stays = matches!(self.io.clients.the(key).state, State::Waiting { .. } | State::Following(_));
        if !stays && (handled > 0 || was_held != is_held) {
            let Patience { keep_alive_ms, request_timeout_ms, .. } = self.io.patience;
            let ms = if is_held { request_timeout_ms } else { keep_alive_ms };
            self.io.clients.set_deadline(key, self.io.now.mono.after(ms));
        }
        self.send_out(key, &stop);
    }

    /// Reads once and takes requests from what came; what is left of it is held.
    fn read_requests(
        &mut self,
        key: Key,
        buffer: &mut [u8],
        held: &mut Option<Box<Incoming>>,
    ) -> io::Result<(usize, Stop)> {
        let Input::Bytes(length) = self.io.clients.the(key).read(buffer)? else {
            return Ok((0, Stop::NeedsInput));
        };
        self.io.clients.budget.came(length);
        let fresh = &mut buffer[..length];
        if let Some(held) = held {
            held.bytes.extend_from_slice(fresh);
            return Ok(self.take_held(key, held));
        }
        // Nearly always: whole requests, handled where they were read.
        let mut progress = Progress::default();
        let (taken, stop) = self.take(key, fresh, &mut progress);
        if taken < length {
            let mut rest = Box::new(Incoming { bytes: fresh[taken..].to_vec(), progress });
            rest.forget(0);
            *held = Some(rest);
        }
        Ok((taken, stop))
    }

    fn take_held(&mut self, key: Key, held: &mut Incoming) -> (usize, Stop) {
        let (taken, stop) = self.take(key, &mut held.bytes, &mut held.progress);
        held.forget(taken);
        (taken, stop)
    }

    fn take(&mut self, key: Key, bytes: &mut [u8], progress: &mut Progress) -> (usize, Stop) {
        match self.io.clients.the(key).state {
            State::Following(_) => self.take_frames(key, bytes),
            _ => self.take_requests(key, bytes, progress),
        }
    }

    /// Handles the requests at the start of `bytes`, one after the other; their answers gather in `self.out`.
    /// Returns how many bytes they took.
    fn take_requests(&mut self, key: Key, bytes: &mut [u8], progress: &mut Progress) -> (usize, Stop) {
        let client = self.io.clients.the(key);
        let is_operator = client.is_operator;
        let peer = Peer { client: key.to_bits(), address: client.address, is_proxy: client.is_proxy };
        let mut taken = 0;
        loop {
            if *progress == Progress::default() {
                taken += http::blank_prefix(&bytes[taken..]);
            }
            let rest = &mut bytes[taken..];
            if rest.is_empty() {
                return (taken, Stop::NeedsInput);
            }
            let whole = if *progress == Progress::default() { http::parse_whole(rest, &self.limits) } else { None };
            let (request, length) = match whole {
                Some(whole) => whole,
                None => match http::parse(rest, progress, &self.limits) {
                    Ok(Parsed::Complete(request, length)) => (request, length),
                    Ok(Parsed::Incomplete { wants_continue }) => {
                        if wants_continue {
                            self.out.extend_from_slice(http::CONTINUE);
                        }
                        return (taken, Stop::NeedsInput);
                    }
                    Err(reject) => {
                        self.refuse(key, reject.into());
                        return (taken, Stop::Ends(Next::Linger));
                    }
                },
            };
            taken += length;
            let answered = self.out.len();
            let outcome = if is_operator {
                let clients = self.io.clients.served();
                let Self { io: Io { api, .. }, hub, metrics, out, .. } = self;
                Outcome::Answered(api.handle_admin(&request, |api, page| metrics.write(hub, api, clients, page), out))
            } else {
                self.io.api.handle(&mut self.hub, self.io.now, &request, peer, &mut self.out)
            };
            self.io.clients.budget.handled(self.out.len() - answered);
            match outcome {
                Outcome::Waits { reader, presentation, wait_ms } => {
                    self.io.clients.the(key).state = State::Waiting { reader, presentation };
                    self.io.clients.set_deadline(key, self.io.now.mono.after(wait_ms));
                    return (taken, Stop::Waits);
                }
                Outcome::Follows { reader, stream } => {
                    self.begin_following(key, reader, stream);
                    let (more, stop) = self.take_frames(key, &mut bytes[taken..]);
                    return (taken + more, stop);
                }
                Outcome::Answered(Persistence::Closes) => {
                    let client = self.io.clients.the(key);
                    let may_send = taken < bytes.len() || client.can_read;
                    return (taken, Stop::Ends(if may_send { Next::Linger } else { Next::Close }));
                }
                Outcome::Answered(_) if self.has_its_share() => return (taken, Stop::Yields),
                Outcome::Answered(_) => {}
            }
        }
    }

    /// Whether the client whose requests are handled now has had its share of the turn.
    pub(super) fn has_its_share(&self) -> bool {
        self.out.len() >= ANSWERS_BYTES_A_TURN || self.io.clients.budget.for_client() == Time::Spent
    }

    /// Sends the answers that gathered, and sees what the client is at then.
    pub(super) fn send_out(&mut self, key: Key, stop: &Stop) {
        let client = self.io.clients.the(key);
        let was_blocked = client.is_blocked();
        let sent = match (self.out.is_empty(), was_blocked) {
            (true, false) => Ok(Flush::Drained),
            (true, true) => Ok(Flush::Blocked { any: false }),
            (false, _) => client.send(&Payload::Private(&self.out)),
        };
        self.out.clear();
        let Ok(flush) = sent else { return self.lose(key) };
        let is_following = matches!(client.state, State::Following(_));
        let next = match stop {
            Stop::NeedsInput | Stop::Yields if is_following => {
                match self.backlog(key, was_blocked) {
                    Backlog::Fits => {}
                    Backlog::OneTooLong => self.put_off(key),
                    Backlog::TooMuch => return self.lose(key),
                }
                return self.go_on_following(key, flush, matches!(stop, Stop::Yields));
            }
            Stop::Ends(_) if is_following => {
                self.leave(key, State::Reading);
                Next::Linger
            }
            Stop::Waits if client.peer_closed => return self.lose(key),
            Stop::Waits => return,
            Stop::NeedsInput if flush == Flush::Drained => {
                if client.can_read {
                    self.io.clients.make_ready(key);
                } else if client.peer_closed {
                    // Half-closed and answered: whatever is there is no whole request, and never will be.
                    self.lose(key);
                }
                return;
            }
            Stop::NeedsInput | Stop::Yields => Next::Read,
            Stop::Ends(next) => *next,
        };
        self.io.settle(key, next, flush);
    }

    /// Sends what waited for the kernel to have room.
    pub(super) fn drain(&mut self, key: Key) {
        let client = self.io.clients.the(key);
        if client.outbox.is_some() {
            let result = client.flush();
            self.was_flushed(key, &result);
        }
    }

    /// After what waited for a client was sent, wholly or in part: what it is at now.
    pub(super) fn was_flushed(&mut self, key: Key, result: &io::Result<Flush>) {
        match (result, &self.io.clients.the(key).state) {
            (Err(_), _) => self.lose(key),
            (Ok(flush), State::Writing(next)) if *flush != (Flush::Blocked { any: false }) => {
                let next = *next;
                self.io.settle(key, next, *flush);
            }
            (Ok(flush), State::Following(_)) => self.was_taken(key, *flush),
            (Ok(_), _) => {}
        }
    }
}

impl Incoming {
    /// Lets go of bytes at the start that were handled, and of those that have no more use.
    fn forget(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
        self.progress.compact(&mut self.bytes);
    }
}

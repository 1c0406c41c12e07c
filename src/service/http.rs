//! Requests in, answers out: what one client is at, from the read of its socket to the answer that it takes.

use std::io;
use std::mem;

use super::client::{AfterResponse, ReadBuffer, ReadResult, State};
use super::client_io::Io;
use super::conversation::Conversation;
use super::limits::ClientLimits;
use super::socket::Socket;
use super::stream_state::Backlog;
use super::write_queue::Flush;
use crate::api::{Handled, Payload, RequestSource};
use crate::http::{self, Parsed, Persistence, Progress};
use crate::hub::Key;

/// One read takes this much at most, and with it a client's turn.
pub const READ_BYTES: usize = 64 * 1024;

/// A client that pipelines gets this much of answers in one turn, then others have theirs.
pub const RESPONSE_BYTES_PER_TURN: usize = 256 * 1024;

/// Why no more requests are taken from a client in this step.
pub(super) enum Pause {
    /// All that is there was handled, or more has to come first.
    NeedData,
    /// A read waits. What stands behind it is held.
    Blocked,
    /// It had its share of the turn.
    BudgetSpent,
    /// It is to go.
    Closing(AfterResponse),
}

impl<S: Socket> Conversation<S> {
    /// Reads on, where the client is at that.
    pub(super) fn process_input(&mut self, key: Key) {
        let Some(client) = self.io.clients.get_mut(key) else { return };
        match client.state {
            State::Reading | State::Streaming(_) if self.is_leaving => {}
            // What it asks for would pile up behind what it was not sent yet, as if it were slow to take it.
            State::Streaming(_) if client.is_deferred => self.io.clients.schedule(key),
            State::Reading | State::Streaming(_) => self.process_requests(key),
            State::Lingering => self.discard_input(key),
            State::LongPolling { .. } | State::Writing(_) | State::Closing => {}
        }
    }

    /// Throws away what a client sends that was told to go.
    fn discard_input(&mut self, key: Key) {
        let client = self.io.clients.expect_mut(key);
        let result = if client.is_readable {
            client.read(&mut self.read_buf)
        } else {
            Ok(ReadResult::WouldBlock)
        };
        let is_over = client.is_read_closed && !client.is_readable;
        match result {
            Ok(input) if !is_over => {
                if let ReadResult::Bytes(length) = input {
                    self.io.clients.budget.charge_request(length);
                }
                let client = self.io.clients.expect_mut(key);
                if client.is_readable {
                    self.io.clients.schedule(key);
                }
            }
            _ => self.close(key),
        }
    }

    /// Takes requests, or frames, from a client: first those held, then what one read brings.
    fn process_requests(&mut self, key: Key) {
        self.io.clients.budget.begin_client();
        let mut held = self.io.clients.expect_mut(key).incoming.take();
        let was_held = held.is_some();
        let (mut handled, mut stop) = match &mut held {
            Some(held) => self.process_buffered(key, held),
            None => (0, Pause::NeedData),
        };
        if matches!(stop, Pause::NeedData) && self.io.clients.expect_mut(key).is_readable {
            let mut buffer = mem::take(&mut self.read_buf);
            let result = self.read_requests(key, &mut buffer, &mut held);
            self.read_buf = buffer;
            let Ok((fresh, its_stop)) = result else {
                self.response.clear();
                return self.close(key);
            };
            handled += fresh;
            stop = its_stop;
        }
        let held = held.filter(|held| !held.bytes.is_empty());
        let is_held = held.is_some();
        self.io.clients.expect_mut(key).incoming = held;
        let stays = matches!(
            self.io.clients.expect_mut(key).state,
            State::LongPolling { .. } | State::Streaming(_)
        );
        if !stays && (handled > 0 || was_held != is_held) {
            let ClientLimits { keep_alive_ms, request_timeout_ms, .. } = self.io.patience;
            let ms = if is_held { request_timeout_ms } else { keep_alive_ms };
            self.io.clients.set_deadline(key, self.io.now.mono.after(ms));
        }
        self.flush_responses(key, &stop);
    }

    /// Reads once and takes requests from what came; what is left of it is held.
    fn read_requests(
        &mut self,
        key: Key,
        buffer: &mut [u8],
        held: &mut Option<Box<ReadBuffer>>,
    ) -> io::Result<(usize, Pause)> {
        let ReadResult::Bytes(length) = self.io.clients.expect_mut(key).read(buffer)? else {
            return Ok((0, Pause::NeedData));
        };
        self.io.clients.budget.charge_read(length);
        let fresh = &mut buffer[..length];
        if let Some(held) = held {
            held.bytes.extend_from_slice(fresh);
            return Ok(self.process_buffered(key, held));
        }
        // Nearly always: whole requests, handled where they were read.
        let mut progress = Progress::default();
        let (taken, stop) = self.process_bytes(key, fresh, &mut progress);
        if taken < length {
            let mut rest = Box::new(ReadBuffer { bytes: fresh[taken..].to_vec(), progress });
            rest.consume(0);
            *held = Some(rest);
        }
        Ok((taken, stop))
    }

    fn process_buffered(&mut self, key: Key, held: &mut ReadBuffer) -> (usize, Pause) {
        let (taken, stop) = self.process_bytes(key, &mut held.bytes, &mut held.progress);
        held.consume(taken);
        (taken, stop)
    }

    fn process_bytes(
        &mut self,
        key: Key,
        bytes: &mut [u8],
        progress: &mut Progress,
    ) -> (usize, Pause) {
        match self.io.clients.expect_mut(key).state {
            State::Streaming(_) => self.handle_frames(key, bytes),
            _ => self.handle_requests(key, bytes, progress),
        }
    }

    /// Handles the requests at the start of `bytes`, one after the other; their answers gather in `self.out`.
    /// Returns how many bytes they took.
    fn handle_requests(
        &mut self,
        key: Key,
        bytes: &mut [u8],
        progress: &mut Progress,
    ) -> (usize, Pause) {
        let client = self.io.clients.expect_mut(key);
        let is_operator = client.is_admin;
        let peer = RequestSource {
            client: key.to_bits(),
            address: client.address,
            is_proxy: client.is_proxy,
        };
        let mut taken = 0;
        loop {
            if *progress == Progress::default() {
                taken += http::leading_blank_lines(&bytes[taken..]);
            }
            let rest = &mut bytes[taken..];
            if rest.is_empty() {
                return (taken, Pause::NeedData);
            }
            let whole = if *progress == Progress::default() {
                http::parse_complete(rest, &self.limits)
            } else {
                None
            };
            let (request, length) = match whole {
                Some(whole) => whole,
                None => match http::parse(rest, progress, &self.limits) {
                    Ok(Parsed::Complete(request, length)) => (request, length),
                    Ok(Parsed::Incomplete { wants_continue }) => {
                        if wants_continue {
                            self.response.extend_from_slice(http::CONTINUE);
                        }
                        return (taken, Pause::NeedData);
                    }
                    Err(reject) => {
                        self.respond_error(key, reject.into());
                        return (taken, Pause::Closing(AfterResponse::Linger));
                    }
                },
            };
            taken += length;
            let answered = self.response.len();
            let outcome = if is_operator {
                let clients = self.io.clients.active();
                let Self { io: Io { api, .. }, hub, metrics, response, .. } = self;
                Handled::Responded(api.handle_admin(
                    &request,
                    |api, page| metrics.write(hub, api, clients, page),
                    response,
                ))
            } else {
                self.io.api.handle(&mut self.hub, self.io.now, &request, peer, &mut self.response)
            };
            self.io.clients.budget.charge_request(self.response.len() - answered);
            match outcome {
                Handled::LongPoll { reader, presentation, wait_ms } => {
                    self.io.clients.expect_mut(key).state =
                        State::LongPolling { reader, presentation };
                    self.io.clients.set_deadline(key, self.io.now.mono.after(wait_ms));
                    return (taken, Pause::Blocked);
                }
                Handled::Stream { reader, stream } => {
                    self.start_stream(key, reader, stream);
                    let (more, stop) = self.handle_frames(key, &mut bytes[taken..]);
                    return (taken + more, stop);
                }
                Handled::Responded(Persistence::Close) => {
                    let client = self.io.clients.expect_mut(key);
                    let may_send = taken < bytes.len() || client.is_readable;
                    return (
                        taken,
                        Pause::Closing(if may_send {
                            AfterResponse::Linger
                        } else {
                            AfterResponse::Close
                        }),
                    );
                }
                Handled::Responded(_) if self.budget_spent() => return (taken, Pause::BudgetSpent),
                Handled::Responded(_) => {}
            }
        }
    }

    /// Whether the client whose requests are handled now has had its share of the turn.
    pub(super) fn budget_spent(&self) -> bool {
        self.response.len() >= RESPONSE_BYTES_PER_TURN
            || !self.io.clients.budget.has_client_budget()
    }

    /// Sends the answers that gathered, and sees what the client is at then.
    pub(super) fn flush_responses(&mut self, key: Key, stop: &Pause) {
        let client = self.io.clients.expect_mut(key);
        let was_blocked = client.is_blocked();
        let sent = match (self.response.is_empty(), was_blocked) {
            (true, false) => Ok(Flush::Complete),
            (true, true) => Ok(Flush::WouldBlock { any: false }),
            (false, _) => client.send(&Payload::Private(&self.response)),
        };
        self.response.clear();
        let Ok(flush) = sent else { return self.close(key) };
        let is_following = matches!(client.state, State::Streaming(_));
        let next = match stop {
            Pause::NeedData | Pause::BudgetSpent if is_following => {
                match self.backlog(key, was_blocked) {
                    Backlog::WithinLimit => {}
                    Backlog::OversizedMessage => self.pause(key),
                    Backlog::OverLimit => return self.close(key),
                }
                return self.continue_stream(key, flush, matches!(stop, Pause::BudgetSpent));
            }
            Pause::Closing(_) if is_following => {
                self.set_state(key, State::Reading);
                AfterResponse::Linger
            }
            Pause::Blocked if client.is_read_closed => return self.close(key),
            Pause::Blocked => return,
            Pause::NeedData if flush == Flush::Complete => {
                if client.is_readable {
                    self.io.clients.schedule(key);
                } else if client.is_read_closed {
                    // Half-closed and answered: whatever is there is no whole request, and never will be.
                    self.close(key);
                }
                return;
            }
            Pause::NeedData | Pause::BudgetSpent => AfterResponse::KeepAlive,
            Pause::Closing(next) => *next,
        };
        self.io.finish_response(key, next, flush);
    }

    /// Sends what waited for the kernel to have room.
    pub(super) fn flush_write_queue(&mut self, key: Key) {
        let client = self.io.clients.expect_mut(key);
        if client.write_queue.is_some() {
            let result = client.flush();
            self.on_flushed(key, &result);
        }
    }

    /// After what waited for a client was sent, wholly or in part: what it is at now.
    pub(super) fn on_flushed(&mut self, key: Key, result: &io::Result<Flush>) {
        match (result, &self.io.clients.expect_mut(key).state) {
            (Err(_), _) => self.close(key),
            (Ok(flush), State::Writing(next)) if *flush != (Flush::WouldBlock { any: false }) => {
                let next = *next;
                self.io.finish_response(key, next, *flush);
            }
            (Ok(flush), State::Streaming(_)) => self.on_writable(key, *flush),
            (Ok(_), _) => {}
        }
    }
}

impl ReadBuffer {
    /// Lets go of bytes at the start that were handled, and of those that have no more use.
    fn consume(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
        self.progress.compact(&mut self.bytes);
    }
}

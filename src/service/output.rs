//! The send path of one client: responses and deferred sends, and the state that follows.

use std::io;
use std::rc::Rc;

use super::budget::Budget;
use super::client::{AfterResponse, State};
use super::client_io::ClientIo;
use super::fair_queue::DeferredSend;
use super::http::Pause;
use super::listener::Listener;
use super::service::Service;
use super::socket::Socket as _;
use super::stream_state::Backlog;
use super::write_queue::Flush;
use crate::api::{Chunk, Error, Payload};
use crate::hub::{Key, ResumeBatch};

impl<L: Listener> Service<L> {
    /// Discards the client's incomplete request, responds with `error`, and lingers.
    pub(super) fn fail_request(&mut self, key: Key, error: Error) {
        self.io.clients.expect_mut(key).input = None;
        self.io.push_error(key, error);
        self.flush_responses(key, &Pause::Closing(AfterResponse::Linger));
        self.io.clients.update_memory(key);
    }

    /// Sends the responses of the requests that were handled, and moves the client to the state
    /// that follows.
    pub(super) fn flush_responses(&mut self, key: Key, pause: &Pause) {
        if matches!(pause, Pause::Blocked) && self.io.response.is_empty() {
            // A read that waits, and nothing to send before its reply: most requests of most
            // clients.
            if self.io.clients.expect_mut(key).is_read_closed {
                self.close(key);
            }
            return;
        }
        let insertions = self.io.api.insertion_count();
        if insertions > 0 {
            self.io.clients.budget.charge_insertions(insertions);
        }
        self.flush_bytes(key, pause);
        if insertions > 0 {
            self.schedule_cut_flush(key);
        }
    }

    fn flush_bytes(&mut self, key: Key, pause: &Pause) {
        let ClientIo { clients, api, response, .. } = &mut self.io;
        let client = clients.expect_mut(key);
        let was_blocked = client.is_blocked();
        let sent = match (response.is_empty(), was_blocked) {
            (true, false) => Ok(Flush::Complete),
            (true, true) => Ok(Flush::WouldBlock { progress: false }),
            (false, _) if api.insertion_count() > 0 => {
                client.send_inserted(response, api.take_insertions())
            }
            (false, _) => client.send(&Payload::Private(response)),
        };
        response.clear();
        let Ok(flush) = sent else { return self.close(key) };
        let is_streaming = matches!(client.state(), State::Streaming(_));
        let after = match pause {
            Pause::NeedData | Pause::BudgetSpent | Pause::Waiting if is_streaming => {
                match self.backlog(key, was_blocked) {
                    Backlog::WithinLimit => {}
                    Backlog::OversizedMessage => self.pause(key),
                    Backlog::OverLimit => return self.close(key),
                }
                return self.continue_stream(key, flush, matches!(pause, Pause::BudgetSpent));
            }
            Pause::Closing(_) if is_streaming => {
                self.end_stream(key);
                AfterResponse::Linger
            }
            Pause::Blocked if client.is_read_closed => return self.close(key),
            Pause::Blocked | Pause::Waiting => return,
            Pause::NeedData if flush == Flush::Complete => {
                if client.is_readable {
                    self.io.clients.schedule(key);
                } else if client.is_read_closed {
                    // The peer has closed its direction, and all responses are sent: the rest of
                    // the input will never be a complete request.
                    self.close(key);
                }
                return;
            }
            Pause::NeedData | Pause::BudgetSpent => AfterResponse::KeepAlive,
            Pause::Closing(after) => *after,
        };
        self.io.finish_response(key, after, flush);
    }

    /// Schedules a client if the last flush was cut: the next turn sends more.
    fn schedule_cut_flush(&mut self, key: Key) {
        if self.io.clients.get_mut(key).is_some_and(|client| client.is_flush_cut()) {
            self.io.clients.schedule(key);
        }
    }

    /// Sends the write queue: the socket has become writable.
    pub(super) fn flush_write_queue(&mut self, key: Key) {
        let client = self.io.clients.expect_mut(key);
        let Some(unsent) = client.queued_bytes() else {
            // The rest of a handshake, which was over before the client could take all of it.
            if client.socket.is_tls() {
                client.flush_socket();
            }
            return;
        };
        let result = client.flush();
        // Events may be longer than it was known.
        let sent = unsent.saturating_sub(client.queued_bytes().unwrap_or(0));
        self.io.clients.budget.charge_flush(sent);
        self.on_flushed(key, &result);
        self.schedule_cut_flush(key);
    }

    /// Makes sends that earlier turns deferred, while `has_budget` returns true.
    pub(super) fn flush_deferred(&mut self, has_budget: fn(&Budget) -> bool) {
        self.resume_batch = Some(ResumeBatch::default());
        while has_budget(&self.io.clients.budget)
            && let Some((key, send)) = self.io.clients.deferred_sends.pop()
        {
            let ClientIo { clients, api, .. } = &mut self.io;
            let Some(client) = clients.get_mut(key) else { continue };
            let (mut bytes, mut encoded) = (client.queued_bytes().unwrap_or(0), 0);
            let is_resumed = matches!(send, DeferredSend::Resume);
            let result = match send {
                DeferredSend::Queued | DeferredSend::Resume => client.send_deferred(&[], Vec::new),
                DeferredSend::Shared(shared) => {
                    bytes += shared.bytes().len();
                    client.send_deferred(shared.bytes(), || {
                        vec![Chunk::Shared(Rc::clone(&shared), 0..shared.bytes().len())]
                    })
                }
                DeferredSend::Reply(reply, format) => {
                    let encoding = api.encode_shared_reply(&reply, format.as_deref());
                    bytes += encoding.len();
                    encoded = encoding.len();
                    client.send_deferred(encoding, || reply.split(encoding))
                }
                DeferredSend::Update(reply, format) => {
                    let encoding = api.encode_shared_update(&reply, &format);
                    bytes += encoding.len();
                    encoded = encoding.len();
                    client.send_deferred(encoding, || reply.split(encoding))
                }
            };
            self.io.clients.budget.charge_encoding(encoded);
            self.io.clients.budget.charge_send(bytes);
            if is_resumed {
                self.resume_deferred(key, &result);
            } else {
                self.on_flushed(key, &result);
            }
            self.io.clients.update_memory(key);
            self.schedule_cut_flush(key);
        }
        self.resume_batch = None;
    }

    /// Moves the client to the state that follows, after an attempt to send its unsent bytes.
    pub(super) fn on_flushed(&mut self, key: Key, result: &io::Result<Flush>) {
        match (result, self.io.clients.expect_mut(key).state()) {
            (Err(_), _) => self.close(key),
            (Ok(flush), State::Writing(after))
                if *flush != (Flush::WouldBlock { progress: false }) =>
            {
                let after = *after;
                self.io.finish_response(key, after, *flush);
            }
            (Ok(flush), State::Streaming(_)) => self.on_writable(key, *flush),
            (Ok(_), _) => {}
        }
    }
}

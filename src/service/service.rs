//! All clients and the hub, turn by turn: who comes and goes, what happens to them, what is due and what is delivered.
//!
//! Knows neither doors nor the poll: events come in as facts about a client.

use std::net::IpAddr;

use super::budget::Budget;
use super::client::{AfterResponse, Client, ReadBuffer, State};
use super::client_io::Io;
use super::client_table::ClientTable;
use super::event::Event;
use super::http::{Pause, READ_BYTES, RESPONSE_BYTES_PER_TURN};
use super::limits::ClientLimits;
use super::socket::Socket;
use crate::api::{Api, Error, Payload, Phase, SourceKey};
use crate::http::{Limits, Progress};
use crate::hub::{Hub, Key, Millis, Now, ResumeBatch};
use crate::metrics::Metrics;

/// What a client is told whose request finds no memory.
const OUT_OF_MEMORY: Error =
    Error::OverCapacity("this server has no memory left for more: try again later");

/// What a client is told whose request came in the midst of an upgrade.
const DRAINING: Error =
    Error::OverCapacity("this server is being replaced by a newer one: try again at once");

/// Clients, calls and hub, and the present.
pub(super) struct Conversation<S> {
    pub(super) hub: Hub,
    pub(super) io: Io<S>,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    /// What is read, from whichever client it is.
    pub(super) read_buf: Box<[u8]>,
    /// What is answered, to whichever client it is.
    pub(super) response: Vec<u8>,
    /// Another process has the hub: requests are for it.
    pub(super) is_leaving: bool,
    /// While streams go on in a row, and may share what they are told.
    pub(super) resume_batch: Option<ResumeBatch>,
}

impl<S: Socket> Conversation<S> {
    pub(super) fn new(hub: Hub, api: Api, patience: ClientLimits, now: Now) -> Self {
        Self {
            limits: api.limits(),
            hub,
            io: Io {
                clients: ClientTable::new(patience.max_per_address, now.mono),
                api,
                patience,
                now,
            },
            metrics: Metrics::default(),
            read_buf: vec![0; READ_BYTES].into_boxed_slice(),
            response: Vec::new(),
            is_leaving: false,
            resume_batch: None,
        }
    }

    /// A turn begins.
    pub(super) fn set_time(&mut self, now: Now) {
        self.io.now = now;
        self.io.clients.begin_turn();
        self.io.api.set_time(now);
        self.hub.set_external_bytes(self.io.clients.memory() + self.io.api.encoded_bytes());
    }

    /// When something is due that nobody will call for.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        Millis::earliest([self.hub.next_deadline(), self.io.clients.next_deadline()])
    }

    /// Takes a client in.
    pub(super) fn admit(&mut self, socket: S, address: Option<IpAddr>) -> Key {
        let is_proxy = self.io.api.is_trusted(address);
        let deadline = self.io.now.mono.after(self.io.patience.keep_alive_ms);
        self.io.clients.insert(Client::new(
            socket,
            address.map(SourceKey::from),
            is_proxy,
            deadline,
        ))
    }

    /// Takes in a client that another process has begun with, and what came of its next request.
    pub(super) fn take_over(&mut self, socket: S, address: Option<IpAddr>, bytes: Vec<u8>) -> Key {
        let key = self.admit(socket, address);
        if !bytes.is_empty() {
            self.io.clients.expect_mut(key).incoming =
                Some(Box::new(ReadBuffer { bytes, progress: Progress::default() }));
            self.io.clients.schedule(key);
            self.io
                .clients
                .set_deadline(key, self.io.now.mono.after(self.io.patience.request_timeout_ms));
        }
        key
    }

    /// Takes in a client that came by the admin door.
    pub(super) fn admit_admin(&mut self, socket: S) -> Key {
        let deadline = self.io.now.mono.after(self.io.patience.keep_alive_ms);
        self.io
            .clients
            .insert(Client { is_admin: true, ..Client::new(socket, None, false, deadline) })
    }

    /// Tells a client that was just taken in why there is no room for it.
    pub(super) fn reject(&mut self, key: Key, error: Error) {
        self.io.clients.mark_rejected(key);
        self.io.api.push_rejection_uncounted(error, &mut self.response);
        self.flush_responses(key, &Pause::Closing(AfterResponse::Linger));
    }

    /// Tells somebody why there is no room, and closes at once: there is no room either for those who take their time. What
    /// was sent already is read, since a close on top of it would be a reset, which may overtake the answer.
    pub(super) fn reject_and_close(&mut self, mut socket: S, error: Error) {
        let _ = socket.read(&mut self.read_buf);
        self.io.api.push_rejection_uncounted(error, &mut self.response);
        let _ = socket.write(&self.response);
        self.response.clear();
        let _ = socket.shut_down_writing();
    }

    /// The same for a client that was just taken in.
    pub(super) fn respond_and_close(&mut self, key: Key, error: Error) {
        self.io.api.push_rejection_uncounted(error, &mut self.response);
        // Nothing waits before it, and what does not fit now never will.
        let _ = self.io.clients.expect_mut(key).send(&Payload::Private(&self.response));
        self.response.clear();
        self.close(key);
    }

    /// Puts an error in the place of an answer. What an operator asks is not counted.
    pub(super) fn respond_error(&mut self, key: Key, error: Error) {
        if self.io.clients.expect_mut(key).is_admin {
            self.io.api.push_rejection_uncounted(error, &mut self.response);
        } else {
            self.io.api.push_rejection(error, &mut self.response);
        }
    }

    /// Something happened to a client.
    pub(super) fn handle_event(&mut self, key: Key, event: Event) {
        let Some(client) = self.io.clients.get_mut(key) else { return };
        if client.deferred_event.is_some() || !self.io.clients.budget.has_turn_budget() {
            return self.io.clients.defer_event(key, event);
        }
        self.dispatch(key, event);
    }

    fn dispatch(&mut self, key: Key, event: Event) {
        let client = self.io.clients.expect_mut(key);
        client.is_readable |= event.is_readable;
        client.is_read_closed |= event.is_read_closed;
        match &client.state {
            State::Closing => {}
            _ if event.is_error => self.close(key),
            State::LongPolling { .. } if event.is_read_closed => self.close(key),
            State::Streaming(_) => self.handle_stream_event(key, event),
            State::LongPolling { .. } | State::Writing(_) => {
                if event.is_writable {
                    self.flush_write_queue(key);
                }
            }
            State::Reading | State::Lingering => self.process_input(key),
        }
        self.enforce_memory_limit(key);
    }

    /// Something of a client's may have become more. One that takes what is not there is told to go.
    fn enforce_memory_limit(&mut self, key: Key) {
        if !self.io.clients.update_memory(key)
            || self.io.clients.memory() <= self.io.patience.max_memory
        {
            return;
        }
        let client = self.io.clients.expect_mut(key);
        if let State::Reading = client.state {
            client.incoming = None;
            self.respond_error(key, OUT_OF_MEMORY);
            self.flush_responses(key, &Pause::Closing(AfterResponse::Linger));
        } else {
            self.close(key);
        }
    }

    /// Goes on with the clients whose work was cut short, and with what happened that there was no time for.
    pub(super) fn run_ready(&mut self) {
        for _ in 0..self.io.clients.scheduled_count() {
            if !self.io.clients.budget.has_scheduled_budget() {
                break;
            }
            if let Some(key) = self.io.clients.pop_scheduled() {
                self.process_input(key);
                self.enforce_memory_limit(key);
            }
        }
        while self.io.clients.budget.has_turn_budget()
            && let Some((key, event)) = self.io.clients.pop_deferred_event()
        {
            self.dispatch(key, event);
        }
    }

    /// Sends answers that earlier turns had no time for, as long as the turn `has_budget`.
    fn flush_deferred(&mut self, has_budget: fn(&Budget) -> bool) {
        self.resume_batch = Some(ResumeBatch::default());
        while has_budget(&self.io.clients.budget)
            && let Some((key, held)) = self.io.clients.deferred_sends.pop()
        {
            let Some(client) = self.io.clients.get_mut(key) else { continue };
            let bytes = held.as_ref().map_or(0, |held| held.bytes().len())
                + client.queued_bytes().unwrap_or(0);
            let result = client.send_deferred(held.as_ref());
            self.io.clients.budget.charge_send(bytes);
            self.on_flushed(key, &result);
            self.io.clients.update_memory(key);
        }
        self.resume_batch = None;
    }

    /// Does what is due.
    pub(super) fn expire(&mut self) {
        while let Some(key) = self.io.clients.pop_due(self.io.now.mono) {
            let client = self.io.clients.expect_mut(key);
            if client.deadline > self.io.now.mono {
                let deadline = client.deadline;
                self.io.clients.set_deadline(key, deadline);
                continue;
            }
            match &client.state {
                // It is not the client that is late.
                State::Reading | State::Streaming(_) | State::Writing(_)
                    if client.has_deferred_work() =>
                {
                    self.io.clients.set_deadline(key, self.io.now.mono.after(1));
                }
                State::Reading if client.incoming.is_some() => {
                    client.incoming = None;
                    self.respond_error(key, Error::RequestTimeout);
                    self.flush_responses(key, &Pause::Closing(AfterResponse::Linger));
                }
                State::LongPolling { reader, .. } => {
                    let reader = *reader;
                    self.hub.complete_empty(self.io.now, reader);
                }
                State::Streaming(_) => self.send_heartbeat(key),
                _ => self.close(key),
            }
        }
        self.hub.expire(self.io.now);
    }

    /// The end of a turn: what it brought is delivered, and those who left are reaped.
    pub(super) fn end_turn(&mut self) {
        loop {
            self.flush_deferred(Budget::has_deferred_send_budget);
            let Self { hub, io, .. } = self;
            hub.deliver(io.now, |wake| io.complete_read(&wake));
            self.flush_deferred(Budget::has_delivery_budget);
            for key in self.io.clients.take_pending_pauses() {
                self.pause(key);
            }
            // Their goodbyes are of this turn too, and those of who turned out to be gone when it was sent something. Every
            // round but the first loses somebody, so there is a last one.
            for key in self.io.clients.take_pending_closes() {
                self.close(key);
            }
            if !self.hub.has_undelivered() {
                break;
            }
        }
        self.io.api.end_turn();
        self.io.clients.reap();
        if self.response.capacity() > 2 * RESPONSE_BYTES_PER_TURN {
            self.response = Vec::new();
        }
    }

    /// The server stops: every waiting read is answered, and every client goes once it has its answer.
    pub(super) fn stop(&mut self) {
        self.io.api.set_phase(Phase::Stopping);
        self.hub.complete_all_empty(self.io.now);
        self.end_turn();
        for key in self.io.clients.keys() {
            match &mut self.io.clients.expect_mut(key).state {
                State::Reading => self.close(key),
                State::Writing(next) => *next = AfterResponse::Close,
                State::LongPolling { .. }
                | State::Streaming(_)
                | State::Lingering
                | State::Closing => {}
            }
        }
        self.io.clients.reap();
    }

    /// Another process has the hub from now on. Those who wait are still to be dismissed.
    pub(super) fn start_draining(&mut self) {
        self.is_leaving = true;
        self.io.api.set_phase(Phase::Draining);
        self.hub.detach(self.io.now);
    }

    /// Has the read that waits on a client answered with nothing, or ends it if it stays.
    pub(super) fn cancel_read(&mut self, key: Key) {
        if let Some(reader) = self.io.clients.reader(key) {
            self.hub.complete_empty(self.io.now, reader);
        }
    }

    /// Gives away the clients that are between two requests, each with what came of its next.
    pub(super) fn transfer_idle_clients(&mut self, mut pass: impl FnMut(&S, &[u8])) {
        for key in self.io.clients.keys() {
            let client = self.io.clients.expect_mut(key);
            match (&client.state, &client.incoming) {
                // Nobody there would know that it came by the admin door.
                (State::Reading, _) if client.is_admin => drop(self.io.clients.remove(key)),
                // Its chunks were decoded in place, and are no request any more.
                (State::Reading, Some(incoming))
                    if matches!(incoming.progress, Progress::Chunked { .. }) =>
                {
                    client.incoming = None;
                    self.io.api.push_rejection(DRAINING, &mut self.response);
                    self.flush_responses(key, &Pause::Closing(AfterResponse::Linger));
                }
                (State::Reading, incoming) => {
                    pass(&client.socket, incoming.as_ref().map_or(&[], |incoming| &incoming.bytes));
                    self.io.clients.remove(key);
                }
                _ => {}
            }
        }
    }

    /// Whether some answer is still being sent.
    pub(super) fn is_sending(&self) -> bool {
        self.io.clients.iter().any(|client| matches!(client.state, State::Writing(_)))
    }

    /// A client is gone, and with it the read that waits on it.
    pub(super) fn close(&mut self, key: Key) {
        self.set_state(key, State::Closing);
        self.io.clients.reap_later(key);
    }

    /// A client goes over to another state, and the read that waits on it is closed.
    pub(super) fn set_state(&mut self, key: Key, state: State) {
        if let Some(reader) = self.io.clients.take_reader(key, state) {
            self.hub.on_reader_closed(self.io.now, reader);
        }
    }
}

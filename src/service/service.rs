//! The service: turns of the loop, and events of clients.

use std::io;

use super::acceptor::Acceptor;
use super::budget::Budget;
use super::client::State;
use super::client_io::ClientIo;
use super::commits::Commits;
use super::config::{api_config, hub_config};
use super::event::Event;
use super::gauges::Gauges;
use super::limits::{AcceptLimits, ClientLimits, RESPONSE_BYTES_PER_TURN};
use super::listener::Listener;
use super::phase::Phase;
use super::socket::Socket;
use crate::api::{Api, ChallengeFiles, Error, Transport};
use crate::hub::{Hub, Key, Millis, Now, ResumeBatch, whole_ms};
use crate::metrics::{ProcessStats, TlsStats};
use crate::options::Options;

/// Error for a client whose request exceeds the memory limit.
const OUT_OF_MEMORY: Error = Error::OverCapacity("memory limit reached; retry later");

/// Interval at which a client that waits for the log is checked. The log has deadlines of its own.
const COMMIT_CHECK_MS: u64 = 10_000;

/// The hub, its clients and its listeners, without the poll.
///
/// A turn is [`Service::begin_turn`], the events since the last turn ([`Service::handle_event`],
/// [`Service::listener_ready`]), and [`Service::end_turn`]. [`Service::next_wake`] then returns the
/// time of the next turn.
pub struct Service<L: Listener> {
    pub(super) hub: Hub,
    pub(super) io: ClientIo<L::Socket>,
    pub(super) acceptor: Acceptor<L>,
    pub(super) phase: Phase,
    pub(super) commits: Commits,
    /// `Some` while deferred sends are made: streams that resume in a row may share an update.
    pub(super) resume_batch: Option<ResumeBatch>,
}

/// Hub that a service starts with.
pub struct InitialHub {
    /// Empty, or restored from a snapshot.
    pub hub: Hub,
    /// Present time of the hub.
    pub now: Now,
}

/// Time of the next turn, if no event comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextWake {
    /// At once: work is left.
    Now,
    /// At this time: a deadline expires.
    At(Millis),
    /// Not before the next event.
    Never,
}

impl<L: Listener> Service<L> {
    /// Creates a service with an empty hub. `random` fills a buffer with unpredictable bytes.
    #[must_use]
    pub fn new(
        options: &Options,
        listeners: Vec<L>,
        accept: AcceptLimits,
        random: fn(&mut [u8]),
    ) -> Self {
        let hub = Hub::new(hub_config(options, random));
        let initial = InitialHub { hub, now: Now::default() };
        Self::with_hub(options, initial, listeners, accept, random)
    }

    /// Creates a service as [`Service::new`] does, with a hub that may have contents.
    #[must_use]
    pub fn with_hub(
        options: &Options,
        initial: InitialHub,
        listeners: Vec<L>,
        accept: AcceptLimits,
        random: fn(&mut [u8]),
    ) -> Self {
        let InitialHub { hub, now } = initial;
        let api = Api::new(api_config(options), &hub, random);
        let limits = ClientLimits {
            keep_alive_ms: whole_ms(options.keep_alive),
            request_timeout_ms: whole_ms(options.request_timeout),
            heartbeat_ms: whole_ms(options.heartbeat),
            stream_life_ms: whole_ms(options.stream_life),
            max_backlog: options.max_backlog,
            max_per_address: options.max_clients_per_address,
            max_memory: options.max_memory,
        };
        Self {
            hub,
            io: ClientIo::new(api, limits, accept.clients, now),
            acceptor: Acceptor::new(listeners, accept),
            phase: Phase::Serving,
            commits: Commits::default(),
            resume_batch: None,
        }
    }

    /// Makes these files the responses to challenges of ACME.
    pub fn serve_challenges(&mut self, files: Box<dyn ChallengeFiles>) {
        self.io.api.serve_challenges(files);
    }

    /// Begins a turn. `now.mono` must not decrease; `now.unix_ms` may.
    pub fn begin_turn(&mut self, now: Now) {
        let Self { hub, io, .. } = self;
        io.now = now;
        io.clients.begin_turn();
        io.api.set_time(now);
        hub.set_external_bytes(io.external_bytes());
        if self.commits.log.is_some() {
            self.update_health();
        }
    }

    /// Returns the key of the client that a poll token names, if the token has only the lowest bits
    /// of a generation. `None` if that client has been freed.
    #[inline]
    #[must_use]
    pub fn client_like(&self, key: Key, generation_bits: u32) -> Option<Key> {
        if generation_bits == u32::BITS {
            return Some(key);
        }
        self.io.clients.key_at(key.index).filter(|its| its.is_alike(key, generation_bits))
    }

    /// Handles an event of a client's socket. If other clients wait in the run queue, the event
    /// waits with them. Ignores the event if the client has been freed.
    pub fn handle_event(&mut self, key: Key, event: Event) {
        let clients = &mut self.io.clients;
        if clients.has_queued() || !clients.budget.has_turn_budget() {
            return clients.defer_event(key, event);
        }
        self.dispatch(key, event);
    }

    /// Notes that a listener, given by its index in the list, may have clients to accept.
    pub fn listener_ready(&mut self, listener: usize) {
        self.acceptor.set_ready(listener);
    }

    /// Ends a turn: serves the clients in the run queue, handles expired deadlines, accepts
    /// clients, and delivers new messages.
    /// `register` registers a new client's socket with the poll under the client's key. If bytes
    /// have already arrived, the poll must raise an event for them.
    pub fn end_turn(&mut self, register: impl FnMut(&mut L::Socket, Key) -> io::Result<()>) {
        self.serve_queued();
        self.expire();
        self.complete_due_reads();
        self.commit();
        self.acceptor.accept(&mut self.io, register);
        self.deliver();
    }

    /// Returns the time of the next turn, if no event comes before.
    #[must_use]
    pub fn next_wake(&self) -> NextWake {
        if self.acceptor.has_pending()
            || self.io.clients.has_work()
            || self.commits.has_work(&self.hub)
        {
            return NextWake::Now;
        }
        let now = self.io.now.mono;
        let deadline = Millis::earliest([
            self.hub.next_deadline(),
            self.io.clients.next_deadline(),
            self.acceptor.next_deadline(),
            self.phase.next_deadline(now),
            self.commits.next_deadline(&self.hub, now),
        ]);
        match deadline {
            None => NextWake::Never,
            // The turn had no budget left for it.
            Some(at) if at <= now => NextWake::Now,
            Some(at) => NextWake::At(at),
        }
    }

    /// Makes every step count `weight` steps. For a simulation, whose few clients could not exhaust
    /// the budget of a turn otherwise.
    pub fn set_step_weight(&mut self, weight: usize) {
        self.io.clients.budget.weight = weight;
    }

    /// Makes the metrics page show the values of the process that `stats` reads.
    pub fn track_process(&mut self, stats: impl FnMut() -> ProcessStats + 'static) {
        self.io.metrics.process = Some(Box::new(stats));
    }

    /// Makes the metrics page show the values of TLS that `stats` reads.
    pub fn track_tls(&mut self, stats: impl FnMut() -> TlsStats + 'static) {
        self.io.metrics.tls = Some(Box::new(stats));
    }

    /// Counts the time that a turn took, for the metrics.
    pub fn count_turn(&mut self, nanos: u64) {
        self.io.metrics.turns.add(nanos);
    }

    /// Returns the bytes that clients make the server hold, as `--max-memory` counts them.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.hub.memory()
    }

    /// Returns the hub and the time of the current turn. Call it between two turns.
    #[must_use]
    pub fn hub(&self) -> (&Hub, Now) {
        (&self.hub, self.io.now)
    }

    /// Returns the limit of clients at once.
    #[must_use]
    pub fn max_clients(&self) -> usize {
        self.acceptor.max_clients()
    }

    /// Returns the listeners.
    pub fn listeners(&self) -> impl Iterator<Item = &L> {
        self.acceptor.listeners()
    }

    /// Returns the listeners, to change them.
    pub fn listeners_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.acceptor.listeners_mut()
    }

    /// Returns the number of clients, readers, channels and so on. O(channels).
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            hub: self.hub.gauges(),
            encoded_bytes: self.io.api.encoded_bytes(),
            ..self.io.clients.gauges()
        }
    }

    /// Serves the clients in the run queue, while the turn has budget.
    fn serve_queued(&mut self) {
        while self.io.clients.has_queued()
            && self.io.clients.budget.has_turn_budget()
            && let Some((key, event)) = self.io.clients.pop_queued()
        {
            if let Some(event) = event {
                self.dispatch(key, event);
            }
            // If the event has scheduled it again, it waits for the next turn.
            let client = self.io.clients.expect_mut(key);
            if client.is_scheduled && !client.is_queued {
                self.process_input(key);
                self.enforce_memory_limit(key);
            }
        }
    }

    fn dispatch(&mut self, key: Key, event: Event) {
        let Some(client) = self.io.clients.get_mut(key) else { return };
        client.is_readable |= event.is_readable;
        client.is_read_closed |= event.is_read_closed;
        match client.state() {
            State::Closing => {}
            _ if event.is_error => self.close(key),
            State::LongPolling { .. } => self.dispatch_to_poll(key, event),
            State::Committing | State::Writing(_) => {
                if event.is_writable {
                    self.flush_write_queue(key);
                }
            }
            State::Streaming(_) => self.dispatch_to_stream(key, event),
            State::Reading | State::Lingering => {
                if event.is_writable && client.socket.is_tls() {
                    client.flush_socket();
                }
                self.process_input(key);
            }
        }
        self.enforce_memory_limit(key);
    }

    fn dispatch_to_poll(&mut self, key: Key, event: Event) {
        if self.has_peer_ended(key, event) {
            self.close(key);
        } else if event.is_writable {
            self.flush_write_queue(key);
        }
    }

    fn dispatch_to_stream(&mut self, key: Key, event: Event) {
        let Some((_, stream)) = self.io.clients.stream_mut(key) else { return };
        let is_websocket = stream.stream.transport == Transport::WebSocket;
        if !is_websocket && self.has_peer_ended(key, event) {
            return self.close(key);
        }
        if event.is_writable {
            self.flush_write_queue(key);
        }
        // Frames that a WebSocket sent before it closed are still handled.
        if is_websocket && (event.is_readable || event.is_read_closed) {
            self.process_input(key);
        }
    }

    /// Returns whether the peer of a client whose read is pending sends nothing more.
    fn has_peer_ended(&mut self, key: Key, event: Event) -> bool {
        let ClientIo { clients, .. } = &mut self.io;
        let socket = &mut clients.expect_mut(key).socket;
        if event.is_read_closed || !event.is_readable || !socket.is_tls() {
            return event.is_read_closed;
        }
        let has_ended = socket.has_ended();
        let steps = socket.take_steps();
        clients.budget.charge_socket(steps);
        has_ended
    }

    /// Counts the memory of a client after its input was handled. If the memory has grown and
    /// exceeds the limit even without history, ends the client.
    #[inline]
    fn enforce_memory_limit(&mut self, key: Key) {
        if self.io.clients.update_memory(key) && self.has_to_free_memory() {
            self.end_over_memory_limit(key);
        }
    }

    /// Closes a client whose memory exceeds the limit, with an error if a response can be sent.
    #[cold]
    fn end_over_memory_limit(&mut self, key: Key) {
        match self.io.clients.expect_mut(key).state() {
            State::Reading => self.fail_request(key, OUT_OF_MEMORY),
            _ => self.close(key),
        }
    }

    /// Evicts history if the memory limit is exceeded. Returns whether that is not enough.
    fn has_to_free_memory(&mut self) -> bool {
        let Self { hub, io, .. } = self;
        hub.set_external_bytes(io.external_bytes());
        hub.memory() > io.limits.max_memory && !hub.enforce_memory_limit(io.now)
    }

    /// Handles expired deadlines of clients and of the hub, while the turn has budget.
    fn expire(&mut self) {
        let now = self.io.now;
        while self.io.clients.budget.has_expiry_budget()
            && let Some(key) = self.io.clients.pop_due(now.mono)
        {
            self.io.clients.budget.charge_expiry(0);
            let client = self.io.clients.expect_mut(key);
            if client.deadline > now.mono {
                let deadline = client.deadline;
                self.io.clients.set_deadline(key, deadline);
                continue;
            }
            match client.state() {
                // Also if the server has deferred it: the first work to shed under overload.
                State::Reading if client.is_handshaking => self.close(key),
                // The server has deferred the work: the client is not to blame.
                State::Reading | State::Writing(_) if client.has_deferred_work() => {
                    self.io.clients.set_deadline(key, now.mono.after(1));
                }
                State::Streaming(_) if client.has_deferred_input() => {
                    self.io.clients.set_deadline(key, now.mono.after(1));
                }
                State::Reading if client.input.is_some() => {
                    self.fail_request(key, Error::RequestTimeout);
                }
                State::Committing => {
                    self.io.clients.set_deadline(key, now.mono.after(COMMIT_CHECK_MS));
                }
                State::LongPolling(poll) => self.hub.complete_empty(now, poll.reader()),
                State::Streaming(_) => self.check_stream(key),
                _ => self.close(key),
            }
        }
        self.expire_hub();
    }

    /// Handles expired deadlines of the hub, while the turn has budget. The end of a session adds a
    /// goodbye to each of its channels.
    fn expire_hub(&mut self) {
        let Self { hub, io, .. } = self;
        let budget = &mut io.clients.budget;
        while budget.has_expiry_budget() {
            let appended = hub.appended_bytes();
            if !hub.expire_next(io.now) {
                break;
            }
            budget.charge_expiry((hub.appended_bytes() - appended) as usize);
        }
    }

    /// Delivers the messages of the turn, and frees the clients that the turn has closed.
    pub(super) fn deliver(&mut self) {
        self.io.api.forget_messages();
        self.io.clients.budget.begin_delivery();
        loop {
            self.io.hub_bytes = self.hub.memory_without_history();
            self.flush_deferred(Budget::has_deferred_send_budget);
            let Self { hub, io, .. } = self;
            hub.deliver(io.now, |wake| io.complete_read(&wake));
            self.flush_deferred(Budget::has_delivery_budget);
            for key in self.io.clients.take_pending_pauses() {
                self.pause(key);
            }
            // During the delivery, sends to these clients failed, or they were too slow. The
            // goodbyes of their sessions belong to this turn, so the loop delivers them too. Every
            // pass except the first has closed a client, so the loop ends.
            for key in self.io.clients.take_pending_closes() {
                self.close(key);
            }
            if !self.hub.has_undelivered() {
                break;
            }
        }
        self.io.api.end_turn();
        self.io.clients.reap();
        if self.io.external_bytes() > 0 {
            self.has_to_free_memory();
        }
        if self.io.response.capacity() > 2 * RESPONSE_BYTES_PER_TURN {
            self.io.response = Vec::new();
        }
    }

    /// Closes a client, and the reader of its long poll or stream.
    pub(super) fn close(&mut self, key: Key) {
        let appended = self.hub.appended_bytes();
        if let Some(reader) = self.io.clients.close(key) {
            self.hub.on_reader_closed(self.io.now, reader);
        }
        // The goodbyes, if a session has ended with the reader.
        let encoded = (self.hub.appended_bytes() - appended) as usize;
        self.io.clients.budget.charge_request(encoded);
    }
}

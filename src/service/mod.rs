//! One turn of the loop, without the poll: events and the time come in, the next wait comes out.
//!
//! [`Server`](super::Server) turns it with what the kernel says, a simulation with what a seed says.

mod acceptor;
mod budget;
mod client;
mod client_io;
mod client_table;
mod conversation;
mod event;
mod fair_queue;
mod gauges;
mod http;

mod limits;
mod listener;
mod socket;
mod stream;
mod stream_state;
mod write_queue;

pub use acceptor::{ACCEPTS_A_TURN, ADMIN_CLIENTS_MAX, REJECTED_CLIENTS_MAX};
pub use client::LINGER_MS;
pub use event::Event;
pub use gauges::Gauges;
pub use http::{READ_BYTES, RESPONSE_BYTES_PER_TURN};
pub(crate) use limits::FILES_RESERVED;
pub use listener::{Listener, ListenerKind};
pub use socket::Socket;

use std::io;
use std::net::IpAddr;

use self::acceptor::Acceptor;
use self::conversation::Conversation;
use self::limits::ClientLimits;
use crate::api::{self, Api};
use crate::hub::{self, Epoch, Hub, Key, Millis, Now, token};
use crate::metrics::ProcessStats;
use crate::options::Options;

/// How long answers may take to leave once it is to stop.
pub const SHUTDOWN_TIMEOUT_MS: u64 = 4_500;

/// How long answers may take to leave once another process serves: nobody waits for this one to be gone.
pub const DRAIN_TIMEOUT_MS: u64 = 30_000;

/// How often some of those who wait are answered while the server leaves.
const DRAIN_STEP_MS: u64 = 20;

/// The conversation, who comes in to it, and how it ends.
///
/// A turn is [`Service::begin_turn`], what happened since the last one ([`Service::hear`], [`Service::arrive`]), and
/// [`Service::end_turn`]; then [`Service::wait`] tells how long to wait for the next.
pub struct Service<L: Listener> {
    io: Conversation<L::Socket>,
    acceptor: Acceptor<L>,
    /// When to leave, whatever is unsent.
    stop_at: Option<Millis>,
    leaving: Option<Drain>,
}

/// Another process serves; here those who wait are answered little by little, and passed on.
struct Drain {
    since: Millis,
    /// Over which time they are answered.
    spread_ms: u64,
    /// Those who are still to be answered, the last first.
    pending: Vec<Key>,
    /// How many they were.
    total: usize,
}

impl Drain {
    /// Those whose turn it is.
    fn take_due(&mut self, now: Millis) -> Vec<Key> {
        let passed_ms = (now.0 - self.since.0).min(self.spread_ms);
        let left = (self.total as u64 * (self.spread_ms - passed_ms))
            .checked_div(self.spread_ms)
            .unwrap_or(0);
        self.pending.split_off((left as usize).min(self.pending.len()))
    }
}

/// How long to wait for something to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextWake {
    /// Not at all: there is work left.
    Now,
    /// Until then; something is due.
    At(Millis),
    /// For ever: nothing is to be done unless something happens.
    Never,
}

impl<L: Listener> Service<L> {
    /// Serves who comes to `listeners`, `max_clients` at once, as the options say. `random` fills a buffer with bytes
    /// that nobody can guess.
    #[must_use]
    pub fn new(
        options: &Options,
        listeners: Vec<L>,
        max_clients: usize,
        random: fn(&mut [u8]),
    ) -> Self {
        let hub = Hub::new(hub_config(options, random));
        Self::with_hub(options, (hub, Now::default()), listeners, max_clients, random)
    }

    /// As [`Service::new`], with a hub that something was said in before, and what time it is there.
    #[must_use]
    pub fn with_hub(
        options: &Options,
        (hub, now): (Hub, Now),
        listeners: Vec<L>,
        max_clients: usize,
        random: fn(&mut [u8]),
    ) -> Self {
        let api = Api::new(api_config(options), &hub, random);
        let patience = ClientLimits {
            keep_alive_ms: options.keep_alive.as_millis() as u64,
            request_timeout_ms: options.request_timeout.as_millis() as u64,
            heartbeat_ms: options.heartbeat.as_millis() as u64,
            max_backlog: options.max_backlog,
            max_per_address: options.max_clients_per_address,
            max_memory: options.max_memory,
        };
        let mut io = Conversation::new(hub, api, patience, now);
        io.metrics.max_clients = max_clients;
        io.metrics.max_memory = options.max_memory;
        Self { io, acceptor: Acceptor::new(listeners, max_clients), stop_at: None, leaving: None }
    }

    /// A turn begins: goes on with clients whose work was cut short. `now` never goes back but for its Unix time.
    pub fn begin_turn(&mut self, now: Now) {
        self.io.set_time(now);
        self.io.run_ready();
    }

    /// Something happened to a client. Events of those that are gone are ignored.
    pub fn handle_event(&mut self, client: Key, event: Event) {
        self.io.handle_event(client, event);
    }

    /// Somebody came to the listener of this place in the list.
    pub fn listener_ready(&mut self, listener: usize) {
        self.acceptor.set_ready(listener);
    }

    /// Does what is due, lets in who arrived, and delivers what the turn brought. `watch` has events of a new client's
    /// socket told under its key from then on, also those that are there already.
    pub fn end_turn(&mut self, watch: impl FnMut(&mut L::Socket, Key) -> io::Result<()>) {
        self.io.expire();
        if let Some(leaving) = &mut self.leaving {
            for key in leaving.take_due(self.io.io.now.mono) {
                self.io.cancel_read(key);
            }
        }
        self.acceptor.accept(self.io.io.now.mono, &mut self.io, watch);
        self.io.end_turn();
    }

    /// Has a turn end sooner: each step of its work counts for so many. For a simulation, whose crowds are small.
    pub fn set_step_weight(&mut self, weight: usize) {
        self.io.io.clients.budget.weight = weight;
    }

    /// Bytes that are held for clients, as they are counted.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.io.hub.memory()
    }

    /// Has the metrics page tell what `stats` reads of the process.
    pub fn track_process(&mut self, stats: impl FnMut() -> ProcessStats + 'static) {
        self.io.metrics.process = Some(Box::new(stats));
    }

    /// Tells for how many nanoseconds a turn worked, for the metrics.
    pub fn count_turn(&mut self, nanos: u64) {
        self.io.metrics.turns.add(nanos);
    }

    /// How long the next turn has time.
    #[must_use]
    pub fn next_wake(&self) -> NextWake {
        if self.acceptor.has_pending() || self.io.io.clients.has_work() {
            return NextWake::Now;
        }
        let dismissal = self.leaving.as_ref().filter(|leaving| !leaving.pending.is_empty());
        let dismissal = dismissal.map(|_| self.io.io.now.mono.after(DRAIN_STEP_MS));
        let deadlines =
            [self.io.next_deadline(), self.acceptor.next_deadline(), self.stop_at, dismissal];
        Millis::earliest(deadlines).map_or(NextWake::Never, NextWake::At)
    }

    /// Stops gently: nobody comes in any more, who waits is answered, and who has an answer to take gets some time for it.
    pub fn shut_down(&mut self) {
        self.stop_at = Some(self.io.io.now.mono.after(SHUTDOWN_TIMEOUT_MS));
        self.acceptor.close();
        self.io.stop();
    }

    /// What is served, between two turns.
    #[must_use]
    pub fn hub(&self) -> (&Hub, Now) {
        (&self.io.hub, self.io.io.now)
    }

    /// How many clients it serves at once.
    #[must_use]
    pub fn max_clients(&self) -> usize {
        self.acceptor.max_clients()
    }

    /// Where clients come in.
    pub fn listeners(&self) -> impl Iterator<Item = &L> {
        self.acceptor.listeners()
    }

    /// The same, to change them.
    pub fn listeners_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.acceptor.listeners_mut()
    }

    /// Another process has the listeners and the hub from now on. Here those who wait are answered with nothing over
    /// `spread_ms`, so that they do not all come back at once, and [`Service::pass_on`] gives them away.
    pub fn start_draining(&mut self, spread_ms: u64) {
        let since = self.io.io.now.mono;
        self.stop_at = Some(since.after(DRAIN_TIMEOUT_MS));
        self.acceptor.close();
        self.io.start_draining();
        let mut pending = self.io.io.clients.keys();
        pending.retain(|key| self.io.io.clients.reader(*key).is_some());
        self.leaving = Some(Drain { since, spread_ms, total: pending.len(), pending });
    }

    /// Gives away the clients that are between two requests, each with what came of its next.
    pub fn transfer_clients(&mut self, pass: impl FnMut(&L::Socket, &[u8])) {
        self.io.transfer_idle_clients(pass);
    }

    /// Takes in a client that another process has passed on. `watch` as for [`Service::end_turn`].
    pub fn adopt_client(
        &mut self,
        socket: L::Socket,
        address: Option<IpAddr>,
        bytes: Vec<u8>,
        watch: impl FnOnce(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        let key = self.io.take_over(socket, address, bytes);
        if let Err(error) = watch(&mut self.io.io.clients.expect_mut(key).socket, key) {
            log::warn!("cannot watch a client that was passed on: {error}");
            self.io.close(key);
        }
    }

    /// Whether another process serves.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop_at.is_some()
    }

    /// Whether it was told to stop, and nothing is left to be done. To be asked at the end of a turn.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let is_done = || match &self.leaving {
            None => !self.io.is_sending(),
            Some(_) => self.io.io.clients.is_empty(),
        };
        self.stop_at.is_some_and(|at| self.io.io.now.mono >= at || is_done())
    }

    /// Counts what there is. O(channels).
    #[must_use]
    pub fn census(&self) -> Gauges {
        Gauges {
            hub: self.io.hub.census(),
            encoded_bytes: self.io.io.api.encoded_bytes(),
            ..self.io.io.clients.gauges()
        }
    }
}

pub(super) fn hub_config(options: &Options, random: fn(&mut [u8])) -> hub::Config {
    let random_byte = || {
        let mut byte = [0];
        random(&mut byte);
        byte[0]
    };
    let mut watermark_hash_key = [0; 16];
    random(&mut watermark_hash_key);
    hub::Config {
        history: options.history,
        retention: options.retention,
        connection_timeout: options.connection_timeout,
        close_grace: options.close_grace,
        max_reply: options.max_reply,
        max_channels: options.max_channels,
        max_memory: options.max_memory,
        epoch: Epoch::new(token(random_byte)),
        watermark_hash_key,
    }
}

fn api_config(options: &Options) -> api::Config {
    api::Config {
        max_message: options.max_message,
        max_head: options.max_head,
        poll_timeout: options.poll_timeout,
        allow_origin: options.allow_origin(),
        demo: options.demo,
        max_rate: options.max_rate,
        proxies: options.proxies(),
    }
}

//! One process: the poll loop, and every system call of the server.
//!
//! [`Server::start`] loads the state and binds, [`Server::start_serving`] takes over from a
//! predecessor, and [`Server::run`] turns the [`Service`] with the kernel's events.

mod activation;
mod bind;
mod challenge_dir;
mod check;
mod clock;
mod clustering;
mod diagnose;
mod event_source;
mod heap_trim;
mod journaling;
mod listener;
mod log_writer;
mod os_socket;
mod process;
#[cfg(feature = "cluster")]
mod redis;
mod rlimit;
mod signals;
mod start_error;
mod startup;
mod systemd;
mod timer_fd;
mod tls;
mod upgrade;

pub use crate::journal::BOOT_ID_ENV;
pub use activation::{ActivatedSocket, LISTEN_FDS_START, activated_names};
pub use clustering::VARIABLES as CLUSTER_VARIABLES;
pub use log_writer::start as start_log;
#[cfg(feature = "cluster")]
pub use redis::{RedisSocket, RedisTarget, cluster_url};
pub use start_error::StartError;
pub use upgrade::UPGRADE_ENV;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Interest, Poll};

use self::bind::bind_listeners;
use self::challenge_dir::ChallengeDir;
use self::clock::Clock;
use self::clustering::ClusterSockets;
use self::event_source::{EventSource, GENERATION_BITS};
use self::heap_trim::HeapTrim;
use self::journaling::{JournalHandle, PendingJournal};
use self::listener::OsListener;
use self::log_writer::HeldLines;
use self::signals::Signals;
use self::startup::InitialState;
use self::systemd::{Notification, Systemd};
use self::timer_fd::TimerFd;
use self::tls::ServerTls;
use self::upgrade::{Predecessor, UpgradeCoordinator};
use crate::hub::Millis;
use crate::options::Options;
use crate::sandbox::{OutgoingPorts, Sandbox};
use crate::service::{Event, InitialHub, Listener, ListenerKind, NextWake, Service, hub_config};
use crate::snapshot::StateFile;

/// Events that one poll returns at most. The next turn gets the rest.
const EVENTS_PER_TURN: usize = 1024;

/// Time for which a server still answers whose journal has failed, in milliseconds: so its clients
/// and the metrics tell what has happened. Short, since the next start may find a disk that works.
const FAILED_JOURNAL_MS: u64 = 1_000;

/// The poll loop, the files that it watches, and the service that it drives.
pub struct Server {
    poll: Poll,
    signals: Signals,
    timer: TimerFd,
    clock: Clock,
    listener_count: usize,
    ports: Vec<u16>,
    service: Service<OsListener>,
    /// File of `--state`, written at a stop.
    state_file: Option<StateFile>,
    /// Journal, before this process serves.
    pending_journal: Option<PendingJournal>,
    /// Directory of `--acme-challenges`, before this process serves.
    pending_challenges: Option<PathBuf>,
    /// Settings of the journal.
    journal: Option<JournalHandle>,
    /// Connections to the Redis of the cluster, if there is one.
    cluster: Option<ClusterSockets>,
    /// systemd is to be notified once this process has joined its cluster.
    awaits_join: bool,
    /// Certificates, if there are any.
    tls: Option<ServerTls>,
    /// There is an admin listener. Without one, no client could read how long turns take, so the
    /// clock is not read again for it.
    has_metrics: bool,
    /// Exit status of a stop: a failure if the state file could not be written, or the log failed.
    exit_code: ExitCode,
    /// Time of the stop, after the log has failed.
    stops_at: Option<Millis>,
    upgrade: UpgradeCoordinator,
    systemd: Systemd,
    heap_trim: HeapTrim,
    /// Function that returns free pages of the heap to the kernel.
    trim_heap: Option<fn()>,
}

impl Server {
    /// Loads the state and binds all listeners: the `activated` sockets and the addresses of the
    /// options. Prints a line for each listener on standard error.
    ///
    /// # Errors
    ///
    /// [`StartError`], for instance for an address that is in use.
    pub fn start(options: &Options, activated: Vec<ActivatedSocket>) -> Result<Self, StartError> {
        let cannot_start = |error: io::Error| {
            StartError(format!("cannot start: {}", diagnose::explain_fd_limit(&error)))
        };
        let held_lines = HeldLines::begin();
        let file_limit = rlimit::raise_file_limit();
        let (poll, signals, timer) = create_poll().map_err(cannot_start)?;
        let config = hub_config(options, fill_random);
        let InitialState { hub, now, mut predecessor, state_file, journal } =
            InitialState::load(options, config)?;
        let cluster_log = predecessor.as_mut().and_then(Predecessor::take_cluster_log);
        let clock = Clock::start(now.mono);
        let journal_handle = journaling::config(options)
            .map(|config| JournalHandle::new(config, poll.registry()))
            .transpose()
            .map_err(cannot_start)?;
        let tls = ServerTls::start(options, clock::unix_ms() / 1000)?;
        if let Some(tls) = &tls
            && let Some(keys) = predecessor.as_mut().and_then(Predecessor::take_ticket_keys)
        {
            tls.set_ticket_keys(&keys);
        }
        let mut listeners = bind_listeners(options, activated, predecessor.as_mut(), tls.as_ref())?;
        drop(held_lines);
        for (index, listener) in listeners.iter_mut().enumerate() {
            let token = EventSource::Listener(index).token();
            let source = listener.source();
            poll.registry().register(source, token, Interest::READABLE).map_err(cannot_start)?;
        }
        let listener_count = listeners.len();
        let accept = file_limit.accept_limits(options.max_clients, listener_count);
        let ports = listeners.iter().filter_map(OsListener::port).collect();
        let has_admin = listeners.iter().any(|it| it.kind() == ListenerKind::Admin);
        let initial = InitialHub { hub, now };
        let mut service = Service::with_hub(options, initial, listeners, accept, fill_random);
        let (registry, state) = (poll.registry(), cluster_log.as_ref());
        let cluster = ClusterSockets::start(options, registry, fill_random, state, &mut service)?;
        if has_admin {
            service.track_process(process::stats_reader());
            if let Some(tls) = &tls {
                service.track_tls(tls.stats_reader());
            }
        }
        Ok(Self {
            poll,
            signals,
            timer,
            clock,
            listener_count,
            ports,
            service,
            state_file,
            pending_journal: journal,
            pending_challenges: options.acme_challenges.clone(),
            journal: journal_handle,
            cluster,
            awaits_join: false,
            tls,
            has_metrics: has_admin,
            exit_code: ExitCode::SUCCESS,
            stops_at: None,
            upgrade: UpgradeCoordinator::new(predecessor),
            systemd: Systemd::from_env(now.mono),
            heap_trim: HeapTrim::default(),
            trim_heap: None,
        })
    }

    /// Sets the function to call when much of the memory in use was freed, for an allocator that
    /// would keep it.
    pub fn set_heap_trim(&mut self, trim_heap: fn()) {
        self.trim_heap = Some(trim_heap);
    }

    /// Ports of the TCP listeners.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Ports to which the server connects.
    #[must_use]
    pub fn outgoing_ports(&self) -> OutgoingPorts {
        let none = OutgoingPorts::Only(Vec::new());
        self.cluster.as_ref().map_or(none, ClusterSockets::outgoing_ports)
    }

    /// Makes this process the only one that serves. A predecessor has stopped serving when this
    /// returns.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the state file cannot be written, the directory of challenges cannot be
    /// used, or the predecessor does not hand over.
    pub fn start_serving(&mut self) -> Result<(), StartError> {
        if let Some(file) = &self.state_file {
            file.check_writable()
                .map_err(|error| startup::state_file_error(file, "write", &error))?;
        }
        if let Some(path) = self.pending_challenges.take() {
            self.service.serve_challenges(Box::new(ChallengeDir::new(path)?));
        }
        if let Some(tls) = &self.tls {
            tls.check_readable();
        }
        self.take_over().map_err(|error| StartError(format!("cannot start serving: {error}")))?;
        if let Some(journal) = self.pending_journal.take() {
            let handle = self.journal.as_ref().expect("a pending journal has a handle");
            journal.start(&mut self.service, Arc::clone(&handle.waker))?;
        }
        log::info!("started max_clients={}", self.service.max_clients());
        // After a takeover the predecessor notifies systemd.
        self.awaits_join = !self.service.is_joined();
        if !self.upgrade.has_predecessor() && !self.awaits_join {
            self.systemd.notify(Notification::Ready("serving"));
        }
        // A client may have arrived together with the message to serve. No event reports it.
        self.adopt_clients();
        Ok(())
    }

    fn adopt_clients(&mut self) {
        let (registry, tls) = (self.poll.registry(), self.tls.as_ref());
        self.upgrade.adopt_clients(&mut self.service, registry, tls);
    }

    fn take_over(&mut self) -> io::Result<()> {
        self.upgrade.wait_for_go(self.poll.registry())?;
        self.state_file.as_ref().map_or(Ok(()), StateFile::remove)
    }

    /// Serves until a signal stops the server. Returns the exit status.
    #[must_use]
    pub fn run(mut self) -> ExitCode {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            let timeout = self.poll_timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    log::error!("poll failed: {error}");
                    return ExitCode::FAILURE;
                }
                _ => {}
            }
            if let Some(code) = self.turn(&events) {
                return code;
            }
        }
    }

    /// Returns the timeout of the next poll: zero if there is work left, else `None`. Arms the
    /// timer for the earliest deadline.
    fn poll_timeout(&mut self) -> Option<Duration> {
        let wake = match self.service.next_wake() {
            NextWake::Now => return Some(Duration::ZERO),
            NextWake::At(deadline) => Some(deadline),
            NextWake::Never => None,
        };
        // While this process drains, the successor serves and is watched by systemd.
        let is_serving = !self.service.is_draining();
        let hello = self.upgrade.next_deadline().filter(|_| is_serving);
        let ping = self.systemd.next_ping().filter(|_| is_serving);
        let cluster = self.cluster.as_ref().and_then(ClusterSockets::next_deadline);
        let stop = self.stops_at.filter(|_| !self.service.is_stopping());
        let deadlines = [wake, hello, ping, self.heap_trim.next_check(), cluster, stop];
        if let Some(deadline) = Millis::earliest(deadlines) {
            self.timer.arm(deadline, &self.clock);
        }
        None
    }

    /// Runs one turn. Returns the exit status if it was the last.
    fn turn(&mut self, events: &Events) -> Option<ExitCode> {
        let now = self.clock.begin_turn();
        self.service.begin_turn(now);
        if let Some(tls) = &self.tls {
            tls.begin_turn(now.unix_ms / 1000);
        }
        if let Some(cluster) = &self.cluster {
            cluster.begin_turn(now.mono);
        }
        let (has_signals, is_successor_ready) = self.handle_events(events);
        let registry = self.poll.registry();
        self.service.end_turn(|socket, key| {
            socket.inner_mut().register(registry, EventSource::Client(key).token())
        });
        if let Some(cluster) = &self.cluster {
            cluster.end_turn();
        }
        if let Some(journal) = &mut self.journal
            && let Some(delay) = self.service.take_commit_delay()
        {
            journal.commit_delay.arm_in(delay);
        }
        if self.awaits_join && self.service.is_joined() {
            self.awaits_join = false;
            log::info!("joined the cluster");
            self.systemd.notify(Notification::Ready("serving"));
        }
        let now = self.service.hub().1.mono;
        if let Some(trim_heap) = self.trim_heap
            && self.heap_trim.observe(self.service.memory(), now)
        {
            trim_heap();
        }
        if self.has_metrics {
            self.service.count_turn(self.clock.turn_nanos());
        }
        if self.service.has_log_failed() && !self.service.is_stopping() {
            self.stop_after_failure(now);
        }
        if is_successor_ready {
            self.upgrade.note_readable(&self.service);
        }
        if self.upgrade.may_hand_over(&self.service) {
            let (journal, cluster) = (self.journal.as_ref(), self.cluster.as_ref());
            let tls = self.tls.as_ref();
            self.upgrade.hand_over(&mut self.service, journal, cluster, tls, &self.systemd);
            if self.service.is_draining() {
                // The successor has connections of its own.
                self.cluster = None;
            }
        }
        self.upgrade.drive(&mut self.service, &self.systemd);
        // While this process drains, systemd watches the successor.
        if !self.service.is_draining() {
            self.systemd.ping(now);
        }
        if has_signals && let Some(code) = self.handle_signals() {
            return Some(code);
        }
        self.service.is_stopped().then(|| {
            log::info!("stopped");
            self.exit_code
        })
    }

    /// Passes events to their owners. Returns whether there are signals, and whether the
    /// successor's socket is readable: both are for the end of the turn.
    fn handle_events(&mut self, events: &Events) -> (bool, bool) {
        let (mut has_signals, mut is_successor_ready) = (false, false);
        for event in events {
            match EventSource::from_token(event.token(), self.listener_count) {
                EventSource::Signals => has_signals = true,
                EventSource::Timer => self.timer.on_fired(),
                // The service asks the journal in each turn.
                EventSource::Journal => {}
                EventSource::CommitDelay => self.service.end_commit_delay(),
                source @ (EventSource::ClusterCommands | EventSource::ClusterFollower) => {
                    if let Some(cluster) = &self.cluster {
                        cluster.on_event(source, event);
                    }
                }
                EventSource::Predecessor => self.adopt_clients(),
                EventSource::Successor => is_successor_ready = true,
                EventSource::Listener(index) => self.service.listener_ready(index),
                EventSource::Client(key) => {
                    if let Some(key) = self.service.client_like(key, GENERATION_BITS) {
                        self.service.handle_event(key, to_event(event));
                    }
                }
            }
        }
        (has_signals, is_successor_ready)
    }

    fn handle_signals(&mut self) -> Option<ExitCode> {
        let pending = self.signals.pending();
        if pending.stop {
            return self.stop();
        }
        if pending.reload {
            match &self.tls {
                Some(tls) => tls.reload(self.service.hub().1.unix_ms / 1000),
                None => log::info!("ignoring SIGHUP: no certificates to read again"),
            }
        }
        if pending.upgrade {
            if self.service.is_stopping() || self.stops_at.is_some() {
                log::warn!("ignoring SIGUSR2: shutting down");
            } else {
                let now = self.service.hub().1.mono;
                self.upgrade.start(now, self.poll.registry(), &self.systemd);
            }
        }
        None
    }

    /// Stops with an error, since the log has failed. The server of a journal first refuses changes
    /// for [`FAILED_JOURNAL_MS`].
    fn stop_after_failure(&mut self, now: Millis) {
        let (reason, wait_ms) = match &self.cluster {
            Some(_) => ("this process cannot use the log of its cluster", 0),
            None => ("the journal has failed, and what it lacks cannot be kept", FAILED_JOURNAL_MS),
        };
        let stops_at = *self.stops_at.get_or_insert_with(|| {
            log::error!("stopping: {reason}");
            now.after(wait_ms)
        });
        self.exit_code = ExitCode::FAILURE;
        // A successor would read from the journal what was not acknowledged.
        self.upgrade.cancel();
        if stops_at <= now {
            self.stop();
        }
    }

    /// Shuts down politely at the first signal, at once at the second. Returns the exit status if
    /// the process ends here.
    fn stop(&mut self) -> Option<ExitCode> {
        if self.service.is_stopping() {
            log::info!("stopped by a second signal");
            let is_draining = self.service.is_draining();
            return Some(if is_draining { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        log::info!("stopping");
        self.systemd.notify(Notification::Stopping);
        self.upgrade.cancel();
        self.service.shut_down();
        let (hub, now) = self.service.hub();
        let file = self.state_file.as_ref()?;
        if let Err(error) = file.store(hub, now) {
            log::error!("cannot write the state file path={}: {error}", file.path().display());
            self.exit_code = ExitCode::FAILURE;
        }
        None
    }
}

/// Checks what a start with these options needs, and prints a line for each finding on standard
/// output. Drops the privileges of the process, as a start does, and leaves nothing else behind.
///
/// # Errors
///
/// [`StartError`] with the line of the start's first error.
pub fn check(options: &Options, sandbox: Sandbox) -> Result<(), StartError> {
    check::check(options, sandbox, fill_random)
}

/// Creates the poll, and the files that it watches from the start.
fn create_poll() -> io::Result<(Poll, Signals, TimerFd)> {
    let poll = Poll::new()?;
    let signals = Signals::new(poll.registry())?;
    let timer = TimerFd::new(poll.registry(), EventSource::Timer)?;
    Ok((poll, signals, timer))
}

fn to_event(event: &mio::event::Event) -> Event {
    Event {
        is_readable: event.is_readable(),
        is_writable: event.is_writable(),
        is_read_closed: event.is_read_closed(),
        is_error: event.is_error(),
    }
}

/// Fills a buffer with random bytes of the operating system. Secrets depend on them, so a failure
/// stops the process.
fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

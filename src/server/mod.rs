//! The shell of the loop: the poll, the doors, signals and the alarm.

mod activation;
mod clock;
mod diagnose;
mod heap_trim;
mod listener;
mod log_writer;
mod os_socket;
mod process;
mod rlimit;
mod start_error;
mod startup;
mod systemd;
mod timer_fd;
mod upgrade;

pub use activation::{ActivatedSocket, LISTEN_FDS_START, activated_names};
pub use log_writer::start as start_log;
pub use start_error::StartError;

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
use signal_hook_mio::v1_0::Signals;

use self::clock::Clock;
use self::heap_trim::HeapTrim;
use self::listener::OsListener;
use self::os_socket::OsSocket;
use self::process::Process;
use self::startup::InitialState;
use self::systemd::{Notification, Supervisor};
use self::timer_fd::TimerFd;
use self::upgrade::{
    DRAIN_SPREAD_MS, Predecessor, START_TIMEOUT_MS, Successor, TransferStatus, TransferredListener,
};
use crate::hub::{Key, Millis};
use crate::options::{NAME_AND_VERSION, Options};
use crate::service::{Event, InitialHub, Listener, ListenerKind, NextWake, Service, hub_config};
use crate::snapshot::StateFile;

/// Events taken from the kernel at once. More are there in the next turn.
const EVENTS_PER_TURN: usize = 1024;

/// Tokens from the top are ours; clients' are made of an index and a generation, and the index never gets there.
const SIGNALS: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);
const PREDECESSOR: Token = Token(usize::MAX - 3);
const SUCCESSOR: Token = Token(usize::MAX - 4);
const FIRST_LISTENER: usize = usize::MAX - 5;

/// Fewer clients than this are hardly what somebody wants who has not said so.
const LOW_CLIENT_LIMIT: usize = 500;

/// What is told to a supervisor that wanted another process.
const TAKEOVER_FAILED: &str =
    "the new process could not take over, the old one serves on: see the log";

/// What a newcomer may do next.
const QUICK_START: &str = "try it, in two terminals:\n  \
    curl 'localhost:8080/read?channel=test'\n  \
    curl 'localhost:8080/write?channel=test&message=howdy'\n";

/// The poll, what wakes it, and the service behind it.
pub struct Server {
    poll: Poll,
    signals: Signals,
    timer: TimerFd,
    clock: Clock,
    listener_count: usize,
    ports: Vec<u16>,
    service: Service<OsListener>,
    state_file: Option<StateFile>,
    /// The process that served before, while it still has clients.
    predecessor: Option<Predecessor>,
    successor: Option<PendingUpgrade>,
    /// Who started this process and watches over it, if anybody does.
    systemd: Supervisor,
    heap_trim: HeapTrim,
    trim_heap: Option<fn()>,
}

/// A process that is to serve instead of this one.
struct PendingUpgrade {
    successor: Successor,
    /// When to give it up, if it has not said anything.
    deadline: Millis,
}

impl Server {
    /// Binds its addresses, beside the sockets that were `passed` to it, and says so on standard error, one line for each.
    ///
    /// # Errors
    ///
    /// [`StartError`], for instance with an address that is in use.
    pub fn start(options: &Options, passed: Vec<ActivatedSocket>) -> Result<Self, StartError> {
        let files_allow = rlimit::raise_file_limit();
        let fault = |error: io::Error| {
            StartError(format!("cannot start: {}", diagnose::explain_fd_limit(&error)))
        };
        let (poll, signals, timer) = create_poll().map_err(fault)?;
        let config = hub_config(options, fill_random);
        let InitialState { hub, now, mut predecessor, state_file } =
            InitialState::load(options.state.as_deref(), config)?;
        let clock = Clock::start(now.mono);
        let mut doors = bind_listeners(options, passed, predecessor.as_mut())?;
        for (place, door) in doors.iter_mut().enumerate() {
            let token = Token(FIRST_LISTENER - place);
            poll.registry().register(door.source(), token, Interest::READABLE).map_err(fault)?;
        }
        let max_clients = if options.max_clients == 0 {
            files_allow
        } else {
            options.max_clients.min(files_allow)
        };
        let wanted = if options.max_clients == 0 { LOW_CLIENT_LIMIT } else { options.max_clients };
        if files_allow < wanted {
            let files = rlimit::open_file_limit();
            log::warn!(
                "the limit on open files, {files}, is low: `ulimit -n 20000`, or LimitNOFILE= in the unit, lets more in"
            );
        }
        let doors_count = doors.len();
        let has_operators = doors.iter().any(|door| door.kind() == ListenerKind::Admin);
        let ports = doors.iter().filter_map(OsListener::port).collect();
        let initial = InitialHub { hub, now };
        let mut service = Service::with_hub(options, initial, doors, max_clients, fill_random);
        if has_operators {
            service.track_process({
                let mut process = Process::current();
                move || process.stats()
            });
        }
        Ok(Self {
            poll,
            signals,
            timer,
            clock,
            listener_count: doors_count,
            ports,
            service,
            state_file,
            predecessor,
            successor: None,
            systemd: Supervisor::find(now.mono),
            heap_trim: HeapTrim::default(),
            trim_heap: None,
        })
    }

    /// Has `give_back` called when much of what was held is free: for an allocator that would keep it.
    pub fn set_heap_trim(&mut self, give_back: fn()) {
        self.trim_heap = Some(give_back);
    }

    /// The TCP ports it listens on.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// From here on this process serves, and no other: one that did until now has stopped to.
    ///
    /// # Errors
    ///
    /// [`StartError`], where the state cannot be kept, or the process before does not give way.
    pub fn start_serving(&mut self) -> Result<(), StartError> {
        if let Some(file) = &self.state_file {
            file.check_writable()
                .map_err(|error| startup::state_file_error(file, "write", &error))?;
        }
        self.take_over().map_err(|error| StartError(format!("cannot begin to serve: {error}")))?;
        log::info!("started, for up to {} clients", self.service.max_clients());
        // After a takeover it is the process before that says so.
        if self.predecessor.is_none() {
            self.systemd.say(Notification::Ready("serving"));
        }
        // One may have come with the word to begin: of that no poll tells any more.
        self.adopt_clients();
        Ok(())
    }

    fn take_over(&mut self) -> io::Result<()> {
        if let Some(predecessor) = &mut self.predecessor {
            predecessor.wait_for_go()?;
            let file = predecessor.as_fd().as_raw_fd();
            self.poll.registry().register(&mut SourceFd(&file), PREDECESSOR, Interest::READABLE)?;
        }
        self.state_file.as_ref().map_or(Ok(()), StateFile::remove)
    }

    /// Serves until a signal ends it.
    #[must_use]
    pub fn run(mut self) -> ExitCode {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            let timeout = self.poll_timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    log::error!("the poll failed: {error}");
                    return ExitCode::FAILURE;
                }
                _ => {}
            }
            if let Some(code) = self.turn(&events) {
                return code;
            }
        }
    }

    /// How long to wait: not at all where there is work, else until something happens, for which the alarm is set.
    fn poll_timeout(&mut self) -> Option<Duration> {
        let wait = match self.service.next_wake() {
            NextWake::Now => return Some(Duration::ZERO),
            NextWake::At(deadline) => Some(deadline),
            NextWake::Never => None,
        };
        let is_leaving = self.service.is_draining();
        let give_up = self.successor.as_ref().filter(|_| !is_leaving).map(|it| it.deadline);
        let ping = self.systemd.next_ping().filter(|_| !is_leaving);
        if let Some(deadline) = Millis::earliest([wait, give_up, ping, self.heap_trim.next_check()])
        {
            self.timer.set(deadline, &self.clock);
        }
        None
    }

    /// One turn, and whether it was the last.
    fn turn(&mut self, events: &Events) -> Option<ExitCode> {
        let (mut was_signalled, mut successor_speaks) = (false, false);
        self.service.begin_turn(self.clock.begin_turn());
        for event in events {
            match event.token() {
                SIGNALS => was_signalled = true,
                TIMER => self.timer.fired(),
                PREDECESSOR => self.adopt_clients(),
                SUCCESSOR => successor_speaks = true,
                Token(token)
                    if token > FIRST_LISTENER - self.listener_count && token <= FIRST_LISTENER =>
                {
                    self.service.listener_ready(FIRST_LISTENER - token);
                }
                Token(token) => {
                    self.service.handle_event(Key::from_bits(token as u64), to_event(event));
                }
            }
        }
        let registry = self.poll.registry();
        self.service
            .end_turn(|socket, key| socket.register(registry, Token(key.to_bits() as usize)));
        if let Some(give_back) = self.trim_heap
            && self.heap_trim.observe(self.service.memory(), self.service.hub().1.mono)
        {
            give_back();
        }
        self.service.count_turn(self.clock.turn_nanos());
        if successor_speaks && !self.service.is_draining() {
            self.hand_over();
        }
        self.drive_upgrade();
        // Another process is watched once it serves.
        if !self.service.is_draining() {
            self.systemd.ping(self.service.hub().1.mono);
        }
        if was_signalled && let Some(code) = self.handle_signals() {
            return Some(code);
        }
        self.service.is_stopped().then(|| {
            log::info!("stopped");
            ExitCode::SUCCESS
        })
    }

    fn handle_signals(&mut self) -> Option<ExitCode> {
        let (mut stops, mut upgrades) = (false, false);
        for signal in self.signals.pending() {
            if signal == SIGUSR2 { upgrades = true } else { stops = true }
        }
        if stops {
            return self.stop();
        }
        if upgrades {
            self.upgrade();
        }
        None
    }

    /// The first signal stops gently, the second at once.
    fn stop(&mut self) -> Option<ExitCode> {
        if self.service.is_stopping() {
            log::info!("stopped at once");
            return Some(if self.service.is_draining() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        log::info!("stopping");
        self.systemd.say(Notification::Stopping);
        if let Some(PendingUpgrade { successor, .. }) = self.successor.take() {
            successor.kill();
        }
        self.service.shut_down();
        let (hub, now) = self.service.hub();
        match self.state_file.as_ref().map(|file| file.store(hub, now)) {
            Some(Err(error)) => {
                log::error!("the state could not be kept: {error}");
                Some(ExitCode::FAILURE)
            }
            _ => None,
        }
    }

    /// Starts the process that is to take over. This one serves on until that says hello.
    fn upgrade(&mut self) {
        if self.service.is_stopping() {
            return log::warn!("no upgrade: this process is about to end");
        }
        self.systemd.say(Notification::Reloading);
        let obstacle = match (&self.successor, &self.predecessor) {
            (Some(_), _) => Some("an upgrade is under way already"),
            (_, Some(_)) => Some("the upgrade before is not over yet: try again in a moment"),
            _ => None,
        };
        if let Some(obstacle) = obstacle {
            log::warn!("{obstacle}");
            return self.systemd.say(Notification::Ready(obstacle));
        }
        let registry = self.poll.registry();
        let started = Successor::start().and_then(|successor| {
            let file = successor.as_fd().as_raw_fd();
            registry.register(&mut SourceFd(&file), SUCCESSOR, Interest::READABLE)?;
            Ok(successor)
        });
        match started {
            Ok(successor) => {
                log::info!("process {} is to take over", successor.id());
                let deadline = self.service.hub().1.mono.after(START_TIMEOUT_MS);
                self.successor = Some(PendingUpgrade { successor, deadline });
            }
            Err(error) => {
                log::error!("the new process cannot be started, this one serves on: {error}");
                self.systemd.say(Notification::Ready(TAKEOVER_FAILED));
            }
        }
    }

    /// The new process has said hello, or is gone.
    fn hand_over(&mut self) {
        let Some(PendingUpgrade { successor, .. }) = &mut self.successor else { return };
        let doors = self.service.listeners();
        let handed = |door| TransferredListener {
            audience: Listener::kind(door),
            address: OsListener::address(door),
            is_activated: door.is_activated(),
            file: door.as_fd(),
        };
        let doors: Vec<_> = doors.map(handed).collect();
        let (hub, now) = self.service.hub();
        match successor.hand_over(&doors, hub, now) {
            Ok(()) => {
                self.service.listeners_mut().for_each(OsListener::mark_transferred);
                self.service.start_draining(DRAIN_SPREAD_MS);
                self.systemd.say(Notification::MainPid(successor.id()));
            }
            Err(error) => self.abort_upgrade(&error.to_string()),
        }
    }

    /// Passes on the clients that can be, or sees whether the new process takes too long to start.
    fn drive_upgrade(&mut self) {
        let Some(PendingUpgrade { successor, deadline }) = &mut self.successor else { return };
        if !self.service.is_draining() {
            if self.service.hub().1.mono >= *deadline {
                self.abort_upgrade("it takes too long to start");
            }
            return;
        }
        self.service.transfer_clients(|socket: &OsSocket, bytes| {
            if let Err(error) = successor.send_client(socket.as_fd(), bytes) {
                log::warn!("a client could not be passed on: {error}");
            }
        });
    }

    fn abort_upgrade(&mut self, why: &str) {
        if let Some(PendingUpgrade { successor, .. }) = self.successor.take() {
            log::error!(
                "process {} could not take over, this one serves on: {why}",
                successor.id()
            );
            successor.kill();
            self.systemd.say(Notification::Ready(TAKEOVER_FAILED));
        }
    }

    /// Takes in the clients of the process before.
    fn adopt_clients(&mut self) {
        let Some(predecessor) = &mut self.predecessor else { return };
        let registry = self.poll.registry();
        let service = &mut self.service;
        let clients = predecessor.take_clients(|file, bytes| match OsSocket::from_fd(file) {
            Ok((socket, address)) => {
                let watch = |socket: &mut OsSocket, key: Key| {
                    socket.register(registry, Token(key.to_bits() as usize))
                };
                service.adopt_client(socket, address, bytes, watch);
            }
            // It has gone meanwhile.
            Err(error) => log::debug!("a client was not there any more: {error}"),
        });
        if clients == TransferStatus::Done {
            self.predecessor = None;
            log::info!("the process before has left");
        }
    }
}

/// The sockets that somebody opened for this process, then those that the options name.
fn bind_listeners(
    options: &Options,
    passed: Vec<ActivatedSocket>,
    mut predecessor: Option<&mut Predecessor>,
) -> Result<Vec<OsListener>, StartError> {
    let mut doors = Vec::new();
    let handed = predecessor.as_mut().map_or(Vec::new(), |it| it.take_activated());
    for (audience, file) in passed.into_iter().map(|it| (it.audience(), it.file)).chain(handed) {
        let fault = |error: io::Error| {
            StartError(format!("cannot serve at a socket that was passed: {error}"))
        };
        doors.push(
            OsListener::from_activation(audience, file, options.request_timeout).map_err(fault)?,
        );
    }
    // Whoever passes public doors and names no others wants those alone.
    let is_public = |door: &OsListener| door.kind() == ListenerKind::Public;
    let named = if options.has_default_listeners() && doors.iter().any(is_public) {
        &[][..]
    } else {
        &options.listen
    };
    let public = named.iter().map(|address| (address, ListenerKind::Public));
    let admin = options.admin_listen.iter().map(|address| (address, ListenerKind::Admin));
    for (address, audience) in public.chain(admin) {
        let fault = |error: io::Error| StartError(diagnose::explain_bind_error(address, &error));
        let inherited = predecessor.as_mut().and_then(|it| it.take_listener(audience, address));
        let open = || OsListener::open(address, audience, options.request_timeout);
        doors.push(match inherited {
            Some(listener) => OsListener::inherit(address, audience, listener),
            None if predecessor.is_some() => bind_with_retry(open).map_err(fault)?,
            None => open().map_err(fault)?,
        });
    }
    for door in &doors {
        // Whoever closed our standard error does not want to know.
        let _ = writeln!(io::stderr(), "{NAME_AND_VERSION} listening on {door}");
    }
    if options.has_default_listeners()
        && predecessor.is_none()
        && !doors.iter().any(OsListener::is_activated)
    {
        let _ = io::stderr().write_all(QUICK_START.as_bytes());
    }
    Ok(doors)
}

/// Opens a door that the process before may have, which was killed a moment ago: the kernel closes its sockets in its own time.
fn bind_with_retry(open: impl Fn() -> io::Result<OsListener>) -> io::Result<OsListener> {
    const BIND_ATTEMPTS: u32 = 100;
    const BIND_RETRY_DELAY: Duration = Duration::from_millis(20);
    for _ in 1..BIND_ATTEMPTS {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                thread::sleep(BIND_RETRY_DELAY);
            }
            result => return result,
        }
    }
    open()
}

/// The poll, with what it watches from the start.
fn create_poll() -> io::Result<(Poll, Signals, TimerFd)> {
    let poll = Poll::new()?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR2])?;
    poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
    let alarm = TimerFd::new(poll.registry(), TIMER)?;
    Ok((poll, signals, alarm))
}

fn to_event(event: &mio::event::Event) -> Event {
    Event {
        is_readable: event.is_readable(),
        is_writable: event.is_writable(),
        is_read_closed: event.is_read_closed(),
        is_error: event.is_error(),
    }
}

/// Bytes from the operating system. Without them there are no secrets, so a failure stops the process.
fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

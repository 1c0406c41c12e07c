//! The shell of the loop: the poll, the doors, signals and the alarm.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use super::alarm::Alarm;
use super::clock::Clock;
use super::conversation::Event;
use super::door::Door;
use super::limits;
use super::newcomers::Audience;
use super::service::{Service, Wait};
use crate::hub::Key;
use crate::options::{Options, VERSION};

/// Events taken from the kernel at once. More are there in the next turn.
const EVENTS_A_TURN: usize = 1024;

/// Tokens from the top are ours; clients' are made of an index and a generation, and the index never gets there.
const SIGNALS: Token = Token(usize::MAX - 1);
const ALARM: Token = Token(usize::MAX - 2);
const FIRST_DOOR: usize = usize::MAX - 3;

/// Why the server did not start, in one line.
#[derive(Debug)]
pub struct StartError(pub String);

/// The poll, what wakes it, and the service behind it.
pub struct Server {
    poll: Poll,
    signals: Signals,
    alarm: Alarm,
    clock: Clock,
    doors: usize,
    service: Service<Door>,
}

impl Server {
    /// Binds its addresses and says so on standard error, one line for each.
    ///
    /// # Errors
    ///
    /// [`StartError`], for instance with an address that is in use.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        let files_allow = limits::raise_file_limit();
        let (poll, signals, alarm) = watch().map_err(|error| StartError(format!("cannot start: {error}")))?;
        let mut doors = Vec::new();
        let public = options.listen.iter().map(|address| (address, Audience::Public));
        let admin = options.admin_listen.iter().map(|address| (address, Audience::Operator));
        for (address, audience) in public.chain(admin) {
            let fault = |error: io::Error| StartError(format!("cannot listen on {address}: {error}"));
            let mut door = Door::open(address, audience, options.request_timeout).map_err(fault)?;
            let token = Token(FIRST_DOOR - doors.len());
            poll.registry().register(door.source(), token, Interest::READABLE).map_err(fault)?;
            // Whoever closed our standard error does not want to know.
            let _ = writeln!(io::stderr(), "{VERSION} listening on {door}");
            doors.push(door);
        }
        let max_clients = if options.max_clients == 0 { files_allow } else { options.max_clients.min(files_allow) };
        log::info!("started, for up to {max_clients} clients");
        let doors_count = doors.len();
        let mut service = Service::new(options, doors, max_clients, fill_random);
        if options.admin_listen.is_some() {
            service.watch_process();
        }
        Ok(Self { poll, signals, alarm, clock: Clock::start(), doors: doors_count, service })
    }

    /// Serves until a signal ends it.
    #[must_use]
    pub fn run(mut self) -> ExitCode {
        let mut events = Events::with_capacity(EVENTS_A_TURN);
        loop {
            let timeout = self.sleep();
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
    fn sleep(&mut self) -> Option<Duration> {
        match self.service.wait() {
            Wait::Not => return Some(Duration::ZERO),
            Wait::Until(deadline) => self.alarm.set(deadline, &self.clock),
            Wait::Forever => {}
        }
        None
    }

    /// One turn, and whether it was the last.
    fn turn(&mut self, events: &Events) -> Option<ExitCode> {
        let mut was_signalled = false;
        self.service.begin_turn(self.clock.begin_turn());
        for event in events {
            match event.token() {
                SIGNALS => was_signalled = true,
                ALARM => self.alarm.rang(),
                Token(token) if token > FIRST_DOOR - self.doors && token <= FIRST_DOOR => {
                    self.service.arrive(FIRST_DOOR - token);
                }
                Token(token) => self.service.hear(Key::from_bits(token as u64), client_event(event)),
            }
        }
        let registry = self.poll.registry();
        self.service.end_turn(|socket, key| socket.register(registry, Token(key.to_bits() as usize)));
        self.service.count_turn(self.clock.turn_nanos());
        if was_signalled && let Some(code) = self.stop() {
            return Some(code);
        }
        self.service.is_stopped().then(|| {
            log::info!("stopped");
            ExitCode::SUCCESS
        })
    }

    /// The first signal stops gently, the second at once.
    fn stop(&mut self) -> Option<ExitCode> {
        self.signals.pending().for_each(drop);
        if self.service.is_stopping() {
            log::info!("stopped at once");
            return Some(ExitCode::FAILURE);
        }
        log::info!("stopping");
        self.service.stop();
        None
    }
}

/// The poll, with what it watches from the start.
fn watch() -> io::Result<(Poll, Signals, Alarm)> {
    let poll = Poll::new()?;
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
    let alarm = Alarm::new(poll.registry(), ALARM)?;
    Ok((poll, signals, alarm))
}

fn client_event(event: &mio::event::Event) -> Event {
    Event {
        is_readable: event.is_readable(),
        is_writable: event.is_writable(),
        is_closed: event.is_read_closed(),
        is_broken: event.is_error(),
    }
}

/// Bytes from the operating system. Without them there are no secrets, so a failure stops the process.
fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

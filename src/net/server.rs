//! One turn of the loop, and what begins and ends it: doors and signals.

use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use super::alarm::Alarm;
use super::client::Socket;
use super::clock::Clock;
use super::conversation::{Conversation, Event, Patience};
use super::door::Door;
use super::limits;
use crate::api::{self, Api, Error};
use crate::hub::{self, Epoch, Hub, Key, Millis, token};
use crate::options::{Options, VERSION};

/// Events taken from the kernel at once. More are there in the next turn.
const EVENTS_A_TURN: usize = 1024;

/// Connections accepted in one turn, from all doors: newcomers wait a little where others are being served.
const ACCEPTS_A_TURN: usize = 256;

/// How long to leave the doors alone when there are no descriptors. The backlog of the kernel holds who comes.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Clients at once that are there only to read that there is no room. Those beyond are just closed.
const REFUSED_MAX: usize = limits::FILES_RESERVED / 2;

/// What a client is told that is one too many.
const NO_ROOM: Error = Error::OverCapacity("this server has as many clients as it may: try again later");
const TOO_MANY_OF_ONE: Error = Error::TooManyRequests("your address has as many clients here as it may", 1);

/// How long answers may take to leave after a signal to stop.
const STOP_MS: u64 = 4_500;

/// Tokens from the top are ours; clients' are made of an index and a generation, and the index never gets there.
const SIGNALS: Token = Token(usize::MAX - 1);
const ALARM: Token = Token(usize::MAX - 2);
const FIRST_DOOR: usize = usize::MAX - 3;

/// Why the server did not start, in one line.
#[derive(Debug)]
pub struct StartError(pub String);

/// The server: doors, the poll, and the conversation behind them.
pub struct Server {
    poll: Poll,
    signals: Signals,
    alarm: Alarm,
    doors: Vec<Door>,
    clock: Clock,
    conversation: Conversation,
    max_clients: usize,
    /// Given up for a moment to accept, and close, a client for whom there is no descriptor.
    spare: Option<File>,
    /// Doors are left alone until then.
    accept_after: Option<Millis>,
    /// When to say again that there are no descriptors.
    next_warning: Millis,
    /// Set by the first signal: when to leave, whatever is unsent.
    stop_at: Option<Millis>,
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
        for address in &options.listen {
            let fault = |error: io::Error| StartError(format!("cannot listen on {address}: {error}"));
            let mut door = Door::open(address, options.request_timeout).map_err(fault)?;
            let token = Token(FIRST_DOOR - doors.len());
            poll.registry().register(door.source(), token, Interest::READABLE).map_err(fault)?;
            // Whoever closed our standard error does not want to know.
            let _ = writeln!(io::stderr(), "{VERSION} listening on {door}");
            doors.push(door);
        }
        let hub = Hub::new(hub_config(options));
        let api = Api::new(api_config(options), &hub, fill_random);
        let patience = Patience {
            keep_alive_ms: options.keep_alive.as_millis() as u64,
            request_timeout_ms: options.request_timeout.as_millis() as u64,
            heartbeat_ms: options.heartbeat.as_millis() as u64,
            max_backlog: options.max_backlog,
            max_per_address: options.max_clients_per_address,
            max_memory: options.max_memory,
        };
        let max_clients = if options.max_clients == 0 { files_allow } else { options.max_clients.min(files_allow) };
        log::info!("started, for up to {max_clients} clients");
        Ok(Self {
            poll,
            signals,
            alarm,
            doors,
            clock: Clock::start(),
            conversation: Conversation::new(hub, api, patience),
            max_clients,
            spare: File::open("/dev/null").ok(),
            accept_after: None,
            next_warning: Millis(0),
            stop_at: None,
        })
    }

    /// The TCP ports it listens on.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.doors.iter().filter_map(Door::port)
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
        let has_arrivals = self.accept_after.is_none() && self.doors.iter().any(|door| door.has_arrivals);
        if has_arrivals || self.conversation.clients.has_ready() {
            return Some(Duration::ZERO);
        }
        let deadlines = [self.conversation.next_deadline(), self.accept_after, self.stop_at];
        if let Some(deadline) = deadlines.into_iter().flatten().min() {
            self.alarm.set(deadline, &self.clock);
        }
        None
    }

    /// One turn: what happened to clients, what is due, who arrived; then the turn's messages are delivered.
    fn turn(&mut self, events: &Events) -> Option<ExitCode> {
        let now = self.clock.now();
        self.conversation.set_time(now);
        let mut was_signalled = false;
        self.conversation.go_on_with_ready();
        for event in events {
            match event.token() {
                SIGNALS => was_signalled = true,
                ALARM => self.alarm.rang(),
                Token(token) if token > FIRST_DOOR - self.doors.len() && token <= FIRST_DOOR => {
                    self.doors[FIRST_DOOR - token].has_arrivals = true;
                }
                Token(token) => self.conversation.hear(Key::from_bits(token as u64), client_event(event)),
            }
        }
        self.conversation.expire();
        self.accept(now.mono);
        self.conversation.end_turn();
        if was_signalled {
            return self.stop(now.mono);
        }
        self.is_stopped(now.mono).then_some(ExitCode::SUCCESS)
    }

    fn accept(&mut self, now: Millis) {
        if self.accept_after.is_some_and(|at| at > now) {
            return;
        }
        self.accept_after = None;
        let mut budget = ACCEPTS_A_TURN;
        for place in 0..self.doors.len() {
            while self.doors[place].has_arrivals && budget > 0 {
                match self.doors[place].accept() {
                    Ok((socket, address)) => self.admit(socket, address),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.doors[place].has_arrivals = false,
                    Err(error) if is_out_of_room(&error) => {
                        self.shed(place, now, &error);
                        return;
                    }
                    // The one that was to be accepted is gone; others may be there.
                    Err(_) => {}
                }
                budget -= 1;
            }
        }
    }

    /// Takes a client in, if there is room; else tells it so, if there is room for that.
    fn admit(&mut self, socket: Socket, address: Option<IpAddr>) {
        let has_room = self.conversation.clients.served() < self.max_clients;
        if !has_room && self.conversation.clients.refused() >= REFUSED_MAX {
            return;
        }
        let key = self.conversation.admit(socket, address);
        let socket = &mut self.conversation.clients.the(key).socket;
        if let Err(error) = socket.register(self.poll.registry(), Token(key.to_bits() as usize)) {
            log::warn!("cannot watch a new client: {error}");
            self.conversation.dismiss(key);
        } else if !has_room {
            self.conversation.turn_away(key, NO_ROOM);
        } else if self.conversation.clients.is_too_many(key) {
            if self.conversation.clients.refused() < REFUSED_MAX {
                self.conversation.turn_away(key, TOO_MANY_OF_ONE);
            } else {
                self.conversation.dismiss(key);
            }
        }
    }

    /// Closes the next arrival, for want of a descriptor, and leaves the doors alone for a while.
    fn shed(&mut self, place: usize, now: Millis, error: &io::Error) {
        // Most likely EMFILE: retrying at once would spin. The spare descriptor lets one know that it is not wanted.
        self.spare = None;
        drop(self.doors[place].accept());
        self.spare = File::open("/dev/null").ok();
        self.accept_after = Some(now.after(ACCEPT_PAUSE_MS));
        if now >= self.next_warning {
            self.next_warning = now.after(1_000);
            log::warn!("cannot accept more clients ({error}): raise the limit on open files, or set --max-clients");
        }
    }

    /// The first signal stops gently, the second at once.
    fn stop(&mut self, now: Millis) -> Option<ExitCode> {
        self.signals.pending().for_each(drop);
        if self.stop_at.is_some() {
            log::info!("stopped at once");
            return Some(ExitCode::FAILURE);
        }
        log::info!("stopping");
        self.stop_at = Some(now.after(STOP_MS));
        self.doors.clear();
        self.conversation.stop();
        self.is_stopped(now).then_some(ExitCode::SUCCESS)
    }

    fn is_stopped(&mut self, now: Millis) -> bool {
        let Some(at) = self.stop_at else { return false };
        let is_over = now >= at || !self.conversation.is_sending();
        if is_over {
            log::info!("stopped");
        }
        is_over
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

fn is_out_of_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

fn hub_config(options: &Options) -> hub::Config {
    let random_byte = || {
        let mut byte = [0];
        fill_random(&mut byte);
        byte[0]
    };
    let mut resting_key = [0; 16];
    fill_random(&mut resting_key);
    hub::Config {
        history: options.history,
        retention: options.retention,
        connection_timeout: options.connection_timeout,
        close_grace: options.close_grace,
        max_reply: options.max_reply,
        max_channels: options.max_channels,
        max_memory: options.max_memory,
        epoch: Epoch::new(token(random_byte)),
        resting_key,
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

/// Bytes from the operating system. Without them there are no secrets, so a failure stops the process.
fn fill_random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

//! A connection to Redis that reconnects by itself, and follows a primary that Sentinels name.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use mio::{Registry, Token};

use super::backoff::{Backoff, LAST_MS};
use super::link::{Link, Received};
use super::target::{Address, RedisTarget};
use crate::cluster::{
    Connection, Event, Failure, Handshake, ServerInfo, Value, primary_in, push_command,
    push_question,
};
use crate::hub::Millis;

/// Time for a connect with its handshake, or for the answer of a Sentinel, in milliseconds.
const ATTEMPT_MS: u64 = 2_000;
/// Bytes of commands that may wait for the kernel. More of them end the connection.
const OUTPUT_MAX: usize = 16 << 20;
/// Memory of replies that may wait for [`Connection::poll`]. With more of them, the socket is not
/// read.
const INPUT_MAX: usize = 16 << 20;
const READ_SIZE: usize = 64 * 1024;
/// Reads in one turn. The next turn continues.
const READS_PER_TURN: usize = 16;

/// A [`Connection`] with a socket of the kernel.
///
/// The owner calls, in each turn of its loop: [`begin_turn`](Self::begin_turn), then
/// [`on_event`](Self::on_event) for each event of the token, then it polls and sends, and at last
/// [`end_turn`](Self::end_turn), which sends the commands of the turn with one write. It wakes at
/// [`next_deadline`](Self::next_deadline).
///
/// All addresses of the host are tried in turn. Names are not looked up again: see [`RedisTarget`].
/// With Sentinels, each attempt first asks one of them for the primary.
pub struct RedisSocket {
    registry: Registry,
    token: Token,
    target: Rc<RedisTarget>,
    /// Longest time between a command and its reply, in milliseconds.
    reply_ms: u64,
    now: Millis,
    phase: Phase,
    /// Socket. `None` between attempts.
    link: Option<Link>,
    /// Address of the link, for errors.
    address: Address,
    /// Index of the address to try next.
    next_address: usize,
    backoff: Backoff,
    /// Events that wait, with the memory of those that are replies.
    events: VecDeque<(Event, usize)>,
    /// Memory of the replies in `events`.
    queued_bytes: usize,
    /// The caller has polled [`Event::Connected`], and the connection has not ended since.
    is_announced: bool,
    read_buffer: Box<[u8]>,
}

enum Phase {
    /// The next attempt begins at `until`.
    Waiting { until: Millis },
    /// The kernel connects until `deadline`.
    Connecting { purpose: Purpose, deadline: Millis },
    /// A Sentinel was asked, and answers until `deadline`.
    Asking { deadline: Millis },
    /// The handshake was sent, and its replies come until `deadline`.
    Greeting { handshake: Handshake, deadline: Millis },
    /// The connection is open since `since`. Each command without a reply has a deadline.
    Open { since: Millis, deadlines: VecDeque<Millis> },
}

#[derive(Clone, Copy)]
enum Purpose {
    AskSentinel,
    UseServer,
}

impl RedisSocket {
    /// Creates a connection that begins to connect at the end of this turn. `reply_ms` is the
    /// longest time between a command and its reply, in milliseconds: for a blocking command, more
    /// than the time that it blocks.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn new(
        target: Rc<RedisTarget>,
        registry: &Registry,
        token: Token,
        reply_ms: u64,
    ) -> io::Result<Self> {
        let address = target.addresses()[0].clone();
        Ok(Self {
            registry: registry.try_clone()?,
            token,
            target,
            reply_ms,
            now: Millis::default(),
            phase: Phase::Waiting { until: Millis::default() },
            link: None,
            address,
            next_address: 0,
            backoff: Backoff::new(),
            events: VecDeque::new(),
            queued_bytes: 0,
            is_announced: false,
            read_buffer: vec![0; READ_SIZE].into(),
        })
    }

    /// Begins a turn: takes the time, and reads what an earlier turn has left.
    pub fn begin_turn(&mut self, now: Millis) {
        self.now = now;
        self.receive();
    }

    /// Handles an event of the token: connects, or reads.
    pub fn on_event(&mut self, event: &mio::event::Event) {
        let Some(link) = &mut self.link else { return };
        link.note(event);
        self.finish_connecting();
        self.receive();
    }

    /// Ends a turn: begins a due attempt, ends what takes too long, and sends all commands.
    pub fn end_turn(&mut self) {
        if self.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.on_deadline();
        }
        self.flush();
    }

    /// Sends and receives what is possible, without an event.
    pub fn exchange(&mut self) {
        self.end_turn();
        if let Some(link) = &mut self.link {
            link.expect_bytes();
            self.receive();
        }
    }

    /// Time of the next call of [`end_turn`](Self::end_turn), without an event. A time that has
    /// passed means that there is work left.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.has_room() && self.link.as_ref().is_some_and(Link::may_read) {
            return Some(self.now);
        }
        self.deadline()
    }

    fn deadline(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Connecting { deadline, .. }
            | Phase::Asking { deadline }
            | Phase::Greeting { deadline, .. } => Some(*deadline),
            // A reply may have come that was not read, since others wait for the caller.
            Phase::Open { deadlines, .. } => deadlines.front().copied().filter(|_| self.has_room()),
        }
    }

    fn on_deadline(&mut self) {
        if matches!(self.phase, Phase::Waiting { .. }) {
            self.begin_attempt();
            return;
        }
        // If this process was late itself, the reply may be there.
        if let Some(link) = &mut self.link {
            link.expect_bytes();
            self.receive();
        }
        if self.deadline().is_some_and(|deadline| deadline <= self.now) {
            let ms =
                if matches!(self.phase, Phase::Open { .. }) { self.reply_ms } else { ATTEMPT_MS };
            let is_shaking_hands = self.link.as_ref().is_some_and(Link::is_shaking_hands);
            let hint = if is_shaking_hands { ": does it speak TLS at this port?" } else { "" };
            let reason = format!("no reply from {} within {ms} ms{hint}", self.address);
            self.fail(Failure::transient(reason));
        }
    }

    /// Connects to the next address.
    fn begin_attempt(&mut self) {
        let address = self.target.addresses()[self.next_address].clone();
        let purpose = match self.target.master() {
            Some(_) => Purpose::AskSentinel,
            None => Purpose::UseServer,
        };
        self.connect(address, purpose);
    }

    fn connect(&mut self, address: Address, purpose: Purpose) {
        self.address = address;
        self.phase = Phase::Connecting { purpose, deadline: self.now.after(ATTEMPT_MS) };
        match Link::connect(&self.address, self.target.tls(), &self.registry, self.token) {
            Ok(link) => self.link = Some(link),
            Err(error) => self.fail_connecting(&error),
        }
    }

    /// Sends the first commands as soon as the socket is connected.
    fn finish_connecting(&mut self) {
        let Phase::Connecting { purpose, deadline } = self.phase else { return };
        let Some(link) = &mut self.link else { return };
        match link.finish_connecting() {
            Ok(false) => return,
            Err(error) => {
                self.fail_connecting(&error);
                return;
            }
            Ok(true) => {}
        }
        self.phase = match purpose {
            Purpose::AskSentinel => {
                push_question(&mut link.output, self.target.master().unwrap_or_default());
                Phase::Asking { deadline }
            }
            Purpose::UseServer => {
                let handshake = Handshake::start(self.target.url(), &mut link.output);
                Phase::Greeting { handshake, deadline }
            }
        };
        self.flush();
    }

    fn receive(&mut self) {
        if matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        for _ in 0..READS_PER_TURN {
            if !self.has_room() {
                return;
            }
            let Some(link) = &mut self.link else { return };
            match link.receive(&mut self.read_buffer) {
                Ok(Received::Bytes) => self.take_replies(),
                Ok(Received::Nothing) => return,
                Ok(Received::End) => {
                    self.fail(Failure::transient(format!(
                        "{} closed the connection",
                        self.address
                    )));
                }
                Err(error) => self.fail_with(&error),
            }
        }
    }

    /// Handles all complete replies. One may replace the link.
    fn take_replies(&mut self) {
        while let Some(link) = &mut self.link {
            match link.decoder.next_reply() {
                Ok(Some(reply)) => {
                    let bytes = link.decoder.reply_bytes();
                    if let Err(failure) = self.on_reply(reply, bytes) {
                        self.fail(failure);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.fail(Failure::transient(format!("{}: {error}", self.address)));
                }
            }
        }
    }

    /// Handles a reply of so many bytes.
    fn on_reply(&mut self, reply: Value, bytes: usize) -> Result<(), Failure> {
        let located = |mut failure: Failure| {
            failure.reason = format!("{}: {}", self.address, failure.reason);
            failure
        };
        match &mut self.phase {
            Phase::Asking { .. } => {
                let primary = primary_in(&reply).map_err(located)?;
                let primary = self.target.primary(primary).map_err(Failure::transient)?;
                self.link = None;
                self.connect(primary, Purpose::UseServer);
            }
            Phase::Greeting { handshake, .. } => {
                if let Some(server) = handshake.on_reply(&reply).map_err(located)? {
                    self.open(server)?;
                }
            }
            Phase::Open { deadlines, .. } => {
                if deadlines.pop_front().is_none() {
                    let reason = format!("{} sent a reply without a command", self.address);
                    return Err(Failure::transient(reason));
                }
                let memory = reply.memory().max(bytes);
                self.queued_bytes += memory;
                self.events.push_back((Event::Reply(reply), memory));
            }
            Phase::Waiting { .. } | Phase::Connecting { .. } => {}
        }
        Ok(())
    }

    fn open(&mut self, server: ServerInfo) -> Result<(), Failure> {
        if !server.is_writable && self.target.master().is_some() {
            // The Sentinel has not seen the failover yet, or the server has not.
            let reason = format!("{} is not the primary, as a Sentinel said", self.address);
            return Err(Failure::transient(reason));
        }
        self.phase = Phase::Open { since: self.now, deadlines: VecDeque::new() };
        self.events.push_back((Event::Connected(server), 0));
        Ok(())
    }

    fn flush(&mut self) {
        if matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        if let Some(link) = &mut self.link
            && let Err(error) = link.flush()
        {
            self.fail_with(&error);
        }
    }

    fn fail_connecting(&mut self, error: &io::Error) {
        self.fail(Failure::transient(format!("cannot connect to {}: {error}", self.address)));
    }

    fn fail_with(&mut self, error: &io::Error) {
        // The kernel has no such error: this one is of TLS, and comes back with the next attempt.
        if error.kind() == io::ErrorKind::InvalidData && !matches!(self.phase, Phase::Open { .. }) {
            self.fail(Failure::permanent(format!("{}: {error}", self.address)));
            return;
        }
        self.fail(Failure::transient(format!(
            "the connection to {} failed: {error}",
            self.address
        )));
    }

    /// Ends the connection or the attempt, and reports it. Drops the reports that it makes void, so
    /// that a caller which does not poll costs no memory.
    fn fail(&mut self, failure: Failure) {
        self.end_link();
        if matches!(self.events.back(), Some((Event::Connected(_), _))) {
            self.events.pop_back();
        }
        if matches!(self.events.back(), Some((Event::Disconnected(_), _))) {
            self.events.pop_back();
        }
        self.events.push_back((Event::Disconnected(failure), 0));
    }

    /// Closes the socket, and schedules the next attempt.
    fn end_link(&mut self) {
        self.link = None;
        self.is_announced = false;
        let mut is_round_over = true;
        match &self.phase {
            // The next attempt has been scheduled.
            Phase::Waiting { .. } => return,
            Phase::Open { since, .. } => {
                if self.now >= since.after(LAST_MS) {
                    self.backoff.reset();
                }
            }
            _ => {
                self.next_address = (self.next_address + 1) % self.target.addresses().len();
                is_round_over = self.next_address == 0;
            }
        }
        let random = getrandom::u64().expect("the operating system gives random bytes");
        let delay = if is_round_over { self.backoff.next_delay(random) } else { 0 };
        self.phase = Phase::Waiting { until: self.now.after(delay) };
    }

    fn has_room(&self) -> bool {
        self.queued_bytes < INPUT_MAX
    }
}

impl Connection for RedisSocket {
    fn send(&mut self, args: &[&[u8]]) {
        let Phase::Open { deadlines, .. } = &mut self.phase else { return };
        let Some(link) = self.link.as_mut().filter(|_| self.is_announced) else { return };
        push_command(&mut link.output, args);
        deadlines.push_back(self.now.after(self.reply_ms));
        if link.unsent() > OUTPUT_MAX {
            self.fail(Failure::transient(format!(
                "{} does not take commands: more than 16 MiB wait",
                self.address
            )));
        }
    }

    fn poll(&mut self) -> Option<Event> {
        let (event, memory) = self.events.pop_front()?;
        self.queued_bytes -= memory;
        if let Event::Connected(_) = event {
            // Its connection is open: the end of it would have dropped the event.
            self.is_announced = true;
        }
        Some(event)
    }

    fn reset(&mut self) {
        self.end_link();
        self.events.clear();
        self.queued_bytes = 0;
    }

    fn buffered_bytes(&self) -> usize {
        self.queued_bytes + self.link.as_ref().map_or(0, Link::buffered_bytes)
    }
}

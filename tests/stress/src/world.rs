//! The world of a run: server, clients and users, and one turn of the loop.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::ensure;
use support::fault::{Checked, Fault};
use support::ledger::{Ledger, PossibleViolation};
use support::random::Random;
use support::reader::{Since, Subscription};
use support::text::Text;

use crate::client::{Client, Owner};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::figures::Figures;
use crate::link::{Close, Link, Links, ReadRate, Token};
use crate::read::{Form, Names, Read};
use crate::server::{Launcher, Server};
use crate::takeover::Takeover;
use crate::user::{Due, Phase, User};

pub(crate) const BUFFER_BYTES: usize = 256 * 1024;
const TURN: Duration = Duration::from_millis(2);
/// Time that a possible violation waits for what may clear it.
const GRACE: Duration = Duration::from_secs(1);
const SLOW_READ_INTERVAL: Duration = Duration::from_millis(5);
/// Bytes of a slow read: mostly one.
const SLOW_READ_BYTES: [usize; 6] = [1, 1, 1, 16, 64, 512];
/// In so many seconds there are as many brief clients as users.
const BRIEF_SECONDS: u64 = 40;
/// Brief clients that a slow turn left out and the next one makes up for, at most.
const BRIEF_BACKLOG: u32 = 20;
/// Interval of messages in each large channel.
const LARGE_INTERVAL: Duration = Duration::from_millis(30);
/// Bytes of such a message.
pub(crate) const LARGE_BYTES: u32 = 60_000;

pub(crate) struct World {
    pub(crate) launcher: Launcher,
    pub(crate) server: Server,
    /// Further nodes. `None` if there is one server.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) names: Vec<Names>,
    /// Number of channels, from the first on, with messages so long that an answer may not contain
    /// all.
    pub(crate) large: usize,
    pub(crate) ledger: Ledger,
    pub(crate) links: Links<Client>,
    pub(crate) users: Vec<User>,
    pub(crate) observers: Vec<Option<Token>>,
    pub(crate) harness: Option<Token>,
    pub(crate) random: Random,
    pub(crate) phase: Phase,
    pub(crate) clock: Clock,
    pub(crate) takeover: Takeover,
    pub(crate) figures: Figures,
    /// The server is being ended: links may break.
    pub(crate) is_disturbed: bool,
    timers: BinaryHeap<Reverse<(Instant, Due)>>,
    pub(crate) slow_readers: Vec<Token>,
    /// Difference between the members that the server named last and those that the ledger knows.
    pub(crate) members_differ: Option<Fault>,
    pub(crate) interrupted: Arc<AtomicBool>,
    /// Reads of clients that the server closed while it was ended.
    pub(crate) lost_reads: Vec<(Owner, Read)>,
    /// Possible violations, until they are cleared or excused.
    pub(crate) possible_violations: VecDeque<(Instant, PossibleViolation)>,
    next_sender: u32,
    pub(crate) buffer: Vec<u8>,
    next_slow_read: Instant,
    next_large: Instant,
    next_brief: Instant,
}

impl World {
    pub(crate) fn new(
        (launcher, server): (Launcher, Server),
        (names, large): (Vec<Names>, usize),
        ledger: Ledger,
        seed: u64,
        users: usize,
    ) -> Checked<Self> {
        let clock = Clock::new();
        let now = clock.now;
        Ok(Self {
            launcher,
            server,
            cluster: None,
            ledger,
            links: Links::new()?,
            users: (0..users).map(|_| User::default()).collect(),
            observers: vec![None; names.len()],
            names,
            large,
            harness: None,
            random: Random::new(seed),
            phase: Phase::Pause,
            clock,
            takeover: Takeover::default(),
            figures: Figures::default(),
            is_disturbed: false,
            timers: BinaryHeap::new(),
            slow_readers: Vec::new(),
            members_differ: None,
            interrupted: Arc::default(),
            lost_reads: Vec::new(),
            possible_violations: VecDeque::new(),
            next_sender: 0,
            buffer: vec![0; BUFFER_BYTES],
            next_slow_read: now,
            next_large: now,
            next_brief: now,
        })
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        self.figures.add(what, 1);
    }

    pub(crate) fn user(&mut self, index: u32) -> &mut User {
        &mut self.users[index as usize]
    }

    pub(crate) fn open(&mut self, owner: Owner, rate: ReadRate) -> Checked<Token> {
        self.next_sender += 1;
        self.count("clients");
        let node = self.choose_node();
        let server = self.node(node);
        let (address, tls) = (server.address, server.tls.clone());
        let link = Link::connect((address, tls.as_ref()), self.next_sender, rate)?;
        let client = Client::new(owner, node, self.next_sender, self.clock.moment());
        Ok(self.links.insert(link, client)?)
    }

    /// Begins a read, or continues it, with a client.
    pub(crate) fn ask(&mut self, token: Token, mut read: Read) {
        let request = read.request();
        if let Some((link, client)) = self.links.get(token) {
            link.send(&request);
            client.read = Some(read);
            client.asked = self.clock.moment();
        }
        self.count("reads");
    }

    pub(crate) fn text(&mut self, token: Token, channel: usize, from: u64, filler: u32) -> Text {
        let mut text = Text { sender: 0, seq: 0, channel: channel as u32, from, filler };
        if let Some(client) = self.links.client(token) {
            client.seq += 1;
            (text.sender, text.seq) = (client.sender, client.seq);
        }
        text
    }

    pub(crate) fn close(&mut self, token: Option<Token>, how: Close) {
        if let Some((link, _)) = token.and_then(|token| self.links.remove(token)) {
            link.close(how);
        }
    }

    /// Closes a link on which nothing is pending, in one way or the other.
    pub(crate) fn drop_link(&mut self, token: Option<Token>) {
        let how = if self.random.percent(50) { Close::Orderly } else { Close::Reset };
        self.close(token, how);
    }

    pub(crate) fn set_timer(&mut self, after_ms: u64, due: Due) {
        self.timers.push(Reverse((self.clock.now + Duration::from_millis(after_ms), due)));
    }

    /// Notes the response to a call that was sent at this time.
    pub(crate) fn note_response(&mut self, sent: Instant) {
        let took = self.clock.now - sent;
        let is_upgrading = self.takeover.is_under_way;
        if !is_upgrading {
            // An upgrade is no excuse.
            self.clock.note_lag(took);
        }
        if self.phase == Phase::Churn {
            let pauses = &mut self.figures.pauses[usize::from(is_upgrading)];
            pauses.one = pauses.one.max(took);
            pauses.all = pauses.all.max(self.clock.now - self.clock.answered_at);
        }
        self.clock.answered_at = self.clock.now;
    }

    /// Runs one turn: takes what came, does what is due, and decides on possible violations.
    pub(crate) fn turn(&mut self) -> Checked {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        let tokens = self.links.wait(TURN)?;
        let before = self.clock.now;
        self.clock.update();
        self.clock.note_lag((self.clock.now - before).saturating_sub(TURN));
        for token in tokens {
            let Some((link, _)) = self.links.get(token) else { continue };
            link.flush();
            if link.rate == ReadRate::Fast || link.is_handshaking() {
                self.take(token, BUFFER_BYTES)?;
            }
        }
        let (now, _) = self.clock.update();
        if !self.is_disturbed {
            self.do_due()?;
        }
        self.possible_violations
            .extend(self.ledger.possible_violations.drain(..).map(|violation| (now, violation)));
        while self.possible_violations.front().is_some_and(|(at, _)| *at + GRACE <= now)
            && let Some((_, violation)) = self.possible_violations.pop_front()
        {
            if self.ledger.is_crossed(&violation) {
                self.count("closings that a response crossed");
            } else if self.clock.was_slow() {
                self.count("ends excused by a slow machine");
            } else {
                return Err(violation.fault);
            }
        }
        Ok(())
    }

    fn do_due(&mut self) -> Checked {
        let now = self.clock.now;
        while let Some(Reverse((at, due))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            match due {
                Due::User(user, timer) if self.user(user).timer == timer => self.act(user)?,
                Due::User(..) => {}
                Due::Brief(token) => self.continue_brief(token),
            }
        }
        if self.next_slow_read <= now {
            self.next_slow_read = now + SLOW_READ_INTERVAL;
            for token in mem::take(&mut self.slow_readers) {
                if self.links.get(token).is_some() {
                    let bytes = self.random.pick(&SLOW_READ_BYTES);
                    self.take(token, bytes)?;
                    self.slow_readers.push(token);
                }
            }
        }
        if self.phase != Phase::Churn {
            return Ok(());
        }
        if self.next_large <= now {
            self.next_large = now + LARGE_INTERVAL;
            let harness = self.harness.and_then(|harness| self.links.client(harness));
            if harness.is_none_or(|client| client.calls.is_empty()) {
                for channel in 0..self.large {
                    self.harness_writes(channel, LARGE_BYTES)?;
                }
            }
        }
        // After a slow turn some are due at once, but never all that a long one left out.
        let pause = Duration::from_secs(BRIEF_SECONDS) / self.users.len().max(1) as u32;
        let earliest = now.checked_sub(BRIEF_BACKLOG * pause).unwrap_or(now);
        self.next_brief = self.next_brief.max(earliest);
        while self.next_brief <= now {
            self.next_brief += pause;
            self.begin_brief()?;
        }
        Ok(())
    }

    pub(crate) fn harness_writes(&mut self, channel: usize, filler: u32) -> Checked {
        let harness = match self.harness {
            Some(harness) if self.links.get(harness).is_some() => harness,
            _ => self.open(Owner::Harness, ReadRate::Fast)?,
        };
        self.harness = Some(harness);
        let text = self.text(harness, channel, 0, filler);
        self.write(harness, text, None);
        Ok(())
    }

    /// Lets an observer continue, or begin.
    pub(crate) fn observe(&mut self, channel: usize, before: Option<Read>) -> Checked {
        let read = before.unwrap_or_else(|| {
            let is_large = channel < self.large;
            let form = if is_large { Form::LongPoll } else { Form::ALL[channel % Form::ALL.len()] };
            let mut read = Read::new(form, self.subscribe(channel, Since::All), None);
            read.reader.observes = true;
            read
        });
        let token = self.open(Owner::Observer(channel), ReadRate::Fast)?;
        self.observers[channel] = Some(token);
        self.ask(token, read);
        Ok(())
    }

    pub(crate) fn subscribe(&self, channel: usize, since: Since) -> Subscription {
        Subscription::new(channel, &self.names[channel].read, since)
    }

    pub(crate) fn subscribe_now(&self, channel: usize) -> Subscription {
        self.subscribe(channel, Since::Next(self.ledger.channels[channel].judged + 1))
    }

    /// Returns any channel that is not large.
    pub(crate) fn any_channel(&mut self) -> usize {
        self.large + self.random.index(self.names.len() - self.large)
    }

    /// A call of a session, sent at that time, succeeded.
    pub(crate) fn lived(&mut self, session: Option<u64>, at_ms: u64) {
        if let Some(number) = session {
            self.plan(number, |session| session.lived(at_ms));
        }
    }
}

//! The world of a stress run: all links and users, the time, and one turn of the loop.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::call::Call;
use super::ledger::{Checked, Fault};
use super::link::{Close, Link, Links, ReadRate, Token};
use super::random::Random;
use super::reading::{Follow, ReadContext, Reading, Since};
use super::round::Memory;
use super::said::Parsed;
use super::stray::BriefClient;
use super::user::User;
use crate::Result;
use crate::client::BUFFER_BYTES;
use crate::frame::Framer;
use crate::server::Server;
use crate::wire::Form;

/// A prompt answer, or a turn of this loop, that takes longer shows that the machine is too busy to judge by time.
const LAG: Duration = Duration::from_millis(500);
/// So long a lag excuses that somebody could not be kept alive.
const LAG_EXCUSES: Duration = Duration::from_secs(12);
/// So long a suspect waits for what may clear it.
const GRACE: Duration = Duration::from_secs(1);
/// So long a process that was taken over from has for those who are slow to take their answer.
const LEAVE_MAX: Duration = Duration::from_secs(30);
/// So long a busy kernel may take to tell of the end of a process's links.
const END_MAX: Duration = Duration::from_secs(1);
const SLOW_READ_INTERVAL: Duration = Duration::from_millis(5);
/// How much is sipped: mostly a byte.
const SIPS: [usize; 6] = [1, 1, 1, 16, 64, 512];
/// In so many seconds there are as many stray clients as users.
const STRAY_SHARE: u64 = 40;
/// So many of them are made up for at most.
const STRAYS_BEHIND: u32 = 20;
/// A loud message comes so often in each loud room.
const LOUD_EVERY: Duration = Duration::from_millis(30);

/// Whose a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    /// Who reads a room throughout.
    Observer(u32),
    /// With which a user reads.
    ReadConn(u32),
    /// With which a user read, before another link took the read over.
    FormerEar(u32),
    /// With which a user calls.
    Mouth(u32),
    Brief(BriefClient),
    /// What the run itself asks and says.
    House,
}

/// What is kept with a link.
pub(super) struct Owned {
    pub(super) who: Who,
    pub(super) reading: Option<Reading>,
    pub(super) opened: Instant,
    /// When the read was asked, and the same by the server's clock.
    pub(super) asked: (Instant, u64),
    /// Calls that are not answered yet, in order.
    pub(super) calls: VecDeque<Call>,
    /// Of a stream: its head has come.
    pub(super) is_open: bool,
    pub(super) voice: u32,
    pub(super) seq: u32,
    /// What is still to be sent, bit by bit.
    pub(super) script: VecDeque<u8>,
    /// When another link took the read over.
    pub(super) taken_over: Option<Instant>,
    /// What the next poll follows in addition.
    next_follows: Vec<Follow>,
}

impl Owned {
    /// Whether calls may be made in frames.
    pub(super) fn speaks(&self) -> bool {
        self.is_open && self.reading.as_ref().is_some_and(|reading| reading.form == Form::Frames)
    }

    /// Has the next poll follow one more room, if there is a next poll.
    pub(super) fn take_in_next(&mut self, follow: Follow) {
        let Some(reading) = &self.reading else { return };
        let mut followed = reading.follows.iter().chain(&self.next_follows);
        if !reading.form.stays() && !followed.any(|other| other.room == follow.room) {
            self.next_follows.push(follow);
        }
    }

    pub(super) fn next_follows(&mut self) -> Vec<Follow> {
        mem::take(&mut self.next_follows)
    }
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// A user, unless he was given another time since.
    User(u32, u32),
    Brief(Token),
}

/// What users are to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Churn,
    /// Those who are there stay, and say nothing.
    Pause,
    /// Everybody leaves.
    Clear,
}

/// How long the server stood still, as those see it who call.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Pauses {
    /// The longest time in which nobody's call was answered.
    pub(super) all: Duration,
    /// The longest that a call took.
    pub(super) one: Duration,
}

/// What happened, by name.
pub(super) type Counts = BTreeMap<&'static str, u64>;

pub(super) struct World {
    pub(super) server: Server,
    pub(super) scene: ReadContext,
    pub(super) links: Links<Owned>,
    pub(super) users: Vec<User>,
    pub(super) observers: Vec<Option<Token>>,
    pub(super) house: Option<Token>,
    pub(super) random: Random,
    pub(super) phase: Phase,
    /// The server is being ended: links may break.
    pub(super) is_disturbed: bool,
    /// One server takes over from another: streams end.
    pub(super) is_handing: bool,
    /// When that was last over.
    pub(super) handed_at: Option<Instant>,
    /// When last a process was killed, and another had taken over from it.
    pub(super) cut_at: Option<Instant>,
    /// How long calls took, apart from upgrades and amid them.
    pub(super) pauses: [Pauses; 2],
    pub(super) answered_at: Instant,
    pub(super) upgrades: u64,
    /// The longest that an upgrade took until the process before had left.
    pub(super) upgrade_most: Duration,
    /// Where the server keeps its state when it is stopped, if it does.
    pub(super) state_file: Option<PathBuf>,
    pub(super) timers: BinaryHeap<Reverse<(Instant, Due)>>,
    pub(super) sippers: Vec<Token>,
    pub(super) counts: Counts,
    pub(super) delivered: BTreeMap<Form, u64>,
    pub(super) now: Instant,
    pub(super) now_ms: u64,
    /// What the server said of who is where, when last asked.
    pub(super) members_differ: Option<Fault>,
    pub(super) interrupted: Arc<AtomicBool>,
    /// Of links that the server ended while it was disturbed.
    pub(super) last_readings: Vec<(Who, Reading)>,
    pub(super) memory: Memory,
    pub(super) here_most: u64,
    pub(super) clients_most: u64,
    /// CPU time of all servers, and what of it is of the one that runs now.
    pub(super) cpu_ns: u64,
    pub(super) cpu_counted_ns: u64,
    suspense: VecDeque<(Instant, super::ledger::Suspect)>,
    lagged: Option<Instant>,
    pub(super) lag_most: Duration,
    next_voice: u32,
    pub(super) framers: [Framer; 3],
    pub(super) buffer: Vec<u8>,
    next_sip: Instant,
    next_loud: Instant,
    next_stray: Instant,
}

impl World {
    pub(super) fn new(
        server: Server,
        scene: ReadContext,
        seed: u64,
        users: Vec<User>,
    ) -> Result<Self> {
        let now = Instant::now();
        Ok(Self {
            server,
            links: Links::new()?,
            users,
            observers: vec![None; scene.names.len()],
            scene,
            house: None,
            random: Random::new(seed),
            phase: Phase::Pause,
            is_disturbed: false,
            is_handing: false,
            handed_at: None,
            cut_at: None,
            pauses: [Pauses::default(); 2],
            answered_at: now,
            upgrades: 0,
            upgrade_most: Duration::ZERO,
            state_file: None,
            timers: BinaryHeap::new(),
            sippers: Vec::new(),
            counts: Counts::new(),
            delivered: BTreeMap::new(),
            now,
            now_ms: 0,
            members_differ: None,
            interrupted: Arc::default(),
            last_readings: Vec::new(),
            memory: Memory::default(),
            here_most: 0,
            clients_most: 0,
            cpu_ns: 0,
            cpu_counted_ns: 0,
            suspense: VecDeque::new(),
            lagged: None,
            lag_most: Duration::ZERO,
            next_voice: 0,
            framers: [Form::Plain, Form::Events, Form::Frames].map(|form| Framer::new(form.cut())),
            buffer: vec![0; BUFFER_BYTES],
            next_sip: now,
            next_loud: now,
            next_stray: now,
        })
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn open(&mut self, who: Who, thirst: ReadRate) -> Checked<Token> {
        self.next_voice += 1;
        let voice = self.next_voice;
        let opened = Link::connect(self.server.target.address, voice, thirst).and_then(|link| {
            let owned = Owned {
                who,
                reading: None,
                opened: self.now,
                asked: (self.now, self.now_ms),
                calls: VecDeque::new(),
                is_open: false,
                voice,
                seq: 0,
                script: VecDeque::new(),
                taken_over: None,
                next_follows: Vec::new(),
            };
            self.links.insert(link, owned)
        });
        self.count("clients");
        opened.map_err(|error| Fault::new(error.to_string()))
    }

    /// Begins to read, or to read again, with a link.
    pub(super) fn ask(&mut self, token: Token, reading: Reading) {
        let mut reading = reading;
        let request = reading.request(&self.scene.names);
        let asked = (self.now, self.now_ms);
        if let Some((link, owned)) = self.links.get(token) {
            link.send(&request);
            owned.reading = Some(reading);
            owned.asked = asked;
        }
        self.count("reads");
    }

    /// The next word of a link.
    pub(super) fn word(&mut self, token: Token, room: u32, from: u64, filler: u32) -> Parsed {
        let (voice, seq) = match self.links.get(token) {
            Some((_, owned)) => {
                owned.seq += 1;
                (owned.voice, owned.seq)
            }
            None => (0, 0),
        };
        Parsed { voice, seq, room, from, filler }
    }

    pub(super) fn close(&mut self, token: Option<Token>, how: Close) {
        if let Some((link, _)) = token.and_then(|token| self.links.remove(token)) {
            link.close(how);
        }
    }

    pub(super) fn set_timer(&mut self, after_ms: u64, due: Due) {
        self.timers.push(Reverse((self.now + Duration::from_millis(after_ms), due)));
    }

    fn set_time(&mut self) {
        self.now = Instant::now();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now_ms = since_1970.as_millis() as u64;
    }

    /// The time by the server's clock, as exactly as can be.
    pub(super) fn exact_ms(&mut self) -> u64 {
        self.set_time();
        self.now_ms
    }

    /// Something took this long that takes no time on an idle machine.
    pub(super) fn notice_lag(&mut self, took: Duration) {
        self.lag_most = self.lag_most.max(took);
        if took > LAG {
            self.lagged = Some(self.now);
        }
    }

    /// A call was answered that was sent at this time.
    pub(super) fn note_answer(&mut self, sent: Instant) {
        let took = self.now - sent;
        if !self.is_handing {
            // An upgrade is no excuse.
            self.notice_lag(took);
        }
        if self.phase == Phase::Churn {
            let pauses = &mut self.pauses[usize::from(self.is_handing)];
            pauses.one = pauses.one.max(took);
            pauses.all = pauses.all.max(self.now - self.answered_at);
        }
        self.answered_at = self.now;
    }

    /// Whether a stream that was asked for then may end: its process ends, or did just now.
    pub(super) fn may_end_streams(&self, asked: Instant) -> bool {
        self.is_handing || self.handed_at.is_some_and(|end| asked < end && end + END_MAX > self.now)
    }

    /// Whether a link that is from then may end, whatever it is: its process was killed just now.
    pub(super) fn was_cut(&self, since: Instant) -> bool {
        self.cut_at.is_some_and(|at| since < at && at + END_MAX > self.now)
    }

    /// Whether a link that is from then, and takes what it is sent slowly, may end: its process leaves, or did not long ago.
    pub(super) fn may_end_slow(&self, opened: Instant) -> bool {
        let is_left = |end: Instant| opened < end && end + LEAVE_MAX + END_MAX > self.now;
        self.is_handing || self.handed_at.is_some_and(is_left)
    }

    /// Whether some of the time since then was amid an upgrade.
    pub(super) fn was_handed(&self, since: Instant) -> bool {
        self.is_handing || self.handed_at.is_some_and(|end| since < end)
    }

    pub(super) fn was_slow(&self) -> bool {
        self.lagged.is_some_and(|at| at.elapsed() < LAG_EXCUSES)
    }

    /// One turn: what came, what is due, and what the house does by the clock.
    pub(super) fn turn(&mut self) -> Checked {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Fault::new("interrupted"));
        }
        let mut tokens = Vec::new();
        let patience = Duration::from_millis(2);
        self.links.wait(patience, &mut tokens).map_err(|error| Fault::new(error.to_string()))?;
        let before = self.now;
        self.set_time();
        self.notice_lag((self.now - before).saturating_sub(patience));
        for token in tokens {
            self.hear(token)?;
        }
        self.set_time();
        if !self.is_disturbed {
            self.do_due()?;
        }
        for suspect in mem::take(&mut self.scene.ledger.suspects) {
            self.suspense.push_back((self.now, suspect));
        }
        while self.suspense.front().is_some_and(|(since, _)| *since + GRACE <= self.now) {
            let Some((_, suspect)) = self.suspense.pop_front() else { break };
            if self.scene.ledger.superseded(&suspect) {
                self.count("closings that an answer crossed");
            } else if self.was_slow() {
                self.count("ends excused by a slow machine");
            } else {
                return Err(suspect.fault);
            }
        }
        Ok(())
    }

    pub(super) fn forget_suspects(&mut self) {
        self.suspense.clear();
    }

    pub(super) fn has_suspects(&self) -> bool {
        !self.suspense.is_empty()
    }

    fn do_due(&mut self) -> Checked {
        while let Some(Reverse((at, due))) = self.timers.peek().copied()
            && at <= self.now
        {
            self.timers.pop();
            match due {
                Due::User(user, turn) if self.users[user as usize].turn == turn => {
                    self.act(user)?;
                }
                Due::User(..) => {}
                Due::Brief(token) => self.stray_on(token),
            }
        }
        if self.next_sip <= self.now {
            self.next_sip = self.now + SLOW_READ_INTERVAL;
            for token in mem::take(&mut self.sippers) {
                if self.links.get(token).is_some() {
                    let sip = SIPS[self.random.below(SIPS.len() as u64) as usize];
                    self.take(token, sip)?;
                    self.sippers.push(token);
                }
            }
        }
        if self.phase != Phase::Churn {
            return Ok(());
        }
        if self.next_loud <= self.now {
            self.next_loud = self.now + LOUD_EVERY;
            let house = self.house.and_then(|house| self.links.get(house));
            if house.is_none_or(|(_, owned)| owned.calls.is_empty()) {
                for room in 0..self.scene.loud {
                    self.harness_writes(room, super::LOUD_BYTES)?;
                }
            }
        }
        // After a slow turn some are due at once, but never all that a long one left out.
        let pause = Duration::from_secs(STRAY_SHARE) / self.users.len().max(1) as u32;
        self.next_stray =
            self.next_stray.max(self.now.checked_sub(STRAYS_BEHIND * pause).unwrap_or(self.now));
        while self.next_stray <= self.now {
            self.next_stray += pause;
            self.begin_stray()?;
        }
        Ok(())
    }

    /// The house writes into a room.
    pub(super) fn harness_writes(&mut self, room: u32, filler: u32) -> Checked {
        let house = match self.house {
            Some(house) if self.links.get(house).is_some() => house,
            _ => self.open(Who::House, ReadRate::Fast)?,
        };
        self.house = Some(house);
        let said = self.word(house, room, 0, filler);
        self.write(house, said, None);
        Ok(())
    }

    /// Something happened to a link.
    fn hear(&mut self, token: Token) -> Checked {
        let Some((link, _)) = self.links.get(token) else { return Ok(()) };
        link.flush();
        match link.thirst {
            ReadRate::Fast => self.take(token, BUFFER_BYTES),
            ReadRate::Slow | ReadRate::None => Ok(()),
        }
    }

    /// Lets an observer read on, or begin to.
    pub(super) fn observe(&mut self, room: u32, before: Option<Reading>) -> Checked {
        let form = if room < self.scene.loud {
            Form::Plain
        } else {
            Form::ALL[room as usize % Form::ALL.len()]
        };
        let reading = before.unwrap_or_else(|| {
            let mut reading = Reading::new(form, vec![Follow { room, since: Since::All }], None);
            reading.observes = true;
            reading
        });
        let token = self.open(Who::Observer(room), ReadRate::Fast)?;
        self.observers[room as usize] = Some(token);
        self.ask(token, reading);
        Ok(())
    }
}

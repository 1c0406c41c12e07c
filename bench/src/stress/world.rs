//! The world of a stress run: all links and users, the time, and one turn of the loop.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::call::{Call, What};
use super::ledger::{Checked, Fault};
use super::link::{Close, Link, Links, Received, Thirst, Token};
use super::random::Random;
use super::reading::{Follow, Reading, Scene, Since, Taken};
use super::round::Memory;
use super::said::Said;
use super::stray::Stray;
use super::user::User;
use crate::Result;
use crate::client::BUFFER_BYTES;
use crate::frame::{Frame, Framer};
use crate::server::Server;
use crate::wire::{self, Form};

/// A prompt answer, or a turn of this loop, that takes longer shows that the machine is too busy to judge by time.
const LAG: Duration = Duration::from_millis(500);
/// So long a lag excuses that somebody could not be kept alive.
const LAG_EXCUSES: Duration = Duration::from_secs(12);
/// So long a suspect waits for what may clear it.
const SUSPENSE: Duration = Duration::from_secs(1);
const SIP_EVERY: Duration = Duration::from_millis(5);
/// How much is sipped: mostly a byte.
const SIPS: [usize; 6] = [1, 1, 1, 16, 64, 512];
/// A loud message comes so often in each loud room.
const LOUD_EVERY: Duration = Duration::from_millis(30);

/// Whose a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    /// Who reads a room throughout.
    Observer(u32),
    /// With which a user reads.
    Ear(u32),
    /// With which a user read, before another link took the read over.
    FormerEar(u32),
    /// With which a user calls.
    Mouth(u32),
    Stray(Stray),
    /// What the run itself asks and says.
    House,
}

/// What is kept with a link.
pub(super) struct Owned {
    pub(super) who: Who,
    pub(super) reading: Option<Reading>,
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
    Stray(Token),
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

/// What happened, by name.
pub(super) type Counts = BTreeMap<&'static str, u64>;

pub(super) struct World {
    pub(super) server: Server,
    pub(super) scene: Scene,
    pub(super) links: Links<Owned>,
    pub(super) users: Vec<User>,
    pub(super) observers: Vec<Option<Token>>,
    pub(super) house: Option<Token>,
    pub(super) random: Random,
    pub(super) phase: Phase,
    /// The server is being ended: links may break.
    pub(super) is_disturbed: bool,
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
    framers: [Framer; 3],
    buffer: Vec<u8>,
    next_sip: Instant,
    next_loud: Instant,
    next_stray: Instant,
}

impl World {
    pub(super) fn new(server: Server, scene: Scene, seed: u64, users: Vec<User>) -> Result<Self> {
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

    pub(super) fn open(&mut self, who: Who, thirst: Thirst) -> Checked<Token> {
        self.next_voice += 1;
        let voice = self.next_voice;
        let opened = Link::connect(self.server.target.address, voice, thirst).and_then(|link| {
            let owned = Owned {
                who,
                reading: None,
                asked: (self.now, self.now_ms),
                calls: VecDeque::new(),
                is_open: false,
                voice,
                seq: 0,
                script: VecDeque::new(),
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
    pub(super) fn word(&mut self, token: Token, room: u32, from: u64, filler: u32) -> Said {
        let (voice, seq) = match self.links.get(token) {
            Some((_, owned)) => {
                owned.seq += 1;
                (owned.voice, owned.seq)
            }
            None => (0, 0),
        };
        Said { voice, seq, room, from, filler }
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
        while self.suspense.front().is_some_and(|(since, _)| *since + SUSPENSE <= self.now) {
            let Some((_, suspect)) = self.suspense.pop_front() else { break };
            if self.scene.ledger.crossed(&suspect) {
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
                Due::User(user, turn) if self.users[user as usize].turn == turn => self.act(user)?,
                Due::User(..) => {}
                Due::Stray(token) => self.stray_on(token)?,
            }
        }
        if self.next_sip <= self.now {
            self.next_sip = self.now + SIP_EVERY;
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
                    self.house_says(room, super::LOUD_BYTES)?;
                }
            }
        }
        if self.next_stray <= self.now {
            let pause_ms = 40_000 / self.users.len().max(1) as u64;
            self.next_stray = self.now + Duration::from_millis(pause_ms.max(2));
            self.begin_stray()?;
        }
        Ok(())
    }

    /// The house writes into a room.
    pub(super) fn house_says(&mut self, room: u32, filler: u32) -> Checked {
        let house = match self.house {
            Some(house) if self.links.get(house).is_some() => house,
            _ => self.open(Who::House, Thirst::Gulps)?,
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
            Thirst::Gulps => self.take(token, BUFFER_BYTES),
            Thirst::Sips | Thirst::None => Ok(()),
        }
    }

    /// Takes what is there, or some of it, and looks at each whole answer.
    fn take(&mut self, token: Token, most: usize) -> Checked {
        let mut buffer = mem::take(&mut self.buffer);
        if buffer.is_empty() {
            // What came for one has somebody else's link looked at.
            buffer.resize(BUFFER_BYTES, 0);
        }
        let result = self.take_into(token, &mut buffer[..most]);
        self.buffer = buffer;
        result
    }

    fn take_into(&mut self, token: Token, buffer: &mut [u8]) -> Checked {
        loop {
            let Some((link, owned)) = self.links.get(token) else { return Ok(()) };
            let received = link.receive(buffer);
            let inbox = mem::take(&mut link.inbox);
            let framer = match owned.reading.as_ref().map(|reading| reading.form) {
                Some(Form::Events) => 1,
                Some(Form::Frames) => 2,
                _ => 0,
            };
            let mut done = 0;
            while done < inbox.len() {
                let frame = self.framers[framer].next(&inbox[done..]).map_err(|error| Fault::new(error.to_string()))?;
                let Some(frame) = frame else { break };
                done += frame.bytes.len();
                self.look_at(token, &frame)?;
            }
            if let Some((link, _)) = self.links.get(token) {
                link.inbox.extend_from_slice(&inbox[done..]);
            }
            match received {
                Received::Drained => return Ok(()),
                Received::Some if buffer.len() < BUFFER_BYTES => return Ok(()),
                Received::Some => {}
                Received::End | Received::Broken => return self.ended(token, received),
            }
        }
    }

    /// Whether something came for a link that was not looked at; if so, looks at it.
    pub(super) fn look(&mut self, token: Token) -> Checked<bool> {
        let before = self.scene.ledger.sights;
        let asked = self.links.get(token).map(|(_, owned)| owned.asked.0);
        self.take(token, BUFFER_BYTES)?;
        let same = self.links.get(token).is_some_and(|(_, owned)| Some(owned.asked.0) == asked);
        Ok(!same || self.scene.ledger.sights != before)
    }

    /// A whole answer, event or frame.
    fn look_at(&mut self, token: Token, frame: &Frame) -> Checked {
        let Some((link, owned)) = self.links.get(token) else { return Ok(()) };
        if frame.is_ping() {
            link.send(&wire::PONG);
            self.count("pings");
            return Ok(());
        }
        if frame.is_farewell() {
            return Ok(());
        }
        let Some(mut reading) = owned.reading.take() else { return self.answered(token, frame) };
        let is_answer = frame.status.is_some_and(|status| status != 200 && status != 101);
        if is_answer {
            owned.reading = Some(reading);
            return self.read_refused(token, frame);
        }
        if reading.form.stays() && frame.status.is_some() {
            let again = mem::replace(&mut owned.is_open, true);
            let sent_ms = owned.asked.1;
            let number = reading.identity.as_ref().map(|identity| identity.number);
            let form = reading.form;
            owned.reading = Some(reading);
            if again {
                return Err(Fault::new("a stream begins twice"));
            }
            wire::check_opening(frame, form).map_err(|error| Fault::new(error.to_string()))?;
            if let Some(number) = number {
                self.scene.ledger.carried(number, sent_ms);
            }
            return Ok(());
        }
        let form = reading.form;
        let taken = match form {
            Form::Events => reading.take_event(frame.body(), &mut self.scene)?,
            _ => {
                let json = reading.json(frame.body())?;
                let value: serde_json::Value = serde_json::from_slice(json)
                    .map_err(|error| Fault::new(format!("no JSON ({error}): {}", frame.lossy())))?;
                if let Some(reference) = value.get("ref").and_then(serde_json::Value::as_u64) {
                    self.restore(token, reading);
                    return self.frame_answered(token, reference, &value);
                }
                if let (Some(error), Form::Jsonp) = (value.get("error"), form) {
                    let gone = error == "connection_ended";
                    self.restore(token, reading);
                    return if gone { self.read_gone(token) } else { Err(Fault::new(format!("refused: {value}"))) };
                }
                reading.take(&value, &mut self.scene)?
            }
        };
        self.note(form, &taken);
        let identity = reading.identity.clone();
        self.restore(token, reading);
        if form.stays() {
            return Ok(());
        }
        let sent_ms = self.links.get(token).map_or(0, |(_, owned)| owned.asked.1);
        if let Some(identity) = identity {
            self.scene.ledger.carried(identity.number, sent_ms);
        }
        self.read_answered(token)
    }

    fn restore(&mut self, token: Token, reading: Reading) {
        if let Some((_, owned)) = self.links.get(token) {
            owned.reading = Some(reading);
        }
    }

    fn note(&mut self, form: Form, taken: &Taken) {
        *self.delivered.entry(form).or_default() += taken.messages;
        *self.counts.entry("readers told of a new numbering").or_default() += taken.resets;
        *self.counts.entry("readers told that they missed some").or_default() += taken.missed;
        if taken.messages == 0 && !form.stays() {
            self.count("reads answered with nothing");
        }
    }

    /// The server ended a link.
    fn ended(&mut self, token: Token, how: Received) -> Checked {
        let Some((link, owned)) = self.links.remove(token) else { return Ok(()) };
        link.close(Close::Orderly);
        if self.is_disturbed {
            self.last_readings.extend(owned.reading.map(|reading| (owned.who, reading)));
            return Ok(());
        }
        let may_end = match owned.who {
            Who::Observer(_) | Who::House => false,
            Who::Ear(user) => self.may_lose_ear(user, &owned),
            Who::FormerEar(_) => false,
            Who::Mouth(user) => {
                self.users[user as usize].mouth = None;
                owned.calls.is_empty()
            }
            Who::Stray(stray) => stray.may_end(),
        };
        if may_end {
            return Ok(());
        }
        let calls: Vec<&What> = owned.calls.iter().map(|call| &call.what).collect();
        let what = format!("the server ended a client ({how:?}) of {:?}, {calls:?} unanswered", owned.who);
        let rooms = owned.reading.map(|reading| reading.follows).unwrap_or_default();
        Err(Fault { room: rooms.first().map(|follow| follow.room), what })
    }

    /// Lets an observer read on, or begin to.
    pub(super) fn observe(&mut self, room: u32, before: Option<Reading>) -> Checked {
        let form = if room < self.scene.loud { Form::Plain } else { Form::ALL[room as usize % Form::ALL.len()] };
        let reading = before.unwrap_or_else(|| {
            let mut reading = Reading::new(form, vec![Follow { room, since: Since::All }], None);
            reading.observes = true;
            reading
        });
        let token = self.open(Who::Observer(room), Thirst::Gulps)?;
        self.observers[room as usize] = Some(token);
        self.ask(token, reading);
        Ok(())
    }
}

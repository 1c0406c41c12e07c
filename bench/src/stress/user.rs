//! Users: each is a small state machine that comes, reads, talks and leaves, as the dice have it.

use super::call::What;
use super::connection::ExpectedEnd;
use super::leaving::LeaveMode;
use super::ledger::{Checked, Fault};
use super::link::{Close, ReadRate, Token};
use super::reading::{Follow, Identity, Reading, Since};
use super::world::{Due, Owned, Phase, Who, World};
use crate::frame::Frame;
use crate::wire::Form;

/// What sort of user one is, until he leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    /// Introduces himself, reads and talks.
    Resident,
    /// Says a few words, without a name, and reads nothing.
    Passer,
    /// Reads a few bytes at a time, without a name.
    Sipper,
    /// Follows a loud room, and takes nothing of it.
    Clogger,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Away,
    /// Has called to be introduced.
    Arriving,
    Here,
    /// On the way out; so many more barriers have to be answered before a read is closed.
    Leaving(LeaveMode, u8),
    /// Lost the server, and comes back.
    Adrift,
}

pub(super) struct User {
    pub(super) sort: Sort,
    pub(super) state: State,
    pub(super) identity: Option<Identity>,
    /// The identity is of a server that is gone.
    pub(super) is_stale: bool,
    /// Where he is introduced.
    pub(super) rooms: Vec<u32>,
    pub(super) mouth: Option<Token>,
    pub(super) ear: Option<Token>,
    /// The read that a server ended by its end: it goes on from there.
    pub(super) resumes: Option<Reading>,
    /// Acts that are left.
    stays: u64,
    /// Of his timers, the valid one.
    pub(super) turn: u32,
}

impl User {
    pub(super) fn new() -> Self {
        Self {
            sort: Sort::Resident,
            state: State::Away,
            identity: None,
            is_stale: false,
            rooms: Vec::new(),
            mouth: None,
            ear: None,
            resumes: None,
            stays: 0,
            turn: 0,
        }
    }
}

impl World {
    pub(super) fn user(&mut self, index: u32) -> &mut User {
        &mut self.users[index as usize]
    }

    /// Has a user act after a while.
    pub(super) fn act_in(&mut self, index: u32, least_ms: u64, most_ms: u64) {
        let after_ms = self.random.between(least_ms, most_ms);
        let user = self.user(index);
        user.turn += 1;
        let due = Due::User(index, user.turn);
        self.set_timer(after_ms, due);
    }

    /// It is a user's turn.
    pub(super) fn act(&mut self, index: u32) -> Checked {
        let state = self.user(index).state;
        match state {
            State::Away if self.phase == Phase::Churn => self.arrive(index),
            State::Away => {
                self.act_in(index, 100, 400);
                Ok(())
            }
            State::Arriving => Ok(()),
            State::Here
                if self.user(index).sort == Sort::Resident
                    && self.user(index).resumes.is_some() =>
            {
                self.read_on(index)?;
                self.live(index)
            }
            State::Here => self.live(index),
            State::Leaving(way, barriers) => self.leave(index, way, barriers),
            State::Adrift => self.come_back(index),
        }
    }

    pub(super) fn mouth(&mut self, index: u32) -> Checked<Token> {
        if let Some(mouth) = self.user(index).mouth {
            return Ok(mouth);
        }
        let mouth = self.open(Who::Mouth(index), ReadRate::Fast)?;
        self.user(index).mouth = Some(mouth);
        Ok(mouth)
    }

    pub(super) fn is_calling(&mut self, index: u32) -> bool {
        let user = self.user(index);
        let (mouth, ear) = (user.mouth, user.ear);
        [mouth, ear]
            .into_iter()
            .flatten()
            .any(|token| self.links.get(token).is_some_and(|it| !it.1.calls.is_empty()))
    }

    /// Rooms are chosen evenly, but nobody lives in a loud one.
    fn a_room(&mut self) -> u32 {
        let (loud, all) = (self.scene.loud, self.scene.names.len() as u64);
        (u64::from(loud) + self.random.below(all - u64::from(loud))) as u32
    }

    fn arrive(&mut self, index: u32) -> Checked {
        let sorts =
            [(80, Sort::Resident), (12, Sort::Passer), (5, Sort::Sipper), (3, Sort::Clogger)];
        let sort = self.random.weighted(&sorts);
        let home = if sort == Sort::Clogger {
            self.random.below(u64::from(self.scene.loud)) as u32
        } else {
            self.a_room()
        };
        let stays = self.random.between(2, 12);
        let user = self.user(index);
        (user.sort, user.rooms, user.stays, user.identity) = (sort, vec![home], stays, None);
        self.count("arrivals");
        match sort {
            Sort::Resident | Sort::Clogger => {
                self.user(index).state = State::Arriving;
                let mouth = self.mouth(index)?;
                let said = self.word(mouth, home, 0, 8);
                self.introduce(mouth, said, None);
            }
            Sort::Passer => {
                self.user(index).state = State::Here;
                self.act_in(index, 0, 300);
            }
            Sort::Sipper => {
                self.user(index).state = State::Here;
                self.user(index).stays = self.random.between(20, 60);
                let since = if self.random.percent(50) { Since::All } else { Since::Last(5) };
                let ear = self.open(Who::ReadConn(index), ReadRate::Slow)?;
                self.user(index).ear = Some(ear);
                self.sippers.push(ear);
                self.ask(ear, Reading::new(Form::Plain, vec![Follow { room: home, since }], None));
                self.act_in(index, 100, 300);
            }
        }
        Ok(())
    }

    /// The introduction of a newcomer was answered.
    pub(super) fn became(&mut self, index: u32, identity: Identity) -> Checked {
        let user = self.user(index);
        let home = user.rooms[0];
        user.identity = Some(identity.clone());
        user.state = State::Here;
        if user.sort == Sort::Clogger {
            self.scene.ledger.will_end(identity.number, ExpectedEnd::Clogged);
            let form = if self.random.percent(50) { Form::Events } else { Form::Frames };
            let ear = self.open(Who::ReadConn(index), ReadRate::None)?;
            self.user(index).ear = Some(ear);
            self.ask(
                ear,
                Reading::new(form, vec![Follow { room: home, since: Since::All }], Some(identity)),
            );
            self.act_in(index, 400, 600);
            return Ok(());
        }
        self.read_on(index)?;
        self.act_in(index, 50, 1_500);
        Ok(())
    }

    /// Begins to read, or goes on with a read that was ended.
    pub(super) fn read_on(&mut self, index: u32) -> Checked {
        let user = self.user(index);
        let home = user.rooms.first().copied().unwrap_or_default();
        let (identity, resumes) = (user.identity.clone(), user.resumes.take());
        let reading = if let Some(mut reading) = resumes {
            reading.identity = identity;
            for follow in &mut reading.follows {
                if let Since::Now(_) = follow.since {
                    follow.since = Since::Now(self.scene.ledger.frontier(follow.room));
                }
            }
            reading
        } else {
            let form = Form::ALL[self.random.below(Form::ALL.len() as u64) as usize];
            let now = Since::Now(self.scene.ledger.frontier(home));
            let since = self.random.weighted(&[(6, Since::All), (2, Since::Last(10)), (2, now)]);
            Reading::new(form, vec![Follow { room: home, since }], identity)
        };
        self.hear_with(index, reading)
    }

    fn hear_with(&mut self, index: u32, reading: Reading) -> Checked {
        let ear = self.open(Who::ReadConn(index), ReadRate::Fast)?;
        self.user(index).ear = Some(ear);
        self.ask(ear, reading);
        Ok(())
    }

    /// One who is here does something.
    fn live(&mut self, index: u32) -> Checked {
        let stays_on = self.phase != Phase::Clear;
        if self.user(index).sort == Sort::Clogger {
            self.clog(index, stays_on);
            return Ok(());
        }
        if self.phase == Phase::Pause || self.is_calling(index) {
            self.act_in(index, 50, 200);
            return Ok(());
        }
        let user = self.user(index);
        user.stays = user.stays.saturating_sub(1);
        let is_over = user.stays == 0 || !stays_on;
        match (user.sort, is_over) {
            (Sort::Resident, false) => self.do_something(index)?,
            (Sort::Resident, true) => return self.begin_to_leave(index),
            (_, true) => {
                self.be_gone(index);
                return Ok(());
            }
            (Sort::Sipper | Sort::Clogger, false) => {}
            (Sort::Passer, false) => {
                let (mouth, room) = (self.mouth(index)?, self.user(index).rooms[0]);
                // Often two in one go.
                for _ in 0..self.random.between(1, 2) {
                    let said = self.word(mouth, room, 0, 40);
                    self.write(mouth, said, None);
                }
            }
        }
        self.act_in(index, 100, 1_500);
        Ok(())
    }

    fn do_something(&mut self, index: u32) -> Checked {
        let Some(identity) = self.user(index).identity.clone() else { return Ok(()) };
        let mouth = self.mouth(index)?;
        let rooms = self.user(index).rooms.len() as u64;
        let at = self.random.below(rooms) as usize;
        let room = self.user(index).rooms[at];
        let length = self.random.weighted(&[(8, 30), (3, 120), (1, 800)]);
        match self.random.below(100) {
            0..60 => {
                let ear = self.user(index).ear;
                let socket = ear.filter(|&ear| self.links.get(ear).is_some_and(|it| it.1.speaks()));
                match socket {
                    Some(ear) if self.random.percent(60) => {
                        let said = self.word(ear, room, identity.number, length);
                        self.write_frame(ear, said, &identity);
                    }
                    _ => {
                        for _ in 0..self.random.weighted(&[(4, 1), (1, 3)]) {
                            let said = self.word(mouth, room, identity.number, length);
                            self.write(mouth, said, Some(&identity));
                        }
                    }
                }
            }
            60..68 => {
                // To wherever: often into somebody's inbox.
                let elsewhere = self.a_room();
                let said = self.word(mouth, elsewhere, identity.number, length);
                self.write(mouth, said, Some(&identity));
            }
            68..76 => {
                let said = self.word(mouth, room, identity.number, 8);
                self.introduce(mouth, said, Some(&identity));
            }
            76..84 => self.join(index, mouth, &identity),
            84..88 if self.user(index).rooms.len() > 1 => {
                self.user(index).rooms.remove(at);
                self.scene.ledger.will_leave(identity.number, room);
                self.goodbye_of(mouth, &identity, room);
            }
            88..94 => self.move_ear(index)?,
            94..97 => self.refusal(mouth, room, &identity),
            _ => self.members(mouth, room, What::Barrier),
        }
        Ok(())
    }

    /// Enters one more room, and reads there too where the read can take it in.
    fn join(&mut self, index: u32, mouth: Token, identity: &Identity) {
        let room = self.a_room();
        if self.user(index).rooms.len() > 3 {
            return;
        }
        if !self.user(index).rooms.contains(&room) {
            self.user(index).rooms.push(room);
        }
        let said = self.word(mouth, room, identity.number, 8);
        self.introduce(mouth, said, Some(identity));
        if let Some((_, owned)) = self.user(index).ear.and_then(|ear| self.links.get(ear)) {
            owned.take_in_next(Follow { room, since: Since::All });
        }
        self.count("joinings of one more room");
    }

    /// Polls with another link: the read that waits is answered, and nothing of it is lost.
    fn move_ear(&mut self, index: u32) -> Checked {
        let now = self.now;
        let Some(ear) = self.user(index).ear else { return Ok(()) };
        let Some((_, owned)) = self.links.get(ear) else { return Ok(()) };
        let Some(reading) = owned.reading.as_ref().filter(|reading| !reading.form.stays()) else {
            return Ok(());
        };
        let reading = reading.clone();
        owned.who = Who::FormerEar(index);
        owned.taken_over = Some(now);
        self.count("polls taken over");
        self.hear_with(index, reading)
    }

    fn clog(&mut self, index: u32, stays_on: bool) {
        let number = self.user(index).identity.as_ref().map_or(0, |identity| identity.number);
        // Its mouth, which carries nothing, is of no use.
        let mouth = self.user(index).mouth.take();
        self.drop_link(mouth);
        if self.scene.ledger.has_ended(number) {
            self.count("clients cut for what they did not take");
        } else if stays_on && !self.is_handing {
            // An upgrade is not over before all have what was sent to them.
            self.act_in(index, 400, 600);
            return;
        }
        let ear = self.user(index).ear.take();
        self.close(ear, Close::Reset);
        self.be_gone(index);
    }

    /// A read was refused; that is right only for one whose server is gone, or who was too slow.
    pub(super) fn read_refused(&mut self, token: Token, frame: &Frame) -> Checked {
        if frame.status == Some(410) {
            return self.read_gone(token);
        }
        Err(Fault::new(format!("a read was refused: {}", frame.lossy())))
    }

    pub(super) fn read_gone(&mut self, token: Token) -> Checked {
        let Some((_, owned)) = self.links.get(token) else { return Ok(()) };
        let number = owned.reading.as_ref().and_then(|it| it.identity.as_ref()).map(|it| it.number);
        let who = owned.who;
        match who {
            Who::ReadConn(index)
                if matches!(self.user(index).state, State::Leaving(LeaveMode::Goodbye, _)) =>
            {
                // His goodbye came first, over the other link.
                self.count("reads that came after their goodbye");
                let ear = self.user(index).ear.take();
                self.drop_link(ear);
                if !self.is_calling(index) {
                    self.be_gone(index);
                }
                Ok(())
            }
            Who::ReadConn(index) => self.is_ended(index, number),
            // The same of one who went on with another link before.
            Who::FormerEar(_)
                if number.is_some_and(|it| self.scene.ledger.alive_ms(it).is_none()) =>
            {
                self.count("reads that came after their goodbye");
                self.drop_link(Some(token));
                Ok(())
            }
            _ => Err(Fault::new("410 for nobody who reads")),
        }
    }

    /// A connection that was thought alive is no more.
    pub(super) fn is_ended(&mut self, index: u32, number: Option<u64>) -> Checked {
        let user = self.user(index);
        if user.is_stale {
            user.is_stale = false;
            user.identity = None;
            user.state = State::Arriving;
            self.count("connections that ended with their server");
            let (mouth, home) = (self.mouth(index)?, self.user(index).rooms[0]);
            let said = self.word(mouth, home, 0, 8);
            self.introduce(mouth, said, None);
            return Ok(());
        }
        if user.identity.as_ref().map(|identity| identity.number) != number {
            return Ok(());
        }
        let what = format!("connection {number:?} is refused as ended, and nobody meant it to end");
        self.scene.ledger.possible_violation(Fault::new(what));
        self.be_gone(index);
        Ok(())
    }

    /// Whether a user's read may be ended by the server.
    pub(super) fn may_lose_ear(&mut self, index: u32, owned: &Owned) -> bool {
        let user = self.user(index);
        user.ear = None;
        let is_stream = owned.reading.as_ref().is_some_and(|reading| reading.form.stays());
        match user.state {
            // A stream ends with its connection.
            State::Leaving(LeaveMode::Goodbye, _) if is_stream => {
                if !self.is_calling(index) {
                    self.be_gone(index);
                }
                true
            }
            _ => false,
        }
    }

    /// A user is gone, for a while.
    pub(super) fn be_gone(&mut self, index: u32) {
        let user = self.user(index);
        user.state = State::Away;
        user.identity = None;
        user.resumes = None;
        let (mouth, ear) = (user.mouth.take(), user.ear.take());
        self.drop_link(mouth);
        self.drop_link(ear);
        self.act_in(index, 20, 800);
    }

    /// One who lost the server finds the next one.
    fn come_back(&mut self, index: u32) -> Checked {
        if self.phase == Phase::Clear {
            self.be_gone(index);
            return Ok(());
        }
        let Some(identity) = self.user(index).identity.clone() else {
            self.be_gone(index);
            return Ok(());
        };
        // He does not know yet that he has to introduce himself again.
        self.user(index).state = State::Here;
        self.user(index).rooms.truncate(1);
        let (mouth, home) = (self.mouth(index)?, self.user(index).rooms[0]);
        let said = self.word(mouth, home, identity.number, 10);
        self.write(mouth, said, Some(&identity));
        Ok(())
    }
}

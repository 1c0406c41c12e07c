//! Acts of the users, chosen at random.

use support::fault::{Checked, Fault};
use support::reader::Since;
use support::session::Session;

use crate::client::{Owner, What};
use crate::link::{Close, ReadRate, Token};
use crate::read::{Form, Identity, Read};
use crate::user::{Due, LeaveMode, Phase, Sort, State};
use crate::world::World;

impl World {
    pub(crate) fn act_in(&mut self, index: u32, least_ms: u64, most_ms: u64) {
        let after_ms = self.random.between(least_ms, most_ms);
        let user = self.user(index);
        user.timer += 1;
        let due = Due::User(index, user.timer);
        self.set_timer(after_ms, due);
    }

    pub(crate) fn act(&mut self, index: u32) -> Checked {
        let state = self.user(index).state;
        match state {
            State::Away if self.phase == Phase::Churn => self.arrive(index)?,
            State::Away => self.act_in(index, 100, 400),
            State::Arriving => {}
            State::Here => {
                let user = self.user(index);
                if user.sort == Sort::Resident && user.resumes.is_some() {
                    self.read_on(index)?;
                }
                self.live(index)?;
            }
            State::Leaving(mode, barriers) => self.leave(index, mode, barriers)?,
            State::Adrift => self.come_back(index)?,
        }
        Ok(())
    }

    pub(crate) fn write_conn(&mut self, index: u32) -> Checked<Token> {
        if let Some(token) = self.user(index).write_conn {
            return Ok(token);
        }
        let token = self.open(Owner::WriteConn(index), ReadRate::Fast)?;
        self.user(index).write_conn = Some(token);
        Ok(token)
    }

    pub(crate) fn is_calling(&mut self, index: u32) -> bool {
        let user = self.user(index);
        let tokens = [user.write_conn, user.read_conn];
        let mut tokens = tokens.into_iter().flatten();
        tokens.any(|token| self.links.client(token).is_some_and(|it| !it.calls.is_empty()))
    }

    fn arrive(&mut self, index: u32) -> Checked {
        let sort = self.random.weighted(&[
            (Sort::Resident, 80),
            (Sort::Passer, 12),
            (Sort::SlowReader, 5),
            (Sort::Clogger, 3),
        ]);
        let is_clogger = sort == Sort::Clogger;
        let home = if is_clogger { self.random.index(self.large) } else { self.any_channel() };
        let acts = match sort {
            Sort::SlowReader => self.random.between(20, 60),
            _ => self.random.between(2, 12),
        };
        let user = self.user(index);
        (user.sort, user.channels, user.acts_left, user.identity) = (sort, vec![home], acts, None);
        user.state = State::Here;
        self.count("arrivals");
        match sort {
            Sort::Resident | Sort::Clogger => self.arrive_by_name(index)?,
            Sort::Passer => self.act_in(index, 0, 300),
            Sort::SlowReader => {
                let since = self.random.pick(&[Since::All, Since::Last(5)]);
                let read = Read::new(Form::LongPoll, self.subscribe(home, since), None);
                self.read_with(index, ReadRate::Slow, read)?;
                self.act_in(index, 100, 300);
            }
        }
        Ok(())
    }

    /// Introduces a user who has no session yet.
    fn arrive_by_name(&mut self, index: u32) -> Checked {
        self.user(index).state = State::Arriving;
        let (token, home) = (self.write_conn(index)?, self.user(index).channels[0]);
        let text = self.text(token, home, 0, 8);
        self.introduce(token, text, None);
        Ok(())
    }

    /// The introduction of a user was answered.
    pub(crate) fn became(&mut self, index: u32, identity: Identity) -> Checked {
        let number = identity.number;
        let user = self.user(index);
        let (home, sort) = (user.channels[0], user.sort);
        (user.identity, user.state) = (Some(identity.clone()), State::Here);
        if sort != Sort::Clogger {
            self.read_on(index)?;
            self.act_in(index, 50, 1_500);
            return Ok(());
        }
        self.plan(number, Session::clog);
        let form = self.random.pick(&[Form::Events, Form::WebSocket]);
        let read = Read::new(form, self.subscribe(home, Since::All), Some(identity));
        self.read_with(index, ReadRate::None, read)?;
        self.act_in(index, 400, 600);
        Ok(())
    }

    /// Begins to read, or continues a read that was ended.
    pub(crate) fn read_on(&mut self, index: u32) -> Checked {
        let user = self.user(index);
        let home = user.channels.first().copied().unwrap_or_default();
        let (identity, resumes) = (user.identity.clone(), user.resumes.take());
        let read = if let Some(mut read) = resumes {
            read.identity = identity;
            for its in &mut read.reader.subscriptions {
                if let Since::Next(least) = &mut its.since {
                    *least = self.ledger.channels[its.channel].judged + 1;
                }
            }
            read
        } else {
            let form = self.random.pick(&Form::ALL);
            let mut first = self.subscribe_now(home);
            first.since =
                self.random.weighted(&[(Since::All, 6), (Since::Last(10), 2), (first.since, 2)]);
            Read::new(form, first, identity)
        };
        self.read_with(index, ReadRate::Fast, read)
    }

    fn read_with(&mut self, index: u32, rate: ReadRate, read: Read) -> Checked {
        let token = self.open(Owner::ReadConn(index), rate)?;
        self.user(index).read_conn = Some(token);
        if rate == ReadRate::Slow {
            self.slow_readers.push(token);
        }
        self.ask(token, read);
        Ok(())
    }

    /// A user who is here does something.
    fn live(&mut self, index: u32) -> Checked {
        let stays = self.phase != Phase::Clear;
        if self.user(index).sort == Sort::Clogger {
            self.stop_reading(index, stays);
            return Ok(());
        }
        if self.phase == Phase::Pause || self.is_calling(index) {
            self.act_in(index, 50, 200);
            return Ok(());
        }
        let user = self.user(index);
        user.acts_left = user.acts_left.saturating_sub(1);
        let is_over = user.acts_left == 0 || !stays;
        match (user.sort, is_over) {
            (Sort::Resident, false) => self.do_something(index)?,
            (Sort::Resident, true) => return self.begin_to_leave(index),
            (_, true) => {
                self.be_gone(index);
                return Ok(());
            }
            (Sort::SlowReader | Sort::Clogger, false) => {}
            (Sort::Passer, false) => {
                let (token, channel) = (self.write_conn(index)?, self.user(index).channels[0]);
                // Often two at once.
                for _ in 0..self.random.between(1, 2) {
                    let text = self.text(token, channel, 0, 40);
                    self.write(token, text, None);
                }
            }
        }
        self.act_in(index, 100, 1_500);
        Ok(())
    }

    fn do_something(&mut self, index: u32) -> Checked {
        let Some(identity) = self.user(index).identity.clone() else { return Ok(()) };
        let token = self.write_conn(index)?;
        let at = self.random.index(self.users[index as usize].channels.len());
        let channel = self.user(index).channels[at];
        let length = self.random.weighted(&[(30, 8), (120, 3), (800, 1)]);
        match self.random.below(100) {
            0..60 => self.talk(index, token, &identity, (channel, length)),
            60..68 => {
                // To any channel: often into another user's inbox.
                let elsewhere = self.any_channel();
                let text = self.text(token, elsewhere, identity.number, length);
                self.write(token, text, Some(&identity));
            }
            68..76 => {
                let text = self.text(token, channel, identity.number, 8);
                self.introduce(token, text, Some(&identity));
            }
            76..84 => self.join(index, token, &identity),
            84..88 if self.user(index).channels.len() > 1 => {
                self.user(index).channels.remove(at);
                self.plan(identity.number, |session| session.leaves.push(channel));
                self.goodbye_of(token, &identity, channel);
            }
            88..94 => self.replace_read_conn(index)?,
            94..97 => self.refusal(token, channel, &identity)?,
            _ => self.members(token, channel, What::Barrier),
        }
        Ok(())
    }

    /// Writes: in a frame of the WebSocket with which the user reads, or one or several requests.
    fn talk(&mut self, index: u32, token: Token, who: &Identity, (channel, length): (usize, u32)) {
        let reads = self.user(index).read_conn;
        let is_socket = |token: &Token| self.links.client(*token).is_some_and(|it| it.is_socket());
        match reads.filter(is_socket) {
            Some(socket) if self.random.percent(60) => {
                let text = self.text(socket, channel, who.number, length);
                self.write_frame(socket, text, who);
            }
            _ => {
                for _ in 0..self.random.weighted(&[(1, 4), (3, 1)]) {
                    let text = self.text(token, channel, who.number, length);
                    self.write(token, text, Some(who));
                }
            }
        }
    }

    /// Joins one more channel, and reads there too if the read can take it in.
    fn join(&mut self, index: u32, token: Token, identity: &Identity) {
        let channel = self.any_channel();
        if self.user(index).channels.len() > 3 {
            return;
        }
        if !self.user(index).channels.contains(&channel) {
            self.user(index).channels.push(channel);
        }
        let text = self.text(token, channel, identity.number, 8);
        self.introduce(token, text, Some(identity));
        let more = self.subscribe(channel, Since::All);
        if let Some(token) = self.user(index).read_conn
            && let Some(client) = self.links.client(token)
        {
            client.follow_next(more);
        }
        self.count("joins of one more channel");
    }

    /// Polls with another client: the pending read is answered, and nothing of it is lost.
    fn replace_read_conn(&mut self, index: u32) -> Checked {
        let Some(token) = self.user(index).read_conn else { return Ok(()) };
        let Some(client) = self.links.client(token) else { return Ok(()) };
        let read = client.read.as_ref().filter(|read| !read.form.is_stream()).cloned();
        let Some(read) = read else { return Ok(()) };
        client.owner = Owner::ReplacedConn(index);
        client.replaced_at = Some(self.clock.now);
        self.count("long polls taken over");
        self.read_with(index, ReadRate::Fast, read)
    }

    /// A clogger waits to be closed.
    fn stop_reading(&mut self, index: u32, stays: bool) {
        let number = self.user(index).number();
        // The other client, which carries nothing, is of no use.
        let token = self.user(index).write_conn.take();
        self.drop_link(token);
        if self.ledger.sessions.get(&number).is_some_and(|session| session.ended.is_some()) {
            self.count("clients closed for what they did not take");
        } else if stays && !self.takeover.is_under_way {
            // An upgrade is not over before all clients have taken what was sent to them.
            self.act_in(index, 400, 600);
            return;
        }
        let token = self.user(index).read_conn.take();
        self.close(token, Close::Reset);
        self.be_gone(index);
    }

    pub(crate) fn read_gone(&mut self, token: Token) -> Checked {
        let Some(client) = self.links.client(token) else { return Ok(()) };
        let identity = client.read.as_ref().and_then(|read| read.identity.as_ref());
        let number = identity.map(|identity| identity.number);
        let has_ended = |world: &Self| {
            number.is_some_and(|it| !world.ledger.sessions.get(&it).is_some_and(|its| its.lives))
        };
        let owner = client.owner;
        match owner {
            Owner::ReadConn(index)
                if matches!(self.user(index).state, State::Leaving(LeaveMode::Goodbye, _)) =>
            {
                // The goodbye came first, over the other client.
                self.count("reads that came after their goodbye");
                self.be_gone_unless_calling(index);
            }
            Owner::ReadConn(index) => self.on_session_ended(index, number)?,
            // The goodbye came first, and another client took the read over.
            Owner::ReplacedConn(_) if has_ended(self) => {
                self.count("reads that came after their goodbye");
                self.drop_link(Some(token));
            }
            // It timed out: a node that was paused reads of it when the node continues.
            Owner::ReplacedConn(_) => {
                self.note_unmeant_end(number);
                self.drop_link(Some(token));
            }
            _ => return Err(Fault::new("410 for a client that reads without a session")),
        }
        Ok(())
    }

    /// A session that should live has ended.
    pub(crate) fn on_session_ended(&mut self, index: u32, number: Option<u64>) -> Checked {
        let user = self.user(index);
        if user.is_stale {
            (user.is_stale, user.identity) = (false, None);
            self.count("sessions that ended with their server");
            return self.arrive_by_name(index);
        }
        if user.identity.as_ref().map(|identity| identity.number) != number {
            return Ok(());
        }
        self.note_unmeant_end(number);
        self.be_gone(index);
        Ok(())
    }

    fn note_unmeant_end(&mut self, number: Option<u64>) {
        self.ledger.note_possible_violation(format!(
            "session {number:?} has ended, and no client meant it to end"
        ));
    }

    pub(crate) fn be_gone(&mut self, index: u32) {
        let user = self.user(index);
        (user.state, user.identity, user.resumes) = (State::Away, None, None);
        user.is_stale = false;
        let (one, other) = (user.write_conn.take(), user.read_conn.take());
        self.drop_link(one);
        self.drop_link(other);
        self.act_in(index, 20, 800);
    }

    /// A user whose session has ended reads no more.
    pub(crate) fn be_gone_unless_calling(&mut self, index: u32) {
        let (number, write_conn) = (self.user(index).number(), self.user(index).write_conn);
        if write_conn.is_some_and(|token| self.links.get(token).is_none()) {
            // The server was ended before it answered the goodbye, or just after that.
            self.plan(number, Session::lose_track);
        }
        let token = self.user(index).read_conn.take();
        self.drop_link(token);
        if !self.is_calling(index) {
            self.be_gone(index);
        }
    }

    /// A user who lost the server finds the next one.
    fn come_back(&mut self, index: u32) -> Checked {
        let identity = self.user(index).identity.clone().filter(|_| self.phase != Phase::Clear);
        let Some(identity) = identity else {
            self.be_gone(index);
            return Ok(());
        };
        // He does not know yet that he has to introduce himself again.
        let user = self.user(index);
        user.state = State::Here;
        user.channels.truncate(1);
        let (token, home) = (self.write_conn(index)?, self.user(index).channels[0]);
        let text = self.text(token, home, identity.number, 10);
        self.write(token, text, Some(&identity));
        Ok(())
    }
}

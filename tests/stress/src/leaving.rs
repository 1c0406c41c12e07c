//! Users who leave, and the effects of responses on them.

use std::mem;
use std::time::Duration;

use support::fault::Checked;
use support::session::Session;
use support::text::Text;

use crate::client::{BriefClient, Owner, What};
use crate::link::{Close, Token};
use crate::read::Read;
use crate::server::POLL_TIMEOUT;
use crate::user::{LEAVE_MODES, LeaveMode, State};
use crate::world::World;

/// A long poll that another one took over is answered at once: this is longer on any machine.
const TAKEOVER_MAX: Duration = Duration::from_secs(1);

/// The calls before a close may go to another node of a cluster than the read: they do not prove
/// that it is pending. Its node may wait until it holds the session, or may not have read the
/// request. A server closes a client that was reset without reading its request (a stopped node
/// shows it), so a reset is silence then. An orderly close comes after the request: the read is
/// begun, and is closed unless a message has come until then. This is longer on any machine.
const BEGIN_MAX: Duration = Duration::from_millis(500);

impl World {
    /// Tells the ledger how a session is to end.
    pub(crate) fn plan(&mut self, session: u64, plan: impl FnOnce(&mut Session)) {
        if let Some(session) = self.ledger.sessions.get_mut(&session) {
            plan(session);
        }
    }

    pub(crate) fn begin_to_leave(&mut self, index: u32) -> Checked {
        let mut mode = self.random.weighted(&LEAVE_MODES);
        let reads = self.user(index).read_conn;
        let read = reads.and_then(|token| self.links.client(token)).and_then(|it| it.read.as_ref());
        let is_poll = read.is_some_and(|read| !read.form.is_stream());
        let home = self.users[index as usize].channels[0];
        let reads_at_home = read.is_none_or(|read| read.follows(home));
        if mode == LeaveMode::Silence && !is_poll {
            // A stream keeps its session alive.
            mode = LeaveMode::Close;
        }
        self.user(index).state = State::Leaving(mode, 0);
        let Some(identity) = self.user(index).identity.clone() else {
            self.be_gone(index);
            return Ok(());
        };
        let token = self.write_conn(index)?;
        match mode {
            LeaveMode::Goodbye => {
                // A last text, and the goodbye after it at once.
                let text = self.text(token, home, identity.number, 20);
                self.write(token, text, Some(&identity));
                let every = Text::EVERY_CHANNEL as usize;
                let has_text = self.random.percent(50);
                let last = has_text.then(|| self.text(token, every, identity.number, 5));
                self.plan(identity.number, Session::leave);
                self.goodbye(token, &identity, last);
            }
            LeaveMode::ChannelByChannel => {
                for channel in mem::take(&mut self.user(index).channels) {
                    self.plan(identity.number, |session| session.leaves.push(channel));
                    self.goodbye_of(token, &identity, channel);
                }
            }
            LeaveMode::Close | LeaveMode::Reset | LeaveMode::HalfClose => {
                self.begin_barrier(index, mode)?;
            }
            LeaveMode::Silence => {
                // So that the read is answered, and no other begins.
                let text = self.text(token, home, identity.number, 20);
                self.write(token, text, Some(&identity));
                if !reads_at_home {
                    // He does not read where he writes: the read ends when its time is over.
                    self.count("silences that begin with the end of a long poll");
                }
            }
        }
        Ok(())
    }

    /// Makes sure that a read is pending: two calls that were sent after it are answered.
    /// The server does first what comes first, except that a new client waits one turn.
    pub(crate) fn begin_barrier(&mut self, index: u32, mode: LeaveMode) -> Checked {
        self.user(index).state = State::Leaving(mode, 2);
        let (token, channel) = (self.write_conn(index)?, self.user(index).channels[0]);
        self.members(token, channel, What::Barrier);
        Ok(())
    }

    /// A user who leaves does the next step.
    pub(crate) fn leave(&mut self, index: u32, mode: LeaveMode, barriers: u8) -> Checked {
        if self.is_calling(index) || barriers > 0 {
            return Ok(());
        }
        let (number, read_conn) = (self.user(index).number(), self.user(index).read_conn);
        match (mode, read_conn) {
            (_, None) => {}
            // The pending read is answered at the end of the session.
            (LeaveMode::Goodbye | LeaveMode::Silence, _) => return Ok(()),
            // A goodbye of before, to a channel that the user no longer counts, may be lost.
            (LeaveMode::ChannelByChannel, _) => self.plan(number, Session::depart),
            (LeaveMode::Close | LeaveMode::Reset | LeaveMode::HalfClose, Some(token)) => {
                if self.look(token)? || self.is_about_to_be_answered(token) {
                    return self.begin_barrier(index, mode);
                }
                self.close_read(index, token, mode);
            }
        }
        self.be_gone(index);
        Ok(())
    }

    fn close_read(&mut self, index: u32, token: Token, mode: LeaveMode) {
        let (_, at_ms) = self.clock.update();
        let number = self.user(index).number();
        // The process that has the read may not have the session. A node in trouble may not have
        // begun a read: then its close is silence.
        let is_unsure = self.takeover.is_under_way || self.may_be_in_trouble();
        let (now, is_clustered) = (self.clock.now, self.cluster.is_some());
        let Some((link, client)) = self.links.get(token) else { return };
        let may_wait = is_clustered && now - client.asked.0 < BEGIN_MAX;
        let is_unread = may_wait && mode == LeaveMode::Reset;
        let begun_ms = at_ms + if may_wait { BEGIN_MAX.as_millis() as u64 } else { 0 };
        // In its handshake, the client has not sent the read.
        let is_unsure = is_unsure || is_unread || link.is_handshaking();
        let cursors = client.read.as_ref().map(Read::cursors).unwrap_or_default();
        if mode == LeaveMode::HalfClose {
            link.half_close();
            client.owner = Owner::Brief(BriefClient::HalfClosed);
        }
        self.plan(number, |session| {
            session.close(begun_ms, cursors);
            if is_unsure {
                session.unsettle();
            }
        });
        let token = self.user(index).read_conn.take().filter(|_| mode != LeaveMode::HalfClose);
        let how = if mode == LeaveMode::Reset { Close::Reset } else { Close::Orderly };
        self.close(token, how);
    }

    /// Says whether the time of a long poll is nearly over.
    fn is_about_to_be_answered(&mut self, token: Token) -> bool {
        let now = self.clock.now;
        self.links.client(token).is_some_and(|client| {
            !client.is_stream() && now - client.asked.0 > POLL_TIMEOUT.mul_f32(0.7)
        })
    }

    pub(crate) fn on_called(&mut self, token: Token, owner: Owner, what: &What) -> Checked {
        let Owner::WriteConn(index) = owner else { return Ok(()) };
        let user = self.user(index);
        if user.write_conn != Some(token) {
            return Ok(());
        }
        match (user.state, what) {
            (State::Leaving(mode, barriers @ 2..), What::Barrier) => {
                user.state = State::Leaving(mode, barriers - 1);
                let channel = user.channels[0];
                self.members(token, channel, What::Barrier);
            }
            (State::Leaving(mode, _), What::Barrier) => {
                user.state = State::Leaving(mode, 0);
                self.leave(index, mode, 0)?;
            }
            (State::Leaving(mode @ LeaveMode::ChannelByChannel, _), _) => {
                self.leave(index, mode, 0)?;
            }
            (State::Leaving(LeaveMode::Goodbye, _), What::Goodbye(_))
                if user.read_conn.is_none() =>
            {
                self.be_gone(index);
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn read_answered(&mut self, token: Token) {
        let Some(client) = self.links.client(token) else { return };
        let index = match client.owner {
            Owner::ReadConn(index) => index,
            Owner::ReplacedConn(_) => {
                let (since, now) = (client.replaced_at, self.clock.now);
                let is_late = |at| now - at > TAKEOVER_MAX && !self.takeover.was_since(at);
                if since.is_some_and(is_late) {
                    self.ledger.note_possible_violation(
                        "a long poll that was taken over was not answered at once",
                    );
                }
                self.drop_link(Some(token));
                return;
            }
            Owner::Observer(_) => return self.ask_again(token),
            Owner::Auditor => {
                self.count("channels read again after a crash");
                return self.drop_link(Some(token));
            }
            Owner::Brief(_) | Owner::WriteConn(_) | Owner::Harness => return,
        };
        let state = self.user(index).state;
        match state {
            State::Leaving(LeaveMode::Goodbye, _) => self.be_gone_unless_calling(index),
            // The response to the call may come after the read that it woke.
            State::Leaving(LeaveMode::Silence, _) if !self.is_calling(index) => {
                // Nothing is pending: closing ends nothing.
                let number = self.user(index).number();
                self.plan(number, Session::fall_silent);
                self.be_gone(index);
            }
            State::Leaving(
                mode @ (LeaveMode::Close | LeaveMode::Reset | LeaveMode::HalfClose),
                1..,
            ) => {
                self.ask_again(token);
                self.user(index).state = State::Leaving(mode, 3);
            }
            _ => self.ask_again(token),
        }
    }

    fn ask_again(&mut self, token: Token) {
        let Some(client) = self.links.client(token) else { return };
        let Some(mut read) = client.read.take() else { return };
        read.reader.subscriptions.append(&mut client.next);
        self.ask(token, read);
    }
}

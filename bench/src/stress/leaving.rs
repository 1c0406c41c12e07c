//! Users on their way out, and what their answers set going.

use std::mem;

use super::TAKEOVER_MAX;
use super::call::What;
use super::connection::ExpectedEnd;
use super::ledger::{Checked, EVERY_ROOM, Fault};
use super::link::{Close, Token};
use super::reading::Reading;
use super::stray::BriefClient;
use super::user::State;
use super::world::{Who, World};

/// How one leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LeaveMode {
    /// `/goodbye`
    Goodbye,
    /// `/goodbye` in each room.
    RoomByRoom,
    /// Closes the waiting read.
    Close,
    Reset,
    /// Sends nothing more, and goes on reading.
    HalfClose,
    /// Calls no more.
    Silence,
}

const LEAVE_MODES: [(u64, LeaveMode); 6] = [
    (25, LeaveMode::Goodbye),
    (10, LeaveMode::RoomByRoom),
    (20, LeaveMode::Close),
    (15, LeaveMode::Reset),
    (15, LeaveMode::HalfClose),
    (15, LeaveMode::Silence),
];

impl World {
    pub(super) fn begin_to_leave(&mut self, index: u32) -> Checked {
        let mut way = self.random.weighted(&LEAVE_MODES);
        let ear = self.user(index).ear;
        let stays = ear
            .and_then(|ear| self.links.get(ear))
            .and_then(|(_, it)| it.reading.as_ref())
            .map(|it| it.form.stays());
        if way == LeaveMode::Silence && stays != Some(false) {
            // Whoever follows a stream is there.
            way = LeaveMode::Close;
        }
        self.user(index).state = State::Leaving(way, 0);
        let Some(identity) = self.user(index).identity.clone() else {
            self.be_gone(index);
            return Ok(());
        };
        let mouth = self.mouth(index)?;
        let home = self.user(index).rooms[0];
        match way {
            LeaveMode::Goodbye => {
                // A last word, and the goodbye behind it in one go.
                let said = self.word(mouth, home, identity.number, 20);
                self.write(mouth, said, Some(&identity));
                let last = self
                    .random
                    .percent(50)
                    .then(|| self.word(mouth, EVERY_ROOM, identity.number, 5));
                self.scene.ledger.will_end(identity.number, ExpectedEnd::Left);
                self.goodbye(mouth, &identity, last);
            }
            LeaveMode::RoomByRoom => {
                for room in mem::take(&mut self.user(index).rooms) {
                    self.scene.ledger.will_leave(identity.number, room);
                    self.goodbye_of(mouth, &identity, room);
                }
            }
            LeaveMode::Close | LeaveMode::Reset | LeaveMode::HalfClose => {
                self.begin_barrier(index, way)?;
            }
            LeaveMode::Silence => {
                // So that the read is answered, and no other begins.
                let said = self.word(mouth, home, identity.number, 20);
                self.write(mouth, said, Some(&identity));
                if let Some((_, owned)) = ear.and_then(|ear| self.links.get(ear))
                    && let Some(reading) = &owned.reading
                    && !reading.follows.iter().any(|follow| follow.room == home)
                {
                    // He does not read where he speaks: the read ends by its own time.
                    self.count("silences that begin with the end of a wait");
                }
            }
        }
        Ok(())
    }

    /// A read waits for sure once two calls were answered that were sent after it: what is sent to the server first, it
    /// does first, but that a new client's turn comes one turn later.
    pub(super) fn begin_barrier(&mut self, index: u32, way: LeaveMode) -> Checked {
        self.user(index).state = State::Leaving(way, 2);
        let (mouth, room) = (self.mouth(index)?, self.user(index).rooms[0]);
        self.members(mouth, room, What::Barrier);
        Ok(())
    }

    /// One who leaves does the next step.
    pub(super) fn leave(&mut self, index: u32, way: LeaveMode, barriers: u8) -> Checked {
        if self.is_calling(index) || barriers > 0 {
            return Ok(());
        }
        let user = self.user(index);
        let (ear, identity) = (user.ear, user.identity.clone());
        let (Some(identity), Some(ear)) = (identity, ear) else {
            self.be_gone(index);
            return Ok(());
        };
        let number = identity.number;
        let alive_ms = self.scene.ledger.alive_ms(number).unwrap_or(0);
        match way {
            // The read that waits is answered at the end of the connection.
            LeaveMode::Goodbye | LeaveMode::Silence => return Ok(()),
            LeaveMode::RoomByRoom => {
                self.scene.ledger.will_end(number, ExpectedEnd::Silent { alive_ms });
            }
            LeaveMode::Close | LeaveMode::Reset | LeaveMode::HalfClose => {
                if self.look(ear)? || self.is_about_to_be_answered(ear) {
                    return self.begin_barrier(index, way);
                }
                let at_ms = self.exact_ms();
                let Some((link, owned)) = self.links.get(ear) else { return Ok(()) };
                let cursors = owned.reading.as_ref().map(Reading::cursors).unwrap_or_default();
                let fate = if self.is_handing {
                    // The process that has the read may not have the connection.
                    ExpectedEnd::Unsure { alive_ms }
                } else {
                    ExpectedEnd::Closed { at_ms, cursors, alive_ms }
                };
                self.scene.ledger.will_end(number, fate);
                if way == LeaveMode::HalfClose {
                    link.half_close();
                    owned.who = Who::Brief(BriefClient::HalfClosed);
                    self.user(index).ear = None;
                } else {
                    self.user(index).ear = None;
                    self.close(
                        Some(ear),
                        if way == LeaveMode::Reset { Close::Reset } else { Close::Orderly },
                    );
                }
            }
        }
        self.be_gone(index);
        Ok(())
    }

    /// Whether the time that a poll may wait is nearly over.
    fn is_about_to_be_answered(&mut self, ear: Token) -> bool {
        let now = self.now;
        self.links.get(ear).is_some_and(|(_, owned)| {
            let stays = owned.reading.as_ref().is_some_and(|reading| reading.form.stays());
            !stays && now - owned.asked.0 > super::POLL_TIMEOUT.mul_f32(0.7)
        })
    }

    /// A call of a user was answered well.
    pub(super) fn spoke(&mut self, token: Token, who: Who, what: &What) -> Checked {
        let Who::Mouth(index) = who else { return Ok(()) };
        if self.user(index).mouth != Some(token) {
            return Ok(());
        }
        match (self.user(index).state, what) {
            (State::Leaving(way, barriers @ 2..), What::Barrier) => {
                self.user(index).state = State::Leaving(way, barriers - 1);
                let room = self.user(index).rooms[0];
                self.members(token, room, What::Barrier);
                Ok(())
            }
            (State::Leaving(way, _), What::Barrier) => {
                self.user(index).state = State::Leaving(way, 0);
                self.leave(index, way, 0)
            }
            (State::Leaving(way @ LeaveMode::RoomByRoom, _), _) => self.leave(index, way, 0),
            (State::Leaving(LeaveMode::Goodbye, _), What::Goodbye)
                if self.user(index).ear.is_none() =>
            {
                self.be_gone(index);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A poll was answered.
    pub(super) fn read_answered(&mut self, token: Token) {
        let now = self.now;
        let Some((_, owned)) = self.links.get(token) else { return };
        let index = match owned.who {
            Who::ReadConn(index) => index,
            Who::FormerEar(_) => {
                let since = owned.taken_over;
                if since.is_some_and(|at| now - at > TAKEOVER_MAX && !self.was_handed(at)) {
                    self.scene.ledger.possible_violation(Fault::new(
                        "a poll that another took over was not answered at once",
                    ));
                }
                self.drop_link(Some(token));
                return;
            }
            Who::Observer(_) => {
                self.ask_again(token);
                return;
            }
            Who::Brief(_) | Who::Mouth(_) | Who::House => return,
        };
        match self.user(index).state {
            State::Leaving(LeaveMode::Goodbye, _) => {
                let ear = self.user(index).ear.take();
                self.drop_link(ear);
                if !self.is_calling(index) {
                    self.be_gone(index);
                }
            }
            State::Leaving(LeaveMode::Silence, _) => {
                let number =
                    self.user(index).identity.as_ref().map_or(0, |identity| identity.number);
                if self.is_calling(index) {
                    // The call may be answered after the read that it woke.
                    self.ask_again(token);
                    return;
                }
                let alive_ms = self.scene.ledger.alive_ms(number).unwrap_or(0);
                self.scene.ledger.will_end(number, ExpectedEnd::Silent { alive_ms });
                // Nothing waits: closing ends nothing.
                let ear = self.user(index).ear.take();
                self.drop_link(ear);
                self.be_gone(index);
            }
            State::Leaving(
                way @ (LeaveMode::Close | LeaveMode::Reset | LeaveMode::HalfClose),
                barriers,
            ) => {
                self.ask_again(token);
                if barriers > 0 {
                    self.user(index).state = State::Leaving(way, 3);
                }
            }
            _ => self.ask_again(token),
        }
    }

    fn ask_again(&mut self, token: Token) {
        let Some((_, owned)) = self.links.get(token) else { return };
        let Some(mut reading) = owned.reading.take() else { return };
        reading.follows.append(&mut owned.next_follows());
        self.ask(token, reading);
    }
}

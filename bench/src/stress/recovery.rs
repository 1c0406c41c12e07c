//! How everybody finds back to a server that knows all that was, when their links broke.

use std::mem;

use super::connection::ExpectedEnd;
use super::leaving::LeaveMode;
use super::ledger::Checked;
use super::link::Close;
use super::reading::Reading;
use super::user::{Sort, State};
use super::world::{Who, World};

impl World {
    /// Drops all links, but keeps what their owners read.
    pub(super) fn lose_all_links(&mut self) {
        self.house = None;
        self.sippers.clear();
        for token in self.links.tokens() {
            let Some((link, owned)) = self.links.remove(token) else { continue };
            link.close(Close::Orderly);
            self.last_readings.extend(owned.reading.map(|reading| (owned.who, reading)));
        }
    }

    /// What the users read is kept with them; gives what the observers read.
    pub(super) fn keep_readings(&mut self) -> Vec<Option<Reading>> {
        let mut observed = vec![None; self.observers.len()];
        for (who, reading) in mem::take(&mut self.last_readings) {
            match who {
                Who::Observer(room) => observed[room as usize] = Some(reading),
                Who::ReadConn(user) => self.users[user as usize].resumes = Some(reading),
                _ => {}
            }
        }
        observed
    }

    /// Everybody who lost a link goes on with another.
    pub(super) fn find_all_back(&mut self) -> Checked {
        for (room, reading) in (0..).zip(self.keep_readings()) {
            let observer = self.observers[room as usize];
            if observer.is_none_or(|token| self.links.get(token).is_none()) {
                self.observe(room, reading)?;
            }
        }
        for index in 0..self.users.len() as u32 {
            self.find_back(index)?;
        }
        self.exact_ms();
        self.cut_at = Some(self.now);
        self.scene.ledger.unsettle_closings();
        Ok(())
    }

    /// One who may have lost a link goes on, with what he was at. A call that was not answered may have been heard or not.
    pub(super) fn find_back(&mut self, index: u32) -> Checked {
        let user = &mut self.users[index as usize];
        let lost_ear = user.ear.take_if(|ear| self.links.get(*ear).is_none()).is_some();
        let lost_mouth = user.mouth.take_if(|mouth| self.links.get(*mouth).is_none()).is_some();
        let (state, sort) = (user.state, user.sort);
        if !lost_ear && !lost_mouth {
            return Ok(());
        }
        let number = user.identity.as_ref().map_or(0, |identity| identity.number);
        match state {
            State::Arriving => self.be_gone(index),
            State::Here if lost_ear && sort == Sort::Sipper => self.be_gone(index),
            // In his own time, but before his connection's is over.
            State::Here if lost_ear && sort == Sort::Resident => self.act_in(index, 0, 800),
            State::Leaving(LeaveMode::Goodbye | LeaveMode::RoomByRoom, _) if lost_mouth => {
                self.scene.ledger.unsettle(number);
                self.be_gone(index);
            }
            // His stream ended before his goodbye, or with it.
            State::Leaving(LeaveMode::Goodbye, _) => {
                if !self.is_calling(index) {
                    self.be_gone(index);
                }
            }
            State::Leaving(LeaveMode::RoomByRoom, _) => self.read_on(index)?,
            State::Leaving(LeaveMode::Silence, _) if lost_ear => {
                let alive_ms = self.scene.ledger.alive_ms(number).unwrap_or(0);
                self.scene.ledger.will_end(number, ExpectedEnd::Silent { alive_ms });
                self.be_gone(index);
            }
            State::Away | State::Adrift | State::Here | State::Leaving(LeaveMode::Silence, _) => {}
            State::Leaving(
                way @ (LeaveMode::Close | LeaveMode::Reset | LeaveMode::HalfClose),
                _,
            ) => {
                if lost_ear {
                    self.read_on(index)?;
                }
                self.begin_barrier(index, way)?;
            }
        }
        Ok(())
    }
}

//! Users and observers whose links broke, and the server that still knows them.

use std::mem;

use support::fault::Checked;
use support::reader::Since;
use support::session::Session;

use crate::client::Owner;
use crate::link::{Close, ReadRate, Token};
use crate::read::{Form, Read};
use crate::user::{LeaveMode, Sort, State};
use crate::world::World;

impl World {
    /// Drops all links, but keeps their reads.
    pub(crate) fn lose_all_links(&mut self) {
        self.harness = None;
        self.slow_readers.clear();
        for token in self.links.tokens() {
            let Some((link, client)) = self.links.remove(token) else { continue };
            link.close(Close::Orderly);
            self.lost_reads.extend(client.read.map(|read| (client.owner, read)));
        }
    }

    /// Gives users their reads back, and returns those of the observers.
    pub(crate) fn keep_reads(&mut self) -> Vec<Option<Read>> {
        let mut observed = vec![None; self.observers.len()];
        for (owner, read) in mem::take(&mut self.lost_reads) {
            match owner {
                Owner::Observer(channel) => observed[channel] = Some(read),
                Owner::ReadConn(user) => self.user(user).resumes = Some(read),
                _ => {}
            }
        }
        observed
    }

    /// All who lost a link continue with another.
    pub(crate) fn find_all_back(&mut self) -> Checked {
        for (channel, read) in self.keep_reads().into_iter().enumerate() {
            let observer = self.observers[channel];
            if observer.is_none_or(|token| self.links.get(token).is_none()) {
                self.observe(channel, read)?;
            }
        }
        for index in 0..self.users.len() as u32 {
            self.find_back(index)?;
        }
        self.takeover.cut_at = Some(self.clock.update().0);
        self.ledger.unsettle_closings();
        Ok(())
    }

    /// Reads all channels from the beginning: what was seen or acknowledged before a crash is there
    /// under its id.
    pub(crate) fn audit(&mut self) -> Checked {
        for channel in 0..self.names.len() {
            let token = self.open(Owner::Auditor, ReadRate::Fast)?;
            let first = self.subscribe(channel, Since::All);
            self.ask(token, Read::new(Form::LongPoll, first, None));
        }
        Ok(())
    }

    /// A user who may have lost a link continues. A call without a response may have been done or
    /// not.
    pub(crate) fn find_back(&mut self, index: u32) -> Checked {
        let user = &mut self.users[index as usize];
        let mut is_lost = |token: &mut Token| self.links.get(*token).is_none();
        let lost_read = user.read_conn.take_if(&mut is_lost).is_some();
        let lost_write = user.write_conn.take_if(&mut is_lost).is_some();
        if !lost_read && !lost_write {
            return Ok(());
        }
        let (number, sort) = (user.number(), user.sort);
        match user.state {
            State::Arriving => self.be_gone(index),
            // The response is lost that was to say that his session has ended.
            State::Here if user.is_stale => {
                user.state = State::Adrift;
                self.act_in(index, 0, 800);
            }
            State::Here if lost_read && sort == Sort::SlowReader => self.be_gone(index),
            // After a while, but before the session times out.
            State::Here if lost_read && sort == Sort::Resident => self.act_in(index, 0, 800),
            State::Leaving(LeaveMode::Goodbye | LeaveMode::ChannelByChannel, _) if lost_write => {
                self.plan(number, Session::lose_track);
                self.be_gone(index);
            }
            // The stream ended before the goodbye, or with it.
            State::Leaving(LeaveMode::Goodbye, _) => self.be_gone_unless_calling(index),
            State::Leaving(LeaveMode::ChannelByChannel, _) => self.read_on(index)?,
            State::Leaving(LeaveMode::Silence, _) if lost_read => {
                self.plan(number, Session::fall_silent);
                self.be_gone(index);
            }
            State::Away | State::Adrift | State::Here | State::Leaving(LeaveMode::Silence, _) => {}
            State::Leaving(mode, _) => {
                if lost_read {
                    self.read_on(index)?;
                }
                self.begin_barrier(index, mode)?;
            }
        }
        Ok(())
    }
}

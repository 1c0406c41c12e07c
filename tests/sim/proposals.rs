//! Proposals of the model: with a log, a call changes nothing before its command is applied.

use speak::hub::{self, LogHealth, Reason};

use super::command::{Command, Introducer, Introducing};
use super::model::Model;
use super::pending::Identity;

impl Model {
    pub(crate) fn begin_logging(&mut self) {
        self.proposed = Some(Vec::new());
    }

    pub(crate) fn take_proposals(&mut self) -> Vec<Command> {
        self.proposed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn propose(&mut self, command: Command) {
        self.proposed.as_mut().expect("there is a log").push(command);
    }

    /// A channel exists in this process until a command for it is applied.
    pub(super) fn await_command(&mut self, channel: usize) {
        self.channels[channel].exists = true;
        self.channels[channel].is_dropping = false;
        self.channels[channel].proposed += 1;
        self.used(channel);
    }

    pub(super) fn end_proposal(&mut self, command: &Command) {
        if let Command::Write { channel, .. }
        | Command::Introduce { channel, .. }
        | Command::Remove { channel, .. } = *command
        {
            let its = &mut self.channels[channel].proposed;
            *its = its.saturating_sub(1);
        }
    }

    /// A call that the log does not take counts as heard of.
    pub(super) fn check_log(&mut self, session: Option<u64>) -> Result<(), hub::Error> {
        if self.health != LogHealth::Stalled {
            return Ok(());
        }
        self.keep_alive(session);
        Err(hub::Error::LogBehind)
    }

    pub(crate) fn propose_write(
        &mut self,
        channel: usize,
        text: &str,
        is_owner: bool,
        shown: Option<&Identity>,
    ) -> Result<(), hub::Error> {
        let from = self.authenticate_optional(shown)?;
        self.make_room(&[channel], true)?;
        self.check_log(from)?;
        self.await_command(channel);
        self.propose(Command::Write { channel, from, is_owner, text: text.to_owned() });
        self.keep_alive(from);
        Ok(())
    }

    pub(crate) fn propose_introduction(
        &mut self,
        channel: usize,
        text: &str,
        by: Introducer,
        shown: Option<&Identity>,
        new_auth: &str,
    ) -> Result<(), hub::Error> {
        let known = self.authenticate_optional(shown)?;
        self.make_room(&[channel], true)?;
        self.check_log(known)?;
        let session =
            known.map_or_else(|| Introducing::New(new_auth.to_owned()), Introducing::Existing);
        self.await_command(channel);
        self.propose(Command::Introduce { channel, session, by, text: text.to_owned() });
        self.keep_alive(known);
        Ok(())
    }

    pub(crate) fn propose_goodbye(
        &mut self,
        shown: &Identity,
        channel: Option<usize>,
        text: Option<&str>,
    ) -> Result<(), hub::Error> {
        let session = self.authenticate(shown)?;
        self.check_log(Some(session))?;
        let text = text.map(str::to_owned);
        let Some(channel) = channel else {
            self.propose_end(session, Reason::Left, text);
            return Ok(());
        };
        self.propose(Command::Leave { channel, session, text });
        self.keep_alive(Some(session));
        Ok(())
    }

    pub(super) fn end_or_propose(&mut self, session: u64, reason: Reason) {
        if self.proposed.is_none() {
            self.end(session, reason, None);
        } else if self.sessions.get(&session).is_some_and(|session| !session.is_ending) {
            self.propose_end(session, reason, None);
        }
    }

    fn propose_end(&mut self, session: u64, reason: Reason, text: Option<String>) {
        self.propose(Command::End { session, reason, text });
        self.sessions.get_mut(&session).expect("it lives").is_ending = true;
    }

    pub(super) fn drop_or_propose(&mut self, channel: usize) {
        let its = &mut self.channels[channel];
        if self.proposed.is_none() || !its.is_shared {
            return self.forget(channel);
        }
        if !its.is_dropping {
            its.is_dropping = true;
            let next_id = its.next_id;
            self.propose(Command::Drop { channel, next_id });
        }
    }

    /// A command did not get into the log.
    pub(crate) fn refuse(&mut self, command: &Command) {
        self.end_proposal(command);
        if let Command::Write { channel, .. }
        | Command::Introduce { channel, .. }
        | Command::Remove { channel, .. } = *command
            && !self.is_shared(channel)
            && self.idle_until(channel).is_some()
        {
            self.tally.count("channel of a refused command dropped");
            self.forget(channel);
        }
        match *command {
            Command::End { session, .. } => {
                self.keep_alive(Some(session));
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.is_ending = false;
                }
            }
            Command::Drop { channel, .. } => {
                self.channels[channel].is_dropping = false;
                self.used(channel);
            }
            _ => {}
        }
    }
}

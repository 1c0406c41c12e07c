//! Proposals: commands that wait for their place in a log.
//!
//! With a log, a call changes nothing at once. It is checked against the present state and becomes
//! a [`Command`], which [`Hub::apply`] executes once it is in the log. Limits of this process
//! (memory, number of channels) are checked here only; limits of shared state are checked again
//! when the command is applied.

use super::bans::Address;
use super::channel_name::ChannelKey;
use super::command::{Command, Introducing};
use super::error::Error;
use super::hub::Hub;
use super::ids::Epoch;
use super::lookup::Lookup;
use super::message::{JsonText, Reason};
use super::proposals::{LogHealth, Proposals, WriteHint};
use super::session::{Credentials, Introducer};
use super::time::{Millis, Now};
use super::usage::WRITE_OVERHEAD_BYTES;

/// Limit of the proposals that wait, in bytes of CBOR. Only a log that is slow reaches it.
const BYTES_MAX: usize = 16 << 20;

/// Limit of the proposals that wait. Ends of sessions and drops of channels may exceed it: each
/// session and each channel has one at most.
const COUNT_MAX: u32 = 64 * 1024;

impl Hub {
    /// Makes all later changes of shared state proposals, until this process exits.
    pub fn begin_logging(&mut self) {
        self.proposals.get_or_insert_default();
    }

    /// Returns whether changes of shared state are proposals.
    #[inline]
    #[must_use]
    pub fn is_logged(&self) -> bool {
        self.proposals.is_some()
    }

    /// Returns the number of proposals that wait for [`Hub::swap_proposals`].
    #[must_use]
    pub fn proposed(&self) -> u32 {
        self.proposals.as_ref().map_or(0, Proposals::count)
    }

    /// Returns the bytes that are held for the log, and for the nodes that share it. They are a
    /// part of the external bytes, since a hub without a log has none.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        let proposals = self.proposals.as_ref().map_or(0, Proposals::memory);
        proposals + self.nodes.as_ref().map_or(0, |nodes| nodes.reader_counts.memory())
    }

    /// Moves the first `max` proposals that wait, or all if there are fewer, to `record`, which
    /// must be empty.
    pub fn take_proposals(&mut self, max: u32, max_bytes: usize, record: &mut Proposals) {
        if let Some(proposals) = &mut self.proposals {
            proposals.move_first(max, max_bytes, record);
        }
    }

    /// Exchanges the proposals that wait for `other`, which must be empty.
    pub fn swap_proposals(&mut self, other: &mut Proposals) {
        if let Some(proposals) = &mut self.proposals {
            std::mem::swap(proposals, other);
        }
    }

    /// Sets how the log responds. When it is good again, each session has its whole timeout: the
    /// time in which clients could not be heard does not count. A node then holds the sessions of
    /// reads that have begun here meanwhile.
    pub fn set_log_health(&mut self, now: Millis, health: LogHealth) {
        let before = std::mem::replace(&mut self.log_health, health);
        if health == LogHealth::Good && before != LogHealth::Good {
            self.sessions.hear_all(now);
            if self.is_clustered() && self.is_joined() {
                self.propose_holds();
            }
        }
    }

    /// Returns whether the log takes records as usual, or there is no log.
    #[must_use]
    pub fn is_log_good(&self) -> bool {
        self.log_health == LogHealth::Good
    }

    /// Proposes what [`Hub::write`] does.
    ///
    /// # Errors
    ///
    /// As for [`Hub::write`]; also [`Error::LogBehind`].
    pub fn propose_write(
        &mut self,
        now: Now,
        key: &ChannelKey<'_>,
        text: &str,
        credentials: Option<Credentials<'_>>,
    ) -> Result<(), Error> {
        let sender = self.sessions.authenticate_optional(credentials)?;
        let lookup = self.channels.lookup(key);
        self.ensure_capacity(now.mono, &[lookup], true)?;
        let json = JsonText::new(text);
        self.reserve(now.mono, json.len() + WRITE_OVERHEAD_BYTES, &[lookup])?;
        self.check_log(sender, now)?;
        let channel = self.await_command(now, lookup, key);
        let hint = WriteHint { channel, is_plain: json.is_plain() };
        let from = sender.map(|session| self.sessions[session].number);
        let is_owner = key.is_room_owner();
        self.waiting_proposals().push_write(hint, key.as_str(), from, is_owner, text);
        self.begin_call(sender, now);
        Ok(())
    }

    /// Proposes what [`Hub::introduce`] does.
    ///
    /// # Errors
    ///
    /// As for [`Hub::introduce`] except [`Error::TooManyChannels`]; also [`Error::LogBehind`].
    pub fn propose_introduction(
        &mut self,
        now: Now,
        key: &ChannelKey<'_>,
        text: &str,
        introducer: &Introducer<'_>,
        address: Option<Address>,
    ) -> Result<(), Error> {
        let lookup = self.channels.lookup(key);
        // The limit of channels is checked when the command is applied: a goodbye may come before.
        let existing = match introducer {
            Introducer::New(_) => None,
            Introducer::Existing(credentials) => Some(self.sessions.authenticate(*credentials)?),
        };
        self.ensure_capacity(now.mono, &[lookup], true)?;
        let bytes = JsonText::new(text).len();
        self.reserve(now.mono, 3 * (bytes + WRITE_OVERHEAD_BYTES), &[lookup])?;
        self.check_log(existing, now)?;
        self.await_command(now, lookup, key);
        let session = match (introducer, existing) {
            (Introducer::New(auth), _) => Introducing::New(*auth.as_bytes()),
            (Introducer::Existing(credentials), _) => Introducing::Existing(credentials.session),
        };
        let is_owner = key.is_room_owner().then_some(true);
        let (channel, address) = (key.as_str(), address.map(Address::number));
        self.propose(&Command::Introduce { channel, session, text, is_owner, address });
        self.begin_call(existing, now);
        Ok(())
    }

    /// Proposes what [`Hub::goodbye`] does.
    ///
    /// # Errors
    ///
    /// As for [`Hub::goodbye`]; also [`Error::LogBehind`].
    pub fn propose_goodbye(
        &mut self,
        now: Now,
        credentials: Credentials<'_>,
        key: Option<&ChannelKey<'_>>,
        text: Option<&str>,
    ) -> Result<(), Error> {
        let index = self.sessions.authenticate(credentials)?;
        self.check_log(Some(index), now)?;
        let session = credentials.session;
        let Some(key) = key else {
            self.propose_end(index, Reason::Left, text);
            return Ok(());
        };
        self.propose(&Command::Leave { channel: key.as_str(), session, text });
        self.begin_call(Some(index), now);
        Ok(())
    }

    /// Sets the name of the numbering of ids. The next record has to begin with
    /// [`Hub::propose_numbering`].
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Returns the command in CBOR that begins the present numbering of ids. The first record of a
    /// log has nothing else; it is that of a new log if `is_new`.
    #[must_use]
    pub fn numbering(&self, is_new: bool) -> Vec<u8> {
        let mut proposals = Proposals::default();
        proposals.push(&self.numbering_command(is_new));
        proposals.bytes().to_vec()
    }

    /// Returns the command in CBOR that begins this numbering of ids, with the state as it is.
    #[must_use]
    pub fn renumbering(epoch: Epoch) -> Vec<u8> {
        let mut proposals = Proposals::default();
        let epoch = *epoch.as_bytes();
        proposals.push(&Command::Begin { epoch, watermark_hash_key: None });
        proposals.bytes().to_vec()
    }

    /// Proposes the command of [`Hub::numbering`].
    pub fn propose_numbering(&mut self, is_new: bool) {
        self.propose(&self.numbering_command(is_new));
    }

    fn numbering_command(&self, is_new: bool) -> Command<'static> {
        let watermark_hash_key = is_new.then(|| self.channels.id_watermarks().key());
        Command::Begin { epoch: *self.epoch.as_bytes(), watermark_hash_key }
    }

    /// Ends a session, or proposes it.
    pub(super) fn end_or_propose(&mut self, now: Now, session: u32, reason: Reason) {
        if !self.is_logged() {
            self.end_session(now, session, reason, None);
        } else if !self.sessions[session].local.is_ending {
            self.propose_end(session, reason, None);
        }
    }

    /// Ends a session of whose client nothing was heard, or proposes it. In a cluster, the client
    /// may have gone on at another node, so this one only releases the session.
    pub(super) fn end_silent(&mut self, now: Now, session: u32, reason: Reason) {
        let Some(nodes) = &self.nodes else { return self.end_or_propose(now, session, reason) };
        let found = &self.sessions[session];
        if found.local.is_ending {
            return;
        }
        let is_closed = reason == Reason::Closed;
        let command = Command::Release {
            session: found.number,
            expected_ms: nodes.next_record_ms(now.mono.0),
            closed_position: is_closed.then_some(found.local.heard_position),
            decided_position: self.position,
        };
        self.propose(&command);
        self.sessions.local_mut(session).is_ending = true;
    }

    fn propose_end(&mut self, session: u32, reason: Reason, text: Option<&str>) {
        let number = self.sessions[session].number;
        self.propose(&Command::End { session: number, reason, text });
        self.sessions.local_mut(session).is_ending = true;
    }

    /// Drops an unused channel, or proposes it.
    pub(super) fn drop_or_propose(&mut self, index: u32) {
        let channel = &self.channels[index];
        let Some(proposals) = self.proposals.as_mut().filter(|_| channel.is_shared) else {
            return self.channels.drop_channel(index, &mut self.timers);
        };
        if channel.local.is_dropping {
            return;
        }
        proposals
            .push(&Command::DropChannel { channel: &channel.name, next_id: channel.next_id() });
        self.channels.begin_drop(index);
    }

    /// Forgets commands that did not get into the log. Sessions that were to end live on, for
    /// another timeout: the log is to blame, not their clients.
    pub fn refuse(&mut self, now: Now, command: &Command<'_>) {
        match *command {
            Command::End { session, .. } | Command::Release { session, .. } => {
                if let Some(index) = self.sessions.find(session) {
                    self.sessions.local_mut(index).is_ending = false;
                    self.touch(Some(index), now.mono);
                }
            }
            Command::DropChannel { channel, .. } => {
                if let Some(index) = self.channels.find_name(channel) {
                    self.channels.cancel_drop(index).last_use = now.mono;
                    self.channels.arm_timer(index, &mut self.timers);
                }
            }
            Command::Write { channel, from, .. } => {
                self.refuse_message(now, channel, from);
            }
            Command::Remove { channel, .. } => self.refuse_message(now, channel, None),
            Command::Introduce { channel, session: Introducing::New(_), .. } => {
                self.refuse_message(now, channel, None);
            }
            Command::Introduce { channel, session: Introducing::Existing(session), .. } => {
                self.refuse_message(now, channel, Some(session));
            }
            Command::Leave { session, .. } | Command::Hold { session, .. } => {
                self.refuse_call(now, session);
            }
            Command::Bury { node, .. } => {
                if let Some(nodes) = &mut self.nodes {
                    nodes.forget_burial(node);
                }
            }
            Command::Heartbeat { ref readers, .. } => {
                if let Some(nodes) = &mut self.nodes {
                    nodes.forget_heartbeat(readers);
                }
            }
            Command::Begin { .. }
            | Command::Join { .. }
            | Command::Part { .. }
            | Command::Kick { .. } => {}
        }
    }

    fn refuse_message(&mut self, now: Now, channel: &str, session: Option<u64>) {
        if let Some(index) = self.channels.find_name(channel) {
            self.channels.end_proposal(index);
            let channel = &self.channels[index];
            if channel.is_shared || !channel.is_unused() {
                self.channels.arm_timer(index, &mut self.timers);
            } else {
                // It was there for the command, perhaps in the place of one that was not dropped.
                self.channels.drop_channel(index, &mut self.timers);
            }
        }
        if let Some(session) = session {
            self.refuse_call(now, session);
        }
    }

    /// A call that the log does not take counts as heard of.
    fn refuse_call(&mut self, now: Now, session: u64) {
        if let Some(index) = self.sessions.find(session) {
            self.sessions.end_proposal(index, &mut self.timers);
            self.sessions.hear(index, now.mono, &mut self.timers);
        }
    }

    /// Records a call of a session that waits for its place in the log.
    pub(super) fn begin_call(&mut self, session: Option<u32>, now: Now) {
        if let Some(session) = session {
            self.sessions.begin_proposal(session);
            self.touch(Some(session), now.mono);
        }
    }

    /// Makes a channel exist in this process until a command for it is applied, so that it counts
    /// against the limit of channels. Returns its index.
    pub(super) fn await_command(&mut self, now: Now, lookup: Lookup, key: &ChannelKey<'_>) -> u32 {
        let index = self.channels.get_or_create(lookup, key, now.mono, &mut self.timers);
        self.channels.begin_proposal(index, now.mono);
        index
    }

    /// Checks that the log takes another command. A call that it refuses counts as heard of.
    pub(super) fn check_log(&mut self, session: Option<u32>, now: Now) -> Result<(), Error> {
        let has_room = self
            .proposals
            .as_ref()
            .is_some_and(|it| it.bytes().len() < BYTES_MAX && it.count() < COUNT_MAX);
        if has_room && self.log_health != LogHealth::Stalled {
            return Ok(());
        }
        self.touch(session, now.mono);
        Err(Error::LogBehind)
    }

    pub(super) fn propose(&mut self, command: &Command<'_>) {
        self.waiting_proposals().push(command);
    }

    fn waiting_proposals(&mut self) -> &mut Proposals {
        self.proposals.as_mut().expect("there is a log")
    }
}

#[cfg(test)]
#[path = "propose_tests.rs"]
mod tests;

//! Proposals: commands that wait for their place in a log.
//!
//! With a log, a call changes nothing at once. It is checked against the present state and becomes
//! a [`Command`], which [`Hub::apply`] executes once it is in the log. Limits of this process
//! (memory, number of channels) are checked here only; limits of shared state are checked again
//! when the command is applied.

use super::channel_name::ChannelKey;
use super::command::{Command, Introducing};
use super::error::Error;
use super::hub::Hub;
use super::ids::Epoch;
use super::lookup::Lookup;
use super::message::{JsonText, Reason};
use super::proposals::{LogHealth, Proposals};
use super::session::{Credentials, Introducer};
use super::time::Now;
use super::usage::WRITE_OVERHEAD_BYTES;

/// Limit of the proposals that wait, in bytes of CBOR. Only a log that is slow reaches it.
const BYTES_MAX: usize = 16 << 20;

/// Limit of the proposals that wait. A position has 20 bits for the command in its record.
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

    /// Returns the bytes of the proposals that wait for [`Hub::swap_proposals`].
    #[must_use]
    pub fn proposed_bytes(&self) -> usize {
        self.proposals.as_ref().map_or(0, |proposals| proposals.bytes().len())
    }

    /// Exchanges the proposals that wait for `other`, which must be empty.
    pub fn swap_proposals(&mut self, other: &mut Proposals) {
        if let Some(proposals) = &mut self.proposals {
            std::mem::swap(proposals, other);
        }
    }

    /// Sets how the log responds.
    pub fn set_log_health(&mut self, health: LogHealth) {
        self.log_health = health;
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
        self.ensure_capacity(now.mono, &[lookup])?;
        let bytes = JsonText::new(text).len();
        self.reserve(now.mono, bytes + WRITE_OVERHEAD_BYTES, &[lookup])?;
        self.check_log(sender, now)?;
        self.await_command(now, lookup, key);
        let from = sender.map(|session| self.sessions[session].number);
        self.propose(&Command::Write { channel: key.as_str(), from, text });
        self.touch(sender, now.mono);
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
    ) -> Result<(), Error> {
        let lookup = self.channels.lookup(key);
        // The limit of channels is checked when the command is applied: a goodbye may come before.
        let existing = match introducer {
            Introducer::New(_) => None,
            Introducer::Existing(credentials) => Some(self.sessions.authenticate(*credentials)?),
        };
        self.ensure_capacity(now.mono, &[lookup])?;
        let bytes = JsonText::new(text).len();
        self.reserve(now.mono, 3 * (bytes + WRITE_OVERHEAD_BYTES), &[lookup])?;
        self.check_log(existing, now)?;
        self.await_command(now, lookup, key);
        let session = match (introducer, existing) {
            (Introducer::New(auth), _) => Introducing::New(*auth.as_bytes()),
            (Introducer::Existing(credentials), _) => Introducing::Existing(credentials.session),
        };
        self.propose(&Command::Introduce { channel: key.as_str(), session, text });
        self.touch(existing, now.mono);
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
        let command = match key {
            None => Command::End { session, reason: Reason::Left, text },
            Some(key) => Command::Leave { channel: key.as_str(), session, text },
        };
        self.propose(&command);
        self.touch(Some(index), now.mono);
        Ok(())
    }

    /// Sets the name of the numbering of ids. The next record has to be [`Hub::numbering`].
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Returns the command in CBOR that begins the present numbering of ids. The first record of a
    /// log has nothing else; it is that of a new log if `is_new`.
    #[must_use]
    pub fn numbering(&self, is_new: bool) -> Vec<u8> {
        let watermark_hash_key = is_new.then(|| self.channels.id_watermarks().key());
        let mut proposals = Proposals::default();
        proposals.push(&Command::Begin { epoch: *self.epoch.as_bytes(), watermark_hash_key });
        proposals.bytes().to_vec()
    }

    /// Ends a session, or proposes it.
    pub(super) fn end_or_propose(&mut self, now: Now, session: u32, reason: Reason) {
        if self.is_logged() {
            let session = self.sessions[session].number;
            self.propose(&Command::End { session, reason, text: None });
        } else {
            self.end_session(now, session, reason, None);
        }
    }

    /// Drops an unused channel, or proposes it.
    pub(super) fn drop_or_propose(&mut self, index: u32) {
        let channel = &self.channels[index];
        let Some(proposals) = self.proposals.as_mut().filter(|_| channel.is_shared) else {
            return self.channels.drop_channel(index, &mut self.timers);
        };
        if channel.local.is_drop_proposed {
            return;
        }
        proposals
            .push(&Command::DropChannel { channel: &channel.name, next_id: channel.next_id() });
        self.channels.local_mut(index).is_drop_proposed = true;
    }

    /// Forgets commands that did not get into the log. Sessions that were to end live on, for
    /// another timeout: the log is to blame, not their clients.
    pub fn refuse(&mut self, now: Now, command: &Command<'_>) {
        match *command {
            Command::End { session, reason, .. } => {
                if reason != Reason::Left
                    && let Some(index) = self.sessions.find(session)
                {
                    self.touch(Some(index), now.mono);
                }
            }
            Command::DropChannel { channel, .. } => {
                if let Some(index) = self.channels.find_name(channel) {
                    let local = self.channels.local_mut(index);
                    local.is_drop_proposed = false;
                    local.last_use = now.mono;
                    self.channels.arm_timer(index, &mut self.timers);
                }
            }
            Command::Write { channel, .. } | Command::Introduce { channel, .. } => {
                self.channels.end_proposal(channel);
                self.arm_channel(channel);
            }
            Command::Leave { .. } | Command::Begin { .. } => {}
        }
    }

    /// Makes a channel exist in this process until a command for it is applied, so that it counts
    /// against the limit of channels.
    fn await_command(&mut self, now: Now, lookup: Lookup, key: &ChannelKey<'_>) {
        let index = self.channels.get_or_create(lookup, key, now.mono, &mut self.timers);
        self.channels.begin_proposal(index, now.mono);
    }

    /// Checks that the log takes another command. A call that it refuses counts as heard of.
    fn check_log(&mut self, session: Option<u32>, now: Now) -> Result<(), Error> {
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

    fn propose(&mut self, command: &Command<'_>) {
        self.proposals.as_mut().expect("there is a log").push(command);
    }
}

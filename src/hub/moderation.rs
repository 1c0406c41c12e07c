//! What the owner of a channel and the operator do in it: they remove messages and send sessions
//! away. The caller has checked who may do it.
//!
//! An address that was sent away is refused where its call is made, before anything is proposed. A
//! command in the log is never refused for it: so whether a command fails does not depend on when a
//! checkpoint has saved the channel.

use super::bans::{Address, Bans};
use super::channel_name::ChannelKey;
use super::command::{Applied, Command};
use super::error::Error;
use super::hub::Hub;
use super::lookup::Lookup;
use super::message::{JsonText, MessageKind, Reason};
use super::session::Credentials;
use super::time::{Millis, Now};
use super::usage::WRITE_OVERHEAD_BYTES;

/// Longest time for which an address is sent away, in seconds: a day.
pub const BAN_SECONDS_MAX: u32 = 86_400;

/// How a session is sent away.
#[derive(Clone, Copy, Default)]
pub struct Kick<'a> {
    /// Seconds for which calls from its address may add nothing to the channel; 0 for none. At
    /// most [`BAN_SECONDS_MAX`].
    pub seconds: u32,
    /// Text of the goodbye.
    pub text: Option<&'a str>,
}

/// Addresses that were sent away.
impl Hub {
    /// Returns whether addresses were sent away from any channel. Constant time.
    #[must_use]
    #[inline]
    pub fn has_bans(&self) -> bool {
        self.channels.has_bans()
    }

    /// Checks that a call from this address may add to a channel. The owner always may.
    ///
    /// # Errors
    ///
    /// [`Error::SentAway`].
    #[cold]
    pub fn check_address(
        &self,
        now: Now,
        key: &ChannelKey<'_>,
        address: Option<Address>,
    ) -> Result<(), Error> {
        match self.channels.find(key) {
            Some(channel) if !key.is_owner() => self.check_channel(now, channel, address),
            _ => Ok(()),
        }
    }

    /// Checks that a goodbye from this address may add to the channel of `key`, or to all channels
    /// of the session if it is `None`.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the credentials, or [`Error::SentAway`].
    #[cold]
    pub fn check_goodbye_address(
        &self,
        now: Now,
        credentials: Credentials<'_>,
        key: Option<&ChannelKey<'_>>,
        address: Option<Address>,
    ) -> Result<(), Error> {
        let session = self.sessions.authenticate(credentials)?;
        if key.is_some_and(ChannelKey::is_owner) {
            return Ok(());
        }
        let named = key.map(|key| self.channels.find(key));
        let channels = self.sessions[session].channels.iter();
        let mut changed = channels.filter(|channel| named.is_none_or(|it| it == Some(**channel)));
        changed.try_for_each(|channel| self.check_channel(now, *channel, address))
    }

    fn check_channel(&self, now: Now, channel: u32, address: Option<Address>) -> Result<(), Error> {
        let bans = self.channels.get(channel).and_then(|channel| channel.bans.as_ref());
        let is_away = |address| bans.is_some_and(|bans| bans.contains(now.mono, address));
        if address.is_some_and(is_away) { Err(Error::SentAway) } else { Ok(()) }
    }
}

/// Calls without a log.
impl Hub {
    /// Removes a message, and adds one that says so. Returns the id of that one.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownMessage`], or an [`Error`] of the limits; [`Error::LogBehind`] if another
    /// process may have given the id.
    pub fn remove(&mut self, now: Now, key: &ChannelKey<'_>, id: u64) -> Result<u64, Error> {
        let lookup = self.check_removal(now.mono, key, id, false)?;
        let channel = self.channels.get_or_create(lookup, key, now.mono, &mut self.timers);
        self.channels.remove_message(channel, id);
        Ok(self.channels.append(now, channel, MessageKind::Removal { of: id }, &mut self.timers))
    }

    /// Sends a session away from a channel, with a goodbye, and its address for some time. Does
    /// nothing if the session is not there.
    pub fn kick(&mut self, now: Now, key: &ChannelKey<'_>, session: u64, kick: Kick<'_>) {
        if let (Some(index), Some(channel)) = (self.sessions.find(session), self.channels.find(key))
            && self.sessions.leave(index, channel)
        {
            self.ban_member(now.mono, channel, session, kick.seconds);
            let text = kick.text.map(JsonText::new);
            self.reserve_for_goodbye(now.mono, text.as_ref(), 1);
            let (reason, text) = (Reason::Removed, text.as_ref());
            let goodbye = MessageKind::Goodbye { from: session, reason, text };
            self.channels.append(now, channel, goodbye, &mut self.timers);
        }
    }

    /// Checks that a message can be removed, and that the message about it fits. `awaits_drops` is
    /// as for [`Hub::ensure_capacity`].
    fn check_removal(
        &mut self,
        now: Millis,
        key: &ChannelKey<'_>,
        id: u64,
        awaits_drops: bool,
    ) -> Result<Lookup, Error> {
        let lookup = self.channels.lookup(key);
        let next_id = match lookup {
            Lookup::Occupied(channel) => self.channels[channel].next_id(),
            Lookup::Vacant { first_id } => first_id,
        };
        if id >= next_id && self.is_behind {
            // Another node may have given it.
            return Err(Error::LogBehind);
        }
        if !(1..next_id).contains(&id) {
            return Err(Error::UnknownMessage);
        }
        self.ensure_capacity(now, &[lookup], awaits_drops)?;
        self.reserve(now, WRITE_OVERHEAD_BYTES, &[lookup])?;
        Ok(lookup)
    }

    /// Sends the address of a member away. It takes less memory than the member, who leaves.
    fn ban_member(&mut self, now: Millis, channel: u32, session: u64, seconds: u32) {
        let member = self.channels[channel].members.get(&session);
        if let Some(address) = member.and_then(|member| member.address)
            && seconds > 0
        {
            let until = now.after(1_000 * u64::from(seconds));
            self.channels.change_bans(channel, |bans| {
                let mut bans: Box<Bans> = bans.unwrap_or_default();
                bans.add(now, address, until);
                Some(bans)
            });
        }
    }
}

/// Calls with a log.
impl Hub {
    /// Proposes what [`Hub::remove`] does.
    ///
    /// # Errors
    ///
    /// As for [`Hub::remove`]; also [`Error::LogBehind`].
    pub fn propose_removal(
        &mut self,
        now: Now,
        key: &ChannelKey<'_>,
        id: u64,
    ) -> Result<(), Error> {
        let lookup = self.check_removal(now.mono, key, id, true)?;
        self.check_log(None, now)?;
        self.await_command(now, lookup, key);
        self.propose(&Command::Remove { channel: key.as_str(), id });
        Ok(())
    }

    /// Proposes what [`Hub::kick`] does.
    ///
    /// # Errors
    ///
    /// [`Error::LogBehind`].
    pub fn propose_kick(
        &mut self,
        now: Now,
        key: &ChannelKey<'_>,
        session: u64,
        kick: Kick<'_>,
    ) -> Result<(), Error> {
        self.check_log(None, now)?;
        let (channel, Kick { seconds, text }) = (key.as_str(), kick);
        self.propose(&Command::Kick { channel, session, seconds, text });
        Ok(())
    }

    pub(super) fn apply_removal(
        &mut self,
        now: Now,
        present: Millis,
        name: &str,
        id: u64,
    ) -> Applied {
        let channel = self.end_channel_proposal(name, None);
        let channel = self.share_channel(present, channel, name);
        if self.channels[channel].position < self.position {
            self.channels.remove_message(channel, id);
        }
        Applied::Written(self.append_once(now, channel, MessageKind::Removal { of: id }))
    }

    pub(super) fn apply_kick(
        &mut self,
        now: Now,
        present: Millis,
        name: &str,
        number: u64,
        kick: Kick<'_>,
    ) -> Applied {
        let session = self.sessions.find(number);
        if session.is_some_and(|index| self.sessions[index].position >= self.position) {
            // Saved later, and its channels after it.
            return Applied::Gone;
        }
        let Some(channel) = self.channels.find_name(name) else { return Applied::Gone };
        let is_new = self.channels[channel].position < self.position;
        if is_new && self.channels[channel].members.contains_key(&number) {
            self.ban_member(now.mono, channel, number, kick.seconds);
            let text = kick.text.map(JsonText::new);
            self.reserve_for_goodbye(present, text.as_ref(), 1);
            let (reason, text) = (Reason::Removed, text.as_ref());
            self.append_once(now, channel, MessageKind::Goodbye { from: number, reason, text });
        }
        if let Some(index) = session {
            self.sessions.leave_at(index, channel, self.position);
        }
        Applied::Gone
    }
}

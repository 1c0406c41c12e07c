//! The contract, in the most simple-minded way.
//!
//! Each channel keeps all messages that it ever got. History, members and due events are derived
//! again each time, from all of them. Nothing here is fast, so nothing here needs to be clever.

use std::collections::BTreeMap;

use speak::hub::{self, LogHealth, Now, Reason};

use super::command::{Command, Introducer};
use super::message::{Answer, Message, Type};
use super::pending::{Identity, Pending};
use super::plan::Limits;
use super::record::Tally;

/// Messages of a turn that reach pending reads if no history is retained.
const LIVE_MAX: u64 = 100;
pub(super) const CHANNELS_PER_SESSION_MAX: usize = 32;

pub(super) struct Entry {
    /// As it was written. An introduction that was removed has lost its text.
    pub(super) message: Message,
    pub(super) is_removed: bool,
    /// Address of the client that introduced itself.
    pub(super) address: Option<u64>,
    pub(super) at_ms: u64,
    pub(super) turn: u64,
}

impl Entry {
    /// Returns the message as readers get it.
    pub(super) fn seen(&self) -> Message {
        let Message { id, time, from, .. } = self.message;
        if !self.is_removed {
            return self.message.clone();
        }
        let (text, reason, of) = (None, None, None);
        Message { id, kind: Type::Removed, time, from, is_owner: false, text, reason, of }
    }
}

#[derive(Default)]
pub(super) struct Channel {
    /// All messages ever.
    pub(super) log: Vec<Entry>,
    pub(super) exists: bool,
    /// It exists in the log's state: a message was added to it. Without a log, never.
    pub(super) is_shared: bool,
    pub(super) is_dropping: bool,
    /// Number of commands for it that were not applied yet.
    pub(super) proposed: u64,
    pub(super) next_id: u64,
    pub(super) last_use_ms: u64,
    /// Addresses that were sent away, and the ends of their times.
    pub(super) bans: BTreeMap<u64, u64>,
}

pub(super) struct Session {
    pub(super) auth: String,
    pub(super) last_alive_ms: u64,
    pub(super) closes_at_ms: Option<u64>,
    /// Its end waits for the log.
    pub(super) is_ending: bool,
}

/// Answer of a pending read in this turn.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) client: u64,
    pub(crate) answer: Answer,
    /// It is pending no more.
    pub(crate) is_last: bool,
    /// Channels that it asked for.
    pub(crate) channels: Vec<usize>,
    /// Channels with news for it; none if it is answered with nothing.
    pub(crate) news: Vec<usize>,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(super) limits: Limits,
    pub(super) epoch: String,
    pub(super) now: Now,
    /// Commands that wait for the log. `None` without a log.
    pub(super) proposed: Option<Vec<Command>>,
    pub(super) health: LogHealth,
    pub(super) turn: u64,
    pub(super) channels: Vec<Channel>,
    pub(super) sessions: BTreeMap<u64, Session>,
    pub(super) last_session: u64,
    /// Reason for which each session ended.
    pub(super) ended: BTreeMap<u64, Reason>,
    /// In the order in which they began to wait.
    pub(super) pending: Vec<Pending>,
    /// Answers of reads that are pending no more, and get nothing at the end of the turn.
    pub(super) completed: Vec<Due>,
    /// Next ids of dropped channels.
    pub(super) watermarks: Vec<u64>,
    /// Number of times that each rule applied.
    pub(crate) tally: Tally,
}

impl Model {
    pub(crate) fn new(limits: Limits, channels: usize, epoch: &str) -> Self {
        let empty = || Channel { next_id: 1, ..Channel::default() };
        Self {
            limits,
            epoch: epoch.to_owned(),
            channels: std::iter::repeat_with(empty).take(channels).collect(),
            ..Self::default()
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now.mono.0
    }

    /// Returns all messages of a channel, whether they can still be read or not.
    pub(crate) fn messages_ever(&self, channel: usize) -> impl Iterator<Item = &Message> {
        self.channels[channel].log.iter().map(|entry| &entry.message)
    }

    pub(crate) fn exists(&self, channel: usize) -> bool {
        self.channels[channel].exists
    }

    pub(crate) fn is_shared(&self, channel: usize) -> bool {
        self.channels[channel].is_shared
    }

    pub(crate) fn next_id(&self, channel: usize) -> u64 {
        self.channels[channel].next_id
    }

    pub(crate) fn is_pending(&self, client: u64) -> bool {
        self.pending.iter().any(|read| read.client == client)
    }

    /// Returns the clients of some pending reads.
    pub(crate) fn clients(&self, which: impl Fn(&Pending) -> bool) -> Vec<u64> {
        self.pending.iter().filter(|read| which(read)).map(|read| read.client).collect()
    }

    /// Returns the clients of reads whose session ends when the grace has passed.
    pub(crate) fn pending_in_grace(&self) -> Vec<u64> {
        let closes = |number: u64| self.sessions[&number].closes_at_ms.is_some();
        self.clients(|read| read.session.is_some_and(closes))
    }

    /// Returns the channels and the session of a pending read.
    pub(crate) fn pending_of(&self, client: u64) -> (Vec<usize>, Option<Identity>) {
        let read = self.pending.iter().find(|read| read.client == client).expect("it is pending");
        let shown = |session| Identity { session, auth: self.sessions[&session].auth.clone() };
        (read.channels(), read.session.map(shown))
    }

    pub(crate) fn living(&self) -> Vec<u64> {
        self.sessions.keys().copied().collect()
    }

    /// Learns where the ids of a channel that does not exist now will continue.
    /// The table of watermarks is a secret of the hub; the contract's claims about it are checked.
    pub(crate) fn learn_next_id(&mut self, channel: usize, next_id: u64) {
        let known = self.channels[channel].next_id;
        assert!(next_id >= known, "ids of channel {channel} went back: from {known} to {next_id}");
        let from_the_table = next_id == known || self.watermarks.contains(&next_id);
        assert!(from_the_table, "no watermark is {next_id}, channel {channel} was at {known}");
        self.channels[channel].next_id = next_id;
        self.tally.count_if(next_id > known, "channel began at the watermark of another name");
    }

    /// Returns all that can be read of a channel.
    pub(super) fn retained(&self, channel: usize) -> impl Iterator<Item = &Entry> {
        let Channel { log, next_id, .. } = &self.channels[channel];
        let live = self.limits.history == 0;
        let count = if live { LIVE_MAX } else { self.limits.history };
        log.iter().filter(move |entry| {
            let is_young = entry.at_ms + self.limits.retention_ms > self.now_ms();
            let is_among_newest = entry.message.id + count >= *next_id;
            is_young && is_among_newest && (!live || entry.turn == self.turn)
        })
    }

    pub(crate) fn retained_messages(&self, channel: usize) -> impl Iterator<Item = Message> {
        self.retained(channel).map(Entry::seen)
    }

    pub(super) fn oldest_id(&self, channel: usize) -> u64 {
        self.retained(channel).next().map_or(self.next_id(channel), |entry| entry.message.id)
    }

    /// Returns the newest introduction of each session that has not said goodbye since.
    pub(super) fn members(&self, channel: usize) -> BTreeMap<u64, &Message> {
        let mut members = BTreeMap::new();
        for Entry { message, .. } in &self.channels[channel].log {
            match (message.kind, message.from) {
                (Type::Introduction, Some(from)) => drop(members.insert(from, message)),
                (Type::Goodbye, Some(from)) => drop(members.remove(&from)),
                _ => {}
            }
        }
        members
    }

    pub(crate) fn memberships(&self, session: u64) -> Vec<usize> {
        (0..self.channels.len())
            .filter(|channel| self.members(*channel).contains_key(&session))
            .collect()
    }

    pub(super) fn authenticate(&self, shown: &Identity) -> Result<u64, hub::Error> {
        let session = self.sessions.get(&shown.session).ok_or(hub::Error::SessionEnded)?;
        if session.auth == shown.auth { Ok(shown.session) } else { Err(hub::Error::WrongAuth) }
    }

    pub(super) fn authenticate_optional(
        &self,
        shown: Option<&Identity>,
    ) -> Result<Option<u64>, hub::Error> {
        shown.map(|shown| self.authenticate(shown)).transpose()
    }

    /// A read does not promise that a session lives on whose end waits for the log.
    pub(super) fn authenticate_reader(
        &self,
        shown: Option<&Identity>,
    ) -> Result<Option<u64>, hub::Error> {
        let session = self.authenticate_optional(shown)?;
        match session {
            Some(number) if self.sessions[&number].is_ending => {
                Err(hub::Error::SessionEnding(number))
            }
            _ => Ok(session),
        }
    }

    /// Says whether these channels exist or may be created.
    /// If there is no room, other channels that are idle are dropped before their time.
    ///
    /// With a log, the place of a channel that is about to be dropped is for a command only.
    pub(super) fn make_room(
        &mut self,
        channels: &[usize],
        is_command: bool,
    ) -> Result<(), hub::Error> {
        let new = channels.iter().filter(|channel| !self.exists(**channel)).count();
        let max = self.limits.max_channels;
        let has_room = |model: &Self| {
            let is_dropping = |channel: &&usize| model.channels[**channel].is_dropping;
            let needed = new + channels.iter().filter(is_dropping).count();
            let count = model.count_channels();
            let lasting = count - model.count_dropping();
            max == 0
                || needed == 0
                || (lasting + needed <= max && (is_command || count + new <= max))
        };
        if !has_room(self) {
            for channel in (0..self.channels.len()).filter(|channel| !channels.contains(channel)) {
                if self.idle_until(channel).is_some() {
                    self.tally.count("idle channel gave room to another");
                    self.drop_or_propose(channel);
                }
            }
        }
        if has_room(self) { Ok(()) } else { Err(hub::Error::OverCapacity) }
    }

    pub(super) fn used(&mut self, channel: usize) {
        self.channels[channel].last_use_ms = self.now_ms();
    }

    pub(super) fn append(
        &mut self,
        channel: usize,
        kind: Type,
        from: Option<u64>,
        text: Option<&str>,
        reason: Option<Reason>,
    ) -> u64 {
        let at_ms = self.now_ms();
        let (turn, time) = (self.turn, self.now.unix_ms);
        self.used(channel);
        let channel = &mut self.channels[channel];
        self.tally
            .count_if(!channel.exists && !channel.log.is_empty(), "dropped channel came again");
        channel.exists = true;
        let id = channel.next_id;
        channel.next_id += 1;
        let text = text.map(str::to_owned);
        let message = Message { id, kind, time, from, is_owner: false, text, reason, of: None };
        channel.log.push(Entry { message, is_removed: false, address: None, at_ms, turn });
        id
    }

    /// When the log is good again, the time until then counts for no timeout.
    pub(super) fn set_health(&mut self, health: LogHealth) {
        let now_ms = self.now_ms();
        if health == LogHealth::Good && self.health != LogHealth::Good {
            for session in self.sessions.values_mut() {
                session.last_alive_ms = session.last_alive_ms.max(now_ms);
            }
        }
        self.health = health;
    }

    pub(super) fn keep_alive(&mut self, session: Option<u64>) {
        let now_ms = self.now_ms();
        if let Some(session) = session.and_then(|number| self.sessions.get_mut(&number)) {
            // A restored session may be alive until later than this.
            session.last_alive_ms = session.last_alive_ms.max(now_ms);
            self.tally.count_if(session.closes_at_ms.is_some(), "grace ended by a call");
            session.closes_at_ms = None;
        }
    }

    pub(crate) fn write(
        &mut self,
        channel: usize,
        text: &str,
        is_owner: bool,
        shown: Option<&Identity>,
    ) -> Result<u64, hub::Error> {
        let from = self.authenticate_optional(shown)?;
        self.make_room(&[channel], false)?;
        self.keep_alive(from);
        Ok(self.append_message(channel, from, is_owner, text))
    }

    pub(super) fn append_message(
        &mut self,
        channel: usize,
        from: Option<u64>,
        is_owner: bool,
        text: &str,
    ) -> u64 {
        let id = self.append(channel, Type::Message, from, Some(text), None);
        self.last_entry(channel).message.is_owner = is_owner;
        id
    }

    pub(super) fn append_introduction(
        &mut self,
        channel: usize,
        number: u64,
        by: Introducer,
        text: &str,
    ) -> u64 {
        let id = self.append(channel, Type::Introduction, Some(number), Some(text), None);
        let entry = self.last_entry(channel);
        (entry.message.is_owner, entry.address) = (by.is_owner, by.address);
        id
    }

    pub(super) fn last_entry(&mut self, channel: usize) -> &mut Entry {
        self.channels[channel].log.last_mut().expect("just added")
    }

    /// `new_auth` is the secret of a new session. Returns the session and the id.
    pub(crate) fn introduce(
        &mut self,
        channel: usize,
        text: &str,
        by: Introducer,
        shown: Option<&Identity>,
        new_auth: &str,
    ) -> Result<(u64, u64), hub::Error> {
        let known = self.authenticate_optional(shown)?;
        if let Some(number) = known {
            let memberships = self.memberships(number);
            if !memberships.contains(&channel) && memberships.len() >= CHANNELS_PER_SESSION_MAX {
                return Err(hub::Error::TooManyChannels);
            }
        }
        self.make_room(&[channel], false)?;
        let number = known.unwrap_or_else(|| {
            self.last_session += 1;
            let auth = new_auth.to_owned();
            let session = Session { auth, last_alive_ms: 0, closes_at_ms: None, is_ending: false };
            self.sessions.insert(self.last_session, session);
            self.last_session
        });
        self.keep_alive(Some(number));
        Ok((number, self.append_introduction(channel, number, by, text)))
    }

    pub(crate) fn goodbye(
        &mut self,
        shown: &Identity,
        channel: Option<usize>,
        text: Option<&str>,
    ) -> Result<(), hub::Error> {
        let number = self.authenticate(shown)?;
        let Some(channel) = channel else {
            self.end(number, Reason::Left, text);
            return Ok(());
        };
        if self.members(channel).contains_key(&number) {
            self.append(channel, Type::Goodbye, Some(number), text, Some(Reason::Left));
        }
        self.keep_alive(Some(number));
        Ok(())
    }

    pub(super) fn end(&mut self, number: u64, reason: Reason, text: Option<&str>) {
        self.tally.count(&format!("session ended: {reason:?}"));
        let memberships = self.memberships(number);
        self.tally.count_if(memberships.len() > 1, "goodbye in several channels");
        for channel in memberships {
            self.append(channel, Type::Goodbye, Some(number), text, Some(reason));
        }
        for read in self.pending.iter_mut().filter(|read| read.session == Some(number)) {
            read.session = None;
            read.is_orphan = true;
        }
        self.sessions.remove(&number);
        self.ended.insert(number, reason);
    }

    /// Returns the members with numbers above `after`, and the number of pending reads.
    pub(crate) fn ask_members(&mut self, channel: usize, after: u64) -> (Vec<Message>, usize) {
        if self.exists(channel) {
            self.used(channel);
        }
        let members = self.members(channel).into_iter().filter(|(number, _)| *number > after);
        let members: Vec<_> =
            members.map(|(_, its)| Message { is_owner: false, ..its.clone() }).collect();
        self.tally.count_if(after > 0 && !members.is_empty(), "rest of the members");
        (members, self.readers(channel))
    }
}

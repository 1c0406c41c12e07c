//! What the contract says, in the most simple-minded way.
//!
//! Every channel holds all messages that it was ever given; what is retained, who is a member, what is due is
//! found out anew each time, by looking at everything. Nothing here is fast, so nothing here needs to be clever.

use std::collections::BTreeMap;

use speak::hub::{self, Now, Reason};

use super::message::{Answer, Message, Type};
use super::plan::Limits;
use super::reads::Waiting;
use super::record::Tally;

/// Of a turn this many messages reach those who wait, where no history is retained.
const LIVE_MAX: u64 = 100;
const CHANNELS_PER_CONNECTION_MAX: usize = 32;

/// What a call shows to prove who it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) connection: u64,
    pub(crate) auth: String,
}

pub(super) struct Entry {
    pub(super) message: Message,
    pub(super) at_ms: u64,
    pub(super) turn: u64,
}

#[derive(Default)]
pub(super) struct Channel {
    /// All messages ever.
    pub(super) log: Vec<Entry>,
    pub(super) exists: bool,
    pub(super) next_id: u64,
    pub(super) last_use_ms: u64,
}

pub(super) struct Connection {
    auth: String,
    pub(super) last_alive_ms: u64,
    pub(super) closes_at_ms: Option<u64>,
}

/// What a waiting read is told in this turn.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) client: u64,
    pub(crate) answer: Answer,
    /// It waits no more.
    pub(crate) is_last: bool,
    /// The channels that it asked for.
    pub(crate) channels: Vec<usize>,
    /// The channels for which it is answered; none where it is answered with nothing.
    pub(crate) news: Vec<usize>,
}

/// What there is at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) channels: usize,
    pub(crate) connections: usize,
    pub(crate) readers: usize,
}

pub(crate) struct Model {
    pub(super) limits: Limits,
    pub(super) epoch: String,
    pub(super) now: Now,
    pub(super) turn: u64,
    pub(super) channels: Vec<Channel>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) last_connection: u64,
    /// How each connection ended.
    pub(super) ended: BTreeMap<u64, Reason>,
    /// In the order in which they began to wait.
    pub(super) waiting: Vec<Waiting>,
    /// Those that wait no more, and get nothing at the end of the turn.
    pub(super) dismissed: Vec<Due>,
    /// What every dropped channel would have given next.
    pub(super) resting_ids: Vec<u64>,
    /// How often each rule came to bear.
    pub(crate) tally: Tally,
}

impl Model {
    pub(crate) fn new(limits: Limits, channels: usize, epoch: &str) -> Self {
        let empty = || Channel { next_id: 1, ..Channel::default() };
        Self {
            limits,
            epoch: epoch.to_owned(),
            now: Now::default(),
            turn: 0,
            channels: std::iter::repeat_with(empty).take(channels).collect(),
            connections: BTreeMap::new(),
            last_connection: 0,
            ended: BTreeMap::new(),
            waiting: Vec::new(),
            dismissed: Vec::new(),
            resting_ids: Vec::new(),
            tally: Tally::default(),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now.mono.0
    }

    /// All that was ever said in a channel, whether anybody may still read it or not.
    pub(crate) fn messages_ever(&self, channel: usize) -> impl Iterator<Item = &Message> {
        self.channels[channel].log.iter().map(|entry| &entry.message)
    }

    pub(crate) fn exists(&self, channel: usize) -> bool {
        self.channels[channel].exists
    }

    pub(crate) fn next_id(&self, channel: usize) -> u64 {
        self.channels[channel].next_id
    }

    pub(crate) fn waits(&self, client: u64) -> bool {
        self.waiting.iter().any(|read| read.client == client)
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn waiting_clients(&self) -> Vec<u64> {
        self.waiting.iter().map(|read| read.client).collect()
    }

    /// The clients of reads whose connection is about to end unless they go on.
    pub(crate) fn waiting_in_grace(&self) -> Vec<u64> {
        let closes = |number: u64| self.connections[&number].closes_at_ms.is_some();
        let in_grace = self.waiting.iter().filter(|read| read.connection.is_some_and(closes));
        in_grace.map(|read| read.client).collect()
    }

    /// Any read that waits with a connection.
    pub(crate) fn waiting_with(&self, connection: u64) -> Option<u64> {
        self.waiting.iter().find(|read| read.connection == Some(connection)).map(|read| read.client)
    }

    /// On which channels a read waits, and with which connection.
    pub(crate) fn waits_for(&self, client: u64) -> (Vec<usize>, Option<Shown>) {
        let read = self.waiting.iter().find(|read| read.client == client).expect("it waits");
        let shown =
            |connection| Shown { connection, auth: self.connections[&connection].auth.clone() };
        (read.channels(), read.connection.map(shown))
    }

    pub(crate) fn living(&self) -> Vec<u64> {
        self.connections.keys().copied().collect()
    }

    /// Told where the ids of a channel that does not exist now will go on.
    ///
    /// The table of resting ids is a secret of the hub; what the contract says of it is checked.
    pub(crate) fn learn_next_id(&mut self, channel: usize, next_id: u64) {
        let known = self.channels[channel].next_id;
        assert!(next_id >= known, "ids of channel {channel} went back: from {known} to {next_id}");
        let from_the_table = next_id == known || self.resting_ids.contains(&next_id);
        assert!(from_the_table, "nothing rests at {next_id}, channel {channel} was at {known}");
        self.channels[channel].next_id = next_id;
        self.tally.count_if(next_id > known, "channel began where another name rests");
    }

    /// Everything of a channel that is there to be read.
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

    pub(crate) fn retained_messages(&self, channel: usize) -> impl Iterator<Item = &Message> {
        self.retained(channel).map(|entry| &entry.message)
    }

    pub(super) fn oldest_id(&self, channel: usize) -> u64 {
        self.retained(channel)
            .next()
            .map_or(self.channels[channel].next_id, |entry| entry.message.id)
    }

    /// The newest introduction of everybody who has not said goodbye since.
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

    pub(crate) fn memberships(&self, connection: u64) -> Vec<usize> {
        (0..self.channels.len())
            .filter(|channel| self.members(*channel).contains_key(&connection))
            .collect()
    }

    fn prove(&self, shown: &Shown) -> Result<u64, hub::Error> {
        let connection = self.connections.get(&shown.connection).ok_or(hub::Error::SessionEnded)?;
        if connection.auth == shown.auth {
            Ok(shown.connection)
        } else {
            Err(hub::Error::WrongAuth)
        }
    }

    pub(super) fn prove_maybe(&self, shown: Option<&Shown>) -> Result<Option<u64>, hub::Error> {
        shown.map(|shown| self.prove(shown)).transpose()
    }

    /// Whether these channels exist or may begin to.
    /// Where there is none, channels that are empty and unused go before their time, but for those that are asked for.
    pub(super) fn have_room(&mut self, channels: &[usize]) -> Result<(), hub::Error> {
        let new = channels.iter().filter(|channel| !self.exists(**channel)).count();
        let max = self.limits.max_channels;
        let has_room = |model: &Self| new == 0 || max == 0 || model.counts().channels + new <= max;
        if !has_room(self) {
            for channel in (0..self.channels.len()).filter(|channel| !channels.contains(channel)) {
                if self.lingers_until(channel).is_some() {
                    self.tally.count("unused channel gave room to another");
                    self.forget(channel);
                }
            }
        }
        if has_room(self) { Ok(()) } else { Err(hub::Error::OverCapacity) }
    }

    pub(super) fn used(&mut self, channel: usize) {
        self.channels[channel].last_use_ms = self.now_ms();
    }

    fn append(
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
        let message = Message { id, kind, time, from, text: text.map(str::to_owned), reason };
        channel.log.push(Entry { message, at_ms, turn });
        id
    }

    pub(super) fn keep_alive(&mut self, connection: Option<u64>) {
        let now_ms = self.now_ms();
        if let Some(connection) = connection.and_then(|number| self.connections.get_mut(&number)) {
            // A move may have told that it is alive later than this.
            connection.last_alive_ms = connection.last_alive_ms.max(now_ms);
            self.tally.count_if(connection.closes_at_ms.is_some(), "grace ended by a call");
            connection.closes_at_ms = None;
        }
    }

    pub(crate) fn write(
        &mut self,
        channel: usize,
        text: &str,
        shown: Option<&Shown>,
    ) -> Result<u64, hub::Error> {
        let from = self.prove_maybe(shown)?;
        self.have_room(&[channel])?;
        self.keep_alive(from);
        Ok(self.append(channel, Type::Message, from, Some(text), None))
    }

    /// `new_auth` is the secret of who shows none. Answers with the connection and the id.
    pub(crate) fn introduce(
        &mut self,
        channel: usize,
        text: &str,
        shown: Option<&Shown>,
        new_auth: &str,
    ) -> Result<(u64, u64), hub::Error> {
        let known = self.prove_maybe(shown)?;
        if let Some(number) = known {
            let memberships = self.memberships(number);
            if !memberships.contains(&channel) && memberships.len() >= CHANNELS_PER_CONNECTION_MAX {
                return Err(hub::Error::TooManyChannels);
            }
        }
        self.have_room(&[channel])?;
        let number = known.unwrap_or_else(|| {
            self.last_connection += 1;
            let connection =
                Connection { auth: new_auth.to_owned(), last_alive_ms: 0, closes_at_ms: None };
            self.connections.insert(self.last_connection, connection);
            self.last_connection
        });
        self.keep_alive(Some(number));
        Ok((number, self.append(channel, Type::Introduction, Some(number), Some(text), None)))
    }

    pub(crate) fn goodbye(
        &mut self,
        shown: &Shown,
        channel: Option<usize>,
        text: Option<&str>,
    ) -> Result<(), hub::Error> {
        let number = self.prove(shown)?;
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
        self.tally.count(&format!("connection ended: {reason:?}"));
        let memberships = self.memberships(number);
        self.tally.count_if(memberships.len() > 1, "goodbye in several channels");
        for channel in memberships {
            self.append(channel, Type::Goodbye, Some(number), text, Some(reason));
        }
        for read in self.waiting.iter_mut().filter(|read| read.connection == Some(number)) {
            read.connection = None;
            read.is_orphan = true;
        }
        self.connections.remove(&number);
        self.ended.insert(number, reason);
    }

    /// Who is there, and how many reads wait.
    pub(crate) fn ask_members(&mut self, channel: usize) -> (Vec<Message>, usize) {
        if self.exists(channel) {
            self.used(channel);
        }
        let members = self.members(channel).into_values().cloned().collect();
        (members, self.readers(channel))
    }
}

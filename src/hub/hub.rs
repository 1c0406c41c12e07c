//! Calls in; wake-ups and the next deadline out.

use std::collections::HashMap;
use std::time::Duration;

use super::channel::{Channel, Member, Retention};
use super::channel_name::LogName;
use super::entry::Spot;
use super::error::Refusal;
use super::id_watermarks::RestingIds;
use super::ids::{Auth, Epoch};
use super::message::{Content, Reason};
use super::paged_slab::Pages;
use super::reader::{Reader, ReaderKey};
use super::session::{CHANNELS_PER_CONNECTION_MAX, Connection, Credentials};
use super::slab::Slots;
use super::stats::Tally;
use super::time::{Millis, Now};
use super::timer_wheel::TimerWheel;
use super::usage::Holding;

/// How long a channel without messages, members and readers lingers after its last use.
pub(super) const LINGER_MS: u64 = 60_000;

/// What a message takes beside its text, and a channel and a connection that come into being with it: roughly.
pub(super) const SAYING_MEMORY: usize = 512;

/// What the operator decides, and what a start draws at random.
#[derive(Clone, Debug)]
pub struct Config {
    /// Messages retained in a channel; 0 retains none.
    pub history: usize,
    /// How long a message is retained.
    pub retention: Duration,
    /// How long a connection outlives its last call.
    pub connection_timeout: Duration,
    /// How long it outlives the closing of a read that waited with it.
    pub close_grace: Duration,
    /// Bytes of messages in one answer.
    pub max_reply: usize,
    /// Channels at once; 0 for no limit.
    pub max_channels: usize,
    /// Bytes that may be held for clients.
    pub max_memory: usize,
    /// Names this numbering of ids.
    pub epoch: Epoch,
    /// Secret of the table in which dropped channels leave their ids.
    pub resting_key: [u8; 16],
}

/// Who introduces itself.
pub enum Who<'a> {
    /// Somebody new, who gets this secret.
    New(Auth),
    /// A connection that lives.
    Again(Credentials<'a>),
}

/// The outcome of an introduction.
pub struct Introduced {
    /// The connection's number.
    pub connection: u64,
    /// Its secret.
    pub auth: Auth,
    /// The id of the introduction.
    pub id: u64,
}

/// Who is introduced in a channel, and how many reads wait there.
pub struct Members<'h> {
    channel: Option<&'h Channel>,
}

impl Members<'_> {
    /// Connection numbers and their newest introductions, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Member)> {
        self.channel.into_iter().flat_map(|channel| channel.members.iter().map(|(number, member)| (*number, member)))
    }

    /// How many reads wait on the channel.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.channel.map_or(0, |channel| channel.readers)
    }
}

/// What a timer is for, by place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    /// A connection may have ended.
    Connection(u32),
    /// A channel has something to forget, or may be forgotten.
    Channel(u32),
}

/// What a hub holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Channels that exist.
    pub channels: usize,
    /// Connections that live.
    pub connections: usize,
    /// Reads that wait.
    pub readers: usize,
    /// Timers that are set.
    pub timers: usize,
    /// Messages retained in all channels.
    pub messages: usize,
}

/// The server's memory. See the module for what it does not do.
pub struct Hub {
    pub(super) config: Config,
    pub(super) retention: Retention,
    /// For putting a message together.
    pub(super) scratch: Vec<u8>,
    pub(super) timeout_ms: u64,
    pub(super) grace_ms: u64,
    pub(super) channels: Pages<Channel>,
    /// Names come from strangers: `std`'s `SipHash` with a random key cannot be flooded.
    pub(super) names: HashMap<Box<str>, u32>,
    pub(super) resting_ids: RestingIds,
    pub(super) connections: Pages<Connection>,
    pub(super) numbers: HashMap<u64, u32>,
    pub(super) last_number: u64,
    /// What all channels hold.
    pub(super) held: Holding,
    pub(super) tally: Tally,
    /// What reads that wait on several channels take for them, in bytes.
    pub(super) seats: usize,
    /// The place of the channel that is looked at next where room has to be made.
    pub(super) hand: u32,
    /// Bytes held for clients outside of the hub.
    pub(super) outside: usize,
    pub(super) readers: Slots<Reader>,
    pub(super) wheel: TimerWheel<Alarm>,
    /// Channels to which this turn added something.
    pub(super) marked: Vec<u32>,
    /// Readers whose connection ended this turn: answered with its goodbye where they see it, else with nothing.
    pub(super) orphans: Vec<ReaderKey>,
    /// Readers that are to be answered with nothing: replaced, or waited long enough.
    pub(super) dismissed: Vec<Reader>,
}

impl Hub {
    /// An empty hub whose time begins at 0.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            retention: Retention { messages: config.history, ms: millis(config.retention) },
            scratch: Vec::new(),
            timeout_ms: millis(config.connection_timeout),
            grace_ms: millis(config.close_grace),
            channels: Pages::new(),
            names: HashMap::new(),
            resting_ids: RestingIds::new(config.resting_key),
            connections: Pages::new(),
            numbers: HashMap::new(),
            last_number: 0,
            held: Holding::default(),
            tally: Tally::default(),
            seats: 0,
            hand: 0,
            outside: 0,
            readers: Slots::default(),
            wheel: TimerWheel::new(Millis(0)),
            marked: Vec::new(),
            orphans: Vec::new(),
            dismissed: Vec::new(),
            config,
        }
    }

    /// Names this numbering of ids.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.config.epoch
    }

    /// How long a connection outlives its last call.
    #[must_use]
    pub fn connection_timeout(&self) -> Duration {
        self.config.connection_timeout
    }

    /// Adds a message and returns its id. Constant time: readers are woken by [`Hub::deliver`].
    ///
    /// # Errors
    ///
    /// A [`Refusal`] of the credentials, or of one more channel.
    pub fn write(
        &mut self,
        now: Now,
        log: &LogName<'_>,
        text: &str,
        credentials: Option<Credentials<'_>>,
    ) -> Result<u64, Refusal> {
        let sender = self.authenticate_maybe(credentials)?;
        let spot = self.spot(log);
        self.room_for(now.mono, &[spot])?;
        self.memory_for(now.mono, text.len() + SAYING_MEMORY, &[spot])?;
        let channel = self.channel_at(spot, log, now.mono);
        let from = sender.map(|place| self.connections[place as usize].number);
        let id = self.append(now, channel, Content::Message { from, text });
        self.touch(sender, now.mono);
        Ok(id)
    }

    /// Introduces somebody in a channel. The newest introduction is the one that newcomers see.
    ///
    /// # Errors
    ///
    /// Any [`Refusal`].
    pub fn introduce(&mut self, now: Now, log: &LogName<'_>, text: &str, who: Who<'_>) -> Result<Introduced, Refusal> {
        let spot = self.spot(log);
        let known = match &who {
            Who::New(_) => None,
            Who::Again(credentials) => {
                let place = self.authenticate(*credentials)?;
                let channels = &self.connections[place as usize].channels;
                let is_in = matches!(spot, Spot::Channel(channel) if channels.contains(&channel));
                if !is_in && channels.len() == CHANNELS_PER_CONNECTION_MAX {
                    return Err(Refusal::TooManyChannels);
                }
                Some(place)
            }
        };
        self.room_for(now.mono, &[spot])?;
        self.memory_for(now.mono, 3 * (text.len() + SAYING_MEMORY), &[spot])?;
        let channel = self.channel_at(spot, log, now.mono);
        let place = match (known, who) {
            (None, Who::New(auth)) => self.connect(auth, now.mono),
            (Some(place), _) => place,
            (None, Who::Again(_)) => unreachable!("authenticated above"),
        };
        let connection = &mut self.connections[place as usize];
        if !connection.channels.contains(&channel) {
            connection.channels.push(channel);
        }
        let (number, auth) = (connection.number, connection.auth.clone());
        let id = self.append(now, channel, Content::Introduction { from: number, text });
        self.touch(Some(place), now.mono);
        Ok(Introduced { connection: number, auth, id })
    }

    /// Leaves one channel, or ends the connection. Leaving a channel that it is not in adds nothing.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] of the credentials.
    pub fn goodbye(
        &mut self,
        now: Now,
        credentials: Credentials<'_>,
        log: Option<&LogName<'_>>,
        text: Option<&str>,
    ) -> Result<(), Refusal> {
        let place = self.authenticate(credentials)?;
        let Some(log) = log else {
            self.end_connection(now, place, Reason::Left, text);
            return Ok(());
        };
        let channel = self.find(log);
        let connection = &mut self.connections[place as usize];
        let position = connection.channels.iter().position(|its| Some(*its) == channel);
        if let (Some(position), Some(channel)) = (position, channel) {
            connection.channels.remove(position);
            let from = connection.number;
            self.room_for_words(now.mono, text, 1);
            self.append(now, channel, Content::Goodbye { from, reason: Reason::Left, text });
        }
        self.touch(Some(place), now.mono);
        Ok(())
    }

    /// Who is in a channel now.
    #[must_use]
    pub fn members(&mut self, now: Now, log: &LogName<'_>) -> Members<'_> {
        let channel = self.find(log).map(|place| {
            let channel = &mut self.channels[place as usize];
            channel.last_use = now.mono;
            &*channel
        });
        Members { channel }
    }

    /// When [`Hub::expire`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.wheel.next_deadline()
    }

    /// Does what is due: connections that fell silent, history that is old, channels that nobody uses.
    pub fn expire(&mut self, now: Now) {
        while let Some(alarm) = self.wheel.pop(now.mono) {
            match alarm {
                Alarm::Connection(place) => {
                    self.connections[place as usize].timer = None;
                    self.check_connection(now, place);
                }
                Alarm::Channel(place) => {
                    self.channels[place as usize].timer = None;
                    self.check_channel(now.mono, place);
                }
            }
        }
    }

    /// What it has done since it began.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How many channels, connections and waiting reads there are, and timers for them.
    #[must_use]
    pub fn census(&self) -> Census {
        Census {
            channels: self.channels.len(),
            connections: self.connections.len(),
            readers: self.readers.len(),
            timers: self.wheel.len(),
            messages: self.held.messages,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use std::hash::BuildHasher;

    use super::*;

    /// A hub as usual, but for its memory.
    pub(in crate::hub) fn hub(max_memory: usize) -> Hub {
        Hub::new(Config {
            history: 100,
            retention: Duration::from_secs(3600),
            connection_timeout: Duration::from_secs(5),
            close_grace: Duration::ZERO,
            max_reply: 1 << 20,
            max_channels: 0,
            max_memory,
            epoch: Epoch::new(*b"aaaaaaaa"),
            resting_key: [0; 16],
        })
    }

    /// Whoever knew the hash could name channels that all have the same, and make each look-up a walk through all of them.
    #[test]
    fn a_name_has_another_hash_in_every_hub() {
        let (one, other) = (hub(0), hub(0));
        for name in ["", "lobby", "~wABCDEFGHIJKLMNOPQRSTUV"] {
            assert_ne!(one.names.hasher().hash_one(name), other.names.hasher().hash_one(name));
        }
    }
}

//! Calls in; wake-ups and the next deadline out.

use std::collections::HashMap;
use std::time::Duration;

use super::channel::{Channel, Member, Retention};
use super::channel_name::ChannelKey;
use super::config::Config;
use super::error::Error;
use super::id_watermarks::IdWatermarks;
use super::ids::{Auth, Epoch};
use super::lookup::Lookup;
use super::message::{MessageKind, Reason};
use super::paged_slab::PagedSlab;
use super::reader::{Reader, ReaderKey};
use super::session::{CHANNELS_PER_CONNECTION_MAX, Credentials, Session};
use super::slab::Slab;
use super::stats::Stats;
use super::time::{Millis, Now};
use super::timer_wheel::TimerWheel;
use super::usage::Usage;

/// How long a channel without messages, members and readers lingers after its last use.
pub(super) const IDLE_CHANNEL_MS: u64 = 60_000;

/// What a message takes beside its text, and a channel and a connection that come into being with it: roughly.
pub(super) const WRITE_OVERHEAD_BYTES: usize = 512;

/// Who introduces itself.
pub enum Introducer<'a> {
    /// Somebody new, who gets this secret.
    New(Auth),
    /// A connection that lives.
    Existing(Credentials<'a>),
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
        self.channel
            .into_iter()
            .flat_map(|channel| channel.members.iter().map(|(number, member)| (*number, member)))
    }

    /// How many reads wait on the channel.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.channel.map_or(0, |channel| channel.reader_count)
    }
}

/// What a timer is for, by place.
#[derive(Clone, Copy, Debug)]
pub(super) enum TimerKey {
    /// A connection may have ended.
    Connection(u32),
    /// A channel has something to forget, or may be forgotten.
    Channel(u32),
}

/// What a hub holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Channels that exist.
    pub channels: usize,
    /// Connections that live.
    pub sessions: usize,
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
    pub(super) session_timeout_ms: u64,
    pub(super) close_grace_ms: u64,
    pub(super) channels: PagedSlab<Channel>,
    /// Names come from strangers: `std`'s `SipHash` with a random key cannot be flooded.
    pub(super) channels_by_name: HashMap<Box<str>, u32>,
    pub(super) id_watermarks: IdWatermarks,
    pub(super) sessions: PagedSlab<Session>,
    pub(super) sessions_by_number: HashMap<u64, u32>,
    pub(super) last_session: u64,
    /// What all channels hold.
    pub(super) usage: Usage,
    pub(super) stats: Stats,
    /// What reads that wait on several channels take for them, in bytes.
    pub(super) subscription_bytes: usize,
    /// The place of the channel that is looked at next where room has to be made.
    pub(super) eviction_cursor: u32,
    /// Bytes held for clients outside of the hub.
    pub(super) external_bytes: usize,
    pub(super) readers: Slab<Reader>,
    pub(super) timers: TimerWheel<TimerKey>,
    /// Channels to which this turn added something.
    pub(super) dirty_channels: Vec<u32>,
    /// Readers whose connection ended this turn: answered with its goodbye where they see it, else with nothing.
    pub(super) orphaned_readers: Vec<ReaderKey>,
    /// Readers that are to be answered with nothing: replaced, or waited long enough.
    pub(super) cancelled_readers: Vec<Reader>,
}

impl Hub {
    /// An empty hub whose time begins at 0.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            retention: Retention { messages: config.history, ms: millis(config.retention) },
            scratch: Vec::new(),
            session_timeout_ms: millis(config.connection_timeout),
            close_grace_ms: millis(config.close_grace),
            channels: PagedSlab::new(),
            channels_by_name: HashMap::new(),
            id_watermarks: IdWatermarks::new(config.watermark_hash_key),
            sessions: PagedSlab::new(),
            sessions_by_number: HashMap::new(),
            last_session: 0,
            usage: Usage::default(),
            stats: Stats::default(),
            subscription_bytes: 0,
            eviction_cursor: 0,
            external_bytes: 0,
            readers: Slab::default(),
            timers: TimerWheel::new(Millis(0)),
            dirty_channels: Vec::new(),
            orphaned_readers: Vec::new(),
            cancelled_readers: Vec::new(),
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
    /// A [`Error`] of the credentials, or of one more channel.
    pub fn write(
        &mut self,
        now: Now,
        log: &ChannelKey<'_>,
        text: &str,
        credentials: Option<Credentials<'_>>,
    ) -> Result<u64, Error> {
        let sender = self.authenticate_optional(credentials)?;
        let spot = self.entry(log);
        self.ensure_capacity(now.mono, &[spot])?;
        self.reserve(now.mono, text.len() + WRITE_OVERHEAD_BYTES, &[spot])?;
        let channel = self.get_or_create(spot, log, now.mono);
        let from = sender.map(|place| self.sessions[place as usize].number);
        let id = self.append(now, channel, MessageKind::Message { from, text });
        self.touch(sender, now.mono);
        Ok(id)
    }

    /// Introduces somebody in a channel. The newest introduction is the one that newcomers see.
    ///
    /// # Errors
    ///
    /// Any [`Error`].
    pub fn introduce(
        &mut self,
        now: Now,
        log: &ChannelKey<'_>,
        text: &str,
        who: Introducer<'_>,
    ) -> Result<Introduced, Error> {
        let spot = self.entry(log);
        let known = match &who {
            Introducer::New(_) => None,
            Introducer::Existing(credentials) => {
                let place = self.authenticate(*credentials)?;
                let channels = &self.sessions[place as usize].channels;
                let is_in =
                    matches!(spot, Lookup::Occupied(channel) if channels.contains(&channel));
                if !is_in && channels.len() == CHANNELS_PER_CONNECTION_MAX {
                    return Err(Error::TooManyChannels);
                }
                Some(place)
            }
        };
        self.ensure_capacity(now.mono, &[spot])?;
        self.reserve(now.mono, 3 * (text.len() + WRITE_OVERHEAD_BYTES), &[spot])?;
        let channel = self.get_or_create(spot, log, now.mono);
        let place = match (known, who) {
            (None, Introducer::New(auth)) => self.create_session(auth, now.mono),
            (Some(place), _) => place,
            (None, Introducer::Existing(_)) => unreachable!("authenticated above"),
        };
        let connection = &mut self.sessions[place as usize];
        if !connection.channels.contains(&channel) {
            connection.channels.push(channel);
        }
        let (number, auth) = (connection.number, connection.auth.clone());
        let id = self.append(now, channel, MessageKind::Introduction { from: number, text });
        self.touch(Some(place), now.mono);
        Ok(Introduced { connection: number, auth, id })
    }

    /// Leaves one channel, or ends the connection. Leaving a channel that it is not in adds nothing.
    ///
    /// # Errors
    ///
    /// A [`Error`] of the credentials.
    pub fn goodbye(
        &mut self,
        now: Now,
        credentials: Credentials<'_>,
        log: Option<&ChannelKey<'_>>,
        text: Option<&str>,
    ) -> Result<(), Error> {
        let place = self.authenticate(credentials)?;
        let Some(log) = log else {
            self.end_session(now, place, Reason::Left, text);
            return Ok(());
        };
        let channel = self.find(log);
        let connection = &mut self.sessions[place as usize];
        let position = connection.channels.iter().position(|its| Some(*its) == channel);
        if let (Some(position), Some(channel)) = (position, channel) {
            connection.channels.remove(position);
            let from = connection.number;
            self.reserve_for_goodbye(now.mono, text, 1);
            self.append(now, channel, MessageKind::Goodbye { from, reason: Reason::Left, text });
        }
        self.touch(Some(place), now.mono);
        Ok(())
    }

    /// Who is in a channel now.
    #[must_use]
    pub fn members(&mut self, now: Now, log: &ChannelKey<'_>) -> Members<'_> {
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
        self.timers.next_deadline()
    }

    /// Does what is due: connections that fell silent, history that is old, channels that nobody uses.
    pub fn expire(&mut self, now: Now) {
        while let Some(alarm) = self.timers.pop(now.mono) {
            match alarm {
                TimerKey::Connection(place) => {
                    self.sessions[place as usize].timer = None;
                    self.on_session_timer(now, place);
                }
                TimerKey::Channel(place) => {
                    self.channels[place as usize].timer = None;
                    self.on_channel_timer(now.mono, place);
                }
            }
        }
    }

    /// What it has done since it began.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How many channels, connections and waiting reads there are, and timers for them.
    #[must_use]
    pub fn census(&self) -> Gauges {
        Gauges {
            channels: self.channels.len(),
            sessions: self.sessions.len(),
            readers: self.readers.len(),
            timers: self.timers.len(),
            messages: self.usage.messages,
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

    /// A hub with the default settings and this memory limit.
    pub(in crate::hub) fn hub(max_memory: usize) -> Hub {
        Hub::new(Config { max_memory, ..Config::default() })
    }

    /// Whoever knew the hash could name channels that all have the same, and make each look-up a walk through all of them.
    #[test]
    fn a_name_has_another_hash_in_every_hub() {
        let (one, other) = (hub(0), hub(0));
        for name in ["", "lobby", "~wABCDEFGHIJKLMNOPQRSTUV"] {
            assert_ne!(
                one.channels_by_name.hasher().hash_one(name),
                other.channels_by_name.hasher().hash_one(name)
            );
        }
    }
}

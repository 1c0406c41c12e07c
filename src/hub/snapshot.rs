//! A hub piece by piece, to be kept while no process holds it, and put together again.
//!
//! Channels, connections and ids go on as if nothing had happened but the time that passed. Waiting reads do not: their
//! clients come back. How the pieces become bytes is the business of [`state`](crate::snapshot).

use std::collections::HashMap;

use minicbor::{Decode, Encode};

use super::channel::{Channel, Member};
use super::channel_name::{ChannelKey, ChannelName};
use super::config::Config;
use super::hub::Hub;
use super::id_watermarks::IdWatermarks;
use super::ids::{Auth, Epoch, ID_MAX, TOKEN_BYTES};
use super::message::Entry;
use super::session::{CHANNELS_PER_CONNECTION_MAX, Session};
use super::time::{Millis, Now};
use super::timer_wheel::TimerWheel;
use super::usage::Usage;

/// One piece. They come in the order of the variants: the numbering once, then the others.
///
/// Holds secrets, so it prints nothing.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum SnapshotRecord<'a> {
    /// What stands above all channels.
    #[n(0)]
    Header(#[n(0)] SnapshotHeader),
    /// What dropped channels left in one place of the table.
    #[n(1)]
    IdWatermark {
        /// Which place.
        #[n(0)]
        bucket: u16,
        /// Where a new channel of that place begins.
        #[n(1)]
        next_id: u64,
    },
    /// A channel.
    #[n(2)]
    Channel(#[b(0)] SnapshotChannel<'a>),
    /// A connection. All its channels have come before.
    #[n(3)]
    Connection(#[b(0)] SnapshotSession<'a>),
}

/// What stands above all channels. Times of the other pieces are of its clock.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotHeader {
    /// When this was saved, in milliseconds of the clock that deadlines are of.
    #[n(0)]
    pub mono_ms: u64,
    /// The same moment in milliseconds since 1970 (UTC).
    #[n(1)]
    pub unix_ms: u64,
    /// Names the numbering of ids.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub epoch: [u8; 8],
    /// Secret of the table of resting ids.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub resting_key: [u8; 16],
    /// The number of the newest connection that ever was.
    #[n(4)]
    pub last_connection: u64,
}

/// A channel with its history and its members.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotChannel<'a> {
    /// Under which its log is kept: of a pair, the write half.
    #[b(0)]
    pub name: &'a str,
    /// The id of its first entry; of the next one where it has none.
    #[n(1)]
    pub first_id: u64,
    /// When it was last used.
    #[n(2)]
    pub last_use_ms: u64,
    /// Its messages, oldest first.
    #[b(3)]
    pub entries: Vec<SnapshotEntry<'a>>,
    /// Who is introduced in it.
    #[b(4)]
    pub members: Vec<SnapshotMember<'a>>,
}

/// A retained message.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotEntry<'a> {
    /// When it was added.
    #[n(0)]
    pub at_ms: u64,
    /// The message as every reader gets it.
    #[b(1)]
    pub json: &'a str,
}

/// A connection's place in one channel.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotMember<'a> {
    /// Its number.
    #[n(0)]
    pub connection: u64,
    /// The id of its newest introduction.
    #[n(1)]
    pub id: u64,
    /// The `time` of it.
    #[n(2)]
    pub unix_ms: u64,
    /// What it said, as a JSON string.
    #[b(3)]
    pub text: &'a str,
    /// The whole message.
    #[b(4)]
    pub introduction: &'a str,
}

/// A connection.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotSession<'a> {
    /// Its number.
    #[n(0)]
    pub number: u64,
    /// Its secret.
    #[b(1)]
    pub auth: &'a str,
    /// Where it is introduced, in the order in which it came there: how many channels were saved before that one.
    #[n(2)]
    pub channels: Vec<u32>,
    /// When it was last heard of.
    #[n(3)]
    pub last_alive_ms: u64,
    /// When the closing of a read ends it.
    #[n(4)]
    pub closes_at_ms: Option<u64>,
}

/// What was saved cannot have been a hub; says what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(pub &'static str);

impl Hub {
    /// Gives itself away piece by piece. To be called between turns, when everything is delivered.
    ///
    /// A connection with which a read waits is saved as one that was heard of `reads_end_ms` from now: until then whoever keeps
    /// the clients has answered those reads.
    ///
    /// # Errors
    ///
    /// The first one of `take`.
    pub fn save<E>(
        &self,
        now: Now,
        reads_end_ms: u64,
        mut take: impl FnMut(&SnapshotRecord<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        assert!(!self.has_undelivered(), "a turn has ended");
        take(&SnapshotRecord::Header(SnapshotHeader {
            mono_ms: now.mono.0,
            unix_ms: now.unix_ms,
            epoch: *self.config.epoch.as_bytes(),
            resting_key: self.id_watermarks.key(),
            last_connection: self.last_session,
        }))?;
        for (bucket, next_id) in self.id_watermarks.iter() {
            take(&SnapshotRecord::IdWatermark { bucket, next_id })?;
        }
        let mut ordinals = HashMap::new();
        for (ordinal, (place, channel)) in self.channels.iter().enumerate() {
            ordinals.insert(place, ordinal as u32);
            take(&SnapshotRecord::Channel(channel.saved(now.mono)))?;
        }
        for (_, connection) in self.sessions.iter() {
            take(&SnapshotRecord::Connection(
                connection.saved(now.mono.after(reads_end_ms), &ordinals),
            ))?;
        }
        Ok(())
    }
}

impl Channel {
    fn saved(&self, now: Millis) -> SnapshotChannel<'_> {
        let entries = self
            .entries
            .iter()
            .map(|entry| SnapshotEntry { at_ms: entry.at.0, json: text(&entry.json) });
        let members = self.members.iter().map(|(number, member)| SnapshotMember {
            connection: *number,
            id: member.id,
            unix_ms: member.unix_ms,
            text: text(&member.text_json),
            introduction: text(&member.introduction_json),
        });
        SnapshotChannel {
            name: &self.name,
            first_id: self.first_id,
            // Waiting is a use.
            last_use_ms: if self.reader_count > 0 { now.0 } else { self.last_use.0 },
            entries: entries.collect(),
            members: members.collect(),
        }
    }
}

impl Session {
    fn saved(&self, reads_end: Millis, ordinals: &HashMap<u32, u32>) -> SnapshotSession<'_> {
        let (last_alive, closes_at) = if self.reader_count.is_empty() {
            (self.last_alive, self.closes_at)
        } else {
            // A grace that runs out while a read waits was not needed.
            (reads_end, self.closes_at.filter(|at| *at > reads_end))
        };
        SnapshotSession {
            number: self.number,
            auth: self.auth.reveal(),
            channels: self.channels.iter().map(|place| ordinals[place]).collect(),
            last_alive_ms: last_alive.0,
            closes_at_ms: closes_at.map(|at| at.0),
        }
    }
}

fn text(json: &[u8]) -> &str {
    str::from_utf8(json).expect("messages are kept as JSON, which is UTF-8")
}

/// A hub that is being put together again.
pub struct SnapshotLoader {
    hub: Hub,
    now: Now,
    /// How long no process held it. Nobody falls silent in that time.
    downtime_ms: u64,
    /// The places of the channels, in the order in which they came.
    channels: Vec<u32>,
    /// Members of channels for whom no connection has come yet.
    members_left: usize,
}

impl SnapshotLoader {
    /// Begins with the numbering, whose epoch and secret stand in for those of `config`. It is `unix_ms` since 1970 now.
    ///
    /// # Errors
    ///
    /// [`Damaged`].
    pub fn begin(config: &Config, saved: &SnapshotHeader, unix_ms: u64) -> Result<Self, Corrupt> {
        check(saved.epoch.iter().all(u8::is_ascii_alphanumeric), "the epoch is not one")?;
        check(saved.last_connection <= ID_MAX, "a connection's number is too large")?;
        check(saved.mono_ms <= ID_MAX, "its clock was beyond the end of time")?;
        // A clock that was set back meanwhile: as if no time had passed.
        let downtime_ms = unix_ms.saturating_sub(saved.unix_ms).min(ID_MAX);
        let now = Now { mono: Millis(saved.mono_ms).after(downtime_ms), unix_ms };
        let mut hub = Hub::new(Config {
            epoch: Epoch::new(saved.epoch),
            watermark_hash_key: saved.resting_key,
            ..config.clone()
        });
        hub.last_session = saved.last_connection;
        hub.timers = TimerWheel::new(now.mono);
        hub.id_watermarks = IdWatermarks::new(saved.resting_key);
        Ok(Self { hub, now, downtime_ms, channels: Vec::new(), members_left: 0 })
    }

    /// Takes one more piece.
    ///
    /// # Errors
    ///
    /// [`Damaged`].
    pub fn load(&mut self, saved: &SnapshotRecord<'_>) -> Result<(), Corrupt> {
        match saved {
            SnapshotRecord::Header(_) => Err(Corrupt("it has two numberings")),
            SnapshotRecord::IdWatermark { bucket, next_id } => check(
                *next_id <= ID_MAX && self.hub.id_watermarks.restore(*bucket, *next_id),
                "an id rests nowhere",
            ),
            SnapshotRecord::Channel(channel) => self.take_channel(channel),
            SnapshotRecord::Connection(connection) => self.take_connection(connection),
        }
    }

    fn take_channel(&mut self, saved: &SnapshotChannel<'_>) -> Result<(), Corrupt> {
        let log = log_name(saved.name).ok_or(Corrupt("a channel's name is not one"))?;
        check(self.hub.find(&log).is_none(), "a channel is there twice")?;
        let next_id = saved.first_id.checked_add(saved.entries.len() as u64);
        check(
            saved.first_id > 0 && next_id.is_some_and(|id| id <= ID_MAX),
            "a message's id is out of range",
        )?;
        let mut channel = Channel::new(
            log.as_str(),
            saved.first_id,
            self.now.mono.min(Millis(saved.last_use_ms)),
        );
        for entry in &saved.entries {
            let at = Millis(entry.at_ms);
            check(
                channel.entries.back().is_none_or(|last| last.at <= at) && at <= self.now.mono,
                "time ran backwards",
            )?;
            channel.restore_entry(Entry { at, json: entry.json.as_bytes().into() });
        }
        for member in &saved.members {
            check(member.id < channel.next_id(), "an introduction is to come yet")?;
            let restored = Member {
                id: member.id,
                unix_ms: member.unix_ms,
                text_json: member.text.as_bytes().into(),
                introduction_json: member.introduction.as_bytes().into(),
            };
            check(
                channel.restore_member(member.connection, restored),
                "somebody is in a channel twice",
            )?;
        }
        // The operator may have chosen a shorter history meanwhile.
        channel.trim_to(self.hub.retention.messages);
        self.members_left += channel.members.len();
        self.hub.usage.update(Usage::default(), channel.holds());
        let place = self.hub.channels.insert(channel);
        self.hub.channels_by_name.insert(log.as_str().into(), place);
        self.hub.arm_channel_timer(place);
        self.channels.push(place);
        Ok(())
    }

    fn take_connection(&mut self, saved: &SnapshotSession<'_>) -> Result<(), Corrupt> {
        let number = saved.number;
        check(
            (1..=self.hub.last_session).contains(&number),
            "a connection's number was never given",
        )?;
        check(!self.hub.sessions_by_number.contains_key(&number), "a connection is there twice")?;
        let auth = saved.auth.as_bytes();
        check(auth.iter().all(u8::is_ascii_alphanumeric), "a secret is not one")?;
        let auth: [u8; TOKEN_BYTES] =
            auth.try_into().map_err(|_| Corrupt("a secret is not one"))?;
        check(
            saved.channels.len() <= CHANNELS_PER_CONNECTION_MAX,
            "a connection is in too many channels",
        )?;
        let shifted = |ms: u64| Millis(ms).after(self.downtime_ms);
        let mut connection = Session::new(number, Auth::new(auth), shifted(saved.last_alive_ms));
        connection.closes_at = saved.closes_at_ms.map(shifted);
        for ordinal in &saved.channels {
            let place = *self
                .channels
                .get(*ordinal as usize)
                .ok_or(Corrupt("a connection is in no channel"))?;
            let is_member = self.hub.channels[place as usize].members.contains_key(&number);
            check(
                is_member && !connection.channels.contains(&place),
                "a connection is in no channel",
            )?;
            connection.channels.push(place);
        }
        self.members_left -= connection.channels.len();
        let place = self.hub.sessions.insert(connection);
        self.hub.sessions_by_number.insert(number, place);
        self.hub.arm_session_timer(place);
        Ok(())
    }

    /// The whole, and what time it is there. What fell due meanwhile is for the next [`Hub::expire`].
    ///
    /// # Errors
    ///
    /// [`Damaged`].
    pub fn finish(self) -> Result<(Hub, Now), Corrupt> {
        check(self.members_left == 0, "somebody in a channel has no connection")?;
        Ok((self.hub, self.now))
    }
}

fn log_name(name: &str) -> Option<ChannelKey<'_>> {
    ChannelName::parse(name).ok()?.for_writing().ok()
}

fn check(is_right: bool, fault: &'static str) -> Result<(), Corrupt> {
    if is_right { Ok(()) } else { Err(Corrupt(fault)) }
}

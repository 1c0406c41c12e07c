//! Loading a hub from a snapshot.

use super::bans::{Address, Bans};
use super::channel::{Channel, Member};
use super::channel_name::ChannelKey;
use super::channels::Channels;
use super::config::Config;
use super::ids::{Auth, Epoch, ID_MAX, TOKEN_BYTES};
use super::message::Entry;
use super::nodes::SavedCluster;
use super::session::{CHANNELS_PER_SESSION_MAX, Session};
use super::sessions::Sessions;
use super::snapshot::{
    Corrupt, SnapshotChannel, SnapshotHeader, SnapshotLog, SnapshotRecord, SnapshotSession,
    by_introduction,
};
use super::time::{Millis, Now};
use super::timers::Timers;

/// Loads a snapshot record by record, for [`Hub::restore`](super::Hub::restore).
pub struct SnapshotLoader {
    config: Config,
    channels: Channels,
    sessions: Sessions,
    timers: Timers,
    now: Now,
    /// Time of the snapshot. None of its messages is newer.
    saved_at: Millis,
    log: Option<SnapshotLog>,
    cluster: Option<SavedCluster>,
    /// Time during which no process had the hub. Session timeouts were paused.
    downtime_ms: u64,
    /// Indexes of the channels in the order of their records.
    loaded_channels: Vec<u32>,
    /// Number of members of channels for which no session was loaded yet.
    members_left: usize,
}

/// Parts of a hub that a snapshot holds.
pub(super) struct Restored {
    /// Settings of the hub, with the epoch and the hash key of the snapshot.
    pub(super) config: Config,
    pub(super) channels: Channels,
    pub(super) sessions: Sessions,
    pub(super) timers: Timers,
    pub(super) now: Now,
    /// Time of the snapshot, by the monotonic clock that `now` continues.
    pub(super) saved_at: Millis,
    pub(super) log: Option<SnapshotLog>,
    pub(super) cluster: Option<SavedCluster>,
}

impl SnapshotLoader {
    /// Begins with the header. Its epoch and hash key replace those of `config`. `unix_ms` is the
    /// present time, in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Corrupt`].
    pub fn begin(config: &Config, header: &SnapshotHeader, unix_ms: u64) -> Result<Self, Corrupt> {
        check(header.epoch.iter().all(u8::is_ascii_alphanumeric), "invalid epoch")?;
        check(header.last_session <= ID_MAX, "last connection number out of range")?;
        check(header.mono_ms <= ID_MAX, "clock out of range")?;
        // If the clock was set back meanwhile, no time has passed.
        let downtime_ms = unix_ms.saturating_sub(header.unix_ms).min(ID_MAX);
        let now = Now { mono: Millis(header.mono_ms).after(downtime_ms), unix_ms };
        let config = Config {
            epoch: Epoch::new(header.epoch),
            watermark_hash_key: header.watermark_hash_key,
            ..config.clone()
        };
        Ok(Self {
            channels: Channels::new(&config),
            sessions: Sessions::new(&config, header.last_session),
            timers: Timers::new(now.mono),
            config,
            now,
            saved_at: Millis(header.mono_ms),
            log: header.log,
            cluster: header.cluster.clone(),
            downtime_ms,
            loaded_channels: Vec::new(),
            members_left: 0,
        })
    }

    /// Loads one more record.
    ///
    /// # Errors
    ///
    /// [`Corrupt`].
    pub fn load(&mut self, record: &SnapshotRecord<'_>) -> Result<(), Corrupt> {
        match record {
            SnapshotRecord::Header(_) => Err(Corrupt("second header")),
            SnapshotRecord::IdWatermark { bucket, next_id } => check(
                *next_id <= ID_MAX && self.channels.restore_id_watermark(*bucket, *next_id),
                "id watermark out of range",
            ),
            SnapshotRecord::Channel(channel) => self.load_channel(channel),
            SnapshotRecord::Session(session) => self.load_session(session),
        }
    }

    fn load_channel(&mut self, record: &SnapshotChannel<'_>) -> Result<(), Corrupt> {
        let key =
            ChannelKey::of_stored(record.name).map_err(|_| Corrupt("invalid channel name"))?;
        check(self.channels.find(&key).is_none(), "duplicate channel")?;
        let next_id = record.first_id.checked_add(record.entries.len() as u64);
        check(
            record.first_id > 0 && next_id.is_some_and(|id| id <= ID_MAX),
            "message id out of range",
        )?;
        let last_use = self.now.mono.min(Millis(record.last_use_ms));
        let mut channel = Channel::new(key.as_str(), record.first_id, last_use);
        channel.is_shared = true;
        for entry in &record.entries {
            let at = Millis(entry.at_ms);
            check(
                channel.entries.back().is_none_or(|last| last.at <= at) && at <= self.saved_at,
                "message time out of order",
            )?;
            channel.push_entry(Entry { at, json: entry.json.as_bytes().into() });
        }
        for member in &record.members {
            check(member.id < channel.next_id(), "introduction id out of range")?;
            let restored = Member {
                id: member.id,
                unix_ms: member.unix_ms,
                text_json: member.text.as_bytes().into(),
                address: member.address.and_then(Address::from_number),
            };
            check(
                channel.restore_member(member.session, restored),
                "duplicate member of a channel",
            )?;
        }
        let members = by_introduction(&record.members);
        let is_once = members.windows(2).all(|pair| pair[0].id < pair[1].id);
        check(is_once, "introduction of two members")?;
        for member in members {
            let json = member.introduction.as_bytes();
            channel.introductions.push(member.id, json, self.channels.page_bytes());
        }
        if let Some(saved) = &record.bans {
            let bans = saved.iter().map(|(number, until_ms)| (*number, Millis(*until_ms)));
            let bans = Bans::restore(bans).ok_or(Corrupt("addresses out of order"))?;
            channel.set_bans(Box::new(bans).without_ended(self.now.mono));
        }
        // The operator may have shortened the history.
        channel.trim_to(self.config.history);
        self.members_left += channel.members.len();
        self.loaded_channels.push(self.channels.insert(channel, &mut self.timers));
        Ok(())
    }

    fn load_session(&mut self, record: &SnapshotSession<'_>) -> Result<(), Corrupt> {
        let number = record.number;
        check(
            (1..=self.sessions.last_number()).contains(&number),
            "connection number out of range",
        )?;
        check(!self.sessions.has_number(number), "duplicate connection")?;
        let auth = record.auth.as_bytes();
        check(auth.iter().all(u8::is_ascii_alphanumeric), "invalid connection secret")?;
        let auth: [u8; TOKEN_BYTES] =
            auth.try_into().map_err(|_| Corrupt("invalid connection secret"))?;
        check(
            record.channels.len() <= CHANNELS_PER_SESSION_MAX,
            "too many channels in one connection",
        )?;
        let after_downtime = |ms: u64| Millis(ms).after(self.downtime_ms);
        let mut session =
            Session::new(number, Auth::new(auth), after_downtime(record.last_alive_ms));
        session.local.closes_at = record.closes_at_ms.map(after_downtime);
        if let Some(cluster) = &self.cluster {
            session.holders = record.holders.clone().unwrap_or_default().into();
            session.holders.note_closed(record.closed_position.unwrap_or(0));
            session.local.is_held = session.holders.contains(cluster.own());
            session.local.heard_position = record.heard_position.unwrap_or(0);
        }
        for position in &record.channels {
            let index = *self
                .loaded_channels
                .get(*position as usize)
                .ok_or(Corrupt("connection is not a member of its channel"))?;
            let is_member = self.channels[index].members.contains_key(&number);
            check(
                is_member && !session.channels.contains(&index),
                "connection is not a member of its channel",
            )?;
            session.channels.push(index);
        }
        self.members_left -= session.channels.len();
        self.sessions.restore(session, &mut self.timers);
        Ok(())
    }

    /// Returns the parts of the hub.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if a record is missing.
    pub(super) fn finish(self) -> Result<Restored, Corrupt> {
        check(self.members_left == 0, "member without a connection")?;
        let Self { config, channels, sessions, timers, now, saved_at, log, cluster, .. } = self;
        Ok(Restored { config, channels, sessions, timers, now, saved_at, log, cluster })
    }
}

fn check(is_valid: bool, problem: &'static str) -> Result<(), Corrupt> {
    if is_valid { Ok(()) } else { Err(Corrupt(problem)) }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::{SnapshotEntry, SnapshotMember};
    use super::*;

    const SECRET: &str = "ABCDEFGHIJKLMNOPQRSTUV";

    fn loader() -> SnapshotLoader {
        let header = SnapshotHeader {
            mono_ms: 1_000,
            unix_ms: 0,
            epoch: *b"abcdefgh",
            watermark_hash_key: [0; 16],
            last_session: 5,
            log: None,
            cluster: None,
        };
        SnapshotLoader::begin(&Config::default(), &header, 0).ok().unwrap()
    }

    /// Loads a channel with entries of these times, and a member with this id.
    fn load(first_id: u64, times: &[u64], member: u64) -> Result<(), Corrupt> {
        let entry = |at_ms: &u64| SnapshotEntry { at_ms: *at_ms, json: "{}" };
        let (text, introduction) = ("\"\"", "{}");
        loader().load(&SnapshotRecord::Channel(SnapshotChannel {
            name: "c",
            first_id,
            last_use_ms: 0,
            entries: times.iter().map(entry).collect(),
            members: vec![SnapshotMember {
                session: 1,
                id: member,
                unix_ms: 0,
                text,
                introduction,
                address: None,
            }],
            bans: None,
        }))
    }

    #[test]
    fn a_channel_with_impossible_ids_or_times_is_corrupt() {
        assert_eq!(load(1, &[0, 0, 1_000], 3), Ok(()));
        assert_eq!(load(ID_MAX, &[], 1), Ok(()));
        for (first_id, times, member) in [
            (0, &[][..], 0),
            (0, &[1], 0),
            (ID_MAX, &[1], 1),
            (u64::MAX, &[1], 1),
            (1, &[2, 1], 1),
            (1, &[1, 1_001], 1),
            (1, &[1_001, 1], 1),
            (1, &[1, 2], 3),
        ] {
            assert!(load(first_id, times, member).is_err(), "{first_id} {times:?} {member}");
        }
    }

    #[test]
    fn a_session_is_loaded_once() {
        let mut loader = loader();
        let mut load = |number| {
            loader.load(&SnapshotRecord::Session(SnapshotSession {
                number,
                auth: SECRET,
                channels: Vec::new(),
                last_alive_ms: 0,
                closes_at_ms: None,
                holders: None,
                closed_position: None,
                heard_position: None,
            }))
        };
        for (number, is_valid) in [(5, true), (5, false), (6, false), (0, false), (1, true)] {
            assert_eq!(load(number).is_ok(), is_valid, "{number}");
        }
    }
}

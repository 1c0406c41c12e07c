//! Recovery of a hub from a log: the pieces of a checkpoint, then the records after it.

use minicbor::Decoder;

use super::bans::{Address, Bans};
use super::channel::{Channel, Member};
use super::channel_name::ChannelKey;
use super::checkpoint::{
    CheckpointChannel, CheckpointEnd, CheckpointHeader, CheckpointRecord, CheckpointSession,
};
use super::command::Command;
use super::config::Config;
use super::hub::Hub;
use super::ids::{Auth, Epoch, ID_MAX, TOKEN_BYTES};
use super::message::Entry;
use super::nodes::Nodes;
use super::session::{CHANNELS_PER_SESSION_MAX, Session};
use super::snapshot::{Corrupt, SnapshotEntry, SnapshotMember};
use super::time::{Millis, Now};
use crate::clustered::Clustered;

/// Records between two looks at the memory limit.
const RECORDS_PER_CHECK: u32 = 256;

/// A hub that is being recovered.
pub struct Recovery {
    hub: Hub,
    /// Time of the last record, or of the end of the checkpoint.
    last: Now,
    /// The header of a checkpoint, or the first command, has come.
    has_begun: bool,
    has_checkpoint: bool,
    /// Channel that the next members and messages belong to, and its next id.
    channel: Option<(u32, u64)>,
    records: u32,
    /// Times of the checkpoint minus the monotonic time of this process.
    ahead_ms: i64,
    /// Present time. No message is newer.
    present: Millis,
}

impl Recovery {
    /// Begins with an empty hub.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut hub = Hub::new(config);
        hub.begin_logging();
        Self::with_hub(hub, Now::default(), 0, Millis(u64::MAX))
    }

    /// Begins with the empty hub of a node, whose number is `node`. `ahead_ms` is the time of the
    /// log minus the monotonic time of this process.
    #[must_use]
    pub fn of_node(config: Config, now: Now, node: u64, ahead_ms: i64) -> Self {
        let mut hub = Hub::new(config);
        hub.begin_clustering(now, node);
        Self::with_hub(hub, now, ahead_ms, now.mono)
    }

    fn with_hub(hub: Hub, last: Now, ahead_ms: i64, present: Millis) -> Self {
        Self {
            hub,
            last,
            has_begun: false,
            has_checkpoint: false,
            channel: None,
            records: 0,
            ahead_ms,
            present,
        }
    }

    /// Returns the hub of a node after the last piece of a checkpoint, or without any. The records
    /// after the position at which the checkpoint began are still to be applied, as those of the
    /// other nodes are. `now` is the present time.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the checkpoint has no end.
    pub fn finish_node(self, now: Now) -> Result<Hub, Corrupt> {
        check(!self.has_begun || self.has_checkpoint, "a checkpoint without an end")?;
        let Self { mut hub, .. } = self;
        hub.touch_all_sessions(now.mono);
        hub.touch_all_channels(now.mono);
        hub.channels.reset_stats();
        hub.enforce_memory_limit(now);
        Ok(hub)
    }

    /// Evicts history if the memory limit is exceeded.
    pub fn enforce_memory_limit(&mut self) {
        self.hub.enforce_memory_limit(self.last);
    }

    /// Loads the next piece of a checkpoint.
    ///
    /// # Errors
    ///
    /// [`Corrupt`].
    pub fn load_piece(&mut self, piece: &[u8]) -> Result<(), Corrupt> {
        let mut decoder = Decoder::new(piece);
        while decoder.position() < piece.len() {
            let record = decoder.decode().map_err(|_| Corrupt("malformed record"))?;
            match record {
                CheckpointRecord::Header(header) => self.load_header(header)?,
                _ if !self.has_begun => return Err(Corrupt("the first record is no header")),
                CheckpointRecord::Channel(channel) => self.load_channel(&channel)?,
                CheckpointRecord::Members(members) => self.load_members(members)?,
                CheckpointRecord::Entries { first_id, entries } => {
                    self.load_entries(first_id, entries)?;
                }
                CheckpointRecord::Session(session) => self.load_session(&session)?,
                CheckpointRecord::End(end) => self.load_end(&end)?,
                CheckpointRecord::Dropped(position) => self.load_drop(position),
            }
        }
        Ok(())
    }

    /// Applies the commands of the next record. `position` returns the position of the command with
    /// this index.
    ///
    /// # Errors
    ///
    /// [`Corrupt`].
    pub fn apply_record(
        &mut self,
        now: Now,
        commands: &[u8],
        position: impl Fn(u32) -> u64,
    ) -> Result<(), Corrupt> {
        if self.has_begun && !self.has_checkpoint && self.hub.position == 0 {
            return Err(Corrupt("a checkpoint without an end"));
        }
        let mut decoder = Decoder::new(commands);
        let mut index = 0;
        while decoder.position() < commands.len() {
            let command: Command<'_> =
                decoder.decode().map_err(|_| Corrupt("malformed command"))?;
            check(
                self.has_begun || matches!(command, Command::Begin { .. }),
                "the first command begins no log",
            )?;
            self.has_begun = true;
            // A command that failed fails again.
            let _ = self.hub.apply(now, now.mono, position(index), &command);
            index += 1;
        }
        // The end of the checkpoint may be later than the first records.
        if now.mono >= self.last.mono {
            self.last = now;
        }
        self.hub.deliver_nothing();
        self.records += 1;
        if self.records.is_multiple_of(RECORDS_PER_CHECK) {
            self.hub.enforce_memory_limit(self.last);
        }
        Ok(())
    }

    /// Returns the hub, and its present time. `unix_ms` is the present time. `None` if the log is
    /// empty.
    ///
    /// All sessions have the whole timeout from now on to be heard from, and all channels their
    /// whole idle time.
    #[must_use]
    pub fn finish(self, unix_ms: u64) -> Option<(Hub, Now)> {
        if !self.has_begun {
            return None;
        }
        // If the clock was set back meanwhile, no time has passed.
        let downtime_ms = unix_ms.saturating_sub(self.last.unix_ms).min(ID_MAX);
        let now = Now { mono: self.last.mono.after(downtime_ms), unix_ms };
        let Self { mut hub, .. } = self;
        hub.position = hub.position.max(hub.hashed_from);
        hub.recovered_drops = Vec::new();
        hub.touch_all_sessions(now.mono);
        hub.touch_all_channels(now.mono);
        hub.channels.reset_stats();
        hub.enforce_memory_limit(now);
        Some((hub, now))
    }

    fn load_header(&mut self, header: CheckpointHeader) -> Result<(), Corrupt> {
        check(!self.has_begun, "second header")?;
        check(header.last_session <= ID_MAX, "last connection number out of range")?;
        self.hub.begin_numbering(parse_epoch(header.epoch)?, Some(header.watermark_hash_key));
        self.hub.sessions.set_last_number(header.last_session);
        for (bucket, next_id) in header.id_watermarks {
            check(
                next_id <= ID_MAX && self.hub.channels.restore_id_watermark(bucket, next_id),
                "id watermark out of range",
            )?;
        }
        if let Some(own) = self.hub.nodes.as_ref().map(|nodes| nodes.own()) {
            let saved = header.nodes.ok_or(Corrupt("a checkpoint without nodes"))?;
            self.hub.nodes = Clustered::new(Nodes::restore(saved, own, self.ahead_ms));
        }
        self.has_begun = true;
        Ok(())
    }

    fn load_channel(&mut self, record: &CheckpointChannel<'_>) -> Result<(), Corrupt> {
        self.finish_channel();
        check((1..=ID_MAX).contains(&record.next_id), "message id out of range")?;
        let index = self.find_or_add_channel(record.name)?;
        let Hub { channels, timers, .. } = &mut self.hub;
        // A channel that was dropped and created again may come twice: the later one is right.
        channels.restore_shared(index, record.next_id, record.position, record.created_at, timers);
        if let Some(saved) = &record.bans {
            let ahead_ms = self.ahead_ms;
            let until = |until_ms: u64| Millis(until_ms.saturating_sub_signed(ahead_ms));
            let bans = saved.iter().map(|(number, until_ms)| (*number, until(*until_ms)));
            let bans = Bans::restore(bans).ok_or(Corrupt("addresses out of order"))?;
            channels.change_bans(index, |_| Some(Box::new(bans)));
        }
        self.channel = Some((index, record.next_id));
        Ok(())
    }

    fn load_members(&mut self, members: Vec<SnapshotMember<'_>>) -> Result<(), Corrupt> {
        let (channel, next_id) = self.channel.ok_or(Corrupt("members without a channel"))?;
        for member in members {
            check(member.id < next_id, "introduction id out of range")?;
            let restored = Member {
                id: member.id,
                unix_ms: member.unix_ms,
                text_json: member.text.as_bytes().into(),
                address: member.address.and_then(Address::from_number),
            };
            let introduction = member.introduction.as_bytes();
            let is_new =
                self.hub.channels.restore_member(channel, member.session, restored, introduction);
            check(is_new, "members out of order")?;
        }
        Ok(())
    }

    fn load_entries(
        &mut self,
        first_id: u64,
        entries: Vec<SnapshotEntry<'_>>,
    ) -> Result<(), Corrupt> {
        let (channel, next_id) = self.channel.ok_or(Corrupt("messages without a channel"))?;
        let end = first_id.checked_add(entries.len() as u64);
        check(first_id > 0 && end.is_some_and(|end| end <= next_id), "message id out of range")?;
        let (ahead_ms, present) = (self.ahead_ms, self.present);
        let at = |at_ms: u64| Millis(at_ms.saturating_sub_signed(ahead_ms)).min(present);
        if let (Some(nodes), Some(last)) = (&mut self.hub.nodes, entries.last()) {
            nodes.earliest_record = nodes.earliest_record.max(at(last.at_ms));
        }
        let entries = entries
            .into_iter()
            .map(|entry| Entry { at: at(entry.at_ms), json: entry.json.as_bytes().into() });
        self.hub.channels.restore_entries(channel, first_id, entries);
        Ok(())
    }

    /// Ends the messages of a channel. If history dropped the last ones while they were saved, none
    /// are left.
    fn finish_channel(&mut self) {
        if let Some((channel, next_id)) = self.channel.take() {
            let Hub { channels, timers, .. } = &mut self.hub;
            channels.finish_restore(channel, next_id, timers);
        }
    }

    fn load_session(&mut self, record: &CheckpointSession<'_>) -> Result<(), Corrupt> {
        self.finish_channel();
        check((1..=ID_MAX).contains(&record.number), "connection number out of range")?;
        check(!self.hub.sessions.has_number(record.number), "duplicate connection")?;
        check(record.channels.len() <= CHANNELS_PER_SESSION_MAX, "too many channels")?;
        let auth = record.auth.as_bytes();
        check(auth.iter().all(u8::is_ascii_alphanumeric), "invalid connection secret")?;
        let auth: [u8; TOKEN_BYTES] =
            auth.try_into().map_err(|_| Corrupt("invalid connection secret"))?;
        let mut session = Session::new(record.number, Auth::new(auth), self.last.mono);
        session.position = record.position;
        if let Some(nodes) = &self.hub.nodes {
            session.holders = record.holders.clone().unwrap_or_default().into();
            session.holders.note_closed(record.closed_position.unwrap_or(0));
            session.local.is_held = session.holders.contains(nodes.own());
        }
        for name in &record.channels {
            // The record of the channel comes later.
            session.channels.push(self.find_or_add_channel(name)?);
        }
        self.hub.sessions.restore(session, &mut self.hub.timers);
        Ok(())
    }

    fn load_drop(&mut self, position: u64) {
        self.finish_channel();
        // The checkpoint has them in this order.
        let drops = &mut self.hub.recovered_drops;
        let index = drops.partition_point(|other| *other < position);
        drops.insert(index, position);
    }

    fn load_end(&mut self, end: &CheckpointEnd) -> Result<(), Corrupt> {
        self.finish_channel();
        check(end.mono_ms <= ID_MAX, "clock out of range")?;
        self.hub.applied_hash = end.applied_hash;
        self.hub.hashed_from = end.position;
        if self.hub.nodes.is_none() {
            self.last = Now { mono: Millis(end.mono_ms), unix_ms: end.unix_ms };
        }
        self.has_checkpoint = true;
        Ok(())
    }

    fn find_or_add_channel(&mut self, name: &str) -> Result<u32, Corrupt> {
        check(ChannelKey::of_stored(name).is_ok(), "invalid channel name")?;
        let Hub { channels, timers, .. } = &mut self.hub;
        Ok(channels
            .find_name(name)
            .unwrap_or_else(|| channels.insert(Channel::new(name, 1, self.last.mono), timers)))
    }
}

fn parse_epoch(epoch: [u8; 8]) -> Result<Epoch, Corrupt> {
    check(epoch.iter().all(u8::is_ascii_alphanumeric), "invalid epoch")?;
    Ok(Epoch::new(epoch))
}

fn check(is_valid: bool, problem: &'static str) -> Result<(), Corrupt> {
    if is_valid { Ok(()) } else { Err(Corrupt(problem)) }
}

#[cfg(all(test, feature = "cluster"))]
#[path = "cluster_recovery_tests.rs"]
mod tests;

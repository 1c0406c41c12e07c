//! Saving a hub as a snapshot.

use std::collections::HashMap;

use super::bans::Address;
use super::channel::Channel;
use super::hub::Hub;
use super::message::Entry;
use super::proposals::LogHealth;
use super::session::Session;
use super::snapshot::{
    SnapshotChannel, SnapshotEntry, SnapshotHeader, SnapshotLog, SnapshotMember, SnapshotRecord,
    SnapshotSession,
};
use super::time::{Millis, Now};

impl Hub {
    /// Passes the hub to `write` record by record. Call it between turns, after
    /// [`Hub::deliver`].
    ///
    /// A session with a reader counts as alive until `reads_end_ms` from now. The caller completes
    /// the readers within this time.
    ///
    /// # Errors
    ///
    /// The first error of `write`.
    pub fn save<E>(
        &self,
        now: Now,
        reads_end_ms: u64,
        mut write: impl FnMut(&SnapshotRecord<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        assert!(!self.has_undelivered(), "a snapshot is taken between turns");
        let id_watermarks = self.channels.id_watermarks();
        write(&SnapshotRecord::Header(SnapshotHeader {
            mono_ms: now.mono.0,
            unix_ms: now.unix_ms,
            epoch: *self.epoch.as_bytes(),
            watermark_hash_key: id_watermarks.key(),
            last_session: self.sessions.last_number(),
            log: self.is_logged().then_some(SnapshotLog {
                position: self.position,
                applied_hash: self.applied_hash,
            }),
            cluster: self.nodes.as_ref().map(|nodes| nodes.save_all()),
        }))?;
        for (bucket, next_id) in id_watermarks.iter() {
            write(&SnapshotRecord::IdWatermark { bucket, next_id })?;
        }
        let mut positions = HashMap::new();
        // With a log, a channel that has only readers exists in this process alone.
        let is_saved = |channel: &Channel| channel.is_shared || !self.is_logged();
        let channels = self.channels.iter().filter(|(_, channel)| is_saved(channel));
        for (position, (index, channel)) in channels.enumerate() {
            positions.insert(index, position as u32);
            write(&SnapshotRecord::Channel(channel.to_snapshot(now.mono)))?;
        }
        let reads_end = now.mono.after(reads_end_ms);
        // The process that continues begins with a log that responds.
        let heard_until = match self.log_health {
            LogHealth::Good => self.sessions.heard_until(),
            LogHealth::Slow | LogHealth::Stalled => now.mono,
        };
        for session in self.sessions.iter() {
            let session = session.to_snapshot(reads_end, heard_until, &positions);
            write(&SnapshotRecord::Session(session))?;
        }
        Ok(())
    }
}

impl<'a> SnapshotEntry<'a> {
    /// Makes the record of a message.
    pub(super) fn of(entry: &'a Entry) -> Self {
        Self { at_ms: entry.at.0, json: as_text(&entry.json) }
    }
}

impl Channel {
    /// Makes the records of the members.
    pub(super) fn snapshot_members(&self) -> impl Iterator<Item = SnapshotMember<'_>> {
        self.members.iter().map(|(number, member)| SnapshotMember {
            session: *number,
            id: member.id,
            unix_ms: member.unix_ms,
            text: as_text(&member.text_json),
            introduction: as_text(self.introductions.get(member.id).unwrap_or_default()),
            address: member.address.map(Address::number),
        })
    }

    /// Makes the list of the addresses that were sent away. Its times are ahead of those of this
    /// process.
    pub(super) fn snapshot_bans(&self, ahead_ms: i64) -> Option<Vec<(u64, u64)>> {
        let with_time =
            |(number, until): (u64, Millis)| (number, until.0.saturating_add_signed(ahead_ms));
        self.bans.as_ref().map(|bans| bans.iter().map(with_time).collect())
    }

    fn to_snapshot(&self, now: Millis) -> SnapshotChannel<'_> {
        // A reader uses the channel until now.
        let last_use = if self.local.reader_count > 0 { now } else { self.local.last_use };
        SnapshotChannel {
            name: &self.name,
            first_id: self.first_id,
            last_use_ms: last_use.0,
            entries: self.entries.iter().map(SnapshotEntry::of).collect(),
            members: self.snapshot_members().collect(),
            bans: self.snapshot_bans(0),
        }
    }
}

impl Session {
    /// Makes the record of the session. `heard_until` is that of the table of sessions.
    fn to_snapshot(
        &self,
        reads_end: Millis,
        heard_until: Millis,
        positions: &HashMap<u32, u32>,
    ) -> SnapshotSession<'_> {
        let local = &self.local;
        let (last_alive, closes_at) = if local.readers.is_empty() {
            (local.last_alive.max(heard_until), local.closes_at)
        } else {
            // A grace period that runs out while a reader waits is void.
            (reads_end, local.closes_at.filter(|at| *at > reads_end))
        };
        SnapshotSession {
            number: self.number,
            auth: self.auth.reveal(),
            // A log that is damaged may have dropped one of them.
            channels: self.channels.iter().filter_map(|it| positions.get(it).copied()).collect(),
            last_alive_ms: last_alive.0,
            closes_at_ms: closes_at.map(|at| at.0),
            heard_position: (!self.holders.is_empty()).then_some(local.heard_position),
            holders: (!self.holders.is_empty()).then(|| self.holders.as_slice().to_vec()),
            closed_position: Some(self.holders.closed_position()).filter(|it| *it > 0),
        }
    }
}

fn as_text(json: &[u8]) -> &str {
    str::from_utf8(json).expect("messages are JSON, which is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{
        Auth, ChannelName, Config, Credentials, Introducer, Mode, ReadRequest, ReadResult, Since,
        TOKEN_BYTES,
    };

    #[test]
    fn a_grace_period_ends_in_a_snapshot_only_after_the_reads() {
        let now = Now { mono: Millis(0), unix_ms: 0 };
        let mut hub = Hub::new(Config::default());
        let key = |name| ChannelName::parse(name).unwrap().for_writing().unwrap();
        let introducer = Introducer::New(Auth::new([b'A'; TOKEN_BYTES]));
        let josh = hub.introduce(now, &key("c"), "Josh", introducer, None).ok().unwrap();
        hub.deliver(now, |_| {});
        let credentials = Some(Credentials { session: josh.session, auth: josh.auth.reveal() });
        let [closed, _] = ["one", "other"].map(|name| {
            let targets = [(key(name), Since::Now)];
            let (epoch, grace_ms, mode) = (None, Some(1_000), Mode::LongPoll);
            let request =
                ReadRequest { targets: &targets, epoch, credentials, grace_ms, mode, token: 1 };
            match hub.read(now, &request) {
                Ok(ReadResult::Pending(reader)) => reader,
                _ => panic!("there is nothing to report"),
            }
        });
        hub.on_reader_closed(now, closed);
        for (reads_end_ms, expected) in [(999, Some(1_000)), (1_000, None), (1_001, None)] {
            let mut closes_at_ms = None;
            let saved: Result<(), ()> = hub.save(now, reads_end_ms, |record| {
                if let SnapshotRecord::Session(session) = record {
                    closes_at_ms = session.closes_at_ms;
                    assert_eq!(session.last_alive_ms, reads_end_ms);
                }
                Ok(())
            });
            assert_eq!((saved, closes_at_ms), (Ok(()), expected), "{reads_end_ms}");
        }
    }
}

//! Shared state of a hub, in an order of its own: two hubs with equal states give equal values.

use std::collections::BTreeMap;

use speak::hub::{
    Hub, Millis, Now, SnapshotChannel, SnapshotHeader, SnapshotRecord, SnapshotSession,
};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SharedState {
    epoch: [u8; 8],
    watermark_hash_key: [u8; 16],
    last_session: u64,
    id_watermarks: BTreeMap<u16, u64>,
    channels: BTreeMap<String, Channel>,
    sessions: BTreeMap<u64, Session>,
}

#[derive(Debug, PartialEq, Eq)]
struct Channel {
    next_id: u64,
    /// Time and JSON of each message by its id.
    entries: BTreeMap<u64, (u64, String)>,
    /// Id, time, text, JSON and address of each introduction by its session.
    members: BTreeMap<u64, (u64, u64, String, String, Option<u64>)>,
    /// Addresses that were sent away, and the ends of their times.
    bans: BTreeMap<u64, u64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Session {
    auth: String,
    /// In the order of introductions.
    channels: Vec<String>,
}

impl SharedState {
    /// Returns the state of a hub, without messages that history has dropped at `now`: when that is
    /// done is local. Without history, all are gone after their delivery.
    pub(crate) fn of(hub: &Hub, now: Millis, history: u64, retention_ms: u64) -> Self {
        let mut state = Self::default();
        let mut names = Vec::new();
        let save = |record: &SnapshotRecord<'_>| {
            match record {
                SnapshotRecord::Header(header) => state.take_header(header),
                SnapshotRecord::IdWatermark { bucket, next_id } => {
                    assert!(state.id_watermarks.insert(*bucket, *next_id).is_none());
                }
                SnapshotRecord::Channel(channel) => {
                    names.push(channel.name.to_owned());
                    let its = Channel::of(channel, now, history, retention_ms);
                    assert!(state.channels.insert(channel.name.to_owned(), its).is_none());
                }
                SnapshotRecord::Session(session) => {
                    let its = Session::of(session, &names);
                    assert!(state.sessions.insert(session.number, its).is_none());
                }
            }
            Ok::<_, ()>(())
        };
        hub.save(Now::default(), 0, save).expect("nothing fails");
        state.assert_consistent();
        state
    }

    fn take_header(&mut self, header: &SnapshotHeader) {
        self.epoch = header.epoch;
        self.watermark_hash_key = header.watermark_hash_key;
        self.last_session = header.last_session;
    }

    /// Claims that sessions and channels agree about who is a member.
    fn assert_consistent(&self) {
        for (number, session) in &self.sessions {
            for name in &session.channels {
                let is_member = self.channels[name].members.contains_key(number);
                assert!(is_member, "session {number} is no member of {name}");
            }
        }
        for (name, channel) in &self.channels {
            for number in channel.members.keys() {
                let is_member = self.sessions[number].channels.contains(name);
                assert!(is_member, "a member of {name} is no session: {number}");
            }
        }
    }
}

impl Channel {
    fn of(record: &SnapshotChannel<'_>, now: Millis, history: u64, retention_ms: u64) -> Self {
        let next_id = record.first_id + record.entries.len() as u64;
        let entries = (record.first_id..).zip(&record.entries);
        let is_retained =
            |id, at_ms| id + history >= next_id && Millis(at_ms).after(retention_ms) > now;
        Self {
            next_id,
            entries: entries
                .filter(|(id, entry)| is_retained(*id, entry.at_ms))
                .map(|(id, entry)| (id, (entry.at_ms, entry.json.to_owned())))
                .collect(),
            members: record
                .members
                .iter()
                .map(|its| {
                    let texts = (its.text.to_owned(), its.introduction.to_owned());
                    (its.session, (its.id, its.unix_ms, texts.0, texts.1, its.address))
                })
                .collect(),
            bans: record
                .bans
                .iter()
                .flatten()
                .filter(|(_, until_ms)| now < Millis(*until_ms))
                .copied()
                .collect(),
        }
    }
}

impl Session {
    fn of(record: &SnapshotSession<'_>, names: &[String]) -> Self {
        let channels = record.channels.iter().map(|position| names[*position as usize].clone());
        Self { auth: record.auth.to_owned(), channels: channels.collect() }
    }
}

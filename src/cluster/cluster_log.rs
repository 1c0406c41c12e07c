//! The log in a Redis stream, as the service drives it.

use std::collections::VecDeque;

use super::connection::{Connection, Event as ConnectionEvent, ServerInfo};
use super::entry::{self, Entry};
use super::keys::Keys;
use super::stream_id::StreamId;
use super::value::Value;
use crate::log::{Event, Log, SharedRecord};

/// Entries of one reply to the following connection.
const PAGE_ENTRIES: &[u8] = b"256";

/// Time for which Redis waits for an entry before it replies without one, in milliseconds.
const BLOCK_MS: &[u8] = b"5000";

/// Events that wait to be taken. No page is asked for while there are more.
const QUEUE_MAX: usize = 1024;

/// Time until a record is sent again that Redis did not take.
const RETRY_MS: u64 = 500;

/// A log in a Redis stream. Each node appends its records by one connection, and gets those of all
/// nodes by the other one, in the order of the stream.
pub struct ClusterLog {
    commands: Box<dyn Connection>,
    follower: Box<dyn Connection>,
    keys: Keys,
    /// Number of this process.
    node: u64,
    /// Random numbers for the next processes' numbers.
    random: fn(&mut [u8]),
    now_ms: u64,

    /// Record that was appended and has not come back.
    pending: Option<Pending>,
    /// Number of the last record that was appended.
    sequence: u64,
    /// Barriers that were begun and are not reached, oldest first.
    barriers: VecDeque<Barrier>,
    /// What the replies on the connection for commands belong to.
    expected: VecDeque<Expected>,
    is_commands_up: bool,
    is_follower_up: bool,
    is_outage_reported: bool,
    /// The follower waits for the reply to a page.
    is_page_asked: bool,

    /// Id and position of the last entry that was read.
    last_id: StreamId,
    position: u64,
    last_mono_ms: u64,
    /// Monotonic time of this process minus the time of Redis.
    mono_ahead_ms: Option<i64>,
    events: VecDeque<Event>,
}

/// Record that was appended.
struct Pending {
    value: Vec<u8>,
    /// It may be in the stream.
    was_sent: bool,
    /// It waits for a reply.
    is_sent: bool,
    retry_at_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Barrier {
    Unsent,
    Sent,
    At(StreamId),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Append,
    End,
}

impl ClusterLog {
    /// Makes the log of a process that has read nothing of the stream. `random` fills a buffer with
    /// bytes that cannot be guessed.
    #[must_use]
    pub fn new(
        commands: Box<dyn Connection>,
        follower: Box<dyn Connection>,
        keys: Keys,
        random: fn(&mut [u8]),
    ) -> Self {
        Self {
            commands,
            follower,
            keys,
            node: random_number(random),
            random,
            now_ms: 0,
            pending: None,
            sequence: 0,
            barriers: VecDeque::new(),
            expected: VecDeque::new(),
            is_commands_up: false,
            is_follower_up: false,
            is_outage_reported: false,
            is_page_asked: false,
            last_id: StreamId::default(),
            position: 0,
            last_mono_ms: 0,
            mono_ahead_ms: None,
            events: VecDeque::new(),
        }
    }

    /// Returns the number of this process.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.node
    }

    fn poll_connections(&mut self) {
        while let Some(event) = self.commands.poll() {
            match event {
                ConnectionEvent::Connected(info) => {
                    self.on_connected(&info);
                    self.is_commands_up = true;
                    self.is_outage_reported = false;
                }
                ConnectionEvent::Reply(value) => self.on_reply(&value),
                ConnectionEvent::Disconnected(failure) => {
                    // One report of an outage is enough.
                    if !std::mem::replace(&mut self.is_outage_reported, true) {
                        log::error!("cluster: no connection to Redis: {failure}");
                    }
                    self.on_commands_down();
                }
            }
        }
        while self.events.len() < QUEUE_MAX
            && let Some(event) = self.follower.poll()
        {
            match event {
                ConnectionEvent::Connected(info) => {
                    self.on_connected(&info);
                    self.is_follower_up = true;
                }
                ConnectionEvent::Reply(value) => self.on_page(&value),
                ConnectionEvent::Disconnected(failure) => {
                    log::debug!("cluster: the connection for records ended: {failure}");
                    self.is_follower_up = false;
                    self.is_page_asked = false;
                }
            }
        }
    }

    fn on_connected(&mut self, info: &ServerInfo) {
        let ahead = || self.now_ms.cast_signed() - info.unix_ms.cast_signed();
        let ahead_ms = ahead();
        self.mono_ahead_ms.get_or_insert(ahead_ms);
    }

    fn on_commands_down(&mut self) {
        self.is_commands_up = false;
        self.expected.clear();
        if let Some(pending) = &mut self.pending {
            pending.is_sent = false;
        }
        for barrier in &mut self.barriers {
            if *barrier == Barrier::Sent {
                *barrier = Barrier::Unsent;
            }
        }
    }

    fn on_reply(&mut self, value: &Value) {
        match self.expected.pop_front() {
            Some(Expected::Append) => self.on_append(value),
            Some(Expected::End) => self.on_end(value),
            None => {}
        }
    }

    /// Notes the reply to an append. The record itself comes by the other connection.
    fn on_append(&mut self, value: &Value) {
        let Some(kind) = value.error_kind() else { return };
        log::warn!("cluster: Redis does not take a record: {kind:?}");
        if let Some(pending) = &mut self.pending {
            pending.is_sent = false;
            pending.retry_at_ms = self.now_ms + RETRY_MS;
        }
        if kind.is_of_the_server() {
            self.commands.reset();
            self.follower.reset();
            self.on_commands_down();
            self.is_follower_up = false;
            self.is_page_asked = false;
        }
    }

    /// Notes the end of the stream, for the oldest barrier that waits for it.
    fn on_end(&mut self, value: &Value) {
        let newest = match value.as_array() {
            Some([]) => Some(StreamId::default()),
            Some([newest, ..]) => Entry::parse(newest).map(|(id, _)| id),
            None => None,
        };
        let Some(barrier) = self.barriers.iter_mut().find(|it| **it == Barrier::Sent) else {
            return;
        };
        *barrier = newest.map_or(Barrier::Unsent, Barrier::At);
        self.reach_barriers();
    }

    /// Adds the events of barriers that are reached.
    fn reach_barriers(&mut self) {
        while let Some(Barrier::At(id)) = self.barriers.front()
            && *id <= self.last_id
        {
            self.barriers.pop_front();
            self.events.push_back(Event::Barrier);
        }
    }

    /// Adds the records of a page: `[[key, [entry, …]]]`, or nil.
    fn on_page(&mut self, value: &Value) {
        self.is_page_asked = false;
        if let Some(kind) = value.error_kind() {
            log::warn!("cluster: Redis does not give records: {kind:?}");
            self.follower.reset();
            self.is_follower_up = false;
            return;
        }
        let Some([stream]) = value.as_array() else { return };
        let Some([_, entries]) = stream.as_array() else { return };
        for value in entries.as_array().unwrap_or_default() {
            let Some((id, entry)) = Entry::parse(value) else { continue };
            self.last_id = id;
            match entry {
                Some(entry) => self.push_record(entry),
                None => log::warn!("cluster: an entry of the stream is no record"),
            }
            self.reach_barriers();
        }
    }

    fn push_record(&mut self, entry: Entry) {
        let Entry { id, node, sequence, commands } = entry;
        self.position += 1;
        let mono_ms = id.unix_ms.saturating_add_signed(self.mono_ahead_ms.unwrap_or(0));
        self.last_mono_ms = mono_ms.min(self.now_ms).max(self.last_mono_ms);
        let is_pending =
            node == self.node && sequence == self.sequence && self.pending.take().is_some();
        self.events.push_back(Event::Record(SharedRecord {
            position: self.position,
            node,
            sequence,
            mono_ms: self.last_mono_ms,
            unix_ms: id.unix_ms,
            commands: (!is_pending).then_some(commands),
        }));
    }

    /// Sends what waits to be sent.
    fn send(&mut self) {
        if self.is_commands_up {
            if let Some(pending) = &mut self.pending
                && !pending.is_sent
                && pending.retry_at_ms <= self.now_ms
            {
                self.commands.send(&[
                    b"XADD",
                    self.keys.stream(),
                    b"*",
                    entry::FIELD,
                    &pending.value,
                ]);
                (pending.was_sent, pending.is_sent) = (true, true);
                self.expected.push_back(Expected::Append);
            }
            for barrier in self.barriers.iter_mut().filter(|it| **it == Barrier::Unsent) {
                let stream = self.keys.stream();
                self.commands.send(&[b"XREVRANGE", stream, b"+", b"-", b"COUNT", b"1"]);
                *barrier = Barrier::Sent;
                self.expected.push_back(Expected::End);
            }
        }
        if self.is_follower_up && !self.is_page_asked && self.events.len() < QUEUE_MAX {
            let last_id = self.last_id.to_string();
            self.follower.send(&[
                b"XREAD",
                b"COUNT",
                PAGE_ENTRIES,
                b"BLOCK",
                BLOCK_MS,
                b"STREAMS",
                self.keys.stream(),
                last_id.as_bytes(),
            ]);
            self.is_page_asked = true;
        }
    }
}

impl Log for ClusterLog {
    fn begin_turn(&mut self, mono_ms: u64) {
        self.now_ms = mono_ms;
    }

    fn is_ready(&self) -> bool {
        self.pending.is_none()
    }

    fn append(&mut self, _mono_ms: u64, _unix_ms: u64, commands: &[u8]) {
        self.sequence += 1;
        let value = entry::encode(self.node, self.sequence, commands);
        self.pending = Some(Pending { value, was_sent: false, is_sent: false, retry_at_ms: 0 });
        self.send();
    }

    fn withdraw(&mut self) -> bool {
        if self.pending.as_ref().is_some_and(|pending| pending.was_sent) {
            return false;
        }
        self.pending.take().is_some()
    }

    fn poll(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.poll_connections();
            self.send();
        }
        self.events.pop_front()
    }

    fn begin_barrier(&mut self) -> bool {
        self.barriers.push_back(Barrier::Unsent);
        self.send();
        true
    }

    fn renew_node(&mut self) -> u64 {
        (self.node, self.sequence) = (random_number(self.random), 0);
        self.node
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        self.pending.as_ref().filter(|pending| !pending.is_sent).map(|pending| pending.retry_at_ms)
    }

    fn take_outcome(&mut self) -> Option<crate::log::Outcome> {
        None
    }

    fn close(self: Box<Self>) {}

    fn bytes(&self) -> u64 {
        0
    }

    fn is_snapshot_due(&self) -> bool {
        false
    }

    fn begin_snapshot(&mut self, _position: u64) {}

    fn has_snapshot(&self) -> bool {
        false
    }

    fn wants_piece(&self) -> bool {
        false
    }

    fn append_piece(&mut self, _bytes: &[u8]) {}

    fn finish_snapshot(&mut self) {}

    fn abandon_snapshot(&mut self) {}
}

/// Returns a number that no other process has.
fn random_number(random: fn(&mut [u8])) -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes);
    u64::from_le_bytes(bytes).max(1)
}

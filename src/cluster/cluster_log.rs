//! The log in a Redis stream, as the service drives it.

use std::collections::VecDeque;

use super::connection::{Connection, Event as ConnectionEvent, ServerInfo};
use super::entry::{self, Entry};
use super::keys::Keys;
use super::page_size::PageSize;
use super::snapshot_entry::{LogEnd, SnapshotEntry};
use super::snapshot_reader::{Read, SnapshotReader};
use super::snapshot_writer::{Sending, SnapshotReply, SnapshotWriter};
use super::state::ClusterLogState;
use super::stream_id::StreamId;
use super::value::Value;
use crate::log::{Event, Log, SharedRecord};

/// Time for which Redis waits for an entry before it replies without one, in milliseconds.
const BLOCK_MS: &[u8] = b"5000";

/// Events that wait to be taken. No page is asked for while there are more.
const QUEUE_MAX: usize = 1024;

/// Bytes of records and pieces that wait to be taken. No page is asked for while there are more.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// No snapshot is made of a log below this size.
const SNAPSHOT_MIN_BYTES: u64 = 16 << 20;

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

    /// End of what was read, and of the records that were taken.
    read: LogEnd,
    taken: LogEnd,
    last_mono_ms: u64,
    /// Monotonic time of this process minus the time of Redis.
    mono_ahead_ms: Option<i64>,
    page_size: PageSize,
    events: VecDeque<Event>,
    /// Places in the log of the records in `events`.
    ends: VecDeque<LogEnd>,
    /// Bytes of the records and pieces in `events`.
    queued_bytes: usize,

    /// Reads the newest snapshot, before the records after it.
    reader: Option<SnapshotReader>,
    writer: SnapshotWriter,
    /// The newest snapshot, and the id of the entry that describes it.
    newest: Option<SnapshotEntry>,
    newest_id: StreamId,
    snapshot_min_bytes: u64,
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
    /// For the snapshot with this name.
    Snapshot(u64, SnapshotReply),
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
            read: LogEnd::default(),
            taken: LogEnd::default(),
            last_mono_ms: 0,
            mono_ahead_ms: None,
            page_size: PageSize::default(),
            events: VecDeque::new(),
            ends: VecDeque::new(),
            queued_bytes: 0,
            reader: Some(SnapshotReader::new(false)),
            writer: SnapshotWriter::default(),
            newest: None,
            newest_id: StreamId::default(),
            snapshot_min_bytes: SNAPSHOT_MIN_BYTES,
        }
    }

    /// Continues with the log of a process that this one takes over from.
    pub fn resume(&mut self, state: &ClusterLogState) {
        (self.node, self.sequence) = (state.node, state.sequence);
        (self.read, self.taken) = (state.end, state.end);
        (self.newest, self.newest_id) = (state.newest, state.newest_id);
        self.reader = None;
    }

    /// Sets the size of a log below which no snapshot is made. For tests, whose logs are small.
    pub fn set_snapshot_min_bytes(&mut self, bytes: u64) {
        self.snapshot_min_bytes = bytes;
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
        while self.has_room()
            && let Some(event) = self.follower.poll()
        {
            match event {
                ConnectionEvent::Connected(info) => {
                    self.on_connected(&info);
                    self.is_follower_up = true;
                }
                ConnectionEvent::Reply(value) if self.reader.is_some() => self.on_read(&value),
                ConnectionEvent::Reply(value) => self.on_page(&value),
                ConnectionEvent::Disconnected(failure) => {
                    log::debug!("cluster: the connection for records ended: {failure}");
                    self.on_follower_down();
                }
            }
        }
    }

    fn on_connected(&mut self, info: &ServerInfo) {
        let ahead = || self.now_ms.cast_signed() - info.unix_ms.cast_signed();
        let ahead_ms = ahead();
        self.mono_ahead_ms.get_or_insert(ahead_ms);
    }

    fn on_follower_down(&mut self) {
        self.is_follower_up = false;
        self.is_page_asked = false;
        // The reply may have been larger than a reply may be.
        self.page_size.reset();
        if let Some(reader) = &mut self.reader {
            reader.restart();
        }
    }

    fn on_commands_down(&mut self) {
        self.is_commands_up = false;
        self.expected.clear();
        self.writer.on_disconnected(self.now_ms);
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
            Some(Expected::Snapshot(name, reply)) => {
                let published = self
                    .write_snapshot(|writer, sending| writer.on_reply(name, reply, value, sending));
                if let Some(entry) = published {
                    let LogEnd { position, .. } = entry.end;
                    let bytes = entry.bytes;
                    log::info!("cluster snapshot complete position={position} bytes={bytes}");
                    self.newest = Some(entry);
                }
            }
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
            self.on_follower_down();
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
        while self.reader.is_none()
            && let Some(Barrier::At(id)) = self.barriers.front()
            && *id <= self.read.id
        {
            self.barriers.pop_front();
            self.events.push_back(Event::Barrier);
        }
    }

    /// Adds what a page has: `[[key, [entry, …]], …]`, or nil.
    fn on_page(&mut self, value: &Value) {
        self.is_page_asked = false;
        if let Some(kind) = value.error_kind() {
            log::warn!("cluster: Redis does not give records: {kind:?}");
            self.follower.reset();
            self.on_follower_down();
            return;
        }
        let streams = value.as_array().unwrap_or_default();
        let of = |key: &[u8]| {
            let is_of = |stream: &&[Value]| stream.first().and_then(Value::as_text) == Some(key);
            streams.iter().filter_map(Value::as_array).find(is_of).and_then(|stream| stream.get(1))
        };
        if let Some(entries) = of(self.keys.snapshots())
            && !self.on_snapshots(entries)
        {
            return;
        }
        let entries = of(self.keys.stream()).and_then(Value::as_array).unwrap_or_default();
        let before = self.queued_bytes;
        for value in entries {
            let Some((id, entry)) = Entry::parse(value) else { continue };
            self.read.id = id;
            match entry {
                Some(entry) => self.push_record(entry),
                None => log::warn!("cluster: an entry of the stream is no record"),
            }
            self.reach_barriers();
        }
        self.page_size.adapt(entries.len(), self.queued_bytes - before);
    }

    /// Notes the newest snapshot. Returns false if the log was trimmed beyond what this process has
    /// read: then it reads the snapshot.
    fn on_snapshots(&mut self, entries: &Value) -> bool {
        let Some((id, newest)) = SnapshotEntry::parse_all(entries).last() else { return true };
        self.newest_id = id;
        // The snapshot of a later version cannot be read, but its records are read.
        let Some(newest) = newest else { return true };
        self.newest = Some(newest);
        if newest.end.id > self.read.id {
            log::warn!("cluster: this node was too slow: the log has lost records it had not read");
            self.reload();
            return false;
        }
        true
    }

    /// Adds what a reply to the reader of snapshots brings.
    fn on_read(&mut self, value: &Value) {
        let Some(reader) = &mut self.reader else { return };
        let log_time_ahead_ms = -self.mono_ahead_ms.unwrap_or(0);
        match reader.on_reply(value, self.now_ms) {
            Read::Begin => self.events.push_back(Event::SnapshotBegins { log_time_ahead_ms }),
            Read::Piece(piece) => self.push_piece(piece),
            Read::LastPiece(piece, entry, id) => {
                self.push_piece(piece);
                (self.newest, self.newest_id) = (Some(entry), id);
                self.follow(entry.end);
                let LogEnd { position, .. } = entry.end;
                self.events.push_back(Event::SnapshotEnds { position });
            }
            Read::Nothing(has_to_replace) => {
                self.follow(LogEnd::default());
                if has_to_replace {
                    self.events.push_back(Event::SnapshotBegins { log_time_ahead_ms });
                    self.events.push_back(Event::SnapshotEnds { position: 0 });
                }
            }
            Read::Failed(reason) => log::error!("cluster: cannot read the state: {reason}"),
            Read::Again => {}
        }
        self.reach_barriers();
    }

    /// Follows the log from this place on.
    fn follow(&mut self, end: LogEnd) {
        (self.read, self.taken) = (end, end);
        self.reader = None;
    }

    fn push_piece(&mut self, piece: Vec<u8>) {
        self.queued_bytes += piece.len();
        self.events.push_back(Event::SnapshotPiece(piece));
    }

    fn push_record(&mut self, entry: Entry) {
        let Entry { id, node, sequence, commands } = entry;
        let bytes = commands.len();
        self.read.position += 1;
        self.read.bytes += bytes as u64;
        self.ends.push_back(self.read);
        self.queued_bytes += bytes;
        let mono_ms = id.unix_ms.saturating_add_signed(self.mono_ahead_ms.unwrap_or(0));
        self.last_mono_ms = mono_ms.min(self.now_ms).max(self.last_mono_ms);
        let is_pending =
            node == self.node && sequence == self.sequence && self.pending.take().is_some();
        self.events.push_back(Event::Record(SharedRecord {
            position: self.read.position,
            node,
            sequence,
            mono_ms: self.last_mono_ms,
            unix_ms: id.unix_ms,
            commands: (!is_pending).then_some(commands),
        }));
    }

    /// Notes that an event was taken.
    fn on_taken(&mut self, event: &Event) {
        let bytes = match event {
            Event::Record(_) => {
                let before = self.taken.bytes;
                self.taken = self.ends.pop_front().unwrap_or(self.taken);
                (self.taken.bytes - before) as usize
            }
            Event::SnapshotPiece(piece) => piece.len(),
            Event::Outcome(_)
            | Event::Barrier
            | Event::SnapshotBegins { .. }
            | Event::SnapshotEnds { .. } => 0,
        };
        self.queued_bytes -= bytes.min(self.queued_bytes);
    }

    fn has_room(&self) -> bool {
        self.events.len() < QUEUE_MAX && self.queued_bytes < QUEUE_BYTES_MAX
    }

    /// Lets the writer of a snapshot send commands.
    fn write_snapshot<T>(
        &mut self,
        write: impl FnOnce(&mut SnapshotWriter, &mut Sending<'_>) -> T,
    ) -> T {
        let mut sending = Sending {
            connection: &mut *self.commands,
            keys: &self.keys,
            now_ms: self.now_ms,
            expected: Vec::new(),
        };
        let result = write(&mut self.writer, &mut sending);
        let expected = sending.expected.into_iter();
        self.expected.extend(expected.map(|(name, reply)| Expected::Snapshot(name, reply)));
        result
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
        if self.is_commands_up && self.writer.is_open() {
            self.write_snapshot(SnapshotWriter::renew);
        }
        if !self.is_follower_up || !self.has_room() {
            return;
        }
        if let Some(reader) = &mut self.reader {
            reader.send(&mut *self.follower, &self.keys, self.now_ms);
        } else if !self.is_page_asked {
            let (read, newest) = (self.read.id.to_string(), self.newest_id.to_string());
            let (stream, snapshots) = (self.keys.stream(), self.keys.snapshots());
            let count = self.page_size.entries().to_string();
            self.follower.send(&[
                b"XREAD",
                b"COUNT",
                count.as_bytes(),
                b"BLOCK",
                BLOCK_MS,
                b"STREAMS",
                stream,
                snapshots,
                read.as_bytes(),
                newest.as_bytes(),
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
        let event = self.events.pop_front()?;
        self.on_taken(&event);
        Some(event)
    }

    fn begin_barrier(&mut self) -> bool {
        self.barriers.push_back(Barrier::Unsent);
        self.send();
        true
    }

    fn renew_node(&mut self) -> u64 {
        (self.node, self.sequence, self.pending) = (random_number(self.random), 0, None);
        self.node
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        let pending = self.pending.as_ref().filter(|pending| !pending.is_sent);
        let retry_at_ms = pending.map(|pending| pending.retry_at_ms);
        let read_at_ms = self.reader.as_ref().and_then(SnapshotReader::next_deadline_ms);
        retry_at_ms.into_iter().chain(read_at_ms).min()
    }

    fn reload(&mut self) {
        if self.reader.is_some() {
            return;
        }
        // What waits to be taken is of the state that is given up. Barriers are not: they are
        // reached again.
        for event in self.events.drain(..) {
            if matches!(event, Event::Barrier) {
                self.barriers.push_front(Barrier::Unsent);
            }
        }
        self.ends.clear();
        self.queued_bytes = 0;
        self.abandon_snapshot();
        self.reader = Some(SnapshotReader::new(true));
        if self.is_page_asked {
            // Its reply would come when there is a record.
            self.follower.reset();
            self.on_follower_down();
        }
    }

    fn state(&self) -> Option<Vec<u8>> {
        let state = ClusterLogState {
            node: self.node,
            sequence: self.sequence,
            end: self.taken,
            newest: self.newest,
            newest_id: self.newest_id,
        };
        Some(state.encode())
    }

    fn memory(&self) -> usize {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.value.len());
        let buffered = self.commands.buffered_bytes() + self.follower.buffered_bytes();
        self.queued_bytes + pending + buffered
    }

    fn take_outcome(&mut self) -> Option<crate::log::Outcome> {
        None
    }

    fn close(self: Box<Self>) {}

    fn bytes(&self) -> u64 {
        self.taken.bytes.saturating_sub(self.newest.map_or(0, |newest| newest.end.bytes))
    }

    fn is_snapshot_due(&self) -> bool {
        let snapshot_bytes = self.newest.map_or(0, |newest| newest.bytes);
        let bytes = self.bytes();
        self.reader.is_none()
            && self.is_commands_up
            && self.writer.may_begin(self.now_ms)
            && bytes > self.snapshot_min_bytes
            && bytes > 2 * snapshot_bytes
    }

    fn begin_snapshot(&mut self, position: u64) {
        assert_eq!(position, self.taken.position, "all records that were taken are applied");
        let (name, end) = (random_number(self.random), self.taken);
        self.write_snapshot(|writer, sending| writer.begin(name, end, sending));
    }

    fn has_snapshot(&self) -> bool {
        self.writer.is_open()
    }

    fn wants_piece(&self) -> bool {
        self.writer.wants_piece()
    }

    fn append_piece(&mut self, bytes: &[u8]) {
        self.write_snapshot(|writer, sending| writer.write(bytes, sending));
    }

    fn finish_snapshot(&mut self) {
        self.write_snapshot(SnapshotWriter::finish);
    }

    fn abandon_snapshot(&mut self) {
        self.write_snapshot(SnapshotWriter::abandon);
    }
}

/// Returns a number that no other process has.
fn random_number(random: fn(&mut [u8])) -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes);
    u64::from_le_bytes(bytes).max(1)
}

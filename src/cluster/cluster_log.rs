//! The log in a Redis stream, as the service drives it.

use std::collections::VecDeque;

use super::connection::{Connection, Event as ConnectionEvent, Failure, ServerInfo};
use super::entry::{self, Entry};
use super::keys::Keys;
use super::page_size::PageSize;
use super::snapshot_entry::{LogEnd, SnapshotEntry};
use super::snapshot_reader::{Read, SnapshotReader};
use super::snapshot_writer::{Sending, SnapshotReply, SnapshotWriter};
use super::state::{ClusterLogState, LastRecord};
use super::stream_id::StreamId;
use super::tail::{Seal, Tail};
use super::value::{ErrorKind, Value};
use super::vouching::{self, Decision, Own, Verdict, View, Vouching};
use crate::log::{Event, Log, Outcome, SharedRecord};

/// Time for which Redis waits for an entry before it replies without one, in milliseconds. Short,
/// since a connection that is dead is noticed by a reply that does not come.
const BLOCK_MS: &[u8] = b"1000";

/// Node of a record that begins a numbering of ids. Its sequence number is its position, if the
/// node that appended it knew that.
const NO_NODE: u64 = 0;

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
    /// The operator was told what to do about the outage.
    is_operator_called: bool,
    /// Error of the last record that Redis did not take, if none was taken since.
    refusal: Option<ErrorKind>,
    /// Run ids of the servers at the other ends.
    commands_run_id: Box<str>,
    follower_run_id: Box<str>,
    /// The follower waits for the reply to a page.
    is_page_asked: bool,

    vouching: Vouching,
    /// Records that Redis may have lost.
    tail: Tail,
    /// The nodes, and commands that begin a numbering, for the round of vouches that goes on.
    members: Option<Vec<u64>>,
    renumbering: Vec<u8>,

    /// End of what was read, and of the records that were taken.
    read: LogEnd,
    taken: LogEnd,
    last_mono_ms: u64,
    /// Monotonic time of this process minus the time of Redis.
    mono_ahead_ms: i64,
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
    /// It is not known yet whether this Redis has another one.
    is_newest_asked: bool,
    /// Nodes that join need a snapshot: this Redis has no other state that the log begins with.
    needs_snapshot: bool,
    snapshot_min_bytes: u64,
}

/// Record that was appended.
struct Pending {
    value: Vec<u8>,
    /// It was sent, and the connection ended without a reply: it may be in the stream.
    may_be_there: bool,
    /// It waits for a reply, or to be read.
    is_sent: bool,
    retry_at_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Barrier {
    Unsent,
    Sent,
    At(StreamId),
}

enum Expected {
    Append,
    /// The end of the stream, which was not before this id.
    End(StreamId),
    /// A step of a transaction in a round of vouches.
    Step,
    /// What Redis holds: the end of such a transaction.
    View,
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
            is_operator_called: false,
            refusal: None,
            commands_run_id: Box::default(),
            follower_run_id: Box::default(),
            is_page_asked: false,
            vouching: Vouching::new(),
            tail: Tail::after(0),
            members: None,
            renumbering: Vec::new(),
            read: LogEnd::default(),
            taken: LogEnd::default(),
            last_mono_ms: 0,
            mono_ahead_ms: 0,
            page_size: PageSize::default(),
            events: VecDeque::new(),
            ends: VecDeque::new(),
            queued_bytes: 0,
            reader: Some(SnapshotReader::new(false)),
            writer: SnapshotWriter::default(),
            newest: None,
            newest_id: StreamId::default(),
            is_newest_asked: false,
            needs_snapshot: false,
            snapshot_min_bytes: SNAPSHOT_MIN_BYTES,
        }
    }

    /// Continues with the log of a process that this one takes over from.
    pub fn resume(&mut self, state: &ClusterLogState) {
        (self.node, self.sequence) = (state.node, state.sequence);
        (self.read, self.taken) = (state.end, state.end);
        (self.newest, self.newest_id) = (state.newest, state.newest_id);
        if let Some(LastRecord { node, sequence, commands }) = &state.last {
            self.tail = Tail::after(state.end.position.saturating_sub(1));
            let seal = Seal { id: state.end.id, node: *node, sequence: *sequence };
            self.tail.push(seal, commands);
        }
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
                ConnectionEvent::Connected(info) => self.on_commands_up(info),
                ConnectionEvent::Reply(value) => self.on_reply(&value),
                ConnectionEvent::Disconnected(failure) => {
                    self.report_outage(&failure);
                    self.on_commands_down();
                }
            }
        }
        while self.has_room()
            && let Some(event) = self.follower.poll()
        {
            match event {
                ConnectionEvent::Connected(info) => {
                    self.is_follower_up = true;
                    self.follower_run_id = info.run_id;
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

    fn on_commands_up(&mut self, info: ServerInfo) {
        if let Some(failure) = find_flaw(&info) {
            self.report_outage(&failure);
            self.commands.reset();
            return;
        }
        self.is_operator_called = false;
        if std::mem::take(&mut self.is_outage_reported) {
            log::info!("cluster: connected to Redis");
        }
        if self.vouching.on_connected(&info.run_id, self.now_ms) {
            // Another server has another clock.
            self.mono_ahead_ms = self.now_ms.cast_signed() - info.unix_ms.cast_signed();
            self.begin_round();
        }
        self.is_commands_up = true;
        self.commands_run_id = info.run_id;
    }

    /// Reports the first failure of an outage. One that the operator has to end makes this process
    /// end, unless it has used the log before.
    fn report_outage(&mut self, failure: &Failure) {
        let is_call = failure.needs_operator && !self.is_operator_called;
        if !self.is_outage_reported || is_call {
            log::error!("cluster: no connection to Redis: {failure}");
        }
        self.is_outage_reported = true;
        self.is_operator_called |= failure.needs_operator;
        if is_call && self.vouching.last_trusted().is_none() {
            self.events.push_back(Event::Unusable);
        }
    }

    fn on_commands_down(&mut self) {
        self.is_commands_up = false;
        self.expected.clear();
        self.writer.on_disconnected(self.now_ms);
        if let Some(pending) = &mut self.pending {
            pending.may_be_there |= pending.is_sent;
            pending.is_sent = false;
        }
        for barrier in &mut self.barriers {
            if *barrier == Barrier::Sent {
                *barrier = Barrier::Unsent;
            }
        }
        // The round begins again with the next connection.
        self.vouching.end_round();
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

    /// Looks for another server.
    fn reset_connections(&mut self) {
        self.commands.reset();
        self.follower.reset();
        self.on_commands_down();
        self.on_follower_down();
    }

    fn on_reply(&mut self, value: &Value) {
        match self.expected.pop_front() {
            Some(Expected::Append) => self.on_append(value),
            Some(Expected::End(floor)) => self.on_end(floor, value),
            Some(Expected::Step) => {
                self.on_step(value);
            }
            Some(Expected::View) => self.on_view(value),
            Some(Expected::Snapshot(name, reply)) => self.on_snapshot_reply(name, reply, value),
            None => {}
        }
    }

    /// Notes the reply to an append. The record itself comes by the other connection.
    fn on_append(&mut self, value: &Value) {
        let Some(pending) = &mut self.pending else { return };
        let Some(kind) = value.error_kind() else {
            if *value == Value::Nil {
                pending.is_sent = false;
                self.suspect();
            } else if self.refusal.take().is_some() {
                log::info!("cluster: Redis takes records again");
            }
            return;
        };
        pending.is_sent = false;
        pending.retry_at_ms = self.now_ms + RETRY_MS;
        // The earlier one of two that were sent may be there.
        let is_full = kind.is_full() && !pending.may_be_there;
        self.report_refusal(kind);
        if is_full {
            self.pending = None;
            self.events.push_back(Event::Outcome(Outcome::Full));
        } else if kind.is_of_the_server() {
            self.reset_connections();
        }
    }

    fn report_refusal(&mut self, kind: ErrorKind) {
        if self.refusal.replace(kind) != Some(kind) {
            log::error!("cluster: Redis does not take records: {}", kind.explanation());
        }
    }

    /// Notes that the log lacks records, under the run id that it had before.
    fn suspect(&mut self) {
        log::warn!("cluster: Redis has lost the log");
        self.vouching.suspect(&self.commands_run_id, self.now_ms);
        self.begin_round();
    }

    fn begin_round(&mut self) {
        if self.read.id != StreamId::default() {
            log::warn!("cluster: another Redis than before, or an emptied one: asking all nodes");
        }
        self.members = None;
        self.abandon_snapshot();
        if let Some(pending) = &mut self.pending {
            pending.may_be_there |= pending.is_sent;
            pending.is_sent = false;
        }
        for barrier in &mut self.barriers {
            *barrier = Barrier::Unsent;
        }
        // Their replies are no longer of use.
        for expected in &mut self.expected {
            if matches!(expected, Expected::End(_)) {
                *expected = Expected::Step;
            }
        }
    }

    /// Notes the end of the stream, for the oldest barrier that waits for it.
    fn on_end(&mut self, floor: StreamId, value: &Value) {
        let newest = match value.as_array() {
            Some([]) => Some(StreamId::default()),
            Some([newest, ..]) => Entry::parse(newest).map(|(id, _)| id),
            None => None,
        };
        if newest.is_some_and(|newest| newest < floor) {
            return self.suspect();
        }
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
        if !self.vouching.trusts(&self.follower_run_id) {
            return;
        }
        self.is_newest_asked = false;
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
            if self.reader.is_some() {
                return;
            }
            self.read.id = id;
            match entry {
                Some(entry) => self.push_record(entry),
                None => log::warn!("cluster: an entry of the stream is no record"),
            }
            self.reach_barriers();
        }
        let bytes = self.queued_bytes.saturating_sub(before);
        self.page_size.adapt(entries.len(), bytes);
    }

    /// Notes the newest snapshot. Returns false if the log was trimmed beyond what this process has
    /// read: then it reads the snapshot.
    fn on_snapshots(&mut self, entries: &Value) -> bool {
        let Some((id, newest)) = SnapshotEntry::parse_all(entries).last() else { return true };
        self.newest_id = id;
        // The snapshot of a later version cannot be read, but its records are read.
        let Some(newest) = newest else { return true };
        self.newest = Some(newest);
        self.needs_snapshot = false;
        if newest.end.id > self.read.id {
            log::warn!("cluster: this node was too slow: the log has lost records it had not read");
            self.diverge();
            return false;
        }
        true
    }

    /// Adds what a reply to the reader of snapshots brings.
    fn on_read(&mut self, value: &Value) {
        let Some(reader) = &mut self.reader else { return };
        if !self.vouching.trusts(&self.follower_run_id) {
            return reader.restart();
        }
        let log_time_ahead_ms = -self.mono_ahead_ms;
        match reader.on_reply(value, self.now_ms) {
            Read::Begin => self.events.push_back(Event::SnapshotBegins { log_time_ahead_ms }),
            Read::Piece(piece) => self.push_piece(piece),
            Read::End(entry, id, last) => {
                (self.newest, self.newest_id) = (Some(entry), id);
                self.follow(entry.end);
                self.tail = Tail::after(entry.end.position.saturating_sub(1));
                let Entry { id, node, sequence, commands } = last;
                self.tail.push(Seal { id, node, sequence }, &commands);
                let LogEnd { position, .. } = entry.end;
                self.events.push_back(Event::SnapshotEnds { position });
            }
            Read::Nothing(has_to_replace) => {
                self.follow(LogEnd::default());
                self.tail = Tail::after(0);
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
        if node == NO_NODE && sequence != 0 && sequence != self.read.position {
            log::error!("cluster: records are missing in the log that this node has read");
            return self.diverge();
        }
        self.tail.push(Seal { id, node, sequence }, &commands);
        self.read.bytes += bytes as u64;
        self.ends.push_back(self.read);
        self.queued_bytes += bytes;
        let mono_ms = id.unix_ms.saturating_add_signed(self.mono_ahead_ms);
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
            | Event::Unusable
            | Event::SnapshotBegins { .. }
            | Event::SnapshotEnds { .. } => 0,
        };
        self.queued_bytes -= bytes.min(self.queued_bytes);
    }

    fn has_room(&self) -> bool {
        self.events.len() < QUEUE_MAX && self.queued_bytes < QUEUE_BYTES_MAX
    }

    /// Handles a reply for the snapshot with this name.
    fn on_snapshot_reply(&mut self, name: u64, reply: SnapshotReply, value: &Value) {
        let published =
            self.write_snapshot(|writer, sending| writer.on_reply(name, reply, value, sending));
        if let Some(entry) = published {
            let LogEnd { position, .. } = entry.end;
            log::info!("cluster snapshot complete position={position} bytes={}", entry.bytes);
            self.newest = Some(entry);
            self.needs_snapshot = false;
        }
    }

    /// Lets the writer of a snapshot send commands.
    fn write_snapshot<T>(
        &mut self,
        write: impl FnOnce(&mut SnapshotWriter, &mut Sending<'_>) -> T,
    ) -> T {
        let mut sending = Sending {
            connection: &mut *self.commands,
            keys: &self.keys,
            vouches: self.keys.vouches(&self.commands_run_id),
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
            if self.vouching.has_round() {
                self.vouch();
            } else {
                self.send_commands();
            }
        }
        if self.is_follower_up && !self.is_page_asked && self.has_room() {
            self.ask_for_page();
        }
    }

    fn send_commands(&mut self) {
        let stream = self.keys.stream();
        if let Some(pending) = &mut self.pending
            && !pending.is_sent
            && pending.retry_at_ms <= self.now_ms
        {
            let field = entry::FIELD;
            if self.read.id == StreamId::default() {
                self.commands.send(&[b"XADD", stream, b"*", field, &pending.value]);
            } else {
                // Fails if the stream is gone, with all that was in it.
                self.commands.send(&[b"XADD", stream, b"NOMKSTREAM", b"*", field, &pending.value]);
            }
            pending.is_sent = true;
            self.expected.push_back(Expected::Append);
        }
        for barrier in self.barriers.iter_mut().filter(|it| **it == Barrier::Unsent) {
            self.commands.send(&[b"XREVRANGE", stream, b"+", b"-", b"COUNT", b"1"]);
            *barrier = Barrier::Sent;
            self.expected.push_back(Expected::End(self.read.id));
        }
        if self.writer.is_open() {
            self.write_snapshot(SnapshotWriter::renew);
        }
    }

    fn ask_for_page(&mut self) {
        if !self.vouching.trusts(&self.follower_run_id) {
            // Both connections have to find the same server.
            if !self.vouching.has_round() && self.is_commands_up {
                self.follower.reset();
                self.on_follower_down();
            }
            return;
        }
        if let Some(reader) = &mut self.reader {
            return reader.send(&mut *self.follower, &self.keys, self.now_ms);
        }
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

/// Rounds of vouches.
impl ClusterLog {
    /// Vouches for the log if it is time, and asks what the other nodes say.
    fn vouch(&mut self) {
        let Some(members) = &self.members else { return };
        if !self.vouching.is_due(self.now_ms) {
            return;
        }
        let is_member = members.contains(&self.node);
        let count = self.vouching.vouch();
        let (key, stream) = (self.keys.vouches(&self.commands_run_id), self.keys.stream().to_vec());
        let last_id = self.read.id.to_string();
        self.step(&[b"MULTI"]);
        if is_member {
            let (node, vouch) =
                (self.node.to_string(), vouching::format_vouch(count, self.read.id));
            self.step(&[b"HSET", &key, node.as_bytes(), vouch.as_bytes()]);
        }
        self.step(&[b"HGETALL", &key]);
        self.step(&[b"XREVRANGE", &stream, b"+", b"-", b"COUNT", b"1"]);
        self.step(&[b"XRANGE", &stream, last_id.as_bytes(), last_id.as_bytes()]);
        self.commands.send(&[b"EXEC"]);
        self.expected.push_back(Expected::View);
    }

    /// Sends a command of a transaction.
    fn step(&mut self, args: &[&[u8]]) {
        self.commands.send(args);
        self.expected.push_back(Expected::Step);
    }

    /// Notes the reply to a command of a transaction. Returns whether it is no error.
    fn on_step(&mut self, value: &Value) -> bool {
        let Some(kind) = value.error_kind() else { return true };
        // A transaction without all of its steps is refused: the reason came before.
        if kind != ErrorKind::Other {
            self.report_refusal(kind);
        }
        if kind.is_of_the_server() {
            self.reset_connections();
        }
        false
    }

    /// Judges what Redis holds.
    fn on_view(&mut self, value: &Value) {
        let Some([.., hash, end, own]) = value.as_array() else {
            self.on_step(value);
            return self.vouching.wait(self.now_ms);
        };
        for reply in [hash, end, own] {
            if !self.on_step(reply) {
                return self.vouching.wait(self.now_ms);
            }
        }
        let seal = |value: &Value| {
            let (id, entry) = Entry::parse(value.as_array()?.first()?)?;
            // An entry of another program has no node.
            let (node, sequence) = entry.map_or((NO_NODE, 0), |it| (it.node, it.sequence));
            Some(Seal { id, node, sequence })
        };
        let has_own = seal(own).is_some_and(|own| Some(own) == self.tail.last());
        let view = View { end: seal(end), has_own, ..View::of_hash(hash) };
        let members = self.members.as_deref().unwrap_or_default();
        let own = Own { node: self.node, members, tail: &self.tail };
        match self.vouching.judge(self.now_ms, &view, &own) {
            Verdict::Wait => {}
            Verdict::Trust => {
                if self.read.id != StreamId::default() {
                    log::warn!("cluster: the log goes on");
                }
                self.refusal = None;
                // Another Redis has another one, or none.
                (self.newest, self.newest_id) = (None, StreamId::default());
                self.is_newest_asked = true;
                self.needs_snapshot = view.base.is_some();
            }
            Verdict::Contradicted { is_member } => {
                log::error!("cluster: the log in Redis is not the one that this node has read");
                if is_member {
                    self.append_renumbering(0);
                }
                self.diverge();
            }
            Verdict::Decide(decision) => self.decide(decision, &view),
        }
    }

    /// Gives up the state: the log is not the one that was read.
    fn diverge(&mut self) {
        self.reload();
    }

    /// Makes the log whole. The next vouch finds out whether it is.
    fn decide(&mut self, decision: Decision, view: &View) {
        let Decision { since, is_cut, resets } = decision;
        log::warn!(
            "cluster: {}",
            match (since.is_some(), resets) {
                (_, true) => "records may be lost; message ids begin a new epoch",
                (true, false) => "all nodes agree; appending the records that Redis has lost",
                (false, false) => "Redis has all records",
            }
        );
        let (key, stream) = (self.keys.vouches(&self.commands_run_id), self.keys.stream().to_vec());
        let first = self.tail.first().map(|first| first.id.to_string());
        let end = view.end.map_or_else(StreamId::default, |end| end.id);
        let done = end.max(self.read.id).to_string();
        self.step(&[b"MULTI"]);
        if let Some(since) = since {
            for (id, value) in self.tail.since(since) {
                let id = id.to_string();
                self.commands.send(&[b"XADD", &stream, id.as_bytes(), entry::FIELD, &value]);
                self.expected.push_back(Expected::Step);
            }
        }
        self.step(&[b"DEL", &key]);
        if let Some(run_id) = self.vouching.last_trusted() {
            let key = self.keys.vouches(run_id);
            self.step(&[b"DEL", &key]);
        }
        self.step(&[b"HSET", &key, vouching::DONE, done.as_bytes()]);
        if let Some(first) = first.filter(|_| is_cut) {
            self.step(&[b"HSET", &key, vouching::BASE, first.as_bytes()]);
        }
        if resets {
            // If the log has records that this node has not read, their number is unknown.
            let is_known = end <= self.read.id && self.read.position > 0;
            self.append_renumbering(if is_known { self.read.position + 1 } else { 0 });
        }
        self.step(&[b"EXEC"]);
    }

    /// Appends a record that begins a numbering of ids.
    fn append_renumbering(&mut self, position: u64) {
        let value = entry::encode(NO_NODE, position, &self.renumbering);
        let stream = self.keys.stream().to_vec();
        self.step(&[b"XADD", &stream, b"*", entry::FIELD, &value]);
    }
}

/// Returns why a server cannot hold the log.
fn find_flaw(info: &ServerInfo) -> Option<Failure> {
    if info.evicts {
        let reason = "Redis drops keys when its memory is full, so it would drop the log: set its \
                      maxmemory-policy to noeviction";
        return Some(Failure::permanent(reason.to_owned()));
    }
    let reason = "the server is a replica, which takes no records";
    (!info.is_writable).then(|| Failure::transient(reason.to_owned()))
}

impl Log for ClusterLog {
    fn begin_turn(&mut self, mono_ms: u64) {
        self.now_ms = mono_ms;
    }

    fn is_ready(&self) -> bool {
        self.pending.is_none() && self.reader.is_none()
    }

    fn append(&mut self, _mono_ms: u64, _unix_ms: u64, commands: &[u8]) {
        self.sequence += 1;
        let value = entry::encode(self.node, self.sequence, commands);
        self.pending = Some(Pending { value, may_be_there: false, is_sent: false, retry_at_ms: 0 });
        self.send();
    }

    fn withdraw(&mut self) -> bool {
        let is_unsent = |pending: &mut Pending| !pending.may_be_there && !pending.is_sent;
        self.pending.take_if(is_unsent).is_some()
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

    fn wants_members(&self) -> bool {
        let is_asked = self.vouching.has_round() && self.members.is_none();
        is_asked && self.events.is_empty()
    }

    fn set_members(&mut self, members: Vec<u64>, renumbering: Vec<u8>) {
        (self.members, self.renumbering) = (Some(members), renumbering);
        self.send();
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        let unsent = self.pending.as_ref().filter(|pending| !pending.is_sent);
        let vouch_ms = self.vouching.next_ms().filter(|_| self.members.is_some());
        let read_at_ms = self.reader.as_ref().and_then(SnapshotReader::next_deadline_ms);
        let retry_at_ms = unsent.map(|pending| pending.retry_at_ms);
        retry_at_ms.into_iter().chain(vouch_ms).chain(read_at_ms).min()
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
        (self.read, self.taken) = (LogEnd::default(), LogEnd::default());
        self.tail = Tail::after(0);
        self.abandon_snapshot();
        self.reader = Some(SnapshotReader::new(true));
        // From now on this process answers nothing from what it had.
        let log_time_ahead_ms = -self.mono_ahead_ms;
        self.events.push_back(Event::SnapshotBegins { log_time_ahead_ms });
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
            last: self.tail.last_record().filter(|_| self.read == self.taken),
            newest: self.newest,
            newest_id: self.newest_id,
        };
        Some(state.encode())
    }

    fn memory(&self) -> usize {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.value.len());
        let buffered = self.commands.buffered_bytes() + self.follower.buffered_bytes();
        // The tail has a limit of its own, and has it also while there are no clients.
        self.queued_bytes + pending + buffered
    }

    fn take_outcome(&mut self) -> Option<Outcome> {
        None
    }

    fn close(self: Box<Self>) {}

    fn bytes(&self) -> u64 {
        self.taken.bytes.saturating_sub(self.newest.map_or(0, |newest| newest.end.bytes))
    }

    fn is_snapshot_due(&self) -> bool {
        let snapshot_bytes = self.newest.map_or(0, |newest| newest.bytes);
        let bytes = self.bytes();
        let is_worth_it = bytes > self.snapshot_min_bytes && bytes > 2 * snapshot_bytes;
        self.reader.is_none()
            && self.is_commands_up
            && !self.vouching.has_round()
            && !self.is_newest_asked
            && self.writer.may_begin(self.now_ms)
            && (is_worth_it || self.needs_snapshot)
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

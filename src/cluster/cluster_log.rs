//! The log in a Redis stream.
//!
//! Each node appends its records by one connection, and gets those of all nodes by the other one,
//! in the order of the stream.

use std::collections::VecDeque;

use super::connection::Connection;
use super::keys::Keys;
use super::log_end::LogEnd;
use super::page_size::PageSize;
use super::snapshot_entry::SnapshotEntry;
use super::snapshot_reader::SnapshotReader;
use super::snapshot_writer::{SnapshotReply, SnapshotWriter};
use super::state::ClusterLogState;
use super::stream_id::StreamId;
use super::tail::{self, Tail};
use super::value::ErrorKind;
use super::vouching::{Decision, Vouching};
use crate::log::Event;

/// No snapshot is made of a log below this size.
const SNAPSHOT_MIN_BYTES: u64 = 16 << 20;

/// Events that wait to be taken. No page is asked for while there are more.
const QUEUE_MAX: usize = 1024;

/// Bytes of records and pieces that wait to be taken. No page is asked for while there are more.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// A log in a Redis stream.
pub struct ClusterLog {
    pub(super) commands: Box<dyn Connection>,
    pub(super) follower: Box<dyn Connection>,
    pub(super) keys: Keys,
    /// Number of this process.
    pub(super) node: u64,
    /// Random numbers for the next processes' numbers.
    pub(super) random: fn(&mut [u8]),
    pub(super) now_ms: u64,

    /// Record that was appended and has not come back.
    pub(super) pending: Option<Pending>,
    /// Number of the last record that was appended.
    pub(super) sequence: u64,
    /// Barriers that were begun and are not reached, oldest first.
    pub(super) barriers: VecDeque<Barrier>,
    /// Time at which Redis last told the end of the stream for one of them.
    pub(super) end_told_ms: u64,
    /// What the replies on the connection for commands belong to.
    pub(super) expected: VecDeque<Expected>,
    pub(super) is_commands_up: bool,
    pub(super) is_follower_up: bool,
    pub(super) is_outage_reported: bool,
    /// The operator was told what to do about the outage.
    pub(super) is_operator_called: bool,
    /// The operator was told that this process waits for other nodes.
    pub(super) is_wait_reported: bool,
    /// Error of the last record that Redis did not take, if none was taken since.
    pub(super) refusal: Option<ErrorKind>,
    /// Run ids of the servers at the other ends.
    pub(super) commands_run_id: Box<str>,
    pub(super) follower_run_id: Box<str>,
    /// The follower waits for the reply to a page.
    pub(super) is_page_asked: bool,

    pub(super) vouching: Vouching,
    /// Records that Redis may have lost.
    pub(super) tail: Tail,
    /// The nodes, and commands that begin a numbering, for the round of vouches that goes on.
    pub(super) members: Option<Vec<u64>>,
    pub(super) renumbering: Vec<u8>,
    /// Decision of this node that Redis has not taken yet.
    pub(super) deciding: Option<Deciding>,

    /// End of the records that were read, and of those that were taken.
    pub(super) read: LogEnd,
    pub(super) taken: LogEnd,
    /// Id of the last entry that was read. It may be no record.
    pub(super) read_id: StreamId,
    /// What was read may be more than the log has, since that was another one before.
    pub(super) may_lack_records: bool,
    /// What this node has last told of its attempts to make the log whole. It tries again and again
    /// if Redis takes nothing.
    pub(super) reported_decision: Option<&'static str>,
    pub(super) last_mono_ms: u64,
    /// Monotonic time of this process minus the time of Redis.
    pub(super) mono_ahead_ms: i64,
    pub(super) page_size: PageSize,
    pub(super) events: VecDeque<Event>,
    /// Places in the log of the records in `events`.
    pub(super) ends: VecDeque<LogEnd>,
    /// Bytes of the records and pieces in `events`.
    pub(super) queued_bytes: usize,

    /// Reads the newest snapshot, before the records after it.
    pub(super) reader: Option<SnapshotReader>,
    pub(super) writer: SnapshotWriter,
    /// The newest snapshot, and the id of the entry that describes it.
    pub(super) newest: Option<SnapshotEntry>,
    pub(super) newest_id: StreamId,
    pub(super) snapshot_min_bytes: u64,
}

/// Record that was appended.
pub(super) struct Pending {
    pub(super) value: Vec<u8>,
    /// It was sent, and the connection ended without a reply: it may be in the stream.
    pub(super) may_be_there: bool,
    /// It waits for a reply, or to be read.
    pub(super) is_sent: bool,
    pub(super) retry_at_ms: u64,
    /// Id in the stream, once Redis has taken it.
    pub(super) id: Option<StreamId>,
    /// If it has not come back by then, Redis may have lost it, and all others.
    pub(super) probe_at_ms: u64,
}

/// A decision of a round of vouches, with what it was made from.
pub(super) struct Deciding {
    pub(super) decision: Decision,
    /// Nodes that have vouched, each with the last record that it has read.
    pub(super) counted: Vec<(u64, StreamId)>,
    /// Last record of the log.
    pub(super) end_id: StreamId,
    /// The newest snapshot.
    pub(super) newest: Option<SnapshotEntry>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Barrier {
    Unsent,
    Sent,
    At(StreamId),
}

/// What a reply is to.
pub(super) enum Expected {
    /// The record with this number.
    Append(u64),
    /// The end of the stream, which was not before this id.
    End(StreamId),
    /// The same, for no barrier.
    Probe(StreamId),
    /// A command for the snapshot with this name.
    Snapshot(u64, SnapshotReply),
    /// A step of a transaction in a round of vouches, or a command that has lost its purpose.
    Step,
    /// What Redis holds: the end of such a transaction.
    View,
    /// The end of a stream that Redis watches now. It was this one when a decision was made.
    Unchanged(StreamId),
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
            end_told_ms: 0,
            expected: VecDeque::new(),
            is_commands_up: false,
            is_follower_up: false,
            is_outage_reported: false,
            is_operator_called: false,
            is_wait_reported: false,
            refusal: None,
            commands_run_id: Box::default(),
            follower_run_id: Box::default(),
            is_page_asked: false,
            vouching: Vouching::new(),
            tail: Tail::after(LogEnd::default(), tail::BYTES_MAX),
            members: None,
            renumbering: Vec::new(),
            deciding: None,
            read: LogEnd::default(),
            taken: LogEnd::default(),
            read_id: StreamId::default(),
            may_lack_records: false,
            reported_decision: None,
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
            snapshot_min_bytes: SNAPSHOT_MIN_BYTES,
        }
    }

    /// Continues with the log of a process that this one takes over from.
    pub fn resume(&mut self, state: &ClusterLogState) {
        (self.node, self.sequence) = (state.node, state.sequence);
        (self.newest, self.newest_id) = (state.newest, state.newest_id);
        self.vouching.resume(state.run_id.clone());
        self.follow(state.end);
        self.may_lack_records = state.may_lack_records;
        let restore = |saved| Tail::restore(saved, state.end, self.tail.bytes_max());
        if let Some(tail) = state.tail.as_deref().and_then(restore) {
            self.tail = tail;
        }
    }

    /// Sets the size of a log below which no snapshot is made, and that of the records that are
    /// kept for a Redis that lacks them, in bytes. For tests, whose logs are small.
    pub fn set_sizes(&mut self, snapshot_min: u64, tail_max: usize) {
        self.snapshot_min_bytes = snapshot_min;
        self.tail = Tail::after(self.read, tail_max);
    }

    /// Returns the number of this process.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.node
    }

    /// Follows the log from this place on.
    pub(super) fn follow(&mut self, end: LogEnd) {
        self.begin_at(end);
        self.reader = None;
    }

    /// Goes to a place in the log. Nothing of what was read is kept.
    pub(super) fn begin_at(&mut self, end: LogEnd) {
        (self.read, self.taken, self.read_id) = (end, end, end.last.id);
        self.tail = Tail::after(end, self.tail.bytes_max());
        self.may_lack_records = false;
        // The records that follow may have been read before, and have the times that they had.
        self.last_mono_ms = 0;
    }

    /// Returns whether another page or piece may be asked for.
    pub(super) fn has_room(&self) -> bool {
        self.events.len() < QUEUE_MAX && self.queued_bytes < QUEUE_BYTES_MAX
    }

    /// Adds the events of barriers that are reached.
    pub(super) fn reach_barriers(&mut self) {
        while self.reader.is_none()
            && let Some(Barrier::At(id)) = self.barriers.front()
            && *id <= self.read_id
        {
            self.barriers.pop_front();
            self.events.push_back(Event::Barrier);
        }
    }
}

/// Returns a number that no other process has.
pub(super) fn random_number(random: fn(&mut [u8])) -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes);
    u64::from_le_bytes(bytes).max(1)
}

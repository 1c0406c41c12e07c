//! The log as the service drives it.

use std::time::Duration;

/// A log of records: batches of commands in one order.
///
/// At most one record is being appended at a time. So the commands of all turns meanwhile become
/// one record, and cost one write.
pub trait Log {
    /// Returns whether the next record may be appended. False while one is being written, until
    /// its outcome was taken.
    fn is_ready(&self) -> bool;

    /// Appends a record: one batch of commands, in CBOR, one after the other. At least one byte and
    /// at most [`PAYLOAD_MAX_BYTES`](super::PAYLOAD_MAX_BYTES). [`Log::is_ready`] must be true.
    fn append(&mut self, mono_ms: u64, unix_ms: u64, commands: &[u8]);

    /// Waits until what was appended is written, and releases the log for another process.
    fn close(self: Box<Self>);

    /// Returns the outcome of the record that was appended, once, as soon as it is known. Notes the
    /// progress of a snapshot too.
    fn take_outcome(&mut self) -> Option<Outcome>;

    /// Returns the next event, in the order of the log. A log of this process alone has nothing but
    /// outcomes.
    fn poll(&mut self) -> Option<Event> {
        self.take_outcome().map(Event::Outcome)
    }

    /// Returns whether [`Log::poll`] may return an event, or note the progress of a snapshot. Costs
    /// less than to poll in vain.
    fn may_have_events(&self) -> bool {
        true
    }

    /// Begins a turn of a cluster, at this monotonic time of the process.
    fn begin_turn(&mut self, _mono_ms: u64) {}

    /// Returns the time at which the log has something to do, in milliseconds of the monotonic
    /// time: later than that of this turn.
    fn next_deadline_ms(&self) -> Option<u64> {
        None
    }

    /// Takes back the record that was appended, if it cannot be in the log. Returns whether it did.
    fn withdraw(&mut self) -> bool {
        false
    }

    /// Draws another number for this process, which is no longer in the cluster. No record may be
    /// pending. Returns the number; 0 without a cluster.
    fn renew_node(&mut self) -> u64 {
        0
    }

    /// Returns whether the log waits for [`Log::set_members`]: all of its records have to be
    /// applied before.
    fn wants_members(&self) -> bool {
        false
    }

    /// Tells the log the processes that share it, as numbers, and commands in CBOR that begin a new
    /// numbering of ids, in case that records are lost.
    fn set_members(&mut self, _members: Vec<u64>, _renumbering: Vec<u8>) {}

    /// Asks for the end of the log as it is now. [`Event::Barrier`] comes after all records up to
    /// there. Returns false if this process alone appends records, so that it knows the end.
    fn begin_barrier(&mut self) -> bool {
        false
    }

    /// Returns the time at which the log last told its end for a barrier, as a monotonic time of
    /// this process in milliseconds; 0 if it never did.
    fn end_told_ms(&self) -> u64 {
        0
    }

    /// Returns whether the end is known that the oldest barrier was begun for, and records up to
    /// there are still to come or to be taken.
    fn is_catching_up(&self) -> bool {
        false
    }

    /// Returns whether records go out and come in, as far as is known. Always true for a log of
    /// this process alone.
    fn is_reachable(&self) -> bool {
        true
    }

    /// Loads the newest snapshot and the records after it: the state of this process is wrong.
    /// [`Event::SnapshotBegins`] comes at once.
    fn reload(&mut self) {}

    /// Returns what the successor of this process continues the log with. All events must be
    /// handled. `None` without a cluster.
    fn state(&self) -> Option<Vec<u8>> {
        None
    }

    /// Returns the bytes of events that were not taken, and of records that were not sent.
    fn memory(&self) -> usize {
        0
    }

    /// Returns the size of the records after the newest snapshot, in bytes.
    fn bytes(&self) -> u64;

    /// Returns whether a snapshot would shorten the log enough to be worth its cost.
    fn is_snapshot_due(&self) -> bool;

    /// Begins a snapshot. All records up to `position` are applied to the state that it will hold.
    /// [`Log::has_snapshot`] must be false.
    fn begin_snapshot(&mut self, position: u64);

    /// Returns whether a snapshot was begun, and neither completed nor given up. It is given up if
    /// the disk is full or fails, so the caller has to ask.
    fn has_snapshot(&self) -> bool;

    /// Returns whether the snapshot takes its next piece, or its end: the previous piece is on the
    /// disk. False without a snapshot.
    fn wants_piece(&self) -> bool;

    /// Appends a piece to the snapshot, up to [`PAYLOAD_MAX_BYTES`](super::PAYLOAD_MAX_BYTES).
    /// [`Log::wants_piece`] must be true.
    fn append_piece(&mut self, bytes: &[u8]);

    /// Completes the snapshot: from now on, recovery uses it, and records up to its position are
    /// removed. [`Log::wants_piece`] must be true. [`Log::has_snapshot`] is true until all of this
    /// is done.
    fn finish_snapshot(&mut self);

    /// Gives up the snapshot, if there is one. After [`Log::finish_snapshot`] it has no effect.
    fn abandon_snapshot(&mut self);
}

/// Event of a log.
pub enum Event {
    /// Outcome of the record that was appended.
    Outcome(Outcome),
    /// A record that other processes share: the one that was appended, or that of another process.
    Record(SharedRecord),
    /// The oldest barrier that was begun is reached.
    Barrier,
    /// The state of a snapshot replaces all state of this process. The pieces follow, then
    /// [`Event::SnapshotEnds`], then the records after it. The record that was appended is not
    /// among them if it has no outcome. A second event of this kind begins again.
    SnapshotBegins {
        /// Time of the log minus the monotonic time of this process, in milliseconds.
        log_time_ahead_ms: i64,
    },
    /// The next piece of the snapshot.
    SnapshotPiece(Vec<u8>),
    /// The snapshot is complete. Without a piece before, the state is that of an empty log.
    SnapshotEnds {
        /// Position of the last record before those that follow.
        position: u64,
    },
    /// The log is of no use until the operator changes something, and was never of use to this
    /// process.
    Unusable,
}

/// A record of a log that several processes share. It holds secrets, so it has no `Debug`.
pub struct SharedRecord {
    /// Position of the record. Positions rise by 1, from 1.
    pub position: u64,
    /// Number of the process that appended it, for as long as it has been in the cluster.
    pub node: u64,
    /// Number of the record among those of that process, from 1. One that comes twice has no effect
    /// the second time.
    pub sequence: u64,
    /// Time of the log, as a monotonic time of this process, in milliseconds.
    pub mono_ms: u64,
    /// Time of the log since 1970, in milliseconds.
    pub unix_ms: u64,
    /// Commands in CBOR.
    pub commands: Vec<u8>,
    /// It is the record that this process appended last.
    pub is_pending: bool,
}

/// Outcome of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The record is in the log, at this position. Positions rise by 1, from 1.
    Durable {
        /// Position of the record.
        position: u64,
        /// Time of the flush. Zero if the record is not flushed.
        flush: Duration,
    },
    /// The disk is full: nothing was written, and later records may be.
    Full,
    /// Whether the record is in the log is unknown. The process has to stop: no record is written
    /// any more.
    Failed,
}

//! Reads the newest snapshot from Redis, piece by piece.

use super::connection::Connection;
use super::keys::Keys;
use super::snapshot_entry::SnapshotEntry;
use super::stream_id::StreamId;
use super::value::Value;

/// Time until a snapshot is looked for again whose pieces are missing, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// A snapshot that is being read.
pub(super) struct SnapshotReader {
    step: Step,
    is_asked: bool,
    /// Nothing is asked before.
    retry_at_ms: u64,
    /// The state of the process is to be replaced even if there is no snapshot.
    has_to_replace: bool,
}

#[derive(Clone, Copy)]
enum Step {
    /// The newest snapshot is looked for.
    Newest,
    /// The snapshot, the id of the entry that describes it, and the number of the next piece.
    Piece(SnapshotEntry, StreamId, u64),
}

/// What a reply of Redis is.
pub(super) enum Read {
    /// The snapshot begins.
    Begin,
    /// A piece.
    Piece(Vec<u8>),
    /// The last piece, with the snapshot and the id of the entry that describes it.
    LastPiece(Vec<u8>, SnapshotEntry, StreamId),
    /// There is no snapshot: the log has all records. The state of the process is to be replaced
    /// if true.
    Nothing(bool),
    /// The reply is an error, or no snapshot of this version.
    Failed(&'static str),
    /// The snapshot was removed meanwhile.
    Again,
}

impl SnapshotReader {
    /// Begins to look for the newest snapshot. `has_to_replace` is false for a process that has no
    /// state.
    pub(super) fn new(has_to_replace: bool) -> Self {
        Self { step: Step::Newest, is_asked: false, retry_at_ms: 0, has_to_replace }
    }

    /// Begins again: the connection has ended.
    pub(super) fn restart(&mut self) {
        self.has_to_replace |= matches!(self.step, Step::Piece(..));
        (self.step, self.is_asked) = (Step::Newest, false);
    }

    /// Sends the next command, unless one has no reply yet.
    pub(super) fn send(&mut self, connection: &mut dyn Connection, keys: &Keys, now_ms: u64) {
        if self.is_asked || self.retry_at_ms > now_ms {
            return;
        }
        self.is_asked = true;
        match self.step {
            Step::Newest => {
                connection.send(&[b"XREVRANGE", keys.snapshots(), b"+", b"-", b"COUNT", b"1"]);
            }
            Step::Piece(entry, _, number) => {
                let number = number.to_string();
                connection.send(&[b"HGET", &keys.snapshot(entry.name), number.as_bytes()]);
            }
        }
    }

    /// Returns the time at which a command is to be sent, if it is not sent now.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        (!self.is_asked && self.retry_at_ms > 0).then_some(self.retry_at_ms)
    }

    /// Handles a reply.
    pub(super) fn on_reply(&mut self, value: &Value, now_ms: u64) -> Read {
        self.is_asked = false;
        match self.step {
            Step::Newest => {
                if value.as_array().is_none() {
                    return self.fail("Redis does not give the newest snapshot", now_ms);
                }
                match SnapshotEntry::parse_all(value).next() {
                    None => Read::Nothing(self.has_to_replace),
                    Some((_, Some(entry))) if entry.is_missing() => {
                        self.fail("no node has written it since Redis was emptied", now_ms)
                    }
                    Some((id, Some(entry))) => {
                        self.step = Step::Piece(entry, id, 0);
                        Read::Begin
                    }
                    Some(_) => self.fail("the snapshot in Redis is of another version", now_ms),
                }
            }
            Step::Piece(entry, id, number) => match value {
                Value::Text(piece) if number + 1 == entry.pieces => {
                    Read::LastPiece(piece.to_vec(), entry, id)
                }
                Value::Text(piece) => {
                    self.step = Step::Piece(entry, id, number + 1);
                    Read::Piece(piece.to_vec())
                }
                Value::Nil => {
                    self.restart();
                    self.retry_at_ms = now_ms + RETRY_MS;
                    Read::Again
                }
                _ => self.fail("Redis does not give a piece of the snapshot", now_ms),
            },
        }
    }

    fn fail(&mut self, reason: &'static str, now_ms: u64) -> Read {
        self.restart();
        self.retry_at_ms = now_ms + RETRY_MS;
        Read::Failed(reason)
    }
}

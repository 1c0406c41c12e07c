//! Writes a snapshot to Redis, piece by piece.
//!
//! A lock that expires keeps other nodes from doing the same. It is no more than that: a writer
//! that has lost its lock notices in the transaction that makes its snapshot the newest one. The
//! pieces expire unless that succeeds.

use super::connection::Connection;
use super::entry::FIELD;
use super::keys::Keys;
use super::log_end::LogEnd;
use super::snapshot_entry::SnapshotEntry;
use super::value::Value;

/// Time for which a writer that is silent has the lock, in milliseconds. Short: if the log lacks
/// records, no process can join before another one has written the snapshot.
const LOCK_MS: &[u8] = b"6000";

/// Time for which the pieces of a writer that is silent stay, in milliseconds.
const PIECES_MS: &[u8] = b"60000";

/// Interval in which a writer that waits renews both, in milliseconds.
const RENEW_MS: u64 = 2_000;

/// Time until the next attempt after one that has failed, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// Commands of the transaction: `PERSIST`, `XADD`, `XTRIM`, `UNLINK`, `DEL`.
const TRANSACTION_COMMANDS: usize = 5;

/// Reply to a command for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SnapshotReply {
    /// To the request for the lock.
    Locked,
    /// To a piece.
    Written,
    /// To the question who has the lock.
    Holder,
    /// To the number of pieces.
    Count,
    /// To the question for the newest snapshot.
    Newest,
    /// To the transaction.
    Published,
    /// To a command whose effect shows in a later reply.
    Ignored,
}

use SnapshotReply::{Count, Holder, Ignored, Locked, Newest, Published, Written};

/// The snapshot that this process writes, if there is one.
#[derive(Default)]
pub(super) struct SnapshotWriter {
    open: Option<OpenSnapshot>,
    retry_at_ms: u64,
}

struct OpenSnapshot {
    entry: SnapshotEntry,
    key: Vec<u8>,
    step: Step,
    renewed_ms: u64,
    /// Replies to the check before the transaction were as they should be.
    is_checked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Redis was asked for the lock.
    Locking,
    /// The next piece may come.
    Idle,
    /// A piece was sent, or the lock is renewed.
    Writing,
    /// Redis was asked whether the snapshot may become the newest one.
    Checking,
    /// The transaction was sent.
    Publishing,
}

/// Commands that are sent, with the replies that they will have.
pub(super) struct Sending<'s> {
    pub(super) connection: &'s mut dyn Connection,
    pub(super) keys: &'s Keys,
    pub(super) now_ms: u64,
    /// Replies that will come, each for the snapshot with this name.
    pub(super) expected: Vec<(u64, SnapshotReply)>,
}

impl SnapshotWriter {
    /// Returns whether a snapshot is being written.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Returns whether an attempt may be made.
    pub(super) fn may_begin(&self, now_ms: u64) -> bool {
        self.open.is_none() && now_ms >= self.retry_at_ms
    }

    /// Returns whether the next piece, or the end, may come.
    pub(super) fn wants_piece(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.step == Step::Idle)
    }

    /// Begins a snapshot of the state at `end`, with a name that no other one has.
    pub(super) fn begin(&mut self, name: u64, end: LogEnd, sending: &mut Sending<'_>) {
        let entry = SnapshotEntry::new(name, end);
        let key = sending.keys.snapshot(name);
        let renewed_ms = sending.now_ms;
        self.open =
            Some(OpenSnapshot { entry, key, step: Step::Locking, renewed_ms, is_checked: true });
        let lock = sending.keys.lock();
        let value = name.to_string();
        sending.send(name, &[b"SET", lock, value.as_bytes(), b"NX", b"PX", LOCK_MS], Locked);
    }

    /// Writes the next piece.
    pub(super) fn write(&mut self, piece: &[u8], sending: &mut Sending<'_>) {
        let Some(open) = &mut self.open else { return };
        let number = open.entry.pieces.to_string();
        sending.send(open.entry.name, &[b"HSET", &open.key, number.as_bytes(), piece], Written);
        open.entry.pieces += 1;
        open.entry.bytes += piece.len() as u64;
        open.renew(sending);
    }

    /// Renews the lock while nothing is written.
    pub(super) fn renew(&mut self, sending: &mut Sending<'_>) {
        if let Some(open) = &mut self.open
            && open.step == Step::Idle
            && open.renewed_ms + RENEW_MS <= sending.now_ms
        {
            open.renew(sending);
        }
    }

    /// Makes the snapshot the newest one, unless another one has become that.
    pub(super) fn finish(&mut self, sending: &mut Sending<'_>) {
        let Some(open) = &mut self.open else { return };
        let (name, keys) = (open.entry.name, sending.keys);
        let watched: [&[u8]; 4] = [b"WATCH", keys.lock(), keys.snapshots(), &open.key];
        sending.send(name, &watched, Ignored);
        sending.send(name, &[b"GET", keys.lock()], Holder);
        sending.send(name, &[b"HLEN", &open.key], Count);
        let newest: [&[u8]; 6] = [b"XREVRANGE", keys.snapshots(), b"+", b"-", b"COUNT", b"1"];
        sending.send(name, &newest, Newest);
        open.step = Step::Checking;
    }

    /// Gives up the snapshot, and removes its pieces.
    pub(super) fn abandon(&mut self, sending: &mut Sending<'_>) {
        if let Some(open) = self.open.take() {
            let name = open.entry.name;
            if open.step == Step::Checking {
                sending.send(name, &[b"UNWATCH"], Ignored);
            }
            // After the transaction they are those of the newest snapshot.
            if open.step != Step::Publishing {
                sending.send(name, &[b"UNLINK", &open.key], Ignored);
            }
            self.retry_at_ms = sending.now_ms + RETRY_MS;
        }
    }

    /// Gives up the snapshot: the connection has ended.
    pub(super) fn on_disconnected(&mut self, now_ms: u64) {
        if self.open.take().is_some() {
            self.retry_at_ms = now_ms + RETRY_MS;
        }
    }

    /// Handles a reply for the snapshot with this name. Returns the snapshot if it is now the
    /// newest one.
    pub(super) fn on_reply(
        &mut self,
        name: u64,
        reply: SnapshotReply,
        value: &Value,
        sending: &mut Sending<'_>,
    ) -> Option<SnapshotEntry> {
        let open = self.open.as_mut().filter(|open| open.entry.name == name)?;
        let has_lock = || value.as_text() == Some(name.to_string().as_bytes());
        match (reply, open.step) {
            (Locked, Step::Locking) if value.as_text() == Some(b"OK") => open.step = Step::Idle,
            (Locked, Step::Locking) if *value == Value::Nil => {
                // Another node writes one. That is no failure.
                self.open = None;
                self.retry_at_ms = sending.now_ms + RETRY_MS;
            }
            (Written, Step::Writing) if value.error_kind().is_none() => {}
            (Holder, Step::Writing) if has_lock() => {
                open.step = Step::Idle;
                sending.send(name, &[b"PEXPIRE", sending.keys.lock(), LOCK_MS], Ignored);
            }
            (Holder, Step::Checking) => open.is_checked &= has_lock(),
            (Count, Step::Checking) => {
                open.is_checked &= *value == Value::Int(open.entry.pieces.cast_signed());
            }
            (Newest, Step::Checking) => {
                let newest = SnapshotEntry::parse_all(value).next();
                let is_later = match newest {
                    Some((_, Some(newest))) if newest.is_missing() => {
                        newest.end.last.id <= open.entry.end.last.id
                    }
                    Some((_, Some(newest))) => newest.end.last.id < open.entry.end.last.id,
                    // One of a later version of this program.
                    Some((_, None)) => false,
                    None => value.error_kind().is_none(),
                };
                if open.is_checked && is_later {
                    let older = newest.and_then(|(_, entry)| entry);
                    open.publish(older, sending);
                } else {
                    self.give_up(value, sending);
                }
            }
            (Published, Step::Publishing) if value.as_array().is_some() => {
                return self.open.take().map(|open| open.entry);
            }
            (Published, Step::Publishing) => {
                open.step = Step::Writing;
                self.give_up(value, sending);
            }
            (Ignored, _) => {}
            _ => self.give_up(value, sending),
        }
        None
    }

    fn give_up(&mut self, value: &Value, sending: &mut Sending<'_>) {
        match value.error_kind() {
            Some(kind) => log::warn!("cluster: snapshot given up: Redis replies {kind:?}"),
            None => log::warn!("cluster: snapshot given up: another node has the lock"),
        }
        self.abandon(sending);
    }
}

impl OpenSnapshot {
    fn renew(&mut self, sending: &mut Sending<'_>) {
        let name = self.entry.name;
        sending.send(name, &[b"PEXPIRE", &self.key, PIECES_MS], Ignored);
        sending.send(name, &[b"GET", sending.keys.lock()], Holder);
        self.renewed_ms = sending.now_ms;
        self.step = Step::Writing;
    }

    /// Sends the transaction. The last record that the snapshot includes stays, so that the stream
    /// has its end.
    fn publish(&mut self, older: Option<SnapshotEntry>, sending: &mut Sending<'_>) {
        let (name, keys) = (self.entry.name, sending.keys);
        let entry = self.entry.encode();
        let end = self.entry.end.last.id.to_string();
        let older = older.map_or_else(|| keys.lock().to_vec(), |older| keys.snapshot(older.name));
        sending.send(name, &[b"MULTI"], Ignored);
        let commands: [&[&[u8]]; TRANSACTION_COMMANDS] = [
            &[b"PERSIST", &self.key],
            &[b"XADD", keys.snapshots(), b"MAXLEN", b"1", b"*", FIELD, &entry],
            &[b"XTRIM", keys.stream(), b"MINID", end.as_bytes()],
            &[b"UNLINK", &older],
            &[b"DEL", keys.lock()],
        ];
        for command in commands {
            sending.send(name, command, Ignored);
        }
        sending.send(name, &[b"EXEC"], Published);
        self.step = Step::Publishing;
    }
}

impl Sending<'_> {
    fn send(&mut self, name: u64, command: &[&[u8]], reply: SnapshotReply) {
        self.connection.send(command);
        self.expected.push((name, reply));
    }
}

#[cfg(test)]
#[path = "snapshot_writer_tests.rs"]
mod tests;

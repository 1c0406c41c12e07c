//! The connection that follows the log: the newest snapshot, then the records after it.

use super::cluster_log::{Barrier, ClusterLog};
use super::entry::{Entry, NO_NODE};
use super::log_end::{LogEnd, Seal};
use super::snapshot_entry::SnapshotEntry;
use super::snapshot_reader::{Read, SnapshotReader};
use super::value::Value;
use crate::log::{Event, Log, SharedRecord};

/// Time for which Redis waits for an entry before it replies without one, in milliseconds. Short,
/// since a connection that is dead is noticed by a reply that does not come.
const BLOCK_MS: &[u8] = b"1000";

impl ClusterLog {
    pub(super) fn on_follower_down(&mut self) {
        self.is_follower_up = false;
        self.is_page_asked = false;
        // The reply may have been larger than a reply may be.
        self.page_size.reset();
        if let Some(reader) = &mut self.reader {
            reader.restart();
        }
    }

    pub(super) fn reset_follower(&mut self) {
        self.follower.reset();
        self.on_follower_down();
    }

    /// Asks for the next page, or the next piece of the snapshot.
    pub(super) fn ask_for_more(&mut self) {
        if !self.is_follower_up || self.is_page_asked || !self.has_room() {
            return;
        }
        if !self.vouching.trusts(&self.follower_run_id) {
            // Both connections have to find the same server.
            if !self.vouching.has_round() && self.is_commands_up {
                self.reset_follower();
            }
            return;
        }
        if let Some(reader) = &mut self.reader {
            return reader.send(&mut *self.follower, &self.keys, self.now_ms);
        }
        let (read, newest) = (self.read_id.text(), self.newest_id.text());
        let mut count = itoa::Buffer::new();
        let count = count.format(self.page_size.entries());
        self.follower.send(&[
            b"XREAD",
            b"COUNT",
            count.as_bytes(),
            b"BLOCK",
            BLOCK_MS,
            b"STREAMS",
            self.keys.stream(),
            self.keys.snapshots(),
            read.as_bytes(),
            newest.as_bytes(),
        ]);
        self.is_page_asked = true;
    }

    /// Handles a reply: a page, or what the reader of snapshots has asked for.
    pub(super) fn on_followed(&mut self, value: &Value) {
        let is_trusted = self.vouching.trusts(&self.follower_run_id);
        match &mut self.reader {
            Some(reader) if !is_trusted => reader.restart(),
            Some(_) => self.on_read(value),
            None => {
                self.is_page_asked = false;
                if let Some(kind) = value.error_kind() {
                    log::warn!("cluster: Redis does not give records: {kind:?}");
                    self.reset_follower();
                } else if is_trusted {
                    self.on_page(value);
                }
            }
        }
    }

    /// Adds what a page has: `[[key, [entry, …]], …]`, or nil.
    fn on_page(&mut self, value: &Value) {
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
            self.read_id = id;
            match entry {
                Some(entry) => self.push_record(entry),
                None => log::warn!("cluster: an entry of the stream is no record"),
            }
            if self.reader.is_some() {
                return;
            }
            self.reach_barriers();
        }
        self.page_size.adapt(entries.len(), self.queued_bytes - before);
        self.find_lost_record();
    }

    /// Notes the newest snapshot. Returns false if the log was trimmed beyond what this process has
    /// read: then it reads the snapshot, once there is one.
    pub(super) fn on_snapshots(&mut self, entries: &Value) -> bool {
        let Some((id, newest)) = SnapshotEntry::parse_all(entries).last() else { return true };
        self.newest_id = id;
        // The snapshot of a later version cannot be read, but its records are read.
        let Some(newest) = newest else { return true };
        self.newest = Some(newest);
        if newest.end.last.id > self.read_id {
            if newest.is_missing() {
                // Until then, this process may be the only one with a state.
                self.suspect();
                return false;
            }
            log::warn!("cluster: this node was too slow: the log has lost records it had not read");
            self.reload();
            return false;
        }
        true
    }

    /// Adds what a reply to the reader of snapshots brings.
    fn on_read(&mut self, value: &Value) {
        let Some(reader) = &mut self.reader else { return };
        let log_time_ahead_ms = self.mono_ahead_ms.wrapping_neg();
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
                (self.newest, self.newest_id) = Default::default();
                self.follow(LogEnd::default());
                // They may wait for records of a log that was removed since.
                for barrier in self.barriers.iter_mut().filter(|it| matches!(it, Barrier::At(_))) {
                    *barrier = Barrier::Unsent;
                }
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

    fn push_piece(&mut self, piece: Vec<u8>) {
        self.queued_bytes += piece.len();
        self.events.push_back(Event::SnapshotPiece(piece));
    }

    fn push_record(&mut self, entry: Entry) {
        let Entry { id, node, sequence, commands } = entry;
        let (seal, bytes) = (Seal { id, node, sequence }, commands.len());
        let mut read = self.read.after(seal, bytes);
        if node == NO_NODE && sequence > read.position {
            if self.may_lack_records {
                log::error!("cluster: records are missing in the log that this node has read");
                return self.reload();
            }
            // The nodes that have read what is missing load their state again.
            read.position = sequence;
        }
        self.read = read;
        self.tail.push(seal, &commands);
        self.ends.push_back(read);
        self.queued_bytes += bytes;
        let mono_ms = id.unix_ms.saturating_add_signed(self.mono_ahead_ms);
        self.last_mono_ms = mono_ms.min(self.now_ms).max(self.last_mono_ms);
        let is_pending =
            node == self.node && sequence == self.sequence && self.pending.take().is_some();
        self.events.push_back(Event::Record(SharedRecord {
            position: read.position,
            node,
            sequence,
            mono_ms: self.last_mono_ms,
            unix_ms: id.unix_ms,
            commands,
            is_pending,
        }));
    }

    /// Notes that an event was taken.
    pub(super) fn on_taken(&mut self, event: &Event) {
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
            | Event::SnapshotEnds { .. }
            | Event::Unusable => 0,
        };
        self.queued_bytes -= bytes.min(self.queued_bytes);
    }

    /// Gives up the state, to read that of the log.
    pub(super) fn begin_reading(&mut self) {
        // What waits to be taken is of the state that is given up. Barriers are not: they are
        // reached again. Neither is what ends this process.
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Barrier => self.barriers.push_front(Barrier::Unsent),
                Event::Unusable | Event::Outcome(_) => self.events.push_back(event),
                Event::Record(_)
                | Event::SnapshotBegins { .. }
                | Event::SnapshotPiece(_)
                | Event::SnapshotEnds { .. } => {}
            }
        }
        self.ends.clear();
        self.queued_bytes = 0;
        self.begin_at(LogEnd::default());
        self.reader = Some(SnapshotReader::new(true));
        // From now on this process answers nothing from what it had.
        let log_time_ahead_ms = self.mono_ahead_ms.wrapping_neg();
        self.events.push_back(Event::SnapshotBegins { log_time_ahead_ms });
        if self.is_page_asked {
            // Its reply would come when there is a record.
            self.reset_follower();
        }
    }
}

//! Saving a checkpoint, piece by piece.

use super::channel::Channel;
use super::checkpoint::{
    Checkpoint, CheckpointEnd, CheckpointHeader, CheckpointRecord, CheckpointSession, NextPart,
    push,
};
use super::hub::Hub;
use super::session::Session;
use super::snapshot::{SnapshotEntry, by_introduction};
use super::time::Now;

/// Members or messages that one record holds at most.
const RECORD_ITEMS: usize = 1024;

/// How records are made.
#[derive(Clone, Copy)]
struct PieceSettings {
    piece_bytes: usize,
    /// See [`Checkpoint::ahead_ms`].
    ahead_ms: i64,
}

impl Hub {
    /// Begins a checkpoint. [`Hub::next_piece`] returns its pieces. All commands of the log up to
    /// now must be applied.
    pub fn begin_checkpoint(&mut self) {
        let id_watermarks = self.channels.id_watermarks();
        let mut rescued = Vec::new();
        push(
            &mut rescued,
            &CheckpointRecord::Header(CheckpointHeader {
                epoch: *self.epoch.as_bytes(),
                watermark_hash_key: id_watermarks.key(),
                last_session: self.sessions.last_number(),
                id_watermarks: id_watermarks.iter().collect(),
                nodes: self.nodes.as_ref().map(|nodes| nodes.save()),
            }),
        );
        let ahead_ms = self.nodes.as_ref().map_or(0, |nodes| nodes.log_time_ahead_ms());
        self.checkpoint = Some(Checkpoint { rescued, next: NextPart::Session(0), ahead_ms });
    }

    /// Sets the bytes at which a piece is complete. For a simulation, whose states are small.
    pub fn set_piece_bytes(&mut self, bytes: usize) {
        self.piece_bytes = bytes;
    }

    /// Gives up the checkpoint.
    pub fn abandon_checkpoint(&mut self) {
        self.checkpoint = None;
    }

    /// Returns the next piece of the checkpoint, of some 256 KiB; `None` after the last one.
    /// `now` is the time of the last record.
    pub fn next_piece(&mut self, now: Now) -> Option<Vec<u8>> {
        let Checkpoint { mut rescued, mut next, ahead_ms } = self.checkpoint.take()?;
        if matches!(next, NextPart::Nothing) {
            return None;
        }
        let mut piece = Vec::new();
        loop {
            // The messages of a channel come one after the other, with nothing in between.
            if !matches!(next, NextPart::Entries { .. }) {
                piece.append(&mut rescued);
            }
            if piece.len() >= self.piece_bytes || matches!(next, NextPart::Nothing) {
                break;
            }
            next = self.save_part(next, now, ahead_ms, &mut piece);
        }
        self.checkpoint = Some(Checkpoint { rescued, next, ahead_ms });
        Some(piece)
    }

    /// Saves a part of the state. Returns the next part.
    fn save_part(&self, part: NextPart, now: Now, ahead_ms: i64, piece: &mut Vec<u8>) -> NextPart {
        let settings = PieceSettings { piece_bytes: self.piece_bytes, ahead_ms };
        match part {
            NextPart::Session(index) if index < self.sessions.index_bound() => {
                if let Some(session) = self.sessions.get(index) {
                    push(piece, &self.session_record(session, self.position));
                }
                NextPart::Session(index + 1)
            }
            NextPart::Session(_) => NextPart::Channel(0),
            NextPart::Channel(index) => self.save_channel(index, settings, piece),
            NextPart::Entries { channel, created_at, id, end } => {
                // An index is used again, also for a channel that only has readers.
                let is_same = |it: &&Channel| it.is_shared && it.created_at == created_at;
                match self.channels.get(channel).filter(is_same) {
                    Some(it) => it.save_entries(channel, id, end, settings, piece),
                    None => NextPart::Channel(channel + 1),
                }
            }
            NextPart::End | NextPart::Nothing => {
                let end = CheckpointEnd {
                    position: self.position,
                    applied_hash: self.applied_hash,
                    mono_ms: now.mono.0.saturating_add_signed(ahead_ms),
                    unix_ms: now.unix_ms,
                };
                push(piece, &CheckpointRecord::End(end));
                NextPart::Nothing
            }
        }
    }

    fn save_channel(&self, index: u32, settings: PieceSettings, piece: &mut Vec<u8>) -> NextPart {
        if index >= self.channels.index_bound() {
            return NextPart::End;
        }
        let Some(channel) = self.channels.get(index).filter(|channel| channel.is_shared) else {
            return NextPart::Channel(index + 1);
        };
        push(piece, &channel.to_checkpoint(self.position, settings.ahead_ms));
        let members: Vec<_> = channel.snapshot_members().collect();
        for some in by_introduction(&members).chunks(RECORD_ITEMS) {
            let some = some.iter().map(|member| (*member).clone()).collect();
            push(piece, &CheckpointRecord::Members(some));
        }
        channel.save_entries(index, channel.first_id, channel.next_id(), settings, piece)
    }

    /// Makes the record of a session.
    pub(super) fn session_record<'h>(
        &'h self,
        session: &'h Session,
        position: u64,
    ) -> CheckpointRecord<'h> {
        // A log that is damaged may have dropped one of them.
        let channels = session.channels.iter().filter_map(|channel| self.channels.get(*channel));
        let names = channels.map(|channel| &*channel.name);
        CheckpointRecord::Session(CheckpointSession {
            number: session.number,
            auth: session.auth.reveal(),
            position,
            channels: names.collect(),
            holders: self.is_clustered().then(|| session.holders.as_slice().to_vec()),
            closed_position: Some(session.holders.closed_position()).filter(|it| *it > 0),
        })
    }
}

impl Channel {
    /// Saves messages from `id` on, until the piece is complete. Returns the next part.
    fn save_entries(
        &self,
        index: u32,
        id: u64,
        end: u64,
        PieceSettings { piece_bytes, ahead_ms }: PieceSettings,
        piece: &mut Vec<u8>,
    ) -> NextPart {
        // History may have dropped some since the last piece.
        let mut id = id.max(self.first_id);
        while id < end && piece.len() < piece_bytes {
            let first = (id - self.first_id) as usize;
            let (mut last, mut bytes) = (first, 0);
            while last < (end - self.first_id) as usize
                && last - first < RECORD_ITEMS
                && (last == first || bytes + self.entries[last].json.len() < piece_bytes)
            {
                bytes += self.entries[last].json.len();
                last += 1;
            }
            let entries = self.entries.range(first..last).map(|entry| SnapshotEntry {
                at_ms: entry.at.0.saturating_add_signed(ahead_ms),
                ..SnapshotEntry::of(entry)
            });
            let entries = entries.collect();
            push(piece, &CheckpointRecord::Entries { first_id: id, entries });
            id += (last - first) as u64;
        }
        if id < end {
            NextPart::Entries { channel: index, created_at: self.created_at, id, end }
        } else {
            NextPart::Channel(index + 1)
        }
    }
}

//! A checkpoint: shared state as pieces, saved over many turns while the hub changes.
//!
//! Each part of the state carries the position in the log up to which it is saved. So a recovery
//! loads the pieces, and then applies all commands after the position at which the checkpoint
//! began: each part skips those that it already includes (a fuzzy checkpoint). A part that is about
//! to be removed before its turn is saved at once.
//!
//! Sessions come before channels. So a command that a session includes is included in its channels
//! too, and nothing of it is applied again: whether it failed need not be known.

use minicbor::{Decode, Encode};

use super::channel::Channel;
use super::hub::Hub;
use super::session::Session;
use super::snapshot::{SnapshotEntry, SnapshotMember};
use super::time::Now;

/// Bytes at which a piece is complete. A single message or member may exceed it.
pub(super) const PIECE_BYTES: usize = 256 * 1024;

/// Members or messages that one record holds at most.
const RECORD_ITEMS: usize = 1024;

/// One record of a piece. Records hold secrets, so they have no `Debug`.
#[derive(Encode, Decode)]
pub(super) enum CheckpointRecord<'a> {
    /// Values of the hub as a whole, when the checkpoint began. The first record.
    #[n(0)]
    Header(#[n(0)] CheckpointHeader),
    /// A channel without its messages and members.
    #[n(1)]
    Channel(#[b(0)] CheckpointChannel<'a>),
    /// Members of the channel of the last record, in the order of their introductions.
    #[n(2)]
    Members(#[b(0)] Vec<SnapshotMember<'a>>),
    /// Messages of the channel of the last record, with consecutive ids.
    #[n(3)]
    Entries {
        /// Id of the first one.
        #[n(0)]
        first_id: u64,
        #[b(1)]
        entries: Vec<SnapshotEntry<'a>>,
    },
    /// A session.
    #[n(4)]
    Session(#[b(0)] CheckpointSession<'a>),
    /// Values of the hub as a whole at the end. The last record.
    #[n(5)]
    End(#[n(0)] CheckpointEnd),
    /// The command at this position dropped a channel after the checkpoint began.
    #[n(6)]
    Dropped(#[n(0)] u64),
}

#[derive(Encode, Decode)]
pub(super) struct CheckpointHeader {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) epoch: [u8; 8],
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) watermark_hash_key: [u8; 16],
    /// Number of the newest session, even if it has ended.
    #[n(2)]
    pub(super) last_session: u64,
    /// Buckets of the watermarks of ids that are in use, with their next ids.
    #[n(3)]
    pub(super) id_watermarks: Vec<(u16, u64)>,
}

#[derive(Encode, Decode)]
pub(super) struct CheckpointChannel<'a> {
    #[b(0)]
    pub(super) name: &'a str,
    /// Position of the last command that the channel includes.
    #[n(1)]
    pub(super) position: u64,
    /// Position of the command that created the channel.
    #[n(2)]
    pub(super) created_at: u64,
    /// Id of the next message.
    #[n(3)]
    pub(super) next_id: u64,
}

#[derive(Encode, Decode)]
pub(super) struct CheckpointSession<'a> {
    #[n(0)]
    pub(super) number: u64,
    #[b(1)]
    pub(super) auth: &'a str,
    /// Position of the last command that the session includes.
    #[n(2)]
    pub(super) position: u64,
    /// Names of the channels in which the session is introduced, in the order of introductions.
    #[b(3)]
    pub(super) channels: Vec<&'a str>,
}

#[derive(Encode, Decode)]
pub(super) struct CheckpointEnd {
    /// Position of the last command that was applied.
    #[n(0)]
    pub(super) position: u64,
    /// [`Hub::applied_hash`] at this position.
    #[n(1)]
    pub(super) applied_hash: u64,
    /// Time, in milliseconds of the clock that deadlines use.
    #[n(2)]
    pub(super) mono_ms: u64,
    /// The same time in milliseconds since 1970 (UTC).
    #[n(3)]
    pub(super) unix_ms: u64,
}

/// Progress of a checkpoint.
pub(super) struct Checkpoint {
    /// Records that the next piece begins with.
    rescued: Vec<u8>,
    next: NextPart,
}

/// Part that is saved next. Parts with lower indexes are saved, or were added later.
#[derive(Clone, Copy)]
enum NextPart {
    Session(u32),
    Channel(u32),
    /// Messages of this channel from `id` up to but not including `end`. The channel is another one
    /// if it was created at another position.
    Entries {
        channel: u32,
        created_at: u64,
        id: u64,
        end: u64,
    },
    End,
    Nothing,
}

impl Checkpoint {
    /// Saves a channel that the command at `position` is about to drop, unless it was saved before.
    pub(super) fn rescue_channel(&mut self, index: u32, channel: &Channel, position: u64) {
        let is_saved = match self.next {
            NextPart::Session(_) => false,
            NextPart::Channel(next) => index < next,
            NextPart::Entries { channel, .. } => index <= channel,
            NextPart::End | NextPart::Nothing => true,
        };
        if !is_saved {
            push(&mut self.rescued, &channel.to_checkpoint(position - 1));
        }
        push(&mut self.rescued, &CheckpointRecord::Dropped(position));
    }

    /// Saves a session that is about to be removed, unless it was saved before.
    pub(super) fn rescue_session(&mut self, index: u32, record: &CheckpointRecord<'_>) {
        let is_saved = match self.next {
            NextPart::Session(next) => index < next,
            NextPart::Channel(_) | NextPart::Entries { .. } | NextPart::End | NextPart::Nothing => {
                true
            }
        };
        if !is_saved {
            push(&mut self.rescued, record);
        }
    }
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
            }),
        );
        self.checkpoint = Some(Checkpoint { rescued, next: NextPart::Session(0) });
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
        let Checkpoint { mut rescued, mut next } = self.checkpoint.take()?;
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
            next = self.save_part(next, now, &mut piece);
        }
        self.checkpoint = Some(Checkpoint { rescued, next });
        Some(piece)
    }

    /// Saves a part of the state. Returns the next part.
    fn save_part(&self, part: NextPart, now: Now, piece: &mut Vec<u8>) -> NextPart {
        match part {
            NextPart::Session(index) if index < self.sessions.index_bound() => {
                if let Some(session) = self.sessions.get(index) {
                    push(piece, &self.session_record(session, self.position));
                }
                NextPart::Session(index + 1)
            }
            NextPart::Session(_) => NextPart::Channel(0),
            NextPart::Channel(index) => self.save_channel(index, piece),
            NextPart::Entries { channel, created_at, id, end } => {
                // An index is used again, also for a channel that only has readers.
                let is_same = |it: &&Channel| it.is_shared && it.created_at == created_at;
                match self.channels.get(channel).filter(is_same) {
                    Some(it) => it.save_entries(channel, id, end, self.piece_bytes, piece),
                    None => NextPart::Channel(channel + 1),
                }
            }
            NextPart::End | NextPart::Nothing => {
                let end = CheckpointEnd {
                    position: self.position,
                    applied_hash: self.applied_hash,
                    mono_ms: now.mono.0,
                    unix_ms: now.unix_ms,
                };
                push(piece, &CheckpointRecord::End(end));
                NextPart::Nothing
            }
        }
    }

    fn save_channel(&self, index: u32, piece: &mut Vec<u8>) -> NextPart {
        if index >= self.channels.index_bound() {
            return NextPart::End;
        }
        let Some(channel) = self.channels.get(index).filter(|channel| channel.is_shared) else {
            return NextPart::Channel(index + 1);
        };
        push(piece, &channel.to_checkpoint(self.position));
        let mut members: Vec<_> = channel.snapshot_members().collect();
        members.sort_unstable_by_key(|member| member.id);
        let mut members = members.into_iter();
        while members.len() > 0 {
            let some = members.by_ref().take(RECORD_ITEMS).collect();
            push(piece, &CheckpointRecord::Members(some));
        }
        channel.save_entries(index, channel.first_id, channel.next_id(), self.piece_bytes, piece)
    }

    /// Makes the record of a session.
    pub(super) fn session_record<'h>(
        &'h self,
        session: &'h Session,
        position: u64,
    ) -> CheckpointRecord<'h> {
        let names = session.channels.iter().map(|channel| &*self.channels[*channel].name);
        CheckpointRecord::Session(CheckpointSession {
            number: session.number,
            auth: session.auth.reveal(),
            position,
            channels: names.collect(),
        })
    }
}

impl Channel {
    fn to_checkpoint(&self, position: u64) -> CheckpointRecord<'_> {
        CheckpointRecord::Channel(CheckpointChannel {
            name: &self.name,
            position,
            created_at: self.created_at,
            next_id: self.next_id(),
        })
    }

    /// Saves messages from `id` on, until the piece is complete. Returns the next part.
    fn save_entries(
        &self,
        index: u32,
        id: u64,
        end: u64,
        piece_bytes: usize,
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
            let entries = self.entries.range(first..last).map(SnapshotEntry::of).collect();
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

fn push(bytes: &mut Vec<u8>, record: &CheckpointRecord<'_>) {
    minicbor::encode(record, bytes).expect("a Vec takes all bytes");
}

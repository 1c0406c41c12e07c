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
use super::nodes::SavedNodes;
use super::snapshot::{SnapshotEntry, SnapshotMember};

/// Bytes at which a piece is complete. A single message or member may exceed it.
pub(super) const PIECE_BYTES: usize = 256 * 1024;

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
    /// Nodes that share the log. `None` if there is only one.
    #[n(4)]
    pub(super) nodes: Option<SavedNodes>,
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
    /// As in a [`SnapshotChannel`](super::SnapshotChannel), in the time of the checkpoint.
    #[n(4)]
    pub(super) bans: Option<Vec<(u64, u64)>>,
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
    /// Nodes that hold the session. `None` without a cluster.
    #[n(4)]
    pub(super) holders: Option<Vec<u64>>,
    /// Position of the last command by which a node released the session because of a reader that
    /// was closed. `None` if there is none.
    #[n(5)]
    pub(super) closed_position: Option<u64>,
}

#[derive(Encode, Decode)]
pub(super) struct CheckpointEnd {
    /// Position of the last command that was applied.
    #[n(0)]
    pub(super) position: u64,
    /// [`Hub::applied_hash`](super::Hub::applied_hash) at this position.
    #[n(1)]
    pub(super) applied_hash: u64,
    /// Time, in milliseconds of the clock that deadlines use. In a cluster, that of the log.
    #[n(2)]
    pub(super) mono_ms: u64,
    /// The same time in milliseconds since 1970 (UTC).
    #[n(3)]
    pub(super) unix_ms: u64,
}

/// Progress of a checkpoint.
pub(super) struct Checkpoint {
    /// Records that the next piece begins with.
    pub(super) rescued: Vec<u8>,
    pub(super) next: NextPart,
    /// Time in the records minus the monotonic time of this process: other nodes have other ones.
    pub(super) ahead_ms: i64,
}

/// Part that is saved next. Parts with lower indexes are saved, or were added later.
#[derive(Clone, Copy)]
pub(super) enum NextPart {
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
            push(&mut self.rescued, &channel.to_checkpoint(position - 1, self.ahead_ms));
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

impl Channel {
    /// Makes the record of the channel, saved at `position`. See [`Checkpoint::ahead_ms`].
    pub(super) fn to_checkpoint(&self, position: u64, ahead_ms: i64) -> CheckpointRecord<'_> {
        CheckpointRecord::Channel(CheckpointChannel {
            name: &self.name,
            position,
            created_at: self.created_at,
            next_id: self.next_id(),
            bans: self.snapshot_bans(ahead_ms),
        })
    }
}

pub(super) fn push(bytes: &mut Vec<u8>, record: &CheckpointRecord<'_>) {
    minicbor::encode(record, bytes).expect("a Vec takes all bytes");
}

//! Places in the log.

use minicbor::{Decode, Encode};

use super::stream_id::StreamId;

/// No log has so many records. A greater position in Redis is not of this program.
pub(super) const POSITION_MAX: u64 = 1 << 43;

/// What tells one record from all others: where it is in the stream, and who appended it. The id
/// alone does not: two servers may draw the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Seal {
    #[n(0)]
    pub(super) id: StreamId,
    #[n(1)]
    pub(super) node: u64,
    #[n(2)]
    pub(super) sequence: u64,
}

/// A place in the log, after a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct LogEnd {
    /// The record.
    #[n(0)]
    pub(super) last: Seal,
    /// Position of the record. 0 at the beginning of the log.
    #[n(1)]
    pub(super) position: u64,
    /// Size of all records up to this one, in bytes.
    #[n(2)]
    pub(super) bytes: u64,
}

impl LogEnd {
    /// Returns the place after the next record, whose commands have so many bytes.
    pub(super) fn after(self, last: Seal, bytes: usize) -> Self {
        let bytes = self.bytes.saturating_add(bytes as u64);
        Self { last, position: self.position + 1, bytes }
    }
}

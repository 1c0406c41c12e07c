//! What the successor of a process continues the log with.

use minicbor::{Decode, Encode};

use super::snapshot_entry::{LogEnd, SnapshotEntry};
use super::stream_id::StreamId;

/// Place of a process in its cluster and in the log.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct ClusterLogState {
    /// Number of the process.
    #[n(0)]
    pub(super) node: u64,
    /// Number of its last record.
    #[n(1)]
    pub(super) sequence: u64,
    /// End of the records that it has applied.
    #[n(2)]
    pub(super) end: LogEnd,
    /// The newest snapshot, and the id of the entry that describes it.
    #[n(3)]
    pub(super) newest: Option<SnapshotEntry>,
    #[n(4)]
    pub(super) newest_id: StreamId,
    /// The last of those records, unless there are none.
    #[n(5)]
    pub(super) last: Option<LastRecord>,
}

/// The last record of the log. It holds secrets, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct LastRecord {
    #[n(0)]
    pub(super) node: u64,
    #[n(1)]
    pub(super) sequence: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(super) commands: Vec<u8>,
}

impl ClusterLogState {
    /// Decodes a state. `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }

    /// Position of the last record that was applied.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.end.position
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("a Vec takes all bytes")
    }
}

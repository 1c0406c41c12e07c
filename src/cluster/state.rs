//! What the successor of a process continues the log with.

use minicbor::{Decode, Encode};

use super::log_end::LogEnd;
use super::snapshot_entry::SnapshotEntry;
use super::stream_id::StreamId;
use super::tail::SavedTail;

/// Place of a process in its cluster and in the log. It holds secrets, so it has no `Debug`.
#[derive(Clone, Encode, Decode)]
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
    /// Run id of the Redis whose log it is. `None` while it is unknown whether it is the same log.
    #[n(5)]
    pub(super) run_id: Option<Box<str>>,
    /// Records that Redis may have lost. `None` if an earlier version of the program has sent this.
    #[n(6)]
    pub(super) tail: Option<Box<SavedTail>>,
    /// What was applied may be more than the log has.
    #[cbor(n(7), default)]
    pub(super) may_lack_records: bool,
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

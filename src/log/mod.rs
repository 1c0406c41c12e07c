//! The log: what the service needs of it, and the bytes of a log in files.
//!
//! Every change of shared state is a command. The commands of a turn are one record of the log, and
//! a record is applied only when the log has it. [`Log`] is the log as the service drives it.
//!
//! # Files
//!
//! A log in files has two kinds of files. A *segment* holds records with consecutive positions. A
//! *snapshot* holds the state as pieces, which are opaque here, and ends in an end mark. Its
//! position is that of the last record before it began, so recovery replays all later records.
//!
//! Both kinds are a [`FileHeader`] and then frames. A frame is, with all numbers in little-endian
//! order:
//!
//! | bytes | content |
//! | --- | --- |
//! | 8 | marker of the file: random bytes, also in the file's header |
//! | 4 | CRC-32C of the file's header and of the rest of the frame |
//! | 4 | length of the payload |
//! | 4 | kind: 1 record, 2 piece, 3 end mark |
//! | 8 | position of the record; number of the piece, from 1 |
//! | 8 | monotonic time in milliseconds |
//! | 8 | Unix time in milliseconds |
//! | | payload |
//!
//! Clients cannot know the marker, so nothing that they write looks like a frame. The marker also
//! tells frames from older content of the same blocks. After the last frame a segment may have
//! zeros: space that was reserved.
//!
//! This folder makes no system calls; `journal` does.

mod file_header;
mod frame;
#[expect(clippy::module_inception, reason = "where a reader looks for the Log")]
mod log;
mod segment_scan;

pub use file_header::{BadHeader, FILE_HEADER_BYTES, FileHeader, FileKind, SyncMode};
pub use frame::{FRAME_HEAD_BYTES, Frame, FrameCodec, FrameKind, PAYLOAD_MAX_BYTES};
pub use log::{Event, Log, Outcome, SharedRecord};
pub use segment_scan::{Damage, Record, SegmentScan, Tail};

//! Reads the records of a segment, and tells how they end.

use std::fmt;

use memchr::memchr_iter;

use super::file_header::{FILE_HEADER_BYTES, FileHeader};
use super::frame::{Frame, FrameCodec, FrameKind};

/// A record of a segment. It holds secrets, so it has no `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Position. Positions of a segment are consecutive.
    pub position: u64,
    /// Monotonic time of the server that appended it, in milliseconds.
    pub mono_ms: u64,
    /// Unix time, in milliseconds.
    pub unix_ms: u64,
    /// Commands in CBOR, one after the other.
    pub commands: &'a [u8],
}

impl<'a> Record<'a> {
    /// Returns the record as a frame.
    #[must_use]
    pub fn frame(&self) -> Frame<'a> {
        Frame {
            kind: FrameKind::Record,
            position: self.position,
            mono_ms: self.mono_ms,
            unix_ms: self.unix_ms,
            payload: self.commands,
        }
    }
}

/// The bytes of a segment after its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing, or zeros.
    Clean,
    /// The begin of a record, or other bytes in which no good frame is: so many.
    Torn(u64),
    /// Something that no interrupted write leaves.
    Damaged(Damage),
}

/// Kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The frame is damaged, and a good one follows.
    BadFrame,
    /// Another position follows than the next one.
    Gap {
        /// Position that follows.
        found: u64,
        /// Position that is missing.
        expected: u64,
    },
    /// The frame is good, and no record.
    NoRecord,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadFrame => f.write_str("a damaged record before a good one"),
            Self::Gap { found, expected } => {
                write!(f, "record {found} where record {expected} should be")
            }
            Self::NoRecord => f.write_str("something else than a record"),
        }
    }
}

/// Iterator over the records of a segment, up to the first bytes that are none.
pub struct SegmentScan<'a> {
    codec: FrameCodec,
    file: &'a [u8],
    offset: usize,
    next_position: u64,
}

impl<'a> SegmentScan<'a> {
    /// Reads the segment `file`, which begins with `header`.
    #[must_use]
    pub fn new(header: FileHeader, file: &'a [u8]) -> Self {
        let offset = FILE_HEADER_BYTES.min(file.len());
        Self { codec: FrameCodec::new(&header), file, offset, next_position: header.position }
    }

    /// Offset of the first byte after the records that were read.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset as u64
    }

    /// Position of the next record. One above that of the last that was read.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.next_position
    }

    /// Returns what follows after the last record. Call it at the end of the iteration.
    ///
    /// Bytes that are no record may be a write that was interrupted, or damage. After an
    /// interrupted write there is never a good frame, since a record is written when the previous
    /// one is. The time is linear in the size of the file.
    #[must_use]
    pub fn tail(&self) -> Tail {
        let rest = &self.file[self.offset..];
        if let Some(frame) = self.codec.read(rest) {
            let expected = self.next_position;
            return Tail::Damaged(match frame.kind {
                FrameKind::Record => Damage::Gap { found: frame.position, expected },
                FrameKind::Piece | FrameKind::End => Damage::NoRecord,
            });
        }
        let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return Tail::Clean };
        let mut starts = memchr_iter(self.codec.marker()[0], &rest[..=last]);
        if starts.any(|start| self.codec.read(&rest[start..]).is_some()) {
            return Tail::Damaged(Damage::BadFrame);
        }
        Tail::Torn(last as u64 + 1)
    }
}

impl<'a> Iterator for SegmentScan<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let frame = self.codec.read(&self.file[self.offset..])?;
        if frame.kind != FrameKind::Record || frame.position != self.next_position {
            return None;
        }
        self.offset += frame.encoded_bytes();
        self.next_position += 1;
        Some(Record {
            position: frame.position,
            mono_ms: frame.mono_ms,
            unix_ms: frame.unix_ms,
            commands: frame.payload,
        })
    }
}

#[cfg(test)]
#[path = "segment_scan_tests.rs"]
mod tests;

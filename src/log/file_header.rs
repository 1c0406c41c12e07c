//! Header of a file of the log.

use std::fmt;

/// Size of a header.
pub const FILE_HEADER_BYTES: usize = 80;

const MAGIC: &[u8; 8] = b"SpeakLog";
const VERSION: u32 = 1;

/// Kind of a file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Records with consecutive positions.
    Segment,
    /// Pieces of the state, and an end mark.
    Snapshot,
}

/// Moment at which a record counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// The record is on the disk.
    #[default]
    Always,
    /// The kernel has the record. If the machine stops, the last records may be lost.
    Os,
}

/// Header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Kind of the file.
    pub kind: FileKind,
    /// Random bytes that all files of one journal share.
    pub journal_id: [u8; 16],
    /// Random bytes of this file. Each of its frames begins with them.
    pub marker: [u8; 8],
    /// Position of a segment's first record, or of a snapshot.
    pub position: u64,
    /// Boot of the machine at which the file was created. All zeros if unknown.
    pub boot_id: [u8; 16],
    /// Mode in which the file is written.
    pub sync: SyncMode,
    /// Position of the record that has to begin a new epoch, since records were lost before it. 0
    /// if no epoch is due.
    pub epoch_due: u64,
}

/// Reason why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// The file is not a file of the log, or its header is damaged.
    Damaged,
    /// The file has this version of the format, which is unknown.
    Version(u32),
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("the header of the file is damaged"),
            Self::Version(version) => write!(
                f,
                "the file has version {version} of the format, and this program reads only \
                 {VERSION}"
            ),
        }
    }
}

impl FileHeader {
    /// Encodes the header.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; FILE_HEADER_BYTES] {
        let kind: u32 = match self.kind {
            FileKind::Segment => 1,
            FileKind::Snapshot => 2,
        };
        let sync: u32 = match self.sync {
            SyncMode::Always => 1,
            SyncMode::Os => 2,
        };
        let mut bytes = [0; FILE_HEADER_BYTES];
        let mut rest = &mut bytes[..];
        let mut push = |field: &[u8]| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(field.len());
            head.copy_from_slice(field);
            rest = tail;
        };
        push(MAGIC);
        push(&VERSION.to_le_bytes());
        push(&kind.to_le_bytes());
        push(&self.journal_id);
        push(&self.marker);
        push(&self.position.to_le_bytes());
        push(&self.boot_id);
        push(&self.epoch_due.to_le_bytes());
        push(&sync.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..FILE_HEADER_BYTES - 4]);
        bytes[FILE_HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Decodes the header at the front of a file.
    ///
    /// # Errors
    ///
    /// [`BadHeader`], also for a file that is too short.
    pub fn parse(file: &[u8]) -> Result<Self, BadHeader> {
        let bytes = file.first_chunk::<FILE_HEADER_BYTES>().ok_or(BadHeader::Damaged)?;
        let checksum = crc32c::crc32c(&bytes[..FILE_HEADER_BYTES - 4]);
        if &bytes[..8] != MAGIC || read_u32(bytes, FILE_HEADER_BYTES - 4) != checksum {
            return Err(BadHeader::Damaged);
        }
        let version = read_u32(bytes, 8);
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        Ok(Self {
            kind: match read_u32(bytes, 12) {
                1 => FileKind::Segment,
                2 => FileKind::Snapshot,
                _ => return Err(BadHeader::Damaged),
            },
            journal_id: read_array(bytes, 16),
            marker: read_array(bytes, 32),
            position: read_u64(bytes, 40),
            boot_id: read_array(bytes, 48),
            epoch_due: read_u64(bytes, 64),
            sync: match read_u32(bytes, 72) {
                1 => SyncMode::Always,
                2 => SyncMode::Os,
                _ => return Err(BadHeader::Damaged),
            },
        })
    }
}

/// Reads `N` bytes at `offset`, which are there.
pub(super) fn read_array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    *bytes[offset..].first_chunk().expect("the caller has checked the length")
}

pub(super) fn read_u32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(read_array(bytes, offset))
}

pub(super) fn read_u64(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(read_array(bytes, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            kind: FileKind::Snapshot,
            journal_id: [7; 16],
            marker: *b"\xf1marker\xff",
            position: u64::MAX - 1,
            boot_id: [9; 16],
            sync: SyncMode::Os,
            epoch_due: 1 << 40,
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for kind in [FileKind::Segment, FileKind::Snapshot] {
            for sync in [SyncMode::Always, SyncMode::Os] {
                let header = FileHeader { kind, sync, ..header() };
                assert_eq!(FileHeader::parse(&header.to_bytes()), Ok(header));
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_of_a_header_is_noticed() {
        let bytes = header().to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHeader::parse(&damaged), Err(BadHeader::Damaged), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(FileHeader::parse(&bytes[..length]), Err(BadHeader::Damaged), "{length}");
        }
    }

    #[test]
    fn a_later_version_of_the_format_is_named() {
        let mut bytes = header().to_bytes();
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..FILE_HEADER_BYTES - 4]);
        bytes[FILE_HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        let error = FileHeader::parse(&bytes).unwrap_err();
        assert_eq!(error, BadHeader::Version(2));
        assert!(error.to_string().contains("version 2"), "{error}");
    }
}

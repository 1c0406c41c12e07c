//! Frames: records, pieces and end marks as bytes with a checksum.

use super::file_header::{FILE_HEADER_BYTES, FileHeader, read_array, read_u32, read_u64};

/// Size of the part of a frame before its payload.
pub const FRAME_HEAD_BYTES: usize = 44;

/// Maximum size of a payload. A frame with a longer one is damaged.
pub const PAYLOAD_MAX_BYTES: usize = 1 << 30;

/// Offset of the part of a frame that its checksum covers.
const CHECKED_OFFSET: usize = 12;

/// Kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Commands of one turn.
    Record,
    /// Part of the state.
    Piece,
    /// End of a complete snapshot. Without payload.
    End,
}

/// A frame. It holds secrets, so it has no `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Kind of the payload.
    pub kind: FrameKind,
    /// Position of the record, or number of the piece. For an end mark, the number of pieces.
    pub position: u64,
    /// Monotonic time of the server, in milliseconds.
    pub mono_ms: u64,
    /// Unix time, in milliseconds.
    pub unix_ms: u64,
    /// Commands, or a part of the state.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Size of the encoded frame.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        FRAME_HEAD_BYTES + self.payload.len()
    }
}

/// Encoding of the frames of one file, which depends on the header of the file.
#[derive(Clone, Copy)]
pub struct FrameCodec {
    marker: [u8; 8],
    header_checksum: u32,
}

impl FrameCodec {
    /// Returns the encoding of the frames of the file with this header.
    #[must_use]
    pub fn new(header: &FileHeader) -> Self {
        let checksum = read_array(&header.to_bytes(), FILE_HEADER_BYTES - 4);
        Self { marker: header.marker, header_checksum: u32::from_le_bytes(checksum) }
    }

    /// Returns the bytes that each frame begins with.
    pub(super) fn marker(&self) -> &[u8; 8] {
        &self.marker
    }

    /// Appends a frame of this file to `bytes`.
    pub fn push(&self, bytes: &mut Vec<u8>, frame: &Frame) {
        assert!(frame.payload.len() <= PAYLOAD_MAX_BYTES, "the caller splits a longer payload");
        let kind: u32 = match frame.kind {
            FrameKind::Record => 1,
            FrameKind::Piece => 2,
            FrameKind::End => 3,
        };
        let mut head = [0; FRAME_HEAD_BYTES];
        head[..8].copy_from_slice(&self.marker);
        head[12..16].copy_from_slice(&(frame.payload.len() as u32).to_le_bytes());
        head[16..20].copy_from_slice(&kind.to_le_bytes());
        head[20..28].copy_from_slice(&frame.position.to_le_bytes());
        head[28..36].copy_from_slice(&frame.mono_ms.to_le_bytes());
        head[36..].copy_from_slice(&frame.unix_ms.to_le_bytes());
        let start = bytes.len();
        bytes.reserve(frame.encoded_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(frame.payload);
        let checksum = self.checksum(&bytes[start + CHECKED_OFFSET..]);
        bytes[start + 8..start + CHECKED_OFFSET].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Returns the length of the payload of the frame that begins with `head`, of at least
    /// [`FRAME_HEAD_BYTES`]. `None` if no frame of this file begins so.
    #[must_use]
    pub fn payload_length(&self, head: &[u8]) -> Option<usize> {
        let length = read_u32(head, CHECKED_OFFSET) as usize;
        (head.starts_with(&self.marker) && length <= PAYLOAD_MAX_BYTES).then_some(length)
    }

    /// Decodes the frame at the front of `bytes`. `None` if there is no whole, undamaged frame of
    /// this file.
    #[must_use]
    pub fn read<'a>(&self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        let head: &[u8; FRAME_HEAD_BYTES] = bytes.first_chunk()?;
        let end = FRAME_HEAD_BYTES + self.payload_length(head)?;
        let checked = bytes.get(CHECKED_OFFSET..end)?;
        if self.checksum(checked) != read_u32(head, 8) {
            return None;
        }
        Some(Frame {
            kind: match read_u32(head, 16) {
                1 => FrameKind::Record,
                2 => FrameKind::Piece,
                3 => FrameKind::End,
                _ => return None,
            },
            position: read_u64(head, 20),
            mono_ms: read_u64(head, 28),
            unix_ms: read_u64(head, 36),
            payload: &bytes[FRAME_HEAD_BYTES..end],
        })
    }

    /// Checksum of a frame's bytes, which begins with that of the header: so a frame of another
    /// file has another one.
    fn checksum(&self, checked: &[u8]) -> u32 {
        crc32c::crc32c_append(self.header_checksum, checked)
    }
}

#[cfg(test)]
mod tests {
    use super::super::file_header::{FileKind, SyncMode};
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            kind: FileKind::Segment,
            journal_id: [1; 16],
            marker: [2; 8],
            position: 5,
            boot_id: [3; 16],
            sync: SyncMode::Always,
            epoch_due: 0,
        }
    }

    fn codec() -> FrameCodec {
        FrameCodec::new(&header())
    }

    fn frame(kind: FrameKind, payload: &[u8]) -> Frame<'_> {
        Frame { kind, position: 1 << 50, mono_ms: 17, unix_ms: 1_700_000_000_000, payload }
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        for kind in [FrameKind::Record, FrameKind::Piece, FrameKind::End] {
            for payload in [&b""[..], b"x", &vec![0xa5; 100_000]] {
                let frame = frame(kind, payload);
                let mut bytes = Vec::new();
                codec().push(&mut bytes, &frame);
                assert_eq!(bytes.len(), frame.encoded_bytes());
                bytes.extend_from_slice(b"more");
                assert!(codec().read(&bytes) == Some(frame));
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_of_a_frame_is_noticed() {
        let mut bytes = Vec::new();
        codec().push(&mut bytes, &frame(FrameKind::Record, b"some commands"));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(codec().read(&damaged).is_none(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(codec().read(&bytes[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn a_frame_of_another_file_does_not_pass() {
        let mut bytes = Vec::new();
        codec().push(&mut bytes, &frame(FrameKind::Record, b"some commands"));
        let others = [
            FileHeader { journal_id: [9; 16], ..header() },
            FileHeader { position: 6, ..header() },
            FileHeader { kind: FileKind::Snapshot, ..header() },
            FileHeader { marker: [9; 8], ..header() },
        ];
        for other in others {
            assert!(FrameCodec::new(&other).read(&bytes).is_none(), "{other:?}");
        }
    }
}

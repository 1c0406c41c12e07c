//! Writes and reads snapshots: pieces of the state in a file, and an end mark.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::files::{new_name, snapshot_name};
use super::journal_error::{DamagedFile, JournalError};
use super::storage::{Storage, StoredFile, WriteError};
use crate::log::{
    FILE_HEADER_BYTES, FRAME_HEAD_BYTES, FileHeader, FileKind, Frame, FrameCodec, FrameKind,
};

/// A snapshot that is being written.
pub(super) struct SnapshotWriter {
    storage: Arc<dyn Storage>,
    file: Box<dyn StoredFile>,
    header: FileHeader,
    end: u64,
    pieces: u64,
    buffer: Vec<u8>,
}

impl SnapshotWriter {
    /// Creates the file, without its final name.
    pub(super) fn begin(storage: Arc<dyn Storage>, header: FileHeader) -> Result<Self, WriteError> {
        let file = storage.create(&new_name(&snapshot_name(header.position)))?;
        let mut snapshot = Self { storage, file, header, end: 0, pieces: 0, buffer: Vec::new() };
        if let Err(error) = snapshot.file.write_at(&header.to_bytes(), 0) {
            snapshot.abandon();
            return Err(error.into());
        }
        snapshot.end = FILE_HEADER_BYTES as u64;
        Ok(snapshot)
    }

    /// Appends a piece. It is on the disk when this returns.
    pub(super) fn append(&mut self, payload: &[u8]) -> Result<(), WriteError> {
        self.pieces += 1;
        self.push(FrameKind::Piece, payload)
    }

    /// Completes the snapshot, and gives it its name. Returns its size. An error removes the file,
    /// or, if only its name may not be on the disk, leaves it.
    pub(super) fn finish(mut self) -> Result<u64, WriteError> {
        let name = snapshot_name(self.header.position);
        let pushed = self.push(FrameKind::End, &[]);
        let named = pushed.and_then(|()| Ok(self.storage.rename(&new_name(&name), &name)?));
        if let Err(error) = named {
            self.abandon();
            return Err(error);
        }
        self.storage.sync_names()?;
        Ok(self.end)
    }

    /// Removes the incomplete file.
    pub(super) fn abandon(self) {
        // A later start removes it.
        let _ = self.storage.remove(&new_name(&snapshot_name(self.header.position)));
    }

    fn push(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), WriteError> {
        self.buffer.clear();
        let frame = Frame { kind, position: self.pieces, mono_ms: 0, unix_ms: 0, payload };
        FrameCodec::new(&self.header).push(&mut self.buffer, &frame);
        self.file.write_at(&self.buffer, self.end)?;
        self.file.sync()?;
        self.end += self.buffer.len() as u64;
        Ok(())
    }
}

/// Contents of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SnapshotContents {
    pub(super) header: FileHeader,
    /// Number of pieces.
    pub(super) pieces: u64,
    /// Size of the file.
    pub(super) bytes: u64,
}

/// Result of reading a file: an error of the disk, damage, or an error of the caller's function.
pub(super) enum ReadError {
    Io(io::Error),
    Damaged(DamagedFile),
    Caller(String),
}

impl ReadError {
    pub(super) fn into_error(self, directory: &Path) -> JournalError {
        match self {
            Self::Io(error) => JournalError::io("read the journal", directory, &error),
            Self::Damaged(damage) => damage.into_error(directory),
            Self::Caller(line) => JournalError(line),
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads the snapshot `name` and passes each piece to `sink`, as far as the file is good.
pub(super) fn read_snapshot(
    file: &mut dyn Read,
    name: &str,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<SnapshotContents, ReadError> {
    let damaged = |offset: u64, reason: &str| {
        ReadError::Damaged(DamagedFile { name: name.to_owned(), offset, reason: reason.to_owned() })
    };
    let mut buffer = Vec::new();
    read_up_to(file, &mut buffer, FILE_HEADER_BYTES as u64)?;
    let header = FileHeader::parse(&buffer).map_err(|error| damaged(0, &error.to_string()))?;
    if header.kind != FileKind::Snapshot || snapshot_name(header.position) != name {
        return Err(damaged(0, "the header of another file"));
    }
    let mut offset = FILE_HEADER_BYTES as u64;
    let mut pieces = 0;
    let codec = FrameCodec::new(&header);
    loop {
        buffer.clear();
        read_up_to(file, &mut buffer, FRAME_HEAD_BYTES as u64)?;
        let length =
            if buffer.len() < FRAME_HEAD_BYTES { None } else { codec.payload_length(&buffer) };
        let length = length.ok_or_else(|| damaged(offset, "an incomplete or damaged piece"))?;
        read_up_to(file, &mut buffer, length as u64)?;
        let frame =
            codec.read(&buffer).ok_or_else(|| damaged(offset, "an incomplete or damaged piece"))?;
        match frame.kind {
            FrameKind::Piece if frame.position == pieces + 1 => {
                sink(frame.payload).map_err(ReadError::Caller)?;
                pieces += 1;
            }
            FrameKind::End if frame.position == pieces => {
                let bytes = offset + frame.encoded_bytes() as u64;
                return Ok(SnapshotContents { header, pieces, bytes });
            }
            _ => return Err(damaged(offset, "something else than the next piece")),
        }
        offset += frame.encoded_bytes() as u64;
    }
}

/// Appends up to `count` bytes of the file to the buffer: fewer at its end. Memory grows with what
/// is read.
pub(super) fn read_up_to(file: &mut dyn Read, buffer: &mut Vec<u8>, count: u64) -> io::Result<()> {
    file.take(count).read_to_end(buffer).map(drop)
}

#[cfg(test)]
#[path = "snapshot_file_tests.rs"]
mod tests;

//! Appends records to segments.

use std::io;
use std::sync::Arc;

use super::files::{new_name, segment_name};
use super::storage::{Storage, StoredFile, WriteError};
use crate::log::{
    FILE_HEADER_BYTES, FileHeader, FileKind, FrameCodec, PAYLOAD_MAX_BYTES, Record, SyncMode,
};

/// Properties of all files that a process writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileOrigin {
    pub(super) journal_id: [u8; 16],
    pub(super) boot_id: [u8; 16],
    pub(super) sync: SyncMode,
}

impl FileOrigin {
    /// Returns a header with a new marker.
    pub(super) fn header(&self, kind: FileKind, position: u64, epoch_due: u64) -> FileHeader {
        let mut marker = [0; 8];
        getrandom::fill(&mut marker).expect("the operating system gives random bytes");
        FileHeader {
            kind,
            journal_id: self.journal_id,
            marker,
            position,
            boot_id: self.boot_id,
            sync: self.sync,
            epoch_due,
        }
    }
}

/// Writes records, one after the other, and begins new segments.
pub(super) struct SegmentWriter {
    storage: Arc<dyn Storage>,
    origin: FileOrigin,
    /// Size from which on a segment gets no more records.
    segment_bytes: u64,
    /// Position of the record that begins a new epoch, or 0.
    epoch_due: u64,
    /// Segment that gets the next record. `None` to begin one.
    segment: Option<OpenSegment>,
    /// Encoded record, kept for its memory.
    buffer: Vec<u8>,
    /// After a failure nothing is written any more.
    has_failed: bool,
}

pub(super) struct OpenSegment {
    pub(super) file: Box<dyn StoredFile>,
    codec: FrameCodec,
    /// End of the last record.
    pub(super) end: u64,
}

/// A record that was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Size of the record in the file.
    pub(super) bytes: u64,
    /// The record is the first of a new segment.
    pub(super) is_first: bool,
}

/// Memory that is kept for the next record. A larger one gets memory of its own.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

impl SegmentWriter {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        origin: FileOrigin,
        segment_bytes: u64,
        epoch_due: u64,
        segment: Option<OpenSegment>,
    ) -> Self {
        Self {
            storage,
            origin,
            segment_bytes,
            epoch_due,
            segment,
            buffer: Vec::new(),
            has_failed: false,
        }
    }

    /// Appends a record. When this returns, the record is written as the mode of the journal
    /// demands.
    pub(super) fn append(&mut self, record: &Record) -> Result<Written, WriteError> {
        if self.has_failed {
            return Err(WriteError::Failed(io::Error::other("an earlier write has failed")));
        }
        let result = self.write(record);
        self.has_failed = matches!(result, Err(WriteError::Failed(_)));
        if self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = Vec::new();
        }
        result
    }

    /// Gives back the space that the last segment has reserved, since no record follows. A failure
    /// does no harm.
    pub(super) fn give_back_space(&mut self) {
        if let Some(segment) = self.segment.as_mut().filter(|_| !self.has_failed) {
            let _ = segment.file.cut(segment.end);
        }
    }

    fn write(&mut self, record: &Record) -> Result<Written, WriteError> {
        let frame = record.frame();
        if frame.payload.len() > PAYLOAD_MAX_BYTES {
            return Err(WriteError::Full(io::Error::other("the record is larger than 1 GiB")));
        }
        let bytes = frame.encoded_bytes() as u64;
        let begins_new = match &self.segment {
            None => true,
            Some(segment) => {
                segment.end > FILE_HEADER_BYTES as u64 && segment.end + bytes > self.segment_bytes
            }
        };
        if begins_new {
            // If this fails, the old segment gets no more records either: the new one may be there.
            self.segment = None;
            self.segment = Some(self.begin_segment(record.position, bytes)?);
        }
        let segment = self.segment.as_mut().expect("begun above");
        self.buffer.clear();
        segment.codec.push(&mut self.buffer, &frame);
        let is_synced = self.origin.sync == SyncMode::Always;
        let mut result = segment.file.write_at(&self.buffer, segment.end);
        if result.is_ok() && is_synced {
            result = segment.file.sync();
        }
        if let Err(error) = result.map_err(WriteError::from) {
            if matches!(error, WriteError::Full(_)) {
                segment.take_back(self.segment_bytes, is_synced).map_err(WriteError::Failed)?;
            }
            return Err(error);
        }
        segment.end += bytes;
        if record.position >= self.epoch_due {
            self.epoch_due = 0;
        }
        Ok(Written { bytes, is_first: segment.end == FILE_HEADER_BYTES as u64 + bytes })
    }

    /// Creates the segment that begins with `position`, with space for a record of this size.
    fn begin_segment(&self, position: u64, bytes: u64) -> Result<OpenSegment, WriteError> {
        let header = self.origin.header(FileKind::Segment, position, self.epoch_due);
        let length = self.segment_bytes.max(FILE_HEADER_BYTES as u64 + bytes);
        let is_synced = self.origin.sync == SyncMode::Always;
        create_segment(&*self.storage, &header, length, &[], is_synced)
    }
}

/// Creates a segment of `length` with these records, which are encoded. After an error the file may
/// be there, complete; the next attempt replaces it.
pub(super) fn create_segment(
    storage: &dyn Storage,
    header: &FileHeader,
    length: u64,
    records: &[u8],
    is_synced: bool,
) -> Result<OpenSegment, WriteError> {
    let name = segment_name(header.position);
    let new_name = new_name(&name);
    let end = (FILE_HEADER_BYTES + records.len()) as u64;
    let create = || -> io::Result<Box<dyn StoredFile>> {
        let mut file = storage.create(&new_name)?;
        reserve(&mut *file, length.max(end))?;
        file.write_at(&header.to_bytes(), 0)?;
        file.write_at(records, FILE_HEADER_BYTES as u64)?;
        if is_synced {
            file.sync()?;
        }
        storage.rename(&new_name, &name)?;
        Ok(file)
    };
    let file = create().map_err(|error| {
        // A later start removes it.
        let _ = storage.remove(&new_name);
        WriteError::from(error)
    })?;
    if is_synced {
        storage.sync_names()?;
    }
    Ok(OpenSegment { file, codec: FrameCodec::new(header), end })
}

/// Reserves the space of a new segment. On a disk that has less, the file grows with its records:
/// so a small disk is used up to its end.
fn reserve(file: &mut dyn StoredFile, length: u64) -> io::Result<()> {
    match file.reserve(length).map_err(WriteError::from) {
        // A part of it may be reserved.
        Err(WriteError::Full(_)) => file.cut(0),
        result => result.map_err(WriteError::into_io),
    }
}

impl OpenSegment {
    /// Makes sure that nothing of the record after the last one is ever read.
    fn take_back(&mut self, length: u64, is_synced: bool) -> io::Result<()> {
        self.file.cut(self.end)?;
        if is_synced {
            self.file.sync()?;
        }
        // Without reserved space, the file grows with its records.
        let _ = self.file.reserve(length);
        Ok(())
    }
}

#[cfg(test)]
#[path = "segment_writer_tests.rs"]
mod tests;

//! Makes a journal that was read ready for new records.

use std::sync::Arc;

use mio::Waker;

use super::files::segment_name;
use super::helper::Helper;
use super::journal::{Journal, State};
use super::journal_error::JournalError;
use super::recovery::Recovered;
use super::segment_writer::{FileOrigin, OpenSegment, SegmentWriter, create_segment};
use super::stepped_helper::SteppedHelper;
use super::storage::{Storage, WriteError};
use super::worker::JobQueue;
use crate::log::{FileHeader, FileKind, FrameCodec, SegmentScan};

impl Recovered {
    /// Removes what is obsolete, copies the newest segment to a new file, and starts the helper
    /// thread. The helper calls `waker` when there is an outcome, or the snapshot may go on. The
    /// process has to have its final privileges: the thread inherits those of its creator.
    ///
    /// If the disk is full, the journal starts, and refuses records until there is space.
    ///
    /// # Errors
    ///
    /// [`JournalError`] for other errors of the disk.
    pub fn start(self, waker: Arc<Waker>) -> Result<Journal, JournalError> {
        self.start_with(|storage| {
            let helper = Helper::start(storage, waker).map_err(|error| {
                JournalError(format!("cannot start the journal's thread: {error}"))
            })?;
            Ok(Box::new(helper))
        })
    }

    /// Starts like [`Self::start`], without a thread: the helper does a job when the caller tells
    /// it to.
    ///
    /// # Errors
    ///
    /// [`JournalError`] as for [`Self::start`].
    pub fn start_stepped(self) -> Result<(Journal, SteppedHelper), JournalError> {
        let helper = SteppedHelper::new(Arc::clone(self.opened.files.storage()));
        let journal = self.start_with(|_| Ok(Box::new(helper.clone())))?;
        Ok((journal, helper))
    }

    fn start_with(
        mut self,
        start_helper: impl FnOnce(Arc<dyn Storage>) -> Result<Box<dyn JobQueue>, JournalError>,
    ) -> Result<Journal, JournalError> {
        let storage = Arc::clone(self.opened.files.storage());
        let (origin, segment) = self.prepare(&*storage)?;
        let epoch_due = self.epoch_due();
        let segment_bytes = self.opened.config.segment_bytes;
        let writer =
            SegmentWriter::new(Arc::clone(&storage), origin, segment_bytes, epoch_due, segment);
        let state = State {
            origin,
            position: self.position,
            segments: self.plan.segments,
            log_bytes: self.plan.log_bytes,
            snapshot: self.plan.snapshot,
            snapshot_min_bytes: self.opened.config.snapshot_min_bytes,
        };
        let path = self.opened.files.path().to_owned();
        let helper = start_helper(storage)?;
        Ok(Journal::new(path, self.opened.lock, state, writer, helper))
    }

    /// Makes the files ready for new records. Returns the segment for the next record: `None` if
    /// that begins one.
    pub(super) fn prepare(
        &mut self,
        storage: &dyn Storage,
    ) -> Result<(FileOrigin, Option<OpenSegment>), JournalError> {
        let files = self.opened.files.clone();
        let cannot = |error| JournalError::io("write the journal", files.path(), &error);
        for name in &self.plan.obsolete {
            storage.remove(name).map_err(cannot)?;
        }
        storage.sync_names().map_err(cannot)?;
        // A record must not be on the disk before those of an earlier process.
        for first in &self.plan.unsynced {
            files.open(&segment_name(*first))?.sync().map_err(cannot)?;
        }
        let is_new = self.plan.journal_id.is_none();
        let origin = self.opened.origin(self.plan.journal_id.unwrap_or_else(new_journal_id));
        let segment = match self.begin_segment(storage, &origin) {
            Ok(segment) => segment,
            Err(WriteError::Full(error)) if !is_new => {
                log::warn!("journal disk is full, refusing records: {error}");
                self.cut_newest()?;
                None
            }
            Err(error) => return Err(cannot(error.into_io())),
        };
        Ok((origin, segment))
    }

    /// Creates the segment for the next record. `None` if the next record begins one.
    fn begin_segment(
        &mut self,
        storage: &dyn Storage,
        origin: &FileOrigin,
    ) -> Result<Option<OpenSegment>, WriteError> {
        let mut records = Vec::new();
        let first = match (&self.plan.newest, self.plan.segments.last()) {
            (Some((old, _)), _) => old.position,
            (None, None) => self.position + 1,
            (None, Some(_)) => return Ok(None),
        };
        let header = origin.header(FileKind::Segment, first, self.epoch_due());
        if let Some((old, bytes)) = &self.plan.newest {
            copy_records(old, bytes, &header, &mut records);
        } else {
            self.plan.segments.push(first);
        }
        let length = self.opened.config.segment_bytes;
        create_segment(storage, &header, length, &records, true).map(Some)
    }

    /// Cuts the newest segment after its last record, without a copy: that needs no space. What was
    /// read is written again, since the disk may not have it after a failed `fdatasync`.
    fn cut_newest(&self) -> Result<(), JournalError> {
        let Some((header, bytes)) = &self.plan.newest else { return Ok(()) };
        let name = segment_name(header.position);
        let mut file = self.opened.files.open(&name)?;
        let mut cut = || {
            file.write_at(bytes, 0)?;
            file.cut(bytes.len() as u64)?;
            file.sync()
        };
        cut()
            .map_err(|error| JournalError::io("cut", &self.opened.files.path().join(&name), &error))
    }

    /// Position of the record that begins a new epoch, or 0.
    fn epoch_due(&self) -> u64 {
        if self.needs_new_epoch { self.position + 1 } else { 0 }
    }
}

/// Appends the records of a segment as those of another one.
fn copy_records(from: &FileHeader, bytes: &[u8], to: &FileHeader, records: &mut Vec<u8>) {
    records.reserve(bytes.len());
    let codec = FrameCodec::new(to);
    for record in SegmentScan::new(*from, bytes) {
        codec.push(records, &record.frame());
    }
}

fn new_journal_id() -> [u8; 16] {
    let mut id = [0; 16];
    getrandom::fill(&mut id).expect("the operating system gives random bytes");
    id
}

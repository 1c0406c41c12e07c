//! The work of a helper: jobs in, results out. It may wait for the disk.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::segment_writer::{SegmentWriter, Written};
use super::snapshot_file::SnapshotWriter;
use super::storage::{Storage, WriteError};
use crate::log::{FileHeader, Record};

/// Work for a helper.
pub(super) enum Job {
    /// From now on the helper appends records.
    TakeWriter(Box<SegmentWriter>),
    /// Appends a record. The result is [`Done::Appended`].
    Append { position: u64, mono_ms: u64, unix_ms: u64, commands: Vec<u8> },
    /// Begins the snapshot with this header. The result is [`Done::SnapshotWritten`].
    BeginSnapshot(FileHeader),
    /// Appends a piece. The result is [`Done::SnapshotWritten`].
    AppendPiece(Vec<u8>),
    /// Completes the snapshot once the disk has the files `before`, and removes the files
    /// `obsolete`. The result is [`Done::SnapshotFinished`].
    FinishSnapshot { before: Vec<String>, obsolete: Vec<String> },
    /// Removes the incomplete snapshot. Without result.
    AbandonSnapshot,
    /// Gives back the space for further records, which do not come. Without result.
    GiveBackSpace,
}

/// Result of a job. The memory of its bytes comes back.
pub(super) enum Done {
    Appended(Result<Written, WriteError>, Vec<u8>),
    SnapshotWritten(Result<(), WriteError>, Vec<u8>),
    /// Size of the snapshot, and an error of removing a file, which is not an error of the
    /// snapshot.
    SnapshotFinished(Result<u64, WriteError>, io::Result<()>),
}

/// Does jobs in order, apart from the loop. Each has one result at most.
pub(super) trait JobQueue {
    /// Adds a job.
    fn send(&self, job: Job);
    /// Returns the next result, if there is one, with the time that its job took.
    fn try_result(&self) -> Result<Option<(Done, Duration)>, HelperGone>;
    /// Waits until all jobs are done. Results stay available. No job may follow.
    fn end(&mut self);
}

/// The helper has ended by itself.
pub(super) struct HelperGone;

/// State of the work.
pub(super) struct Worker {
    storage: Arc<dyn Storage>,
    writer: Option<SegmentWriter>,
    snapshot: Option<SnapshotWriter>,
}

impl Worker {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, writer: None, snapshot: None }
    }

    /// Does a job. Returns its result, if it has one.
    pub(super) fn handle(&mut self, job: Job) -> Option<Done> {
        Some(match job {
            Job::TakeWriter(writer) => {
                self.writer = Some(*writer);
                return None;
            }
            Job::Append { position, mono_ms, unix_ms, commands } => {
                let writer = self.writer.as_mut().expect("the helper appends");
                let record = Record { position, mono_ms, unix_ms, commands: &commands };
                Done::Appended(writer.append(&record), commands)
            }
            Job::BeginSnapshot(header) => {
                self.abandon();
                let begun = SnapshotWriter::begin(Arc::clone(&self.storage), header);
                Done::SnapshotWritten(begun.map(|it| self.snapshot = Some(it)), Vec::new())
            }
            Job::AppendPiece(bytes) => {
                let snapshot = self.snapshot.as_mut().expect("a piece belongs to a snapshot");
                let result = snapshot.append(&bytes);
                if result.is_err() {
                    self.abandon();
                }
                Done::SnapshotWritten(result, bytes)
            }
            Job::FinishSnapshot { before, obsolete } => self.finish(&before, &obsolete),
            Job::AbandonSnapshot => {
                self.abandon();
                return None;
            }
            Job::GiveBackSpace => {
                self.writer.as_mut().map(SegmentWriter::give_back_space);
                return None;
            }
        })
    }

    fn finish(&mut self, before: &[String], obsolete: &[String]) -> Done {
        let snapshot = self.snapshot.take().expect("the end belongs to a snapshot");
        let result = match self.synchronize(before) {
            Ok(()) => snapshot.finish(),
            Err(error) => {
                snapshot.abandon();
                Err(error.into())
            }
        };
        let mut removed = Ok(());
        if result.is_ok() {
            for name in obsolete {
                removed = self.storage.remove(name).and(removed);
            }
        }
        Done::SnapshotFinished(result, removed)
    }

    fn synchronize(&self, files: &[String]) -> io::Result<()> {
        for name in files {
            self.storage.open(name)?.sync()?;
        }
        if files.is_empty() { Ok(()) } else { self.storage.sync_names() }
    }

    fn abandon(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            snapshot.abandon();
        }
    }
}

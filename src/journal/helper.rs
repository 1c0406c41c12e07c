//! The helper thread: it writes, so that the loop never waits for the disk.
//!
//! Jobs are done in order. Each has one result, and the waker tells the loop that it is there.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use mio::Waker;

use super::mailbox::{Closed, Mailbox};
use super::segment_writer::{SegmentWriter, Written};
use super::snapshot_file::SnapshotWriter;
use super::storage::{Storage, WriteError};
use crate::log::{FileHeader, Record};

/// Name of the thread.
const THREAD_NAME: &str = "journal";
/// The thread calls nothing that needs more.
const STACK_BYTES: usize = 128 * 1024;

/// Work for the helper.
pub(super) enum Job {
    /// From now on the helper appends records.
    TakeWriter(Box<SegmentWriter>),
    /// Appends a record. The result is [`Done::Appended`].
    Append { position: u64, mono_ms: u64, unix_ms: u64, commands: Vec<u8> },
    /// Begins the snapshot with this header. The result is [`Done::SnapshotWritten`].
    BeginSnapshot(FileHeader),
    /// Appends a piece. The result is [`Done::SnapshotWritten`].
    AppendPiece(Vec<u8>),
    /// Completes the snapshot, and removes these files. The result is [`Done::SnapshotFinished`].
    FinishSnapshot(Vec<String>),
    /// Removes the incomplete snapshot. Without result.
    AbandonSnapshot,
}

/// Result of a job. The memory of its bytes comes back.
pub(super) enum Done {
    /// With the time of the write.
    Appended(Result<Written, WriteError>, Duration, Vec<u8>),
    SnapshotWritten(Result<(), WriteError>, Vec<u8>),
    /// Size of the snapshot, and an error of removing a file, which is not an error of the
    /// snapshot.
    SnapshotFinished(Result<u64, WriteError>, io::Result<()>),
}

/// The thread, as the loop sees it.
pub(super) struct Helper {
    /// Closed when the thread was told to end.
    jobs: Arc<Mailbox<Job>>,
    /// Closed when the thread has ended.
    results: Arc<Mailbox<Done>>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    pub(super) fn start(storage: Arc<dyn Storage>, waker: Arc<Waker>) -> io::Result<Self> {
        let jobs = Arc::new(Mailbox::new());
        let results = Arc::new(Mailbox::new());
        let queue = Arc::clone(&jobs);
        let end = CloseAtEnd(Arc::clone(&results));
        let worker = Worker { storage, writer: None, snapshot: None };
        let thread = Builder::new()
            .name(THREAD_NAME.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || worker.run(&queue, &end.0, &waker))?;
        Ok(Self { jobs, results, thread: Some(thread) })
    }

    /// Gives a job to the thread.
    pub(super) fn send(&self, job: Job) {
        // If the thread is gone, `try_result` reports it.
        self.jobs.send(job);
    }

    /// Returns the next result, if there is one.
    pub(super) fn try_result(&self) -> Result<Option<Done>, HelperGone> {
        self.results.try_receive().map_err(|Closed| HelperGone)
    }

    /// Waits until all jobs are done and the thread has ended. Results stay available.
    pub(super) fn end(&mut self) {
        self.jobs.close();
        if let Some(thread) = self.thread.take() {
            // An error is a panic, which was reported.
            let _ = thread.join();
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread has ended by itself.
pub(super) struct HelperGone;

/// Closes the results when the thread ends, also by a panic.
struct CloseAtEnd(Arc<Mailbox<Done>>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// State of the thread.
struct Worker {
    storage: Arc<dyn Storage>,
    writer: Option<SegmentWriter>,
    snapshot: Option<SnapshotWriter>,
}

impl Worker {
    fn run(mut self, jobs: &Mailbox<Job>, results: &Mailbox<Done>, waker: &Waker) {
        while let Ok(job) = jobs.receive() {
            let Some(done) = self.handle(job) else { continue };
            results.send(done);
            if let Err(error) = waker.wake() {
                log::error!("cannot wake the loop: {error}");
            }
        }
    }

    fn handle(&mut self, job: Job) -> Option<Done> {
        Some(match job {
            Job::TakeWriter(writer) => {
                self.writer = Some(*writer);
                return None;
            }
            Job::Append { position, mono_ms, unix_ms, commands } => {
                let writer = self.writer.as_mut().expect("the helper appends");
                let record = Record { position, mono_ms, unix_ms, commands: &commands };
                let start = Instant::now();
                let result = writer.append(&record);
                Done::Appended(result, start.elapsed(), commands)
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
            Job::FinishSnapshot(obsolete) => self.finish(&obsolete),
            Job::AbandonSnapshot => {
                self.abandon();
                return None;
            }
        })
    }

    fn finish(&mut self, obsolete: &[String]) -> Done {
        let snapshot = self.snapshot.take().expect("the end belongs to a snapshot");
        let result = snapshot.finish();
        let mut removed = Ok(());
        if result.is_ok() {
            for name in obsolete {
                removed = self.storage.remove(name).and(removed);
            }
        }
        Done::SnapshotFinished(result, removed)
    }

    fn abandon(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            snapshot.abandon();
        }
    }
}

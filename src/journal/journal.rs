//! The journal as the log of the service.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::files::{segment_name, snapshot_name};
use super::segment_writer::{FileOrigin, SegmentWriter, Written};
use super::storage::WriteError;
use super::worker::{Done, Job, JobQueue};
use crate::log::{FileKind, Log, Outcome, Record, SyncMode};

/// If a snapshot could not be written, the log grows by this part of the least size for a snapshot
/// before the next attempt.
const SNAPSHOT_RETRY_PART: u64 = 16;

/// Memory that is kept for the commands of the next record.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// The journal.
///
/// With [`SyncMode::Always`], the helper thread writes, and the outcome comes with a call of the
/// waker. With [`SyncMode::Os`], [`Log::append`] writes, and the outcome is there at once. The
/// helper writes snapshots in both cases.
pub struct Journal {
    path: PathBuf,
    lock: Option<OwnedFd>,
    state: State,
    /// `None` if the helper appends.
    writer: Option<SegmentWriter>,
    helper: Box<dyn JobQueue>,
    appending: Appending,
    snapshot: Option<OpenSnapshot>,
    /// Size of the log at which the next snapshot may begin, after one that was given up.
    snapshot_retry_bytes: u64,
    /// Results of snapshots that were given up, and are still to come.
    stale_results: usize,
    is_full: bool,
    has_failed: bool,
    /// Memory of commands and of pieces.
    buffers: [Vec<u8>; 2],
}

/// Contents of the directory, and settings.
pub(super) struct State {
    pub(super) origin: FileOrigin,
    /// Position of the last record.
    pub(super) position: u64,
    /// First positions of the segments, rising.
    pub(super) segments: Vec<u64>,
    /// Size of the records after the snapshot.
    pub(super) log_bytes: u64,
    /// Position and size of the snapshot.
    pub(super) snapshot: Option<(u64, u64)>,
    /// No snapshot is made of a log below this size.
    pub(super) snapshot_min_bytes: u64,
}

/// Sizes of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalStats {
    /// Position of the last record that is in the log.
    pub position: u64,
    /// Records after the newest snapshot, in bytes.
    pub log_bytes: u64,
    /// Position of the newest snapshot. 0 without one.
    pub snapshot_position: u64,
    /// Size of the newest snapshot, in bytes. 0 without one.
    pub snapshot_bytes: u64,
    /// Number of segments.
    pub segments: usize,
    /// The last record was refused, since the disk is full.
    pub is_full: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Appending {
    Nothing,
    Written,
    Known(Outcome),
}

struct OpenSnapshot {
    position: u64,
    /// Size of the log when it began.
    log_bytes: u64,
    /// A job is under way.
    is_busy: bool,
    /// That job is the last: the snapshot will be complete, or the helper has given it up.
    is_finishing: bool,
}

impl Journal {
    pub(super) fn new(
        path: PathBuf,
        lock: Option<OwnedFd>,
        state: State,
        writer: SegmentWriter,
        helper: Box<dyn JobQueue>,
    ) -> Self {
        let writer = match state.origin.sync {
            SyncMode::Os => Some(writer),
            SyncMode::Always => {
                helper.send(Job::TakeWriter(Box::new(writer)));
                None
            }
        };
        Self {
            path,
            lock,
            state,
            writer,
            helper,
            appending: Appending::Nothing,
            snapshot: None,
            snapshot_retry_bytes: 0,
            stale_results: 0,
            is_full: false,
            has_failed: false,
            buffers: [Vec::new(), Vec::new()],
        }
    }

    /// Returns position and sizes.
    #[must_use]
    pub fn stats(&self) -> JournalStats {
        JournalStats {
            position: self.state.position,
            log_bytes: self.state.log_bytes,
            snapshot_position: self.state.snapshot.map_or(0, |(position, _)| position),
            snapshot_bytes: self.state.snapshot.map_or(0, |(_, bytes)| bytes),
            segments: self.state.segments.len(),
            is_full: self.is_full,
        }
    }

    /// Waits until what was appended is written, ends the helper thread and closes the files.
    /// Returns the lock, for the process that takes over, and the last outcome, if it was not
    /// taken. An incomplete snapshot is given up.
    #[must_use]
    pub fn close(mut self) -> (Option<OwnedFd>, Option<Outcome>) {
        self.abandon_snapshot();
        match &mut self.writer {
            Some(writer) => writer.give_back_space(),
            None => self.helper.send(Job::GiveBackSpace),
        }
        self.helper.end();
        let outcome = self.take_outcome();
        (self.lock, outcome)
    }

    /// Returns whether a result of the helper is still to come. If not, its queue need not be
    /// locked, which would cost each turn more than the rest of [`Log::take_outcome`].
    fn awaits_helper(&self) -> bool {
        let is_snapshot_busy = self.snapshot.as_ref().is_some_and(|snapshot| snapshot.is_busy);
        self.appending == Appending::Written || is_snapshot_busy || self.stale_results > 0
    }

    /// Notes the results of the helper.
    fn poll_helper(&mut self) {
        loop {
            match self.helper.try_result() {
                Ok(Some((Done::Appended(result, commands), time))) => {
                    self.keep_buffer(0, commands);
                    self.on_appended(result, time);
                }
                Ok(Some((Done::SnapshotWritten(result, piece), _))) => {
                    self.keep_buffer(1, piece);
                    self.on_snapshot_written(result);
                }
                Ok(Some((Done::SnapshotFinished(result, removed), _))) => {
                    if let Err(error) = removed {
                        let path = self.path.display();
                        log::warn!("journal file not removed path={path}: {error}");
                    }
                    self.on_snapshot_finished(result);
                }
                Ok(None) => return,
                Err(_) => {
                    if self.appending == Appending::Written {
                        let error = std::io::Error::other("the helper thread has ended");
                        self.on_appended(Err(WriteError::Failed(error)), Duration::ZERO);
                    }
                    return;
                }
            }
        }
    }

    fn keep_buffer(&mut self, index: usize, buffer: Vec<u8>) {
        if buffer.capacity() <= BUFFER_KEPT_BYTES {
            self.buffers[index] = buffer;
        }
    }

    fn on_appended(&mut self, result: Result<Written, WriteError>, flush: Duration) {
        let path = self.path.display();
        let outcome = match result {
            Ok(Written { bytes, is_first }) => {
                self.state.position += 1;
                self.state.log_bytes += bytes;
                if is_first && self.state.segments.last() != Some(&self.state.position) {
                    self.state.segments.push(self.state.position);
                }
                if std::mem::take(&mut self.is_full) {
                    log::info!("journal has space again path={path}");
                }
                Outcome::Durable { position: self.state.position, flush }
            }
            Err(WriteError::Full(error)) => {
                if !std::mem::replace(&mut self.is_full, true) {
                    log::error!("journal is full, refusing records path={path}: {error}");
                }
                Outcome::Full
            }
            Err(WriteError::Failed(error)) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    log::error!("journal write failed path={path}: {error}");
                }
                Outcome::Failed
            }
        };
        self.appending = Appending::Known(outcome);
    }

    fn on_snapshot_written(&mut self, result: Result<(), WriteError>) {
        if self.stale_results > 0 {
            self.stale_results -= 1;
            return;
        }
        if let Err(error) = result {
            self.give_up_snapshot(error);
        } else if let Some(snapshot) = &mut self.snapshot {
            snapshot.is_busy = false;
        }
    }

    fn on_snapshot_finished(&mut self, result: Result<u64, WriteError>) {
        match (result, self.snapshot.take()) {
            (Ok(bytes), Some(snapshot)) => {
                let position = snapshot.position;
                self.state.snapshot = Some((position, bytes));
                self.state.log_bytes = self.state.log_bytes.saturating_sub(snapshot.log_bytes);
                self.snapshot_retry_bytes = 0;
                let obsolete = self.obsolete_segments(position).count();
                self.state.segments.drain(..obsolete);
                log::info!("journal snapshot complete position={position} bytes={bytes}");
            }
            (Err(error), snapshot) => {
                self.snapshot = snapshot;
                self.give_up_snapshot(error);
            }
            (Ok(_), None) => {}
        }
    }

    /// Drops a snapshot that the helper has given up.
    fn give_up_snapshot(&mut self, error: WriteError) {
        if self.snapshot.take().is_some() {
            let path = self.path.display();
            log::warn!("journal snapshot given up path={path}: {}", error.into_io());
        }
        let more_bytes = self.state.snapshot_min_bytes / SNAPSHOT_RETRY_PART;
        self.snapshot_retry_bytes = self.state.log_bytes + more_bytes;
    }

    /// Names of the segments with records after `position` that the disk may not have yet. The
    /// pieces of a snapshot hold what these records did: without them, its parts contradict each
    /// other.
    fn unsynced_files(&self, position: u64) -> Vec<String> {
        if self.state.origin.sync == SyncMode::Always {
            return Vec::new();
        }
        let is_after = |index: usize| {
            self.state.segments.get(index + 1).is_none_or(|next| *next > position + 1)
        };
        let segments = self.state.segments.iter().enumerate();
        segments
            .filter(|(index, _)| is_after(*index))
            .map(|(_, first)| segment_name(*first))
            .collect()
    }

    /// First positions of the segments that a snapshot at `position` makes obsolete.
    fn obsolete_segments(&self, position: u64) -> impl Iterator<Item = u64> {
        let pairs = self.state.segments.windows(2);
        pairs.take_while(move |pair| pair[1] <= position + 1).map(|pair| pair[0])
    }

    /// Names of the files that a snapshot at `position` makes obsolete.
    fn obsolete_files(&self, position: u64) -> Vec<String> {
        let obsolete = self.obsolete_segments(position).map(segment_name);
        let older = self.state.snapshot.filter(|(older, _)| *older != position);
        obsolete.chain(older.map(|(older, _)| snapshot_name(older))).collect()
    }
}

impl Log for Journal {
    fn close(self: Box<Self>) {
        let (lock, _) = Self::close(*self);
        drop(lock);
    }

    fn is_ready(&self) -> bool {
        self.appending == Appending::Nothing
    }

    fn append(&mut self, mono_ms: u64, unix_ms: u64, commands: &[u8]) {
        assert!(self.is_ready(), "one record at a time");
        let position = self.state.position + 1;
        if let Some(writer) = &mut self.writer {
            let result = writer.append(&Record { position, mono_ms, unix_ms, commands });
            self.on_appended(result, Duration::ZERO);
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffers[0]);
        buffer.clear();
        buffer.extend_from_slice(commands);
        self.appending = Appending::Written;
        self.helper.send(Job::Append { position, mono_ms, unix_ms, commands: buffer });
    }

    fn may_have_events(&self) -> bool {
        self.appending != Appending::Nothing || self.awaits_helper()
    }

    fn take_outcome(&mut self) -> Option<Outcome> {
        if self.awaits_helper() {
            self.poll_helper();
        }
        let Appending::Known(outcome) = self.appending else { return None };
        self.appending = Appending::Nothing;
        Some(outcome)
    }

    fn bytes(&self) -> u64 {
        self.state.log_bytes
    }

    fn is_snapshot_due(&self) -> bool {
        let snapshot_bytes = self.state.snapshot.map_or(0, |(_, bytes)| bytes);
        let size = self.state.log_bytes;
        self.snapshot.is_none()
            && !self.has_failed
            && size > self.state.snapshot_min_bytes
            && size > 2 * snapshot_bytes
            && size >= self.snapshot_retry_bytes
    }

    fn begin_snapshot(&mut self, position: u64) {
        assert!(self.snapshot.is_none(), "one snapshot at a time");
        let log_bytes = self.state.log_bytes;
        self.snapshot =
            Some(OpenSnapshot { position, log_bytes, is_busy: true, is_finishing: false });
        let header = self.state.origin.header(FileKind::Snapshot, position, 0);
        self.helper.send(Job::BeginSnapshot(header));
    }

    fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    fn wants_piece(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| !snapshot.is_busy)
    }

    fn append_piece(&mut self, bytes: &[u8]) {
        assert!(self.wants_piece(), "one piece at a time");
        let mut buffer = std::mem::take(&mut self.buffers[1]);
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.send_snapshot_job(Job::AppendPiece(buffer));
    }

    fn finish_snapshot(&mut self) {
        assert!(self.wants_piece(), "the last piece is on the disk");
        let snapshot = self.snapshot.as_mut().expect("checked above");
        snapshot.is_finishing = true;
        let position = snapshot.position;
        let before = self.unsynced_files(position);
        let obsolete = self.obsolete_files(position);
        self.send_snapshot_job(Job::FinishSnapshot { before, obsolete });
    }

    fn abandon_snapshot(&mut self) {
        if let Some(snapshot) = self.snapshot.take_if(|snapshot| !snapshot.is_finishing) {
            self.stale_results += usize::from(snapshot.is_busy);
            self.helper.send(Job::AbandonSnapshot);
        }
    }
}

impl Journal {
    fn send_snapshot_job(&mut self, job: Job) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.is_busy = true;
        }
        self.helper.send(job);
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;

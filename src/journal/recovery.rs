//! Opens a journal and reads it: the newest snapshot, then all later records.

use std::fmt;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::boot_id::boot_id;
use super::directory::Directory;
use super::files::{Files, Listing, segment_name, snapshot_name};
use super::journal_error::{DamagedFile, JournalError};
use super::segment_writer::FileOrigin;
use super::snapshot_file::{ReadError, read_snapshot};
use super::storage::Storage;
use crate::log::{FILE_HEADER_BYTES, FileHeader, FileKind, Record, SegmentScan, SyncMode, Tail};

/// Settings of a journal.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory.
    pub directory: PathBuf,
    /// Moment at which a record counts as written.
    pub sync: SyncMode,
    /// Size from which on a segment gets no more records.
    pub segment_bytes: u64,
    /// No snapshot is made of a log below this size.
    pub snapshot_min_bytes: u64,
}

impl Config {
    /// Settings of `--journal` and `--journal-sync`.
    #[must_use]
    pub fn new(directory: PathBuf, sync: SyncMode) -> Self {
        Self { directory, sync, segment_bytes: 16 << 20, snapshot_min_bytes: 16 << 20 }
    }
}

/// Part of the state that a journal holds.
pub enum Item<'a> {
    /// Piece of the newest snapshot.
    Piece(&'a [u8]),
    /// Record after the position of that snapshot.
    Record(Record<'a>),
}

/// A journal that this process has locked.
pub struct Opened {
    pub(super) files: Files,
    /// `None` on a storage that has no locks.
    pub(super) lock: Option<OwnedFd>,
    pub(super) config: Config,
    pub(super) boot_id: [u8; 16],
}

/// A journal that was read.
pub struct Recovered {
    /// Position of the last record. 0 if there was none.
    pub position: u64,
    /// Monotonic and Unix time of the last record after the snapshot, in milliseconds. `None`
    /// without such a record.
    pub last_times: Option<(u64, u64)>,
    /// Records were lost, or may have been: with [`SyncMode::Os`], when the machine has stopped, or
    /// by a repair. The first new record has to begin a new epoch.
    pub needs_new_epoch: bool,
    /// Records after the snapshot.
    pub records: u64,
    pub(super) opened: Opened,
    pub(super) plan: Plan,
}

/// Work of the start.
#[derive(Default)]
pub(super) struct Plan {
    /// Identity of the journal. `None` for a new one.
    pub(super) journal_id: Option<[u8; 16]>,
    /// First positions of the segments to keep, rising.
    pub(super) segments: Vec<u64>,
    /// Those of them that the disk may not have yet.
    pub(super) unsynced: Vec<u64>,
    /// Valid part of the last of them: header and records.
    pub(super) newest: Option<(FileHeader, Vec<u8>)>,
    /// Files to remove.
    pub(super) obsolete: Vec<String>,
    /// Size of the records after the snapshot.
    pub(super) log_bytes: u64,
    /// Position and size of the snapshot.
    pub(super) snapshot: Option<(u64, u64)>,
}

impl Opened {
    /// Creates the directory if it is missing, locks it and checks its owner.
    ///
    /// # Errors
    ///
    /// [`JournalError`], also if another process has the lock.
    pub fn open(config: Config) -> Result<Self, JournalError> {
        Self::open_released(config, Duration::ZERO)
    }

    /// Opens the journal of a process that is about to exit, or has released it. Waits up to
    /// `wait_max` for that.
    ///
    /// # Errors
    ///
    /// [`JournalError`], also if another process still has the lock.
    pub fn open_released(config: Config, wait_max: Duration) -> Result<Self, JournalError> {
        let directory = Directory::new(config.directory.clone());
        directory.prepare()?;
        let lock = Some(directory.lock(wait_max)?);
        Ok(Self { files: directory.files(), lock, config, boot_id: boot_id() })
    }

    /// Opens the journal with the lock of [`Journal::close`](super::Journal::close), which came
    /// from another process.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if others have access to the directory.
    pub fn open_with_lock(config: Config, lock: OwnedFd) -> Result<Self, JournalError> {
        let directory = Directory::new(config.directory.clone());
        directory.prepare()?;
        Ok(Self { files: directory.files(), lock: Some(lock), config, boot_id: boot_id() })
    }

    /// Opens the journal on a storage other than the directory of its settings, under the boot
    /// `boot_id` of the machine. Only one journal may use the storage.
    #[must_use]
    pub fn open_on(storage: Arc<dyn Storage>, config: Config, boot_id: [u8; 16]) -> Self {
        Self { files: Files::new(config.directory.clone(), storage), lock: None, config, boot_id }
    }

    /// Passes the newest snapshot and all later records to `sink`, in order. Changes no file. The
    /// time is linear in the size of the journal, and memory is that of the largest segment.
    ///
    /// # Errors
    ///
    /// [`JournalError`] for damage that no crash leaves, and for an error of `sink`, which is one
    /// line.
    pub fn recover(
        self,
        sink: &mut dyn FnMut(Item) -> Result<(), String>,
    ) -> Result<Recovered, JournalError> {
        match read_journal(&self.files, self.boot_id, sink) {
            Ok(contents) => Ok(contents.recovered(self)),
            Err(error) => Err(error.into_error(self.files.path())),
        }
    }

    /// Takes over a journal after `position`, the last of the process that had the lock before.
    /// Reads the newest segment only.
    ///
    /// # Errors
    ///
    /// [`JournalError`] if the journal ends at another position.
    pub fn resume(self, position: u64) -> Result<Recovered, JournalError> {
        let listing = self.files.list()?;
        let mut plan = Plan {
            segments: listing.segments.clone(),
            obsolete: listing.leftovers.clone(),
            ..Plan::default()
        };
        let mut end = None;
        for first in &listing.segments {
            let name = segment_name(*first);
            let about = |error| JournalError::io("read", &self.files.path().join(&name), &error);
            if Some(first) == listing.segments.last() {
                let mut bytes = Vec::new();
                let mut file = self.files.read(&name).map_err(about)?;
                file.read_to_end(&mut bytes).map_err(about)?;
                if let Ok(header) = FileHeader::parse(&bytes) {
                    let mut scan = SegmentScan::new(header, &bytes);
                    scan.by_ref().for_each(drop);
                    plan.journal_id = Some(header.journal_id);
                    plan.log_bytes += scan.offset();
                    end = Some(scan.next_position() - 1).filter(|_| scan.tail() == Tail::Clean);
                }
            } else {
                plan.log_bytes += self.files.storage().length(&name).map_err(about)?;
            }
        }
        if let Some(newest) = listing.snapshots.last() {
            let length = self.files.storage().length(&snapshot_name(*newest)).unwrap_or(0);
            plan.snapshot = Some((*newest, length));
        }
        if end != Some(position) {
            let path = self.files.path().display();
            let found = end.map_or_else(|| "is damaged".into(), |end| format!("ends with {end}"));
            return Err(JournalError(format!(
                "the journal {path} {found}, and the last record of the old process is {position}"
            )));
        }
        Ok(Recovered {
            position,
            last_times: None,
            needs_new_epoch: false,
            records: 0,
            opened: self,
            plan,
        })
    }

    pub(super) fn origin(&self, journal_id: [u8; 16]) -> FileOrigin {
        FileOrigin { journal_id, boot_id: self.boot_id, sync: self.config.sync }
    }
}

/// What a journal holds.
pub(super) struct Contents {
    /// Position of the last record.
    pub(super) position: u64,
    last_times: Option<(u64, u64)>,
    pub(super) needs_new_epoch: bool,
    pub(super) records: u64,
    pub(super) plan: Plan,
}

impl Contents {
    pub(super) fn recovered(self, opened: Opened) -> Recovered {
        Recovered {
            position: self.position,
            last_times: self.last_times,
            needs_new_epoch: self.needs_new_epoch,
            records: self.records,
            opened,
            plan: self.plan,
        }
    }
}

/// Reads a journal as a start would, under the boot `boot_id` of the machine. Needs no lock if no
/// process uses the journal.
pub(super) fn read_journal(
    files: &Files,
    boot_id: [u8; 16],
    sink: &mut dyn FnMut(Item) -> Result<(), String>,
) -> Result<Contents, ReadError> {
    let listing = files.list().map_err(|JournalError(line)| ReadError::Caller(line))?;
    let mut reading = Reading {
        files,
        boot_id,
        plan: Plan { obsolete: listing.leftovers.clone(), ..Plan::default() },
        newest: newest_header(files, &listing),
        is_lossy: false,
        epoch_due: 0,
        next_position: 1,
        last_times: None,
        records: 0,
    };
    reading.read(&listing, sink)?;
    Ok(Contents {
        position: reading.next_position - 1,
        last_times: reading.last_times,
        needs_new_epoch: reading.is_lossy || reading.epoch_due >= reading.next_position,
        records: reading.records,
        plan: reading.plan,
    })
}

/// State of reading a journal.
struct Reading<'a> {
    files: &'a Files,
    boot_id: [u8; 16],
    plan: Plan,
    /// Header of the newest segment. `None` if it cannot be read.
    newest: Option<FileHeader>,
    /// The files were written under another boot, and not synchronized: the log may end earlier
    /// than it did.
    is_lossy: bool,
    epoch_due: u64,
    next_position: u64,
    last_times: Option<(u64, u64)>,
    records: u64,
}

type Sink<'a> = dyn FnMut(Item) -> Result<(), String> + 'a;

impl Reading<'_> {
    fn read(&mut self, listing: &Listing, sink: &mut Sink) -> Result<(), ReadError> {
        let damage = self.read_newest_snapshot(listing, sink)?;
        match (self.read_segments(listing, sink), damage) {
            // The segments do not replace what that snapshot held.
            (Err(ReadError::Damaged(_)), Some(damage)) => Err(ReadError::Damaged(damage)),
            (result, _) => result,
        }
    }

    fn read_segments(&mut self, listing: &Listing, sink: &mut Sink) -> Result<(), ReadError> {
        let after_snapshot = self.next_position;
        let segments = &listing.segments;
        for (index, first) in segments.iter().enumerate() {
            let next = segments.get(index + 1).copied();
            if next.is_some_and(|next| next <= after_snapshot) {
                self.plan.obsolete.push(segment_name(*first));
            } else if !self.read_segment(*first, next, after_snapshot, sink)? {
                self.drop_segments(&segments[index..]);
                break;
            }
        }
        if self.plan.segments.is_empty()
            && let Some((position, _)) = self.plan.snapshot
            && !self.is_lossy
        {
            let reason = "the segment after this snapshot is missing".to_owned();
            return Err(damaged(&snapshot_name(position), 0, reason));
        }
        // The snapshot was on the disk before the last records that it covers.
        if self.next_position < after_snapshot {
            let segments = std::mem::take(&mut self.plan.segments);
            self.plan.obsolete.extend(segments.into_iter().map(segment_name));
            self.plan.unsynced.clear();
            self.plan.newest = None;
            self.next_position = after_snapshot;
        }
        Ok(())
    }

    /// Passes the pieces of the newest good snapshot to `sink`. Returns the first damage of a newer
    /// one. Without one that the segments can continue, that is the error.
    fn read_newest_snapshot(
        &mut self,
        listing: &Listing,
        sink: &mut Sink,
    ) -> Result<Option<DamagedFile>, ReadError> {
        let oldest = listing.segments.first().copied();
        let is_continued = |position: u64| oldest.is_none_or(|first| first <= position + 1);
        let mut damage = None;
        for position in listing.snapshots.iter().rev() {
            let name = snapshot_name(*position);
            if self.plan.snapshot.is_some() {
                self.plan.obsolete.push(name);
                continue;
            }
            if damage.is_some() && !is_continued(*position) {
                break;
            }
            // First without `sink`: nothing of a damaged snapshot is used.
            let contents =
                match read_snapshot(&mut *self.files.read(&name)?, &name, &mut |_| Ok(())) {
                    Err(ReadError::Damaged(it)) => {
                        log::warn!("journal snapshot damaged file={name} offset={}", it.offset);
                        damage.get_or_insert(it);
                        self.plan.obsolete.push(name);
                        continue;
                    }
                    result => result?,
                };
            self.note_header(&contents.header, &name)?;
            read_snapshot(&mut *self.files.read(&name)?, &name, &mut |piece| {
                sink(Item::Piece(piece))
            })?;
            self.plan.snapshot = Some((*position, contents.bytes));
            self.next_position = position + 1;
        }
        match damage {
            // All records are still there, from the first on.
            Some(damage) if self.plan.snapshot.is_none() && oldest != Some(1) => {
                Err(ReadError::Damaged(damage))
            }
            damage => Ok(damage),
        }
    }

    /// Reads a segment, and passes the records from `after_snapshot` on to `sink`. `next` is the
    /// first position of the next segment. Returns false if the segment is not usable, since the
    /// machine stopped before the disk had it.
    fn read_segment(
        &mut self,
        first: u64,
        next: Option<u64>,
        after_snapshot: u64,
        sink: &mut Sink,
    ) -> Result<bool, ReadError> {
        let name = segment_name(first);
        let mut bytes = Vec::new();
        self.files.read(&name)?.read_to_end(&mut bytes)?;
        // Loss can begin only after a file that the disk may not have had.
        let may_be_lost = self.is_lossy;
        let header = match FileHeader::parse(&bytes) {
            Ok(header) if header.kind == FileKind::Segment && header.position == first => header,
            _ if may_be_lost => return Ok(false),
            Ok(_) => return Err(damaged(&name, 0, "the header of another file".into())),
            Err(error) => return Err(damaged(&name, 0, error.to_string())),
        };
        let expected = self.next_position;
        let is_first = self.plan.segments.is_empty();
        if first > expected || (!is_first && first != expected) {
            if may_be_lost {
                return Ok(false);
            }
            let reason = format!("record {first} where record {expected} should be");
            return Err(damaged(&name, 0, reason));
        }
        self.note_header(&header, &name)?;
        let mut scan = SegmentScan::new(header, &bytes);
        for record in scan.by_ref() {
            if record.position >= after_snapshot {
                let times = (record.mono_ms, record.unix_ms);
                sink(Item::Record(record)).map_err(ReadError::Caller)?;
                self.last_times = Some(times);
                self.records += 1;
                self.plan.log_bytes += record.frame().encoded_bytes() as u64;
            }
        }
        let (end, tail) = (scan.offset(), scan.tail());
        self.next_position = scan.next_position();
        self.plan.segments.push(first);
        if header.sync == SyncMode::Os {
            self.plan.unsynced.push(first);
        }
        match (tail, next) {
            (Tail::Clean, _) => {}
            (Tail::Torn(count), None) => {
                log::warn!("journal cut: incomplete record file={name} offset={end} bytes={count}");
            }
            (tail, _) if self.is_lossy => {
                log::warn!("journal cut: the machine stopped file={name} offset={end} {tail:?}");
            }
            // No record is missing: these bytes are damage of unused space, or of a record that was
            // refused.
            (Tail::Torn(count), Some(next)) if next == self.next_position => {
                log::warn!("journal: bytes without use file={name} offset={end} bytes={count}");
            }
            (Tail::Torn(_), Some(_)) => {
                return Err(damaged(&name, end, "a damaged record, and later records".into()));
            }
            (Tail::Damaged(damage), _) => return Err(damaged(&name, end, damage.to_string())),
        }
        bytes.truncate(end as usize);
        self.plan.newest = Some((header, bytes));
        Ok(true)
    }

    /// Notes identity and boot of a file.
    fn note_header(&mut self, header: &FileHeader, name: &str) -> Result<(), ReadError> {
        let journal_id = *self.plan.journal_id.get_or_insert(header.journal_id);
        if header.journal_id != journal_id {
            return Err(damaged(name, 0, "a file of another journal".into()));
        }
        let is_same_boot = header.boot_id == self.boot_id && self.boot_id != [0; 16];
        // A start synchronizes all older segments before it begins one.
        let is_synced = self.newest.is_some_and(|newest| {
            newest.boot_id != header.boot_id || newest.sync == SyncMode::Always
        });
        self.is_lossy = header.sync == SyncMode::Os && !is_same_boot && !is_synced;
        self.epoch_due = header.epoch_due;
        Ok(())
    }

    /// Drops segments that the disk has only in part.
    fn drop_segments(&mut self, segments: &[u64]) {
        for first in segments {
            let name = segment_name(*first);
            log::warn!("journal cut: the machine stopped, later records are lost file={name}");
            self.plan.obsolete.push(name);
        }
    }
}

fn newest_header(files: &Files, listing: &Listing) -> Option<FileHeader> {
    let file = files.read(&segment_name(*listing.segments.last()?)).ok()?;
    let mut bytes = Vec::new();
    file.take(FILE_HEADER_BYTES as u64).read_to_end(&mut bytes).ok()?;
    FileHeader::parse(&bytes).ok()
}

fn damaged(name: &str, offset: u64, reason: String) -> ReadError {
    ReadError::Damaged(DamagedFile { name: name.to_owned(), offset, reason })
}

impl fmt::Debug for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovered")
            .field("position", &self.position)
            .field("records", &self.records)
            .field("needs_new_epoch", &self.needs_new_epoch)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;

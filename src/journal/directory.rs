//! The directory of a journal: its owner, its lock, and the names of its files.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::geteuid;

use super::journal_error::JournalError;
use super::storage::{Storage, StoredFile};

/// Only the owner may read the files: they contain every secret of the server.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Interval at which the lock of a process that is about to exit is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(1);

const LOCK_NAME: &str = "lock";
const SEGMENT_PREFIX: &str = "segment-";
const SNAPSHOT_PREFIX: &str = "snapshot-";
/// End of the name of a file that is not complete.
const NEW_SUFFIX: &str = ".new";
/// End of the name of a damaged file that a repair has saved, without a number.
const SAVED_SUFFIX: &str = ".damaged-";

/// The directory of a journal.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

/// Files of a journal.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Positions in the names of the segments, rising.
    pub(super) segments: Vec<u64>,
    /// Positions in the names of the snapshots, rising.
    pub(super) snapshots: Vec<u64>,
    /// Names of incomplete files, which a crash has left.
    pub(super) leftovers: Vec<String>,
    /// Names of files that a repair has saved, rising.
    pub(super) saved: Vec<String>,
}

pub(super) fn segment_name(position: u64) -> String {
    format!("{SEGMENT_PREFIX}{position:020}")
}

pub(super) fn snapshot_name(position: u64) -> String {
    format!("{SNAPSHOT_PREFIX}{position:020}")
}

/// Name under which a repair at this time saves a file.
pub(super) fn saved_name(name: &str, unix_ms: u64) -> String {
    format!("{name}{SAVED_SUFFIX}{unix_ms}")
}

/// Name of a file until it is complete.
pub(super) fn new_name(name: &str) -> String {
    format!("{name}{NEW_SUFFIX}")
}

impl Directory {
    /// Names the directory at this path.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the directory if it is missing, and checks that others have no access.
    pub(super) fn prepare(&self) -> Result<(), JournalError> {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let advice = match error.kind() {
                    io::ErrorKind::NotFound => "; create the directory that is to contain it",
                    _ => "; choose another --journal",
                };
                let path = self.path.display();
                return Err(JournalError(format!("cannot create {path}: {error}{advice}")));
            }
            _ => {}
        }
        self.check_access()
    }

    /// Checks that the directory is one, is the user's own, and that others have no access.
    fn check_access(&self) -> Result<(), JournalError> {
        let about = fs::metadata(&self.path)
            .map_err(|error| JournalError::io("read the journal", &self.path, &error))?;
        let path = self.path.display();
        if !about.is_dir() {
            return Err(JournalError(format!("{path} is no directory: choose another --journal")));
        }
        let user = geteuid();
        if about.uid() != user.as_raw() && !user.is_root() {
            return Err(JournalError(format!(
                "the journal {path} belongs to user {}, and this process is user {}: start as \
                 that user, or choose another --journal",
                about.uid(),
                user.as_raw()
            )));
        }
        if about.mode() & 0o077 != 0 {
            return Err(JournalError(format!(
                "others have access to the journal {path}, which holds secrets: run \
                 `chmod 700 {path}`"
            )));
        }
        Ok(())
    }

    /// Takes the lock of the directory. Another process that has it is an error.
    ///
    /// Waits up to `wait_max` for its end.
    pub(super) fn lock(&self, wait_max: Duration) -> Result<OwnedFd, JournalError> {
        let path = self.path.join(LOCK_NAME);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .and_then(|file| self.adopt(&file).map(|()| file))
            .map_err(|error| JournalError::io("lock the journal", &path, &error))?;
        let deadline = Instant::now() + wait_max;
        let result = loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(LOCK_INTERVAL),
                result => break result,
            }
        };
        match result {
            Ok(()) => Ok(file.into()),
            Err(Errno::WOULDBLOCK) => Err(JournalError(format!(
                "the journal {} is in use by another process: stop that process, or choose \
                 another --journal",
                self.path.display()
            ))),
            Err(error) => Err(JournalError::io("lock the journal", &path, &error.into())),
        }
    }

    /// Returns whether a process has the lock.
    pub(super) fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.path.join(LOCK_NAME)) else { return false };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
    }

    /// Lists the files.
    pub(super) fn list(&self) -> Result<Listing, JournalError> {
        let cannot_read = |error| JournalError::io("read the journal", &self.path, &error);
        let mut listing = Listing::default();
        for entry in fs::read_dir(&self.path).map_err(cannot_read)? {
            let Ok(name) = entry.map_err(cannot_read)?.file_name().into_string() else { continue };
            if name.ends_with(NEW_SUFFIX) {
                listing.leftovers.push(name);
            } else if name.contains(SAVED_SUFFIX) {
                insert_sorted(&mut listing.saved, name);
            } else if let Some(position) = position_of(&name, SEGMENT_PREFIX) {
                insert_sorted(&mut listing.segments, position);
            } else if let Some(position) = position_of(&name, SNAPSHOT_PREFIX) {
                insert_sorted(&mut listing.snapshots, position);
            }
        }
        Ok(listing)
    }

    /// Gives a file that root has created to the owner of the directory, who is to use it.
    fn adopt(&self, file: &File) -> io::Result<()> {
        if geteuid().is_root() {
            let about = fs::metadata(&self.path)?;
            if about.uid() != file.metadata()?.uid() {
                std::os::unix::fs::fchown(file, Some(about.uid()), Some(about.gid()))?;
            }
        }
        Ok(())
    }

    /// Opens a file for reading.
    pub(super) fn open_file(&self, name: &str) -> Result<File, JournalError> {
        let path = self.path.join(name);
        File::open(&path).map_err(|error| JournalError::io("read", &path, &error))
    }
}

/// Returns whether a journal has a file of this name.
#[must_use]
pub fn is_journal_file(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name == LOCK_NAME || name.starts_with(SEGMENT_PREFIX) || name.starts_with(SNAPSHOT_PREFIX)
}

/// Inserts an item into a short list that is sorted.
fn insert_sorted<T: Ord>(items: &mut Vec<T>, item: T) {
    let index = items.partition_point(|other| *other < item);
    items.insert(index, item);
}

/// Position in a name that begins with `prefix`.
fn position_of(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

impl Storage for Directory {
    fn create(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(FILE_MODE);
        let file = options.open(self.path.join(name))?;
        self.adopt(&file)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_journal_have_a_position() {
        assert_eq!(position_of(&segment_name(7), SEGMENT_PREFIX), Some(7));
        assert_eq!(position_of(&snapshot_name(u64::MAX), SNAPSHOT_PREFIX), Some(u64::MAX));
        let others = [
            "segment-7",
            "segment-+0000000000000000007",
            "segment-99999999999999999999",
            "segment-00000000000000000007.damaged-1",
            "snapshot-00000000000000000007",
        ];
        for name in others {
            assert_eq!(position_of(name, SEGMENT_PREFIX), None, "{name}");
        }
    }
}

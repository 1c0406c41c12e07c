//! The files of a journal: their names, and the storage that has them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::journal_error::JournalError;
use super::storage::{Storage, StoredFile};

pub(super) const SEGMENT_PREFIX: &str = "segment-";
pub(super) const SNAPSHOT_PREFIX: &str = "snapshot-";
/// End of the name of a file that is not complete.
const NEW_SUFFIX: &str = ".new";
/// End of the name of a damaged file that a repair has saved, without a number.
const SAVED_SUFFIX: &str = ".damaged-";

/// The files of a journal.
#[derive(Clone)]
pub(super) struct Files {
    /// The directory, for messages.
    path: PathBuf,
    storage: Arc<dyn Storage>,
}

/// Names of the files of a journal.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Positions in the names of the segments, rising.
    pub(super) segments: Vec<u64>,
    /// Positions in the names of the snapshots, rising.
    pub(super) snapshots: Vec<u64>,
    /// Names of incomplete files, which a crash has left.
    pub(super) leftovers: Vec<String>,
    /// Names of files that a repair has saved.
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

impl Files {
    pub(super) fn new(path: PathBuf, storage: Arc<dyn Storage>) -> Self {
        Self { path, storage }
    }

    /// Path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Lists the files.
    pub(super) fn list(&self) -> Result<Listing, JournalError> {
        let names = self.storage.names();
        let names =
            names.map_err(|error| JournalError::io("read the journal", &self.path, &error))?;
        let mut listing = Listing::default();
        for name in names {
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

    /// Opens a file for reading.
    pub(super) fn read(&self, name: &str) -> io::Result<Box<dyn Read>> {
        self.storage.read(name)
    }

    /// Opens a file that exists for writing.
    pub(super) fn open(&self, name: &str) -> Result<Box<dyn StoredFile>, JournalError> {
        let opened = self.storage.open(name);
        opened.map_err(|error| JournalError::io("open", &self.path.join(name), &error))
    }
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

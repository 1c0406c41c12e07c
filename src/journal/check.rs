//! Checks a journal as a start would, without a change.

use std::path::Path;

use super::boot_id::boot_id;
use super::directory::Directory;
use super::journal_error::JournalError;
use super::recovery::{Item, read_journal};

/// State of a journal that could be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// A start would create it.
    New,
    /// It was read.
    Read {
        /// Records after the newest snapshot.
        records: u64,
    },
    /// Another process uses it.
    InUse,
}

/// Checks that the journal in `directory` could be used, and passes its contents to `sink`, as
/// [`Opened::recover`](super::Opened::recover) does. Creates no file, and takes the lock only for
/// the moment of a question.
///
/// # Errors
///
/// [`JournalError`] as for a start. A journal in use is an error unless `may_be_in_use`.
pub fn check(
    directory: &Path,
    may_be_in_use: bool,
    sink: &mut dyn FnMut(Item) -> Result<(), String>,
) -> Result<Checked, JournalError> {
    let directory = Directory::new(directory.to_owned());
    if !directory.check()? {
        return Ok(Checked::New);
    }
    if directory.is_locked() {
        return if may_be_in_use { Ok(Checked::InUse) } else { Err(directory.in_use_error()) };
    }
    let files = directory.files();
    match read_journal(&files, boot_id(), sink) {
        Ok(contents) => Ok(Checked::Read { records: contents.records }),
        Err(error) => Err(error.into_error(files.path())),
    }
}

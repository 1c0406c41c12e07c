//! The error of a journal that cannot be used.

use std::fmt;
use std::io;
use std::path::Path;

/// Reason why a journal cannot be used, and what to do about it, in one line.
#[derive(Debug)]
pub struct JournalError(pub String);

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JournalError {
    /// Error of a system call. `verb` is for instance "read".
    pub(super) fn io(verb: &str, path: &Path, error: &io::Error) -> Self {
        Self(format!("cannot {verb} {}: {error}", path.display()))
    }
}

/// Damage in a file: what no crash leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DamagedFile {
    /// Name of the file.
    pub(super) name: String,
    /// Offset of the first byte that cannot be used.
    pub(super) offset: u64,
    /// Noun phrase.
    pub(super) reason: String,
}

impl DamagedFile {
    pub(super) fn into_error(self, directory: &Path) -> JournalError {
        let path = directory.join(&self.name);
        JournalError(format!(
            "the journal is damaged: {} at offset {}: {}; restore a backup, or run \
             `speak journal {} --repair`, which keeps what is before the damage and saves the rest",
            path.display(),
            self.offset,
            self.reason,
            directory.display()
        ))
    }
}

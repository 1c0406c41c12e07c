//! Describes the files of a journal, for people. Changes nothing.

use std::io::{ErrorKind, Read};
use std::path::Path;

use super::boot_id::boot_id;
use super::directory::Directory;
use super::files::{Files, segment_name, snapshot_name};
use super::journal_error::JournalError;
use super::recovery::read_journal;
use super::snapshot_file::{ReadError, read_snapshot};
use crate::log::{FileHeader, Record, SegmentScan, Tail};

/// Contents of a directory.
#[derive(Debug)]
pub struct Summary {
    /// A process has the lock.
    pub is_in_use: bool,
    /// Snapshots, then segments, each by position.
    pub files: Vec<FileSummary>,
    /// Names of the files that [`repair`](super::repair()) has saved.
    pub saved: Vec<String>,
    /// Position of the last record that a start would find, or its error. `None` if the journal is
    /// in use.
    pub recovery: Option<Result<u64, JournalError>>,
}

/// Contents of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct FileSummary {
    /// Name.
    pub name: String,
    /// Size, with reserved space.
    pub bytes: u64,
    /// Position of the snapshot, or of the segment's first record.
    pub position: u64,
    /// Number of pieces or records.
    pub count: u64,
    /// Unix time of the last record, in milliseconds. `None` without records.
    pub last_unix_ms: Option<u64>,
    /// End of the contents.
    pub state: FileState,
}

/// End of the contents of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum FileState {
    /// All of the file is good.
    Good,
    /// The last record is incomplete.
    Torn {
        /// Offset of the record.
        offset: u64,
        /// Size of its part that is there.
        bytes: u64,
    },
    /// From here on the file cannot be used.
    Damaged {
        /// Offset of the damage.
        offset: u64,
        /// Noun phrase.
        reason: String,
    },
}

/// Describes the journal in `directory`, and passes all records of all segments to `visit`, also
/// those before the newest snapshot. While a server uses the journal, its last record may seem
/// incomplete.
///
/// # Errors
///
/// [`JournalError`] if the files cannot be read.
pub fn inspect(directory: &Path, visit: &mut dyn FnMut(&Record)) -> Result<Summary, JournalError> {
    let directory = Directory::new(directory.to_owned());
    let files = directory.files();
    let listing = files.list()?;
    let is_in_use = directory.is_locked();
    let mut summaries = Vec::new();
    for position in &listing.snapshots {
        summaries.extend(snapshot_summary(&files, *position)?);
    }
    for position in &listing.segments {
        summaries.extend(segment_summary(&files, *position, visit)?);
    }
    let recovery = (!is_in_use).then(|| match read_journal(&files, boot_id(), &mut |_| Ok(())) {
        Ok(contents) => Ok(contents.position),
        Err(error) => Err(error.into_error(files.path())),
    });
    Ok(Summary { is_in_use, files: summaries, saved: listing.saved, recovery })
}

/// Describes a snapshot. `None` if the server has removed it meanwhile.
fn snapshot_summary(files: &Files, position: u64) -> Result<Option<FileSummary>, JournalError> {
    let name = snapshot_name(position);
    let Some((mut file, bytes)) = open(files, &name)? else { return Ok(None) };
    let mut count = 0;
    let state = match read_snapshot(&mut *file, &name, &mut |_| {
        count += 1;
        Ok(())
    }) {
        Ok(_) => FileState::Good,
        Err(ReadError::Damaged(damage)) => {
            FileState::Damaged { offset: damage.offset, reason: damage.reason }
        }
        Err(error) => return Err(error.into_error(files.path())),
    };
    Ok(Some(FileSummary { name, bytes, position, count, last_unix_ms: None, state }))
}

/// Describes a segment. `None` if the server has removed it meanwhile.
fn segment_summary(
    files: &Files,
    position: u64,
    visit: &mut dyn FnMut(&Record),
) -> Result<Option<FileSummary>, JournalError> {
    let name = segment_name(position);
    let Some((mut file, bytes)) = open(files, &name)? else { return Ok(None) };
    let mut contents = Vec::new();
    file.read_to_end(&mut contents)
        .map_err(|error| JournalError::io("read", &files.path().join(&name), &error))?;
    let mut summary =
        FileSummary { name, bytes, position, count: 0, last_unix_ms: None, state: FileState::Good };
    let header = match FileHeader::parse(&contents) {
        Ok(header) => header,
        Err(error) => {
            summary.state = FileState::Damaged { offset: 0, reason: error.to_string() };
            return Ok(Some(summary));
        }
    };
    let mut scan = SegmentScan::new(header, &contents);
    for record in scan.by_ref() {
        summary.count += 1;
        summary.last_unix_ms = Some(record.unix_ms);
        visit(&record);
    }
    let offset = scan.offset();
    summary.state = match scan.tail() {
        Tail::Clean => FileState::Good,
        Tail::Torn(bytes) => FileState::Torn { offset, bytes },
        Tail::Damaged(damage) => FileState::Damaged { offset, reason: damage.to_string() },
    };
    Ok(Some(summary))
}

/// A file with its size.
type Opened = (Box<dyn Read>, u64);

/// Opens a file. `None` if it does not exist.
fn open(files: &Files, name: &str) -> Result<Option<Opened>, JournalError> {
    let opened = files.read(name).and_then(|file| Ok((file, files.storage().length(name)?)));
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(JournalError::io("read", &files.path().join(name), &error)),
    }
}

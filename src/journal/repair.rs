//! Cuts a journal at its damage, after the damaged files were saved.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::files::{Files, new_name, saved_name, segment_name};
use super::journal_error::{DamagedFile, JournalError};
use super::recovery::{Config, Opened, read_journal};
use super::segment_writer::create_segment;
use super::snapshot_file::{ReadError, read_snapshot, read_up_to};
use super::storage::{Storage, WriteError};
use crate::log::{FILE_HEADER_BYTES, FileHeader, FileKind, SyncMode};

/// A file that a repair has cut or removed.
#[derive(Debug, PartialEq, Eq)]
pub struct Cut {
    /// Name of the file.
    pub name: String,
    /// Size of what was kept. 0 if the file was removed.
    pub kept_bytes: u64,
    /// Name of the file with all that was there.
    pub saved_as: String,
}

/// Cuts the journal in `directory` at its first damage, so that a server can start with it. The
/// files with damage, and all later ones, are saved under other names. The next start begins a new
/// epoch, also without damage if the journal `is_restored` from a backup: clients may have seen
/// messages that it lacks. Returns what was cut: nothing if there is no damage.
///
/// # Errors
///
/// [`JournalError`], also if a process uses the journal.
pub fn repair(directory: &Path, is_restored: bool) -> Result<Vec<Cut>, JournalError> {
    let path = directory.display();
    if !directory.is_dir() {
        return Err(JournalError(format!("{path} is no directory: give that of --journal")));
    }
    let opened = Opened::open(Config::new(directory.to_owned(), SyncMode::Always))?;
    let unix_ms = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_millis() as u64);
    opened.repair(unix_ms, is_restored)
}

impl Opened {
    /// Repairs the journal as [`repair()`] does. `unix_ms` is the present time.
    ///
    /// # Errors
    ///
    /// [`JournalError`].
    pub fn repair(self, unix_ms: u64, is_restored: bool) -> Result<Vec<Cut>, JournalError> {
        let files = self.files.clone();
        let path = files.path();
        let mut repair = Repair { files: &files, unix_ms, cuts: Vec::new(), is_damaged: false };
        // Each round cuts one file, or adds the one that is missing.
        loop {
            match read_journal(&files, self.boot_id, &mut |_| Ok(())) {
                Ok(_) if !repair.is_damaged && !is_restored => return Ok(repair.cuts),
                Ok(contents) => {
                    let mut recovered = contents.recovered(self);
                    recovered.needs_new_epoch = true;
                    return match recovered.prepare(&**files.storage())? {
                        (_, Some(_)) => Ok(repair.cuts),
                        (_, None) => Err(JournalError(format!(
                            "the disk of {} is full: free 16 MiB, and run the command again",
                            path.display()
                        ))),
                    };
                }
                Err(ReadError::Damaged(damage)) => {
                    repair.is_damaged = true;
                    repair.cut_at(&damage).map_err(|error| {
                        JournalError::io("repair", &path.join(&damage.name), &error.into_io())
                    })?;
                }
                Err(error) => return Err(error.into_error(path)),
            }
        }
    }
}

struct Repair<'a> {
    files: &'a Files,
    unix_ms: u64,
    cuts: Vec<Cut>,
    is_damaged: bool,
}

impl Repair<'_> {
    fn cut_at(&mut self, damage: &DamagedFile) -> Result<(), WriteError> {
        let listing = self.files.list().map_err(|error| io::Error::other(error.0))?;
        let names: Vec<_> = listing.segments.iter().map(|first| segment_name(*first)).collect();
        if let Some(index) = names.iter().position(|name| *name == damage.name) {
            for later in names[index + 1..].iter().rev() {
                self.set_aside(later)?;
            }
            return Ok(self.cut_segment(damage)?);
        }
        match read_snapshot(&mut *self.files.read(&damage.name)?, &damage.name, &mut |_| Ok(())) {
            // The snapshot is good, and the segment after it is missing.
            Ok(contents) => self.add_segment(&contents.header),
            // A part of a snapshot is no state, and the records after it continue none.
            Err(_) => Ok(self.set_aside(&damage.name)?),
        }
    }

    /// Keeps the records before the damage.
    fn cut_segment(&mut self, damage: &DamagedFile) -> io::Result<()> {
        if damage.offset < FILE_HEADER_BYTES as u64 {
            return self.set_aside(&damage.name);
        }
        let mut kept = Vec::new();
        let mut source = self.files.read(&damage.name)?;
        read_up_to(&mut *source, &mut kept, damage.offset)?;
        let new_name = new_name(&damage.name);
        let mut file = self.files.storage().create(&new_name)?;
        file.write_at(&kept, 0)?;
        file.sync()?;
        self.replace(&damage.name, damage.offset, |storage| storage.rename(&new_name, &damage.name))
    }

    /// Adds an empty segment after a snapshot.
    fn add_segment(&self, snapshot: &FileHeader) -> Result<(), WriteError> {
        let position = snapshot.position + 1;
        let header = FileHeader { kind: FileKind::Segment, position, ..*snapshot };
        create_segment(&**self.files.storage(), &header, 0, &[], true).map(drop)
    }

    /// Saves a file and has it replaced by its good part.
    fn replace(
        &mut self,
        name: &str,
        kept_bytes: u64,
        replace: impl FnOnce(&dyn Storage) -> io::Result<()>,
    ) -> io::Result<()> {
        let saved_as = saved_name(name, self.unix_ms);
        let storage = &**self.files.storage();
        // By a second name, the file is under its own at any moment, even if the machine stops.
        storage.link(name, &saved_as).or_else(|_| storage.rename(name, &saved_as))?;
        replace(storage)?;
        storage.sync_names()?;
        self.cuts.push(Cut { name: name.to_owned(), kept_bytes, saved_as });
        Ok(())
    }

    /// Renames a file of which nothing is kept.
    fn set_aside(&mut self, name: &str) -> io::Result<()> {
        let saved_as = saved_name(name, self.unix_ms);
        self.files.storage().rename(name, &saved_as)?;
        self.files.storage().sync_names()?;
        self.cuts.push(Cut { name: name.to_owned(), kept_bytes: 0, saved_as });
        Ok(())
    }
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;

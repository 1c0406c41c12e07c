//! The state file of `--state`: a snapshot from a stop to the next start.
//!
//! The file exists only while no server runs: an old state that is loaded again would assign ids a
//! second time. So the server removes it as soon as it serves. A file that cannot be used is
//! renamed, for the operator to look at.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use super::format;
use super::load_error::LoadError;
use crate::hub::{Config, Hub, Now};

/// Only the owner may read the file: it contains every secret of the server.
const MODE: u32 = 0o600;

const BUFFER_BYTES: usize = 64 * 1024;

/// The state file, which need not exist.
pub struct StateFile {
    path: PathBuf,
}

/// Result of loading the state file.
pub enum LoadResult {
    /// There is no file.
    Missing,
    /// The hub of the last stop, and its present time.
    Loaded(Box<Hub>, Now),
    /// The file cannot be used: the reason, and the path that it was renamed to.
    Rejected(LoadError, PathBuf),
}

impl StateFile {
    /// Names the file at this path.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Loads the hub of the last stop. `unix_ms` is the present time. The file stays until
    /// [`StateFile::remove`].
    ///
    /// # Errors
    ///
    /// The error of opening, reading or renaming a file that exists.
    pub fn load(&self, config: &Config, unix_ms: u64) -> io::Result<LoadResult> {
        match self.read(config, unix_ms) {
            Ok(None) => Ok(LoadResult::Missing),
            Ok(Some((hub, now))) => Ok(LoadResult::Loaded(Box::new(hub), now)),
            // The disk failed, not the snapshot.
            Err(LoadError::Io(error)) => Err(error),
            Err(error) => {
                let renamed = self.sibling_path(&format!(".refused-{unix_ms}"));
                fs::rename(&self.path, &renamed)?;
                Ok(LoadResult::Rejected(error, renamed))
            }
        }
    }

    /// Reads the hub of the last stop, and changes nothing. `None` if there is no file. `unix_ms`
    /// is the present time.
    ///
    /// # Errors
    ///
    /// [`LoadError`] for a file that cannot be used.
    pub fn read(&self, config: &Config, unix_ms: u64) -> Result<Option<(Hub, Now)>, LoadError> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(LoadError::Io)?,
        };
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        format::read(config, unix_ms, &mut file).map(Some)
    }

    /// Checks that the file could be written, and creates none: the server that has the file may be
    /// writing it.
    ///
    /// # Errors
    ///
    /// The reason why no file can be created in its folder.
    pub fn check_access(&self) -> io::Result<()> {
        let (new, folder) = (self.new_path(), self.folder());
        let change = Access::WRITE_OK | Access::EXEC_OK;
        accessat(CWD, folder, change, AtFlags::EACCESS)?;
        match accessat(CWD, &new, Access::WRITE_OK, AtFlags::EACCESS) {
            Err(Errno::NOENT) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Checks at the start that the file can be written at the stop.
    ///
    /// # Errors
    ///
    /// The error of creating a file in its folder.
    pub fn check_writable(&self) -> io::Result<()> {
        self.create_new()?;
        fs::remove_file(self.new_path())
    }

    /// Removes the file: once the hub serves, it is out of date.
    ///
    /// # Errors
    ///
    /// The error of removing a file that exists.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Writes a hub that serves no more. Atomic: even if the machine crashes, the file is either
    /// complete or as it was before.
    ///
    /// # Errors
    ///
    /// The error of writing. An incomplete file is removed.
    pub fn store(&self, hub: &Hub, now: Now) -> io::Result<()> {
        let stored =
            self.write_new(hub, now).and_then(|()| fs::rename(self.new_path(), &self.path));
        if stored.is_err() {
            // Fails if the file could not be created.
            let _ = fs::remove_file(self.new_path());
        }
        stored?;
        // The new name is on the disk only once its folder is.
        File::open(self.folder())?.sync_all()
    }

    fn folder(&self) -> &Path {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new("."))
    }

    fn write_new(&self, hub: &Hub, now: Now) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, self.create_new()?);
        format::write(hub, now, 0, &mut out)?;
        out.into_inner()?.sync_all()
    }

    fn create_new(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(self.new_path())
    }

    fn new_path(&self) -> PathBuf {
        self.sibling_path(".new")
    }

    fn sibling_path(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(suffix);
        name.into()
    }
}

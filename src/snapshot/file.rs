//! `--state`: a file that holds the hub from a stop to the next start.
//!
//! It is there only while no server runs on it: an old state, read again, would give ids a second time. So it goes as soon as
//! its hub serves, and what cannot be read is set aside for somebody to look at.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::LoadError;
use crate::hub::{Config, Hub, Now};

/// Only its owner may read it: it holds every secret that the server knows.
const MODE: u32 = 0o600;

const BUFFER_BYTES: usize = 64 * 1024;

/// Where a hub is kept.
pub struct StateFile {
    path: PathBuf,
}

/// What was found at the start.
pub enum LoadResult {
    /// No file, so nothing to go on with.
    Missing,
    /// The hub of the last stop, and what time it is there.
    Loaded(Box<Hub>, Now),
    /// Something that is not to be used, and where it was set aside.
    Rejected(LoadError, PathBuf),
}

impl StateFile {
    /// The file at this path, which need not be there.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the last stop left. It is `unix_ms` since 1970 now. The file stays until [`StateFile::forget`].
    ///
    /// # Errors
    ///
    /// Where the file is there and cannot be opened or set aside.
    pub fn load(&self, config: &Config, unix_ms: u64) -> io::Result<LoadResult> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(LoadResult::Missing);
            }
            result => result?,
        };
        match super::read(config, unix_ms, &mut BufReader::with_capacity(BUFFER_BYTES, file)) {
            Ok((hub, now)) => Ok(LoadResult::Loaded(Box::new(hub), now)),
            // Something is wrong with the disk, not with what is on it.
            Err(LoadError::Io(error)) => Err(error),
            Err(fault) => {
                let aside = self.sibling_path(&format!(".refused-{unix_ms}"));
                fs::rename(&self.path, &aside)?;
                Ok(LoadResult::Rejected(fault, aside))
            }
        }
    }

    /// Finds out now, and not at the stop, whether the file can be written.
    ///
    /// # Errors
    ///
    /// What keeps it from being written.
    pub fn check_writable(&self) -> io::Result<()> {
        self.create_new()?;
        fs::remove_file(self.new_path())
    }

    /// The hub serves: what was kept of it is old from now on.
    ///
    /// # Errors
    ///
    /// What keeps the file from being removed, if it is there.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Keeps a hub that serves no more. Either all of it is there afterwards, also when the machine stops in the midst of it, or
    /// what was there before.
    ///
    /// # Errors
    ///
    /// What kept it from being written.
    pub fn store(&self, hub: &Hub, now: Now) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, self.create_new()?);
        super::write(hub, now, 0, &mut out)?;
        out.into_inner()?.sync_all()?;
        fs::rename(self.new_path(), &self.path)?;
        // The name is on the disk only when its folder is.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn create_new(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(self.new_path())
    }

    fn new_path(&self) -> PathBuf {
        self.sibling_path(".new")
    }

    fn sibling_path(&self, ending: &str) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(ending);
        name.into()
    }
}

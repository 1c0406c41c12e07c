//! The directory of a journal: its owner, its lock, and its files by system calls.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Access as SystemAccess, AtFlags, CWD, FlockOperation, accessat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::files::{Files, SEGMENT_PREFIX, SNAPSHOT_PREFIX};
use super::journal_error::JournalError;
use super::storage::{Storage, StoredFile};

/// Only the owner may read the files: they contain every secret of the server.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Interval at which the lock of a process that is about to exit is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(1);

const LOCK_NAME: &str = "lock";

/// Users that have access to the directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Owner,
    /// Others too, but there is nothing in it yet.
    OthersWhileEmpty,
}

/// The directory of a journal.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
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

    /// Creates the directory if it is missing, and checks that others have no access. Takes it away
    /// from them while the directory is empty: then they have seen nothing.
    pub(super) fn prepare(&self) -> Result<(), JournalError> {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(self.creation_error(&error));
            }
            _ => {}
        }
        if self.check_access()? == Access::OthersWhileEmpty {
            fs::set_permissions(&self.path, Permissions::from_mode(DIRECTORY_MODE))
                .map_err(|error| JournalError::io("change the mode of", &self.path, &error))?;
        }
        Ok(())
    }

    fn creation_error(&self, error: &io::Error) -> JournalError {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "; create the directory that is to contain it",
            _ => "; choose another --journal",
        };
        JournalError(format!("cannot create {}: {error}{advice}", self.path.display()))
    }

    /// Checks what [`Directory::prepare`] and [`Directory::lock`] need, without a change. Returns
    /// whether the directory exists.
    pub(super) fn check(&self) -> Result<bool, JournalError> {
        let change = SystemAccess::WRITE_OK | SystemAccess::EXEC_OK;
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                return accessat(CWD, parent, change, AtFlags::EACCESS)
                    .map(|()| false)
                    .map_err(|error| self.creation_error(&error.into()));
            }
            Err(error) => return Err(self.creation_error(&error)),
            Ok(_) => {
                self.check_access()?;
            }
        }
        accessat(CWD, &self.path, change, AtFlags::EACCESS)
            .map(|()| true)
            .map_err(|error| self.lock_error(&error.into()))
    }

    fn lock_error(&self, error: &io::Error) -> JournalError {
        JournalError::io("lock the journal", &self.path.join(LOCK_NAME), error)
    }

    /// Checks that the directory is one, is the user's own, and that others have no access to what
    /// is in it.
    fn check_access(&self) -> Result<Access, JournalError> {
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
        let is_open = about.mode() & 0o077 != 0;
        // A directory that cannot be listed is not known to be empty.
        let is_empty = || fs::read_dir(&self.path).is_ok_and(|mut it| it.next().is_none());
        match is_open {
            false => Ok(Access::Owner),
            true if is_empty() => Ok(Access::OthersWhileEmpty),
            true => Err(JournalError(format!(
                "others have access to the journal {path}, which holds secrets: run \
                 `chmod 700 {path}`"
            ))),
        }
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
            .map_err(|error| self.lock_error(&error))?;
        let deadline = Instant::now() + wait_max;
        let result = loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(LOCK_INTERVAL),
                result => break result,
            }
        };
        match result {
            Ok(()) => Ok(file.into()),
            Err(Errno::WOULDBLOCK) => Err(self.in_use_error()),
            Err(error) => Err(self.lock_error(&error.into())),
        }
    }

    /// Error for a journal whose lock another process has.
    pub(super) fn in_use_error(&self) -> JournalError {
        JournalError(format!(
            "the journal {} is in use by another process: stop that process, or choose another \
             --journal",
            self.path.display()
        ))
    }

    /// Returns whether a process has the lock.
    pub(super) fn is_locked(&self) -> bool {
        let Ok(file) = File::open(self.path.join(LOCK_NAME)) else { return false };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
    }

    /// Returns the files in it.
    pub(super) fn files(&self) -> Files {
        Files::new(self.path.clone(), Arc::new(self.clone()))
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
}

/// Returns whether a journal has a file of this name.
#[must_use]
pub fn is_journal_file(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name == LOCK_NAME || name.starts_with(SEGMENT_PREFIX) || name.starts_with(SNAPSHOT_PREFIX)
}

impl Storage for Directory {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is no text is none of the journal.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path.join(name))?.len())
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(self.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(self.path.join(name))?))
    }

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

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.path.join(from), self.path.join(to))
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

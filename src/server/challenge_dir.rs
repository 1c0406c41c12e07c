//! The directory of `--acme-challenges`: files that answer challenges of ACME, read at each
//! request.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, fstat, open, openat};
use rustix::io::Errno;

use super::start_error::StartError;
use crate::api::ChallengeFiles;

/// Bytes of a file at most. A response has 87 with a token of Let's Encrypt: the token, a dot, and
/// a SHA-256 in base64url (RFC 8555, section 8.1).
const FILE_BYTES_MAX: usize = 1024;

/// Time between two warnings. Any client can ask for a file that cannot be read.
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

/// Directory of `--acme-challenges`.
pub(super) struct ChallengeDir {
    path: PathBuf,
    /// Time of the last warning.
    warned_at: Cell<Option<Instant>>,
}

impl ChallengeDir {
    /// Checks that the directory can be used. Call with the privileges that the process keeps: what
    /// works then works later, and in a successor.
    ///
    /// # Errors
    ///
    /// [`StartError`] if there is no such directory, or the user cannot enter it.
    pub(super) fn new(path: PathBuf) -> Result<Self, StartError> {
        let this = Self { path, warned_at: Cell::new(None) };
        match this.open() {
            Ok(_) => Ok(this),
            Err(error) => Err(StartError(format!(
                "cannot use the directory of --acme-challenges {}: {error}; create it, and let \
                 the user of the server enter it (chmod 755)",
                this.path.display()
            ))),
        }
    }

    /// Opens the directory, at each request: a hook may have replaced it.
    fn open(&self) -> io::Result<OwnedFd> {
        // For the last dot, the kernel checks that the user may enter the directory.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(open(self.path.join("."), flags, Mode::empty())?)
    }

    /// Reads a regular file of at most [`FILE_BYTES_MAX`] bytes. `None` if there is no such file.
    ///
    /// `name` has no slash, so only the file itself could be a link, which is not followed. The
    /// open of a FIFO does not wait.
    fn read_file(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(self.open()?, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            result => result?,
        };
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut content = Vec::with_capacity(FILE_BYTES_MAX + 1);
        File::from(file).take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut content)?;
        if content.len() > FILE_BYTES_MAX {
            return Err(io::Error::other("it is larger than 1 KiB"));
        }
        Ok(Some(content))
    }

    /// Logs why a file is not served, at most once a minute.
    fn warn(&self, error: &io::Error) {
        let now = Instant::now();
        let is_due = |at: Instant| now.duration_since(at) >= WARNING_INTERVAL;
        if self.warned_at.get().is_none_or(is_due) {
            self.warned_at.set(Some(now));
            let path = self.path.display();
            log::warn!(
                "cannot serve an ACME challenge dir={path}: {error}; the user of the server has to \
                 be able to enter the directory and to read the file; restart after replacing the \
                 directory"
            );
        }
    }
}

impl ChallengeFiles for ChallengeDir {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.read_file(name).unwrap_or_else(|error| {
            self.warn(&error);
            None
        })
    }
}

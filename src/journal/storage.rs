//! The system calls by which the files of a journal are read and written, as traits: tests let
//! them fail, and simulations have a disk of their own.

use std::fs::File;
use std::io::{self, Read};

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, pwrite, retry_on_intr};

/// A directory with files.
pub trait Storage: Send + Sync {
    /// Returns the names of all files, in any order.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Returns the size of a file.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn length(&self, name: &str) -> io::Result<u64>;

    /// Opens a file for reading, from its begin.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn read(&self, name: &str) -> io::Result<Box<dyn Read>>;

    /// Opens a file that exists for writing.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn open(&self, name: &str) -> io::Result<Box<dyn StoredFile>>;

    /// Creates an empty file for writing. Empties one that exists.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn create(&self, name: &str) -> io::Result<Box<dyn StoredFile>>;

    /// Renames a file. Replaces one that exists.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives a file a second name.
    ///
    /// # Errors
    ///
    /// Those of the disk, which may not have second names.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. A file that does not exist is no error.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Waits until all names are on the disk.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file that is written.
pub trait StoredFile: Send {
    /// Writes all bytes at an offset.
    ///
    /// # Errors
    ///
    /// Those of the disk. A part of the bytes may be written.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Waits until all that was written is on the disk.
    ///
    /// # Errors
    ///
    /// Those of the disk. A later call may succeed without the bytes of this one.
    fn sync(&mut self) -> io::Result<()>;

    /// Makes the file this long at least, with zeros, and reserves the space for it if the file
    /// system can.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn reserve(&mut self, length: u64) -> io::Result<()>;

    /// Cuts the file to this length.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl StoredFile for File {
    /// Calls the kernel directly. In `pwrite` of libc a thread may be cancelled, and each call of a
    /// process with several threads pays for that.
    fn write_at(&mut self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = retry_on_intr(|| pwrite(&*self, bytes, offset))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
            offset += written as u64;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn reserve(&mut self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&*self, FallocateFlags::empty(), 0, length) {
            // The file grows with its records.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// Reason why something was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// There is no space at the moment, or no free descriptor. Nothing of it was written.
    Full(io::Error),
    /// Any other error. Whether it was written is unknown.
    Failed(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::MFILE | Errno::NFILE) => {
                Self::Full(error)
            }
            _ => Self::Failed(error),
        }
    }
}

impl WriteError {
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Full(error) | Self::Failed(error) => error,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::super::directory::Directory;
    use super::*;

    /// A directory of a test, which is removed at its end.
    pub struct TestDirectory(PathBuf);

    impl TestDirectory {
        pub fn new() -> Self {
            static COUNT: AtomicU64 = AtomicU64::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("speak-journal-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("a directory of its own");
            Self(path)
        }

        /// Path of the journal, which is not there at first.
        pub fn journal(&self) -> PathBuf {
            self.0.join("journal")
        }
    }

    impl Drop for TestDirectory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("the directory is there");
        }
    }

    /// A disk of which one system call fails: the one with this number.
    pub struct FaultyDisk {
        pub directory: Directory,
        pub fault: Arc<Fault>,
    }

    pub struct Fault {
        /// System calls before the one that fails.
        calls_left: AtomicUsize,
        errno: Mutex<Option<Errno>>,
    }

    impl Fault {
        pub fn new(calls: usize, errno: Errno) -> Arc<Self> {
            Arc::new(Self { calls_left: calls.into(), errno: Mutex::new(Some(errno)) })
        }

        /// Returns whether the system call has failed.
        pub fn has_happened(&self) -> bool {
            self.errno.lock().unwrap().is_none()
        }

        fn call(&self) -> io::Result<()> {
            if self.calls_left.load(Ordering::Relaxed) > 0 {
                self.calls_left.fetch_sub(1, Ordering::Relaxed);
                return Ok(());
            }
            self.errno.lock().unwrap().take().map_or(Ok(()), |errno| Err(errno.into()))
        }
    }

    impl Storage for FaultyDisk {
        fn names(&self) -> io::Result<Vec<String>> {
            self.directory.names()
        }

        fn length(&self, name: &str) -> io::Result<u64> {
            self.directory.length(name)
        }

        fn read(&self, name: &str) -> io::Result<Box<dyn Read>> {
            self.directory.read(name)
        }

        fn open(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
            self.fault.call()?;
            let file = self.directory.open(name)?;
            Ok(Box::new(FaultyFile { file, fault: Arc::clone(&self.fault) }))
        }

        fn link(&self, from: &str, to: &str) -> io::Result<()> {
            self.fault.call()?;
            self.directory.link(from, to)
        }

        fn create(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
            self.fault.call()?;
            let file = self.directory.create(name)?;
            Ok(Box::new(FaultyFile { file, fault: Arc::clone(&self.fault) }))
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.fault.call()?;
            self.directory.rename(from, to)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.fault.call()?;
            self.directory.remove(name)
        }

        fn sync_names(&self) -> io::Result<()> {
            self.fault.call()
        }
    }

    struct FaultyFile {
        file: Box<dyn StoredFile>,
        fault: Arc<Fault>,
    }

    impl StoredFile for FaultyFile {
        fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
            if let Err(error) = self.fault.call() {
                self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
                return Err(error);
            }
            self.file.write_at(bytes, offset)
        }

        fn sync(&mut self) -> io::Result<()> {
            self.fault.call()
        }

        fn reserve(&mut self, length: u64) -> io::Result<()> {
            self.fault.call()?;
            self.file.reserve(length)
        }

        fn cut(&mut self, length: u64) -> io::Result<()> {
            self.fault.call()?;
            self.file.cut(length)
        }
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::MFILE, Errno::NFILE] {
            assert!(matches!(WriteError::from(io::Error::from(errno)), WriteError::Full(_)));
        }
        for errno in [Errno::IO, Errno::ROFS, Errno::ACCESS, Errno::STALE] {
            assert!(matches!(WriteError::from(io::Error::from(errno)), WriteError::Failed(_)));
        }
    }
}

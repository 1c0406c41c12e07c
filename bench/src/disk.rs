//! The rate at which the disk of a directory takes records: the measure of a journal on it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FallocateFlags};

use crate::result::Result;

/// Size of a segment of the journal, which is reserved before its first record.
const FILE_BYTES: u64 = 16 << 20;
/// Size of the record of one write.
const RECORD_BYTES: usize = 200;

/// A file that is written as a segment of the journal is: one record after the other into reserved
/// space, each with its own flush.
pub(crate) struct Probe {
    file: File,
    end: u64,
}

impl Probe {
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let path = directory.join("probe");
        let file = File::create(&path)?;
        // The open file stays.
        std::fs::remove_file(&path)?;
        let mut probe = Self { file, end: 0 };
        probe.reserve()?;
        Ok(probe)
    }

    fn reserve(&mut self) -> Result<()> {
        self.file.set_len(0)?;
        rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, FILE_BYTES)?;
        self.file.sync_all()?;
        self.end = 0;
        Ok(())
    }

    /// Returns flushes per second, measured for this time.
    pub(crate) fn rate(&mut self, time: Duration) -> Result<f64> {
        if self.end > FILE_BYTES / 2 {
            self.reserve()?;
        }
        let record = [b'r'; RECORD_BYTES];
        let start = Instant::now();
        let mut count = 0_u32;
        while start.elapsed() < time && self.end + RECORD_BYTES as u64 <= FILE_BYTES {
            self.file.write_all_at(&record, self.end)?;
            self.file.sync_data()?;
            self.end += RECORD_BYTES as u64;
            count += 1;
        }
        Ok(f64::from(count) / start.elapsed().as_secs_f64())
    }
}

/// Drops the pages of all files in a directory, as far as the kernel does it: the next reader gets
/// them from the disk.
pub(crate) fn evict(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

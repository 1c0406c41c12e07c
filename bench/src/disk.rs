//! The page cache.

use std::fs::File;
use std::path::Path;

use rustix::fs::Advice;

use crate::result::Result;

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

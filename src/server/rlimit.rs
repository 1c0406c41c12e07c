//! Open files, the one resource that the kernel counts for us.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::service::FILES_RESERVED;

/// Raises the soft limit on open files to the hard one, and tells how many clients that leaves room for.
pub(super) fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Where the kernel refuses, what there is has to do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = open_file_limit();
    files.saturating_sub(FILES_RESERVED).max(files / 2)
}

/// How many files may be open at once.
pub(super) fn open_file_limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize)
}

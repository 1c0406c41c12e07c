//! The limit on open files: the one resource that the kernel counts for the server.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::event_source::CLIENTS_MAX;
use crate::service::FILES_RESERVED;

/// If the file limit allows fewer clients than this and `--max-clients` is unset, a warning is
/// logged at startup.
const LOW_CLIENT_LIMIT: usize = 500;

/// Number of clients that the limit on open files allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileLimit {
    clients: usize,
}

/// Raises the soft limit on open files to the hard limit.
pub(super) fn raise_file_limit() -> FileLimit {
    let limit = getrlimit(Resource::Nofile);
    // If the kernel refuses, the soft limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = open_file_limit();
    let clients = files.saturating_sub(FILES_RESERVED).max(files / 2);
    FileLimit { clients: clients.min(CLIENTS_MAX) }
}

impl FileLimit {
    /// Returns the limit on clients: `wanted` (0 for as many as possible), or less if the file
    /// limit is lower. Logs a warning in that case.
    pub(super) fn max_clients(self, wanted: usize) -> usize {
        let needed = if wanted == 0 { LOW_CLIENT_LIMIT } else { wanted };
        if self.clients < needed {
            log::warn!(
                "limit on open files is low limit={} max_clients={}: \
                 raise it with `ulimit -n 20000`, or LimitNOFILE= in the unit",
                open_file_limit(),
                self.clients
            );
        }
        if wanted == 0 { self.clients } else { wanted.min(self.clients) }
    }
}

/// Soft limit on open files of this process.
pub(super) fn open_file_limit() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

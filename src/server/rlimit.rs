//! The limit on open files: the one resource that the kernel counts for the server.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::event_source::CLIENTS_MAX;
use crate::service::{ADMIN_CLIENTS_MAX, AcceptLimits};

/// If the file limit allows fewer clients than this and `--max-clients` is unset, a warning is
/// logged at startup.
const LOW_CLIENT_LIMIT: usize = 500;

/// File descriptors that are not for clients of the public listeners. Generous: running out of
/// descriptors is worse than serving a few clients fewer.
const FILES_RESERVED: usize = 128;

/// File descriptors of the process itself, besides the listeners: standard streams, epoll, signals,
/// timer, reserve. An upgrade and a stop need some more.
const OWN_FILES: usize = 16;

/// The limit on open files.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileLimit {
    files: usize,
}

/// Raises the soft limit on open files to the hard limit.
pub(super) fn raise_file_limit() -> FileLimit {
    let limit = getrlimit(Resource::Nofile);
    // If the kernel refuses, the soft limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    FileLimit { files: open_file_limit() }
}

impl FileLimit {
    /// Returns the limits for clients. There are `wanted` clients (0 for as many as possible), or
    /// less if the file limit is lower. Logs a warning in that case.
    ///
    /// Descriptors are kept for the process, for its `listeners` and for clients of the admin
    /// listener. Rejected clients get what is left.
    pub(super) fn accept_limits(self, wanted: usize, listeners: usize) -> AcceptLimits {
        let Self { files } = self;
        let kept = OWN_FILES + listeners + ADMIN_CLIENTS_MAX.min(files / 8);
        let clients = files.saturating_sub(FILES_RESERVED).max(files / 2);
        let clients = clients.min(files.saturating_sub(kept)).clamp(1, CLIENTS_MAX);
        let needed = if wanted == 0 { LOW_CLIENT_LIMIT } else { wanted };
        if clients < needed {
            log::warn!(
                "limit on open files is low limit={files} max_clients={clients}: \
                 raise it with `ulimit -n 20000`, or LimitNOFILE= in the unit"
            );
        }
        let clients = if wanted == 0 { clients } else { wanted.min(clients) };
        AcceptLimits::new(clients, files.saturating_sub(clients + kept))
    }
}

/// Soft limit on open files of this process.
pub(super) fn open_file_limit() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

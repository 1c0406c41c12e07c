//! Sockets that are open already when the process starts: systemd listens for it, by the protocol of `sd_listen_fds(3)`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use crate::service::ListenerKind;

/// The descriptor of the first of them; the others follow it.
pub const LISTEN_FDS_START: RawFd = 3;

/// How the environment tells of them, to one process alone.
pub(super) const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// More than anybody would pass, and few enough to be tried one after the other.
const LISTEN_FDS_MAX: usize = 64;

/// A socket that somebody opened for this process.
#[derive(Debug)]
pub struct ActivatedSocket {
    /// What `FileDescriptorName=` calls it: `admin` is the operator's door, everything else a public one.
    pub name: String,
    /// It listens.
    pub file: OwnedFd,
}

impl ActivatedSocket {
    pub(super) fn audience(&self) -> ListenerKind {
        if self.name == "admin" { ListenerKind::Admin } else { ListenerKind::Public }
    }
}

/// The names of the sockets that were passed to the process `pid`, in the order of their descriptors. None were if the
/// environment speaks of another process, or of nothing that is understood.
#[must_use]
pub fn activated_names(pid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Vec<String> {
    let [of, count, names] =
        VARIABLES.map(|name| variable(name).and_then(|value| value.into_string().ok()));
    if of.and_then(|it| it.parse().ok()) != Some(pid) {
        return Vec::new();
    }
    let count = count.and_then(|it| it.parse().ok()).unwrap_or(0).min(LISTEN_FDS_MAX);
    let names = names.unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    (0..count).map(|_| names.next().unwrap_or_default()).collect()
}

/// What is wrong with a socket that was passed and is none that clients can come to.
pub(super) fn not_a_listener() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "it does not listen for streams (Accept=no and ListenStream= make one)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_taken_only_by_the_process_that_they_are_for() {
        let names = |of: &str, count: &str, names: &str| {
            let variables = [("LISTEN_PID", of), ("LISTEN_FDS", count), ("LISTEN_FDNAMES", names)];
            activated_names(7, |asked| {
                let (_, value) = variables.iter().find(|(name, _)| *name == asked)?;
                (!value.is_empty()).then(|| OsString::from(value))
            })
        };
        assert_eq!(names("7", "2", "speak:admin"), ["speak", "admin"]);
        assert_eq!(names("7", "3", "speak"), ["speak", "", ""]);
        assert_eq!(names("7", "1", ""), [""]);
        for (of, count) in
            [("8", "1"), ("", "1"), ("x", "1"), ("7", ""), ("7", "-1"), ("7", "0"), ("7", "many")]
        {
            assert_eq!(names(of, count, "speak"), [""; 0], "{of:?} {count:?}");
        }
        assert_eq!(names("7", "4000000000", "").len(), LISTEN_FDS_MAX);
    }
}

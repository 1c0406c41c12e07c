//! Socket activation: systemd opens the listeners and passes them, by the protocol of
//! `sd_listen_fds(3)`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use crate::service::ListenerKind;

/// Descriptor of the first activated socket. The others follow.
pub const LISTEN_FDS_START: RawFd = 3;

/// Variables that describe the sockets, for one process only.
pub(super) const ACTIVATION_ENV: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Activated sockets at most; further ones are ignored. Few enough to try each descriptor.
const LISTEN_FDS_MAX: usize = 64;

/// Socket that was opened for this process.
#[derive(Debug)]
pub struct ActivatedSocket {
    /// `FileDescriptorName=` of the socket: `admin` for an admin listener, `tls` for a public
    /// listener that speaks TLS, else a public listener.
    pub name: String,
    /// Descriptor of the socket.
    pub fd: OwnedFd,
}

impl ActivatedSocket {
    pub(super) fn kind(&self) -> ListenerKind {
        if self.name == "admin" { ListenerKind::Admin } else { ListenerKind::Public }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.name == "tls"
    }
}

/// Returns the names of the sockets that were passed to the process `pid`, in the order of their
/// descriptors. Empty if the variables are for another process, or malformed.
#[must_use]
pub fn activated_names(pid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Vec<String> {
    let [listen_pid, count, names] =
        ACTIVATION_ENV.map(|name| variable(name).and_then(|value| value.into_string().ok()));
    if listen_pid.and_then(|it| it.parse().ok()) != Some(pid) {
        return Vec::new();
    }
    let count = count.and_then(|it| it.parse().ok()).unwrap_or(0).min(LISTEN_FDS_MAX);
    let names = names.unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    (0..count).map(|_| names.next().unwrap_or_default()).collect()
}

/// Error for an activated socket that does not listen for stream connections.
pub(super) fn not_a_listener() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "it does not listen for streams; set ListenStream= and Accept=no in the socket unit",
    )
}

/// Error for an activated Unix socket whose name asks for TLS.
pub(super) fn unix_with_tls() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "FileDescriptorName=tls is for TCP; set another name for a Unix socket",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activated_sockets_are_used_only_by_the_process_that_they_are_for() {
        let names = |pid: &str, count: &str, names: &str| {
            let variables = [("LISTEN_PID", pid), ("LISTEN_FDS", count), ("LISTEN_FDNAMES", names)];
            activated_names(7, |variable| {
                let (_, value) = variables.iter().find(|(name, _)| *name == variable)?;
                (!value.is_empty()).then(|| OsString::from(value))
            })
        };
        assert_eq!(names("7", "2", "speak:admin"), ["speak", "admin"]);
        assert_eq!(names("7", "3", "speak"), ["speak", "", ""]);
        assert_eq!(names("7", "1", ""), [""]);
        for (pid, count) in
            [("8", "1"), ("", "1"), ("x", "1"), ("7", ""), ("7", "-1"), ("7", "0"), ("7", "many")]
        {
            assert_eq!(names(pid, count, "speak"), [""; 0], "{pid:?} {count:?}");
        }
        assert_eq!(names("7", "4000000000", "").len(), LISTEN_FDS_MAX);
    }
}

//! Notifications to systemd, by the protocol of `sd_notify(3)`.
//!
//! The main process sends all of them, so that `NotifyAccess=main` suffices: in an upgrade the old
//! process reports the new one. Without `NOTIFY_SOCKET` nothing is sent and nothing is computed.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use rustix::net::{SendFlags, send};
use rustix::time::{ClockId, clock_gettime};

use crate::hub::Millis;

/// Variable with the process that the watchdog is for. Without it, each process with this
/// environment is meant.
pub(super) const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// Time for which a notification may block the server. It is dropped after that.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Connection to systemd, or to another service manager that speaks its protocol.
pub(super) struct Systemd {
    /// `None` if this process was not started by one.
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
}

/// `WatchdogSec=`: the loop has to send a ping from time to time.
struct Watchdog {
    interval_ms: u64,
    next_ping: Millis,
}

/// Notification of the state of the service.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notification<'a> {
    /// The server is ready, with a status line.
    Ready(&'a str),
    /// An upgrade has started.
    Reloading,
    /// The process with this ID has taken over and is the main process.
    MainPid(u32),
    /// The server shuts down.
    Stopping,
}

/// Writes the assignments of the protocol, one a line.
impl fmt::Display for Notification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(status) => write!(f, "READY=1\nSTATUS={status}"),
            Self::Reloading => {
                // With `Type=notify-reload` systemd tells two reloads apart by the time.
                let now = clock_gettime(ClockId::Monotonic);
                let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
                write!(f, "RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=upgrade in progress")
            }
            Self::MainPid(id) => {
                write!(f, "MAINPID={id}\nREADY=1\nSTATUS=took over from process {}", process::id())
            }
            Self::Stopping => f.write_str("STOPPING=1\nSTATUS=stopping"),
        }
    }
}

impl Systemd {
    /// Connects to the socket that the environment names.
    pub(super) fn from_env(now: Millis) -> Self {
        let named = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = named.and_then(|name| {
            // Connected once: the sandbox may bar the path later, but not the connected socket.
            connect(&name)
                .inspect_err(|error| log::warn!("cannot reach NOTIFY_SOCKET: {error}"))
                .ok()
        });
        let watchdog = socket.as_ref().and_then(|_| {
            let number = |name: &str| env::var(name).ok()?.parse().ok();
            let is_for_us =
                number(WATCHDOG_PID).is_none_or(|pid: u64| pid == u64::from(process::id()));
            let limit_usec: u64 = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && is_for_us)?;
            // Half of the limit, as sd_watchdog_enabled(3) recommends.
            let interval_ms = (limit_usec / 2_000).max(1);
            Some(Watchdog { interval_ms, next_ping: now.after(interval_ms) })
        });
        Self { socket, watchdog }
    }

    /// Sends a notification.
    pub(super) fn notify(&self, notification: Notification<'_>) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(notification.to_string().as_bytes())
        {
            log::warn!("sd_notify failed: {error}");
        }
    }

    /// Time of the next watchdog ping.
    pub(super) fn next_ping(&self) -> Option<Millis> {
        self.watchdog.as_ref().map(|it| it.next_ping)
    }

    /// Sends a watchdog ping if one is due. Never blocks.
    pub(super) fn ping(&mut self, now: Millis) {
        if let (Some(socket), Some(watchdog)) = (&self.socket, &mut self.watchdog)
            && now >= watchdog.next_ping
        {
            watchdog.next_ping = now.after(watchdog.interval_ms);
            if let Err(error) =
                send(socket, b"WATCHDOG=1", SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            {
                log::warn!("watchdog ping failed: {error}");
            }
        }
    }
}

/// Connects to a file, or to an abstract name (`@name`).
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(socket)
}

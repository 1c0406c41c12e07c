//! What is said to systemd, or to whoever else started this process and told it where to say it: `sd_notify(3)`.
//!
//! All of it is said by the process that is the main one at the time, so that `NotifyAccess=main` suffices: when another
//! takes over, it is the old one that says so. Without `NOTIFY_SOCKET` nothing is said, and nothing is done for it.

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

/// For which process the watchdog is, if not for all that have its environment.
pub(super) const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// A supervisor that does not take a word for so long is not waited for.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Who wants to know how this process is.
pub(super) struct Supervisor {
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
}

/// It wants to hear now and then that the loop still turns.
struct Watchdog {
    interval_ms: u64,
    next_ping: Millis,
}

/// What can be said.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notification<'a> {
    /// It serves; with a line on how that came about.
    Ready(&'a str),
    /// Another process is to take over.
    Reloading,
    /// That process serves from now on, and is the one to watch.
    MainPid(u32),
    Stopping,
}

/// As the protocol spells it.
impl fmt::Display for Notification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(status) => write!(f, "READY=1\nSTATUS={status}"),
            Self::Reloading => {
                // By this a reload is told from one before it (`Type=notify-reload`).
                let now = clock_gettime(ClockId::Monotonic);
                let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
                write!(
                    f,
                    "RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=another process is to take over"
                )
            }
            Self::MainPid(id) => {
                write!(f, "MAINPID={id}\nREADY=1\nSTATUS=took over from process {}", process::id())
            }
            Self::Stopping => f.write_str("STOPPING=1\nSTATUS=stopping"),
        }
    }
}

impl Supervisor {
    /// The one that the environment names. It is `now`.
    pub(super) fn find(now: Millis) -> Self {
        let named = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = named.and_then(|name| {
            // Once: the sandbox may bar the way later, but not from what is connected.
            connect(&name)
                .inspect_err(|error| log::warn!("cannot reach NOTIFY_SOCKET: {error}"))
                .ok()
        });
        let watchdog = socket.as_ref().and_then(|_| {
            let number = |name: &str| env::var(name).ok()?.parse().ok();
            let is_for_us =
                number(WATCHDOG_PID).is_none_or(|pid: u64| pid == u64::from(process::id()));
            let limit_usec: u64 = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && is_for_us)?;
            // Half of it, as the protocol advises.
            let interval_ms = (limit_usec / 2_000).max(1);
            Some(Watchdog { interval_ms, next_ping: now.after(interval_ms) })
        });
        Self { socket, watchdog }
    }

    /// Says it. Costs a system call, if there is somebody to say it to.
    pub(super) fn say(&self, word: Notification<'_>) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(word.to_string().as_bytes())
        {
            log::warn!("the supervisor could not be told: {error}");
        }
    }

    /// When it wants to hear of the loop next.
    pub(super) fn next_ping(&self) -> Option<Millis> {
        self.watchdog.as_ref().map(|it| it.next_ping)
    }

    /// Says that the loop turns, if that is due. It does not wait for anything.
    pub(super) fn ping(&mut self, now: Millis) {
        if let (Some(socket), Some(watchdog)) = (&self.socket, &mut self.watchdog)
            && now >= watchdog.next_ping
        {
            watchdog.next_ping = now.after(watchdog.interval_ms);
            if let Err(error) =
                send(socket, b"WATCHDOG=1", SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            {
                log::warn!("the watchdog could not be told: {error}");
            }
        }
    }
}

/// `@name` has no file.
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

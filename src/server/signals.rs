//! Signals: SIGTERM and SIGINT stop the server, SIGUSR2 upgrades it, SIGHUP means either that its
//! terminal was closed or that it is to read its certificates again.

use std::io::{self, IsTerminal};

use mio::{Interest, Registry};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2, SIGXFSZ};
use signal_hook_mio::v1_0;

use super::event_source::EventSource;

/// Signals of this process, as a file that the poll watches.
pub(super) struct Signals {
    signals: v1_0::Signals,
    /// Standard error was a terminal at the start. A closed terminal no longer tells.
    has_terminal: bool,
}

/// Signals that arrived since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// SIGTERM or SIGINT, or SIGHUP of a terminal that was closed.
    pub(super) stop: bool,
    /// SIGHUP without a terminal.
    pub(super) reload: bool,
    /// SIGUSR2.
    pub(super) upgrade: bool,
}

impl Signals {
    /// Installs the handlers and registers their file with the poll.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub(super) fn new(registry: &Registry) -> io::Result<Self> {
        // SIGXFSZ would end the process if the state file reaches the limit on file sizes
        // (RLIMIT_FSIZE). If it is handled, the write fails.
        let mut signals = v1_0::Signals::new([SIGTERM, SIGINT, SIGUSR2, SIGHUP, SIGXFSZ])?;
        registry.register(&mut signals, EventSource::Signals.token(), Interest::READABLE)?;
        Ok(Self { signals, has_terminal: io::stderr().is_terminal() })
    }

    /// Returns the signals that arrived since the last call.
    pub(super) fn pending(&mut self) -> Pending {
        let mut pending = Pending::default();
        for signal in self.signals.pending() {
            match signal {
                SIGUSR2 => pending.upgrade = true,
                SIGHUP if !self.has_terminal => pending.reload = true,
                SIGXFSZ => {}
                _ => pending.stop = true,
            }
        }
        pending
    }
}

//! Signals: SIGTERM and SIGINT stop the server, SIGUSR2 upgrades it.

use std::io;

use mio::{Interest, Registry};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
use signal_hook_mio::v1_0;

use super::event_source::EventSource;

/// Signals of this process, as a file that the poll watches.
pub(super) struct Signals(v1_0::Signals);

/// Signals that arrived since the last look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// SIGTERM or SIGINT.
    pub(super) stop: bool,
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
        let mut signals = v1_0::Signals::new([SIGTERM, SIGINT, SIGUSR2])?;
        registry.register(&mut signals, EventSource::Signals.token(), Interest::READABLE)?;
        Ok(Self(signals))
    }

    /// Returns the signals that arrived since the last call.
    pub(super) fn pending(&mut self) -> Pending {
        let mut pending = Pending { stop: false, upgrade: false };
        for signal in self.0.pending() {
            if signal == SIGUSR2 { pending.upgrade = true } else { pending.stop = true }
        }
        pending
    }
}

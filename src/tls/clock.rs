//! The time that handshakes and tickets use.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// Unix time in seconds. The server sets it once a turn, so a simulation can set any.
///
/// rustls wants a value that threads can share; here one thread reads and writes it.
#[derive(Debug)]
pub(super) struct Clock(AtomicU64);

impl Clock {
    pub(super) fn new(unix_s: u64) -> Self {
        Self(AtomicU64::new(unix_s))
    }

    pub(super) fn set(&self, unix_s: u64) {
        self.0.store(unix_s, Relaxed);
    }

    pub(super) fn unix_s(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.unix_s())))
    }
}

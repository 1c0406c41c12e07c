//! The result of every step of a run, and the limit on its silence.

use std::time::Duration;

/// An error ends the run and is printed on one line. No caller distinguishes kinds of errors.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A run without an event for this long has failed. Servers under valgrind are slow.
pub(crate) const STALL: Duration = Duration::from_secs(20);

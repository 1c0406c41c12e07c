//! The log.
#[expect(clippy::module_inception, reason = "where a reader looks for the Log")]
mod log;
pub use log::{Log, Outcome};

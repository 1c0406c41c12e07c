//! Snapshot: a hub as bytes, for the state file or for the successor of an upgrade.

mod format;
mod load_error;
mod state_file;

pub use format::{read, write};
pub use load_error::LoadError;
pub use state_file::{LoadResult, StateFile};

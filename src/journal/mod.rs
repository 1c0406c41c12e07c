//! The journal: the log in files of one directory, for `--journal`.
//!
//! [`Opened`] locks the directory and reads it: [`Opened::recover`] passes the newest snapshot and
//! all later records to the caller. [`Recovered::start`] makes the directory ready for new records,
//! and starts the helper thread. [`Journal`] is the [`Log`](crate::log::Log) that the service
//! drives.
//!
//! All files belong to the user of the server, and only that user may read them: they hold every
//! secret. A file gets its name only when its header is on the disk. Names that are not those of
//! segments and snapshots are ignored, except leftovers of a crash, which the next start removes.
//!
//! # What a crash leaves
//!
//! - With [`SyncMode::Always`](crate::log::SyncMode::Always), a record is written when the one
//!   before is on the disk. So at most the last record is incomplete. It was not acknowledged, and
//!   the next start cuts it.
//! - With [`SyncMode::Os`](crate::log::SyncMode::Os), the same after the end of the process. If the
//!   machine stopped, which another boot id tells, any later part may be missing. The next start
//!   cuts the log before the first gap, and the caller begins a new epoch.
//!
//! Every start copies the newest segment to a new file. After a failed `fdatasync`, the kernel may
//! show records that the disk does not have and never will: the copy has them.

mod boot_id;
mod check;
mod directory;
mod files;
mod helper;
mod inspect;
#[expect(clippy::module_inception, reason = "where a reader looks for the Journal")]
mod journal;
mod journal_error;
mod mailbox;
mod recovery;
mod repair;
mod segment_writer;
mod snapshot_file;
mod start;
mod stepped_helper;
mod storage;
mod worker;

pub use boot_id::BOOT_ID_ENV;
pub use check::{Checked, check};
pub use directory::{Directory, is_journal_file};
pub use inspect::{FileState, FileSummary, Summary, inspect};
pub use journal::{Journal, JournalStats};
pub use journal_error::JournalError;
pub use recovery::{Config, Item, Opened, Recovered};
pub use repair::{Cut, repair};
pub use stepped_helper::SteppedHelper;
pub use storage::{Storage, StoredFile};

//! The pure core: channels, sessions and readers.
//!
//! The hub has no sockets, no clock and no randomness: time and secrets are arguments, and
//! [`Hub::deliver`] returns replies. So a simulation can drive the real hub with a seed.
//!
//! A reader is a pending read: a long poll or a stream.
//!
//! # Shared state and local state
//!
//! - *Shared state* is the result of calls: channels with ids, entries and members; sessions with
//!   number, `auth` and channels; the watermarks of ids, the last session number and the epoch.
//!   Only `channels.rs` and `sessions.rs` change it. A snapshot holds it.
//! - *Local state* belongs to this process: readers with their cursors, the times of last use,
//!   timers, the memory accounting, lists of work for the next delivery, statistics. The local
//!   state of one channel or session is in `ChannelLocal` or `SessionLocal`, and reachable through
//!   `local_mut`.
//!
//! Three rules make shared state depend on local state: a session ends when this process has not
//! heard from it, a channel is dropped some time after its last use, which reads move too, and the
//! memory limit evicts history. A snapshot holds the times that these rules need.

mod apply;
mod bans;
mod channel;
mod channel_name;
mod channel_slice;
mod channels;
mod checkpoint;
mod checkpoint_save;
mod clustering;
mod command;
mod config;
mod deliver;
mod error;
mod eviction;
mod holders;
#[cfg(all(test, feature = "cluster"))]
mod hostile_log_tests;
#[expect(clippy::module_inception, reason = "where a reader looks for the Hub")]
mod hub;
mod id_watermarks;
mod ids;
mod introductions;
mod lookup;
mod message;
mod moderation;
mod nodes;
mod paged_slab;
mod proposals;
mod propose;
mod read_request;
mod reader;
mod reader_counts;
mod readers;
mod reads;
mod recovery;
mod removal;
mod reply;
mod session;
mod sessions;
mod shrink;
mod slab;
mod snapshot;
mod snapshot_load;
mod snapshot_save;
mod stats;
mod time;
mod timer_wheel;
mod timers;
mod usage;
mod wake;

pub use bans::{Address, BANS_PER_CHANNEL_MAX};
pub use channel::{Member, Members};
pub use channel_name::{
    BadName, ChannelKey, ChannelName, NotOwner, NotReadable, NotWritable, Pair, PairKind,
};
pub use channel_slice::ChannelSlice;
pub use clustering::Standing;
pub use command::{Applied, Command, Introducing, SharedSettings};
pub use config::Config;
pub use error::Error;
pub use hub::Hub;
pub use ids::{Auth, Epoch, ID_MAX, TOKEN_BYTES, token};
pub use introductions::{IntroductionPage, IntroductionSlice, PageSlice};
pub use message::Reason;
pub(crate) use message::{push_number, push_string};
pub use moderation::{BAN_SECONDS_MAX, Kick};
pub use nodes::{HEARTBEAT_MS, SavedCluster, SavedNodes};
pub use paged_slab::PAGE_BYTES;
#[cfg(feature = "tls")]
pub(crate) use paged_slab::PagedSlab;
pub use proposals::{LogHealth, Proposal, ProposalCursor, Proposals};
pub use read_request::{CHANNELS_PER_READ_MAX, Mode, ReadRequest, ReadResult};
pub use reader::{ReaderKey, Since};
pub use recovery::Recovery;
pub use reply::Reply;
pub use session::{
    CHANNELS_PER_SESSION_MAX, Credentials, Introduced, Introducer, READS_PER_SESSION_MAX,
};
pub use slab::Key;
pub(crate) use slab::Slab;
pub use snapshot::{
    Corrupt, SnapshotChannel, SnapshotEntry, SnapshotHeader, SnapshotLog, SnapshotMember,
    SnapshotRecord, SnapshotSession,
};
pub use snapshot_load::SnapshotLoader;
pub use stats::{DropReason, Gauges, Stats};
pub(crate) use time::whole_ms;
pub use time::{Millis, Now};
pub(crate) use timer_wheel::{TimerId, TimerWheel};
pub(crate) use usage::Counted;
pub use wake::{ResumeBatch, Wake};

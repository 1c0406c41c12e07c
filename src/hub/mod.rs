//! The pure core: channels, connections and waiting reads.
//!
//! No sockets, no clock, no randomness: time, secrets and the wish to send come
//! in as arguments, effects leave through [`Hub::deliver`]. That is what lets a
//! simulation drive the real thing with a seed.

mod channel;
mod channel_name;
mod config;
mod deliver;
mod error;
mod eviction;
#[expect(clippy::module_inception, reason = "hub/hub.rs is where a reader looks for the hub")]
mod hub;
mod id_watermarks;
mod ids;
mod lookup;
mod message;
mod paged_slab;
mod reader;
mod reads;
mod reply;
mod session;
mod slab;
mod snapshot;
mod stats;
mod time;
mod timer_wheel;
mod upkeep;
mod usage;

pub use channel::{ChannelSlice, Member};
pub use channel_name::{
    BadName, CHANNEL_BYTES_MAX, ChannelKey, ChannelName, NotReadable, NotWritable, Pair,
};
pub use config::Config;
pub use deliver::{NO_CHANNEL, ResumeBatch, Wake};
pub use error::Error;
pub use hub::{Gauges, Hub, Introduced, Introducer, Members};
pub use ids::{Auth, Epoch, ID_MAX, TOKEN_BYTES, token};
pub use message::Reason;
pub(crate) use message::{push_number, push_string};
pub use paged_slab::PAGE_BYTES;
pub use reader::{ReaderKey, Since};
pub use reads::{CHANNELS_PER_READ_MAX, Mode, ReadRequest, ReadResult};
pub use reply::Reply;
pub use session::{CHANNELS_PER_CONNECTION_MAX, Credentials, READS_PER_CONNECTION_MAX};
pub use slab::{Key, Slab};
pub use snapshot::{
    Corrupt, SnapshotChannel, SnapshotEntry, SnapshotHeader, SnapshotLoader, SnapshotMember,
    SnapshotRecord, SnapshotSession,
};
pub use stats::{DropReason, Stats};
pub use time::{Millis, Now};
pub use timer_wheel::{TimerId, TimerWheel};

//! The pure core: channels, connections and waiting reads.
//!
//! No sockets, no clock, no randomness: time, secrets and the wish to send come
//! in as arguments, effects leave through [`Hub::deliver`]. That is what lets a
//! simulation drive the real thing with a seed.

mod channel;
mod channel_name;
mod deliver;
mod entry;
mod error;
mod eviction;
#[expect(clippy::module_inception, reason = "hub/hub.rs is where a reader looks for the hub")]
mod hub;
mod id_watermarks;
mod ids;
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

pub use channel::{Member, Part};
pub use channel_name::{BadName, CHANNEL_BYTES_MAX, LogName, Name, NotReadable, NotWritable, Pair};
pub use deliver::{NO_CHANNEL, Resumed, Wake};
pub use error::Refusal;
pub use hub::{Census, Config, Hub, Introduced, Members, Who};
pub use ids::{Auth, Epoch, ID_MAX, TOKEN_BYTES, token};
pub use message::Reason;
pub(crate) use message::{push_number, push_string};
pub use paged_slab::PAGE_BYTES;
pub use reader::{ReaderKey, Since};
pub use reads::{CHANNELS_PER_READ_MAX, Mode, ReadCall, ReadOutcome};
pub use reply::Reply;
pub use session::{CHANNELS_PER_CONNECTION_MAX, Credentials, READS_PER_CONNECTION_MAX};
pub use slab::{Key, Slots};
pub use snapshot::{Damaged, Restoring, Saved, SavedChannel, SavedConnection, SavedEntry, SavedMember, SavedNumbering};
pub use stats::{Dropped, Tally};
pub use time::{Millis, Now};
pub use timer_wheel::{TimerId, TimerWheel};

//! The pure core: channels, connections and waiting reads.
//!
//! No sockets, no clock, no randomness: time, secrets and the wish to send come
//! in as arguments, effects leave through [`Hub::deliver`]. That is what lets a
//! simulation drive the real thing with a seed.

mod channel;
mod connection;
mod deliver;
#[expect(clippy::module_inception, reason = "hub/hub.rs is where a reader looks for the hub")]
mod hub;
mod ids;
mod memory;
mod message;
mod pages;
mod pair;
mod reader;
mod reading;
mod refusal;
mod reply;
mod resting_ids;
mod saved;
mod slots;
mod spot;
mod tally;
mod time;
mod timer_wheel;
mod upkeep;
mod usage;

pub use channel::{Member, Part};
pub use connection::{CHANNELS_PER_CONNECTION_MAX, Credentials, READS_PER_CONNECTION_MAX};
pub use deliver::{NO_CHANNEL, Resumed, Wake};
pub use hub::{Census, Config, Hub, Introduced, Members, Who};
pub use ids::{Auth, Epoch, ID_MAX, TOKEN_BYTES, token};
pub use message::Reason;
pub(crate) use message::{push_number, push_string};
pub use pages::PAGE_BYTES;
pub use pair::{BadName, CHANNEL_BYTES_MAX, LogName, Name, NotReadable, NotWritable, Pair};
pub use reader::{ReaderKey, Since};
pub use reading::{CHANNELS_PER_READ_MAX, Mode, ReadCall, ReadOutcome};
pub use refusal::Refusal;
pub use reply::Reply;
pub use saved::{Damaged, Restoring, Saved, SavedChannel, SavedConnection, SavedEntry, SavedMember, SavedNumbering};
pub use slots::{Key, Slots};
pub use tally::{Dropped, Tally};
pub use time::{Millis, Now};
pub use timer_wheel::{TimerId, TimerWheel};

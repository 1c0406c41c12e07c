//! The log in Redis, which the nodes of a cluster share. Without I/O.

mod cluster_log;
mod connection;
mod entry;
mod keys;
mod stream_id;
mod value;

pub use cluster_log::ClusterLog;
pub use connection::{Connection, Event, Failure, ServerInfo};
pub use keys::Keys;
pub use stream_id::StreamId;
pub use value::{ErrorKind, Value};

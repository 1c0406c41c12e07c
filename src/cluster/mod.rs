//! The log in Redis, which the nodes of a cluster share. Without I/O: the server implements
//! [`Connection`] with the kernel.

mod cluster_log;
mod commanding;
mod connection;
mod driving;
mod entry;
mod following;
mod handshake;
mod keys;
mod log_end;
mod page_size;
mod resp;
mod sentinel;
mod snapshot_entry;
mod snapshot_reader;
mod snapshot_writer;
mod state;
mod stream_id;
mod tail;
mod url;
mod value;
mod vouching;
mod vouching_rounds;

pub use cluster_log::ClusterLog;
pub use connection::{Connection, Event, Failure, ServerInfo};
pub use handshake::Handshake;
pub use keys::Keys;
pub use resp::{Decoder, Limits, RespError, push_command};
pub use sentinel::{primary_in, push_question};
pub use state::ClusterLogState;
pub use stream_id::StreamId;
pub use url::{BadUrl, ClusterUrl, Host, Login, Servers};
pub use value::{ErrorKind, Text, Value};

//! The Redis that nodes share: its URL, its protocol, and what a connection to it does. All without
//! I/O: the server implements [`Connection`] with the kernel.

mod connection;
mod handshake;
mod resp;
mod sentinel;
mod url;
mod value;

pub use connection::{Connection, Event, Failure, ServerInfo};
pub use handshake::Handshake;
pub use resp::{Decoder, Limits, RespError, push_command};
pub use sentinel::{primary_in, push_question};
pub use url::{BadUrl, ClusterUrl, Host, Login, Servers};
pub use value::{ErrorKind, Value};

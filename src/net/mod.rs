//! The shell around the pure parts: the only place with sockets, clocks and signals.

mod alarm;
mod client;
mod clients;
mod clock;
mod conversation;
mod door;
mod exposition;
mod following;
mod limits;
mod log;
mod metrics;
mod outbox;
mod server;
mod turns;

pub use log::start as start_log;
pub use server::{Server, StartError};

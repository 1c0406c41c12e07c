//! The clients of one loop. Events and the time go in, the time of the next turn comes out.
//!
//! Makes no system calls. The server drives it with events of the kernel, a simulation with random
//! events from a seed.

mod acceptor;
mod barriers;
mod behind;
mod budget;
mod client;
mod client_io;
mod client_table;
mod commit;
mod commit_delay;
mod commit_responses;
mod commits;
mod config;
mod event;
mod fair_queue;
mod gauges;
mod http;
mod input;
mod limits;
mod listener;
mod long_poll;
mod membership;
mod output;
mod phase;
mod reload;
mod run_queue;
#[expect(clippy::module_inception, reason = "where a reader looks for the Service")]
mod service;
mod shared_record;
mod shutdown;
mod socket;
mod stream;
mod stream_state;
mod transfer;
mod waited;
mod write_queue;

pub use acceptor::ACCEPTS_A_TURN;
pub use commit::{command_position, record_position};
pub(crate) use config::hub_config;
pub use event::Event;
pub use gauges::Gauges;
pub(crate) use limits::ADMIN_CLIENTS_MAX;
pub use limits::{
    AcceptLimits, LINGER_MS, READ_BYTES, RESPONSE_BYTES_PER_TURN, SHUTDOWN_TIMEOUT_MS,
};
pub use listener::{Listener, ListenerKind};
pub use service::{InitialHub, NextWake, Service};
pub use socket::Socket;
pub use transfer::Transfer;

//! The shell around the pure parts: the only place with sockets, clocks and signals.

mod activation;
mod advice;
mod alarm;
mod budget;
mod client;
mod clients;
mod clock;
mod conversation;
mod door;
mod ebb;
mod exposition;
mod following;
mod handover;
mod lanes;
mod limits;
mod log;
mod metrics;
mod newcomers;
mod origin;
mod outbox;
mod process;
mod server;
mod service;
mod serving;
mod socket;
mod supervisor;
mod turns;
mod wire;

pub use activation::{FIRST_PASSED, Passed, names_of_passed};
pub use conversation::Event;
pub use log::start as start_log;
pub use newcomers::{ACCEPTS_A_TURN, Audience, Listener, OPERATORS_MAX, REFUSED_MAX};
pub use server::{Server, StartError};
pub use service::{Census, STOP_MS, Service, Wait};
pub use serving::{ANSWERS_BYTES_A_TURN, LINGER_MS, READ_BYTES};
pub use socket::Socket;

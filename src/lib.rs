//! Speak: a message and chat server for the web in one small binary.
//!
//! Four layers; each imports only what stands below it, and `hub` and `http` do not know each other:
//!
//! - [`server`]: every system call of the server: sockets, clocks, signals
//! - [`service`]: the clients of one loop, without system calls
//! - [`api`]: what the calls mean
//! - [`http`]: bytes to values and back; [`hub`]: channels, connections, waiting reads, both without I/O
//!
//! Beside them [`cli`], commands that talk to a server, [`options`], what the operator decides, [`sandbox`], what the process gives up before it serves, [`snapshot`], a
//! hub as bytes, and [`web`], the files that the binary carries.
//! ARCHITECTURE.md tells the whole story.

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod http;
pub mod hub;
mod metrics;
pub mod options;
pub mod sandbox;
pub mod server;
pub mod service;
pub mod snapshot;
pub mod web;

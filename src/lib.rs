//! Speak: a message and chat server for the web in one small binary.
//!
//! Four layers; each imports only what stands below it, and `hub` and `http` do not know each other:
//!
//! - [`net`]: sockets, clocks, signals; one turn of the loop
//! - [`api`]: what the calls mean
//! - [`http`]: bytes to values and back; [`hub`]: channels, connections, waiting reads, both without I/O
//!
//! Beside them [`options`], what the operator decides, [`sandbox`], what the process gives up before it serves, [`state`], a
//! hub as bytes, and [`web`], the files that the binary carries.
//! ARCHITECTURE.md tells the whole story.

#![forbid(unsafe_code)]

pub mod api;
pub mod http;
pub mod hub;
pub mod net;
pub mod options;
pub mod sandbox;
pub mod state;
pub mod web;

//! Speak: a message and chat server for the web in one small binary.
//!
//! Four layers. Each imports only layers below it, and `hub`, `http` and `log` do not import each
//! other:
//!
//! - [`server`]: every system call of the server: sockets, clocks, signals
//! - [`service`]: the clients of one loop, without system calls
//! - [`api`]: the meaning of the calls
//! - [`http`]: bytes to values and back; [`hub`]: channels, sessions and pending reads; [`log`]:
//!   records of what changed the hub, as bytes; all without I/O
//!
//! In addition: [`cli`], the commands for a shell; [`options`], the configuration;
//! [`sandbox`], the privileges that the process drops before it serves; [`snapshot`], a hub as
//! bytes; [`journal`], the log in files; [`cluster`], the connection to the Redis that nodes share;
//! `tls`, sockets that speak TLS;
//! `metrics`, the page for Prometheus; and [`web`], the files that the binary contains.
//!
//! `ARCHITECTURE.md` is the map of the code.

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
#[cfg(feature = "cluster")]
pub mod cluster;
mod clustered;
pub mod http;
pub mod hub;
pub mod journal;
pub mod log;
mod metrics;
pub mod options;
pub mod sandbox;
pub mod server;
pub mod service;
pub mod snapshot;
#[cfg(feature = "tls")]
pub mod tls;
pub mod web;

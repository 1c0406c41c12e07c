//! TLS in memory: the server's sockets against a client of rustls, which has a record layer and a
//! handshake of its own.

mod certificates;
mod client;
mod handshakes;
mod pipe;
mod records;
mod service;

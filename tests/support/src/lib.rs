//! Code that the black-box tests, simulations, fuzzer, stress run and bench share: one parser and
//! one writer for each format of the wire, and one ledger that judges all that was seen.
//!
//! From the bottom: `random`; `http`, `sse` and `ws` are formats, `incoming` cuts a connection into
//! them; `message`, `text`, `reader` and `session` are what `ledger` judges, with `channel` for its
//! memory and `answers` for reads; `process` has servers as child processes, `upgrade_log` what
//! their logs tell of an upgrade, and `redis` real Redis servers. Nothing here depends on the
//! server's code.

pub mod answers;
pub mod channel;
pub mod fault;
pub mod http;
pub mod incoming;
pub mod ledger;
#[cfg(test)]
mod ledger_tests;
pub mod message;
pub mod process;
pub mod random;
pub mod reader;
pub mod redis;
pub mod session;
pub mod sse;
pub mod text;
pub mod upgrade_log;
pub mod ws;

use std::fmt;

/// Bytes that no correct server sends.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl Malformed {
    /// Says what is wrong, and quotes the beginning of `bytes`.
    pub fn new(what: &str, bytes: &[u8]) -> Self {
        Self(format!("{what}: {}", bytes[..bytes.len().min(600)].escape_ascii()))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

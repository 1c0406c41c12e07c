//! What the black-box tests, the simulations, the fuzzer, the stress run and the bench share: one
//! parser and one writer for each format of the wire, and one ledger that judges all that was seen.
//!
//! From the bottom: `random`; `http`, `sse` and `ws` (formats); `incoming` (what a client receives);
//! `message`, `text`, `subscription` (what they contain); `session` and `ledger` (what they must
//! contain); `process` (servers as child processes).
//! Nothing here depends on the server's code.

pub mod http;
pub mod incoming;
pub mod process;
pub mod random;
pub mod sse;
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

//! The harness of the black-box tests: a real server on ports of its own, and clients for it.
//!
//! Nothing here waits by the clock for something to happen: it asks until it has, and gives up
//! after [`GUARD`], so that a broken server fails a test and does not hang it.

#![allow(dead_code, unused_imports, reason = "each file of tests uses its own part of the harness")]

mod client;
mod crowd;
mod events;
mod folder;
mod identity;
mod ports;
mod response;
mod secrets;
mod server;
mod socket;

pub use client::{Client, request, target};
pub use crowd::{Crowd, Member, is_full, raise_file_limit, sized};
pub use events::{Event, EventStream};
pub use folder::Folder;
pub use identity::Identity;
pub use ports::{ClosedPort, free_address};
pub use response::Response;
pub use server::{Finished, Server, command, run};
pub use socket::{CLOSE, Frame, HANDSHAKE, PING, PONG, Socket, TEXT, handshake, masked};

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest wait for anything. It only has to be longer than a loaded machine is slow.
pub const GUARD: Duration = Duration::from_secs(15);

/// Names and values, as they stand before they are percent-encoded.
pub type Params<'a> = [(&'a str, &'a str)];

/// Asks again and again until `done`; panics with `what` after [`GUARD`].
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        // Tens of thousands of clients take a while on a busy machine.
        assert!(
            start.elapsed() < GUARD * if is_full() { 8 } else { 1 },
            "waited in vain until {what}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// Milliseconds since 1970, as a message's `time` counts them.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("a clock after 1970").as_millis()).expect("a sane clock")
}

//! The harness of the black-box tests: a real server on ports of its own, and clients for it.
//!
//! Nothing here waits by the clock for something to happen: it asks until it has, and gives up
//! after [`GUARD`], so that a broken server fails a test and does not hang it.

#![allow(dead_code, unused_imports, reason = "each file of tests uses its own part of the harness")]

mod client;
mod cluster;
mod crowd;
mod events;
mod flood;
mod folder;
mod identity;
mod ports;
mod proxy;
mod response;
mod running;
mod secrets;
mod server;
mod socket;
mod tls;
mod unix;
mod wait;

pub use client::{Client, narrow_stream, stream_from};
pub use cluster::has_nodes;
pub use crowd::{Crowd, Member, raise_file_limit, sized};
pub use events::{Event, EventStream};
pub use flood::{Memory, Over, Turns, Waits};
pub use folder::Folder;
pub use identity::Identity;
pub use ports::{ClosedPort, free_address};
pub use proxy::{CLUSTER_FOLDER, PROXY_FOLDER, ProxyProcess, RECIPES, Recipe};
pub use response::Response;
pub use running::Running;
pub use server::{Finished, Server, command, has_journal, run, run_with};
pub use socket::{Frame, Socket, handshake};
pub use support::http::{Params, request, target};
pub use support::ws::{CLOSE, HANDSHAKE, PING, PONG, TEXT, client_frame as masked};
pub use tls::{ECDSA, Pair, RSA, text, trusting};
pub use unix::{ask_at, get_at};
pub use wait::{GUARD, is_full, now_ms, until, until_within};

//! The meaning of the calls: a request becomes an operation of the hub, and the result a response.
//!
//! Imports `http` and `hub`, which do not import each other. Has no sockets and no clock.

mod admin;
#[expect(clippy::module_inception, reason = "where a reader looks for the Api")]
mod api;
mod behind;
mod calls;
mod client_addr;
mod config;
mod cors;
mod encode;
mod error;
mod file;
mod frame;
mod frame_fields;
mod json;
mod params;
mod payload;
mod phase;
mod plain_http;
mod preconditions;
mod proposed;
mod rate_limit;
mod read;
mod read_params;
mod request_stats;
mod responder;
mod response;
mod route;
mod shared_reply;
mod sse;
mod stream;
mod transport;

pub use api::{Api, Handled};
pub use behind::Behind;
pub use calls::Context;
pub use client_addr::{Cidr, RequestSource, SourceKey, TrustedProxies};
pub use config::Config;
pub use cors::AllowOrigin;
pub use error::Error;
pub use frame::FrameHandled;
pub use payload::{Chunk, Insertion, Payload, SharedBytes};
pub use phase::Phase;
pub use plain_http::{ChallengeFiles, reject_plain_http};
pub use request_stats::RequestStats;
pub use responder::Responder;
pub use response::ReplyFormat;
pub use shared_reply::SharedReply;
pub use transport::{Stream, Transport, UpdateFormat, WebSocket};

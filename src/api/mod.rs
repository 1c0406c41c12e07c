//! What the calls mean: a request goes to the hub, what the hub says becomes an answer.
//!
//! Knows both HTTP and the hub, which do not know each other; has no sockets and no clock.

mod admin;
#[expect(clippy::module_inception, reason = "api/api.rs is where a reader looks for the Api")]
mod api;
mod call;
mod client_addr;
mod cors;
mod error;
mod file;
mod frame;
mod params;
mod phase;
mod rate_limit;
mod request_stats;
mod response;
mod route;
mod stream;
mod transport;

pub use api::{Api, Config, Handled};
pub use client_addr::{Network, RequestSource, SourceKey, TrustedProxies};
pub use cors::AllowOrigin;
pub use error::Error;
pub use phase::Phase;
pub use request_stats::RequestStats;
pub use response::{Payload, ReplyFormat, SharedBytes};
pub use transport::{Stream, Transport};

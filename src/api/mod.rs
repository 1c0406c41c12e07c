//! What the calls mean: a request goes to the hub, what the hub says becomes an answer.
//!
//! Knows both HTTP and the hub, which do not know each other; has no sockets and no clock.

mod admin;
mod answer;
#[expect(clippy::module_inception, reason = "api/api.rs is where a reader looks for the Api")]
mod api;
mod call;
mod caller;
mod error;
mod file;
mod frame;
mod origin;
mod parameters;
mod rate;
mod route;
mod stream;
mod tally;
mod transport;

pub use answer::{Encoded, Payload, Presentation};
pub use api::{Api, Config, Outcome};
pub use caller::{Address, Network, Peer, Proxies};
pub use error::Error;
pub use origin::AllowOrigin;
pub use tally::Requests;
pub use transport::{Stream, Transport};

//! Bytes to values and back: HTTP/1.x, forms, JSONP. No sockets, no meaning.

mod chunked;
mod form;
mod head;
mod jsonp;
mod request;
mod response;

pub use form::{Encoded, NotUtf8, Pairs, pairs};
pub use head::{Method, Persistence};
pub use jsonp::{BadCallback, Callback};
pub use request::{Limits, Parsed, Progress, Reject, Request, blank_prefix, parse, parse_whole};
pub use response::{CONTINUE, ResponseHead};

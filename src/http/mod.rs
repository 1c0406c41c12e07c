//! Bytes to values and back: HTTP/1.x, forms, JSONP, event streams, WebSocket frames. No sockets, no meaning.

mod chunked;
mod event_stream;
mod form;
mod head;
mod jsonp;
mod parse_error;
mod request;
mod response;
mod websocket;

pub use event_stream::{EVENT_STREAM, RETRY, SIGN_OF_LIFE};
pub use form::{Encoded, NotUtf8, Pairs, pairs};
pub use head::{Method, Persistence, names};
pub use jsonp::{BadCallback, Callback};
pub use parse_error::Reject;
pub use request::{Limits, Parsed, Progress, Request, blank_prefix, parse, parse_whole};
pub use response::{CONTINUE, ResponseHead};
pub use websocket::{CloseCode, Frame, Opcode, accept_key, answer_to_close, parse_frame, push_close, push_frame};

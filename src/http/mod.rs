//! Parsers and encoders: HTTP/1.x, forms, JSONP, event streams, WebSocket frames.
//!
//! Has no sockets, and does not know the calls.

mod authority;
mod chunked;
mod event_stream;
mod form;
mod head;
mod jsonp;
mod parse_error;
mod request;
mod response;
mod websocket;

pub use event_stream::EventFraming;
pub(crate) use event_stream::{EVENT_STREAM, RETRY};
pub use form::{FormPairs, FormText, NotUtf8, pairs};
pub(crate) use head::list_contains;
pub use head::{Method, Persistence};
pub(crate) use jsonp::Callback;
pub use parse_error::ParseError;
pub use request::{Limits, Parsed, Progress, Request, leading_blank_lines, parse, parse_complete};
pub(crate) use response::{CONTINUE, ResponseHead};
pub(crate) use websocket::accept_key;
pub(crate) use websocket::push_frame_head;
pub use websocket::{CloseCode, Frame, Opcode, close_reply, parse_frame, push_close, push_frame};

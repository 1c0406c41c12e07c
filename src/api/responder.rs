//! Responder: the response to a call that waits for the log, without its contents.

use super::calls::Call;
use super::response::{ReplyFormat, ResponseOptions};
use crate::http::Persistence;

/// Response to a call that waits for the log, without its contents.
#[derive(Debug)]
pub struct Responder {
    pub(super) call: Call,
    pub(super) form: Form,
    ending: Option<u64>,
}

/// Form of the response.
#[derive(Debug)]
pub(super) enum Form {
    /// A response of HTTP; `None` for the default format.
    Http(Option<Box<ReplyFormat>>),
    /// A frame of a WebSocket. `{"ref":…,`, or nothing.
    Frame(Box<[u8]>),
}

impl Responder {
    /// Makes the responder of a request.
    pub(super) fn of_request(call: Call, options: ResponseOptions<'_>) -> Self {
        Self { call, form: Form::Http(options.to_call_format()), ending: None }
    }

    /// Makes the responder of a frame. `prefix` is the beginning of its JSON with its `ref`.
    pub(super) fn of_frame(call: Call, prefix: &[u8]) -> Self {
        Self { call, form: Form::Frame(prefix.into()), ending: None }
    }

    /// Makes the responder of a call that waits for the end of this session.
    pub(super) fn awaiting_end(self, session: u64) -> Self {
        Self { ending: Some(session), ..self }
    }

    /// Returns the session whose end the call waits for. Such a call has no command.
    #[must_use]
    pub fn ending(&self) -> Option<u64> {
        self.ending
    }

    /// Returns the persistence that the request asked for.
    #[must_use]
    pub fn persistence(&self) -> Persistence {
        match &self.form {
            Form::Http(format) => ResponseOptions::from_reply_format(format.as_deref()).persistence,
            Form::Frame(_) => Persistence::Persistent,
        }
    }

    /// Returns the memory of the responder.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + match &self.form {
                Form::Http(format) => format.as_ref().map_or(0, |format| format.memory()),
                Form::Frame(prefix) => prefix.len(),
            }
    }
}

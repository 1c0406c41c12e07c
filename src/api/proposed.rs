//! Calls that wait for the log: their responses, once their commands are applied.

use super::api::Api;
use super::calls::Call;
use super::error::Error;
use super::json;
use super::response::{ReplyFormat, ResponseOptions};
use crate::http::{Opcode, Persistence, push_frame_head};
use crate::hub::{self, Applied};

/// Response to a call that waits for the log, without its contents.
#[derive(Debug)]
pub struct Responder {
    call: Call,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// A response of HTTP; `None` for the default format.
    Http(Option<Box<ReplyFormat>>),
    /// A frame of a WebSocket. `{"ref":…,`, or nothing.
    Frame(Box<[u8]>),
}

impl Responder {
    /// Makes the responder of a request.
    pub(super) fn of_request(call: Call, options: ResponseOptions<'_>) -> Self {
        Self { call, form: Form::Http(options.to_call_format()) }
    }

    /// Makes the responder of a frame. `prefix` is the beginning of its JSON with its `ref`.
    pub(super) fn of_frame(call: Call, prefix: &[u8]) -> Self {
        Self { call, form: Form::Frame(prefix.into()) }
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

impl Api {
    /// Appends the response to a call whose command was applied, with `result`. Returns the
    /// persistence of the client.
    pub fn respond_applied(
        &mut self,
        responder: &Responder,
        result: Result<Applied, hub::Error>,
        out: &mut Vec<u8>,
    ) -> Persistence {
        self.json.clear();
        match result {
            Ok(Applied::Written(id)) => json::push_id(&mut self.json, id),
            Ok(Applied::Introduced(introduced)) => {
                json::push_introduced(
                    &mut self.json,
                    &introduced,
                    self.settings.session_timeout_ms,
                );
            }
            Ok(Applied::Gone | Applied::Nothing) => {
                self.json.extend_from_slice(b"{\"ok\":true}");
            }
            Err(error) => return self.respond_refused(responder, error.into(), out),
        }
        self.record(responder.call.into(), 200);
        match &responder.form {
            Form::Frame(prefix) => {
                self.push_prefixed(prefix, out);
                Persistence::Persistent
            }
            Form::Http(format) => {
                let options = ResponseOptions::from_reply_format(format.as_deref());
                self.writer.push_json(out, options, &self.json, 0);
                self.writer.persistence(options.persistence)
            }
        }
    }

    /// Appends an error in response to a call that waited for the log. Returns the persistence of
    /// the client.
    pub fn respond_refused(
        &mut self,
        responder: &Responder,
        error: Error,
        out: &mut Vec<u8>,
    ) -> Persistence {
        self.json.clear();
        json::push_error(&mut self.json, error);
        self.record_error(responder.call.into(), error);
        match &responder.form {
            Form::Frame(prefix) => {
                self.push_prefixed(prefix, out);
                Persistence::Persistent
            }
            Form::Http(format) => {
                let options = ResponseOptions::from_reply_format(format.as_deref());
                self.writer.push_error(out, options, error, &self.json);
                self.writer.persistence(options.persistence)
            }
        }
    }

    /// Appends a frame with `self.json`, whose first key is that of the prefix.
    pub(super) fn push_prefixed(&mut self, prefix: &[u8], out: &mut Vec<u8>) {
        let inserted = self.insertions.json_bytes();
        if prefix.is_empty() {
            push_frame_head(out, Opcode::Text, self.json.len() + inserted);
            self.insertions.place_json(out.len());
            return out.extend_from_slice(&self.json);
        }
        self.private_buf.clear();
        self.private_buf.extend_from_slice(prefix);
        self.private_buf.extend_from_slice(&self.json[1..]);
        push_frame_head(out, Opcode::Text, self.private_buf.len() + inserted);
        // The prefix replaces the first byte of the JSON.
        self.insertions.place_json(out.len() + prefix.len() - 1);
        out.extend_from_slice(&self.private_buf);
    }
}

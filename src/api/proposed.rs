//! Calls that wait for the log: their responses, once their commands are applied.

use super::api::Api;
use super::error::Error;
use super::json;
use super::responder::{Form, Responder};
use super::response::ResponseOptions;
use crate::http::{Opcode, Persistence, push_frame_head};
use crate::hub::{self, Applied};

impl Api {
    /// Appends the response to a call whose command was applied, with `result`. Returns the
    /// persistence of the client.
    pub fn respond_applied(
        &mut self,
        responder: &Responder,
        result: Result<Applied, hub::Error>,
        out: &mut Vec<u8>,
    ) -> Persistence {
        let applied = match result {
            Ok(applied) => applied,
            Err(error) => return self.respond_refused(responder, error.into(), out),
        };
        self.json.clear();
        match applied {
            Applied::Written(id) => json::push_id(&mut self.json, id),
            Applied::Introduced(introduced) => {
                let timeout_ms = self.settings.session_timeout_ms;
                json::push_introduced(&mut self.json, &introduced, timeout_ms);
            }
            Applied::Gone | Applied::Mismatch(_) | Applied::Nothing => {
                self.json.extend_from_slice(b"{\"ok\":true}");
            }
        }
        self.record(responder.call.into(), 200);
        self.push_response(responder, None, out)
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
        self.push_response(responder, Some(error), out)
    }

    /// Appends a response with `self.json`, which is that of `error` if there is one.
    fn push_response(
        &mut self,
        responder: &Responder,
        error: Option<Error>,
        out: &mut Vec<u8>,
    ) -> Persistence {
        let format = match &responder.form {
            Form::Frame(prefix) => {
                self.push_prefixed(prefix, out);
                return Persistence::Persistent;
            }
            Form::Http(format) => format.as_deref(),
        };
        let options = ResponseOptions::from_reply_format(format);
        match error {
            None => self.writer.push_json(out, options, &self.json, 0),
            Some(error) => self.writer.push_error(out, options, error, &self.json),
        }
        self.writer.persistence(options.persistence)
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

//! Calls in the frames of a WebSocket: JSON in place of a query, the same meaning.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::Api;
use super::error::Error;
use super::json;
use super::params::{Param, Parameters};
use super::request_stats::RequestKind;
use super::route::Call;
use super::stream::names_of;
use super::transport::Stream;
use crate::http::{Opcode, push_frame};
use crate::hub::{Hub, Mode, Now, ReadRequest, ReaderKey};

/// A frame's room for what is not the message: names of 32 channels, numbers, keys.
const FRAME_OVERHEAD_BYTES: usize = 32 * 1024;

/// A character of a message may be written as an escape of so many bytes.
const ESCAPE_FACTOR: usize = 6;

const NOT_AN_OBJECT: Error = Error::BadRequest("a frame is a JSON object with a 'call'");

impl Api {
    /// No frame that is a call is larger, in bytes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        ESCAPE_FACTOR * self.config.max_message + FRAME_OVERHEAD_BYTES
    }

    /// Does what a frame asks, and appends the frame that answers it. `reader` is that of the WebSocket itself, which a
    /// `read` has follow other channels under a new key.
    pub fn handle_frame(
        &mut self,
        hub: &mut Hub,
        now: Now,
        text: &str,
        client: u64,
        (reader, stream): (&mut ReaderKey, &mut Stream),
        out: &mut Vec<u8>,
    ) {
        let frame = serde_json::from_str(text).ok();
        let reference = frame.as_ref().and_then(|frame: &Map<_, _>| frame.get("ref"));
        let is_reference = reference.is_none_or(|it| it.is_string() || it.is_number());
        let reference = reference.filter(|_| is_reference);
        self.json.clear();
        let call =
            frame.as_ref().ok_or(NOT_AN_OBJECT).and_then(|frame| Ok((call_of(frame)?, frame)));
        let result = match call {
            _ if !is_reference => Err(Error::BadParameter("'ref' is a number or a string")),
            Ok(call) => self.do_frame(hub, now, call, client, (reader, stream)),
            Err(error) => Err(error),
        };
        let subject = call.map_or(RequestKind::None, |(call, _)| call.into());
        match result {
            Ok(()) => self.record(subject, 200),
            Err(error) => self.record_error(subject, error),
        }
        if let Err(error) = result {
            self.json.clear();
            json::push_error(&mut self.json, error);
        }
        let Some(reference) = reference else { return push_frame(out, Opcode::Text, &self.json) };
        self.private_buf.clear();
        self.private_buf.extend_from_slice(b"{\"ref\":");
        match reference {
            Value::String(text) => crate::hub::push_string(&mut self.private_buf, text),
            number => self.private_buf.extend_from_slice(number.to_string().as_bytes()),
        }
        self.private_buf.push(b',');
        self.private_buf.extend_from_slice(&self.json[1..]);
        push_frame(out, Opcode::Text, &self.private_buf);
    }

    /// The answer is in `self.json`.
    fn do_frame(
        &mut self,
        hub: &mut Hub,
        now: Now,
        (call, frame): (Call, &Map<String, Value>),
        token: u64,
        (reader, stream): (&mut ReaderKey, &mut Stream),
    ) -> Result<(), Error> {
        let parameters = Parameters::of_frame(call, frame)?;
        self.count(now, call, stream.address)?;
        if call != Call::Read {
            return self.execute(hub, now, call, &parameters);
        }
        let reading = parameters.parse_read(0)?;
        let (targets, epoch, credentials) =
            (reading.follows.as_slice(), reading.epoch, reading.credentials);
        let call = ReadRequest { targets, epoch, credentials, mode: Mode::Stream, token };
        let (new_reader, reply) = hub.resubscribe(now, *reader, &call)?;
        *reader = new_reader;
        stream.channel_labels = names_of(&parameters);
        json::push_reply(&mut self.json, &reply, stream.channel_labels(), self.epoch);
        Ok(())
    }
}

/// Which call a frame makes.
fn call_of(frame: &Map<String, Value>) -> Result<Call, Error> {
    let name = frame.get("call").and_then(Value::as_str).ok_or(NOT_AN_OBJECT)?;
    Call::of_frame(name).ok_or(Error::BadParameter(
        "'call' is one of write, read, introduce, goodbye, members, create",
    ))
}

impl<'a> Parameters<'a> {
    /// The parameters of a call in a frame; keys that the call does not know are ignored.
    fn of_frame(call: Call, frame: &'a Map<String, Value>) -> Result<Self, Error> {
        let mut parameters = Self::default();
        for (name, value) in frame {
            let Some(known) = Param::of(call, name) else { continue };
            match (known, value) {
                // Neither has a meaning where the answer is a frame, and the wait is for ever.
                (Param::Callback | Param::Timeout, _) => {}
                (Param::Channel | Param::FromId, Value::Array(values)) if call == Call::Read => {
                    values.iter().try_for_each(|value| {
                        parameters.set(call, known, text_of(known, value)?)
                    })?;
                }
                (_, value) => parameters.set(call, known, text_of(known, value)?)?,
            }
        }
        Ok(parameters)
    }
}

/// What a query would say: a text, or an integer where one is wanted.
fn text_of(known: Param, value: &Value) -> Result<Cow<'_, str>, Error> {
    match (known, value) {
        (_, Value::String(text)) => Ok(Cow::Borrowed(text)),
        (Param::FromId | Param::Connection, Value::Number(number)) => {
            Ok(Cow::Owned(number.to_string()))
        }
        (Param::FromId | Param::Connection, _) => {
            Err(Error::BadParameter("'from_id' and 'connection' are integers"))
        }
        _ => Err(Error::BadParameter("'channel', 'message', 'auth' and 'epoch' are strings")),
    }
}

//! Calls in the frames of a WebSocket: JSON instead of a query, with the same meaning.

use std::borrow::Cow;
use std::mem;

use super::api::{Api, KEEP_CAPACITY};
use super::behind::Behind;
use super::calls::{Action, Call, Context, Executed};
use super::client_addr::SourceKey;
use super::error::Error;
use super::frame_fields::{FrameFields, FrameValue};
use super::json;
use super::params::{Param, Parameters};
use super::read_params::ReadParams;
use super::request_stats::RequestKind;
use super::responder::Responder;
use super::transport::WebSocket;
use crate::hub::{Mode, push_string};

/// Bytes of a frame in addition to the message: names of 32 channels, numbers, keys.
const FRAME_OVERHEAD_BYTES: usize = 32 * 1024;

/// Bytes of the longest escape of a byte of a message: `\u` and four digits.
const ESCAPE_FACTOR: usize = 6;

const NOT_AN_OBJECT: Error = Error::BadRequest("a frame must be a JSON object with a 'call'");

const LONE_SURROGATE: Error = Error::BadRequest(
    "a frame has half of a surrogate pair (\\ud800 to \\udfff), which is no character; \
     send whole characters",
);

/// Result of the call in a frame.
#[derive(Debug)]
pub enum FrameHandled {
    /// The frame with the response was appended.
    Responded,
    /// The call waits for the log. [`Api::respond_applied`] makes the response later.
    Proposed(Responder),
    /// The call was not made: it is to be made again once this process is not behind.
    Behind(Behind),
    /// The call was not made: it has to wait for earlier calls of the client, which wait for the
    /// log.
    Held,
}

impl Api {
    /// Returns the size of the largest frame that can be a call, in bytes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        ESCAPE_FACTOR * self.config.max_message + FRAME_OVERHEAD_BYTES
    }

    /// Makes the call in a frame, and appends the frame with the response. A `read` subscribes
    /// `socket` to other channels, under a new key.
    pub fn handle_frame(
        &mut self,
        context: &mut Context<'_>,
        text: &str,
        socket: &mut WebSocket<'_>,
        out: &mut Vec<u8>,
    ) -> FrameHandled {
        let repaired;
        let mut frame = FrameFields::parse(text);
        let mut is_repaired = false;
        if frame.is_none()
            && let Some(text) = replace_lone_surrogates(text)
        {
            // Only for its `ref`: the call is not made.
            repaired = text;
            frame = FrameFields::parse(&repaired);
            is_repaired = frame.is_some();
        }
        let reference = frame.as_ref().and_then(|frame| frame.reference.as_ref());
        let is_reference =
            reference.is_none_or(|it| matches!(it, FrameValue::Text(_) | FrameValue::Number(_)));
        self.json.clear();
        let call =
            frame.as_ref().ok_or(NOT_AN_OBJECT).and_then(|frame| Ok((parse_call(frame)?, frame)));
        if context.is_waiting && !matches!(&call, Ok((call, _)) if call.is_logged()) {
            return FrameHandled::Held;
        }
        let result = match call {
            _ if !is_reference => Err(Error::BadParameter("'ref' must be a number or a string")),
            _ if is_repaired => Err(LONE_SURROGATE),
            Ok((call, frame)) => self.execute_frame(context, call, frame, socket),
            Err(error) => Err(error),
        };
        let kind = call.map_or(RequestKind::None, |(call, _)| call.into());
        let mut prefix = mem::take(&mut self.frame_prefix);
        push_prefix(&mut prefix, reference);
        match result.map_err(|error| context.end_waiting(error)) {
            Ok(Executed::Done) => self.record(kind, 200),
            Ok(Executed::Behind(behind)) => {
                self.frame_prefix = prefix;
                return FrameHandled::Behind(behind);
            }
            Ok(Executed::Proposed) => {
                let Ok((call, _)) = call else { unreachable!("only a call proposes a command") };
                let responder = Responder::of_frame(call, &prefix);
                self.frame_prefix = prefix;
                return FrameHandled::Proposed(responder);
            }
            Err(Error::ConnectionEnding(_)) if context.hub.is_clustered() => {
                self.frame_prefix = prefix;
                return FrameHandled::Behind(Behind::End);
            }
            Err(Error::ConnectionEnding(session)) => {
                let responder = Responder::of_frame(Call::Read, &prefix).awaiting_end(session);
                self.frame_prefix = prefix;
                return FrameHandled::Proposed(responder);
            }
            Err(error) => {
                self.record_error(kind, error);
                self.json.clear();
                json::push_error(&mut self.json, error);
            }
        }
        self.push_prefixed(&prefix, out);
        prefix.shrink_to(KEEP_CAPACITY);
        self.frame_prefix = prefix;
        FrameHandled::Responded
    }

    /// Makes a call. The JSON of its response is in `self.json` then.
    fn execute_frame(
        &mut self,
        context: &mut Context<'_>,
        call: Call,
        frame: &FrameFields<'_>,
        socket: &mut WebSocket<'_>,
    ) -> Result<Executed, Error> {
        let mut parameters = parse_frame_call(call, frame)?;
        context.check_joined(call)?;
        if let Some(behind) = self.find_wait(context, call, &parameters, Mode::Stream) {
            return Ok(Executed::Behind(behind));
        }
        if call.is_rate_limited() && context.waited.is_none() {
            self.check_rate(context.now, socket.stream.address)?;
        }
        if call.needs_address(context.hub) {
            parameters.address = socket.stream.address.and_then(SourceKey::hub_address);
        }
        if let Action::Execute(execute) = call.action() {
            return execute(&self.settings, context, &parameters, &mut self.json);
        }
        let params = ReadParams::parse(&parameters, 0)?;
        let request = params.request(Mode::Stream, context.token);
        let (reader, reply) = context.hub.resubscribe(context.now, *socket.reader, &request)?;
        *socket.reader = reader;
        socket.stream.has_session |= params.credentials.is_some();
        socket.stream.channel_labels = parameters.stream_labels();
        json::push_reply(
            &mut self.json,
            reply.slices(),
            socket.stream.channel_labels().iter().map(|label| &**label),
            self.epoch,
            Some(&mut self.insertions),
        );
        Ok(Executed::Done)
    }
}

/// Sets `prefix` to the beginning of the JSON of a response: `{"ref":…,`, or nothing without a
/// `ref`.
fn push_prefix(prefix: &mut Vec<u8>, reference: Option<&FrameValue<'_>>) {
    prefix.clear();
    match reference {
        Some(FrameValue::Text(text)) => {
            prefix.extend_from_slice(b"{\"ref\":");
            push_string(prefix, text);
        }
        Some(FrameValue::Number(number)) => {
            prefix.extend_from_slice(b"{\"ref\":");
            prefix.extend_from_slice(number.to_string().as_bytes());
        }
        _ => return,
    }
    prefix.push(b',');
}

/// Replaces each escape of a surrogate that has no other half by that of U+FFFD. Returns None if
/// there is no such escape.
#[cold]
fn replace_lone_surrogates(json: &str) -> Option<String> {
    let bytes = json.as_bytes();
    let unit_at = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut repaired, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        at += found;
        at += match (unit_at(at), unit_at(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                repaired.push_str(&json[copied..at]);
                repaired.push_str("\\ufffd");
                copied = at + 6;
                6
            }
            // The escaped character may be a backslash.
            _ => 2,
        };
    }
    if copied == 0 {
        return None;
    }
    repaired.push_str(&json[copied..]);
    Some(repaired)
}

fn parse_call(frame: &FrameFields<'_>) -> Result<Call, Error> {
    let Some(FrameValue::Text(name)) = &frame.call else { return Err(NOT_AN_OBJECT) };
    Call::from_frame(name)
}

/// Collects the parameters of a call. Ignores those that the call does not know.
fn parse_frame_call<'a>(call: Call, frame: &'a FrameFields<'_>) -> Result<Parameters<'a>, Error> {
    let schema = call.schema();
    let mut parameters = Parameters::new(schema);
    for (param, value) in &frame.parameters {
        match (*param, value) {
            (param, _) if !schema.known.contains(param) => {}
            // A frame is no script, and a stream has no timeout.
            (Param::Callback | Param::Timeout, _) => {}
            (param, FrameValue::List(values)) if schema.lists.contains(param) => {
                for value in values {
                    parameters.set(param, frame_text(param, value)?)?;
                }
            }
            (param, value) => parameters.set(param, frame_text(param, value)?)?,
        }
    }
    Ok(parameters)
}

/// Returns a value as the text in a query: that of a string, or of a number for an integer
/// parameter.
fn frame_text<'a>(param: Param, value: &'a FrameValue<'_>) -> Result<Cow<'a, str>, Error> {
    match (param, value) {
        (_, FrameValue::Text(text)) => Ok(Cow::Borrowed(text)),
        (param, FrameValue::Number(number)) if is_integer(param) => {
            Ok(Cow::Owned(number.to_string()))
        }
        (param, _) if is_integer(param) => Err(Error::BadParameter(
            "'from_id', 'from', 'connection', 'grace', 'id' and 'seconds' must be integers",
        )),
        _ => Err(Error::BadParameter(
            "'channel', 'message', 'auth', 'epoch' and 'kind' must be strings",
        )),
    }
}

fn is_integer(param: Param) -> bool {
    matches!(
        param,
        Param::FromId | Param::From | Param::Connection | Param::Grace | Param::Id | Param::Seconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_the_call_does_not_know_are_ignored() {
        let fields = r#""channel": "c", "message": "m", "from_id": true, "timeout": [], "x": {}"#;
        let json = format!(r#"{{"call": "write", {fields}}}"#);
        let frame = FrameFields::parse(&json).unwrap();
        let parameters = parse_frame_call(Call::Write, &frame).unwrap();
        assert_eq!((parameters.channels.len(), parameters.from_ids.len()), (1, 0));
    }

    #[test]
    fn an_error_names_the_type_that_a_parameter_needs() {
        for (field, kind) in [
            ("from_id", "integers"),
            ("connection", "integers"),
            ("grace", "integers"),
            ("id", "integers"),
            ("seconds", "integers"),
            ("kind", "strings"),
            ("channel", "strings"),
            ("auth", "strings"),
        ] {
            let json = format!(r#"{{"call": "read", "{field}": true}}"#);
            let frame = FrameFields::parse(&json).unwrap();
            let calls = [Call::Read, Call::Create, Call::Remove, Call::Kick];
            let errors = calls.map(|call| parse_frame_call(call, &frame).map(drop).err());
            let error = errors.into_iter().flatten().next().unwrap();
            let detail = error.detail();
            assert!(detail.contains(&format!("'{field}'")) && detail.ends_with(kind), "{detail}");
        }
    }

    #[test]
    fn only_lone_surrogates_are_replaced() {
        let cases = [
            (r"", None),
            (r"plain é", None),
            (r"\ud83d\ude00", None),
            (r"\\ud800", None),
            (r"\ud80", None),
            (r"\u+d80", None),
            (r"\", None),
            (r"\é\", None),
            (r"\ud800", Some(r"\ufffd")),
            (r"é\uDFFF!", Some(r"é\ufffd!")),
            (r"\ud800\ud83d\ude00\udc00", Some(r"\ufffd\ud83d\ude00\ufffd")),
            (r"\ude00\ud83d", Some(r"\ufffd\ufffd")),
            (r"\\\ud800\n", Some(r"\\\ufffd\n")),
            (r"\ud800\u0041", Some(r"\ufffd\u0041")),
            (r"\ud800\", Some(r"\ufffd\")),
        ];
        for (json, repaired) in cases {
            assert_eq!(replace_lone_surrogates(json).as_deref(), repaired, "{json}");
        }
    }
}

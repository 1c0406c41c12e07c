//! The JSON of answers, and how it is dressed for the one who asked.

use std::cell::Cell;
use std::mem;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use super::cors::{AllowOrigin, CorsGrant};
use super::error::Error;
use super::params::OneOrMany;
use super::phase::Phase;
use crate::http::{Callback, Persistence, ResponseHead};
use crate::hub::{ChannelSlice, Epoch, Introduced, Members, Pair, Reply, push_number, push_string};

/// What an answer holds, and how long that may be kept.
#[derive(Clone, Copy)]
pub(super) struct BodyType<'a> {
    pub(super) content_type: &'a str,
    pub(super) cache_control: &'a str,
}

impl<'a> BodyType<'a> {
    pub(super) const JSON: BodyType<'static> = BodyType::no_store("application/json");
    const SCRIPT: BodyType<'static> = BodyType::no_store("text/javascript; charset=utf-8");

    /// An answer to a call, which is not to be kept at all.
    pub(super) const fn no_store(content_type: &'a str) -> Self {
        Self { content_type, cache_control: "no-store" }
    }
}

/// How a waiting read is to be answered, where that is not the plain way (JSON about one channel,
/// for everybody, HTTP/1.1). Readers without one share one encoded answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyFormat {
    pub(super) callback: Option<Box<str>>,
    pub(super) cors_grant: CorsGrant,
    pub(super) persistence: Persistence,
    /// The channels as they were asked for, if they were several.
    pub(super) channel_labels: Box<[Box<str>]>,
}

/// An answer for many, who may be slow to take it. Counted while it is held.
#[derive(Debug)]
pub struct SharedBytes {
    bytes: Box<[u8]>,
    total: Rc<Cell<usize>>,
}

impl SharedBytes {
    /// Counts the bytes in `total` until it is dropped.
    #[must_use]
    pub fn new(bytes: &[u8], total: &Rc<Cell<usize>>) -> Rc<Self> {
        total.set(total.get() + bytes.len());
        Rc::new(Self { bytes: bytes.into(), total: Rc::clone(total) })
    }

    /// What to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.bytes.len());
    }
}

/// An encoded answer.
pub enum Payload<'a> {
    /// The same bytes for many.
    Shared(&'a Rc<SharedBytes>),
    /// For one.
    Private(&'a [u8]),
}

impl Payload<'_> {
    /// What to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(encoded) => encoded.bytes(),
            Self::Private(bytes) => bytes,
        }
    }
}

/// What an answer's head depends on, beside its body.
#[derive(Clone, Copy)]
pub(super) struct ResponseOptions<'a> {
    pub(super) callback: Option<Callback<'a>>,
    pub(super) cors_grant: CorsGrant,
    pub(super) persistence: Persistence,
    /// The answer is to a HEAD: it tells how long a body would be, and has none.
    pub(super) is_head: bool,
}

impl ResponseOptions<'static> {
    /// As most clients are answered.
    pub(super) const DEFAULT: Self = Self {
        callback: None,
        cors_grant: CorsGrant::Any,
        persistence: Persistence::Persistent,
        is_head: false,
    };
}

impl<'a> ResponseOptions<'a> {
    pub(super) fn of(presentation: Option<&'a ReplyFormat>) -> Self {
        presentation.map_or(ResponseOptions::DEFAULT, |presentation| Self {
            callback: presentation.callback.as_deref().map(Callback::assume_valid),
            cors_grant: presentation.cors_grant,
            persistence: presentation.persistence,
            is_head: false,
        })
    }

    fn is_plain(&self) -> bool {
        self.callback.is_none()
            && self.cors_grant == CorsGrant::Any
            && self.persistence == Persistence::Persistent
            && !self.is_head
    }

    /// What has to be remembered while a read waits on these channels; nothing where all is plain.
    pub(super) fn to_reply_format(self, channels: &OneOrMany<'_>) -> Option<Box<ReplyFormat>> {
        let is_one = channels.len() == 1;
        if self.is_plain() && is_one {
            return None;
        }
        let channel_labels =
            if is_one { Box::default() } else { channels.iter().map(Box::from).collect() };
        let Self { callback, cors_grant, persistence, .. } = self;
        let callback = callback.map(|callback| callback.as_str().into());
        Some(Box::new(ReplyFormat { callback, cors_grant, persistence, channel_labels }))
    }
}

/// Puts whole answers together.
pub(super) struct ResponseWriter {
    pub(super) allow_origin: AllowOrigin,
    /// The second that `date` names.
    date_of: u64,
    date: String,
    /// The head of a plain answer, as nearly all are, up to its length. It changes but once a second.
    plain_head: Vec<u8>,
    pub(super) phase: Phase,
}

impl ResponseWriter {
    pub(super) fn new(allow_origin: AllowOrigin) -> Self {
        Self {
            allow_origin,
            date_of: u64::MAX,
            date: String::new(),
            plain_head: Vec::new(),
            phase: Phase::default(),
        }
    }

    /// Formats `Date` anew when its second has changed.
    pub(super) fn set_time(&mut self, unix_ms: u64) {
        let second = unix_ms / 1000;
        if second != self.date_of {
            self.date_of = second;
            self.date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            let mut head = mem::take(&mut self.plain_head);
            head.clear();
            self.head(ResponseOptions::DEFAULT, 200, Some(BodyType::JSON), "")
                .push_without_length(&mut head);
            self.plain_head = head;
        }
    }

    /// The value of `Date`.
    pub(super) fn date(&self) -> &str {
        &self.date
    }

    /// Whether the client stays after an answer in this dress.
    pub(super) fn persistence(&self, asked: Persistence) -> Persistence {
        if self.phase == Phase::Stopping { Persistence::Close } else { asked }
    }

    /// Appends an answer with this JSON as its body.
    pub(super) fn push_json(
        &self,
        out: &mut Vec<u8>,
        dress: ResponseOptions<'_>,
        status: u16,
        more: &str,
        json: &[u8],
    ) {
        match dress.callback {
            None if status == 200 && dress.is_plain() && self.phase != Phase::Stopping => {
                debug_assert!(more.is_empty(), "an answer with status 200 needs no further fields");
                out.reserve(self.plain_head.len() + ResponseHead::LENGTH_BYTES_MAX + json.len());
                out.extend_from_slice(&self.plain_head);
                ResponseHead::push_length(out, json.len());
                out.extend_from_slice(json);
            }
            None => self.push(out, dress, status, BodyType::JSON, more, json),
            Some(callback) => {
                // A script tag sees no status but 200.
                let head = self.head(dress, 200, Some(BodyType::SCRIPT), more);
                let name = callback.as_str().as_bytes();
                head.push(out, b"/**/();".len() + name.len() + json.len());
                if !dress.is_head {
                    for part in [b"/**/".as_slice(), name, b"(", json, b");"] {
                        out.extend_from_slice(part);
                    }
                }
            }
        }
    }

    /// Appends an answer; `more` are further fields of its head, whole lines.
    pub(super) fn push(
        &self,
        out: &mut Vec<u8>,
        dress: ResponseOptions<'_>,
        status: u16,
        content: BodyType<'_>,
        more: &str,
        body: &[u8],
    ) {
        self.head(dress, status, Some(content), more).push(out, body.len());
        if !dress.is_head {
            out.extend_from_slice(body);
        }
    }

    pub(super) fn head<'a>(
        &'a self,
        dress: ResponseOptions<'_>,
        status: u16,
        content: Option<BodyType<'a>>,
        extra_fields: &'a str,
    ) -> ResponseHead<'a> {
        ResponseHead {
            status,
            content_type: content.map(|content| content.content_type),
            allow_origin: self.allow_origin.header(dress.cors_grant),
            varies_by_origin: self.allow_origin != AllowOrigin::Any,
            cache_control: content.map_or("no-store", |content| content.cache_control),
            date: &self.date,
            extra_fields,
            persistence: self.persistence(dress.persistence),
        }
    }
}

pub(super) fn push_error(json: &mut Vec<u8>, error: Error) {
    let (name, status) = error.name_and_status();
    json.extend_from_slice(b"{\"error\":\"");
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\",\"detail\":");
    push_string(json, &error.detail());
    push_field(json, "status", u64::from(status));
    json.push(b'}');
}

pub(super) fn push_id(json: &mut Vec<u8>, id: u64) {
    json.extend_from_slice(b"{\"id\":");
    push_number(json, id);
    json.push(b'}');
}

pub(super) fn push_introduced(json: &mut Vec<u8>, introduced: &Introduced, timeout_ms: u64) {
    json.extend_from_slice(b"{\"connection\":");
    push_number(json, introduced.session);
    json.extend_from_slice(b",\"auth\":");
    push_string(json, introduced.auth.reveal());
    push_field(json, "id", introduced.id);
    json.extend_from_slice(b",\"timeout\":");
    push_seconds(json, timeout_ms);
    json.push(b'}');
}

pub(super) fn push_members(json: &mut Vec<u8>, members: &Members<'_>) {
    json.extend_from_slice(b"{\"members\":[");
    for (place, (connection, member)) in members.iter().enumerate() {
        json.extend_from_slice(if place == 0 { b"{\"connection\":" } else { b",{\"connection\":" });
        push_number(json, connection);
        json.extend_from_slice(b",\"message\":");
        json.extend_from_slice(&member.text_json);
        push_field(json, "id", member.id);
        push_field(json, "time", member.unix_ms);
        json.push(b'}');
    }
    json.push(b']');
    push_field(json, "readers", members.readers() as u64);
    json.push(b'}');
}

pub(super) fn push_pair(json: &mut Vec<u8>, pair: &Pair) {
    json.extend_from_slice(b"{\"read\":");
    push_string(json, &pair.read);
    json.extend_from_slice(b",\"write\":");
    push_string(json, &pair.write);
    json.push(b'}');
}

/// The answer of a read; `names` are those of its channels, used where they are several.
pub(super) fn push_reply<'n>(
    json: &mut Vec<u8>,
    reply: &Reply<'_>,
    names: impl Iterator<Item = &'n str>,
    epoch: Epoch,
) {
    match reply {
        Reply::One(part) => {
            json.push(b'{');
            push_part(json, part);
            push_epoch(json, epoch);
            push_gaps(json, part);
        }
        Reply::Many(parts) => {
            json.extend_from_slice(b"{\"channels\":[");
            for (place, (part, name)) in parts.iter().zip(names).enumerate() {
                json.extend_from_slice(if place == 0 {
                    b"{\"channel\":"
                } else {
                    b",{\"channel\":"
                });
                push_string(json, name);
                json.push(b',');
                push_part(json, part);
                push_gaps(json, part);
                json.push(b'}');
            }
            json.push(b']');
            push_epoch(json, epoch);
        }
    }
    json.push(b'}');
}

#[inline]
fn push_part(json: &mut Vec<u8>, part: &ChannelSlice<'_>) {
    json.extend_from_slice(b"\"messages\":[");
    for (place, message) in part.messages().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        json.extend_from_slice(message);
    }
    json.push(b']');
    push_field(json, "next_id", part.next_id());
}

#[inline]
fn push_gaps(json: &mut Vec<u8>, part: &ChannelSlice<'_>) {
    if part.missed {
        json.extend_from_slice(b",\"missed\":true");
    }
    if part.reset {
        json.extend_from_slice(b",\"reset\":true");
    }
}

#[inline]
fn push_epoch(json: &mut Vec<u8>, epoch: Epoch) {
    json.extend_from_slice(b",\"epoch\":\"");
    json.extend_from_slice(epoch.as_bytes());
    json.push(b'"');
}

/// `,"name":number`
#[inline]
fn push_field(json: &mut Vec<u8>, name: &str, number: u64) {
    json.extend_from_slice(b",\"");
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
    push_number(json, number);
}

/// Milliseconds as seconds, with a fraction only where there is one.
fn push_seconds(json: &mut Vec<u8>, ms: u64) {
    push_number(json, ms / 1000);
    if !ms.is_multiple_of(1000) {
        let fraction = format!(".{:03}", ms % 1000);
        json.extend_from_slice(fraction.trim_end_matches('0').as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_a_fraction_only_where_there_is_one() {
        for (ms, text) in [(0, "0"), (200, "0.2"), (5_000, "5"), (1_050, "1.05"), (1_001, "1.001")]
        {
            let mut json = Vec::new();
            push_seconds(&mut json, ms);
            assert_eq!(json, text.as_bytes());
        }
    }

    #[test]
    fn errors_are_json_with_name_detail_and_status() {
        let mut json = Vec::new();
        push_error(&mut json, Error::MissingParameter("/write", "message"));
        let expected =
            r#"{"error":"missing_parameter","detail":"/write needs 'message'","status":400}"#;
        assert_eq!(str::from_utf8(&json), Ok(expected));
    }
}

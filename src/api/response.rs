//! Heads and bodies of responses, and the properties of requests that they depend on.

use std::time::{Duration, UNIX_EPOCH};

use super::cors::{AllowOrigin, CorsGrant};
use super::error::Error;
use super::params::Parameters;
use super::phase::Phase;
use crate::http::{Callback, Persistence, ResponseHead};
use crate::hub::ReaderKey;
use crate::web;

/// Last second that `Date` can express, in seconds since 1970: its year has four digits.
const DATE_SECONDS_MAX: u64 = 253_402_300_799;

/// Type of a body, with its `Cache-Control`.
#[derive(Clone, Copy)]
pub(super) struct BodyType<'a> {
    pub(super) content_type: &'a str,
    pub(super) cache_control: &'a str,
}

impl<'a> BodyType<'a> {
    pub(super) const JSON: BodyType<'static> = BodyType::no_store("application/json");
    const SCRIPT: BodyType<'static> = BodyType::no_store("text/javascript; charset=utf-8");

    /// Makes the type of a body that no cache may keep, as that of every response to a call.
    pub(super) const fn no_store(content_type: &'a str) -> Self {
        Self { content_type, cache_control: "no-store" }
    }
}

/// Format of the response to a long poll, if it is not the default: JSON about one channel,
/// readable by every page, for a persistent client. Readers with the default share one encoded
/// response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyFormat {
    /// Reader of the long poll; `None` for a call that waits for the log. It is kept here, since a
    /// client with the default format has no room for both.
    pub(super) reader: Option<ReaderKey>,
    pub(super) callback: Option<Box<str>>,
    pub(super) cors_grant: CorsGrant<Box<str>>,
    pub(super) persistence: Persistence,
    /// Names of the channels as the request spelled them; empty if there is one channel.
    pub(super) channel_labels: Box<[Box<str>]>,
}

impl ReplyFormat {
    /// Returns the reader of the long poll, `None` for a call that waits for the log.
    #[must_use]
    pub fn reader(&self) -> Option<ReaderKey> {
        self.reader
    }

    /// Returns the memory of the format.
    #[must_use]
    pub fn memory(&self) -> usize {
        let labels = self.channel_labels.iter().map(|label| size_of::<Box<str>>() + label.len());
        size_of::<Self>()
            + self.callback.as_ref().map_or(0, |name| name.len())
            + labels.sum::<usize>()
    }
}

/// Properties of a request that its response depends on.
#[derive(Clone, Copy)]
pub(super) struct ResponseOptions<'a> {
    /// The response is a script that calls this function (JSONP).
    pub(super) callback: Option<Callback<'a>>,
    pub(super) cors_grant: CorsGrant<&'a str>,
    pub(super) persistence: Persistence,
    /// The request is a HEAD: the response gives the length of a body, and has none.
    pub(super) is_head: bool,
}

impl ResponseOptions<'static> {
    /// Options of most requests.
    pub(super) const DEFAULT: Self = Self {
        callback: None,
        cors_grant: CorsGrant::Any,
        persistence: Persistence::Persistent,
        is_head: false,
    };
}

impl<'a> ResponseOptions<'a> {
    pub(super) fn from_reply_format(format: Option<&'a ReplyFormat>) -> Self {
        format.map_or(ResponseOptions::DEFAULT, |format| Self {
            callback: format.callback.as_deref().map(Callback::assume_valid),
            cors_grant: format.cors_grant.convert(|origin| &**origin),
            persistence: format.persistence,
            is_head: false,
        })
    }

    fn is_default(&self) -> bool {
        self.callback.is_none() && self.has_default_head()
    }

    /// Returns whether the head depends on nothing but the callback.
    fn has_default_head(&self) -> bool {
        self.cors_grant == CorsGrant::Any
            && self.persistence == Persistence::Persistent
            && !self.is_head
    }

    /// Returns the format that a long poll with these parameters stores; `None` for the default.
    pub(super) fn to_reply_format(
        self,
        parameters: &Parameters<'_>,
        reader: ReaderKey,
    ) -> Option<Box<ReplyFormat>> {
        if self.is_default() && parameters.channels.len() == 1 {
            return None;
        }
        let Self { callback, cors_grant, persistence, .. } = self;
        Some(Box::new(ReplyFormat {
            reader: Some(reader),
            callback: callback.map(|callback| callback.as_str().into()),
            cors_grant: cors_grant.convert(|origin| Box::from(*origin)),
            persistence,
            channel_labels: parameters.channel_labels(),
        }))
    }

    /// Returns the format that a call stores which waits for the log; `None` for the default.
    pub(super) fn to_call_format(self) -> Option<Box<ReplyFormat>> {
        let Self { callback, cors_grant, persistence, .. } = self;
        (!self.is_default()).then(|| {
            Box::new(ReplyFormat {
                reader: None,
                callback: callback.map(|callback| callback.as_str().into()),
                cors_grant: cors_grant.convert(|origin| Box::from(*origin)),
                persistence,
                channel_labels: Box::default(),
            })
        })
    }

    /// Appends a body, unless the request is a HEAD.
    pub(super) fn push_body(&self, out: &mut Vec<u8>, body: &[u8]) {
        if !self.is_head {
            out.extend_from_slice(body);
        }
    }
}

/// Writes whole responses.
pub(super) struct ResponseWriter {
    pub(super) allow_origin: AllowOrigin,
    /// Second of `date`, since 1970.
    date_second: u64,
    /// Value of `Date`.
    date: String,
    /// Head of a default response up to its `Content-Length`. Changes once a second.
    default_head: Vec<u8>,
    /// The same for a script.
    script_head: Vec<u8>,
    pub(super) phase: Phase,
    /// Files for clients that do not take gzip.
    pub(super) contents: web::Contents,
}

impl ResponseWriter {
    pub(super) fn new(allow_origin: AllowOrigin) -> Self {
        Self {
            allow_origin,
            date_second: u64::MAX,
            date: String::new(),
            default_head: Vec::new(),
            script_head: Vec::new(),
            phase: Phase::default(),
            contents: web::Contents::default(),
        }
    }

    /// Formats `Date` again if its second has changed.
    #[inline]
    pub(super) fn set_time(&mut self, unix_ms: u64) {
        let second = (unix_ms / 1000).min(DATE_SECONDS_MAX);
        if second != self.date_second {
            self.set_second(second);
        }
    }

    #[cold]
    fn set_second(&mut self, second: u64) {
        self.date_second = second;
        self.date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        self.default_head = self.default_head_of(BodyType::JSON);
        self.script_head = self.default_head_of(BodyType::SCRIPT);
    }

    /// Returns a head of the default options up to its `Content-Length`.
    fn default_head_of(&self, body_type: BodyType<'_>) -> Vec<u8> {
        let mut head = Vec::new();
        self.head(ResponseOptions::DEFAULT, 200, Some(body_type), "")
            .push_without_length(&mut head);
        head
    }

    /// Returns the value of `Date`.
    pub(super) fn date(&self) -> &str {
        &self.date
    }

    /// Returns the persistence of a client after a response, from that of its request.
    pub(super) fn persistence(&self, requested: Persistence) -> Persistence {
        if self.phase == Phase::Stopping { Persistence::Close } else { requested }
    }

    /// Appends a response with status 200 and a JSON body, into which the caller inserts
    /// `inserted` bytes.
    #[inline]
    pub(super) fn push_json(
        &self,
        out: &mut Vec<u8>,
        options: ResponseOptions<'_>,
        json: &[u8],
        inserted: usize,
    ) {
        if !options.has_default_head() || self.phase == Phase::Stopping {
            let head = self.json_head(options, 200, "");
            return Self::push_json_as(out, options, &head, json, inserted);
        }
        let Some(callback) = options.callback else {
            out.reserve(self.default_head.len() + ResponseHead::LENGTH_BYTES_MAX + json.len());
            out.extend_from_slice(&self.default_head);
            ResponseHead::push_length(out, json.len() + inserted);
            return out.extend_from_slice(json);
        };
        out.extend_from_slice(&self.script_head);
        ResponseHead::push_length(out, script_bytes(callback, json) + inserted);
        push_script(out, callback, json);
    }

    /// Appends an error. `json` is its body.
    pub(super) fn push_error(
        &self,
        out: &mut Vec<u8>,
        options: ResponseOptions<'_>,
        error: Error,
        json: &[u8],
    ) {
        let (_, status) = error.name_and_status();
        let extra_fields = error.extra_headers();
        let head = self.json_head(options, status, &extra_fields);
        Self::push_json_as(out, options, &head, json, 0);
    }

    fn json_head<'a>(
        &'a self,
        options: ResponseOptions<'a>,
        status: u16,
        extra_fields: &'a str,
    ) -> ResponseHead<'a> {
        match options.callback {
            None => self.head(options, status, Some(BodyType::JSON), extra_fields),
            // A script tag sees no status but 200.
            Some(_) => self.head(options, 200, Some(BodyType::SCRIPT), extra_fields),
        }
    }

    /// Appends a head of [`json_head`](Self::json_head) and its body: JSON, or for JSONP a call of
    /// the callback with it.
    fn push_json_as(
        out: &mut Vec<u8>,
        options: ResponseOptions<'_>,
        head: &ResponseHead<'_>,
        json: &[u8],
        inserted: usize,
    ) {
        let Some(callback) = options.callback else {
            head.push(out, json.len() + inserted);
            return options.push_body(out, json);
        };
        head.push(out, script_bytes(callback, json) + inserted);
        if !options.is_head {
            push_script(out, callback, json);
        }
    }

    /// Returns the head of a response; `extra_fields` are whole lines.
    pub(super) fn head<'a>(
        &'a self,
        options: ResponseOptions<'a>,
        status: u16,
        body_type: Option<BodyType<'a>>,
        extra_fields: &'a str,
    ) -> ResponseHead<'a> {
        let is_private = matches!(options.cors_grant, CorsGrant::Private);
        ResponseHead {
            status,
            content_type: body_type.map(|body_type| body_type.content_type),
            allow_origin: self.allow_origin.header(options.cors_grant),
            varies_by_origin: !is_private && self.allow_origin != AllowOrigin::Any,
            is_embeddable: !is_private,
            cache_control: body_type.map_or("no-store", |body_type| body_type.cache_control),
            date: &self.date,
            extra_fields,
            persistence: self.persistence(options.persistence),
        }
    }
}

/// Returns the bytes of a call of the callback with `json`.
fn script_bytes(callback: Callback<'_>, json: &[u8]) -> usize {
    b"/**/();".len() + callback.as_str().len() + json.len()
}

fn push_script(out: &mut Vec<u8>, callback: Callback<'_>, json: &[u8]) {
    for part in [b"/**/".as_slice(), callback.as_str().as_bytes(), b"(", json, b");"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_too_late_for_a_date() {
        let mut writer = ResponseWriter::new(AllowOrigin::Any);
        for (second, date) in [
            (DATE_SECONDS_MAX - 1, "Fri, 31 Dec 9999 23:59:58 GMT"),
            (DATE_SECONDS_MAX + 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX / 1000, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            writer.set_time(1000 * second);
            assert_eq!(writer.date, date);
        }
    }

    #[test]
    fn the_date_is_that_of_the_turn() {
        let mut writer = ResponseWriter::new(AllowOrigin::Any);
        for (unix_ms, date) in [
            (1_763_802_330_123, "Sat, 22 Nov 2025 09:05:30 GMT"),
            (1_763_802_330_999, "Sat, 22 Nov 2025 09:05:30 GMT"),
            (1_763_802_331_000, "Sat, 22 Nov 2025 09:05:31 GMT"),
        ] {
            writer.set_time(unix_ms);
            assert_eq!(writer.date(), date);
            let mut out = Vec::new();
            writer.push_json(&mut out, ResponseOptions::DEFAULT, b"{}", 0);
            let response = String::from_utf8(out).unwrap();
            assert!(response.contains(&format!("\r\nDate: {date}\r\n")), "{response}");
        }
    }

    #[test]
    fn a_format_weighs_its_texts() {
        let memory = |callback: Option<&str>, labels: &[&str]| {
            let format = ReplyFormat {
                reader: None,
                callback: callback.map(Box::from),
                cors_grant: CorsGrant::Any,
                persistence: Persistence::Persistent,
                channel_labels: labels.iter().map(|label| Box::from(*label)).collect(),
            };
            format.memory()
        };
        let bare = memory(None, &[]);
        assert!(bare >= size_of::<ReplyFormat>());
        assert_eq!(memory(Some("callback"), &[]), bare + 8);
        let label_bytes = 2 * size_of::<Box<str>>() + "one".len() + "another".len();
        assert_eq!(memory(Some("callback"), &["one", "another"]), bare + 8 + label_bytes);
    }
}

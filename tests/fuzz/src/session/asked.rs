//! The parameters of a request, parsed naively.

use std::slice;

use serde_json::{Map, Value};
use speak::http::{Method, Request};
use speak::hub::ChannelName;
use support::reader::Since;

use super::super::form::naive_pairs;

#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Name of the call, without its slash.
    pub(super) call: String,
    pub(super) method: Option<Method>,
    pub(super) is_http_10: bool,
    pub(super) origin: Option<Vec<u8>>,
    pub(super) last_event_id: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn of(request: &Request<'_>, is_http_10: bool) -> Self {
        let mut pairs = naive_pairs(request.query.as_bytes());
        if request.method == Method::Post {
            let is_form = request.content_type.is_some_and(|it| {
                let essence = it.split(|byte| *byte == b';').next().expect("there is a first");
                essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
            });
            if is_form {
                pairs.extend(naive_pairs(request.body));
            } else if request.content_type.is_some() || !request.body.is_empty() {
                pairs.push((b"message".to_vec(), request.body.to_vec()));
            }
        }
        let texts = pairs.into_iter().filter_map(|(name, value)| {
            Some((String::from_utf8(name).ok()?, String::from_utf8(value).ok()?))
        });
        let last_event_id = request.field("last-event-id").next();
        Self {
            call: request.path.trim_start_matches('/').to_owned(),
            method: Some(request.method),
            is_http_10,
            origin: request.origin.map(<[u8]>::to_vec),
            last_event_id: last_event_id.map(|id| String::from_utf8_lossy(id).into_owned()),
            parameters: texts.collect(),
        }
    }

    pub(super) fn of_frame(frame: &Map<String, Value>) -> Self {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let parameters = frame.iter().flat_map(|(name, value)| {
            let values = value.as_array().map_or(slice::from_ref(value), Vec::as_slice);
            values.iter().map(|value| (name.clone(), text(value)))
        });
        Self {
            call: frame.get("call").map(text).unwrap_or_default(),
            parameters: parameters.collect(),
            ..Self::default()
        }
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.parameters
            .iter()
            .filter(move |(its_name, _)| its_name == name)
            .map(|(_, value)| &**value)
    }

    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(super) fn callback(&self) -> Option<&str> {
        self.one("callback").filter(|_| self.method != Some(Method::Post))
    }

    pub(super) fn connection(&self) -> Option<u64> {
        self.one("connection").map(|number| number.parse().unwrap_or(0))
    }

    /// Returns the channels of a read as they were named.
    pub(super) fn channels(&self) -> Vec<String> {
        self.all("channel").map(str::to_owned).collect()
    }

    /// Returns where each channel begins, and the epoch of the ids, if it is given.
    pub(super) fn since(&self, is_event_stream: bool) -> (Vec<Since>, Option<String>) {
        let channels = self.channels().len();
        let last = self.last_event_id.as_deref().and_then(|id| id.split_once(':'));
        if let Some((epoch, cursors)) = last {
            let cursors: Option<Vec<_>> = cursors.split(',').map(since).collect();
            if let Some(cursors) =
                cursors.filter(|it| is_event_stream && it.len() == channels && !epoch.is_empty())
            {
                return (cursors, Some(epoch.to_owned()));
            }
        }
        let mut from_ids = self.all("from_id");
        let since = (0..channels).map(|_| {
            from_ids.next().map_or(Since::Next(0), |id| since(id).expect("it was accepted"))
        });
        (since.collect(), self.one("epoch").map(str::to_owned))
    }

    /// Returns the key of the channel that a call is about.
    pub(super) fn log(&self) -> Option<String> {
        self.one("channel").map(|name| accepted(name).key().as_str().to_owned())
    }
}

fn since(text: &str) -> Option<Since> {
    let number: i64 = text.parse().ok().filter(|number: &i64| number.unsigned_abs() < 1 << 53)?;
    if text.starts_with('+') {
        return None;
    }
    Some(match number {
        0 => Since::All,
        1.. => Since::Id(number.unsigned_abs()),
        _ => Since::Last(number.unsigned_abs()),
    })
}

pub(super) fn accepted(name: &str) -> ChannelName<'_> {
    ChannelName::parse(name).expect("it was accepted")
}

/// Returns the key of the channel that is read under this name.
pub(super) fn log_to_read(name: &str) -> String {
    accepted(name).for_reading().expect("it was accepted").as_str().to_owned()
}

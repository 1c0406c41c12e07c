//! A read as it is asked, and the JSON in its answers.

use support::fault::{Checked, Fault};
use support::incoming::Item;
use support::reader::{Reader, Since, Subscription};
use support::{ensure, http, ws};

/// Way in which a reader gets its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    LongPoll,
    Jsonp,
    Events,
    WebSocket,
}

impl Form {
    pub(crate) const ALL: [Self; 4] = [Self::LongPoll, Self::Jsonp, Self::Events, Self::WebSocket];

    /// Returns the name under which deliveries are counted.
    pub(crate) fn deliveries(self) -> &'static str {
        match self {
            Self::LongPoll => "deliveries by long poll",
            Self::Jsonp => "deliveries by JSONP",
            Self::Events => "deliveries by event stream",
            Self::WebSocket => "deliveries by WebSocket",
        }
    }

    /// Says whether one read is all that a reader asks.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Events | Self::WebSocket)
    }

    pub(crate) fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::LongPoll | Self::Jsonp => &[],
            Self::Events => &[("Accept", "text/event-stream")],
            Self::WebSocket => &ws::HANDSHAKE,
        }
    }

    pub(crate) fn check_head(self, item: &Item) -> Checked {
        let head = item.head()?;
        let is_right = match self {
            Self::LongPoll | Self::Jsonp => false,
            Self::Events => head.begins_events(),
            Self::WebSocket => {
                head.status == 101 && head.field("sec-websocket-accept") == Some(ws::ACCEPT)
            }
        };
        ensure!(is_right, "a stream was answered {head:?}");
        Ok(())
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) number: u64,
    pub(crate) auth: String,
}

impl Identity {
    pub(crate) fn params(&self) -> [(&'static str, String); 2] {
        [("connection", self.number.to_string()), ("auth", self.auth.clone())]
    }
}

/// The two names of a channel, which differ only in a private pair.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) read: String,
    pub(crate) write: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) form: Form,
    pub(crate) reader: Reader,
    pub(crate) identity: Option<Identity>,
    callback: u32,
}

impl Read {
    pub(crate) fn new(form: Form, first: Subscription, identity: Option<Identity>) -> Self {
        let mut reader = Reader::new(vec![first]);
        reader.terms.is_stream = form.is_stream();
        Self { form, reader, identity, callback: 0 }
    }

    pub(crate) fn request(&mut self) -> Vec<u8> {
        let mut params = Vec::new();
        for its in &self.reader.subscriptions {
            params.push(("channel", its.name.clone()));
            let from_id = match its.since {
                Since::All => Some("0".to_owned()),
                Since::Last(count) => Some(format!("-{count}")),
                Since::Id(id) => Some(id.to_string()),
                Since::Next(_) => None,
            };
            params.extend(from_id.map(|id| ("from_id", id)));
        }
        params.extend(self.reader.epoch.clone().map(|epoch| ("epoch", epoch)));
        params.extend(self.identity.iter().flat_map(Identity::params));
        if self.form == Form::Jsonp {
            self.callback += 1;
            params.push(("callback", format!("a.b{}", self.callback)));
        }
        let target = format!("/read?{}", http::form(&params));
        http::request("GET", &target, self.form.fields(), None)
    }

    /// Returns the channels whose next id is known, with these ids, and those that are read from
    /// now on, with the lowest id that may come.
    pub(crate) fn cursors(&self) -> Vec<(usize, u64)> {
        let cursor = |its: &Subscription| match its.since {
            Since::Id(id) | Since::Next(id) => Some((its.channel, id)),
            Since::All | Since::Last(_) => None,
        };
        self.reader.subscriptions.iter().filter_map(cursor).collect()
    }

    pub(crate) fn follows(&self, channel: usize) -> bool {
        self.reader.subscriptions.iter().any(|its| its.channel == channel)
    }

    /// Returns the JSON of an answer, without the call of the callback.
    pub(crate) fn json<'a>(&self, body: &'a [u8]) -> Checked<&'a [u8]> {
        if self.form != Form::Jsonp {
            return Ok(body);
        }
        let before = format!("/**/a.b{}(", self.callback);
        let json = body.strip_prefix(before.as_bytes()).and_then(|rest| rest.strip_suffix(b");"));
        json.ok_or_else(|| {
            Fault::new(format!("not a call of {before}…: {}", String::from_utf8_lossy(body)))
        })
    }
}

//! All that clients were sent, and what readers must get next.

use std::collections::BTreeMap;

use serde_json::Value;
use speak::api::Transport;
use support::http::Framing;
use support::incoming::Cutter;
use support::ledger::{Clock, Ledger, Rules};
use support::message::Kind;
use support::reader::{Reader, Since, Subscription, Terms};

use super::asked::{Asked, log_to_read};
use super::responses::{items, parse_json};
use super::settings::EPOCH;

/// The ledger, with its channels by their keys.
pub(super) struct Knowledge {
    pub(super) ledger: Ledger,
    channels: BTreeMap<String, usize>,
}

/// An event stream, and the earlier ones that it continues.
#[derive(Clone, Debug)]
pub(super) struct StreamCheck {
    pub(super) reader: Reader,
    /// Cursors and subscriptions before each of the last events: a client may be cut there.
    pub(super) before: Vec<(Vec<i64>, Vec<Subscription>)>,
    pub(super) framing: Framing,
    /// The last chunk has come.
    pub(super) has_ended: bool,
}

impl Knowledge {
    pub(super) fn new() -> Self {
        let rules = Rules { has_steady_clock: true, ..Rules::default() };
        let mut ledger = Ledger::new(0, rules);
        (ledger.epoch, ledger.clock) = (Some(EPOCH.to_owned()), Clock::Between(0, 0));
        Self { ledger, channels: BTreeMap::new() }
    }

    fn channel(&mut self, log: String) -> usize {
        *self.channels.entry(log).or_insert_with(|| {
            let channel = self.ledger.add_channel();
            self.ledger.channels[channel].is_large = true;
            channel
        })
    }

    /// Returns the highest id that a reader has got in a channel, or 0.
    pub(super) fn last_id(&self, log: &str) -> u64 {
        self.channels.get(log).map_or(0, |channel| self.ledger.channels[*channel].last_seen_id())
    }

    /// Records that a call got an id.
    pub(super) fn answered(&mut self, asked: &Asked, json: &Value, kind: Kind, from: Option<u64>) {
        let channel = self.channel(asked.log().expect("it was accepted"));
        let id = json["id"].as_u64().expect("an id");
        // A removal has none.
        let text = asked.one("message").unwrap_or_default();
        self.ledger.answered((channel, id), kind, from, text).expect("an id of its own");
    }

    /// Records that a call removed a message, and what the response to it says.
    pub(super) fn removed(&mut self, asked: &Asked, json: &Value) {
        let of = asked.one("id").and_then(|id| id.parse().ok()).expect("it was accepted");
        let channel = self.channel(asked.log().expect("it was accepted"));
        self.ledger.may_remove(channel, of);
        let id = json["id"].as_u64().expect("an id");
        let kind = Kind::Removal(of);
        self.ledger.answered((channel, id), kind, None, "").expect("an id of its own");
    }

    /// Returns the reader of a call. `stream` is its transport, if it is a stream.
    pub(super) fn reader(&mut self, asked: &Asked, stream: Option<Transport>) -> Reader {
        let is_stream = stream.is_some();
        let (since, epoch) = asked.since(matches!(stream, Some(Transport::Sse(_))));
        let channels = asked.channels().into_iter().zip(since);
        let channels = channels
            .map(|(name, since)| Subscription::new(self.channel(log_to_read(&name)), name, since));
        let mut reader = Reader::new(channels.collect());
        reader.epoch = epoch;
        reader.terms = Terms { may_be_ahead: true, is_stream };
        reader
    }

    pub(super) fn take(&mut self, reader: &mut Reader, answer: &Value) {
        self.ledger.take_answer(reader, answer).expect("a right answer");
    }

    /// Takes complete events of a stream.
    pub(super) fn take_events(&mut self, stream: &mut StreamCheck, bytes: &[u8]) {
        for item in items(Cutter::of_events(stream.framing), bytes) {
            assert!(!stream.has_ended, "an event after the last chunk");
            if item.ends_events() {
                stream.has_ended = true;
                continue;
            }
            let event = item.event().expect("an event");
            parse_json(event.data.as_ref().expect("data").as_bytes());
            if !event.is_ready() {
                let reader = &stream.reader;
                stream.before.push((reader.cursors.clone(), reader.subscriptions.clone()));
            }
            self.ledger.take_event(&mut stream.reader, &event).expect("a right event");
        }
    }
}

/// Records a pending read: there is nothing to send, and these ids come next.
pub(super) fn wait(reader: &mut Reader, next_ids: &[u64], is_stream: bool) {
    for (its, next_id) in reader.subscriptions.iter_mut().zip(next_ids) {
        assert!(its.id().is_none_or(|id| id == *next_id), "there was something to send");
        its.since = match its.since {
            Since::All if !is_stream => Since::All,
            Since::Id(id) => Since::Id(id),
            _ if is_stream => Since::Id(*next_id),
            _ => Since::Next(*next_id),
        };
    }
    reader.epoch = Some(EPOCH.to_owned());
}

impl StreamCheck {
    /// Says whether the server has ended the stream, as far as its framing shows that.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended || self.framing == Framing::ToEnd
    }

    /// Continues the stream where another one ended.
    pub(super) fn resume(&mut self, old: &Self) {
        let (new, old) = (&mut self.reader, &old.reader);
        let pairs = new.subscriptions.iter_mut().zip(&old.subscriptions);
        for ((its, old), cursor) in pairs.zip(&old.cursors) {
            its.resume_after(old, *cursor);
        }
    }

    /// Returns the `Last-Event-ID` of a client that was cut before this many last events.
    pub(super) fn cut(&mut self, events: usize) -> Option<String> {
        for _ in 0..events {
            (self.reader.cursors, self.reader.subscriptions) = self.before.pop()?;
        }
        let cursors: Vec<_> = self.reader.cursors.iter().map(i64::to_string).collect();
        (!cursors.is_empty()).then(|| format!("{EPOCH}:{}", cursors.join(",")))
    }
}

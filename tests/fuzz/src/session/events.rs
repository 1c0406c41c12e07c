//! Event streams, as an `EventSource` takes them.

use serde_json::Value;

use super::answer::parse_json;
use super::asked::{Since, log_to_read};
use super::ledger::Ledger;
use super::part::Follows;
use super::settings::EPOCH;

/// One event.
struct Event {
    name: String,
    data: Option<String>,
    /// Each channel's, of the newest `id:` so far.
    cursors: Vec<i64>,
}

/// What one client was told on a stream, and on those before that it went on with.
#[derive(Clone, Debug)]
pub(super) struct StreamCheck {
    pub(super) follows: Follows,
    /// Cursors in the newest `id:`, for `Last-Event-ID`.
    cursors: Vec<i64>,
    channels: Vec<Location>,
    /// How it was before each of the last events: a client may be cut there.
    before: Vec<(Vec<i64>, Vec<Location>)>,
}

/// Where a client is on one channel.
#[derive(Clone, Debug)]
struct Location {
    /// The first id that it was not given, if that is known.
    next_id: Option<u64>,
    last_id: u64,
    gap_told: bool,
    /// Introductions that history has dropped may come.
    is_new: bool,
}

impl StreamCheck {
    pub(super) fn new(follows: Follows) -> Self {
        let place = |since: &Since| Location {
            next_id: if let Since::Id(id) = since { Some(*id) } else { None },
            last_id: 0,
            gap_told: false,
            is_new: *since == Since::All,
        };
        let channels = follows.since.iter().map(place).collect();
        Self { cursors: Vec::new(), channels, follows, before: Vec::new() }
    }

    /// The stream begins anew where the one before ended.
    pub(super) fn is_open(&mut self, old: &Self) {
        for ((place, old), cursor) in self.channels.iter_mut().zip(&old.channels).zip(&old.cursors)
        {
            place.last_id = if *cursor > 0 { old.last_id } else { 0 };
        }
    }

    /// What a client sends that was cut before the last so many events.
    pub(super) fn cut(&mut self, events: usize) -> Option<String> {
        for _ in 0..events {
            (self.cursors, self.channels) = self.before.pop()?;
        }
        let cursors: Vec<_> = self.cursors.iter().map(i64::to_string).collect();
        (!cursors.is_empty()).then(|| format!("{EPOCH}:{}", cursors.join(",")))
    }

    /// The first id of each channel that it was not given, as far as that is known.
    pub(super) fn next_ids(&self) -> impl Iterator<Item = (&str, u64)> {
        // Behind a gap, the next message tells.
        let channels = self.follows.channels.iter().zip(&self.channels);
        channels
            .filter_map(|(name, place)| Some((&**name, place.next_id.filter(|_| !place.gap_told)?)))
    }

    /// Nothing was told when it began: these are the ids that come next.
    pub(super) fn wait(&mut self, next_ids: &[u64]) {
        if self.before.is_empty() {
            for (place, next_id) in self.channels.iter_mut().zip(next_ids) {
                assert!(
                    place.next_id.is_none_or(|id| id == *next_id),
                    "there was something to tell"
                );
                place.next_id = Some(*next_id);
            }
        }
    }

    /// Takes a piece of the stream that ends with an event.
    pub(super) fn take(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let text = str::from_utf8(bytes).expect("an event stream is UTF-8");
        let mut event = Event { name: String::new(), data: None, cursors: self.cursors.clone() };
        assert!(text.is_empty() || text.ends_with("\n\n"), "half an event: {text:?}");
        assert!(!text.contains('\r'), "{text:?}");
        for line in text.split_terminator('\n') {
            if line.is_empty() {
                let cursors = event.cursors.clone();
                self.take_event(&event, ledger);
                event = Event { name: String::new(), data: None, cursors };
                continue;
            }
            let (field, value) = line.split_once(':').expect("a field");
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => {}
                "retry" => assert_eq!(value, "1000"),
                "event" => value.clone_into(&mut event.name),
                "data" => {
                    assert_eq!(event.data.replace(value.to_owned()), None, "one line of data");
                }
                "id" => {
                    let cursors = value
                        .strip_prefix(EPOCH)
                        .and_then(|it| it.strip_prefix(':'))
                        .expect("the epoch");
                    event.cursors = cursors
                        .split(',')
                        .map(|cursor| cursor.parse().expect("a cursor"))
                        .collect();
                    assert_eq!(
                        event.cursors.len(),
                        self.channels.len(),
                        "a cursor for each channel"
                    );
                }
                other => panic!("field {other:?}"),
            }
        }
    }

    fn take_event(&mut self, event: &Event, ledger: &mut Ledger) {
        let is_several = self.channels.len() > 1;
        if event.data.is_some() {
            self.before.push((self.cursors.clone(), self.channels.clone()));
        }
        let data = event.data.as_ref().map(|data| parse_json(data.as_bytes()));
        let channel = data.as_ref().and_then(|data| data.get("channel")).and_then(Value::as_str);
        assert_eq!(
            channel.is_some(),
            is_several && data.is_some(),
            "a channel is named where they are several"
        );
        let place = channel.map_or(0, |channel| {
            self.follows
                .channels
                .iter()
                .position(|name| name == channel)
                .expect("a channel that was asked for")
        });
        match (&*event.name, data) {
            ("", None) => {}
            ("missed", Some(_)) => self.channels[place].gap_told = true,
            ("reset", Some(_)) => {
                self.channels[place] =
                    Location { next_id: None, last_id: 0, gap_told: false, is_new: true };
            }
            ("", Some(mut message)) => {
                message.as_object_mut().expect("a message").remove("channel");
                let log = log_to_read(&self.follows.channels[place]);
                let id = message["id"].as_u64().expect("an id");
                ledger.tell(&log, id, &message);
                self.channels[place].take(id, event.cursors[place], &message);
            }
            (name, data) => panic!("event {name:?} with {data:?}"),
        }
        self.cursors.clone_from(&event.cursors);
    }
}

impl Location {
    fn take(&mut self, id: u64, cursor: i64, message: &Value) {
        assert!(id > self.last_id, "message {id} behind {}", self.last_id);
        self.last_id = id;
        if cursor == id.cast_signed() + 1 {
            let is_next = self
                .next_id
                .is_none_or(|next_id| if self.gap_told { id > next_id } else { id == next_id });
            assert!(is_next, "message {id} where {:?} is next", self.next_id);
            *self = Self { next_id: Some(id + 1), last_id: id, gap_told: false, is_new: false };
        } else {
            assert!(
                self.is_new && message["type"] == "introduction",
                "message {id} with cursor {cursor}"
            );
            assert!(cursor <= 0, "who is cut amid introductions gets them again");
        }
    }
}

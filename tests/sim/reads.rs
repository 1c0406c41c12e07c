//! The model's half that reads: what is answered, what waits, and what ceases to.

use speak::hub::{self, Reason, Since};

use super::answers::Expected;
use super::message::Answer;
use super::model::{Model, Shown};

/// A `/read`.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) client: u64,
    pub(crate) follows: Vec<(usize, Since)>,
    pub(crate) epoch: Option<String>,
    pub(crate) shown: Option<Shown>,
    pub(crate) wait: Wait,
}

/// How long a read waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Not,
    /// A long poll: so many milliseconds.
    Ms(u64),
    /// A stream: for ever.
    On,
}

/// What becomes of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answer(Answer),
    Waits,
    /// A stream, and what it begins with.
    Follows(Answer),
}

/// A `/read` that waits.
pub(super) struct Waiting {
    pub(super) client: u64,
    pub(super) seats: Vec<Seat>,
    pub(super) connection: Option<u64>,
    /// When it has waited long enough; a stream never has.
    pub(super) until_ms: Option<u64>,
    /// Its connection ended: it is answered by the end of this turn, whatever there is.
    pub(super) is_orphan: bool,
    pub(super) is_stream: bool,
    /// A stream that was not given all there was, and gets nothing more before it asks for it.
    pub(super) is_behind: bool,
}

pub(super) struct Seat {
    pub(super) channel: usize,
    pub(super) since: Since,
    /// The next id when it began to wait; of a stream, the first that it was not given.
    pub(super) cursor: u64,
}

/// Reads that wait, or might.
impl Model {
    pub(super) fn readers(&self, channel: usize) -> usize {
        self.waiting
            .iter()
            .filter(|read| read.seats.iter().any(|seat| seat.channel == channel))
            .count()
    }

    pub(crate) fn read(&mut self, ask: &Read) -> Result<Outcome, hub::Error> {
        let connection = self.prove_maybe(ask.shown.as_ref())?;
        let drafts = self.drafts(ask);
        let waits = match ask.wait {
            Wait::Not => false,
            Wait::Ms(_) => !drafts.iter().any(Expected::is_news),
            Wait::On => true,
        };
        let channels = ask.channels();
        if waits {
            self.have_room(&channels)?;
        }
        let answer = self.cut(self.drafts(ask));
        for channel in &channels {
            self.channels[*channel].exists |= waits;
            if self.exists(*channel) {
                self.used(*channel);
            }
        }
        if connection.is_some() {
            self.replace_older(ask, connection);
        }
        self.keep_alive(connection);
        Ok(match ask.wait {
            Wait::Ms(wait_ms) if waits => {
                let mut read = Waiting::new(ask, connection);
                for seat in &mut read.seats {
                    seat.cursor = self.next_id(seat.channel);
                }
                read.until_ms = Some(self.now_ms() + wait_ms);
                self.waiting.push(read);
                Outcome::Waits
            }
            Wait::On => {
                let stream = self.stream(ask, connection, &answer);
                self.waiting.push(stream);
                Outcome::Follows(answer)
            }
            Wait::Ms(_) | Wait::Not => Outcome::Answer(answer),
        })
    }

    /// A long poll has that one answered which waits with its connection on the same channels. No other read has, and
    /// no other is.
    fn replace_older(&mut self, ask: &Read, connection: Option<u64>) {
        let mut channels = ask.channels();
        channels.sort_unstable();
        let is_its = |read: &Waiting| read.connection == connection;
        let same = |read: &Waiting| is_its(read) && read.channels() == channels;
        let overlaps =
            |read: &Waiting| read.channels().iter().any(|channel| channels.contains(channel));
        let (is_poll, is_stream) = (matches!(ask.wait, Wait::Ms(_)), ask.wait == Wait::On);
        let replaces = |read: &Waiting| is_poll && !read.is_stream && same(read);
        let any = |which: &dyn Fn(&Waiting) -> bool| self.waiting.iter().any(which);
        for (what, holds) in [
            ("read replaced", any(&replaces)),
            (
                "read on overlapping channels not replaced",
                is_poll && any(&|its| is_its(its) && !same(its) && overlaps(its)),
            ),
            ("stream not replaced by a poll", is_poll && any(&|its| its.is_stream && same(its))),
            (
                "stream not replaced by a stream",
                is_stream && any(&|its| its.is_stream && same(its)),
            ),
            ("poll not replaced by a stream", is_stream && any(&|its| !its.is_stream && same(its))),
        ] {
            self.tally.count_if(holds, what);
        }
        self.dismiss(replaces);
    }

    /// A client that waits closes.
    pub(crate) fn close(&mut self, client: u64) {
        let Some(place) = self.waiting.iter().position(|read| read.client == client) else {
            return;
        };
        let read = self.waiting.remove(place);
        self.waited(&read);
        self.tally.count_if(
            read.is_stream && read.connection.is_some(),
            "stream closed that carried a connection",
        );
        let Some(number) = read.connection else { return };
        if self.limits.grace_ms == 0 {
            return self.end(number, Reason::Closed, None);
        }
        let at_ms = self.now_ms() + self.limits.grace_ms;
        let connection = self.connections.get_mut(&number).expect("a read waits with it");
        self.tally.count(if connection.closes_at_ms.is_some() {
            "grace asked for again"
        } else {
            "grace began"
        });
        connection.closes_at_ms = Some(connection.closes_at_ms.unwrap_or(at_ms).min(at_ms));
    }
}

impl Read {
    /// In the order asked.
    pub(super) fn channels(&self) -> Vec<usize> {
        self.follows.iter().map(|(channel, _)| *channel).collect()
    }
}

impl Waiting {
    pub(super) fn new(ask: &Read, connection: Option<u64>) -> Self {
        let seat = |(channel, since): &(usize, Since)| Seat {
            channel: *channel,
            since: *since,
            cursor: 0,
        };
        Self {
            client: ask.client,
            seats: ask.follows.iter().map(seat).collect(),
            connection,
            until_ms: None,
            is_orphan: false,
            is_stream: false,
            is_behind: false,
        }
    }

    /// Sorted: what is asked is whether two follow the same set.
    pub(super) fn channels(&self) -> Vec<usize> {
        let mut channels: Vec<_> = self.seats.iter().map(|seat| seat.channel).collect();
        channels.sort_unstable();
        channels
    }
}

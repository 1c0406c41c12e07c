//! The model's half that answers: what a read gets, and what becomes of those that wait.

use std::collections::BTreeMap;
use std::mem;

use speak::hub::{Now, Reason, Since};

use super::message::{Answer, Message, Part, Type};
use super::model::{Counts, Due, Entry, Model};
use super::plan::LINGER_MS;
use super::reads::{Read, Seat, Waiting};

/// What a read would get of one channel if an answer could be of any length.
pub(super) struct Expected<'m> {
    /// Introductions that history has dropped.
    dropped: Vec<&'m Message>,
    messages: Vec<&'m Message>,
    next_id: u64,
    missed: bool,
    reset: bool,
}

impl Expected<'_> {
    pub(super) fn is_news(&self) -> bool {
        !self.dropped.is_empty() || !self.messages.is_empty() || self.missed || self.reset
    }
}

/// Several said goodbye in one channel in one moment: the contract does not tell in which order.
pub(crate) struct Order {
    pub(crate) channel: usize,
    pub(crate) from_id: u64,
}

/// Answers.
impl Model {
    pub(super) fn drafts(&self, ask: &Read) -> Vec<Expected<'_>> {
        let is_ours = ask.epoch.as_ref().is_none_or(|epoch| *epoch == self.epoch);
        ask.follows.iter().map(|(channel, since)| self.draft(*channel, *since, is_ours)).collect()
    }

    fn draft(&self, channel: usize, since: Since, is_ours: bool) -> Expected<'_> {
        let next_id = self.next_id(channel);
        match since {
            Since::Id(id) if !is_ours || id > next_id => {
                Expected { reset: true, ..self.draft_for_newcomer(channel) }
            }
            Since::Id(id) => self.draft_from(channel, id, true),
            Since::All => self.draft_for_newcomer(channel),
            Since::Last(count) => self.draft_from(channel, next_id.saturating_sub(count), false),
            Since::Now => self.draft_from(channel, next_id, false),
        }
    }

    fn draft_from(&self, channel: usize, id: u64, tells_gaps: bool) -> Expected<'_> {
        Expected {
            dropped: Vec::new(),
            messages: self.retained_messages(channel).filter(|message| message.id >= id).collect(),
            next_id: self.next_id(channel),
            missed: tells_gaps && self.oldest_id(channel) > id,
            reset: false,
        }
    }

    fn draft_for_newcomer(&self, channel: usize) -> Expected<'_> {
        let oldest_id = self.oldest_id(channel);
        let mut dropped: Vec<_> = self
            .members(channel)
            .into_values()
            .filter(|introduction| introduction.id < oldest_id)
            .collect();
        dropped.sort_unstable_by_key(|introduction| introduction.id);
        Expected { dropped, ..self.draft_from(channel, 0, false) }
    }

    /// Leaves to the next read what would make the answer too long.
    pub(super) fn cut(&self, drafts: Vec<Expected<'_>>) -> Answer {
        let (mut bytes, mut is_empty, mut is_full) = (0, true, false);
        for (what, holds) in [
            ("dropped introduction given", drafts.iter().any(|draft| !draft.dropped.is_empty())),
            ("missed told", drafts.iter().any(|draft| draft.missed)),
            ("reset told", drafts.iter().any(|draft| draft.reset)),
        ] {
            self.tally.count_if(holds, what);
        }
        let mut cut_one = |draft: Expected<'_>| {
            let Expected { dropped, messages, mut next_id, missed, reset } = draft;
            let mut taken: Vec<Message> = dropped.into_iter().cloned().collect();
            for message in messages {
                bytes += message.json().len();
                is_full |= !is_empty && bytes > self.limits.max_reply;
                if is_full {
                    next_id = message.id;
                    self.tally.count("answer cut");
                    break;
                }
                is_empty = false;
                taken.push(message.clone());
            }
            Part { messages: taken, next_id, missed, reset }
        };
        drafts.into_iter().map(&mut cut_one).collect()
    }

    pub(super) fn draft_for_waiting(&self, read: &Waiting) -> Vec<Expected<'_>> {
        let draft = |seat: &Seat| match seat.since {
            Since::Id(_) => self.draft_from(seat.channel, seat.cursor, true),
            Since::All => self.draft_for_newcomer(seat.channel),
            Since::Last(_) | Since::Now => self.draft_from(seat.channel, seat.cursor, false),
        };
        read.seats.iter().map(draft).collect()
    }

    /// A read waits no more: what it kept alive lives on from now.
    pub(super) fn waited(&mut self, read: &Waiting) {
        let now_ms = self.now_ms();
        for seat in &read.seats {
            self.used(seat.channel);
        }
        if let Some(connection) =
            read.connection.and_then(|number| self.connections.get_mut(&number))
        {
            connection.last_alive_ms = connection.last_alive_ms.max(now_ms);
        }
    }

    /// Has reads that wait answered with nothing.
    pub(super) fn dismiss(&mut self, which: impl Fn(&Waiting) -> bool) {
        let (gone, still) = mem::take(&mut self.waiting).into_iter().partition(|read| which(read));
        self.waiting = still;
        for read in Vec::from_iter::<Vec<Waiting>>(gone) {
            self.waited(&read);
            self.dismissed.push(Due::nothing_more(&read));
        }
    }

    pub(crate) fn dismiss_all(&mut self) {
        self.tally.count_if(self.waiting.iter().any(|read| read.is_stream), "stream dismissed");
        self.dismiss(|_| true);
    }

    /// Whoever waits is answered with nothing within so long, elsewhere: until then it keeps alive what it waited with.
    pub(crate) fn restore_from_snapshot(&mut self, reads_end_ms: u64) {
        let ends_ms = self.now_ms() + reads_end_ms;
        let waited_with: Vec<_> = self.waiting.iter().filter_map(|read| read.connection).collect();
        self.dismiss_all();
        for number in waited_with {
            let connection = self
                .connections
                .get_mut(&number)
                .expect("a read waits with a connection that lives");
            connection.last_alive_ms = ends_ms;
            connection.closes_at_ms = connection.closes_at_ms.filter(|at| *at > ends_ms);
        }
    }

    /// Nobody held the hub for so long, and nobody could be heard of.
    pub(crate) fn was_away(&mut self, away_ms: u64) {
        for connection in self.connections.values_mut() {
            connection.last_alive_ms += away_ms;
            connection.closes_at_ms = connection.closes_at_ms.map(|at| at + away_ms);
        }
    }
}

impl Due {
    fn new(read: &Waiting, answer: Answer, news: Vec<usize>) -> Self {
        let channels = read.seats.iter().map(|seat| seat.channel).collect();
        Self { client: read.client, answer, is_last: !read.is_stream, channels, news }
    }

    /// The end of a read for which there is nothing, or nothing more.
    fn nothing_more(read: &Waiting) -> Self {
        let nothing = |seat: &Seat| Part {
            messages: Vec::new(),
            next_id: seat.cursor,
            missed: false,
            reset: false,
        };
        let answer = read.seats.iter().map(nothing).collect();
        Self { is_last: true, ..Self::new(read, answer, Vec::new()) }
    }
}

/// The turn.
impl Model {
    pub(crate) fn begin_turn(&mut self, now: Now) {
        self.now = now;
        for (number, connection) in &self.connections {
            let is_late = connection.last_alive_ms + self.limits.timeout_ms <= now.mono.0;
            let streams =
                self.waiting.iter().any(|read| read.is_stream && read.connection == Some(*number));
            self.tally.count_if(is_late && streams, "stream kept its connection alive");
        }
        // Where a read waits with it when the grace runs out, the connection did not need it.
        for (number, connection) in &mut self.connections {
            let is_read_with = self.waiting.iter().any(|read| read.connection == Some(*number));
            let is_over = connection.closes_at_ms.is_some_and(|at_ms| at_ms <= now.mono.0);
            if is_over && is_read_with {
                self.tally.count("grace outlived by a read");
                connection.closes_at_ms = None;
            }
        }
    }

    /// When a connection ends if nothing more is heard of it, and why; `None` while a read waits with it.
    fn end_of(&self, number: u64) -> Option<(u64, Reason)> {
        if self.waiting.iter().any(|read| read.connection == Some(number)) {
            return None;
        }
        let connection = &self.connections[&number];
        let times_out_at_ms = connection.last_alive_ms + self.limits.timeout_ms;
        match connection.closes_at_ms {
            Some(at_ms) if at_ms <= times_out_at_ms => Some((at_ms, Reason::Closed)),
            _ => Some((times_out_at_ms, Reason::Timeout)),
        }
    }

    /// Does what is due, and tells where it is left to chance who was first.
    pub(crate) fn expire(&mut self) -> Vec<Order> {
        let now_ms = self.now_ms();
        self.dismiss(|read| read.until_ms.is_some_and(|at_ms| at_ms <= now_ms));
        let next_ids: Vec<_> =
            (0..self.channels.len()).map(|channel| self.next_id(channel)).collect();
        for number in self.living() {
            if let Some((_, reason)) = self.end_of(number).filter(|(at_ms, _)| *at_ms <= now_ms) {
                self.end(number, reason, None);
            }
        }
        for channel in 0..self.channels.len() {
            if self.lingers_until(channel).is_some_and(|at_ms| at_ms <= now_ms) {
                self.tally.count("channel dropped");
                self.forget(channel);
            }
        }
        let ties =
            next_ids.into_iter().enumerate().map(|(channel, from_id)| Order { channel, from_id });
        ties.filter(|tie| self.next_id(tie.channel) > tie.from_id + 1).collect()
    }

    /// Of a channel that is forgotten its ids alone are kept.
    pub(super) fn forget(&mut self, channel: usize) {
        self.channels[channel].exists = false;
        self.resting_ids.push(self.next_id(channel));
    }

    /// When a channel is forgotten; `None` while there is something in it.
    pub(super) fn lingers_until(&self, channel: usize) -> Option<u64> {
        let is_empty = self.exists(channel)
            && self.retained(channel).next().is_none()
            && self.readers(channel) == 0
            && self.members(channel).is_empty();
        is_empty.then(|| self.channels[channel].last_use_ms + LINGER_MS)
    }

    /// Told in which order the hub had those say goodbye who tied, as far as anybody can see it.
    pub(crate) fn learn_order(&mut self, tie: &Order, seen: &[Message]) {
        self.tally.count("several said goodbye at once");
        let log = &mut self.channels[tie.channel].log;
        for told in seen {
            let is_theirs =
                |entry: &Entry| entry.message.id >= tie.from_id && entry.message.from == told.from;
            let stands_at = log
                .iter()
                .position(is_theirs)
                .unwrap_or_else(|| panic!("nobody was to say {told:?}"));
            let belongs_at =
                log.iter().position(|entry| entry.message.id == told.id).expect("one id for each");
            let (first_id, second_id) = (log[stands_at].message.id, log[belongs_at].message.id);
            log.swap(stands_at, belongs_at);
            log[stands_at].message.id = first_id;
            log[belongs_at].message.id = second_id;
        }
    }

    /// What goes out at the end of the turn.
    pub(crate) fn deliver(&mut self) -> Vec<Due> {
        let mut due = mem::take(&mut self.dismissed);
        for mut read in mem::take(&mut self.waiting) {
            if read.is_behind {
                self.tally_behind(&read);
            }
            let drafts = if read.is_behind { Vec::new() } else { self.draft_for_waiting(&read) };
            let has_news =
                |(seat, draft): (&Seat, &Expected<'_>)| draft.is_news().then_some(seat.channel);
            let news: Vec<_> = read.seats.iter().zip(&drafts).filter_map(has_news).collect();
            let is_told = !news.is_empty();
            for (what, holds) in [
                ("orphan answered with its goodbye", read.is_orphan && is_told),
                ("orphan answered with nothing", read.is_orphan && !is_told),
                (
                    "waiting read answered for one of several channels",
                    news.len() == 1 && drafts.len() > 1,
                ),
                ("waiting read answered for several channels", news.len() > 1),
                ("waiting read told of a gap", drafts.iter().any(|draft| draft.missed)),
            ] {
                self.tally.count_if(holds, what);
            }
            if is_told {
                let answer = self.cut(drafts);
                if read.is_stream {
                    self.tally_told(&read, &answer, news.len());
                    self.is_open(&mut read, &answer);
                }
                due.push(Due::new(&read, answer, news));
            }
            if !read.is_orphan && (read.is_stream || !is_told) {
                self.waiting.push(read);
                continue;
            }
            self.waited(&read);
            if read.is_stream || !is_told {
                due.push(Due::nothing_more(&read));
            }
        }
        self.turn += 1;
        due
    }

    /// Channels to which this turn added something, with the first id of it.
    pub(crate) fn changed(&self) -> Vec<(usize, u64)> {
        let first_of_turn = |log: &Vec<Entry>| {
            log.iter().find(|entry| entry.turn == self.turn).map(|e| e.message.id)
        };
        let channels = self.channels.iter().enumerate();
        channels
            .filter_map(|(channel, its)| first_of_turn(&its.log).map(|id| (channel, id)))
            .collect()
    }

    /// The earliest moment at which something happens by itself.
    pub(crate) fn next_event_ms(&self) -> Option<u64> {
        let reads = self.waiting.iter().filter_map(|read| read.until_ms);
        let connections = self
            .connections
            .keys()
            .filter_map(|number| self.end_of(*number))
            .map(|(at_ms, _)| at_ms);
        let forgets = |channel| {
            self.retained(channel).next().map(|entry| entry.at_ms + self.limits.retention_ms)
        };
        let messages = (0..self.channels.len()).filter_map(forgets);
        let channels = (0..self.channels.len()).filter_map(|channel| self.lingers_until(channel));
        reads.chain(connections).chain(messages).chain(channels).min()
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            channels: self.channels.iter().filter(|channel| channel.exists).count(),
            connections: self.connections.len(),
            readers: self.waiting.len(),
        }
    }

    pub(crate) fn count_retained(&self) -> usize {
        (0..self.channels.len()).map(|channel| self.retained(channel).count()).sum()
    }

    /// Everybody who came into a channel said goodbye there once, and for the reason for which it ended.
    pub(crate) fn assert_all_said_goodbye(&self) {
        assert!(self.connections.is_empty());
        for channel in 0..self.channels.len() {
            let mut inside: BTreeMap<u64, bool> = BTreeMap::new();
            for message in self.messages_ever(channel) {
                let Some(from) = message.from else { continue };
                match message.kind {
                    Type::Message => {}
                    Type::Introduction => drop(inside.insert(from, true)),
                    Type::Goodbye => {
                        assert_eq!(
                            inside.insert(from, false),
                            Some(true),
                            "goodbye of who is not there: {message:?}"
                        );
                        let reason = message.reason.expect("every goodbye has one");
                        assert!(
                            reason == Reason::Left || self.ended[&from] == reason,
                            "{message:?}"
                        );
                    }
                }
            }
            assert!(
                inside.values().all(|is_inside| !is_inside),
                "no goodbye in channel {channel}: {inside:?}"
            );
        }
    }
}

//! Answers in the model: what a read gets, and what happens to pending reads.

use std::collections::BTreeSet;
use std::mem;

use speak::hub::{LogHealth, Now, Reason, Since};

use super::message::{Answer, Message, Part, Type};
use super::model::{Channel, Due, Entry, Model};
use super::pending::{Pending, Read, Subscription};
use super::plan::IDLE_CHANNEL_MS;

/// Answer of one channel, if an answer could be of any length.
pub(super) struct Expected {
    /// Introductions that history has dropped.
    dropped: Vec<Message>,
    messages: Vec<Message>,
    next_id: u64,
    missed: bool,
    reset: bool,
}

impl Expected {
    pub(super) fn is_news(&self) -> bool {
        !self.dropped.is_empty() || !self.messages.is_empty() || self.missed || self.reset
    }
}

impl Model {
    pub(super) fn expected(&self, ask: &Read) -> Vec<Expected> {
        let is_ours = ask.epoch.as_ref().is_none_or(|epoch| *epoch == self.epoch);
        ask.follows
            .iter()
            .map(|(channel, since)| self.expected_of(*channel, *since, is_ours))
            .collect()
    }

    fn expected_of(&self, channel: usize, since: Since, is_ours: bool) -> Expected {
        let next_id = self.next_id(channel);
        match since {
            Since::Id(id) if !is_ours || id > next_id => {
                Expected { reset: true, ..self.expect_all(channel) }
            }
            Since::Id(id) => self.expect_from(channel, id, true),
            Since::All => self.expect_all(channel),
            Since::Last(count) => self.expect_from(channel, next_id.saturating_sub(count), false),
            Since::Now => self.expect_from(channel, next_id, false),
        }
    }

    fn expect_from(&self, channel: usize, id: u64, tells_gaps: bool) -> Expected {
        Expected {
            dropped: Vec::new(),
            messages: self.retained_messages(channel).filter(|message| message.id >= id).collect(),
            next_id: self.next_id(channel),
            missed: tells_gaps && self.oldest_id(channel) > id,
            reset: false,
        }
    }

    fn expect_all(&self, channel: usize) -> Expected {
        let oldest_id = self.oldest_id(channel);
        let mut dropped: Vec<_> = self
            .members(channel)
            .into_values()
            .filter(|introduction| introduction.id < oldest_id)
            .cloned()
            .collect();
        dropped.sort_unstable_by_key(|introduction| introduction.id);
        let mut expected = Expected { dropped, ..self.expect_from(channel, 0, false) };
        // An introduction that was removed is still that of a member.
        for introduction in self.members(channel).into_values() {
            let same = expected.messages.iter_mut().find(|its| its.id == introduction.id);
            let same = same.filter(|its| its.kind == Type::Removed);
            self.tally.count_if(same.is_some(), "introduction without its text given");
            if let Some(same) = same {
                *same = introduction.clone();
            }
        }
        expected
    }

    /// Leaves messages that would make the answer too long to the next read.
    pub(super) fn cut(&self, expected: Vec<Expected>) -> Answer {
        let (mut bytes, mut is_empty, mut is_full) = (0, true, false);
        self.tally.count_those(&[
            ("dropped introduction given", expected.iter().any(|its| !its.dropped.is_empty())),
            ("missed sent", expected.iter().any(|its| its.missed)),
            ("reset sent", expected.iter().any(|its| its.reset)),
        ]);
        let mut cut_one = |its: Expected| {
            let Expected { dropped, messages, mut next_id, missed, reset } = its;
            let mut taken = dropped;
            for message in messages {
                bytes += message.json().len();
                is_full |= !is_empty && bytes > self.limits.max_reply;
                if is_full {
                    next_id = message.id;
                    self.tally.count("answer cut");
                    break;
                }
                is_empty = false;
                taken.push(message);
            }
            Part { messages: taken, next_id, missed, reset }
        };
        expected.into_iter().map(&mut cut_one).collect()
    }

    pub(super) fn expect_pending(&self, read: &Pending) -> Vec<Expected> {
        let expected = |its: &Subscription| match its.since {
            Since::Id(_) => self.expect_from(its.channel, its.cursor, true),
            Since::All => self.expect_all(its.channel),
            Since::Last(_) | Since::Now => self.expect_from(its.channel, its.cursor, false),
        };
        read.subscriptions.iter().map(expected).collect()
    }

    /// A read is pending no more: its session and channels were used until now.
    pub(super) fn end_wait(&mut self, read: &Pending) {
        let now_ms = self.now_ms();
        for its in &read.subscriptions {
            self.used(its.channel);
        }
        if let Some(session) = read.session.and_then(|number| self.sessions.get_mut(&number)) {
            session.last_alive_ms = session.last_alive_ms.max(now_ms);
        }
    }

    /// Answers pending reads with nothing.
    pub(super) fn complete_empty(&mut self, which: impl Fn(&Pending) -> bool) {
        for read in self.pending.extract_if(.., |read| which(read)).collect::<Vec<_>>() {
            self.end_wait(&read);
            self.completed.push(Due::nothing_more(&read));
        }
    }

    pub(crate) fn complete_all(&mut self) {
        self.tally.count_if(self.pending.iter().any(|read| read.is_stream), "stream completed");
        self.complete_empty(|_| true);
    }

    /// Pending reads are answered with nothing within this time, by another process.
    /// Until then they keep their sessions alive.
    pub(crate) fn restore_from_snapshot(&mut self, reads_end_ms: u64) {
        let ends_ms = self.now_ms() + reads_end_ms;
        let sessions_of_reads: Vec<_> =
            self.pending.iter().filter_map(|read| read.session).collect();
        self.complete_all();
        for number in sessions_of_reads {
            let session =
                self.sessions.get_mut(&number).expect("a pending read has a session that lives");
            session.last_alive_ms = ends_ms;
            session.closes_at_ms = session.closes_at_ms.filter(|at| *at > ends_ms);
        }
    }

    /// No process had the hub for so long, and no call could come.
    pub(crate) fn add_downtime(&mut self, away_ms: u64) {
        for session in self.sessions.values_mut() {
            session.last_alive_ms += away_ms;
            session.closes_at_ms = session.closes_at_ms.map(|at| at + away_ms);
        }
    }
}

impl Due {
    fn new(read: &Pending, answer: Answer, news: Vec<usize>) -> Self {
        let channels = read.subscriptions.iter().map(|its| its.channel).collect();
        Self { client: read.client, answer, is_last: !read.is_stream, channels, news }
    }

    /// Returns the last answer of a read, which is empty.
    fn nothing_more(read: &Pending) -> Self {
        let nothing = |its: &Subscription| Part {
            messages: Vec::new(),
            next_id: its.cursor,
            missed: false,
            reset: false,
        };
        let answer = read.subscriptions.iter().map(nothing).collect();
        Self { is_last: true, ..Self::new(read, answer, Vec::new()) }
    }
}

impl Model {
    pub(crate) fn begin_turn(&mut self, now: Now) {
        self.now = now;
        for (number, session) in &mut self.sessions {
            let is_late = session.last_alive_ms + self.limits.timeout_ms <= now.mono.0;
            let mut reads = self.pending.iter().filter(|read| read.session == Some(*number));
            let is_over = session.closes_at_ms.is_some_and(|at_ms| at_ms <= now.mono.0);
            let streams = reads.clone().any(|read| read.is_stream);
            self.tally.count_if(is_late && streams, "stream kept its session alive");
            // A session with a pending read at the end of the grace did not need the grace.
            if is_over && reads.next().is_some() {
                self.tally.count("grace outlived by a read");
                session.closes_at_ms = None;
            }
        }
    }

    /// Returns time and reason of a session's end if no call comes. `None` while a read of it is
    /// pending.
    fn end_of(&self, number: u64) -> Option<(u64, Reason)> {
        if self.pending.iter().any(|read| read.session == Some(number)) {
            return None;
        }
        let session = &self.sessions[&number];
        let times_out_at_ms = session.last_alive_ms + self.limits.timeout_ms;
        match session.closes_at_ms {
            Some(at_ms) if at_ms <= times_out_at_ms => Some((at_ms, Reason::Closed)),
            _ => Some((times_out_at_ms, Reason::Timeout)),
        }
    }

    /// Does all that is due. Returns the channels that got several goodbyes, with the first id of
    /// these: the contract leaves their order open.
    pub(crate) fn expire(&mut self) -> Vec<(usize, u64)> {
        let now_ms = self.now_ms();
        self.complete_empty(|read| read.until_ms.is_some_and(|at_ms| at_ms <= now_ms));
        let next_ids: Vec<_> =
            (0..self.channels.len()).map(|channel| self.next_id(channel)).collect();
        for number in self.living() {
            if let Some((_, reason)) = self.end_of(number).filter(|(at_ms, _)| *at_ms <= now_ms) {
                if self.health == LogHealth::Good {
                    self.end_or_propose(number, reason);
                } else {
                    self.tally.count("session outlived an outage");
                    self.keep_alive(Some(number));
                }
            }
        }
        for channel in 0..self.channels.len() {
            let unused_until = self.channels[channel].last_use_ms + IDLE_CHANNEL_MS;
            let is_kept = self.idle_until(channel).is_some_and(|at_ms| at_ms > now_ms);
            let what = "room kept for an address that was sent away";
            self.tally.count_if(is_kept && unused_until <= now_ms, what);
            if self.idle_until(channel).is_some_and(|at_ms| at_ms <= now_ms) {
                self.tally.count("channel dropped");
                self.drop_or_propose(channel);
            }
        }
        let added = (0..).zip(next_ids);
        added.filter(|(channel, from_id)| self.next_id(*channel) > from_id + 1).collect()
    }

    /// Drops a channel, except its next id.
    pub(super) fn forget(&mut self, channel: usize) {
        self.channels[channel].exists = false;
        self.channels[channel].bans.clear();
        self.watermarks.push(self.next_id(channel));
    }

    /// Returns the time at which a channel is dropped. `None` while it is in use.
    pub(super) fn idle_until(&self, channel: usize) -> Option<u64> {
        let is_empty = self.exists(channel)
            && self.retained(channel).next().is_none()
            && self.readers(channel) == 0
            && self.channels[channel].proposed == 0
            && self.members(channel).is_empty();
        let last_end_ms = self.channels[channel].bans.values().copied().max().unwrap_or(0);
        is_empty.then(|| last_end_ms.max(self.channels[channel].last_use_ms + IDLE_CHANNEL_MS))
    }

    /// Learns the order that the hub chose, as far as it can be seen.
    pub(crate) fn learn_order(&mut self, channel: usize, from_id: u64, seen: &[Message]) {
        self.tally.count("several goodbyes at one time");
        let log = &mut self.channels[channel].log;
        for message in seen {
            let is_same =
                |Entry { message: its, .. }: &Entry| its.id >= from_id && its.from == message.from;
            let is =
                log.iter().position(is_same).unwrap_or_else(|| panic!("unexpected: {message:?}"));
            let has_id = |entry: &Entry| entry.message.id == message.id;
            let must_be = log.iter().position(has_id).expect("one id for each");
            let (first_id, second_id) = (log[is].message.id, log[must_be].message.id);
            log.swap(is, must_be);
            (log[is].message.id, log[must_be].message.id) = (first_id, second_id);
        }
    }

    /// Returns the answers that are due at the end of the turn.
    pub(crate) fn deliver(&mut self) -> Vec<Due> {
        let mut due = mem::take(&mut self.completed);
        for mut read in mem::take(&mut self.pending) {
            if read.is_paused {
                self.tally_paused(&read);
            }
            let expected = if read.is_paused { Vec::new() } else { self.expect_pending(&read) };
            let both = read.subscriptions.iter().zip(&expected);
            let has_news = both.filter(|(_, expected)| expected.is_news());
            let news: Vec<_> = has_news.map(|(its, _)| its.channel).collect();
            let has_news = !news.is_empty();
            self.tally.count_those(&[
                ("orphan answered with its goodbye", read.is_orphan && has_news),
                ("orphan answered with nothing", read.is_orphan && !has_news),
                ("read answered for one of several", news.len() == 1 && expected.len() > 1),
                ("read answered for several channels", news.len() > 1),
                ("pending read got a gap", expected.iter().any(|its| its.missed)),
                ("stream ended by the server with news", read.is_ending && has_news),
            ]);
            if has_news {
                let answer = self.cut(expected);
                if read.is_stream {
                    self.tally_sent(&read, &answer, news.len());
                    self.advance(&mut read, &answer);
                }
                due.push(Due::new(&read, answer, news));
            }
            let is_over = read.is_orphan || read.is_ending;
            if !is_over && (read.is_stream || !has_news) {
                self.pending.push(read);
                continue;
            }
            self.end_wait(&read);
            if read.is_stream || !has_news {
                due.push(Due::nothing_more(&read));
            }
        }
        self.turn += 1;
        due
    }

    /// Returns the channels to which this turn added messages, with the first id of these.
    pub(crate) fn changed(&self) -> Vec<(usize, u64)> {
        let is_new = |entry: &&Entry| entry.turn == self.turn;
        let first = |(channel, its): (usize, &Channel)| {
            its.log.iter().find(is_new).map(|entry| (channel, entry.message.id))
        };
        self.channels.iter().enumerate().filter_map(first).collect()
    }

    /// Returns the earliest time at which something happens by itself.
    pub(crate) fn next_event_ms(&self) -> Option<u64> {
        let reads = self.pending.iter().filter_map(|read| read.until_ms);
        let sessions =
            self.sessions.keys().filter_map(|number| self.end_of(*number)).map(|(at_ms, _)| at_ms);
        let forgets = |channel| {
            self.retained(channel).next().map(|entry| entry.at_ms + self.limits.retention_ms)
        };
        let messages = (0..self.channels.len()).filter_map(forgets);
        let channels = (0..self.channels.len()).filter_map(|channel| self.idle_until(channel));
        reads.chain(sessions).chain(messages).chain(channels).min()
    }

    pub(crate) fn count_channels(&self) -> usize {
        self.channels.iter().filter(|channel| channel.exists).count()
    }

    /// Returns the number of channels that are about to be dropped.
    pub(crate) fn count_dropping(&self) -> usize {
        self.channels.iter().filter(|channel| channel.is_dropping).count()
    }

    pub(crate) fn count_retained(&self) -> usize {
        (0..self.channels.len()).map(|channel| self.retained(channel).count()).sum()
    }

    /// Claims that each member of a channel said goodbye there once, for the reason of its
    /// session's end.
    pub(crate) fn assert_all_said_goodbye(&self) {
        assert!(self.sessions.is_empty());
        for channel in 0..self.channels.len() {
            let mut inside = BTreeSet::new();
            for message in self.messages_ever(channel) {
                let Some(from) = message.from else { continue };
                match message.kind {
                    Type::Message | Type::Removal | Type::Removed => {}
                    Type::Introduction => drop(inside.insert(from)),
                    Type::Goodbye => {
                        assert!(inside.remove(&from), "not of a member: {message:?}");
                        let reason = message.reason.expect("every goodbye has one");
                        let is_right = matches!(reason, Reason::Left | Reason::Removed)
                            || self.ended[&from] == reason;
                        assert!(is_right, "{message:?}");
                    }
                }
            }
            assert!(inside.is_empty(), "no goodbye in channel {channel}: {inside:?}");
        }
    }
}

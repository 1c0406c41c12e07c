//! The hub and the model: each call is made to both, and each answer compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::num::NonZeroU64;

use speak::hub::{
    self, Address, Auth, ChannelKey, ChannelName, Credentials, DropReason, Hub, Introducer, Millis,
    Mode, Now, Pair, PairKind, ReadRequest, ReadResult, ReaderKey, ResumeBatch, Since, token,
};

use support::random::Random;

use super::command;
use super::follower::Follower;
use super::log::{Log, Logging};
use super::message::{Answer, Message, Part, Type, answer_of};
use super::model::Model;
use super::pair_names;
use super::pending::{Identity, Outcome, Read, Wait};
use super::plan::Plan;
use super::record::Record;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) record: Record,
    pub(crate) hub: Hub,
    pub(crate) model: Model,
    pub(crate) now: Now,
    /// Number of messages that this hub began with.
    pub(crate) restored: u64,
    /// Epoch of the hub.
    pub(crate) epoch: String,
    pub(crate) names: Vec<Names>,
    pub(crate) log: Option<Log>,
    /// All sessions that were ever introduced, the newest last.
    pub(crate) identities: Vec<Identity>,
    /// The hub's keys of all reads that were ever pending, the newest last.
    pub(crate) reads: Vec<(u64, ReaderKey)>,
    /// End of each pending long poll, which the server's clients keep for the hub.
    pub(crate) waits: BTreeMap<(Millis, u64), ReaderKey>,
    pub(crate) followers: Vec<Follower>,
    clients: u64,
    /// Streams that resume in a row, and the last answer of these.
    pub(crate) resumed: (ResumeBatch, Option<Answer>),
    /// Clients that got their last answer.
    pub(crate) answered: BTreeSet<u64>,
}

/// Names of a channel.
pub(crate) struct Names {
    /// Name that everybody may know, under which the channel is stored.
    pub(crate) given: String,
    /// Secret name of a pair, with its kind.
    secret: Option<(PairKind, String)>,
}

impl Names {
    fn public(name: String) -> Self {
        Self { given: name, secret: None }
    }

    fn pair(kind: PairKind, random: &mut Random) -> Self {
        let Pair { secret, given, .. } = Pair::new(kind, token(|| random.next() as u8));
        Self { given, secret: Some((kind, secret)) }
    }

    /// Returns the name to read under, and the one to write under.
    fn halves(&self) -> [&str; 2] {
        match &self.secret {
            Some((PairKind::Inbox, secret)) => [secret, &self.given],
            Some((PairKind::Feed, secret)) => [&self.given, secret],
            _ => [&self.given, &self.given],
        }
    }

    /// Returns the key for a call that adds. A room has a name of its owner.
    pub(crate) fn written(&self, is_owner: bool) -> ChannelKey<'_> {
        let name = match &self.secret {
            Some((PairKind::Room, secret)) if is_owner => secret,
            _ => self.halves()[1],
        };
        ChannelName::parse(name).unwrap().for_writing().unwrap()
    }

    fn read(&self) -> ChannelKey<'_> {
        ChannelName::parse(self.halves()[0]).unwrap().for_reading().unwrap()
    }

    /// Returns the key for the operator.
    pub(crate) fn key(&self) -> ChannelKey<'_> {
        ChannelName::parse(&self.given).unwrap().key()
    }

    fn is_room(&self) -> bool {
        matches!(self.secret, Some((PairKind::Room, _)))
    }
}

pub(crate) fn address_of(number: u64) -> Address {
    Address::new(NonZeroU64::new(number).expect("a number of an address"))
}

pub(crate) fn shows(shown: &Identity) -> Credentials<'_> {
    Credentials { session: shown.session, auth: &shown.auth }
}

fn logs_of<'a>(names: &'a [Names], ask: &Read) -> Vec<(ChannelKey<'a>, Since)> {
    ask.follows.iter().map(|(channel, since)| (names[*channel].read(), *since)).collect()
}

fn call_of<'a>(ask: &'a Read, targets: &'a [(ChannelKey<'a>, Since)]) -> ReadRequest<'a> {
    let mode = match ask.wait {
        Wait::Not => Mode::Immediate,
        Wait::Ms(_) => Mode::LongPoll,
        Wait::On => Mode::Stream,
    };
    let (epoch, credentials) = (ask.epoch.as_deref(), ask.shown.as_ref().map(shows));
    let (grace_ms, token) = (ask.grace_ms, ask.client);
    ReadRequest { targets, epoch, credentials, grace_ms, mode, token }
}

impl World {
    pub(crate) fn new(mut random: Random, record: Record) -> Self {
        let plan = Plan::draw(&mut random);
        record.note(|| format!("{plan:?}"));
        let epoch = String::from_utf8(token::<8>(|| random.next() as u8).into())
            .expect("letters and digits");
        let mut names: Vec<_> =
            (0..plan.channels).map(|channel| draw_names(channel, &mut random)).collect();
        let mut watermark_key = token(|| random.next() as u8);
        if plan.names_collide {
            watermark_key = pair_names::KEY;
            for (its, name) in names.iter_mut().zip(pair_names::colliding()) {
                *its = Names::public(name.clone());
            }
        }
        let followers = (0..plan.followers).map(|_| {
            let count = random.pick(&[1, 1, 2, 5]);
            Follower::new(random.indexes(plan.channels, count))
        });
        let mut world = Self {
            followers: followers.collect(),
            log: None,
            restored: 0,
            hub: Hub::new(plan.limits.config(&epoch, watermark_key)),
            model: Model::new(plan.limits, plan.channels, &epoch),
            epoch,
            now: Now { mono: Millis(random.below(100_000)), unix_ms: 1_763_802_330_123 },
            names,
            identities: Vec::new(),
            reads: Vec::new(),
            waits: BTreeMap::new(),
            clients: 0,
            resumed: Default::default(),
            answered: BTreeSet::new(),
            plan,
            random,
            record,
        };
        if world.plan.logging != Logging::None {
            world.begin_log();
        }
        world
    }

    /// Returns a new client.
    pub(crate) fn next_client(&mut self) -> u64 {
        self.clients += 1;
        self.clients
    }

    /// Notes a call to hub and model. Streams resume in a row only without another call in between.
    pub(crate) fn begin(&mut self, call: impl FnOnce() -> String) {
        self.record.step(call);
        self.resumed = Default::default();
    }

    /// Notes an outcome that hub and model agree on. Their numbers agree as well.
    pub(crate) fn agree<T: Debug>(&mut self, what: &str, outcome: &Result<T, hub::Error>) {
        self.record.note(|| format!("    {outcome:?}"));
        match outcome {
            Ok(_) => self.record.tally.count(what),
            Err(refusal) => self.record.tally.count(&format!("{what} refused: {refusal:?}")),
        }
        self.settle();
        self.compare_counts();
    }

    pub(crate) fn write(&mut self, channel: usize, text: &str, shown: Option<&Identity>) {
        let is_owner = self.names[channel].is_room() && self.random.once_in(3);
        let address = self.address();
        let from = (is_owner, address);
        self.begin(|| format!("write to {channel} by {shown:?} from {from:?}: {text:?}"));
        self.probe(channel);
        if !self.may_add("write", channel, is_owner, address) {
            return;
        }
        let key = self.names[channel].written(is_owner);
        if self.log.is_some() {
            let expected = self.model.propose_write(channel, text, is_owner, shown);
            let got = self.hub.propose_write(self.now, &key, text, shown.map(shows));
            assert_eq!(got, expected, "propose a message");
            return self.agree("write", &expected);
        }
        let expected = self.model.write(channel, text, is_owner, shown);
        let got = self.hub.write(self.now, &key, text, shown.map(shows));
        assert_eq!(got, expected, "write");
        self.agree("write", &expected);
    }

    pub(crate) fn introduce(&mut self, channel: usize, text: &str, shown: Option<&Identity>) {
        let is_owner = self.names[channel].is_room() && self.random.once_in(3);
        let by = command::Introducer { is_owner, address: self.address() };
        self.begin(|| format!("introduce to {channel} by {shown:?}, {by:?}: {text:?}"));
        self.probe(channel);
        if !self.may_add("introduce", channel, is_owner, by.address) {
            return;
        }
        let address = by.address.map(address_of);
        let auth = Auth::new(token(|| self.random.next() as u8));
        let own_auth = shown.map_or(auth.reveal(), |shown| &shown.auth).to_owned();
        let introducer =
            shown.map_or(Introducer::New(auth), |shown| Introducer::Existing(shows(shown)));
        let key = self.names[channel].written(is_owner);
        if self.log.is_some() {
            let expected = self.model.propose_introduction(channel, text, by, shown, &own_auth);
            let got = self.hub.propose_introduction(self.now, &key, text, &introducer, address);
            assert_eq!(got, expected, "propose an introduction");
            return self.agree("introduce", &expected);
        }
        let expected = self.model.introduce(channel, text, by, shown, &own_auth);
        let got = self.hub.introduce(self.now, &key, text, introducer, address);
        let got = got.map(|introduced| {
            assert_eq!(introduced.auth.reveal(), own_auth, "an introduction returns the secret");
            (introduced.session, introduced.id)
        });
        assert_eq!(got, expected, "introduce");
        self.agree("introduce", &expected);
        if let (None, Ok((session, _))) = (shown, expected) {
            self.identities.push(Identity { session, auth: own_auth });
        }
    }

    pub(crate) fn goodbye(&mut self, shown: &Identity, channel: Option<usize>, text: Option<&str>) {
        let address = self.address();
        self.begin(|| format!("goodbye to {channel:?} by {shown:?} from {address:?}: {text:?}"));
        if !self.may_leave(shown, channel, address) {
            return;
        }
        let key = channel.map(|channel| self.names[channel].written(false));
        let expected = if self.log.is_some() {
            let expected = self.model.propose_goodbye(shown, channel, text);
            let got = self.hub.propose_goodbye(self.now, shows(shown), key.as_ref(), text);
            assert_eq!(got, expected, "propose a goodbye");
            expected
        } else {
            let expected = self.model.goodbye(shown, channel, text);
            let got = self.hub.goodbye(self.now, shows(shown), key.as_ref(), text);
            assert_eq!(got, expected, "goodbye");
            expected
        };
        self.agree(if channel.is_some() { "goodbye to one" } else { "goodbye" }, &expected);
    }

    pub(crate) fn members(&mut self, channel: usize, after: u64) {
        self.begin(|| format!("members of {channel} after {after}"));
        let (expected, readers) = self.model.ask_members(channel, after);
        let members = self.hub.members(self.now, &self.names[channel].read(), after);
        assert_eq!(members.readers(), readers, "readers of a channel");
        let parse = |text: &[u8]| serde_json::from_slice::<String>(text).expect("a JSON string");
        let members = members.iter().map(|(from, its)| Message {
            id: its.id,
            kind: Type::Introduction,
            time: its.unix_ms,
            from: Some(from),
            is_owner: false,
            text: Some(parse(&its.text_json)),
            reason: None,
            of: None,
        });
        assert_eq!(members.collect::<Vec<_>>(), expected, "members");
        self.compare_counts();
    }

    pub(crate) fn pause(&mut self, client: u64) {
        self.begin(|| format!("pause {client}"));
        self.hub.pause(self.key_of(client));
        self.model.pause(client);
        self.compare_counts();
    }

    /// The life of a stream is over.
    pub(crate) fn end_stream(&mut self, client: u64) {
        self.begin(|| format!("end of stream {client}"));
        self.hub.complete_after_delivery(self.key_of(client));
        self.model.end_stream(client);
        self.compare_counts();
    }

    pub(crate) fn complete_all(&mut self) {
        self.begin(|| "complete all".to_owned());
        self.hub.complete_all_empty(self.now);
        self.model.complete_all();
        self.compare_counts();
    }

    pub(crate) fn wrong_half(&mut self, channel: usize) {
        self.begin(|| format!("wrong halves of {channel}"));
        let names = &self.names[channel];
        let [readable, writable] = names.halves();
        let [readable, writable] = [writable, readable].map(|it| ChannelName::parse(it).unwrap());
        let kind = names.secret.as_ref().map(|(kind, _)| *kind);
        let is_half = matches!(kind, Some(PairKind::Inbox | PairKind::Feed));
        assert_eq!(readable.for_reading().is_err(), is_half, "the write half is not readable");
        assert_eq!(writable.for_writing().is_err(), is_half, "the read half is not writable");
        self.compare_counts();
    }

    pub(crate) fn read(&mut self, ask: &Read) {
        self.begin(|| format!("{ask:?}"));
        ask.channels().into_iter().for_each(|channel| self.probe(channel));
        let expected = self.model.read(ask);
        let got = self.hub_read(ask);
        assert_eq!(got.as_ref().map(|(outcome, _)| outcome), expected.as_ref(), "read");
        let what = match (&expected, ask.wait) {
            (Ok(Outcome::Pends), _) => "read that waits",
            (_, Wait::On) => "stream",
            _ => "read",
        };
        self.agree(what, &expected);
        if let Ok((_, Some(key))) = got {
            self.reads.push((ask.client, key));
            if let Wait::Ms(wait_ms) = ask.wait {
                self.waits.insert((self.now.mono.after(wait_ms), ask.client), key);
            }
        }
        match expected {
            Ok(Outcome::Answer(answer)) => self.answered(ask.client, &answer, true),
            Ok(Outcome::Streams(answer)) => self.answered(ask.client, &answer, false),
            Ok(Outcome::Pends) | Err(_) => {}
        }
    }

    /// Returns the outcome, and the hub's key of the pending read.
    fn hub_read(&mut self, ask: &Read) -> Result<(Outcome, Option<ReaderKey>), hub::Error> {
        let follows = logs_of(&self.names, ask);
        self.hub.read(self.now, &call_of(ask, &follows)).map(|outcome| match outcome {
            ReadResult::Ready(reply) => (Outcome::Answer(answer_of(&reply)), None),
            ReadResult::Pending(key) => (Outcome::Pends, Some(key)),
            ReadResult::Streaming(key, reply) => (Outcome::Streams(answer_of(&reply)), Some(key)),
            ReadResult::Behind => unreachable!("there is no log"),
        })
    }

    /// Makes a client's stream follow other channels. `wait` counts for nothing.
    pub(crate) fn resubscribe(&mut self, ask: &Read) {
        self.begin(|| format!("resubscribe: {ask:?}"));
        ask.channels().into_iter().for_each(|channel| self.probe(channel));
        let key = self.key_of(ask.client);
        let expected = self.model.resubscribe(ask);
        let follows = logs_of(&self.names, ask);
        let got = self.hub.resubscribe(self.now, key, &call_of(ask, &follows));
        let got = got.map(|(new_key, reply)| {
            self.reads.push((ask.client, new_key));
            answer_of(&reply)
        });
        assert_eq!(got, expected, "the first answer of other channels");
        self.agree("resubscribe", &expected);
        if let Ok(answer) = expected {
            self.answered(ask.client, &answer, false);
        }
    }

    /// Returns the hub's key of a client's read, whether it is still pending or not.
    pub(crate) fn key_of(&self, client: u64) -> ReaderKey {
        let newest = self.reads.iter().rev().find(|(its, _)| *its == client);
        newest.expect("it was pending once").1
    }

    pub(crate) fn close(&mut self, client: u64) {
        self.begin(|| format!("close {client}"));
        self.hub.on_reader_closed(self.now, self.key_of(client));
        self.waits.retain(|(_, its), _| *its != client);
        let waits = self.model.is_pending(client);
        self.model.close(client);
        self.record.tally.count_if(!waits, "close of an answered read");
        for follower in self.followers.iter_mut().filter(|it| waits && it.client == Some(client)) {
            follower.client = None;
        }
        self.settle();
        self.compare_counts();
    }

    /// Lets the model learn where the ids of a channel that does not exist would continue.
    /// Such a read has no effect.
    pub(crate) fn probe(&mut self, channel: usize) {
        if self.model.exists(channel) {
            return;
        }
        let part = self.look(channel, Since::Now);
        assert!(part.is_nothing(), "there is no channel {channel}: {part:?}");
        self.model.learn_next_id(channel, part.next_id);
    }

    /// Reads at once, without the model.
    fn look(&mut self, channel: usize, since: Since) -> Part {
        let follows = vec![(channel, since)];
        let (epoch, shown, grace_ms) = (None, None, None);
        let ask = Read { client: 0, follows, epoch, shown, grace_ms, wait: Wait::Not };
        match self.hub_read(&ask) {
            Ok((Outcome::Answer(mut answer), None)) => answer.remove(0),
            other => unreachable!("it is answered at once: {other:?}"),
        }
    }

    /// Returns all that the hub retains from an id on, in as many reads as it takes.
    fn look_at_all(&mut self, channel: usize, from_id: u64) -> Vec<Message> {
        let (mut messages, mut from_id) = (Vec::new(), from_id);
        loop {
            let part = self.look(channel, Since::Id(from_id));
            assert!(!part.reset, "asked from {from_id}: {part:?}");
            if part.messages.is_empty() {
                return messages;
            }
            messages.extend(part.messages);
            from_id = part.next_id;
        }
    }

    /// Ends a turn: does all that is due, and delivers.
    pub(crate) fn end_turn(&mut self) {
        self.record.step(|| "end of turn".to_owned());
        while let Some(entry) =
            self.waits.first_entry().filter(|entry| entry.key().0 <= self.now.mono)
        {
            self.hub.complete_empty(self.now, entry.remove());
        }
        let is_due = self.hub.next_deadline().is_some_and(|at| at <= self.now.mono);
        if is_due || !self.plan.trusts_deadline {
            self.hub.expire(self.now);
        }
        for (channel, from_id) in self.model.expire() {
            self.learn_order(channel, from_id);
        }
        if !self.commit() {
            // Time has passed for the new process.
            return self.end_turn();
        }
        if self.plan.audits {
            self.audit();
        }
        self.deliver();
        self.compare_counts();
        assert_eq!(self.hub.gauges().messages, self.model.count_retained(), "messages retained");
        self.check_tally();
        self.check_deadline();
    }

    fn learn_order(&mut self, channel: usize, from_id: u64) {
        let seen = self.look_at_all(channel, from_id);
        self.record.step(|| format!("goodbyes at one time in {channel}: {seen:?}"));
        self.model.learn_order(channel, from_id, &seen);
        self.assert_retained(channel, from_id, &seen);
    }

    /// Compares all messages of this turn, also those that no client reads.
    fn audit(&mut self) {
        for (channel, first_id) in self.model.changed() {
            let seen = self.look_at_all(channel, first_id);
            self.assert_retained(channel, first_id, &seen);
        }
    }

    fn assert_retained(&self, channel: usize, from_id: u64, seen: &[Message]) {
        let retained = self.model.retained_messages(channel);
        let retained: Vec<_> = retained.filter(|message| message.id >= from_id).collect();
        let is_right = retained == seen;
        assert!(is_right, "channel {channel} from {from_id} on: {seen:#?}");
    }

    /// Claims that each message of this hub is retained, or was dropped for one of the reasons.
    fn check_tally(&self) {
        let tally = self.hub.stats();
        let added: u64 = tally.messages().iter().map(|(_, count)| count).sum();
        let dropped: u64 = DropReason::ALL.iter().map(|why| tally.dropped(*why)).sum();
        assert_eq!(self.restored + added, self.hub.gauges().messages as u64 + dropped, "{tally:?}");
    }

    pub(crate) fn compare_counts(&self) {
        let (census, model) = (self.hub.gauges(), &self.model);
        assert_eq!(census.channels, model.count_channels(), "channels");
        assert_eq!(census.sessions, model.sessions.len(), "sessions");
        assert_eq!(census.readers, model.pending.len(), "readers");
        let timed = census.channels + census.sessions;
        assert!(census.timers <= timed, "a timer for each at most: {census:?}");
        let max_channels = self.plan.limits.max_channels;
        let lasting = census.channels - model.count_dropping();
        // If the drop of a channel is refused, readers may keep the one that had its place.
        let has_limit = max_channels > 0 && !self.plan.disk_fills;
        assert!(!has_limit || lasting <= max_channels, "{census:?}");
    }

    /// Returns the time at which something is due, in the hub or because a long poll ends.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        let wait = self.waits.keys().next().map(|(at, _)| *at);
        [self.hub.next_deadline(), wait].into_iter().flatten().min()
    }

    /// Claims that the hub wakes no later than something happens, and sleeps if nothing ever will.
    fn check_deadline(&self) {
        let (now, deadline) = (self.now.mono, self.next_deadline());
        assert!(deadline.is_none_or(|at| at > now), "it would not sleep: {deadline:?} at {now:?}");
        if let Some(at_ms) = self.model.next_event_ms() {
            let is_early = deadline.is_some_and(|at| at.0 <= at_ms);
            assert!(is_early, "{deadline:?} is later than {at_ms}");
        } else {
            // A timer that was armed before a stream came may fire once more.
            assert!(deadline.is_none() || !self.model.pending.is_empty(), "nothing is to come");
        }
    }
}

fn draw_names(channel: usize, random: &mut Random) -> Names {
    if random.once_in(2) {
        let kind = random.pick(&[PairKind::Inbox, PairKind::Feed, PairKind::Room, PairKind::Room]);
        return Names::pair(kind, random);
    }
    let name = format!("{}{channel}", random.pick(&["room-", "Zimmer ", "ü✓", "a~"]));
    Names::public(name)
}

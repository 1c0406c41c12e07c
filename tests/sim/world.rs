//! The hub and the model, side by side: every call is made to both, every answer compared.

use std::collections::{BTreeMap, BTreeSet};

use speak::hub::{
    self, Auth, ChannelKey, ChannelName, Credentials, DropReason, Hub, Introducer, Millis, Mode,
    Now, Pair, ReadRequest, ReadResult, ReaderKey, ResumeBatch, Since, token,
};

use super::answers::Order;
use super::follower::Follower;
use super::message::{Answer, Message, answer_of};
use super::model::{Model, Shown};
use super::plan::Plan;
use super::random::Random;
use super::reads::{Outcome, Read, Wait};
use super::record::Record;
use super::twins;

/// One call, or what a client does to its connection.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Write {
        channel: usize,
        text: String,
        shown: Option<Shown>,
    },
    Introduce {
        channel: usize,
        text: String,
        shown: Option<Shown>,
    },
    Goodbye {
        shown: Shown,
        channel: Option<usize>,
        text: Option<String>,
    },
    Members {
        channel: usize,
    },
    Read(Read),
    PutOff {
        client: u64,
    },
    Resume {
        client: u64,
    },
    /// By the stream of that client, however it says that it waits.
    FollowAnew(Read),
    Close {
        client: u64,
    },
    DismissAll,
    WrongHalf {
        channel: usize,
    },
}

/// The two names of one log; the same one where it is not a pair.
struct Names {
    read: String,
    write: String,
}

impl Names {
    fn to_read(&self) -> ChannelKey<'_> {
        ChannelName::parse(&self.read).unwrap().for_reading().unwrap()
    }

    fn to_write(&self) -> ChannelKey<'_> {
        ChannelName::parse(&self.write).unwrap().for_writing().unwrap()
    }
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) record: Record,
    pub(crate) hub: Hub,
    pub(crate) model: Model,
    pub(crate) now: Now,
    /// Messages that this hub began with.
    pub(crate) restored: u64,
    /// The hub's, as its answers tell it.
    pub(crate) epoch: String,
    names: Vec<Names>,
    /// All that were ever introduced, the newest last.
    pub(crate) identities: Vec<Shown>,
    /// The hub's names of all reads that ever waited, the newest last.
    pub(crate) reads: Vec<(u64, ReaderKey)>,
    /// When each read that waits has waited long enough, as the server's clients keep it for the hub.
    pub(crate) waits: BTreeMap<(Millis, u64), ReaderKey>,
    pub(crate) followers: Vec<Follower>,
    clients: u64,
    /// Streams that go on in a row, and what the last of them was told.
    pub(crate) resumed: (ResumeBatch, Option<Answer>),
    /// Whoever has got its last answer.
    pub(crate) answered: BTreeSet<u64>,
}

fn shows(shown: &Shown) -> Credentials<'_> {
    Credentials { session: shown.connection, auth: &shown.auth }
}

fn logs_of<'a>(names: &'a [Names], ask: &Read) -> Vec<(ChannelKey<'a>, Since)> {
    ask.follows.iter().map(|(channel, since)| (names[*channel].to_read(), *since)).collect()
}

fn call_of<'a>(ask: &'a Read, targets: &'a [(ChannelKey<'a>, Since)]) -> ReadRequest<'a> {
    let mode = match ask.wait {
        Wait::Not => Mode::Immediate,
        Wait::Ms(_) => Mode::LongPoll,
        Wait::On => Mode::Stream,
    };
    let (epoch, credentials) = (ask.epoch.as_deref(), ask.shown.as_ref().map(shows));
    ReadRequest { targets, epoch, credentials, mode, token: ask.client }
}

impl World {
    pub(crate) fn new(mut random: Random, record: Record) -> Self {
        let plan = Plan::draw(&mut random);
        record.note(|| format!("{plan:?}"));
        let epoch = String::from_utf8(token::<8>(|| random.next() as u8).into())
            .expect("letters and digits");
        let mut names: Vec<_> =
            (0..plan.channels).map(|channel| draw_names(channel, &mut random)).collect();
        let mut resting_key = token(|| random.next() as u8);
        if plan.twins {
            resting_key = twins::KEY;
            for (its, twin) in names.iter_mut().zip(twins::twins()) {
                *its = Names { read: twin.clone(), write: twin.clone() };
            }
        }
        let followers = (0..plan.followers).map(|_| {
            let count = random.pick(&[1, 1, 2, 5]);
            Follower::new(random.places(plan.channels, count))
        });
        Self {
            followers: followers.collect(),
            restored: 0,
            hub: Hub::new(plan.limits.config(&epoch, resting_key)),
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
        }
    }

    /// A TCP connection that nobody had before.
    pub(crate) fn next_client(&mut self) -> u64 {
        self.clients += 1;
        self.clients
    }

    /// Makes a call to both and compares what they answer.
    pub(crate) fn call(&mut self, call: &Call) {
        self.record.step(|| format!("{call:?}"));
        if !matches!(call, Call::Resume { .. }) {
            self.resumed = Default::default();
        }
        match call {
            Call::Write { channel, text, shown } => self.write(*channel, text, shown.as_ref()),
            Call::Introduce { channel, text, shown } => {
                self.introduce(*channel, text, shown.as_ref());
            }
            Call::Goodbye { shown, channel, text } => {
                self.goodbye(shown, *channel, text.as_deref());
            }
            Call::Members { channel } => self.members(*channel),
            Call::Read(ask) => self.read(ask),
            Call::PutOff { client } => {
                self.hub.pause(self.key_of(*client));
                self.model.put_off(*client);
            }
            Call::Resume { client } => self.resume(*client),
            Call::FollowAnew(ask) => self.follow_anew(ask),
            Call::Close { client } => self.close(*client),
            Call::DismissAll => {
                self.hub.complete_all_empty(self.now);
                self.model.dismiss_all();
            }
            Call::WrongHalf { channel } => self.wrong_half(*channel),
        }
        self.compare_counts();
    }

    fn write(&mut self, channel: usize, text: &str, shown: Option<&Shown>) {
        self.probe(channel);
        let expected = self.model.write(channel, text, shown);
        let got = self.hub.write(self.now, &self.names[channel].to_write(), text, shown.map(shows));
        assert_eq!(got, expected, "write");
        self.record.outcome("write", &expected);
    }

    fn introduce(&mut self, channel: usize, text: &str, shown: Option<&Shown>) {
        self.probe(channel);
        let auth = Auth::new(token(|| self.random.next() as u8));
        let expected = self.model.introduce(channel, text, shown, auth.reveal());
        let own_auth = shown.map_or(auth.reveal(), |shown| &shown.auth).to_owned();
        let who = shown.map_or(Introducer::New(auth), |shown| Introducer::Existing(shows(shown)));
        let got = self.hub.introduce(self.now, &self.names[channel].to_write(), text, who);
        let got = got.map(|introduced| {
            assert_eq!(introduced.auth.reveal(), own_auth, "an introduction tells the secret");
            (introduced.session, introduced.id)
        });
        assert_eq!(got, expected, "introduce");
        self.record.outcome("introduce", &expected);
        if let (None, Ok((connection, _))) = (shown, expected) {
            self.identities.push(Shown { connection, auth: own_auth });
        }
    }

    fn goodbye(&mut self, shown: &Shown, channel: Option<usize>, text: Option<&str>) {
        let expected = self.model.goodbye(shown, channel, text);
        let log = channel.map(|channel| self.names[channel].to_write());
        let got = self.hub.goodbye(self.now, shows(shown), log.as_ref(), text);
        assert_eq!(got, expected, "goodbye");
        self.record
            .outcome(if channel.is_some() { "goodbye to one" } else { "goodbye" }, &expected);
    }

    fn members(&mut self, channel: usize) {
        let (expected, readers) = self.model.ask_members(channel);
        let members = self.hub.members(self.now, &self.names[channel].to_read());
        assert_eq!(members.readers(), readers, "readers of a channel");
        let as_told = |text: &[u8]| serde_json::from_slice::<String>(text).expect("a JSON string");
        let got = members
            .iter()
            .map(|(from, its)| (Some(from), its.id, its.unix_ms, Some(as_told(&its.text_json))));
        let expected = expected
            .into_iter()
            .map(|message| (message.from, message.id, message.time, message.text));
        assert_eq!(got.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "members");
    }

    fn wrong_half(&self, channel: usize) {
        let Names { read, write } = &self.names[channel];
        let is_pair = read != write;
        assert_eq!(
            ChannelName::parse(write).unwrap().for_reading().is_err(),
            is_pair,
            "the write half is not readable"
        );
        assert_eq!(
            ChannelName::parse(read).unwrap().for_writing().is_err(),
            is_pair,
            "the read half is not writable"
        );
    }

    fn read(&mut self, ask: &Read) {
        for (channel, _) in &ask.follows {
            self.probe(*channel);
        }
        let expected = self.model.read(ask);
        let got = self.hub_read(ask);
        assert_eq!(got.as_ref().map(|(outcome, _)| outcome), expected.as_ref(), "read");
        let what = match (&expected, ask.wait) {
            (Ok(Outcome::Waits), _) => "read that waits",
            (_, Wait::On) => "stream",
            _ => "read",
        };
        self.record.outcome(what, &expected);
        if let Ok((_, Some(key))) = got {
            self.reads.push((ask.client, key));
            if let Wait::Ms(wait_ms) = ask.wait {
                self.waits.insert((self.now.mono.after(wait_ms), ask.client), key);
            }
        }
        match expected {
            Ok(Outcome::Answer(answer)) => self.answered(ask.client, &answer, true),
            Ok(Outcome::Follows(answer)) => self.answered(ask.client, &answer, false),
            Ok(Outcome::Waits) | Err(_) => {}
        }
    }

    /// What comes of it, and the hub's name for the read that waits.
    fn hub_read(&mut self, ask: &Read) -> Result<(Outcome, Option<ReaderKey>), hub::Error> {
        let follows = logs_of(&self.names, ask);
        self.hub.read(self.now, &call_of(ask, &follows)).map(|outcome| match outcome {
            ReadResult::Ready(reply) => (Outcome::Answer(answer_of(&reply)), None),
            ReadResult::Pending(key) => (Outcome::Waits, Some(key)),
            ReadResult::Streaming(key, reply) => (Outcome::Follows(answer_of(&reply)), Some(key)),
        })
    }

    fn follow_anew(&mut self, ask: &Read) {
        for (channel, _) in &ask.follows {
            self.probe(*channel);
        }
        let key = self.key_of(ask.client);
        let expected = self.model.follow_anew(ask);
        let follows = logs_of(&self.names, ask);
        let got = self.hub.resubscribe(self.now, key, &call_of(ask, &follows));
        let got = got.map(|(new_key, reply)| (new_key, answer_of(&reply)));
        assert_eq!(
            got.as_ref().map(|(_, answer)| answer),
            expected.as_ref(),
            "what it follows anew"
        );
        self.record.outcome("follow anew", &expected);
        if let Ok((new_key, answer)) = got {
            self.reads.push((ask.client, new_key));
            self.answered(ask.client, &answer, false);
        }
    }

    /// The hub's name for the read of a client, whether it still waits or not.
    pub(crate) fn key_of(&self, client: u64) -> ReaderKey {
        let (_, key) =
            self.reads.iter().rev().find(|(its, _)| *its == client).expect("it waited once");
        *key
    }

    fn close(&mut self, client: u64) {
        self.hub.on_reader_closed(self.now, self.key_of(client));
        self.waits.retain(|(_, its), _| *its != client);
        let waits = self.model.waits(client);
        self.model.close(client);
        self.record.tally.count_if(!waits, "close of an answered read");
        if let Some(follower) =
            self.followers.iter_mut().find(|it| waits && it.client == Some(client))
        {
            follower.client = None;
        }
    }

    /// Lets the model know where the ids of a channel that does not exist would go on. Nothing comes of such a read.
    fn probe(&mut self, channel: usize) {
        if self.model.exists(channel) {
            return;
        }
        let answer = self.look(channel, Since::Now);
        let [part] = &answer[..] else { unreachable!("one channel was asked") };
        assert!(part.is_nothing(), "there is no channel {channel}: {part:?}");
        self.model.learn_next_id(channel, part.next_id);
    }

    /// Reads without waiting, past the model.
    fn look(&mut self, channel: usize, since: Since) -> Answer {
        let ask = Read {
            client: 0,
            follows: vec![(channel, since)],
            epoch: None,
            shown: None,
            wait: Wait::Not,
        };
        match self.hub_read(&ask) {
            Ok((Outcome::Answer(answer), None)) => answer,
            other => unreachable!("it does not wait, and needs nothing: {other:?}"),
        }
    }

    /// All that the hub retains from an id on, in as many reads as it takes.
    fn look_at_all(&mut self, channel: usize, from_id: u64) -> Vec<Message> {
        let (mut messages, mut from_id) = (Vec::new(), from_id);
        loop {
            let part = self.look(channel, Since::Id(from_id)).remove(0);
            assert!(!part.reset, "asked from {from_id}: {part:?}");
            if part.messages.is_empty() {
                return messages;
            }
            messages.extend(part.messages);
            from_id = part.next_id;
        }
    }

    /// The end of a turn: what is due is done, what came is delivered.
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
        for tie in self.model.expire() {
            self.learn_order(&tie);
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

    fn learn_order(&mut self, tie: &Order) {
        let seen = self.look_at_all(tie.channel, tie.from_id);
        self.record.step(|| format!("said goodbye at once in {}: {seen:?}", tie.channel));
        self.model.learn_order(tie, &seen);
        let expected =
            self.model.retained_messages(tie.channel).filter(|message| message.id >= tie.from_id);
        assert!(expected.eq(&seen), "goodbyes in channel {}: {seen:#?}", tie.channel);
    }

    /// Looks at all that this turn said, also where nobody else does.
    fn audit(&mut self) {
        for (channel, first_id) in self.model.changed() {
            let seen = self.look_at_all(channel, first_id);
            let expected: Vec<_> = self
                .model
                .retained_messages(channel)
                .filter(|message| message.id >= first_id)
                .cloned()
                .collect();
            assert_eq!(seen, expected, "channel {channel} from {first_id} on");
        }
    }

    /// Every message that ever was in this hub is retained, or was dropped for one of the reasons.
    fn check_tally(&self) {
        let tally = self.hub.stats();
        let added: u64 = tally.messages().iter().map(|(_, count)| count).sum();
        let dropped: u64 = DropReason::ALL.iter().map(|why| tally.dropped(*why)).sum();
        assert_eq!(self.restored + added, self.hub.gauges().messages as u64 + dropped, "{tally:?}");
    }

    fn compare_counts(&self) {
        let census = self.hub.gauges();
        let expected = self.model.counts();
        assert_eq!(census.channels, expected.channels, "channels");
        assert_eq!(census.sessions, expected.connections, "connections");
        assert_eq!(census.readers, expected.readers, "readers");
        let timed = census.channels + census.sessions;
        assert!(census.timers <= timed, "a timer for each at most: {census:?}");
        let max_channels = self.plan.limits.max_channels;
        assert!(max_channels == 0 || census.channels <= max_channels, "{census:?}");
    }

    /// When something is due, in the hub or because a read has waited long enough.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        let wait = self.waits.keys().next().map(|(at, _)| *at);
        [self.hub.next_deadline(), wait].into_iter().flatten().min()
    }

    /// The hub is woken no later than something happens, and sleeps where nothing ever will.
    fn check_deadline(&self) {
        let deadline = self.next_deadline();
        assert!(
            deadline.is_none_or(|at| at > self.now.mono),
            "it would not sleep: {deadline:?} at {:?}",
            self.now
        );
        match self.model.next_event_ms() {
            Some(at_ms) => assert!(
                deadline.is_some_and(|at| at.0 <= at_ms),
                "{deadline:?} is later than {at_ms}"
            ),
            // A timer that was set before a stream came may ring once more.
            None => assert!(deadline.is_none() || self.model.has_waiting(), "nothing is to come"),
        }
    }
}

fn draw_names(channel: usize, random: &mut Random) -> Names {
    if random.once_in(4) {
        let Pair { read, write } = Pair::new(token(|| random.next() as u8));
        return Names { read, write };
    }
    let name = format!("{}{channel}", random.pick(&["room-", "Zimmer ", "ü✓", "a~"]));
    Names { read: name.clone(), write: name }
}

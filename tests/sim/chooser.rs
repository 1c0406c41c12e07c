//! What happens next: dice, loaded by the plan towards where the limits are.

use speak::hub::{CHANNELS_PER_READ_MAX, CHANNELS_PER_SESSION_MAX, ID_MAX, Since};

use super::follower::Follower;
use super::model::Shown;
use super::plan::{Jump, Kind, LINGER_MS};
use super::reads::{Read, Wait};
use super::world::{Call, World};

impl World {
    /// A whole run: the turns of the plan, and then the end of everything.
    pub(crate) fn run(&mut self) {
        for _ in 0..self.plan.turns {
            self.jump();
            for _ in 0..self.random.below(self.plan.calls_per_turn_max + 1) {
                self.act();
            }
            self.end_turn();
        }
        self.finish();
    }

    fn jump(&mut self) {
        let deadline_ms = self.next_deadline().map_or(0, |at| at.0.saturating_sub(self.now.mono.0));
        let by_ms = match self.random.weighted(&self.plan.jumps) {
            Jump::Nowhere => 0,
            Jump::Tick => 1 + self.random.below(4),
            Jump::Short => self.random.below(300),
            Jump::ToDeadline => deadline_ms,
            Jump::AroundDeadline => (deadline_ms + self.random.below(3)).saturating_sub(1),
            Jump::ByLimit => {
                let limits = self.plan.limits;
                let wait_ms = self.random.pick(&self.plan.waits_ms);
                let limits_ms =
                    [wait_ms, limits.timeout_ms, limits.grace_ms, limits.retention_ms, LINGER_MS];
                (self.random.pick(&limits_ms) + self.random.below(3)).saturating_sub(1)
            }
            Jump::Long => self.random.below(400_000),
        };
        self.go_on(by_ms);
    }

    /// Begins a turn.
    fn go_on(&mut self, by_ms: u64) {
        self.now.mono = self.now.mono.after(by_ms);
        self.now.unix_ms += by_ms;
        if self.plan.wall_clock_jumps && self.random.once_in(8) {
            self.now.unix_ms = 1_000_000_000_000 + self.random.below(1_000_000_000_000);
        }
        let now = self.now;
        self.record.note(|| format!("-- {by_ms} ms later: {now:?}"));
        self.model.begin_turn(now);
    }

    fn act(&mut self) {
        let channel = self.random.index(self.plan.channels);
        match self.random.weighted(&self.plan.kinds) {
            Kind::Write => self.write_one(channel),
            Kind::Burst => self.burst(channel),
            Kind::JoinAsNew if self.model.living().len() < self.plan.connections_max => {
                self.join(channel, None);
            }
            Kind::JoinAsNew | Kind::JoinAgain => {
                let shown = self.somebody();
                self.join(channel, shown);
            }
            Kind::JoinMany => self.join_many(),
            Kind::Leave | Kind::LeaveOne if self.identities.is_empty() => {}
            kind @ (Kind::Leave | Kind::LeaveOne) => {
                let Some(shown) = self.somebody() else { return };
                let text = if self.random.once_in(2) { Some(self.text()) } else { None };
                let channel = (kind == Kind::LeaveOne).then(|| self.channel_of(&shown, channel));
                self.call(&Call::Goodbye { shown, channel, text });
            }
            Kind::Read => self.read_something(),
            Kind::Crowd => self.crowd(channel),
            Kind::Household => self.same_session_reads(),
            Kind::Follow => self.follow(),
            Kind::PutOff => self.put_off_one(),
            Kind::Resume => self.resume_one(),
            Kind::FollowAnew => self.follow_anew_by_one(),
            Kind::Members => self.call(&Call::Members { channel }),
            Kind::Close => self.close_one(),
            Kind::Vanish => self.drop_client(),
            Kind::DismissAll => self.call(&Call::DismissAll),
            Kind::WrongHalf => self.call(&Call::WrongHalf { channel }),
            Kind::MoveHouse => self.restore_from_snapshot(),
        }
    }

    fn write_one(&mut self, channel: usize) {
        let (text, shown) = (self.text(), self.random_session_or_none());
        self.call(&Call::Write { channel, text, shown });
    }

    fn burst(&mut self, channel: usize) {
        let (few, many) = (self.random.pick(&[2, 4]), self.random.pick(&[99, 100, 101, 130]));
        for _ in 0..if matches!(self.plan.limits.history, 0 | 100) { many } else { few } {
            self.write_one(channel);
        }
    }

    fn join(&mut self, channel: usize, shown: Option<Shown>) {
        let text = self.text();
        self.call(&Call::Introduce { channel, text, shown });
    }

    fn join_many(&mut self) {
        let Some(shown) = self.somebody() else { return };
        for channel in self.random.places(self.plan.channels, CHANNELS_PER_SESSION_MAX + 3) {
            self.join(channel, Some(shown.clone()));
        }
    }

    fn close_one(&mut self) {
        let mut clients = self.model.waiting_clients();
        let in_grace = self.model.waiting_in_grace();
        if !in_grace.is_empty() && self.random.once_in(2) {
            clients = in_grace;
        } else if self.random.once_in(8) {
            // Perhaps one that was answered: its client does not know yet.
            clients = self.reads.iter().rev().take(3).map(|(client, _)| *client).collect();
        }
        if !clients.is_empty() {
            let client = self.random.pick(&clients);
            self.call(&Call::Close { client });
        }
    }

    /// In as many turns as it has reads; the grace runs from the first.
    fn drop_client(&mut self) {
        let living = self.model.living();
        if living.is_empty() {
            return;
        }
        let connection = self.random.pick(&living);
        while let Some(client) = self.model.waiting_with(connection) {
            if self.model.streaming_clients().contains(&client) && self.random.once_in(3) {
                self.follow_anew_by(client);
            }
            self.call(&Call::Close { client });
            self.end_turn();
            let by_ms = self.random.below(self.plan.limits.grace_ms / 2 + 2);
            self.go_on(by_ms);
        }
    }

    /// Mostly one that it is in.
    fn channel_of(&mut self, shown: &Shown, other: usize) -> usize {
        let its = self.model.memberships(shown.connection);
        if its.is_empty() || self.random.once_in(4) { other } else { self.random.pick(&its) }
    }

    fn text(&mut self) -> String {
        let number = self.record.steps;
        match self.random.below(24) {
            0 => String::new(),
            1 => format!("\"{number}\" \\ \n\u{1}"),
            2 => format!("\u{2028}{number}\u{2029}\u{2027}"),
            3 => format!("ü ✓ 😀 {number}"),
            4 => "x".repeat(60 + self.random.index(300)),
            _ => number.to_string(),
        }
    }

    fn random_session_or_none(&mut self) -> Option<Shown> {
        if self.random.once_in(self.plan.anonymous_once_in) { None } else { self.somebody() }
    }

    /// Somebody who lives, mostly; else somebody whose time is over, or who lies.
    fn somebody(&mut self) -> Option<Shown> {
        let living = self.model.living();
        if self.random.below(10) > 0 && !living.is_empty() {
            let number = self.random.pick(&living);
            return self.identities.iter().find(|shown| shown.connection == number).cloned();
        }
        if self.identities.is_empty() || (living.is_empty() && self.random.below(4) > 0) {
            return None;
        }
        let mut shown = self.random.pick(&self.identities);
        match self.random.below(6) {
            0 => shown.auth = self.random.pick(&self.identities).auth,
            1 => shown.auth.clear(),
            2 => drop(shown.auth.pop()),
            3 => shown.connection = self.random.pick(&[0, ID_MAX, shown.connection + 1]),
            _ => {}
        }
        Some(shown)
    }

    fn read_something(&mut self) {
        let (channels, shown) =
            if self.random.once_in(3) { self.like_another() } else { self.like_none() };
        let (follows, epoch) = (self.begin_anywhere(channels), self.some_epoch());
        let (client, wait) = (self.next_client(), self.wait());
        self.call(&Call::Read(Read { client, follows, epoch, shown, wait }));
    }

    fn begin_anywhere(&mut self, channels: Vec<usize>) -> Vec<(usize, Since)> {
        let absent = self.random.once_in(3);
        let since = |channel| (channel, if absent { Since::Now } else { self.since(channel) });
        channels.into_iter().map(since).collect()
    }

    fn some_epoch(&mut self) -> Option<String> {
        match self.random.below(8) {
            0 => Some("elsewhere".to_owned()),
            1..=3 => Some(self.epoch.clone()),
            _ => None,
        }
    }

    /// Mostly from one place. What comes next may be more than history retains, and then they differ.
    fn crowd(&mut self, channel: usize) {
        let since = self.since(channel);
        for _ in 0..2 + self.random.below(4) {
            let since = if self.random.once_in(3) { self.since(channel) } else { since };
            let (client, shown, wait) =
                (self.next_client(), self.random_session_or_none(), self.wait());
            self.call(&Call::Read(Read {
                client,
                follows: vec![(channel, since)],
                epoch: None,
                shown,
                wait,
            }));
        }
        if self.random.once_in(6) {
            let shown = self.random_session_or_none();
            self.join(channel, shown);
            self.burst(channel);
        }
    }

    fn same_session_reads(&mut self) {
        let shown = self.somebody();
        for channel in self.random.places(self.plan.channels, 3) {
            let follows = vec![(channel, self.since(channel))];
            let (client, shown, wait) = (self.next_client(), shown.clone(), self.wait());
            self.call(&Call::Read(Read { client, follows, epoch: None, shown, wait }));
        }
    }

    fn like_none(&mut self) -> (Vec<usize>, Option<Shown>) {
        let count = self.random.pick(&[1, 1, 1, 2, 3, 6, CHANNELS_PER_READ_MAX]);
        (self.random.places(self.plan.channels, count), self.random_session_or_none())
    }

    /// By the same connection as one that waits, on the same channels or nearly.
    fn like_another(&mut self) -> (Vec<usize>, Option<Shown>) {
        let waiting = self.model.waiting_clients();
        if waiting.is_empty() {
            return self.like_none();
        }
        let (mut channels, shown) = self.model.waits_for(self.random.pick(&waiting));
        let first = self.random.index(channels.len());
        channels.rotate_left(first);
        match self.random.below(5) {
            0 if channels.len() > 1 => drop(channels.pop()),
            1 => {
                let others: Vec<_> =
                    (0..self.plan.channels).filter(|channel| !channels.contains(channel)).collect();
                if !others.is_empty() && channels.len() < CHANNELS_PER_READ_MAX {
                    channels.push(self.random.pick(&others));
                }
            }
            _ => {}
        }
        (channels, shown)
    }

    fn wait(&mut self) -> Wait {
        match self.random.below(5) {
            0 => Wait::Not,
            _ if self.random.below(10) < self.plan.streams_in_ten => Wait::On,
            _ => Wait::Ms(self.random.pick(&self.plan.waits_ms)),
        }
    }

    fn since(&mut self, channel: usize) -> Since {
        let next_id = self.model.next_id(channel);
        match self.random.below(12) {
            0..=2 => Since::All,
            3 => Since::Last(self.random.pick(&[1, 2, 5, ID_MAX])),
            4 => Since::Now,
            5 => Since::Id(1),
            6 => Since::Id(1 + self.random.below(next_id)),
            7 => Since::Id(
                next_id.saturating_sub(self.plan.limits.history + self.random.below(3)).max(1),
            ),
            8 => Since::Id(self.random.pick(&[next_id + 1, ID_MAX])),
            _ => Since::Id(next_id),
        }
    }

    /// Has one that waits for nothing go on.
    fn follow(&mut self) {
        let idle: Vec<_> = (0..self.followers.len())
            .filter(|place| self.followers[*place].client.is_none())
            .collect();
        if idle.is_empty() {
            return;
        }
        let place = self.random.pick(&idle);
        let epoch = Some(self.epoch.clone());
        let (wait, shown) = (self.wait(), self.random_session_or_none());
        let client = self.let_follow(place, epoch, shown, wait);
        // Where the call was refused it is free to go on.
        let follower = &mut self.followers[place];
        follower.client = follower.client.filter(|_| self.model.waits(client));
    }

    fn let_follow(
        &mut self,
        place: usize,
        epoch: Option<String>,
        shown: Option<Shown>,
        wait: Wait,
    ) -> u64 {
        let client = self.next_client();
        let follower = &mut self.followers[place];
        follower.client = Some(client);
        let follows = follower.follows();
        self.call(&Call::Read(Read { client, follows, epoch, shown, wait }));
        client
    }

    fn put_off_one(&mut self) {
        let clients = self.model.streaming_clients();
        if !clients.is_empty() {
            let client = self.random.pick(&clients);
            self.call(&Call::PutOff { client });
        }
    }

    /// One that is behind, mostly.
    fn resume_one(&mut self) {
        let mut clients = self.model.clients_behind();
        if clients.is_empty() || self.random.once_in(8) {
            clients = self.reads.iter().rev().take(3).map(|(client, _)| *client).collect();
        }
        if !clients.is_empty() {
            let client = self.random.pick(&clients);
            self.may_say_goodbye(client);
            self.call(&Call::Resume { client });
        }
    }

    /// The connection of one that waits ends, now and then.
    fn may_say_goodbye(&mut self, client: u64) {
        let waits = self.model.waits(client) && self.random.once_in(3);
        if let Some((_, Some(shown))) = waits.then(|| self.model.waits_for(client)) {
            self.call(&Call::Goodbye { shown, channel: None, text: None });
        }
    }

    fn follow_anew_by_one(&mut self) {
        let clients = self.model.streaming_clients();
        if !clients.is_empty() {
            let client = self.random.pick(&clients);
            self.may_say_goodbye(client);
            self.follow_anew_by(client);
        }
    }

    /// A follower asks for its own channels again, since it is to see all of them.
    fn follow_anew_by(&mut self, client: u64) {
        let follower = self.followers.iter().find(|follower| follower.client == Some(client));
        let (follows, epoch) = if let Some(follower) = follower {
            (follower.follows(), Some(self.epoch.clone()))
        } else {
            let (channels, _) =
                if self.random.once_in(3) { self.like_another() } else { self.like_none() };
            (self.begin_anywhere(channels), self.some_epoch())
        };
        let (shown, wait) = (self.random_session_or_none(), self.wait());
        self.call(&Call::FollowAnew(Read { client, follows, epoch, shown, wait }));
    }

    /// All clients go, time passes, and nothing must be left.
    fn finish(&mut self) {
        self.go_on(1);
        match self.random.below(3) {
            0 => self.call(&Call::DismissAll),
            1 => {
                for client in self.model.waiting_clients() {
                    self.call(&Call::Close { client });
                }
            }
            _ => {}
        }
        self.end_turn();
        self.go_on(400_000);
        self.end_turn();
        self.end_streams();
        for place in 0..self.followers.len() {
            self.read_to_the_end(place);
        }
        self.end_turn();
        if self.random.once_in(2) {
            self.sleep_and_wake();
        } else {
            self.sleep_long();
        }
        let left = self.hub.gauges();
        let nothing =
            speak::hub::Gauges { channels: 0, sessions: 0, readers: 0, timers: 0, messages: 0 };
        assert_eq!(left, nothing, "everybody is gone");
        assert_eq!(self.next_deadline(), None, "nothing is to come");
        self.model.assert_all_said_goodbye();
    }

    /// They alone wait for ever.
    fn end_streams(&mut self) {
        let streams = self.model.streaming_clients();
        assert_eq!(self.model.waiting_clients(), streams);
        if self.random.once_in(4) {
            self.sleep_and_wake();
        }
        while let Some(client) =
            self.model.clients_behind().first().copied().filter(|_| self.random.below(20) > 0)
        {
            self.call(&Call::Resume { client });
        }
        for client in streams {
            self.call(&Call::Close { client });
        }
        self.end_turn();
    }

    fn read_to_the_end(&mut self, place: usize) {
        loop {
            let before = self.followers[place].follows();
            self.let_follow(place, None, None, Wait::Not);
            if self.followers[place].follows() == before {
                break;
            }
        }
        let model = &self.model;
        let was_given = |channel, id| model.messages_ever(channel).any(|message| message.id == id);
        Follower::assert_saw_all(
            &self.followers[place],
            |channel| model.next_id(channel),
            was_given,
        );
    }

    /// As the loop does: until the deadline, again and again.
    fn sleep_and_wake(&mut self) {
        let timers = self.hub.gauges().timers;
        let mut in_vain = 0;
        while let Some(at) = self.next_deadline() {
            in_vain +=
                usize::from(self.model.next_event_ms().is_none_or(|event_ms| event_ms > at.0));
            self.go_on(at.0 - self.now.mono.0);
            self.end_turn();
        }
        assert!(
            in_vain <= 2 * timers + 4,
            "it is woken for nothing: {in_vain} times, with {timers} timers"
        );
    }

    /// As a machine that was asleep does.
    fn sleep_long(&mut self) {
        let limits = self.plan.limits;
        for by_ms in [500_000, limits.timeout_ms + limits.grace_ms, limits.retention_ms, LINGER_MS]
        {
            self.go_on(by_ms);
            self.end_turn();
        }
    }
}

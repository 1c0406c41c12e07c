//! The next step: dice, loaded by the plan towards the limits.

use speak::hub::{
    CHANNELS_PER_READ_MAX, CHANNELS_PER_SESSION_MAX, Gauges, ID_MAX, LogHealth, Since,
};

use super::pending::{Identity, Pending, Read, Wait};
use super::plan::{IDLE_CHANNEL_MS, Jump, Kind};
use super::world::World;

impl World {
    /// Runs the turns of the plan, and then the end.
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
                let limits_ms = [
                    wait_ms,
                    limits.timeout_ms,
                    limits.grace_ms,
                    limits.retention_ms,
                    IDLE_CHANNEL_MS,
                ];
                (self.random.pick(&limits_ms) + self.random.below(3)).saturating_sub(1)
            }
            Jump::Long => self.random.below(400_000),
        };
        self.advance(by_ms);
    }

    /// Begins a turn.
    fn advance(&mut self, by_ms: u64) {
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
                let shown = self.any_identity();
                self.join(channel, shown.as_ref());
            }
            Kind::JoinMany => self.join_many(),
            Kind::Leave | Kind::LeaveOne if self.identities.is_empty() => {}
            kind @ (Kind::Leave | Kind::LeaveOne) => {
                let Some(shown) = self.any_identity() else { return };
                let text = self.random.once_in(2).then(|| self.text());
                let channel = (kind == Kind::LeaveOne).then(|| self.channel_of(&shown, channel));
                self.goodbye(&shown, channel, text.as_deref());
            }
            Kind::Remove => {
                let next_id = self.model.next_id(channel);
                let id = self.random.pick(&[0, next_id, next_id.saturating_sub(1), next_id / 2]);
                let id = if self.random.once_in(2) { self.random.below(next_id + 1) } else { id };
                self.remove(channel, id);
            }
            Kind::Kick => self.kick_one(channel),
            Kind::Read => self.read_something(),
            Kind::Crowd => self.crowd(channel),
            Kind::SameSession => self.same_session_reads(),
            Kind::Follow => self.follow(),
            Kind::Pause => self.pause_one(),
            Kind::Resume => self.resume_one(),
            Kind::Resubscribe => self.resubscribe_one(),
            Kind::EndStream => self.end_one_stream(),
            Kind::Members => {
                let shown = if self.random.once_in(2) { self.any_identity() } else { None };
                self.members(channel, shown.map_or(0, |it| it.session));
            }
            Kind::Close => self.close_one(),
            Kind::DropClient => self.drop_client(),
            Kind::CompleteAll => self.complete_all(),
            Kind::WrongHalf => self.wrong_half(channel),
            Kind::Restore => self.restore_from_snapshot(),
            Kind::Checkpoint => self.continue_checkpoint(),
            Kind::Crash => self.crash(),
            Kind::Health => self.change_health(),
        }
    }

    fn write_one(&mut self, channel: usize) {
        let (text, shown) = (self.text(), self.random_session_or_none());
        self.write(channel, &text, shown.as_ref());
    }

    fn kick_one(&mut self, channel: usize) {
        let shown = self.any_identity();
        let session = shown.as_ref().map_or(0, |shown| shown.session);
        let channel = shown.map_or(channel, |shown| self.channel_of(&shown, channel));
        let seconds = self.random.pick(&[0, 0, 1, 30, 300]);
        let text = self.random.once_in(2).then(|| self.text());
        self.kick(channel, session, seconds, text.as_deref());
    }

    /// Returns the address of a client, which may have none.
    pub(crate) fn address(&mut self) -> Option<u64> {
        self.random.pick(&[None, Some(1), Some(1), Some(7), Some(u64::MAX)])
    }

    fn burst(&mut self, channel: usize) {
        let (few, many) = (self.random.pick(&[2, 4]), self.random.pick(&[99, 100, 101, 130]));
        for _ in 0..if matches!(self.plan.limits.history, 0 | 100) { many } else { few } {
            self.write_one(channel);
        }
    }

    fn join(&mut self, channel: usize, shown: Option<&Identity>) {
        let text = self.text();
        self.introduce(channel, &text, shown);
    }

    fn join_many(&mut self) {
        let Some(shown) = self.any_identity() else { return };
        for channel in self.random.indexes(self.plan.channels, CHANNELS_PER_SESSION_MAX + 3) {
            self.join(channel, Some(&shown));
        }
    }

    fn close_one(&mut self) {
        let mut clients = self.model.clients(|_| true);
        let in_grace = self.model.pending_in_grace();
        if !in_grace.is_empty() && self.random.once_in(2) {
            clients = in_grace;
        } else if self.random.once_in(8) {
            // Maybe one that was answered: its client does not know yet.
            clients = self.newest_clients();
        }
        if let Some(client) = self.random.pick_any(&clients) {
            self.close(client);
        }
    }

    /// Returns the clients of the newest reads, whether these are still pending or not.
    fn newest_clients(&self) -> Vec<u64> {
        self.reads.iter().rev().take(3).map(|(client, _)| *client).collect()
    }

    /// Closes the reads of a session, in as many turns; the grace begins with the first.
    fn drop_client(&mut self) {
        let session = self.random.pick_any(&self.model.living());
        let is_its = |read: &&Pending| session.is_some() && read.session == session;
        while let Some(read) = self.model.pending.iter().find(is_its) {
            let (client, is_stream) = (read.client, read.is_stream);
            if is_stream && self.random.once_in(3) {
                self.resubscribe_by(client);
            }
            self.close(client);
            self.end_turn();
            let by_ms = self.random.below(self.plan.limits.grace_ms / 2 + 2);
            self.advance(by_ms);
        }
    }

    /// Returns a channel, mostly one that the session is a member of.
    fn channel_of(&mut self, shown: &Identity, other: usize) -> usize {
        let its = self.model.memberships(shown.session);
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

    fn random_session_or_none(&mut self) -> Option<Identity> {
        if self.random.once_in(self.plan.anonymous_once_in) { None } else { self.any_identity() }
    }

    /// Returns a session that lives, mostly; else one that ended, or wrong credentials.
    fn any_identity(&mut self) -> Option<Identity> {
        let living = self.model.living();
        if self.random.below(10) > 0 && !living.is_empty() {
            let number = self.random.pick(&living);
            return self.identities.iter().find(|shown| shown.session == number).cloned();
        }
        if self.identities.is_empty() || (living.is_empty() && self.random.below(4) > 0) {
            return None;
        }
        let mut shown = self.random.pick(&self.identities);
        match self.random.below(6) {
            0 => shown.auth = self.random.pick(&self.identities).auth,
            1 => shown.auth.clear(),
            2 => drop(shown.auth.pop()),
            3 => shown.session = self.random.pick(&[0, ID_MAX, shown.session + 1]),
            _ => {}
        }
        Some(shown)
    }

    fn read_something(&mut self) {
        let (channels, shown) =
            if self.random.once_in(3) { self.like_another() } else { self.like_none() };
        let (follows, epoch) = (self.begin_anywhere(channels), self.some_epoch());
        let (client, grace_ms, wait) = (self.next_client(), self.grace(), self.wait());
        self.read(&Read { client, follows, epoch, shown, grace_ms, wait });
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

    /// Several reads, mostly from one id. If more comes than history retains, they differ.
    fn crowd(&mut self, channel: usize) {
        let since = self.since(channel);
        for _ in 0..2 + self.random.below(4) {
            let since = if self.random.once_in(3) { self.since(channel) } else { since };
            let shown = self.random_session_or_none();
            self.read_one(channel, since, shown);
        }
        if self.random.once_in(6) {
            let shown = self.random_session_or_none();
            self.join(channel, shown.as_ref());
            self.burst(channel);
        }
    }

    fn same_session_reads(&mut self) {
        let shown = self.any_identity();
        for channel in self.random.indexes(self.plan.channels, 3) {
            let since = self.since(channel);
            self.read_one(channel, since, shown.clone());
        }
    }

    fn read_one(&mut self, channel: usize, since: Since, shown: Option<Identity>) {
        let (client, grace_ms, wait) = (self.next_client(), self.grace(), self.wait());
        let (follows, epoch) = (vec![(channel, since)], None);
        self.read(&Read { client, follows, epoch, shown, grace_ms, wait });
    }

    fn like_none(&mut self) -> (Vec<usize>, Option<Identity>) {
        let count = self.random.pick(&[1, 1, 1, 2, 3, 6, CHANNELS_PER_READ_MAX]);
        (self.random.indexes(self.plan.channels, count), self.random_session_or_none())
    }

    /// Returns the session of a pending read, and the same channels or nearly.
    fn like_another(&mut self) -> (Vec<usize>, Option<Identity>) {
        let Some(client) = self.random.pick_any(&self.model.clients(|_| true)) else {
            return self.like_none();
        };
        let (mut channels, shown) = self.model.pending_of(client);
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

    fn grace(&mut self) -> Option<u64> {
        let once_in = self.plan.grace_once_in;
        let has_grace = once_in > 0 && self.random.once_in(once_in);
        has_grace.then(|| self.random.pick(&[0, 5, 400, 6_000, u64::MAX]))
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

    /// Lets an idle follower continue.
    fn follow(&mut self) {
        let idle: Vec<_> = (0..self.followers.len())
            .filter(|place| self.followers[*place].client.is_none())
            .collect();
        let Some(place) = self.random.pick_any(&idle) else { return };
        let epoch = Some(self.epoch.clone());
        let (wait, shown) = (self.wait(), self.random_session_or_none());
        let client = self.let_follow(place, epoch, shown, wait);
        // If the call was refused, it may continue.
        let follower = &mut self.followers[place];
        follower.client = follower.client.filter(|_| self.model.is_pending(client));
    }

    fn let_follow(
        &mut self,
        place: usize,
        epoch: Option<String>,
        shown: Option<Identity>,
        wait: Wait,
    ) -> u64 {
        let client = self.next_client();
        let follower = &mut self.followers[place];
        follower.client = Some(client);
        let follows = follower.follows();
        let grace_ms = self.grace();
        self.read(&Read { client, follows, epoch, shown, grace_ms, wait });
        client
    }

    fn pause_one(&mut self) {
        if let Some(client) = self.any_stream() {
            self.pause(client);
        }
    }

    fn any_stream(&mut self) -> Option<u64> {
        self.random.pick_any(&self.model.clients(|read| read.is_stream))
    }

    /// Resumes a stream, mostly a paused one.
    fn resume_one(&mut self) {
        let mut clients = self.model.clients(|read| read.is_paused);
        if clients.is_empty() || self.random.once_in(8) {
            clients = self.newest_clients();
        }
        if let Some(client) = self.random.pick_any(&clients) {
            self.may_say_goodbye(client);
            self.resume(client);
        }
    }

    /// Ends the session of a pending read, now and then.
    fn may_say_goodbye(&mut self, client: u64) {
        let waits = self.model.is_pending(client) && self.random.once_in(3);
        if let Some((_, Some(shown))) = waits.then(|| self.model.pending_of(client)) {
            self.goodbye(&shown, None, None);
        }
    }

    fn resubscribe_one(&mut self) {
        if let Some(client) = self.any_stream() {
            self.may_say_goodbye(client);
            self.resubscribe_by(client);
        }
    }

    fn end_one_stream(&mut self) {
        if let Some(client) = self.any_stream() {
            self.end_stream(client);
        }
    }

    /// A follower asks for its own channels again, since it is to see all of them.
    fn resubscribe_by(&mut self, client: u64) {
        let follower = self.followers.iter().find(|follower| follower.client == Some(client));
        let (follows, epoch) = if let Some(follower) = follower {
            (follower.follows(), Some(self.epoch.clone()))
        } else {
            let (channels, _) =
                if self.random.once_in(3) { self.like_another() } else { self.like_none() };
            (self.begin_anywhere(channels), self.some_epoch())
        };
        let (shown, grace_ms, wait) = (self.random_session_or_none(), self.grace(), self.wait());
        self.resubscribe(&Read { client, follows, epoch, shown, grace_ms, wait });
    }

    /// All clients go, time passes, and nothing must be left.
    fn finish(&mut self) {
        (self.plan.disk_fills, self.plan.has_others) = (false, false);
        if let Some(machine) = self.machine() {
            machine.heal();
        }
        if self.loses_records() {
            return self.lose_records();
        }
        if self.log.is_some() {
            self.crash();
            self.set_health(LogHealth::Good);
        }
        self.advance(1);
        match self.random.below(3) {
            0 => self.complete_all(),
            1 => self.close_all(self.model.clients(|_| true)),
            _ => {}
        }
        self.end_turn();
        self.advance(400_000);
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
        let nothing = Gauges { channels: 0, sessions: 0, readers: 0, timers: 0, messages: 0 };
        assert_eq!(left, nothing, "all are gone");
        assert_eq!(self.next_deadline(), None, "nothing is to come");
        self.model.assert_all_said_goodbye();
    }

    /// Draws whether the run ends with a loss of power that may lose records.
    fn loses_records(&mut self) -> bool {
        let may_lose = self.machine().is_some_and(|machine| machine.may_lose_records());
        may_lose && self.random.once_in(2)
    }

    /// Ends the streams, which alone are pending for ever.
    fn end_streams(&mut self) {
        let streams = self.model.clients(|read| read.is_stream);
        assert_eq!(self.model.clients(|_| true), streams);
        if self.random.once_in(4) {
            self.sleep_and_wake();
        }
        while let [client, ..] = self.model.clients(|read| read.is_paused)[..]
            && self.random.below(20) > 0
        {
            self.resume(client);
        }
        self.close_all(streams);
        self.end_turn();
    }

    fn close_all(&mut self, clients: Vec<u64>) {
        for client in clients {
            self.close(client);
        }
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
        self.followers[place].assert_saw_all(|channel| model.next_id(channel), was_given);
    }

    /// Sleeps as the loop does: until the deadline, again and again.
    fn sleep_and_wake(&mut self) {
        let timers = self.hub.gauges().timers;
        let mut in_vain = 0;
        while let Some(at) = self.next_deadline() {
            let next = self.model.next_event_ms();
            in_vain += usize::from(next.is_none_or(|event_ms| event_ms > at.0));
            self.advance(at.0 - self.now.mono.0);
            self.end_turn();
        }
        let most = 2 * timers + 4;
        assert!(in_vain <= most, "woken for nothing: {in_vain} times, with {timers} timers");
    }

    /// Sleeps as a suspended machine does.
    fn sleep_long(&mut self) {
        let limits = self.plan.limits;
        for by_ms in
            [500_000, limits.timeout_ms + limits.grace_ms, limits.retention_ms, IDLE_CHANNEL_MS]
        {
            self.advance(by_ms);
            self.end_turn();
        }
    }
}

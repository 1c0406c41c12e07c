//! The hub's housekeeping: how channels, connections and waiting reads come, are watched, and go.

use super::channel::{Channel, Part};
use super::connection::{Connection, Credentials};
use super::hub::{Alarm, Hub, LINGER_MS, ReadCall, Refusal};
use super::ids::Auth;
use super::message::{Content, Reason};
use super::pair::LogName;
use super::reader::{Promise, Reader, ReaderKey, Seat, Seats, Since};
use super::time::{Millis, Now};
use super::timer_wheel::{TimerId, TimerWheel};

/// Channels.
impl Hub {
    pub(super) fn find(&self, log: &LogName<'_>) -> Option<u32> {
        self.names.get(log.as_str()).copied()
    }

    /// # Errors
    ///
    /// [`Refusal::OverCapacity`] if those of `logs` that do not exist are more than may be added.
    pub(super) fn room_for<'a>(&self, logs: impl IntoIterator<Item = &'a LogName<'a>>) -> Result<(), Refusal> {
        if self.config.max_channels == 0 {
            return Ok(());
        }
        let new = logs.into_iter().filter(|log| self.find(log).is_none()).count();
        // Also with fewer channels allowed than there are, calls on those that exist go on.
        if new > 0 && self.channels.len() + new > self.config.max_channels {
            return Err(Refusal::OverCapacity);
        }
        Ok(())
    }

    /// The channel of that name; it exists from its first use.
    pub(super) fn channel_at(&mut self, log: &LogName<'_>, now: Millis) -> u32 {
        if let Some(place) = self.find(log) {
            return place;
        }
        let name = log.as_str();
        let channel = Channel::new(name, self.resting_ids.first_id(name), now);
        let place = self.channels.insert(channel) as u32;
        self.names.insert(name.into(), place);
        self.watch_channel(place);
        place
    }

    pub(super) fn part_since(&self, log: &LogName<'_>, since: Since, same_epoch: bool) -> Part<'_> {
        match self.find(log) {
            Some(place) => self.channels[place as usize].part_since(since, same_epoch),
            None => Part::of_nothing(self.resting_ids.first_id(log.as_str()), since, same_epoch),
        }
    }

    /// Adds a message and marks the channel for delivery.
    pub(super) fn append(&mut self, now: Now, place: u32, content: Content<'_>) -> u64 {
        let channel = &mut self.channels[place as usize];
        let id = channel.append(now, content, self.retention);
        if !channel.marked {
            channel.marked = true;
            self.marked.push(place);
        }
        self.watch_channel(place);
        id
    }

    /// Sets the timer that a channel needs, unless an earlier one is set.
    fn watch_channel(&mut self, place: u32) {
        let channel = &mut self.channels[place as usize];
        let at = match channel.oldest_expires(self.retention) {
            Some(at) => at,
            None if channel.is_idle() => channel.last_use.after(LINGER_MS),
            None => return,
        };
        arm(&mut self.wheel, &mut channel.timer, at, Alarm::Channel(place));
    }

    /// Forgets what a channel has too long, or the channel itself.
    pub(super) fn check_channel(&mut self, now: Millis, place: u32) {
        let channel = &mut self.channels[place as usize];
        channel.expire(now, self.retention);
        channel.give_back_room();
        let is_idle = channel.is_idle() && channel.retained() == 0;
        if is_idle && channel.last_use.after(LINGER_MS) <= now {
            let channel = self.channels.remove(place as usize);
            assert!(!channel.marked, "a channel with something to deliver has messages");
            self.names.remove(&channel.name);
            self.resting_ids.rest(&channel.name, channel.next_id());
        } else {
            self.watch_channel(place);
        }
    }
}

/// Connections.
impl Hub {
    /// The place of the connection that shows these credentials.
    pub(super) fn authenticate(&self, credentials: Credentials<'_>) -> Result<u32, Refusal> {
        let place = *self.numbers.get(&credentials.connection).ok_or(Refusal::Ended)?;
        if self.connections[place as usize].auth.matches(credentials.auth) {
            Ok(place)
        } else {
            Err(Refusal::WrongAuth)
        }
    }

    pub(super) fn authenticate_maybe(&self, credentials: Option<Credentials<'_>>) -> Result<Option<u32>, Refusal> {
        credentials.map(|credentials| self.authenticate(credentials)).transpose()
    }

    pub(super) fn connect(&mut self, auth: Auth, now: Millis) -> u32 {
        self.last_number += 1;
        let place = self.connections.insert(Connection::new(self.last_number, auth, now)) as u32;
        self.numbers.insert(self.last_number, place);
        place
    }

    /// A call that carried the connection, if one did, succeeded.
    pub(super) fn touch(&mut self, connection: Option<u32>, now: Millis) {
        if let Some(place) = connection {
            self.connections[place as usize].touch(now);
            self.watch_connection(place);
        }
    }

    /// Sets the timer that a connection needs, unless an earlier one is set.
    pub(super) fn watch_connection(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        if let Some(at) = connection.ends_at(self.timeout_ms) {
            arm(&mut self.wheel, &mut connection.timer, at, Alarm::Connection(place));
        }
    }

    /// Ends a connection whose time is over, or looks again when it may be.
    pub(super) fn check_connection(&mut self, now: Now, place: u32) {
        let connection = &self.connections[place as usize];
        match connection.ends_at(self.timeout_ms) {
            Some(at) if at <= now.mono => {
                let reason = if connection.closes_at == Some(at) { Reason::Closed } else { Reason::Timeout };
                self.end_connection(now, place, reason, None);
            }
            _ => self.watch_connection(place),
        }
    }

    /// Says goodbye in every channel of the connection, and has the reads that wait with it answered.
    pub(super) fn end_connection(&mut self, now: Now, place: u32, reason: Reason, text: Option<&str>) {
        let connection = self.connections.remove(place as usize);
        self.numbers.remove(&connection.number);
        if let Some(timer) = connection.timer {
            self.wheel.cancel(timer);
        }
        for key in connection.readers {
            if let Some(reader) = self.readers.get_mut(key) {
                reader.connection = None;
            }
            self.orphans.push(key);
        }
        let goodbye = Content::Goodbye { from: connection.number, reason, text };
        for channel in connection.channels {
            self.append(now, channel, goodbye);
        }
    }
}

/// Waiting reads.
impl Hub {
    pub(super) fn wait(&mut self, now: Millis, call: &ReadCall<'_>, connection: Option<u32>) -> ReaderKey {
        let mut seat = |(log, since): &(LogName<'_>, Since)| {
            let channel = self.channel_at(log, now);
            let promise = match since {
                Since::Id(_) => Promise::Gapless,
                Since::All => Promise::Newcomer,
                Since::Last(_) | Since::Now => Promise::Plain,
            };
            Seat { channel, promise, cursor: self.channels[channel as usize].next_id() }
        };
        let seats = match call.follows {
            [one] => Seats::One([seat(one)]),
            several => Seats::Many(several.iter().map(seat).collect()),
        };
        let key = self.readers.insert(Reader { client: call.client, seats, timer: None, connection });
        let timer = self.wheel.set(now.after(call.wait_ms), Alarm::Reader(key.index));
        let reader = self.readers.get_mut(key).expect("just inserted");
        reader.timer = Some(timer);
        for seat in reader.seats.as_slice() {
            self.channels[seat.channel as usize].seat(key);
        }
        if let Some(place) = connection {
            self.connections[place as usize].readers.push(key);
        }
        key
    }

    /// Takes a read out of all that knows of it: it waits no more.
    pub(super) fn release(&mut self, now: Millis, key: ReaderKey) -> Option<Reader> {
        let reader = self.readers.remove(key)?;
        if let Some(timer) = reader.timer {
            self.wheel.cancel(timer);
        }
        for seat in reader.seats.as_slice() {
            let channel = &mut self.channels[seat.channel as usize];
            channel.last_use = now;
            channel.unseat(|key| self.readers.get(key).is_some());
            if channel.readers == 0 {
                self.watch_channel(seat.channel);
            }
        }
        if let Some(place) = reader.connection {
            let connection = &mut self.connections[place as usize];
            connection.readers.retain(|its| *its != key);
            connection.last_alive = now;
            // While this read waited the grace after another one's closing ran out: it was not needed.
            connection.closes_at = connection.closes_at.filter(|at| *at > now);
            self.watch_connection(place);
        }
        Some(reader)
    }

    /// Has a waiting read answered with nothing by the next delivery.
    pub(super) fn dismiss(&mut self, now: Millis, key: ReaderKey) {
        if let Some(reader) = self.release(now, key) {
            self.dismissed.push(reader);
        }
    }

    /// A connection reads anew: its read that waits on the same channels is a ghost behind some proxy.
    pub(super) fn replace_older(&mut self, now: Millis, connection: u32, follows: &[(LogName<'_>, Since)]) {
        if self.connections[connection as usize].readers.is_empty() {
            return;
        }
        let Some(mut channels) = follows.iter().map(|(log, _)| self.find(log)).collect::<Option<Vec<_>>>() else {
            return;
        };
        channels.sort_unstable();
        let follows_the_same =
            |key: &&ReaderKey| self.readers.get(**key).is_some_and(|reader| reader.seats.same_channels(&channels));
        let older = self.connections[connection as usize].readers.iter().find(follows_the_same).copied();
        if let Some(key) = older {
            self.dismiss(now, key);
        }
    }
}

/// Makes sure that the owner of `timer` is looked at by `at`. A timer that fires too
/// early is cheaper than moving it with every refreshed deadline.
fn arm(wheel: &mut TimerWheel<Alarm>, timer: &mut Option<TimerId>, at: Millis, alarm: Alarm) {
    if let Some(set) = *timer {
        if wheel.deadline(set) <= at {
            return;
        }
        wheel.cancel(set);
    }
    *timer = Some(wheel.set(at, alarm));
}

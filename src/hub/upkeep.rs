//! The hub's housekeeping: how channels and connections come, are watched, and go.

use std::collections::HashMap;
use std::hash::Hash;

use super::channel::Channel;
use super::channel_name::LogName;
use super::entry::Spot;
use super::error::Refusal;
use super::hub::{Alarm, Hub, LINGER_MS};
use super::ids::Auth;
use super::message::{Content, Reason};
use super::session::{Connection, Credentials};
use super::stats::Dropped;
use super::time::{Millis, Now};
use super::timer_wheel::{TimerId, TimerWheel};
use super::usage::Holding;

/// Channels.
impl Hub {
    pub(super) fn find(&self, log: &LogName<'_>) -> Option<u32> {
        self.names.get(log.as_str()).copied()
    }

    /// Where the name leads. A name that nobody uses costs a SHA-256, so ask once.
    #[inline]
    pub(super) fn spot(&self, log: &LogName<'_>) -> Spot {
        self.find(log)
            .map_or_else(|| Spot::Nowhere { first_id: self.resting_ids.first_id(log.as_str()) }, Spot::Channel)
    }

    /// # Errors
    ///
    /// [`Refusal::OverCapacity`] if those channels that do not exist are more than may be added, also where channels that
    /// are empty and unused go before their time.
    pub(super) fn room_for(&mut self, now: Millis, spots: &[Spot]) -> Result<(), Refusal> {
        let new = spots.iter().filter(|spot| matches!(spot, Spot::Nowhere { .. })).count();
        let max = self.config.max_channels;
        let has_room = |hub: &Self| new == 0 || max == 0 || hub.channels.len() + new <= max;
        if !has_room(self) {
            self.drop_unused(now, spots);
        }
        // Those that exist go on, however many they are.
        if has_room(self) { Ok(()) } else { Err(Refusal::OverCapacity) }
    }

    /// The channel there; it exists from its first use.
    pub(super) fn channel_at(&mut self, spot: Spot, log: &LogName<'_>, now: Millis) -> u32 {
        let first_id = match spot {
            Spot::Channel(place) => return place,
            Spot::Nowhere { first_id } => first_id,
        };
        let name = log.as_str();
        let channel = Channel::new(name, first_id, now);
        self.held.change(Holding::default(), channel.holds());
        let place = self.channels.insert(channel);
        self.names.insert(name.into(), place);
        self.watch_channel(place);
        place
    }

    /// Adds a message and marks the channel for delivery.
    pub(super) fn append(&mut self, now: Now, place: u32, content: Content<'_>) -> u64 {
        let channel = &mut self.channels[place as usize];
        let before = channel.holds();
        let id = channel.append(now, content, self.retention, &mut self.scratch);
        let after = channel.holds();
        self.held.change(before, after);
        self.tally.count_added(&content);
        self.tally.count_dropped(Dropped::Count, before.messages + 1 - after.messages);
        if !channel.marked {
            channel.marked = true;
            self.marked.push(place);
        }
        self.watch_channel(place);
        id
    }

    /// Rids a channel of what is too old to be read.
    pub(super) fn expire_history(&mut self, now: Millis, place: u32) {
        if self.channels[place as usize].oldest_expires(self.retention).is_some_and(|at| at <= now) {
            let retention = self.retention;
            self.drop_history(place, Dropped::Age, |channel| channel.expire(now, retention));
        }
    }

    /// Sets the timer that a channel needs, unless an earlier one is set.
    pub(super) fn watch_channel(&mut self, place: u32) {
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
        self.expire_history(now, place);
        let channel = &mut self.channels[place as usize];
        channel.give_back_room();
        let is_idle = channel.is_idle() && channel.retained() == 0;
        if is_idle && channel.last_use.after(LINGER_MS) <= now {
            self.drop_channel(place);
        } else {
            self.watch_channel(place);
        }
    }
}

/// How channels go.
impl Hub {
    /// Whether nobody would notice if the channel went now: it has no messages, no members and no readers.
    pub(super) fn is_unused(&self, place: u32) -> bool {
        self.channels.get(place).is_some_and(|channel| channel.is_idle() && channel.retained() == 0 && !channel.marked)
    }

    /// Forgets a channel that is unused, but for its ids.
    pub(super) fn drop_channel(&mut self, place: u32) {
        let channel = self.channels.remove(place);
        assert!(!channel.marked, "a channel with something to deliver has messages, or goes once that is done");
        self.held.change(channel.holds(), Holding::default());
        if let Some(timer) = channel.timer {
            self.wheel.cancel(timer);
        }
        self.names.remove(&channel.name);
        give_back_room(&mut self.names);
        self.resting_ids.rest(&channel.name, channel.next_id());
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
        let place = self.connections.insert(Connection::new(self.last_number, auth, now));
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
        let connection = self.connections.remove(place);
        self.numbers.remove(&connection.number);
        give_back_room(&mut self.numbers);
        if let Some(timer) = connection.timer {
            self.wheel.cancel(timer);
        }
        for key in connection.readers {
            if let Some(reader) = self.readers.get_mut(key) {
                reader.connection = None;
            }
            self.orphans.push(key);
        }
        self.room_for_words(now.mono, text, connection.channels.len());
        let goodbye = Content::Goodbye { from: connection.number, reason, text };
        for channel in connection.channels {
            self.append(now, channel, goodbye);
        }
    }
}

/// Gives back the room of a crowd that is gone. Costs O(1) for each that went, over time.
fn give_back_room<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    const KEPT: usize = 1024;
    if map.capacity() > KEPT && map.len() < map.capacity() / 4 {
        map.shrink_to(map.capacity() / 2);
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

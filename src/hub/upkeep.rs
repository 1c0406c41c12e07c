//! The hub's housekeeping: how channels and connections come, are watched, and go.

use std::collections::HashMap;
use std::hash::Hash;

use super::channel::Channel;
use super::channel_name::ChannelKey;
use super::error::Error;
use super::hub::{Hub, IDLE_CHANNEL_MS, TimerKey};
use super::ids::Auth;
use super::lookup::Lookup;
use super::message::{MessageKind, Reason};
use super::session::{Credentials, Session};
use super::stats::DropReason;
use super::time::{Millis, Now};
use super::timer_wheel::{TimerId, TimerWheel};
use super::usage::Usage;

/// Channels.
impl Hub {
    pub(super) fn find(&self, log: &ChannelKey<'_>) -> Option<u32> {
        self.channels_by_name.get(log.as_str()).copied()
    }

    /// Where the name leads. A name that nobody uses costs a SHA-256, so ask once.
    #[inline]
    pub(super) fn entry(&self, log: &ChannelKey<'_>) -> Lookup {
        self.find(log).map_or_else(
            || Lookup::Vacant { first_id: self.id_watermarks.first_id(log.as_str()) },
            Lookup::Occupied,
        )
    }

    /// # Errors
    ///
    /// [`Error::OverCapacity`] if those channels that do not exist are more than may be added, also where channels that
    /// are empty and unused go before their time.
    pub(super) fn ensure_capacity(&mut self, now: Millis, spots: &[Lookup]) -> Result<(), Error> {
        let new = spots.iter().filter(|spot| matches!(spot, Lookup::Vacant { .. })).count();
        let max = self.config.max_channels;
        let has_room = |hub: &Self| new == 0 || max == 0 || hub.channels.len() + new <= max;
        if !has_room(self) {
            self.evict_idle_channels(now, spots);
        }
        // Those that exist go on, however many they are.
        if has_room(self) { Ok(()) } else { Err(Error::OverCapacity) }
    }

    /// The channel there; it exists from its first use.
    pub(super) fn get_or_create(&mut self, spot: Lookup, log: &ChannelKey<'_>, now: Millis) -> u32 {
        let first_id = match spot {
            Lookup::Occupied(place) => return place,
            Lookup::Vacant { first_id } => first_id,
        };
        let name = log.as_str();
        let channel = Channel::new(name, first_id, now);
        self.usage.update(Usage::default(), channel.holds());
        let place = self.channels.insert(channel);
        self.channels_by_name.insert(name.into(), place);
        self.arm_channel_timer(place);
        place
    }

    /// Adds a message and marks the channel for delivery.
    pub(super) fn append(&mut self, now: Now, place: u32, content: MessageKind<'_>) -> u64 {
        let channel = &mut self.channels[place as usize];
        let before = channel.holds();
        let id = channel.append(now, content, self.retention, &mut self.scratch);
        let after = channel.holds();
        self.usage.update(before, after);
        self.stats.count_added(&content);
        self.stats.count_dropped(DropReason::Count, before.messages + 1 - after.messages);
        if !channel.is_dirty {
            channel.is_dirty = true;
            self.dirty_channels.push(place);
        }
        self.arm_channel_timer(place);
        id
    }

    /// Rids a channel of what is too old to be read.
    pub(super) fn expire_history(&mut self, now: Millis, place: u32) {
        if self.channels[place as usize].oldest_expiry(self.retention).is_some_and(|at| at <= now) {
            let retention = self.retention;
            self.evict_history(place, DropReason::Age, |channel| channel.expire(now, retention));
        }
    }

    /// Sets the timer that a channel needs, unless an earlier one is set.
    pub(super) fn arm_channel_timer(&mut self, place: u32) {
        let channel = &mut self.channels[place as usize];
        let at = match channel.oldest_expiry(self.retention) {
            Some(at) => at,
            None if channel.is_idle() => channel.last_use.after(IDLE_CHANNEL_MS),
            None => return,
        };
        arm(&mut self.timers, &mut channel.timer, at, TimerKey::Channel(place));
    }

    /// Forgets what a channel has too long, or the channel itself.
    pub(super) fn on_channel_timer(&mut self, now: Millis, place: u32) {
        self.expire_history(now, place);
        let channel = &mut self.channels[place as usize];
        channel.shrink();
        let is_idle = channel.is_idle() && channel.retained() == 0;
        if is_idle && channel.last_use.after(IDLE_CHANNEL_MS) <= now {
            self.drop_channel(place);
        } else {
            self.arm_channel_timer(place);
        }
    }
}

/// How channels go.
impl Hub {
    /// Whether nobody would notice if the channel went now: it has no messages, no members and no readers.
    pub(super) fn is_unused(&self, place: u32) -> bool {
        self.channels.get(place).is_some_and(|channel| {
            channel.is_idle() && channel.retained() == 0 && !channel.is_dirty
        })
    }

    /// Forgets a channel that is unused, but for its ids.
    pub(super) fn drop_channel(&mut self, place: u32) {
        let channel = self.channels.remove(place);
        assert!(
            !channel.is_dirty,
            "a channel with something to deliver has messages, or goes once that is done"
        );
        self.usage.update(channel.holds(), Usage::default());
        if let Some(timer) = channel.timer {
            self.timers.cancel(timer);
        }
        self.channels_by_name.remove(&channel.name);
        shrink(&mut self.channels_by_name);
        self.id_watermarks.record(&channel.name, channel.next_id());
    }
}

/// Connections.
impl Hub {
    /// The place of the connection that shows these credentials.
    pub(super) fn authenticate(&self, credentials: Credentials<'_>) -> Result<u32, Error> {
        let place =
            *self.sessions_by_number.get(&credentials.session).ok_or(Error::SessionEnded)?;
        if self.sessions[place as usize].auth.matches(credentials.auth) {
            Ok(place)
        } else {
            Err(Error::WrongAuth)
        }
    }

    pub(super) fn authenticate_optional(
        &self,
        credentials: Option<Credentials<'_>>,
    ) -> Result<Option<u32>, Error> {
        credentials.map(|credentials| self.authenticate(credentials)).transpose()
    }

    pub(super) fn create_session(&mut self, auth: Auth, now: Millis) -> u32 {
        self.last_session += 1;
        let place = self.sessions.insert(Session::new(self.last_session, auth, now));
        self.sessions_by_number.insert(self.last_session, place);
        place
    }

    /// A call that carried the connection, if one did, succeeded.
    pub(super) fn touch(&mut self, connection: Option<u32>, now: Millis) {
        if let Some(place) = connection {
            self.sessions[place as usize].touch(now);
            self.arm_session_timer(place);
        }
    }

    /// Sets the timer that a connection needs, unless an earlier one is set.
    pub(super) fn arm_session_timer(&mut self, place: u32) {
        let connection = &mut self.sessions[place as usize];
        if let Some(at) = connection.ends_at(self.session_timeout_ms) {
            arm(&mut self.timers, &mut connection.timer, at, TimerKey::Connection(place));
        }
    }

    /// Ends a connection whose time is over, or looks again when it may be.
    pub(super) fn on_session_timer(&mut self, now: Now, place: u32) {
        let connection = &self.sessions[place as usize];
        match connection.ends_at(self.session_timeout_ms) {
            Some(at) if at <= now.mono => {
                let reason =
                    if connection.closes_at == Some(at) { Reason::Closed } else { Reason::Timeout };
                self.end_session(now, place, reason, None);
            }
            _ => self.arm_session_timer(place),
        }
    }

    /// Says goodbye in every channel of the connection, and has the reads that wait with it answered.
    pub(super) fn end_session(&mut self, now: Now, place: u32, reason: Reason, text: Option<&str>) {
        let connection = self.sessions.remove(place);
        self.sessions_by_number.remove(&connection.number);
        shrink(&mut self.sessions_by_number);
        if let Some(timer) = connection.timer {
            self.timers.cancel(timer);
        }
        for key in connection.reader_count {
            if let Some(reader) = self.readers.get_mut(key) {
                reader.connection = None;
            }
            self.orphaned_readers.push(key);
        }
        self.reserve_for_goodbye(now.mono, text, connection.channels.len());
        let goodbye = MessageKind::Goodbye { from: connection.number, reason, text };
        for channel in connection.channels {
            self.append(now, channel, goodbye);
        }
    }
}

/// Gives back the room of a crowd that is gone. Costs O(1) for each that went, over time.
fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    const KEEP_CAPACITY: usize = 1024;
    if map.capacity() > KEEP_CAPACITY && map.len() < map.capacity() / 4 {
        map.shrink_to(map.capacity() / 2);
    }
}

/// Makes sure that the owner of `timer` is looked at by `at`. A timer that fires too
/// early is cheaper than moving it with every refreshed deadline.
fn arm(wheel: &mut TimerWheel<TimerKey>, timer: &mut Option<TimerId>, at: Millis, alarm: TimerKey) {
    if let Some(set) = *timer {
        if wheel.deadline(set) <= at {
            return;
        }
        wheel.cancel(set);
    }
    *timer = Some(wheel.set(at, alarm));
}

//! What the hub holds, and its limit: the oldest history goes first, and then nothing more comes in.
//!
//! Counted are what clients can make grow. A test holds the count against what the allocator gave out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::channel::Channel;
use super::error::Error;
use super::hub::{Hub, WRITE_OVERHEAD_BYTES};
use super::lookup::Lookup;
use super::message::Entry;
use super::reader::{Reader, Subscription, Subscriptions};
use super::session::Session;
use super::stats::DropReason;
use super::time::Millis;
use super::usage::ALLOCATION;

/// A channel beside its name, which it has twice: once as the key of a table that is half full. Its own place is in such a
/// table too, and its first message brings room for four.
const CHANNEL: usize = 2 * size_of::<Channel>()
    + 4 * size_of::<Entry>()
    + 2 * (size_of::<(Box<str>, u32)>() + 1)
    + 2 * ALLOCATION;

/// A connection: itself, its secret, its lists, and its place in a table that is half full.
const CONNECTION: usize = size_of::<Session>() + 2 * (size_of::<(u64, u32)>() + 1) + 6 * ALLOCATION;

/// A waiting read: itself, and its place in the line of its channel and of its connection.
const READER: usize = size_of::<Reader>() + 16 + 2 * size_of::<u64>() + ALLOCATION;

/// Where room has to be made, this part of what is looked at goes: so one call pays for many.
const EVICTION_FRACTION: usize = 16;

/// Less history than this part of the limit is not worth looking for: whoever has filled the rest with something else
/// could have everybody's writes pay for it.
const MIN_HISTORY_FRACTION: usize = 64;

/// How many places are looked at for channels that are unused. A call that is refused has paid for as many.
const IDLE_SCAN_MAX: u32 = 256;

/// How many places are looked at for the oldest history among them; a server with fewer finds the oldest of all.
const HISTORY_SCAN_MAX: u32 = 4096;

/// How often one call looks for history: some milliseconds, at most.
const HISTORY_SCANS_PER_CALL: usize = 16;

/// One more channel of a waiting read, beside its name.
const SEAT: usize = size_of::<Subscription>() + 2 * size_of::<u64>() + 2 * ALLOCATION;

impl Hub {
    /// Bytes that are held for clients, in all, with those that they have outside of the hub.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.usage.bytes
            + self.external_bytes
            + self.channels.len() * CHANNEL
            + self.sessions.len() * CONNECTION
            + self.readers.len() * READER
            + self.subscription_bytes
    }

    /// What a read that waits on several channels takes for them, with their names, by which it is to be answered.
    pub(super) fn memory_of(&self, seats: &Subscriptions) -> usize {
        match seats.as_slice() {
            [_] => 0,
            several => several
                .iter()
                .map(|seat| SEAT + self.channels[seat.channel as usize].name.len())
                .sum(),
        }
    }

    /// Told how much is held for clients outside of the hub: requests that are not whole, answers that are not taken.
    pub fn set_external_bytes(&mut self, bytes: usize) {
        self.external_bytes = bytes;
    }

    /// Whether so many bytes more may come in. Makes room for them if it has to: channels that are unused go first, then
    /// the oldest history. The channels of `spots` stay.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] when there was not enough to be dropped.
    pub(super) fn reserve(
        &mut self,
        now: Millis,
        bytes: usize,
        spots: &[Lookup],
    ) -> Result<(), Error> {
        let limit = self.config.max_memory;
        let has_room = |hub: &Self| hub.memory() + bytes <= limit;
        if has_room(self) {
            return Ok(());
        }
        self.evict_idle_channels(now, spots);
        for _ in 0..HISTORY_SCANS_PER_CALL {
            if has_room(self) || self.usage.history < limit / MIN_HISTORY_FRACTION {
                break;
            }
            self.evict_oldest_history(
                (limit - limit / EVICTION_FRACTION).saturating_sub(bytes),
                spots,
            );
        }
        if has_room(self) { Ok(()) } else { Err(Error::OutOfMemory) }
    }

    /// Has history make room for the last words of a connection in so many channels. A goodbye is never refused, so what
    /// it says would else be a way past the limit: one call brings it into all of them.
    pub(super) fn reserve_for_goodbye(&mut self, now: Millis, text: Option<&str>, channels: usize) {
        if let Some(text) = text {
            // Where no history is left, what goes with the connection makes up for a good part of it.
            let _ = self.reserve(now, channels * (text.len() + WRITE_OVERHEAD_BYTES), &[]);
        }
    }

    /// Rids the hub of channels that are empty and unused, before their time: a read that ended may have been all that there
    /// ever was in them. Looks at some places alone, and goes on from there the next time.
    pub(super) fn evict_idle_channels(&mut self, now: Millis, spots: &[Lookup]) {
        for place in self.scan_window(IDLE_SCAN_MAX) {
            if !self.channels.get(place).is_some_and(Channel::is_idle)
                || spots.contains(&Lookup::Occupied(place))
            {
                continue;
            }
            self.expire_history(now, place);
            if self.is_unused(place) {
                self.drop_channel(place);
            }
        }
    }

    /// Drops the oldest of the messages in the next places, and channels with their last message: where these are all
    /// places until no more than `memory` is held, else a part of them.
    fn evict_oldest_history(&mut self, memory: usize, spots: &[Lookup]) {
        let places = self.scan_window(HISTORY_SCAN_MAX);
        let oldest =
            |hub: &Self, place| hub.channels.get(place)?.oldest_at().map(|at| Reverse((at, place)));
        let history = |place| self.channels.get(place).map_or(0, |channel| channel.holds().history);
        let part = places.clone().map(history).sum::<usize>() / EVICTION_FRACTION;
        let is_all = self.channels.index_bound() <= HISTORY_SCAN_MAX;
        let memory = if is_all { memory } else { self.memory() - part };
        let mut queue: BinaryHeap<_> = places.filter_map(|place| oldest(self, place)).collect();
        while self.memory() > memory
            && let Some(Reverse((_, place))) = queue.pop()
        {
            self.evict_history(place, DropReason::Memory, Channel::evict_oldest);
            if let Some(next) = oldest(self, place) {
                queue.push(next);
            } else if self.is_unused(place) && !spots.contains(&Lookup::Occupied(place)) {
                self.drop_channel(place);
            } else {
                // Nothing keeps it now but its last use.
                self.arm_channel_timer(place);
            }
        }
    }

    /// So many places of channels, or all, from where the last look ended.
    fn scan_window(&mut self, looks: u32) -> impl Iterator<Item = u32> + Clone + use<> {
        let places = self.channels.index_bound().max(1);
        let from = self.eviction_cursor % places;
        self.eviction_cursor = (from + looks) % places;
        (0..looks.min(places)).map(move |step| (from + step) % places)
    }

    /// Has a channel let go of history, and takes account of that.
    pub(super) fn evict_history(
        &mut self,
        place: u32,
        why: DropReason,
        drop: impl FnOnce(&mut Channel),
    ) {
        let channel = &mut self.channels[place as usize];
        let before = channel.holds();
        drop(channel);
        let after = channel.holds();
        self.usage.update(before, after);
        self.stats.count_dropped(why, before.messages - after.messages);
    }
}

#[cfg(test)]
mod tests {
    use super::super::hub::tests::hub;
    use crate::hub::{Auth, ChannelName, Credentials, Introducer, Millis, Now};

    /// A goodbye is never refused, and brings its words into 32 channels by one call.
    #[test]
    fn last_words_are_no_way_past_the_limit() {
        const LIMIT: usize = 16 << 20;
        const SECRET: [u8; 22] = *b"ABCDEFGHIJKLMNOPQRSTUV";
        let now = Now { mono: Millis(0), unix_ms: 0 };
        let mut hub = hub(LIMIT);
        let words = "x".repeat(64 << 10);
        let auth = Auth::new(SECRET);
        let names =
            |speaker: u64| (0..32).map(move |channel| format!("channel-{speaker}-{channel}"));
        for speaker in 1..=12 {
            let mut who = Introducer::New(auth.clone());
            for name in names(speaker) {
                let log = ChannelName::parse(&name).unwrap().for_writing().unwrap();
                let introduced = hub.introduce(now, &log, "", who).ok().unwrap();
                assert_eq!(introduced.connection, speaker);
                who = Introducer::Existing(Credentials { session: speaker, auth: auth.reveal() });
            }
        }
        for speaker in 1..=12 {
            let credentials = Credentials { session: speaker, auth: auth.reveal() };
            // Half of them leave each channel by itself.
            for name in names(speaker).filter(|_| speaker % 2 == 0) {
                let log = ChannelName::parse(&name).unwrap().for_writing().unwrap();
                assert_eq!(hub.goodbye(now, credentials, Some(&log), Some(&words)), Ok(()));
            }
            assert_eq!(hub.goodbye(now, credentials, None, Some(&words)), Ok(()));
            assert!(hub.memory() <= LIMIT, "{} bytes", hub.memory());
        }
    }
}

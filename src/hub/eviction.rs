//! The memory limit: the oldest history is evicted first, then calls are rejected.
//!
//! The accounting covers what clients can make grow. `tests/memory.rs` compares it with the bytes
//! that the allocator handed out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::channel::Channel;
use super::error::Error;
use super::hub::Hub;
use super::lookup::Lookup;
use super::message::JsonText;
use super::stats::DropReason;
use super::time::{Millis, Now};
use super::usage::WRITE_OVERHEAD_BYTES;

/// Fraction of the limit, or of the history that is searched, to evict at once. One call then pays
/// for many.
const EVICTION_FRACTION: usize = 16;

/// No history is evicted once it is below this fraction of the limit. Otherwise a client that
/// fills memory with something else would make every write search for history.
const MIN_HISTORY_FRACTION: usize = 64;

/// Indexes that one call searches for idle channels. Limits the cost of a rejected call.
const IDLE_SCAN_MAX: u32 = 256;

/// Searches for idle channels within a millisecond, for what has to fit because it is there
/// already. 4,096 indexes: some milliseconds, at most.
const IDLE_SCANS_PER_MS: u32 = 16;

/// Indexes to search for the oldest history. In a server with fewer channels, the oldest history
/// of all is evicted.
const HISTORY_SCAN_MAX: u32 = 4096;

/// Searches for history in one call: some milliseconds, at most.
const HISTORY_SCANS_PER_CALL: usize = 16;

impl Hub {
    /// Returns the bytes that clients make the server hold, in the hub and outside of it.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.channels.memory()
            + self.sessions.memory()
            + self.readers.memory()
            + self.external_bytes
    }

    /// Sets the bytes that clients make the server hold outside of the hub: incomplete requests and
    /// unsent responses.
    pub fn set_external_bytes(&mut self, bytes: usize) {
        self.external_bytes = bytes;
    }

    /// Returns the memory of the hub itself, without the history that can be evicted.
    #[must_use]
    pub fn memory_without_history(&self) -> usize {
        self.memory() - self.external_bytes - self.channels.usage().history
    }

    /// Evicts idle channels, then history, if the memory limit is exceeded because of something
    /// outside of the hub. Returns whether the limit is kept then.
    ///
    /// Searches more channels than a call that can be rejected does, but only for the first callers
    /// within a millisecond: a turn may have many.
    pub fn enforce_memory_limit(&mut self, now: Now) -> bool {
        if self.idle_scans.0 != now.mono {
            self.idle_scans = (now.mono, 0);
        }
        while self.memory() > self.config.max_memory && self.idle_scans.1 < IDLE_SCANS_PER_MS {
            self.idle_scans.1 += 1;
            self.evict_idle_channels(now.mono, &[]);
        }
        self.reserve(now.mono, 0, &[]).is_ok()
    }

    /// Checks that the channels that do not exist yet may be created. If there are too many
    /// channels, evicts idle ones first. `awaits_drops` is true for a call that becomes a command:
    /// it waits for the commands that drop channels, and may have the place of one of these. If the
    /// log refuses them, readers of the new channel may keep it above the limit.
    ///
    /// # Errors
    ///
    /// [`Error::OverCapacity`].
    pub(super) fn ensure_capacity(
        &mut self,
        now: Millis,
        lookups: &[Lookup],
        awaits_drops: bool,
    ) -> Result<(), Error> {
        let new = lookups.iter().filter(|lookup| matches!(lookup, Lookup::Vacant { .. })).count();
        let max = self.config.max_channels;
        let has_room = |hub: &Self| {
            let dropping = hub.channels.dropping();
            if max == 0 || (new == 0 && dropping == 0) {
                return true;
            }
            // The place of a channel that is about to be dropped may belong to another one.
            let is_dropping = |it: &&Lookup| {
                it.index().is_some_and(|index| hub.channels[index].local.is_dropping)
            };
            let needed = new + lookups.iter().filter(is_dropping).count();
            let used = hub.channels.len() - dropping;
            needed == 0
                || (used + needed <= max && (awaits_drops || hub.channels.len() + new <= max))
        };
        if !has_room(self) {
            self.evict_idle_channels(now, lookups);
        }
        // Channels that are in use stay usable, however many they are.
        if has_room(self) { Ok(()) } else { Err(Error::OverCapacity) }
    }

    /// Checks that `bytes` more fit below the memory limit. If not, evicts idle channels, then the
    /// oldest history. The channels of `lookups` stay.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`] if eviction could not free enough.
    pub(super) fn reserve(
        &mut self,
        now: Millis,
        bytes: usize,
        lookups: &[Lookup],
    ) -> Result<(), Error> {
        let limit = self.config.max_memory;
        let has_room = |hub: &Self| hub.memory() + bytes <= limit;
        if has_room(self) {
            return Ok(());
        }
        self.evict_idle_channels(now, lookups);
        for _ in 0..HISTORY_SCANS_PER_CALL {
            if has_room(self) || self.channels.usage().history < limit / MIN_HISTORY_FRACTION {
                break;
            }
            let target = (limit - limit / EVICTION_FRACTION).saturating_sub(bytes);
            self.evict_oldest_history(target, lookups);
        }
        if has_room(self) { Ok(()) } else { Err(Error::OutOfMemory) }
    }

    /// Evicts history to make room for the goodbyes of a session.
    ///
    /// A goodbye is never rejected. Without eviction its text could exceed the limit: one call adds
    /// it to all channels of the session.
    pub(super) fn reserve_for_goodbye(
        &mut self,
        now: Millis,
        text: Option<&JsonText<'_>>,
        channels: usize,
    ) {
        if let Some(text) = text {
            let bytes = channels.saturating_mul(text.len() + WRITE_OVERHEAD_BYTES);
            // If no history is left, the memory that the session frees compensates for most of it.
            let _ = self.reserve(now, bytes, &[]);
        }
    }

    /// Drops unused channels before their time: closed readers may have been their only users.
    /// Searches some indexes only; the next call continues from there.
    fn evict_idle_channels(&mut self, now: Millis, lookups: &[Lookup]) {
        for index in self.channels.scan_window(IDLE_SCAN_MAX) {
            if !self.channels.get(index).is_some_and(Channel::is_idle)
                || lookups.contains(&Lookup::Occupied(index))
            {
                continue;
            }
            self.channels.expire_history(now, index);
            if self.channels[index].is_unused() {
                self.drop_or_propose(index);
            }
        }
    }

    /// Evicts the oldest messages in the next indexes, and drops channels that become unused.
    ///
    /// If the search covers all channels, evicts until at most `target` bytes are left. If not,
    /// evicts a fraction of the history that it found.
    fn evict_oldest_history(&mut self, target: usize, lookups: &[Lookup]) {
        let indexes = self.channels.scan_window(HISTORY_SCAN_MAX);
        let oldest =
            |hub: &Self, index| hub.channels.get(index)?.oldest_at().map(|at| Reverse((at, index)));
        let history = |index| self.channels.get(index).map_or(0, |channel| channel.usage().history);
        let fraction = indexes.clone().map(history).sum::<usize>() / EVICTION_FRACTION;
        let covers_all = self.channels.index_bound() <= HISTORY_SCAN_MAX;
        let target = if covers_all { target } else { self.memory() - fraction };
        let mut queue: BinaryHeap<_> = indexes.filter_map(|index| oldest(self, index)).collect();
        while self.memory() > target
            && let Some(Reverse((_, index))) = queue.pop()
        {
            self.channels.drop_history(index, DropReason::Memory, Channel::drop_oldest);
            if let Some(next) = oldest(self, index) {
                queue.push(next);
            } else if self.channels[index].is_unused()
                && !lookups.contains(&Lookup::Occupied(index))
            {
                self.drop_or_propose(index);
            } else {
                // The channel now waits only for the end of its idle time.
                self.channels.arm_timer(index, &mut self.timers);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::introductions;
    use super::*;
    use crate::hub::{
        Auth, ChannelName, Config, Credentials, Introducer, Mode, ReadRequest, ReadResult, Since,
    };

    const SECRET: [u8; 22] = *b"ABCDEFGHIJKLMNOPQRSTUV";

    fn hub(max_memory: usize) -> Hub {
        Hub::new(Config { max_memory, ..Config::default() })
    }

    fn at(ms: u64) -> Now {
        Now { mono: Millis(ms), unix_ms: ms }
    }

    fn write(hub: &mut Hub, now: Now, name: &str, text: &str) -> Result<u64, Error> {
        let key = ChannelName::parse(name).unwrap().for_writing().unwrap();
        hub.write(now, &key, text, None)
    }

    #[test]
    fn one_eviction_makes_room_for_many_writes_and_keeps_most_of_the_history() {
        const LIMIT: usize = 1 << 20;
        let mut hub = hub(LIMIT);
        let text = "x".repeat(1_000);
        let (mut before, mut evictions) = (0, 0);
        for number in 0..5_000 {
            assert!(write(&mut hub, at(number), &format!("c{}", number % 100), &text).is_ok());
            let memory = hub.memory();
            assert!(memory <= LIMIT);
            if memory < before {
                evictions += 1;
                let sixteenths = 16 * memory / LIMIT;
                assert!((14..16).contains(&sixteenths), "{memory} bytes");
            }
            before = memory;
        }
        assert!((10..200).contains(&evictions), "{evictions}");
    }

    #[test]
    fn only_history_below_a_64th_of_the_limit_stays_when_nothing_else_can_be_freed() {
        let filled = |limit| {
            let mut hub = hub(limit);
            (0..8).for_each(|ms| assert!(write(&mut hub, at(ms), "c", "some text").is_ok()));
            hub
        };
        let sample = filled(usize::MAX);
        let history = sample.memory() - sample.memory_without_history();
        for (limit, messages) in [(64 * history, 0), (64 * (history + 1), 8)] {
            let mut hub = filled(limit);
            assert!(hub.enforce_memory_limit(at(9)));
            hub.set_external_bytes(limit);
            assert!(!hub.enforce_memory_limit(at(9)));
            assert_eq!(hub.gauges().messages, messages);
            hub.set_external_bytes(0);
            assert!(hub.enforce_memory_limit(at(9)));
        }
    }

    #[test]
    fn eviction_takes_from_all_of_very_many_channels() {
        const CHANNELS: u64 = 10_000;
        let mut hub = hub(64 << 20);
        for round in 0..4 {
            for channel in 0..CHANNELS {
                assert!(write(&mut hub, at(round), &format!("c{channel}"), "some text").is_ok());
            }
        }
        let history = hub.memory() - hub.memory_without_history();
        hub.set_external_bytes((64 << 20) - hub.memory() + history / 2);
        assert!((0..100).any(|_| hub.enforce_memory_limit(at(4))));
        let counts: Vec<_> = hub.channels.iter().map(|(_, channel)| channel.retained()).collect();
        assert_eq!(counts.len(), 10_000);
        assert!(counts.iter().all(|count| (1..4).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_write_keeps_its_own_channel_and_drops_others_that_eviction_empties() {
        const LIMIT: usize = 1 << 20;
        let mut hub = hub(LIMIT);
        let text = "x".repeat(20_000);
        for (ms, name) in [(0, "other"), (1, "own")] {
            assert_eq!(write(&mut hub, at(ms), name, &text), Ok(1));
        }
        hub.deliver(at(1), |_| unreachable!("there are no readers"));
        hub.set_external_bytes(LIMIT - 20_000);
        assert_eq!(write(&mut hub, at(2), "own", ""), Ok(2));
        assert_eq!((hub.gauges().channels, hub.gauges().messages), (1, 1));
    }

    /// Calls `add` until it fails, for limits that differ a little. Then the hub must be nearly
    /// full. Its memory may exceed the limit by `slack_bytes` for the last call.
    fn fill(slack_bytes: usize, add: impl Fn(&mut Hub, u64) -> bool) {
        for limit in (0..20).map(|step| (1 << 20) + 997 * step) {
            let mut hub = hub(limit);
            let calls = (0..100_000).take_while(|number| add(&mut hub, *number)).count();
            let memory = hub.memory();
            assert!(
                (limit * 3 / 4..=limit + slack_bytes).contains(&memory),
                "{memory} of {limit} bytes after {calls} calls"
            );
        }
    }

    #[test]
    fn introductions_fill_memory_up_to_the_limit() {
        let text = "x".repeat(3_000);
        // The memory of the page that is not complete doubles.
        fill(introductions::PAGE_BYTES, |hub, _| {
            let key = ChannelName::parse("c").unwrap().for_writing().unwrap();
            hub.introduce(at(0), &key, &text, Introducer::New(Auth::new(SECRET)), None).is_ok()
        });
    }

    #[test]
    fn reads_of_several_channels_fill_memory_up_to_the_limit() {
        fill(2_000, |hub, number| {
            let names: Vec<_> = (0..32).map(|nth| format!("c{}", 32 * number + nth)).collect();
            let key = |name| ChannelName::parse(name).unwrap().for_reading().unwrap();
            let targets: Vec<_> = names.iter().map(|name| (key(name), Since::Now)).collect();
            let request = ReadRequest {
                targets: &targets,
                epoch: None,
                credentials: None,
                grace_ms: None,
                mode: Mode::LongPoll,
                token: number,
            };
            hub.read(at(0), &request).is_ok()
        });
    }

    #[test]
    fn a_goodbye_that_fits_evicts_nothing() {
        let mut hub = hub(1 << 20);
        for ms in 0..50 {
            assert!(write(&mut hub, at(ms), "history", &"x".repeat(1_000)).is_ok());
        }
        let key = ChannelName::parse("c").unwrap().for_writing().unwrap();
        let introducer = Introducer::New(Auth::new(SECRET));
        let session = hub.introduce(at(50), &key, "", introducer, None).ok().unwrap().session;
        let credentials = Credentials { session, auth: "ABCDEFGHIJKLMNOPQRSTUV" };
        assert_eq!(hub.goodbye(at(51), credentials, None, Some(&"x".repeat(64 << 10))), Ok(()));
        assert_eq!(hub.gauges().messages, 52);
    }

    /// A goodbye is never rejected, and one call adds its text to 32 channels.
    #[test]
    fn goodbyes_do_not_exceed_the_memory_limit() {
        const LIMIT: usize = 16 << 20;
        let now = Now { mono: Millis(0), unix_ms: 0 };
        let mut hub = hub(LIMIT);
        let text = "x".repeat(64 << 10);
        let auth = Auth::new(SECRET);
        let names =
            |session: u64| (0..32).map(move |channel| format!("channel-{session}-{channel}"));
        for session in 1..=12 {
            let mut caller = Introducer::New(auth.clone());
            for name in names(session) {
                let key = ChannelName::parse(&name).unwrap().for_writing().unwrap();
                let introduced = hub.introduce(now, &key, "", caller, None).ok().unwrap();
                assert_eq!(introduced.session, session);
                caller = Introducer::Existing(Credentials { session, auth: auth.reveal() });
            }
        }
        for session in 1..=12 {
            let credentials = Credentials { session, auth: auth.reveal() };
            // Half of the sessions leave each channel with a call of its own.
            for name in names(session).filter(|_| session % 2 == 0) {
                let key = ChannelName::parse(&name).unwrap().for_writing().unwrap();
                assert_eq!(hub.goodbye(now, credentials, Some(&key), Some(&text)), Ok(()));
            }
            assert_eq!(hub.goodbye(now, credentials, None, Some(&text)), Ok(()));
            assert!(hub.memory() <= LIMIT, "{} bytes", hub.memory());
        }
    }

    /// Creates channels without messages, whose readers have left, and returns the memory of all.
    fn fill_with_idle_channels(hub: &mut Hub, now: Now, channels: u32) -> usize {
        for number in 0..channels {
            let name = format!("channel-{number}");
            let key = ChannelName::parse(&name).unwrap().for_reading().unwrap();
            let targets = [(key, Since::Now)];
            let (epoch, credentials, grace_ms) = (None, None, None);
            let mode = Mode::LongPoll;
            let request =
                ReadRequest { targets: &targets, epoch, credentials, grace_ms, mode, token: 1 };
            let Ok(ReadResult::Pending(reader)) = hub.read(now, &request) else { panic!() };
            hub.on_reader_closed(now, reader);
        }
        hub.memory()
    }

    /// A client whose buffers have grown would be closed in the middle of a response otherwise.
    #[test]
    fn idle_channels_make_room_for_what_is_there_already() {
        let now = Now { mono: Millis(0), unix_ms: 0 };
        let mut hub = Hub::new(Config { max_memory: 4 << 20, ..Config::default() });
        let full = fill_with_idle_channels(&mut hub, now, 5_000);
        let of_2_000 = full / 5_000 * 2_000;
        hub.set_external_bytes((4 << 20) - full + of_2_000);
        assert!(hub.enforce_memory_limit(now), "{} bytes", hub.memory());
        // No more than were needed, but for the rest of one search.
        assert!((2_700..=3_000).contains(&hub.gauges().channels), "{:?}", hub.gauges());
    }

    #[test]
    fn all_searches_for_idle_channels_in_a_turn_are_bounded() {
        let now = |ms| Now { mono: Millis(ms), unix_ms: 0 };
        let mut hub = Hub::new(Config { max_memory: 8 << 20, ..Config::default() });
        fill_with_idle_channels(&mut hub, now(0), 8_000);
        // Nothing that is evicted makes room for that.
        hub.set_external_bytes((8 << 20) + 1);
        let mut evicted = |ms| {
            let before = hub.gauges().channels;
            assert!(!hub.enforce_memory_limit(now(ms)));
            before - hub.gauges().channels
        };
        let most = (IDLE_SCAN_MAX * (1 + IDLE_SCANS_PER_MS)) as usize;
        assert_eq!(evicted(1), most);
        assert_eq!(evicted(1), IDLE_SCAN_MAX as usize);
        // The rest, a millisecond later.
        assert_eq!(evicted(2), 8_000 - most - IDLE_SCAN_MAX as usize);
    }
}

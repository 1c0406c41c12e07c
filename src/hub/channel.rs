//! One channel: ids, history, members and readers.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::Bound;
use std::rc::Rc;

use super::bans::{Address, Bans};
use super::introductions::{self, Introductions};
use super::message::{ENTRY_BYTES, Entry, MessageKind, NO_TEXT, encode};
use super::slab::Key;
use super::time::{Millis, Now};
use super::timer_wheel::TimerId;
use super::usage::{ALLOCATION_BYTES, Usage};

/// Time after its last use at which a channel without messages, members and readers is dropped.
const IDLE_CHANNEL_MS: u64 = 60_000;

/// Messages of one turn that still reach readers with `--history 0`.
const UNRETAINED_MAX: usize = 100;

/// Capacity for readers that a channel keeps after its readers left. Enough for a small channel,
/// and negligible in ten thousand channels.
const READERS_KEEP_CAPACITY: usize = 4;

/// Memory of a channel without its name, entries and members. Name and index are in a hash table
/// that is half full. The first message allocates memory for four entries.
pub(super) const CHANNEL_BYTES: usize = 2 * size_of::<Channel>()
    + 4 * size_of::<Entry>()
    + 2 * (size_of::<(Box<str>, u32)>() + 1)
    + 2 * ALLOCATION_BYTES;

/// Memory of a member without its JSON: a text, a share of a tree node, a place among the
/// introductions, and an index in the channel list of its session.
const MEMBER_BYTES: usize = 2 * (size_of::<Member>() + size_of::<u64>())
    + introductions::ENTRY_BYTES
    + 2 * ALLOCATION_BYTES;

/// A session introduced in a channel.
#[derive(Debug)]
pub struct Member {
    /// Id of its newest introduction.
    pub id: u64,
    /// `time` of that introduction, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Text of that introduction, as a JSON string with its quotes.
    pub text_json: Box<[u8]>,
    /// Address at which the session was introduced; `None` for a client without one.
    pub(super) address: Option<Address>,
}

/// Members of a channel, or the rest of them, and the number of its readers.
pub struct Members<'h> {
    pub(super) channel: Option<&'h Channel>,
    /// Session number that precedes the members; 0 for all members.
    pub(super) after: u64,
    /// Bytes of a response. See [`Members::max_bytes`].
    pub(super) max_bytes: usize,
    /// Readers at the other nodes of a cluster.
    pub(super) readers_elsewhere: usize,
}

/// Limits of a channel's history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    /// Number of messages; 0 retains none.
    pub(super) messages: usize,
    /// Age of a message in milliseconds.
    pub(super) ms: u64,
}

/// A channel. All but `local` is shared state: only [`Channels`](super::channels::Channels)
/// changes it.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: Box<str>,
    /// Id of the oldest entry, or the next id if there is no entry.
    pub(super) first_id: u64,
    pub(super) entries: VecDeque<Entry>,
    /// The channel exists in shared state: a message was added to it. With a log, a channel that
    /// has only readers exists in this process alone.
    pub(super) is_shared: bool,
    /// Position in the log of the last command that changed the channel.
    pub(super) position: u64,
    /// Position in the log of the command that created the channel.
    pub(super) created_at: u64,
    /// Members by session number.
    pub(super) members: BTreeMap<u64, Member>,
    /// Newest introduction of each member, for readers that begin after history has dropped it.
    pub(super) introductions: Introductions,
    /// Addresses that were sent away. `None` in nearly all channels.
    pub(super) bans: Option<Box<Bans>>,
    /// A removed introduction may be that of a member: reads from 0 still get it, without a text.
    pub(super) has_blanks: bool,
    /// Bytes of the entries, as [`Channel::usage`] counts them.
    pub(super) entries_bytes: usize,
    /// Bytes of the members and of the addresses, as [`Channel::usage`] counts them.
    members_bytes: usize,
    pub(super) local: ChannelLocal,
}

/// Local state of a channel.
#[derive(Debug)]
pub(super) struct ChannelLocal {
    /// Keys of the readers in order of arrival, and stale keys of readers that left.
    pub(super) readers_in_order: Vec<Key>,
    /// Number of keys in `readers_in_order` that are not stale.
    pub(super) reader_count: usize,
    /// Time of the last call or reader. Local, because reads move it too.
    pub(super) last_use: Millis,
    /// Set while there are entries to expire, or the channel is idle and may be dropped.
    pub(super) timer: Option<TimerId>,
    /// The channel is on the list of channels to deliver.
    pub(super) is_dirty: bool,
    /// A command that drops the channel waits for its place in the log, and the channel was not
    /// used since. Only `begin_drop` and `cancel_drop` of [`Channels`](super::channels::Channels)
    /// set it.
    pub(super) is_dropping: bool,
    /// In a cluster, the next heartbeat tells the number of readers, if that is another one then.
    pub(super) is_count_marked: bool,
    /// Number of commands for the channel that wait for their place in the log.
    pub(super) proposed: u32,
}

impl<'h> Members<'h> {
    /// Iterates over session numbers and members, ordered by number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &'h Member)> + use<'h> {
        let numbers = (Bound::Excluded(self.after), Bound::Unbounded);
        let members = self.channel.map(|channel| channel.members.range(numbers));
        members.into_iter().flatten().map(|(number, member)| (*number, member))
    }

    /// Returns the bytes of members that one response may have. The first member may have more.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Returns the number of readers of the channel, at all nodes of a cluster.
    #[must_use]
    pub fn readers(&self) -> usize {
        let here = self.channel.map_or(0, |channel| channel.local.reader_count);
        here + self.readers_elsewhere
    }
}

impl Member {
    fn bytes(&self) -> usize {
        MEMBER_BYTES + self.text_json.len()
    }
}

impl Channel {
    pub(super) fn new(name: &str, first_id: u64, now: Millis) -> Self {
        Self {
            name: name.into(),
            first_id,
            entries: VecDeque::new(),
            is_shared: false,
            position: 0,
            created_at: 0,
            members: BTreeMap::new(),
            introductions: Introductions::default(),
            bans: None,
            has_blanks: false,
            entries_bytes: 0,
            members_bytes: 0,
            local: ChannelLocal {
                readers_in_order: Vec::new(),
                reader_count: 0,
                is_count_marked: false,
                last_use: now,
                timer: None,
                is_dirty: false,
                is_dropping: false,
                proposed: 0,
            },
        }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.first_id + self.entries.len() as u64
    }

    /// Returns the number of retained messages.
    pub(super) fn retained(&self) -> usize {
        self.entries.len()
    }

    /// Returns the time at which the oldest message was added.
    pub(super) fn oldest_at(&self) -> Option<Millis> {
        self.entries.front().map(|entry| entry.at)
    }

    /// Returns the time at which the oldest message expires.
    pub(super) fn oldest_expiry(&self, retention: Retention) -> Option<Millis> {
        self.oldest_at().map(|at| at.after(retention.ms))
    }

    /// Returns the time at which an idle channel is dropped: not before all addresses that were
    /// sent away may come back.
    pub(super) fn dropped_at(&self) -> Millis {
        let at = self.local.last_use.after(IDLE_CHANNEL_MS);
        self.bans.as_ref().map_or(at, |bans| at.max(bans.last_end()))
    }

    /// Returns whether the channel has neither members nor readers, and no command waits for it.
    pub(super) fn is_idle(&self) -> bool {
        self.members.is_empty() && !self.local.is_awaited()
    }

    /// Returns whether the channel is idle and has neither messages nor anything to deliver. If it
    /// is dropped, no client notices.
    pub(super) fn is_unused(&self) -> bool {
        self.is_idle() && self.retained() == 0 && !self.local.is_dirty
    }

    /// Returns the memory of the entries, the members and the name, without complete pages of
    /// introductions.
    pub(super) fn usage(&self) -> Usage {
        let history = self.entries_bytes;
        let members = self.members_bytes + self.introductions.memory();
        Usage {
            bytes: history + members + 2 * self.name.len(),
            history,
            messages: self.entries.len(),
        }
    }

    /// Adds a message and returns its id. Constant time: wakes no reader. `scratch` is a buffer
    /// for the encoding. Complete pages of introductions count for `pages_total`.
    pub(super) fn append(
        &mut self,
        now: Now,
        kind: MessageKind<'_>,
        retention: Retention,
        scratch: &mut Vec<u8>,
        pages_total: &Rc<Cell<usize>>,
    ) -> u64 {
        let id = self.next_id();
        let text = encode(scratch, id, now, kind);
        let json: Box<[u8]> = scratch.as_slice().into();
        match kind {
            MessageKind::Introduction { from, address, .. } => {
                let text_json = json[text].into();
                let member = Member { id, unix_ms: now.unix_ms, text_json, address };
                self.set_member(from, Some((member, &json)), pages_total);
            }
            MessageKind::Goodbye { from, .. } => self.set_member(from, None, pages_total),
            MessageKind::Message { .. } | MessageKind::Removal { .. } => {}
        }
        self.push_entry(Entry { at: now.mono, json });
        let keep = if retention.messages == 0 { UNRETAINED_MAX } else { retention.messages };
        self.trim_to(keep);
        // The record of a log is older than reads that came since.
        self.local.last_use = self.local.last_use.max(now.mono);
        id
    }

    /// Records the newest introduction of a session, or its goodbye. Not inlined, so that
    /// [`Channel::append`] is for the usual case: a message.
    #[inline(never)]
    fn set_member(
        &mut self,
        session: u64,
        introduction: Option<(Member, &[u8])>,
        pages_total: &Rc<Cell<usize>>,
    ) {
        if let Some(before) = self.members.remove(&session) {
            self.members_bytes -= before.bytes();
            self.introductions.remove(before.id, pages_total);
        }
        if let Some((member, json)) = introduction {
            self.members_bytes += member.bytes();
            self.introductions.push(member.id, json, pages_total);
            self.members.insert(session, member);
        }
    }

    /// Takes the text of a member's introduction.
    pub(super) fn clear_member_text(&mut self, session: u64) {
        if let Some(member) = self.members.get_mut(&session) {
            self.members_bytes -= member.bytes();
            member.text_json = NO_TEXT.into();
            self.members_bytes += member.bytes();
        }
    }

    /// Takes the addresses that were sent away.
    pub(super) fn take_bans(&mut self) -> Option<Box<Bans>> {
        let bans = self.bans.take();
        self.members_bytes -= bans.as_ref().map_or(0, |bans| bans.memory());
        bans
    }

    /// Sets the addresses that were sent away, after they were taken.
    pub(super) fn set_bans(&mut self, bans: Option<Box<Bans>>) {
        self.members_bytes += bans.as_ref().map_or(0, |bans| bans.memory());
        self.bans = bans;
    }

    /// Appends an entry. Its id follows that of the last one.
    pub(super) fn push_entry(&mut self, entry: Entry) {
        self.entries_bytes += ENTRY_BYTES + entry.json.len();
        self.entries.push_back(entry);
    }

    /// Empties the channel, which exists in shared state and whose next id is `next_id`.
    pub(super) fn restore_shared(&mut self, next_id: u64) {
        self.clear_history();
        self.members.clear();
        self.introductions = Introductions::default();
        (self.bans, self.has_blanks) = (None, false);
        self.members_bytes = 0;
        self.first_id = next_id;
        self.is_shared = true;
    }

    /// Adds a member from a snapshot, without its introduction. Returns whether it was not there
    /// yet.
    pub(super) fn restore_member(&mut self, number: u64, member: Member) -> bool {
        self.members_bytes += member.bytes();
        self.has_blanks |= *member.text_json == *NO_TEXT;
        self.members.insert(number, member).is_none()
    }

    /// Drops messages older than retention allows.
    pub(super) fn expire(&mut self, now: Millis, retention: Retention) {
        while self.oldest_expiry(retention).is_some_and(|at| at <= now) {
            self.drop_oldest();
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// Drops all messages.
    pub(super) fn clear_history(&mut self) {
        self.trim_to(0);
        self.entries = VecDeque::new();
    }

    /// Drops all but the newest `keep` messages.
    pub(super) fn trim_to(&mut self, keep: usize) {
        while self.entries.len() > keep {
            self.drop_oldest();
        }
    }

    /// Drops the oldest message, which must exist.
    pub(super) fn drop_oldest(&mut self) {
        let entry = self.entries.pop_front().expect("the caller has checked for a message");
        self.entries_bytes -= ENTRY_BYTES + entry.json.len();
        self.first_id += 1;
    }
}

impl ChannelLocal {
    /// Returns whether a reader or a proposed command needs the channel.
    pub(super) fn is_awaited(&self) -> bool {
        self.reader_count > 0 || self.proposed > 0
    }

    /// Marks the channel for the next delivery. Returns whether it was not marked before.
    #[inline]
    pub(super) fn mark_dirty(&mut self) -> bool {
        !mem::replace(&mut self.is_dirty, true)
    }

    /// Adds a reader after all earlier ones.
    pub(super) fn add_reader(&mut self, reader: Key) {
        self.readers_in_order.push(reader);
        self.reader_count += 1;
    }

    /// Counts a reader that left. Its stale key is removed together with others, once more than
    /// half of the keys are stale. `is_reader` returns false for a stale key.
    pub(super) fn remove_reader(&mut self, is_reader: impl Fn(Key) -> bool) {
        self.reader_count -= 1;
        if self.reader_count == 0 {
            self.readers_in_order.clear();
            self.shrink();
        } else if self.readers_in_order.len() > 2 * self.reader_count + READERS_KEEP_CAPACITY {
            self.readers_in_order.retain(|key| is_reader(*key));
            self.readers_in_order.shrink_to(2 * self.reader_count);
        }
    }

    /// Frees capacity that the present readers do not need.
    pub(super) fn shrink(&mut self) {
        self.readers_in_order.shrink_to(2 * self.reader_count + READERS_KEEP_CAPACITY);
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{JsonText, Reason};
    use super::super::slab::Slab;
    use super::*;

    #[test]
    fn only_present_members_are_counted_each_with_its_newest_introduction() {
        let mut channel = Channel::new("c", 1, Millis(0));
        let now = Now { mono: Millis(0), unix_ms: 0 };
        let retention = Retention { messages: 100, ms: 1_000 };
        let [name, longer] = ["Josh", "Joshua"].map(JsonText::new);
        let mut members_bytes = |kind| {
            channel.append(now, kind, retention, &mut Vec::new(), &Rc::default());
            channel.usage().bytes - channel.usage().history - 2
        };
        let introduction =
            |from, text| MessageKind::Introduction { from, is_owner: false, address: None, text };
        let goodbye = |from| MessageKind::Goodbye { from, reason: Reason::Left, text: None };
        let one = members_bytes(introduction(1, &name));
        assert_eq!(members_bytes(introduction(1, &name)), one);
        let longer_by = members_bytes(introduction(1, &longer)) - one;
        assert!(longer_by >= 2 * 2, "{longer_by}: both forms of the text have two bytes more");
        let both = members_bytes(introduction(2, &name));
        assert!((2 * one..=2 * (one + longer_by)).contains(&both), "{one} and {both}");
        let other = members_bytes(goodbye(1));
        // A page may keep what is stale in it.
        assert!((one..both).contains(&other), "{one} and {other}");
        assert_eq!(members_bytes(goodbye(2)), 0);
    }

    fn local() -> ChannelLocal {
        Channel::new("c", 1, Millis(0)).local
    }

    /// Readers that come and go while one stays must neither fill memory nor make each departure
    /// search all keys.
    #[test]
    fn stale_keys_are_removed_together_once_they_are_more_than_half() {
        let (mut readers, mut local) = (Slab::default(), local());
        let keys: Vec<_> = (0..100).map(|_| readers.insert(())).collect();
        for key in &keys {
            local.add_reader(*key);
        }
        for key in &keys[..52] {
            readers.remove(*key);
            local.remove_reader(|_| panic!("searched too early"));
        }
        assert_eq!(local.readers_in_order.len(), 100);
        readers.remove(keys[52]);
        local.remove_reader(|key| readers.get(key).is_some());
        assert_eq!(local.readers_in_order, keys[53..]);
        for key in &keys[53..] {
            readers.remove(*key);
            local.remove_reader(|key| readers.get(key).is_some());
        }
        assert!(local.readers_in_order.capacity() <= READERS_KEEP_CAPACITY);
    }

    #[test]
    fn a_channel_frees_capacity_that_its_readers_do_not_need() {
        let (mut readers, mut local) = (Slab::default(), local());
        local.readers_in_order.reserve(1_000);
        (0..10).for_each(|_| local.add_reader(readers.insert(())));
        local.shrink();
        assert!((20..=24).contains(&local.readers_in_order.capacity()));
    }
}

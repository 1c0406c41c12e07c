//! One channel's log: ids, retention, members, and who waits.

use std::collections::{BTreeMap, VecDeque};

use super::message::{ENTRY, Entry, MessageKind, encode};
use super::reader::{GapPolicy, Since, Subscription};
use super::slab::Key;
use super::time::{Millis, Now};
use super::timer_wheel::TimerId;
use super::usage::{ALLOCATION, Usage};

/// With `--history 0` this many messages of one turn still reach those who wait.
const UNRETAINED_MAX: usize = 100;

/// A connection introduced in a channel.
#[derive(Debug)]
pub struct Member {
    /// The id of its newest introduction.
    pub id: u64,
    /// The `time` of it, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What it said, as a JSON string with its quotes.
    pub text_json: Box<[u8]>,
    /// The whole message, for newcomers after history has dropped it.
    pub(super) introduction_json: Box<[u8]>,
}

/// An introduction of a member beside its JSON: two texts, its part of a node of the tree, and its place in the list of its connection.
pub(super) const MEMBER: usize = 2 * (size_of::<Member>() + size_of::<u64>()) + 3 * ALLOCATION;

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: Box<str>,
    /// The id of the oldest entry; of the next one where there is none.
    pub(super) first_id: u64,
    pub(super) entries: VecDeque<Entry>,
    pub(super) members: BTreeMap<u64, Member>,
    /// Waiting reads in the order in which they came, among them keys of some that left.
    pub(super) readers_in_order: Vec<Key>,
    /// How many of `waiting` are still there.
    pub(super) reader_count: usize,
    pub(super) last_use: Millis,
    /// Set while there is something to expire or the channel itself may be dropped.
    pub(super) timer: Option<TimerId>,
    /// On the hub's list of channels to deliver.
    pub(super) is_dirty: bool,
    /// Bytes of the entries, by [`Channel::holds`].
    entries_bytes: usize,
    /// Bytes of the members, likewise.
    members_bytes: usize,
}

/// How much history a channel keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub(super) messages: usize,
    pub(super) ms: u64,
}

/// Tells parts of one channel in one turn apart: its range, whether something was missed, and how many
/// introductions it has that history has dropped (those are all of them, or none).
pub(super) type Fingerprint = (u64, u64, bool, usize);

/// What a read gets of one channel.
#[derive(Debug)]
pub struct ChannelSlice<'h> {
    channel: Option<&'h Channel>,
    /// Connections whose introduction history has dropped, oldest introduction first.
    introductions: Vec<&'h Member>,
    /// Ids of the retained messages in it.
    start: u64,
    end: u64,
    /// Messages from `from_id` on may be gone.
    pub missed: bool,
    /// `from_id` belongs to another numbering.
    pub reset: bool,
}

impl<'h> ChannelSlice<'h> {
    /// No messages; go on from `next_id`.
    pub(super) fn empty(next_id: u64) -> Self {
        Self {
            channel: None,
            introductions: Vec::new(),
            start: next_id,
            end: next_id,
            missed: false,
            reset: false,
        }
    }

    /// Its messages as JSON objects, ordered by id.
    pub fn messages(&self) -> impl Iterator<Item = &'h [u8]> + '_ {
        self.introductions().chain(self.retained())
    }

    /// Those of its messages that history has dropped: introductions of who is there.
    pub fn introductions(&self) -> impl Iterator<Item = &'h [u8]> + '_ {
        self.introductions.iter().map(|member| &*member.introduction_json)
    }

    /// Those that history retains. The first has the id [`Part::first_id`], and each the next one.
    #[inline]
    pub fn retained(&self) -> impl Iterator<Item = &'h [u8]> + '_ {
        let entries = self.channel.filter(|_| self.start < self.end).map(|channel| {
            let first = (self.start - channel.first_id) as usize;
            channel.entries.range(first..first + (self.end - self.start) as usize)
        });
        entries.into_iter().flatten().map(|entry| &*entry.json)
    }

    /// Where the retained messages in it begin; the same as [`Part::next_id`] if there are none.
    #[must_use]
    pub fn first_id(&self) -> u64 {
        self.start
    }

    /// What to pass as `from_id` next.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.end
    }

    /// Whether a read has to be answered for it.
    pub(super) fn has_news(&self) -> bool {
        self.start < self.end || self.missed || self.reset || !self.introductions.is_empty()
    }

    /// What a read gets of a channel that does not exist and would begin at `next_id`.
    pub(super) fn of_missing(next_id: u64, since: Since, same_epoch: bool) -> Self {
        let (reset, missed) = match since {
            Since::Id(id) if !same_epoch || id > next_id => (true, false),
            Since::Id(id) => (false, id < next_id),
            Since::All | Since::Last(_) | Since::Now => (false, false),
        };
        Self { missed, reset, ..Self::empty(next_id) }
    }

    /// Equal for two parts of one channel in one turn that read the same.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        (self.start, self.end, self.missed, self.introductions.len())
    }

    /// Cuts what would exceed the budget of bytes of the answer, and tells whether it did; `any` tells whether the
    /// answer holds a message yet.
    #[inline]
    pub(super) fn cut(&mut self, budget: &mut usize, any: &mut bool) -> bool {
        let Some(channel) = self.channel else { return false };
        for id in self.start..self.end {
            let bytes = channel.entries[(id - channel.first_id) as usize].json.len();
            if *any && bytes > *budget {
                self.end = id;
                // Nothing of a later channel may slip past what this one had to leave.
                *budget = 0;
                return true;
            }
            *any = true;
            *budget = budget.saturating_sub(bytes);
        }
        false
    }
}

impl Member {
    fn bytes(&self) -> usize {
        MEMBER + self.text_json.len() + self.introduction_json.len()
    }
}

impl Channel {
    pub(super) fn new(name: &str, first_id: u64, now: Millis) -> Self {
        Self {
            name: name.into(),
            first_id,
            entries: VecDeque::new(),
            members: BTreeMap::new(),
            readers_in_order: Vec::new(),
            reader_count: 0,
            last_use: now,
            timer: None,
            is_dirty: false,
            entries_bytes: 0,
            members_bytes: 0,
        }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.first_id + self.entries.len() as u64
    }

    /// How many messages are retained.
    pub(super) fn retained(&self) -> usize {
        self.entries.len()
    }

    /// When the oldest message is to go.
    pub(super) fn oldest_expiry(&self, retention: Retention) -> Option<Millis> {
        self.entries.front().map(|entry| entry.at.after(retention.ms))
    }

    /// Adds a message. Constant time: nobody is woken here. `scratch` is for putting it together.
    pub(super) fn append(
        &mut self,
        now: Now,
        content: MessageKind<'_>,
        retention: Retention,
        scratch: &mut Vec<u8>,
    ) -> u64 {
        let id = self.next_id();
        let text = encode(scratch, id, now, content);
        let json: Box<[u8]> = scratch.as_slice().into();
        match content {
            MessageKind::Introduction { from, .. } => {
                let member = Member {
                    id,
                    unix_ms: now.unix_ms,
                    text_json: json[text].into(),
                    introduction_json: json.clone(),
                };
                self.members_bytes += member.bytes();
                let before = self.members.insert(from, member);
                self.members_bytes -= before.as_ref().map_or(0, Member::bytes);
            }
            MessageKind::Goodbye { from, .. } => {
                let gone = self.members.remove(&from);
                self.members_bytes -= gone.as_ref().map_or(0, Member::bytes);
            }
            MessageKind::Message { .. } => {}
        }
        self.entries_bytes += ENTRY + json.len();
        self.entries.push_back(Entry { at: now.mono, json });
        let keep = if retention.messages == 0 { UNRETAINED_MAX } else { retention.messages };
        self.trim_to(keep);
        self.last_use = now.mono;
        id
    }

    /// Puts a message behind the others as it stood in a log before.
    pub(super) fn restore_entry(&mut self, entry: Entry) {
        self.entries_bytes += ENTRY + entry.json.len();
        self.entries.push_back(entry);
    }

    /// Takes in who was here before. Tells whether nobody of that number was.
    pub(super) fn restore_member(&mut self, number: u64, member: Member) -> bool {
        self.members_bytes += member.bytes();
        self.members.insert(number, member).is_none()
    }

    /// Lets go of what is older than retention allows.
    pub(super) fn expire(&mut self, now: Millis, retention: Retention) {
        while self.oldest_expiry(retention).is_some_and(|at| at <= now) {
            self.evict_oldest();
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// Lets go of all messages.
    pub(super) fn clear_history(&mut self) {
        self.trim_to(0);
        self.entries = VecDeque::new();
    }

    /// What its messages, its members and its name take.
    pub(super) fn holds(&self) -> Usage {
        let history = self.entries_bytes;
        Usage {
            bytes: history + self.members_bytes + 2 * self.name.len(),
            history,
            messages: self.entries.len(),
        }
    }

    /// When the oldest message was added.
    pub(super) fn oldest_at(&self) -> Option<Millis> {
        self.entries.front().map(|entry| entry.at)
    }

    /// Lets go of the oldest messages beyond this number.
    pub(super) fn trim_to(&mut self, keep: usize) {
        while self.entries.len() > keep {
            self.evict_oldest();
        }
    }

    /// Lets go of the oldest message, which there must be.
    pub(super) fn evict_oldest(&mut self) {
        let entry = self.entries.pop_front().expect("the caller looked");
        self.entries_bytes -= ENTRY + entry.json.len();
        self.first_id += 1;
    }

    /// What a read gets that begins here; `same_epoch` tells whether its ids are of this numbering.
    pub(super) fn part_since(&self, since: Since, same_epoch: bool) -> ChannelSlice<'_> {
        let next_id = self.next_id();
        let reset = matches!(since, Since::Id(id) if !same_epoch || id > next_id);
        match since {
            _ if reset => ChannelSlice { reset, ..self.part_for_newcomer() },
            Since::All => self.part_for_newcomer(),
            Since::Id(id) => self.part_from(id, true),
            Since::Last(count) => self.part_from(next_id.saturating_sub(count), false),
            Since::Now => self.part_from(next_id, false),
        }
    }

    /// What a waiting read gets now.
    #[inline]
    pub(super) fn part_for(&self, seat: Subscription) -> ChannelSlice<'_> {
        match seat.promise {
            GapPolicy::FullState => self.part_for_newcomer(),
            GapPolicy::Report => self.part_from(seat.cursor, true),
            GapPolicy::Ignore => self.part_from(seat.cursor, false),
        }
    }

    fn part_from(&self, id: u64, tell_gaps: bool) -> ChannelSlice<'_> {
        ChannelSlice {
            channel: Some(self),
            introductions: Vec::new(),
            start: id.max(self.first_id),
            end: self.next_id(),
            missed: tell_gaps && id < self.first_id,
            reset: false,
        }
    }

    fn part_for_newcomer(&self) -> ChannelSlice<'_> {
        let mut introductions: Vec<_> =
            self.members.values().filter(|member| member.id < self.first_id).collect();
        introductions.sort_unstable_by_key(|member| member.id);
        ChannelSlice { introductions, ..self.part_from(self.first_id, false) }
    }

    /// Takes a waiting read in, behind those who came before.
    pub(super) fn add_reader(&mut self, reader: Key) {
        self.readers_in_order.push(reader);
        self.reader_count += 1;
    }

    /// Nobody is here: once the messages are gone too, the channel may go.
    pub(super) fn is_idle(&self) -> bool {
        self.members.is_empty() && self.reader_count == 0
    }

    /// Gives back the room of a crowd that is gone.
    pub(super) fn shrink(&mut self) {
        self.readers_in_order.shrink_to(2 * self.reader_count + WAITING_KEEP_CAPACITY);
    }

    /// A waiting read is gone; its key is swept out of `waiting` once half of them are stale.
    pub(super) fn remove_reader(&mut self, is_there: impl Fn(Key) -> bool) {
        self.reader_count -= 1;
        if self.reader_count == 0 {
            self.readers_in_order.clear();
            self.shrink();
        } else if self.readers_in_order.len() > 2 * self.reader_count + WAITING_KEEP_CAPACITY {
            self.readers_in_order.retain(|key| is_there(*key));
            self.readers_in_order.shrink_to(2 * self.reader_count);
        }
    }
}

/// Room for readers that an emptied channel keeps: enough for a small room, nothing in ten thousand of them.
const WAITING_KEEP_CAPACITY: usize = 4;

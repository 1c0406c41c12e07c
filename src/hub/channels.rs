//! The table of channels.

use std::cell::Cell;
use std::collections::HashMap;
use std::mem;
use std::ops::Index;
use std::rc::Rc;

use super::bans::Bans;
use super::channel::{CHANNEL_BYTES, Channel, ChannelLocal, Member, Retention};
use super::channel_name::ChannelKey;
use super::channel_slice::ChannelSlice;
use super::config::Config;
use super::id_watermarks::IdWatermarks;
use super::lookup::Lookup;
use super::message::{Entry, MessageKind};
use super::paged_slab::PagedSlab;
use super::reader::Subscription;
use super::shrink::shrink;
use super::stats::{DropReason, Stats};
use super::time::{Millis, Now, whole_ms};
use super::timers::{TimerKey, Timers};
use super::usage::Usage;

/// Cost of adding a message, as a number of bytes of JSON. A session that ends adds 32 of them.
const APPEND_COST_BYTES: usize = 2 * 1024;

/// Bytes of scratch space that stay allocated from turn to turn.
const SCRATCH_KEEP_BYTES: usize = 4096;

/// All channels, by index and by name.
pub(super) struct Channels {
    // Shared state.
    slab: PagedSlab<Channel>,
    /// Clients choose the names: the random key of `std`'s `SipHash` prevents hash flooding.
    by_name: HashMap<Box<str>, u32>,
    /// Next ids of dropped channels.
    id_watermarks: IdWatermarks,

    // Local state.
    /// Memory of all channels.
    usage: Usage,
    /// Bytes of complete pages of introductions, also of those that only readers have.
    page_bytes: Rc<Cell<usize>>,
    /// Number of channels that are about to be dropped.
    dropping: usize,
    /// Number of channels from which addresses were sent away.
    banning: usize,
    /// Channels with messages since the last delivery, each once.
    dirty: Vec<u32>,
    /// Index at which the next search for something to evict begins.
    eviction_cursor: u32,
    stats: Stats,
    /// Length of the JSON of all messages added since the start, with [`APPEND_COST_BYTES`] for
    /// each.
    appended_bytes: u64,
    /// Buffer for the encoding of a message.
    scratch: Vec<u8>,

    // Settings.
    retention: Retention,
}

impl Index<u32> for Channels {
    type Output = Channel;

    #[inline]
    fn index(&self, index: u32) -> &Channel {
        &self.slab[index]
    }
}

/// Shared state.
impl Channels {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            slab: PagedSlab::new(),
            by_name: HashMap::new(),
            id_watermarks: IdWatermarks::new(config.watermark_hash_key),
            retention: Retention { messages: config.history, ms: whole_ms(config.retention) },
            usage: Usage::default(),
            page_bytes: Rc::default(),
            dropping: 0,
            banning: 0,
            dirty: Vec::new(),
            eviction_cursor: 0,
            stats: Stats::default(),
            appended_bytes: 0,
            scratch: Vec::new(),
        }
    }

    pub(super) fn find(&self, key: &ChannelKey<'_>) -> Option<u32> {
        self.find_name(key.as_str())
    }

    /// Finds a channel by the text of its key. Not inlined: the hash is long, its callers are not.
    #[inline(never)]
    pub(super) fn find_name(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// Finds a channel by the text of its key. Costs no hash if the channel has the index `hint`.
    #[inline]
    pub(super) fn find_name_near(&self, name: &str, hint: Option<u32>) -> Option<u32> {
        let has_name = |index: &u32| self.get(*index).is_some_and(|it| *it.name == *name);
        hint.filter(has_name).or_else(|| self.find_name(name))
    }

    /// Looks up a channel. A miss hashes the name with SHA-256, so call it once per request.
    #[inline]
    pub(super) fn lookup(&self, key: &ChannelKey<'_>) -> Lookup {
        self.find(key).map_or_else(
            || Lookup::Vacant { first_id: self.id_watermarks.first_id(key.as_str()) },
            Lookup::Occupied,
        )
    }

    /// Looks up a channel and drops its expired messages.
    #[inline]
    pub(super) fn lookup_fresh(&mut self, key: &ChannelKey<'_>, now: Millis) -> Lookup {
        let lookup = self.lookup(key);
        if let Lookup::Occupied(index) = lookup {
            self.expire_history(now, index);
        }
        lookup
    }

    /// Returns the channel of a lookup, and creates it if it does not exist.
    #[inline]
    pub(super) fn get_or_create(
        &mut self,
        lookup: Lookup,
        key: &ChannelKey<'_>,
        now: Millis,
        timers: &mut Timers,
    ) -> u32 {
        match lookup {
            Lookup::Occupied(index) => index,
            Lookup::Vacant { first_id } => {
                self.insert(Channel::new(key.as_str(), first_id, now), timers)
            }
        }
    }

    /// Adds a channel. No other channel may have its name. Not inlined, so that its callers are for
    /// the usual case: the channel exists.
    #[inline(never)]
    pub(super) fn insert(&mut self, channel: Channel, timers: &mut Timers) -> u32 {
        self.usage.update(Usage::default(), channel.usage());
        self.banning += usize::from(channel.bans.is_some());
        let name = channel.name.clone();
        let index = self.slab.insert(channel);
        self.by_name.insert(name, index);
        self.arm_timer(index, timers);
        index
    }

    /// Adds a message, marks the channel as dirty and returns the message's id.
    pub(super) fn append(
        &mut self,
        now: Now,
        index: u32,
        kind: MessageKind<'_>,
        timers: &mut Timers,
    ) -> u64 {
        let channel = &mut self.slab[index];
        let before = channel.usage();
        let id = channel.append(now, kind, self.retention, &mut self.scratch, &self.page_bytes);
        self.appended_bytes += (APPEND_COST_BYTES + self.scratch.len()) as u64;
        let after = channel.usage();
        self.usage.update(before, after);
        self.stats.count_added(&kind);
        self.stats.count_dropped(DropReason::Count, before.messages + 1 - after.messages);
        if channel.local.mark_dirty() {
            self.dirty.push(index);
        }
        self.arm_timer(index, timers);
        id
    }

    /// Makes the next delivery look at the readers of a channel.
    pub(super) fn mark_dirty(&mut self, index: u32) {
        if self.slab[index].local.mark_dirty() {
            self.dirty.push(index);
        }
    }

    /// Drops the expired messages of a channel.
    pub(super) fn expire_history(&mut self, now: Millis, index: u32) {
        let retention = self.retention;
        if self.slab[index].oldest_expiry(retention).is_some_and(|at| at <= now) {
            self.drop_history(index, DropReason::Age, |channel| channel.expire(now, retention));
        }
    }

    /// Drops the delivered messages of a channel if history retains none (`--history 0`).
    pub(super) fn drop_unretained(&mut self, index: u32) {
        if self.retention.messages == 0 {
            self.drop_history(index, DropReason::Count, Channel::clear_history);
        }
    }

    /// Runs `drop_messages` on a channel and accounts for the messages that it drops.
    pub(super) fn drop_history(
        &mut self,
        index: u32,
        reason: DropReason,
        drop_messages: impl FnOnce(&mut Channel),
    ) {
        let channel = &mut self.slab[index];
        let before = channel.usage();
        drop_messages(channel);
        let after = channel.usage();
        self.usage.update(before, after);
        self.stats.count_dropped(reason, before.messages - after.messages);
    }

    /// Drops an unused channel. Its next id is recorded as a watermark.
    pub(super) fn drop_channel(&mut self, index: u32, timers: &mut Timers) {
        let channel = self.slab.remove(index);
        assert!(!channel.local.is_dirty, "an unused channel has no messages to deliver");
        self.dropping -= usize::from(channel.local.is_dropping);
        self.banning -= usize::from(channel.bans.is_some());
        self.usage.update(channel.usage(), Usage::default());
        if let Some(timer) = channel.local.timer {
            timers.cancel(timer);
        }
        self.by_name.remove(&channel.name);
        shrink(&mut self.by_name);
        self.id_watermarks.record(&channel.name, channel.next_id());
    }

    /// Makes a channel without messages exist in shared state. Returns its first id.
    pub(super) fn share(&mut self, index: u32, position: u64) -> u64 {
        let channel = &mut self.slab[index];
        let first_id = self.id_watermarks.first_id(&channel.name);
        channel.is_shared = true;
        channel.created_at = position;
        channel.first_id = first_id;
        first_id
    }

    /// Drops a channel from shared state. It stays in this process, for its readers.
    pub(super) fn unshare(&mut self, index: u32) {
        self.drop_history(index, DropReason::Age, Channel::clear_history);
        self.change_bans(index, |_| None);
        let channel = &mut self.slab[index];
        channel.is_shared = false;
        self.id_watermarks.record(&channel.name, channel.next_id());
    }

    /// Sets the position of the command that changes a channel.
    pub(super) fn set_position(&mut self, index: u32, position: u64) {
        self.slab[index].position = position;
    }

    /// Sets the key of the watermarks of an empty table.
    pub(super) fn begin_id_watermarks(&mut self, key: [u8; 16]) {
        self.id_watermarks = IdWatermarks::new(key);
    }

    /// Restores a channel without its messages and members.
    pub(super) fn restore_shared(
        &mut self,
        index: u32,
        next_id: u64,
        position: u64,
        created_at: u64,
        timers: &mut Timers,
    ) {
        self.change_bans(index, |_| None);
        self.change(index, |channel| {
            channel.restore_shared(next_id);
            channel.position = position;
            channel.created_at = created_at;
        });
        self.arm_timer(index, timers);
    }

    /// Adds messages with consecutive ids. If they do not follow those that are there, history
    /// dropped some while the checkpoint was saved: then only the new ones stay.
    pub(super) fn restore_entries(
        &mut self,
        index: u32,
        first_id: u64,
        entries: impl Iterator<Item = Entry>,
    ) {
        let keep = self.retention.messages;
        self.change(index, |channel| {
            if channel.retained() == 0 || channel.next_id() != first_id {
                channel.clear_history();
                channel.first_id = first_id;
            }
            entries.for_each(|entry| channel.push_entry(entry));
            // The operator may have shortened the history.
            channel.trim_to(keep);
        });
    }

    /// Adds a member with its introduction. Returns false if a later introduction, or the member,
    /// is there already.
    pub(super) fn restore_member(
        &mut self,
        index: u32,
        number: u64,
        member: Member,
        introduction: &[u8],
    ) -> bool {
        let page_bytes = Rc::clone(&self.page_bytes);
        let mut is_new = false;
        self.change(index, |channel| {
            is_new = channel.introductions.last_id() < Some(member.id);
            if is_new {
                channel.introductions.push(member.id, introduction, &page_bytes);
                is_new = channel.restore_member(number, member);
            }
        });
        is_new
    }

    /// Ends the restoration of a channel whose next id is `next_id`.
    pub(super) fn finish_restore(&mut self, index: u32, next_id: u64, timers: &mut Timers) {
        self.change(index, |channel| {
            if channel.next_id() != next_id {
                channel.clear_history();
                channel.first_id = next_id;
            }
        });
        self.arm_timer(index, timers);
    }

    /// Replaces the addresses that were sent away from a channel.
    pub(super) fn change_bans(
        &mut self,
        index: u32,
        change: impl FnOnce(Option<Box<Bans>>) -> Option<Box<Bans>>,
    ) {
        let mut banning = self.banning;
        self.change(index, |channel| {
            banning -= usize::from(channel.bans.is_some());
            let bans = change(channel.take_bans());
            channel.set_bans(bans);
            banning += usize::from(channel.bans.is_some());
        });
        self.banning = banning;
    }

    /// Forgets the addresses whose time is over.
    fn forget_ended_bans(&mut self, index: u32, now: Millis) {
        if self.slab[index].bans.is_some() {
            self.change_bans(index, |bans| bans.and_then(|bans| bans.without_ended(now)));
        }
    }

    /// Returns whether addresses were sent away from any channel.
    #[inline]
    pub(super) fn has_bans(&self) -> bool {
        self.banning > 0
    }

    /// Replaces a message by one without a text.
    pub(super) fn remove_message(&mut self, index: u32, id: u64) {
        let page_bytes = Rc::clone(&self.page_bytes);
        self.change(index, |channel| channel.remove_message(id, &page_bytes));
    }

    /// Runs `change` on a channel and accounts for its memory.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Channel)) {
        let channel = &mut self.slab[index];
        let before = channel.usage();
        change(channel);
        self.usage.update(before, channel.usage());
    }

    /// Records the next id of a dropped channel.
    pub(super) fn record_id_watermark(&mut self, name: &str, next_id: u64) {
        self.id_watermarks.record(name, next_id);
    }

    pub(super) fn id_watermarks(&self) -> &IdWatermarks {
        &self.id_watermarks
    }

    /// Restores a watermark. Returns whether `bucket` exists.
    pub(super) fn restore_id_watermark(&mut self, bucket: u16, next_id: u64) -> bool {
        self.id_watermarks.restore(bucket, next_id)
    }

    /// Makes the slice that a delivery gives a reader.
    #[inline]
    pub(super) fn slice_for(&self, subscription: &Subscription) -> ChannelSlice<'_> {
        let mut slice = self[subscription.channel].slice_for(*subscription);
        slice.index = subscription.channel;
        slice
    }

    /// Iterates over all channels with their indexes, by index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Channel)> {
        self.slab.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }
}

/// Timers.
impl Channels {
    /// Arms the timer that a channel needs.
    pub(super) fn arm_timer(&mut self, index: u32, timers: &mut Timers) {
        let channel = &mut self.slab[index];
        let at = match channel.oldest_expiry(self.retention) {
            Some(at) => at,
            None if channel.is_idle() => channel.dropped_at(),
            None => return,
        };
        timers.arm(&mut channel.local.timer, at, TimerKey::Channel(index));
    }

    /// Drops the expired messages of a channel. Returns whether the channel has been idle long
    /// enough to be dropped; otherwise arms its timer again.
    pub(super) fn on_timer(&mut self, now: Millis, index: u32, timers: &mut Timers) -> bool {
        self.slab[index].local.timer = None;
        self.expire_history(now, index);
        self.forget_ended_bans(index, now);
        let channel = &mut self.slab[index];
        channel.local.shrink();
        let is_idle = channel.is_idle() && channel.retained() == 0;
        let is_over = is_idle && channel.dropped_at() <= now;
        if !is_over {
            self.arm_timer(index, timers);
        }
        is_over
    }

    /// Clears the timers of all channels after their wheel was dropped.
    pub(super) fn detach_timers(&mut self) {
        let indexes: Vec<_> = self.slab.iter().map(|(index, _)| index).collect();
        for index in indexes {
            self.slab[index].local.timer = None;
        }
    }
}

/// Local state.
impl Channels {
    pub(super) fn local_mut(&mut self, index: u32) -> &mut ChannelLocal {
        &mut self.slab[index].local
    }

    /// Notes that a channel is about to be dropped.
    pub(super) fn begin_drop(&mut self, index: u32) {
        let local = &mut self.slab[index].local;
        self.dropping += usize::from(!mem::replace(&mut local.is_dropping, true));
    }

    /// Notes that a channel is used again, and returns its local state. The command that drops the
    /// channel leaves it to its readers and commands.
    #[inline]
    pub(super) fn cancel_drop(&mut self, index: u32) -> &mut ChannelLocal {
        let local = &mut self.slab[index].local;
        self.dropping -= usize::from(mem::take(&mut local.is_dropping));
        local
    }

    /// Returns the number of channels that are about to be dropped.
    pub(super) fn dropping(&self) -> usize {
        self.dropping
    }

    /// Counts a command that waits for its place in the log. Until then, the channel stays.
    pub(super) fn begin_proposal(&mut self, index: u32, now: Millis) {
        let local = self.cancel_drop(index);
        local.proposed += 1;
        local.last_use = now;
    }

    /// Ends the wait of a command for a channel. If the command fails, the channel's timer is to be
    /// armed.
    pub(super) fn end_proposal(&mut self, index: u32) {
        let local = self.local_mut(index);
        // Commands that another process proposed were not counted here.
        local.proposed = local.proposed.saturating_sub(1);
    }

    /// Returns the channels with messages since the last delivery, in the order of their first
    /// message.
    pub(super) fn dirty(&self) -> &[u32] {
        &self.dirty
    }

    /// Clears the list of dirty channels after their delivery.
    pub(super) fn finish_delivery(&mut self) {
        self.dirty.clear();
        // One large message must not keep its memory.
        self.scratch.shrink_to(SCRATCH_KEEP_BYTES);
    }

    pub(super) fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// Sets all counts to 0.
    pub(super) fn reset_stats(&mut self) {
        (self.stats, self.appended_bytes) = (Stats::default(), 0);
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Returns the count of the bytes of complete pages of introductions.
    pub(super) fn page_bytes(&self) -> &Rc<Cell<usize>> {
        &self.page_bytes
    }

    pub(super) fn count_delivery(&mut self) {
        self.stats.count_delivery();
    }

    /// Returns the memory of the names, members and messages of all channels, without overheads.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Returns the memory of all channels, with overheads.
    pub(super) fn memory(&self) -> usize {
        self.usage.bytes + self.page_bytes.get() + self.slab.len() * CHANNEL_BYTES
    }

    pub(super) fn get(&self, index: u32) -> Option<&Channel> {
        self.slab.get(index)
    }

    /// Returns a bound above all indexes.
    pub(super) fn index_bound(&self) -> u32 {
        self.slab.index_bound()
    }

    /// Advances the eviction cursor by `count` indexes, a page at least, and at most once around.
    /// Returns the indexes that it passed. Some may have no channel.
    pub(super) fn scan_window(&mut self, count: u32) -> impl Iterator<Item = u32> + Clone + use<> {
        // The first channels share a page, whose length depends on the machine: a server with few
        // channels is searched completely.
        let count = count.max(PagedSlab::<Channel>::PAGE_LEN as u32);
        let bound = self.slab.index_bound().max(1);
        let start = self.eviction_cursor % bound;
        self.eviction_cursor = (start + count) % bound;
        (0..count.min(bound)).map(move |step| (start + step) % bound)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    /// If the hash were known, a client could choose names that collide, and slow down each lookup.
    #[test]
    fn each_table_hashes_names_differently() {
        let config = Config::default();
        let (one, other) = (Channels::new(&config), Channels::new(&config));
        for name in ["", "lobby", "~wABCDEFGHIJKLMNOPQRSTUV"] {
            assert_ne!(one.by_name.hasher().hash_one(name), other.by_name.hasher().hash_one(name));
        }
    }
}

//! Slices of channels: the messages that one read gets.

use super::channel::Channel;
use super::introductions::IntroductionSlice;
use super::reader::{GapPolicy, Since, Subscription};

/// Index that no channel has.
pub(super) const NO_CHANNEL: u32 = u32::MAX;

/// Part of a channel that one read gets.
#[derive(Debug)]
pub struct ChannelSlice<'h> {
    channel: Option<&'h Channel>,
    /// Introductions that history has dropped, of sessions that are still members; oldest first.
    introductions: IntroductionSlice<'h>,
    /// Ids of the retained messages in the slice: from `start` up to but not including `end`.
    start: u64,
    end: u64,
    /// Some messages from `from_id` on may have been dropped.
    pub missed: bool,
    /// Index of the channel, in the slices of a delivery; `u32::MAX` in others. Within one
    /// delivery, equal ids of equal indexes are equal messages.
    pub index: u32,
    /// `from_id` belongs to another numbering.
    pub reset: bool,
    /// The slice is that of `from_id=0`.
    is_full: bool,
}

/// Identifies equal slices of one channel within one turn: first and next id, `missed`, `reset`,
/// and the number of introductions that history has dropped. A slice has all of these introductions
/// or none.
pub(super) type Fingerprint = (u64, u64, bool, bool, usize);

impl<'h> ChannelSlice<'h> {
    /// Makes a slice without messages, whose reader continues from `next_id`.
    pub(super) fn empty(next_id: u64) -> Self {
        Self {
            index: NO_CHANNEL,
            channel: None,
            introductions: IntroductionSlice::default(),
            start: next_id,
            end: next_id,
            missed: false,
            reset: false,
            is_full: false,
        }
    }

    /// Makes the slice of a channel that does not exist and whose first id would be `next_id`.
    pub(super) fn of_missing(next_id: u64, since: Since, same_epoch: bool) -> Self {
        let (reset, missed) = match since {
            Since::Id(id) if !same_epoch || id > next_id => (true, false),
            Since::Id(id) => (false, id < next_id),
            Since::All | Since::Last(_) | Since::Now => (false, false),
        };
        Self { missed, reset, ..Self::empty(next_id) }
    }

    /// Iterates over the messages as JSON objects, ordered by id.
    pub fn messages(&self) -> impl Iterator<Item = &'h [u8]> + '_ {
        self.introductions().chain(self.retained())
    }

    /// Iterates over the introductions of present members that history has dropped.
    pub fn introductions(&self) -> impl Iterator<Item = &'h [u8]> + '_ {
        self.introductions.iter()
    }

    /// Returns the introductions of present members that history has dropped.
    #[must_use]
    pub fn introduction_slice(&self) -> IntroductionSlice<'h> {
        self.introductions
    }

    /// Iterates over the messages that history retains. Their ids are consecutive and begin at
    /// [`ChannelSlice::first_id`].
    #[inline]
    pub fn retained(&self) -> impl Iterator<Item = &'h [u8]> + '_ {
        self.entries(self.start, self.end)
    }

    /// Iterates over the messages after the slice, which did not fit into the reply.
    pub fn later(&self) -> impl Iterator<Item = &'h [u8]> + '_ {
        self.entries(self.end, self.channel.map_or(self.end, Channel::next_id))
    }

    /// Iterates over the messages with ids from `start` up to but not including `end`.
    #[inline]
    fn entries(&self, start: u64, end: u64) -> impl Iterator<Item = &'h [u8]> + '_ {
        let entries = self.channel.filter(|_| start < end).map(|channel| {
            let first = (start - channel.first_id) as usize;
            channel.entries.range(first..first + (end - start) as usize)
        });
        entries.into_iter().flatten().map(|entry| &*entry.json)
    }

    /// Returns the id of the first retained message, or [`ChannelSlice::next_id`] if there is none.
    #[must_use]
    pub fn first_id(&self) -> u64 {
        self.start
    }

    /// Returns the `from_id` of the next read.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.end
    }

    /// Returns the `from_id` that gets this slice again and all that follows it: 0 if the slice has
    /// anything of `from_id=0`, and otherwise the id of its first message.
    #[must_use]
    pub fn start(&self) -> u64 {
        let has_retained = self.channel.is_some_and(|channel| self.start < channel.next_id());
        let is_from_0 = self.is_full && (has_retained || !self.introductions.is_empty());
        if is_from_0 { 0 } else { self.start }
    }

    /// Returns whether the slice is worth a reply to a reader.
    pub(super) fn has_news(&self) -> bool {
        self.start < self.end || self.missed || self.reset || !self.introductions.is_empty()
    }

    /// Returns the fingerprint. Two slices of one channel in one turn with equal contents have the
    /// same.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let introductions =
            if self.introductions.is_empty() { 0 } else { self.introductions.len() };
        (self.start, self.end, self.missed, self.reset, introductions)
    }

    /// Removes the messages that exceed `budget`, the bytes left in the reply, and returns whether
    /// it removed any. `has_message` is true once the reply has a message: the first one is never
    /// removed.
    #[inline]
    pub(super) fn truncate(&mut self, budget: &mut usize, has_message: &mut bool) -> bool {
        let Some(channel) = self.channel else { return false };
        for id in self.start..self.end {
            let bytes = channel.entries[(id - channel.first_id) as usize].json.len();
            if *has_message && bytes > *budget {
                self.end = id;
                // No message of a later channel may overtake the ones that were removed here.
                *budget = 0;
                return true;
            }
            *has_message = true;
            *budget = budget.saturating_sub(bytes);
        }
        false
    }
}

impl Channel {
    /// Makes the slice for a read that begins at `since`. `same_epoch` is true if the ids of the
    /// read belong to this numbering.
    pub(super) fn slice_since(&self, since: Since, same_epoch: bool) -> ChannelSlice<'_> {
        let next_id = self.next_id();
        let reset = matches!(since, Since::Id(id) if !same_epoch || id > next_id);
        match since {
            _ if reset => ChannelSlice { reset, ..self.full_slice() },
            Since::All => self.full_slice(),
            Since::Id(id) => self.slice_from(id, true),
            Since::Last(count) => self.slice_from(next_id.saturating_sub(count), false),
            Since::Now => self.slice_from(next_id, false),
        }
    }

    /// Makes the slice for a reader, from its cursor on.
    #[inline]
    pub(super) fn slice_for(&self, subscription: Subscription) -> ChannelSlice<'_> {
        match subscription.gap_policy {
            GapPolicy::FullState => self.full_slice(),
            GapPolicy::Report => self.slice_from(subscription.cursor, true),
            GapPolicy::Ignore => self.slice_from(subscription.cursor, false),
            GapPolicy::Reset => ChannelSlice { reset: true, ..self.full_slice() },
        }
    }

    fn slice_from(&self, id: u64, reports_gaps: bool) -> ChannelSlice<'_> {
        let start = id.max(self.first_id);
        ChannelSlice {
            index: NO_CHANNEL,
            channel: Some(self),
            introductions: IntroductionSlice::default(),
            start,
            // A process that is behind may have a reader of ids to come.
            end: self.next_id().max(start),
            missed: reports_gaps && id < self.first_id,
            reset: false,
            is_full: false,
        }
    }

    /// Makes the slice with all retained messages and the newest introduction of each member.
    fn full_slice(&self) -> ChannelSlice<'_> {
        let introductions = self.introductions.below(self.first_id);
        ChannelSlice { introductions, is_full: true, ..self.slice_from(self.first_id, false) }
    }
}

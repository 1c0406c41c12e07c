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
    /// `end` is below `start` if a process that is behind does not have the message before `start`.
    start: u64,
    end: u64,
    gap: Gap,
    /// Index of the channel, in the slices of a delivery; `u32::MAX` in others. Within one
    /// delivery, equal ids of equal indexes are equal messages.
    pub index: u32,
    extent: Extent,
}

/// Kind of the read that gets a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// From an id on.
    Part,
    /// `from_id=0`.
    Full,
    /// `from_id=0`, with introductions in the place of messages that were removed.
    FullWithBlanks,
}

/// Whether a slice begins where the reader has read to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    None,
    /// Some messages from `from_id` on may have been dropped.
    Missed,
    /// `from_id` belongs to another numbering.
    Reset,
}

/// Facts about the ids of a read.
#[derive(Clone, Copy)]
pub(super) struct Numbering {
    /// The ids belong to the numbering of the hub.
    pub(super) is_same: bool,
    /// Other processes may have given ids that this one does not know yet.
    pub(super) is_behind: bool,
}

/// Identifies equal slices of one channel within one turn: first and next id, the gap, and the
/// number of introductions that history has dropped, with the highest bit set if introductions that
/// were removed may be among its messages. A slice has all of these introductions or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64, u64, Gap, usize);

impl Numbering {
    /// Returns whether no message has had this id in the numbering of the hub, whose next id is
    /// `next_id`.
    #[inline]
    fn lacks(self, id: u64, next_id: u64) -> bool {
        !self.is_same || (id > next_id && !self.is_behind)
    }
}

impl<'h> ChannelSlice<'h> {
    /// Makes a slice without messages, whose reader continues from `next_id`.
    pub(super) fn empty(next_id: u64) -> Self {
        Self {
            index: NO_CHANNEL,
            channel: None,
            introductions: IntroductionSlice::default(),
            start: next_id,
            end: next_id,
            gap: Gap::None,
            extent: Extent::Part,
        }
    }

    /// Makes the slice of a channel that does not exist and whose first id would be `next_id`.
    pub(super) fn of_missing(next_id: u64, since: Since, numbering: Numbering) -> Self {
        match since {
            Since::Id(id) if numbering.lacks(id, next_id) => {
                Self { gap: Gap::Reset, ..Self::empty(next_id) }
            }
            Since::Id(id) if id < next_id => Self { gap: Gap::Missed, ..Self::empty(next_id) },
            Since::Id(id) => Self::empty(id),
            Since::All | Since::Last(_) | Since::Now => Self::empty(next_id),
        }
    }

    /// Returns whether some messages from `from_id` on may have been dropped.
    #[must_use]
    pub fn missed(&self) -> bool {
        self.gap == Gap::Missed
    }

    /// Returns whether `from_id` belongs to another numbering.
    #[must_use]
    pub fn reset(&self) -> bool {
        self.gap == Gap::Reset
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
        let with_blanks = self.channel.filter(|_| self.has_blanks());
        let entries = self.channel.filter(|_| start < end).map(|channel| {
            let first = (start - channel.first_id) as usize;
            channel.entries.range(first..first + (end - start) as usize)
        });
        entries.into_iter().flatten().map(move |entry| match with_blanks {
            Some(channel) => channel.in_read_from_0(&entry.json),
            None => &*entry.json,
        })
    }

    /// Returns the id of the first retained message, or [`ChannelSlice::next_id`] if there is none.
    #[must_use]
    pub fn first_id(&self) -> u64 {
        self.start
    }

    /// Returns the `from_id` of the next read.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.end.max(self.start)
    }

    /// Returns the `from_id` that gets this slice again and all that follows it: 0 if the slice has
    /// anything of `from_id=0`, and otherwise the id of its first message.
    #[must_use]
    pub fn start(&self) -> u64 {
        let has_retained = self.channel.is_some_and(|channel| self.start < channel.next_id());
        let is_from_0 =
            self.extent != Extent::Part && (has_retained || !self.introductions.is_empty());
        if is_from_0 { 0 } else { self.start }
    }

    /// Returns whether the slice may have introductions in the place of messages that were removed,
    /// so that its messages are not those of other slices with the same ids.
    #[must_use]
    pub fn has_blanks(&self) -> bool {
        self.extent == Extent::FullWithBlanks
    }

    /// Returns whether the slice is worth a reply to a reader.
    pub(super) fn has_news(&self) -> bool {
        self.start < self.end || self.gap != Gap::None || !self.introductions.is_empty()
    }

    /// Returns the fingerprint. Two slices of one channel in one turn with equal contents have the
    /// same.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let introductions = match self.extent {
            Extent::Part => 0,
            Extent::Full => self.introductions.len(),
            Extent::FullWithBlanks => self.introductions.len() | 1 << (usize::BITS - 1),
        };
        Fingerprint(self.start, self.end, self.gap, introductions)
    }

    /// Removes the messages that exceed `budget`, the bytes left in the reply, and returns whether
    /// it removed any. `has_message` is true once the reply has a message: the first one is never
    /// removed.
    #[inline]
    pub(super) fn truncate(&mut self, budget: &mut usize, has_message: &mut bool) -> bool {
        let Some(channel) = self.channel else { return false };
        if self.has_blanks() {
            // By value: with a pointer to them, these would be in memory for all slices.
            let (is_cut, left, has_one) = self.truncate_blanks(channel, *budget, *has_message);
            (*budget, *has_message) = (left, has_one);
            return is_cut;
        }
        self.truncate_by(budget, has_message, <[u8]>::len)
    }

    /// Does that for a slice with blanks. Returns the new values too.
    #[cold]
    #[inline(never)]
    fn truncate_blanks(
        &mut self,
        channel: &Channel,
        mut budget: usize,
        mut has_message: bool,
    ) -> (bool, usize, bool) {
        let length = |json: &[u8]| channel.in_read_from_0(json).len();
        let is_cut = self.truncate_by(&mut budget, &mut has_message, length);
        (is_cut, budget, has_message)
    }

    /// Does that with messages of this length each.
    #[inline]
    fn truncate_by(
        &mut self,
        budget: &mut usize,
        has_message: &mut bool,
        length: impl Fn(&[u8]) -> usize,
    ) -> bool {
        let Some(channel) = self.channel else { return false };
        for id in self.start..self.end {
            let bytes = length(&channel.entries[(id - channel.first_id) as usize].json);
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
    /// Makes the slice for a read that begins at `since`.
    pub(super) fn slice_since(&self, since: Since, numbering: Numbering) -> ChannelSlice<'_> {
        let next_id = self.next_id();
        let reset = matches!(since, Since::Id(id) if numbering.lacks(id, next_id));
        match since {
            _ if reset => self.full_slice(true),
            Since::All => self.full_slice(false),
            Since::Id(id) => self.slice_from(id, true),
            Since::Last(count) => self.slice_from(next_id.saturating_sub(count), false),
            Since::Now => self.slice_from(next_id, false),
        }
    }

    /// Makes the slice for a reader, from its cursor on.
    #[inline]
    pub(super) fn slice_for(&self, subscription: Subscription) -> ChannelSlice<'_> {
        match subscription.gap_policy {
            GapPolicy::Report => self.slice_from(subscription.cursor, true),
            GapPolicy::Ignore => self.slice_from(subscription.cursor, false),
            policy => self.full_slice(policy == GapPolicy::Reset),
        }
    }

    fn slice_from(&self, id: u64, reports_gaps: bool) -> ChannelSlice<'_> {
        ChannelSlice {
            index: NO_CHANNEL,
            channel: Some(self),
            introductions: IntroductionSlice::default(),
            start: id.max(self.first_id),
            end: self.next_id(),
            gap: if reports_gaps && id < self.first_id { Gap::Missed } else { Gap::None },
            extent: Extent::Part,
        }
    }

    /// Makes the slice with all retained messages and the newest introduction of each member.
    fn full_slice(&self, is_reset: bool) -> ChannelSlice<'_> {
        let introductions = self.introductions.below(self.first_id);
        let gap = if is_reset { Gap::Reset } else { Gap::None };
        let messages = self.slice_from(self.first_id, false);
        let extent = if self.has_blanks { Extent::FullWithBlanks } else { Extent::Full };
        ChannelSlice { introductions, gap, extent, ..messages }
    }
}

#[cfg(test)]
mod tests {
    use super::ChannelSlice;
    use crate::hub::{ChannelName, Config, Hub, Millis, Mode, Now, ReadRequest, ReadResult, Since};

    const NOW: Now = Now { mono: Millis(0), unix_ms: 0 };

    /// Number of messages of a slice, its `next_id`, and whether it reports a gap.
    type Seen = (usize, u64, bool);

    fn see(slice: &ChannelSlice<'_>) -> Seen {
        (slice.messages().count(), slice.next_id(), slice.missed() || slice.reset())
    }

    fn write(hub: &mut Hub, name: &str) {
        let key = ChannelName::parse(name).unwrap().for_writing().unwrap();
        assert!(hub.write(NOW, &key, "m", None).is_ok());
    }

    /// Makes a read of channels from ids on. Returns what it sees at once; `None` if it waits.
    fn read(hub: &mut Hub, mode: Mode, targets: &[(&'static str, u64)]) -> Option<Vec<Seen>> {
        let target = |(name, id): &(&'static str, u64)| {
            (ChannelName::parse(name).unwrap().for_reading().unwrap(), Since::Id(*id))
        };
        let targets: Vec<_> = targets.iter().map(target).collect();
        let (epoch, credentials, grace_ms) = (None, None, None);
        let request =
            ReadRequest { targets: &targets, epoch, credentials, grace_ms, mode, token: 1 };
        match hub.read(NOW, &request) {
            Ok(ReadResult::Ready(reply)) => Some(reply.slices().iter().map(see).collect()),
            Ok(ReadResult::Pending(_)) => None,
            _ => panic!("neither a reply nor a long poll"),
        }
    }

    fn deliver(hub: &mut Hub) -> Vec<Seen> {
        let mut seen = Vec::new();
        hub.deliver(NOW, |wake| seen.extend(wake.reply.slices().iter().map(see)));
        seen
    }

    /// Other processes may have acknowledged the messages before the id of such a read.
    #[test]
    fn a_process_that_is_behind_waits_for_ids_that_it_does_not_have() {
        let mut hub = Hub::new(Config::default());
        hub.set_behind(true);
        for retained in [0, 1] {
            let seen = read(&mut hub, Mode::Immediate, &[("c", 3)]);
            assert_eq!(seen, Some(vec![(0, 3, false)]), "{retained} messages");
            write(&mut hub, "c");
        }
        assert_eq!(read(&mut hub, Mode::LongPoll, &[("c", 4)]), None);
        assert_eq!(read(&mut hub, Mode::LongPoll, &[("c", 9), ("d", 1)]), None);
        write(&mut hub, "c");
        assert_eq!(deliver(&mut hub), []);
        write(&mut hub, "d");
        assert_eq!(deliver(&mut hub), [(0, 9, false), (1, 2, false)]);
        write(&mut hub, "c");
        assert_eq!(deliver(&mut hub), [(1, 5, false)]);
        hub.set_behind(false);
        assert_eq!(read(&mut hub, Mode::Immediate, &[("c", 9)]), Some(vec![(4, 5, true)]));
        assert_eq!(read(&mut hub, Mode::Immediate, &[("e", 9)]), Some(vec![(0, 1, true)]));
    }
}

//! The end of a turn: what came together is delivered together.

use std::mem;

use super::channel::{Channel, ChannelSlice, Fingerprint};
use super::hub::Hub;
use super::reader::{ReaderKey, ReaderKind, Subscription};
use super::reply::Reply;
use super::stats::DropReason;
use super::time::Now;

/// Something for one waiting read.
pub struct Wake<'h> {
    /// Whom to answer, as [`ReadCall::client`](super::ReadCall::client) said.
    pub token: u64,
    /// Which channel it is answered for, by a number that stands for no other at the time; [`NO_CHANNEL`] for none. Those of
    /// one channel are to be answered in the order in which they are told.
    pub channel: u32,
    /// What to answer.
    pub reply: Reply<'h>,
    /// The reply equals that of the wake-up before: one encoding serves both.
    pub same_as_previous: bool,
    /// It waits no more: a long poll that is answered, or a stream that ends.
    pub is_last: bool,
    /// There is more for a stream than one answer holds: [`Hub::resume`] gives it once this one is taken.
    pub has_more: bool,
}

/// The stream that was told something last, of those that [`Hub::resume`] has go on one after the other.
#[derive(Debug, Default)]
pub struct ResumeBatch {
    pub(super) channel: u32,
    pub(super) fingerprint: Option<Fingerprint>,
}

/// For reads that are answered with nothing.
pub const NO_CHANNEL: u32 = u32::MAX;

/// Bytes of scratch space that stay from turn to turn.
const SCRATCH_KEEP_BYTES: usize = 4096;

impl Hub {
    /// Tells every waiting read what this turn brought for it, in the order in which they began to wait on their
    /// channel; then those that are to be answered with nothing. Long polls are answered by that, streams wait on.
    ///
    /// Costs O(waiting reads of the channels that changed).
    pub fn deliver(&mut self, now: Now, mut wake: impl FnMut(Wake<'_>)) {
        let mut marked = mem::take(&mut self.dirty_channels);
        for place in marked.drain(..) {
            self.deliver_channel(now, place, &mut wake);
        }
        self.dirty_channels = marked;
        for key in mem::take(&mut self.orphaned_readers) {
            self.complete_empty(now, key);
        }
        let mut dismissed = mem::take(&mut self.cancelled_readers);
        for reader in dismissed.drain(..) {
            let reply =
                Reply::of(reader.seats.as_slice().iter(), |seat| ChannelSlice::empty(seat.cursor));
            let (token, channel) = (reader.token, NO_CHANNEL);
            wake(Wake {
                token,
                channel,
                reply,
                same_as_previous: false,
                is_last: true,
                has_more: false,
            });
        }
        self.cancelled_readers = dismissed;
        // Room for a large message is for that message alone.
        self.scratch.shrink_to(SCRATCH_KEEP_BYTES);
    }

    /// Whether [`Hub::deliver`] has something to tell. Constant time.
    #[must_use]
    pub fn has_undelivered(&self) -> bool {
        !(self.dirty_channels.is_empty()
            && self.orphaned_readers.is_empty()
            && self.cancelled_readers.is_empty())
    }

    fn deliver_channel(&mut self, now: Now, place: u32, wake: &mut impl FnMut(Wake<'_>)) {
        let channel = &mut self.channels[place as usize];
        channel.is_dirty = false;
        let mut waiting = mem::take(&mut channel.readers_in_order);
        let mut last_print: Option<Fingerprint> = None;
        waiting.retain(|key| {
            let Some(reader) = self.readers.get(*key) else { return false };
            let seats = reader.seats.as_slice();
            let seat = seats.iter().find(|seat| seat.channel == place).expect("it waits here");
            if reader.kind == ReaderKind::PausedStream
                || !self.channels[place as usize].part_for(*seat).has_news()
            {
                return true;
            }
            if reader.kind == ReaderKind::Stream {
                self.push_to_stream(*key, place, &mut last_print, &mut *wake);
                return true;
            }
            let reader = self.remove_reader(now.mono, *key).expect("looked up above");
            let part = |seat: &Subscription| self.channels[seat.channel as usize].part_for(*seat);
            let mut reply = Reply::of(reader.seats.as_slice().iter(), part);
            reply.truncate(self.config.max_reply);
            let same_as_previous = matches_previous(&reply, &mut last_print);
            self.stats.count_delivery();
            let token = reader.token;
            wake(Wake {
                token,
                channel: place,
                reply,
                same_as_previous,
                is_last: true,
                has_more: false,
            });
            false
        });
        self.channels[place as usize].readers_in_order = waiting;
        if self.retention.messages == 0 {
            self.evict_history(place, DropReason::Count, Channel::clear_history);
        }
        // With no history its messages went, and with them what its timer was set for.
        self.arm_channel_timer(place);
    }

    /// Gives a stream what there is for it, and leaves it waiting.
    pub(super) fn push_to_stream(
        &mut self,
        key: ReaderKey,
        channel: u32,
        last_print: &mut Option<Fingerprint>,
        wake: impl FnOnce(Wake<'_>),
    ) {
        let Self { channels, readers, config, stats, .. } = self;
        stats.count_delivery();
        let reader = readers.get_mut(key).expect("looked up by the caller");
        let part = |seat: &Subscription| channels[seat.channel as usize].part_for(*seat);
        let mut reply = Reply::of(reader.seats.as_slice().iter(), part);
        let has_more = reply.truncate(config.max_reply);
        reader.advance(&reply, has_more);
        let same_as_previous = matches_previous(&reply, last_print);
        wake(Wake {
            token: reader.token,
            channel,
            reply,
            same_as_previous,
            is_last: false,
            has_more,
        });
    }
}

/// Whether a reply about one channel is the same as the one before, of which `last_print` knows.
fn matches_previous(reply: &Reply<'_>, last_print: &mut Option<Fingerprint>) -> bool {
    let print = match reply {
        Reply::One(part) => Some(part.fingerprint()),
        Reply::Many(_) => None,
    };
    let is_repeat = print.is_some() && print == *last_print;
    *last_print = print;
    is_repeat
}

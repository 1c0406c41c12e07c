//! The end of a turn: what came together is delivered together.

use std::mem;

use super::channel::{Channel, Part, PartPrint};
use super::hub::Hub;
use super::reader::{ReaderKey, Seat, Stay};
use super::reply::Reply;
use super::stats::Dropped;
use super::time::Now;

/// Something for one waiting read.
pub struct Wake<'h> {
    /// Whom to answer, as [`ReadCall::client`](super::ReadCall::client) said.
    pub client: u64,
    /// Which channel it is answered for, by a number that stands for no other at the time; [`NO_CHANNEL`] for none. Those of
    /// one channel are to be answered in the order in which they are told.
    pub channel: u32,
    /// What to answer.
    pub reply: Reply<'h>,
    /// The reply equals that of the wake-up before: one encoding serves both.
    pub is_repeat: bool,
    /// It waits no more: a long poll that is answered, or a stream that ends.
    pub is_last: bool,
    /// There is more for a stream than one answer holds: [`Hub::resume`] gives it once this one is taken.
    pub has_more: bool,
}

/// The stream that was told something last, of those that [`Hub::resume`] has go on one after the other.
#[derive(Debug, Default)]
pub struct Resumed {
    pub(super) channel: u32,
    pub(super) print: Option<PartPrint>,
}

/// For reads that are answered with nothing.
pub const NO_CHANNEL: u32 = u32::MAX;

/// Bytes of scratch space that stay from turn to turn.
const SCRATCH_KEPT: usize = 4096;

impl Hub {
    /// Tells every waiting read what this turn brought for it, in the order in which they began to wait on their
    /// channel; then those that are to be answered with nothing. Long polls are answered by that, streams wait on.
    ///
    /// Costs O(waiting reads of the channels that changed).
    pub fn deliver(&mut self, now: Now, mut wake: impl FnMut(Wake<'_>)) {
        let mut marked = mem::take(&mut self.marked);
        for place in marked.drain(..) {
            self.deliver_channel(now, place, &mut wake);
        }
        self.marked = marked;
        for key in mem::take(&mut self.orphans) {
            self.dismiss(now, key);
        }
        let mut dismissed = mem::take(&mut self.dismissed);
        for reader in dismissed.drain(..) {
            let reply = Reply::of(reader.seats.as_slice().iter(), |seat| Part::empty(seat.cursor));
            let (client, channel) = (reader.client, NO_CHANNEL);
            wake(Wake { client, channel, reply, is_repeat: false, is_last: true, has_more: false });
        }
        self.dismissed = dismissed;
        // Room for a large message is for that message alone.
        self.scratch.shrink_to(SCRATCH_KEPT);
    }

    /// Whether [`Hub::deliver`] has something to tell. Constant time.
    #[must_use]
    pub fn has_undelivered(&self) -> bool {
        !(self.marked.is_empty() && self.orphans.is_empty() && self.dismissed.is_empty())
    }

    fn deliver_channel(&mut self, now: Now, place: u32, wake: &mut impl FnMut(Wake<'_>)) {
        let channel = &mut self.channels[place as usize];
        channel.marked = false;
        let mut waiting = mem::take(&mut channel.waiting);
        let mut last_print: Option<PartPrint> = None;
        waiting.retain(|key| {
            let Some(reader) = self.readers.get(*key) else { return false };
            let seats = reader.seats.as_slice();
            let seat = seats.iter().find(|seat| seat.channel == place).expect("it waits here");
            if reader.stay == Stay::Behind || !self.channels[place as usize].part_for(*seat).has_news() {
                return true;
            }
            if reader.stay == Stay::On {
                self.tell(*key, place, &mut last_print, &mut *wake);
                return true;
            }
            let reader = self.release(now.mono, *key).expect("looked up above");
            let part = |seat: &Seat| self.channels[seat.channel as usize].part_for(*seat);
            let mut reply = Reply::of(reader.seats.as_slice().iter(), part);
            reply.cut(self.config.max_reply);
            let is_repeat = repeats(&reply, &mut last_print);
            self.tally.count_delivery();
            let client = reader.client;
            wake(Wake { client, channel: place, reply, is_repeat, is_last: true, has_more: false });
            false
        });
        self.channels[place as usize].waiting = waiting;
        if self.retention.messages == 0 {
            self.drop_history(place, Dropped::Count, Channel::forget);
        }
        // With no history its messages went, and with them what its timer was set for.
        self.watch_channel(place);
    }

    /// Gives a stream what there is for it, and leaves it waiting.
    pub(super) fn tell(
        &mut self,
        key: ReaderKey,
        channel: u32,
        last_print: &mut Option<PartPrint>,
        wake: impl FnOnce(Wake<'_>),
    ) {
        let Self { channels, readers, config, tally, .. } = self;
        tally.count_delivery();
        let reader = readers.get_mut(key).expect("looked up by the caller");
        let part = |seat: &Seat| channels[seat.channel as usize].part_for(*seat);
        let mut reply = Reply::of(reader.seats.as_slice().iter(), part);
        let has_more = reply.cut(config.max_reply);
        reader.go_on_after(&reply, has_more);
        let is_repeat = repeats(&reply, last_print);
        wake(Wake { client: reader.client, channel, reply, is_repeat, is_last: false, has_more });
    }
}

/// Whether a reply about one channel is the same as the one before, of which `last_print` knows.
fn repeats(reply: &Reply<'_>, last_print: &mut Option<PartPrint>) -> bool {
    let print = match reply {
        Reply::One(part) => Some(part.print()),
        Reply::Many(_) => None,
    };
    let is_repeat = print.is_some() && print == *last_print;
    *last_print = print;
    is_repeat
}

//! End of a turn: delivers the turn's messages to readers.

use std::mem;

use super::channel_slice::{ChannelSlice, Fingerprint};
use super::hub::Hub;
use super::reader::{ReaderKey, ReaderKind, Subscription};
use super::reply::Reply;
use super::time::Now;
use super::wake::{NO_CHANNEL, Wake};

impl Hub {
    /// Calls `wake` for each reader that gets a reply from this turn: channel by channel, in the
    /// order in which the readers came to their channel; then for readers that are completed
    /// without messages. A long poll ends with its reply, a stream waits on.
    ///
    /// Costs O(readers of the channels that changed).
    pub fn deliver(&mut self, now: Now, mut wake: impl FnMut(Wake<'_>)) {
        for position in 0..self.channels.dirty().len() {
            let index = self.channels.dirty()[position];
            self.deliver_channel(now, index, &mut wake);
        }
        for key in self.readers.take_orphaned() {
            self.complete_empty(now, key);
        }
        for reader in self.readers.drain_cancelled() {
            let subscriptions = reader.subscriptions.as_slice().iter();
            wake(Wake {
                token: reader.token,
                channel: NO_CHANNEL,
                reply: Reply::of(subscriptions, |own| ChannelSlice::empty(own.cursor)),
                same_as_previous: false,
                is_last: true,
                has_more: false,
            });
        }
        self.channels.finish_delivery();
    }

    /// Returns whether [`Hub::deliver`] has a reply for any reader. Constant time.
    #[must_use]
    pub fn has_undelivered(&self) -> bool {
        !self.channels.dirty().is_empty() || self.readers.has_undelivered()
    }

    fn deliver_channel(&mut self, now: Now, index: u32, wake: &mut impl FnMut(Wake<'_>)) {
        let local = self.channels.local_mut(index);
        local.is_dirty = false;
        // Taken out, because the removal of a reader changes its channels.
        let mut waiting = mem::take(&mut local.readers_in_order);
        let mut last_fingerprint: Option<Fingerprint> = None;
        waiting.retain(|key| {
            let Some(reader) = self.readers.get(*key) else { return false };
            let subscriptions = reader.subscriptions.as_slice();
            let own = subscriptions.iter().find(|subscription| subscription.channel == index);
            let own = own.expect("the reader is on the channel's list");
            if reader.kind == ReaderKind::PausedStream
                || !self.channels[index].slice_for(*own).has_news()
            {
                return true;
            }
            if reader.kind == ReaderKind::Stream {
                self.push_to_stream(*key, index, &mut last_fingerprint, &mut *wake);
                return true;
            }
            let reader = self.remove_reader(now.mono, *key).expect("looked up above");
            self.channels.count_delivery();
            let slice = |own: &Subscription| self.channels[own.channel].slice_for(*own);
            let mut reply = Reply::of(reader.subscriptions.as_slice().iter(), slice);
            reply.truncate(self.config.max_reply);
            let same_as_previous = matches_previous(&reply, &mut last_fingerprint);
            wake(Wake {
                token: reader.token,
                channel: index,
                reply,
                same_as_previous,
                is_last: true,
                has_more: false,
            });
            false
        });
        self.channels.local_mut(index).readers_in_order = waiting;
        self.channels.drop_unretained(index);
        // Without history the messages are gone, and with them the reason for the timer.
        self.channels.arm_timer(index, &mut self.timers);
    }

    /// Gives a stream its next reply.
    pub(super) fn push_to_stream(
        &mut self,
        key: ReaderKey,
        channel: u32,
        last_fingerprint: &mut Option<Fingerprint>,
        wake: impl FnOnce(Wake<'_>),
    ) {
        let Self { channels, readers, config, .. } = self;
        channels.count_delivery();
        let reader = readers.get_mut(key).expect("the caller has found the reader");
        let slice = |own: &Subscription| channels[own.channel].slice_for(*own);
        let mut reply = Reply::of(reader.subscriptions.as_slice().iter(), slice);
        let has_more = reply.truncate(config.max_reply);
        reader.advance(&reply, has_more);
        let same_as_previous = matches_previous(&reply, last_fingerprint);
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

/// Returns whether a reply of one channel equals the previous one, whose fingerprint `last` holds.
fn matches_previous(reply: &Reply<'_>, last: &mut Option<Fingerprint>) -> bool {
    let fingerprint = match reply {
        Reply::One(slice) => Some(slice.fingerprint()),
        Reply::Many(_) => None,
    };
    let matches = fingerprint.is_some() && fingerprint == *last;
    *last = fingerprint;
    matches
}

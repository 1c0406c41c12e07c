//! End of a turn: delivers the turn's messages to readers.

use std::mem;

use super::channel_slice::{ChannelSlice, Fingerprint, NO_CHANNEL};
use super::hub::Hub;
use super::reader::{ReaderKey, ReaderKind};
use super::reply::Reply;
use super::time::Now;
use super::wake::Wake;

impl Hub {
    /// Calls `wake` for each reader that gets a reply from this turn. Channel by channel, readers
    /// come in order of their arrival; then come the readers that are completed without messages. A
    /// long poll ends with its reply, a stream stays.
    ///
    /// Costs O(readers of the channels that changed).
    pub fn deliver(&mut self, now: Now, mut wake: impl FnMut(Wake<'_>)) {
        for nth in 0..self.channels.dirty().len() {
            let channel = self.channels.dirty()[nth];
            self.deliver_channel(now, channel, &mut wake);
        }
        for key in self.readers.take_to_complete() {
            self.complete_empty(now, key);
        }
        for reader in self.readers.drain_completed() {
            let subscriptions = reader.subscriptions.as_slice().iter();
            wake(Wake {
                token: reader.token,
                channel: NO_CHANNEL,
                reply: Reply::of(subscriptions, |it| ChannelSlice::empty(it.cursor)),
                same_as_previous: false,
                is_last: true,
                has_more: false,
            });
        }
        self.channels.finish_delivery();
    }

    /// Does the same in a hub that has no readers yet.
    pub(super) fn deliver_nothing(&mut self) {
        for nth in 0..self.channels.dirty().len() {
            let channel = self.channels.dirty()[nth];
            self.channels.local_mut(channel).is_dirty = false;
            self.drop_unretained(channel);
        }
        self.channels.finish_delivery();
    }

    /// Returns whether [`Hub::deliver`] has a reply for any reader. Constant time.
    #[must_use]
    pub fn has_undelivered(&self) -> bool {
        !self.channels.dirty().is_empty() || self.readers.has_undelivered()
    }

    fn deliver_channel(&mut self, now: Now, channel: u32, wake: &mut impl FnMut(Wake<'_>)) {
        let local = self.channels.local_mut(channel);
        local.is_dirty = false;
        // Taken out, because the removal of a reader changes its channels.
        let mut readers_in_order = mem::take(&mut local.readers_in_order);
        let mut last_fingerprint: Option<Fingerprint> = None;
        readers_in_order.retain(|key| {
            let Some(reader) = self.readers.get(*key) else { return false };
            let subscriptions = reader.subscriptions.as_slice();
            let subscription = subscriptions.iter().find(|it| it.channel == channel);
            let subscription = subscription.expect("the reader is on the channel's list");
            if reader.kind == ReaderKind::PausedStream
                || !self.channels[channel].slice_for(*subscription).has_news()
            {
                return true;
            }
            if reader.kind == ReaderKind::Stream {
                self.push_to_stream(*key, channel, &mut last_fingerprint, &mut *wake);
                return true;
            }
            let reader = self.remove_reader(now.mono, *key).expect("looked up above");
            self.channels.count_delivery();
            let subscriptions = reader.subscriptions.as_slice().iter();
            let mut reply = Reply::of(subscriptions, |it| self.channels.slice_for(it));
            reply.truncate(self.config.max_reply);
            let same_as_previous = matches_previous(&reply, &mut last_fingerprint);
            wake(Wake {
                token: reader.token,
                channel,
                reply,
                same_as_previous,
                is_last: true,
                has_more: false,
            });
            false
        });
        self.channels.local_mut(channel).readers_in_order = readers_in_order;
        self.drop_unretained(channel);
    }

    /// Drops the messages of a channel that history does not retain.
    #[inline]
    fn drop_unretained(&mut self, channel: u32) {
        self.channels.drop_unretained(channel);
        // Without messages, the channel needs its timer only if it is idle.
        self.channels.arm_timer(channel, &mut self.timers);
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
        let subscriptions = reader.subscriptions.as_slice().iter();
        let mut reply = Reply::of(subscriptions, |it| channels.slice_for(it));
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

/// Returns whether a reply of one channel equals the previous reply, which had the fingerprint
/// `last`. Stores the new fingerprint there.
fn matches_previous(reply: &Reply<'_>, last: &mut Option<Fingerprint>) -> bool {
    let fingerprint = match reply {
        Reply::One(slice) => Some(slice.fingerprint()),
        Reply::Many(_) => None,
    };
    let matches = fingerprint.is_some() && fingerprint == *last;
    *last = fingerprint;
    matches
}

#[cfg(test)]
mod tests {
    use crate::hub::{
        ChannelName, Config, Hub, Millis, Mode, Now, ReadRequest, ReadResult, ReaderKey, Since,
    };

    const NOW: Now = Now { mono: Millis(0), unix_ms: 0 };

    fn wait(hub: &mut Hub, mode: Mode) -> ReaderKey {
        let key = ChannelName::parse("c").unwrap().for_reading().unwrap();
        let targets = [(key, Since::Now)];
        let (epoch, credentials, grace_ms) = (None, None, None);
        let request =
            ReadRequest { targets: &targets, epoch, credentials, grace_ms, mode, token: 1 };
        match hub.read(NOW, &request) {
            Ok(ReadResult::Pending(reader) | ReadResult::Streaming(reader, _)) => reader,
            _ => unreachable!("there is nothing to report"),
        }
    }

    /// The caller of the hub must not sleep before it has delivered everything.
    #[test]
    fn messages_and_completed_readers_are_undelivered_until_the_delivery() {
        let mut hub = Hub::new(Config::default());
        let deliver = |hub: &mut Hub, is_needed: bool| {
            assert_eq!(hub.has_undelivered(), is_needed);
            hub.deliver(NOW, |_| {});
            assert!(!hub.has_undelivered());
        };
        deliver(&mut hub, false);
        let key = ChannelName::parse("c").unwrap().for_writing().unwrap();
        assert!(hub.write(NOW, &key, "m", None).is_ok());
        deliver(&mut hub, true);
        let poll = wait(&mut hub, Mode::LongPoll);
        deliver(&mut hub, false);
        hub.complete_empty(NOW, poll);
        deliver(&mut hub, true);
        let stream = wait(&mut hub, Mode::Stream);
        hub.complete_after_delivery(stream);
        deliver(&mut hub, true);
    }
}

//! The table of readers. All of it is local state.

use super::channels::Channels;
use super::reader::{READER_BYTES, Reader, ReaderKey, SUBSCRIPTION_BYTES, Subscriptions};
use super::slab::Slab;

/// All readers, and the readers that the next delivery completes.
#[derive(Default)]
pub(super) struct Readers {
    slab: Slab<Reader>,
    /// Memory of the subscriptions of readers that have several.
    subscription_bytes: usize,
    /// Readers whose session ended in this turn, and streams that the server ends. A reader of one
    /// of the session's channels is completed with its goodbye, any other reader without messages.
    to_complete: Vec<ReaderKey>,
    /// Readers that were removed in this turn and still get a reply without messages.
    completed: Vec<Reader>,
}

impl Readers {
    pub(super) fn get(&self, key: ReaderKey) -> Option<&Reader> {
        self.slab.get(key)
    }

    pub(super) fn get_mut(&mut self, key: ReaderKey) -> Option<&mut Reader> {
        self.slab.get_mut(key)
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn keys(&self) -> Vec<ReaderKey> {
        self.slab.keys().collect()
    }

    pub(super) fn insert(&mut self, reader: Reader, channels: &Channels) -> ReaderKey {
        self.subscription_bytes += subscription_bytes(&reader.subscriptions, channels);
        self.slab.insert(reader)
    }

    pub(super) fn remove(&mut self, key: ReaderKey, channels: &Channels) -> Option<Reader> {
        let reader = self.slab.remove(key)?;
        self.subscription_bytes -= subscription_bytes(&reader.subscriptions, channels);
        Some(reader)
    }

    /// Returns the memory of all readers.
    pub(super) fn memory(&self) -> usize {
        self.slab.len() * READER_BYTES + self.subscription_bytes
    }

    /// Detaches the readers of a session that ended. The next delivery completes them.
    pub(super) fn complete_later(&mut self, keys: &[ReaderKey]) {
        for key in keys {
            if let Some(reader) = self.slab.get_mut(*key) {
                reader.session = None;
            }
        }
        self.to_complete.extend_from_slice(keys);
    }

    /// Makes the next delivery complete a reader after the messages of the turn.
    pub(super) fn push_to_complete(&mut self, key: ReaderKey) {
        self.to_complete.push(key);
    }

    /// Makes the next delivery complete `new` if it was to complete `old`.
    pub(super) fn replace_to_complete(&mut self, old: ReaderKey, new: ReaderKey) {
        self.to_complete.iter_mut().filter(|key| **key == old).for_each(|key| *key = new);
    }

    pub(super) fn take_to_complete(&mut self) -> Vec<ReaderKey> {
        std::mem::take(&mut self.to_complete)
    }

    /// Makes the next delivery give a removed reader a reply without messages.
    pub(super) fn push_completed(&mut self, reader: Reader) {
        self.completed.push(reader);
    }

    pub(super) fn drain_completed(&mut self) -> impl Iterator<Item = Reader> + '_ {
        self.completed.drain(..)
    }

    /// Returns whether the next delivery completes any reader on these lists.
    pub(super) fn has_undelivered(&self) -> bool {
        !(self.to_complete.is_empty() && self.completed.is_empty())
    }

    /// Detaches all readers from their sessions.
    pub(super) fn detach_sessions(&mut self) {
        for key in self.keys() {
            if let Some(reader) = self.slab.get_mut(key) {
                reader.session = None;
            }
        }
    }
}

/// Returns the memory of the subscriptions of a reader. A reader of several channels needs their
/// names for its replies.
fn subscription_bytes(subscriptions: &Subscriptions, channels: &Channels) -> usize {
    match subscriptions.as_slice() {
        [_] => 0,
        several => several
            .iter()
            .map(|subscription| SUBSCRIPTION_BYTES + channels[subscription.channel].name.len())
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::Channel;
    use super::super::config::Config;
    use super::super::reader::{GapPolicy, ReaderKind, Subscription};
    use super::super::time::Millis;
    use super::super::timers::Timers;
    use super::*;

    #[test]
    fn a_reader_of_several_channels_weighs_each_subscription_and_name() {
        let mut timers = Timers::new(Millis(0));
        let mut channels = Channels::new(&Config::default());
        let subscriptions = ["one", "another"].map(|name| Subscription {
            channel: channels.insert(Channel::new(name, 1, Millis(0)), &mut timers),
            gap_policy: GapPolicy::Report,
            cursor: 1,
        });
        let mut readers = Readers::default();
        let mut insert = |subscriptions: Subscriptions| {
            let kind = ReaderKind::LongPoll;
            let reader = Reader { token: 0, subscriptions, session: None, grace_ms: 0, kind };
            let key = readers.insert(reader, &channels);
            (key, readers.memory())
        };
        let (one, memory_of_one) = insert(Subscriptions::One([subscriptions[0]]));
        assert_eq!(memory_of_one, READER_BYTES);
        let (two, memory) = insert(Subscriptions::of_several(subscriptions.into()));
        assert_eq!(
            memory,
            2 * READER_BYTES + 2 * SUBSCRIPTION_BYTES + "one".len() + "another".len()
        );
        for key in [two, one] {
            assert!(readers.remove(key, &channels).is_some());
            assert!(readers.remove(key, &channels).is_none());
        }
        assert_eq!(readers.memory(), 0);
    }
}

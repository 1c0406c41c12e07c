//! The table of readers. All of it is local state.

use super::channels::Channels;
use super::reader::{READER_BYTES, Reader, ReaderKey, SUBSCRIPTION_BYTES, Subscriptions};
use super::slab::Slab;

/// All readers, and those to complete by the next delivery.
#[derive(Default)]
pub(super) struct Readers {
    slab: Slab<Reader>,
    /// Memory of the channels of readers that have several.
    subscription_bytes: usize,
    /// Readers whose session ended this turn. They get its goodbye if they follow one of its
    /// channels, or a reply without messages.
    orphaned: Vec<ReaderKey>,
    /// Readers removed this turn that still get a reply without messages.
    cancelled: Vec<Reader>,
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
    pub(super) fn orphan(&mut self, keys: &[ReaderKey]) {
        for key in keys {
            if let Some(reader) = self.slab.get_mut(*key) {
                reader.session = None;
            }
        }
        self.orphaned.extend_from_slice(keys);
    }

    /// Completes `new` by the next delivery if `old` was to be completed.
    pub(super) fn replace_orphan(&mut self, old: ReaderKey, new: ReaderKey) {
        self.orphaned.iter_mut().filter(|key| **key == old).for_each(|key| *key = new);
    }

    pub(super) fn take_orphaned(&mut self) -> Vec<ReaderKey> {
        std::mem::take(&mut self.orphaned)
    }

    /// Gives a removed reader a reply without messages by the next delivery.
    pub(super) fn cancel(&mut self, reader: Reader) {
        self.cancelled.push(reader);
    }

    pub(super) fn drain_cancelled(&mut self) -> impl Iterator<Item = Reader> + '_ {
        self.cancelled.drain(..)
    }

    /// Returns whether any reader is to be completed without messages.
    pub(super) fn has_undelivered(&self) -> bool {
        !(self.orphaned.is_empty() && self.cancelled.is_empty())
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

/// Returns the memory of the channels of a reader. A reader of several channels needs their names
/// for its replies.
fn subscription_bytes(subscriptions: &Subscriptions, channels: &Channels) -> usize {
    match subscriptions.as_slice() {
        [_] => 0,
        several => several
            .iter()
            .map(|subscription| SUBSCRIPTION_BYTES + channels[subscription.channel].name.len())
            .sum(),
    }
}

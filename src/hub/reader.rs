//! Readers: pending reads.

use super::slab::Key;
use super::usage::ALLOCATION_BYTES;

/// Start of a read: the four forms of `from_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Above 0: messages with this id and later.
    Id(u64),
    /// 0: all retained messages, and the newest introduction of each member.
    All,
    /// -N: the last N retained messages.
    Last(u64),
    /// Absent: messages from now on.
    Now,
}

/// Reaction to a gap: history has dropped messages that the reader has not got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GapPolicy {
    /// `from_id` was above 0: the slice reports `missed`.
    Report,
    /// `from_id` was 0: the slice has the newest introduction of each member.
    FullState,
    /// `from_id` was absent or negative: nothing.
    Ignore,
    /// A numbering began while the reader waited: the slice reports `reset`.
    Reset,
}

/// One channel of a reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    /// Index of the channel.
    pub(super) channel: u32,
    pub(super) gap_policy: GapPolicy,
    /// First id that the reader has not got.
    pub(super) cursor: u64,
}

/// Channels of a reader, in the order of the request. One is the common case and needs no
/// allocation.
#[derive(Debug)]
pub(super) enum Subscriptions {
    One([Subscription; 1]),
    /// With the hash of the set of channels.
    Many(Box<[Subscription]>, u32),
}

impl Subscriptions {
    pub(super) fn as_slice(&self) -> &[Subscription] {
        match self {
            Self::One(subscription) => subscription,
            Self::Many(subscriptions, _) => subscriptions,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Subscription] {
        match self {
            Self::One(subscription) => subscription,
            Self::Many(subscriptions, _) => subscriptions,
        }
    }

    /// Makes the subscriptions of a reader of several channels.
    pub(super) fn of_several(subscriptions: Box<[Subscription]>) -> Self {
        let hash = hash_channel_set(subscriptions.iter().map(|it| it.channel));
        Self::Many(subscriptions, hash)
    }

    /// Returns the hash of the set of channels, to compare readers quickly.
    pub(super) fn channel_set_hash(&self) -> u32 {
        match self {
            Self::One([subscription]) => hash_channel_set([subscription.channel].into_iter()),
            Self::Many(_, hash) => *hash,
        }
    }
}

/// Hashes a set of channels: the sum of the hashes of their indexes, so that the order is
/// irrelevant. Each index is mixed by the finalizer of `MurmurHash3`.
pub(super) fn hash_channel_set(channels: impl Iterator<Item = u32>) -> u32 {
    let mix = |index: u32| {
        // The finalizer maps 0 to 0, which would add nothing to the sum.
        let index = index.wrapping_add(1);
        let index = (index ^ index >> 16).wrapping_mul(0x85eb_ca6b);
        let index = (index ^ index >> 13).wrapping_mul(0xc2b2_ae35);
        index ^ index >> 16
    };
    channels.map(mix).fold(0, u32::wrapping_add)
}

/// Kind of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderKind {
    /// Waits until its reply.
    LongPoll,
    /// Waits until it is closed.
    Stream,
    /// A stream whose last reply has not been sent yet. It gets no other reply until then.
    PausedStream,
}

/// A pending read.
#[derive(Debug)]
pub(super) struct Reader {
    /// Number that the caller chose, returned in wake-ups.
    pub(super) token: u64,
    pub(super) subscriptions: Subscriptions,
    /// Index of the session that the reader keeps alive.
    pub(super) session: Option<u32>,
    /// Time that the session survives if the client closes the read, in milliseconds.
    pub(super) grace_ms: u32,
    pub(super) kind: ReaderKind,
}

/// Key of a reader, valid until the reader is completed or closed.
pub type ReaderKey = Key;

/// Memory of a reader, with its keys in the lists of its channel and of its session.
pub(super) const READER_BYTES: usize =
    size_of::<Reader>() + 16 + 2 * size_of::<u64>() + ALLOCATION_BYTES;

/// Memory of each channel of a reader that has several, without the channel's name.
pub(super) const SUBSCRIPTION_BYTES: usize =
    size_of::<Subscription>() + 2 * size_of::<u64>() + 2 * ALLOCATION_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    /// A session may wait in 256 sets of 32 channels. The hash alone tells nearly all of them
    /// apart, so a new read compares no channels.
    #[test]
    fn the_hash_of_a_set_depends_on_each_channel_and_on_no_order() {
        let set = |last| (100..131).chain([last]);
        let hashes: std::collections::HashSet<_> =
            (1000..1256).map(|last| hash_channel_set(set(last))).collect();
        assert_eq!(hashes.len(), 256);
        for last in 1000..1256 {
            let reversed: Vec<_> = set(last).collect();
            let hash = hash_channel_set(reversed.into_iter().rev());
            assert!(hashes.contains(&hash), "{last}");
        }
        assert_ne!(hash_channel_set([1].into_iter()), hash_channel_set([1, 0].into_iter()));
    }

    #[test]
    fn a_reader_is_at_most_48_bytes() {
        assert!(size_of::<Reader>() <= 48, "{}", size_of::<Reader>());
    }
}

//! Replies to reads.

use super::channel_slice::ChannelSlice;
use super::reader::{GapPolicy, Reader, ReaderKind};

/// Reply to a read: one slice per channel, in the order of the request.
#[derive(Debug)]
pub enum Reply<'h> {
    /// The read named one channel.
    One(ChannelSlice<'h>),
    /// The read named several channels.
    Many(Vec<ChannelSlice<'h>>),
}

impl<'h> Reply<'h> {
    pub(super) fn of<T>(
        mut targets: impl ExactSizeIterator<Item = T>,
        slice: impl Fn(T) -> ChannelSlice<'h>,
    ) -> Self {
        match (targets.len(), targets.next()) {
            (1, Some(one)) => Self::One(slice(one)),
            (_, first) => Self::Many(first.into_iter().chain(targets).map(slice).collect()),
        }
    }

    /// Removes the messages beyond `max_bytes` and returns whether it removed any. The next read
    /// gets them. The first message is never removed.
    pub(super) fn truncate(&mut self, max_bytes: usize) -> bool {
        let (mut budget, mut has_message) = (max_bytes, false);
        match self {
            Self::One(slice) => slice.truncate(&mut budget, &mut has_message),
            Self::Many(slices) => {
                let mut is_cut = false;
                for slice in slices {
                    is_cut |= slice.truncate(&mut budget, &mut has_message);
                }
                is_cut
            }
        }
    }

    /// Returns whether any slice has messages, `missed` or `reset`.
    #[must_use]
    pub fn is_nonempty(&self) -> bool {
        self.slices().iter().any(ChannelSlice::has_news)
    }

    /// Returns the slices, in the order of the request.
    #[must_use]
    pub fn slices(&self) -> &[ChannelSlice<'h>] {
        match self {
            Self::One(slice) => std::slice::from_ref(slice),
            Self::Many(slices) => slices,
        }
    }
}

impl Reader {
    /// Moves the cursors past a reply. If `has_more`, pauses the stream.
    pub(super) fn advance(&mut self, reply: &Reply<'_>, has_more: bool) {
        for (subscription, slice) in
            self.subscriptions.as_mut_slice().iter_mut().zip(reply.slices())
        {
            subscription.cursor = slice.next_id();
            // The stream has a cursor now, so each gap after it must be reported.
            subscription.gap_policy = GapPolicy::Report;
        }
        self.kind = if has_more { ReaderKind::PausedStream } else { ReaderKind::Stream };
    }
}

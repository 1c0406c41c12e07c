//! What a read is answered.

use super::channel::ChannelSlice;
use super::reader::{GapPolicy, Reader, ReaderKind};

/// The answer of a read: one part for each channel, in the order asked.
#[derive(Debug)]
pub enum Reply<'h> {
    /// The read named one channel.
    One(ChannelSlice<'h>),
    /// The read named several.
    Many(Vec<ChannelSlice<'h>>),
}

impl<'h> Reply<'h> {
    pub(super) fn of<T>(
        mut asked: impl ExactSizeIterator<Item = T>,
        part: impl Fn(T) -> ChannelSlice<'h>,
    ) -> Self {
        match (asked.len(), asked.next()) {
            (1, Some(one)) => Self::One(part(one)),
            (_, first) => Self::Many(first.into_iter().chain(asked).map(part).collect()),
        }
    }

    /// Leaves what exceeds this many bytes of messages to the next read; one message always fits. Tells whether
    /// there is something left.
    pub(super) fn truncate(&mut self, max_bytes: usize) -> bool {
        let (mut budget, mut any) = (max_bytes, false);
        match self {
            Self::One(part) => part.cut(&mut budget, &mut any),
            Self::Many(parts) => {
                let mut is_cut = false;
                for part in parts {
                    is_cut |= part.cut(&mut budget, &mut any);
                }
                is_cut
            }
        }
    }

    /// Whether there is something to tell.
    #[must_use]
    pub fn is_nonempty(&self) -> bool {
        self.slices().iter().any(ChannelSlice::has_news)
    }

    /// The parts, in the order asked.
    #[must_use]
    pub fn slices(&self) -> &[ChannelSlice<'h>] {
        match self {
            Self::One(part) => std::slice::from_ref(part),
            Self::Many(parts) => parts,
        }
    }
}

impl Reader {
    /// Notes that it was given a reply, and whether that left something for later.
    pub(super) fn advance(&mut self, reply: &Reply<'_>, has_more: bool) {
        for (seat, part) in self.seats.as_mut_slice().iter_mut().zip(reply.slices()) {
            // It has a cursor now, and is owed all that follows.
            (seat.cursor, seat.promise) = (part.next_id(), GapPolicy::Report);
        }
        self.kind = if has_more { ReaderKind::PausedStream } else { ReaderKind::Stream };
    }
}

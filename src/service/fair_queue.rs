//! Sends for which a turn had no budget, in one queue per channel.
//!
//! Each queue is first in, first out. The queues are served in rotation, so that a channel with few
//! readers does not wait for a channel with many thousands.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::api::{ReplyFormat, SharedBytes, SharedReply, UpdateFormat};
use crate::hub::Key;

/// Sends of one channel in a row, before the next channel is served.
const QUANTUM: usize = 32;

/// What a client is to be sent.
pub(super) enum DeferredSend {
    /// The bytes in the client's write queue.
    Queued,
    /// Bytes that many clients share.
    Shared(Rc<SharedBytes>),
    /// The reply to a long poll, which is not encoded yet. Its format is `None` for the default.
    Reply(SharedReply, Option<Box<ReplyFormat>>),
    /// The update of a stream, which is not encoded yet.
    Update(SharedReply, UpdateFormat),
    /// The next update of a paused stream, which the hub will make then.
    Resume,
}

impl DeferredSend {
    /// Returns the memory for this client alone.
    fn memory(&self) -> usize {
        size_of::<Deferred>()
            + match self {
                Self::Queued | Self::Shared(_) | Self::Resume => 0,
                Self::Reply(reply, format) => {
                    reply.memory() + format.as_ref().map_or(0, |format| format.memory())
                }
                // The names of the channels are the stream's.
                Self::Update(reply, _) => reply.memory(),
            }
    }
}

/// A client, which may have been freed, and what it is to be sent.
pub(super) type Deferred = (Key, DeferredSend);

/// Deferred sends of all channels.
#[derive(Default)]
pub(super) struct FairQueue {
    by_channel: BTreeMap<u32, VecDeque<Deferred>>,
    /// Channel that is being served. It may have no queue.
    cursor: u32,
    /// Sends of that channel since it became the one to serve.
    served_in_a_row: usize,
    /// Bytes of all queues.
    memory: usize,
}

impl FairQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.by_channel.is_empty()
    }

    /// Returns the number of sends in all queues. O(channels).
    pub(super) fn len(&self) -> usize {
        self.by_channel.values().map(VecDeque::len).sum()
    }

    /// Returns the memory of all queues, without bytes that clients share.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Returns whether a send of this channel is deferred.
    pub(super) fn contains(&self, channel: u32) -> bool {
        !self.by_channel.is_empty() && self.by_channel.contains_key(&channel)
    }

    pub(super) fn push(&mut self, channel: u32, deferred: Deferred) {
        self.memory += deferred.1.memory();
        self.by_channel.entry(channel).or_default().push_back(deferred);
    }

    /// Takes the next send.
    pub(super) fn pop(&mut self) -> Option<Deferred> {
        if self.served_in_a_row >= QUANTUM {
            (self.cursor, self.served_in_a_row) = (self.cursor.wrapping_add(1), 0);
        }
        let next =
            self.by_channel.range(self.cursor..).next().or_else(|| self.by_channel.iter().next());
        let (&channel, _) = next?;
        if channel != self.cursor {
            (self.cursor, self.served_in_a_row) = (channel, 0);
        }
        self.served_in_a_row += 1;
        let queue = self.by_channel.get_mut(&channel)?;
        let deferred = queue.pop_front();
        self.memory -= deferred.as_ref().map_or(0, |(_, send)| send.memory());
        if queue.is_empty() {
            self.by_channel.remove(&channel);
        }
        deferred
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_queue_does_not_wait_for_a_long_one_and_each_keeps_its_order() {
        let client = |number: u64| (Key::from_bits(number), DeferredSend::Queued);
        let mut queue = FairQueue::default();
        for number in 0..1000 {
            queue.push(7, client(number));
        }
        assert_eq!(queue.pop().map(|(key, _)| key.to_bits()), Some(0));
        queue.push(3, client(2001));
        queue.push(3, client(2002));
        queue.push(u32::MAX, client(3001));
        let order: Vec<_> =
            std::iter::from_fn(|| queue.pop()).map(|(key, _)| key.to_bits()).collect();
        let index = |number| order.iter().position(|its| *its == number).unwrap();
        let (first, last) = (index(2001), index(3001));
        assert!(first < 2 * QUANTUM && last < 2 * QUANTUM, "{first} {last}");
        assert!(first < index(2002));
        let long: Vec<_> = order.iter().filter(|number| **number < 1000).collect();
        assert!(long.is_sorted() && long.len() == 999);
        assert!(queue.is_empty() && !queue.contains(7) && queue.memory() == 0);
    }
}

//! The last records of the log, for a Redis that lacks them.

use std::collections::VecDeque;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::entry;
use super::log_end::{LogEnd, Seal};
use super::stream_id::StreamId;

/// Bytes of records that are kept. The last record is kept whatever its size.
pub(super) const BYTES_MAX: usize = 8 << 20;

/// Memory that is counted for a record besides its bytes.
const RECORD_BYTES: usize = size_of::<Seal>() + size_of::<usize>();

/// The last records that were read, as they were in the stream. It holds secrets, so it has no
/// `Debug`.
pub(super) struct Tail {
    records: VecDeque<(Seal, usize)>,
    /// Values of the records, one after the other.
    bytes: VecDeque<u8>,
    /// End of the log before the first record that is kept.
    base: LogEnd,
    /// Bytes of records that are kept, at most.
    bytes_max: usize,
}

/// A tail, as the successor of a process gets it. It holds secrets, so it has no `Debug`.
#[derive(Clone, Encode, Decode)]
pub(super) struct SavedTail {
    #[n(0)]
    base: LogEnd,
    /// Records with their commands.
    #[n(1)]
    records: Vec<(Seal, ByteVec)>,
}

impl Tail {
    /// Makes the tail of a log whose records up to this place are not kept. It keeps so many bytes.
    pub(super) fn after(base: LogEnd, bytes_max: usize) -> Self {
        Self { records: VecDeque::new(), bytes: VecDeque::new(), base, bytes_max }
    }

    /// Makes the tail of a process that takes over from another one. `None` if that one has kept
    /// another part of the log than the records up to `end`.
    pub(super) fn restore(saved: &SavedTail, end: LogEnd, bytes_max: usize) -> Option<Self> {
        let (mut tail, mut last) = (Self::after(saved.base, bytes_max), saved.base);
        for (seal, commands) in &saved.records {
            tail.push(*seal, commands);
            last = last.after(*seal, commands.len());
        }
        (last.last == end.last).then_some(tail)
    }

    /// Returns the records up to the one with this id, to be saved.
    pub(super) fn save(&self, last: StreamId) -> SavedTail {
        let mut values = self.after_id(StreamId::default());
        let seals = self.records.iter().map(|(seal, _)| *seal);
        let records = seals.take_while(|seal| seal.id <= last).zip(&mut values);
        let commands = |value: Vec<u8>| value[entry::HEAD_BYTES..].to_vec().into();
        let records = records.map(|(seal, (_, value))| (seal, commands(value))).collect();
        SavedTail { base: self.base, records }
    }

    /// Adds the next record. `commands` is what its value has after its head.
    pub(super) fn push(&mut self, seal: Seal, commands: &[u8]) {
        let length = entry::HEAD_BYTES + commands.len();
        while self.memory() + length + RECORD_BYTES > self.bytes_max
            && let Some((seal, length)) = self.records.pop_front()
        {
            self.bytes.drain(..length);
            self.base = self.base.after(seal, length - entry::HEAD_BYTES);
        }
        self.reserve(length);
        self.bytes.extend(&entry::head(seal.node, seal.sequence));
        self.bytes.extend(commands);
        self.records.push_back((seal, length));
    }

    /// Makes room for so many bytes. Doubles the buffer as a vector does, but not beyond the limit:
    /// a ring buffer comes to use all of its memory.
    fn reserve(&mut self, length: usize) {
        let used = self.bytes.len();
        if self.bytes.capacity() - used < length {
            let doubled = used.min(self.bytes_max.saturating_sub(used));
            self.bytes.reserve_exact(doubled.max(length));
        }
    }

    /// The last record that was read.
    pub(super) fn last(&self) -> Option<Seal> {
        let base = || (!self.is_whole()).then_some(self.base.last);
        self.records.back().map(|(seal, _)| *seal).or_else(base)
    }

    /// End of the log before the first record that is kept.
    pub(super) fn base(&self) -> LogEnd {
        self.base
    }

    /// Bytes of records that are kept, at most.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Returns whether no record is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns whether all records of the log are kept.
    pub(super) fn is_whole(&self) -> bool {
        self.base.position == 0
    }

    /// Returns whether the records after this one are kept.
    pub(super) fn has_after(&self, seal: Seal) -> bool {
        let found = self.records.binary_search_by_key(&seal.id, |(its, _)| its.id);
        let is_base = !self.is_whole() && self.base.last == seal;
        is_base || found.is_ok_and(|index| self.records[index].0 == seal)
    }

    /// Iterates over the records after this id, with their values.
    pub(super) fn after_id(&self, id: StreamId) -> impl Iterator<Item = (StreamId, Vec<u8>)> + '_ {
        let mut end = 0;
        let records = self.records.iter().map(move |(seal, length)| {
            let start = end;
            end += length;
            (seal.id, start..end)
        });
        let records = records.filter(move |(its, _)| *its > id);
        records.map(|(id, range)| (id, self.bytes.range(range).copied().collect()))
    }

    /// Memory in bytes.
    fn memory(&self) -> usize {
        self.bytes.len() + self.records.len() * RECORD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(unix_ms: u64) -> Seal {
        Seal { id: StreamId { unix_ms, number: 0 }, node: 7, sequence: unix_ms }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let mut tail = Tail::after(LogEnd::default(), BYTES_MAX);
        for ms in 1..=3 {
            tail.push(seal(ms), format!("commands {ms}").as_bytes());
        }
        let records: Vec<_> = tail.after_id(seal(1).id).collect();
        let expected = [2, 3]
            .map(|ms| (seal(ms).id, entry::encode(7, ms, format!("commands {ms}").as_bytes())));
        assert_eq!(records, expected);
        assert_eq!(tail.after_id(StreamId::default()).count(), 3);
        assert!(tail.has_after(seal(2)) && !tail.has_after(Seal { sequence: 9, ..seal(2) }));
        assert!(!tail.has_after(seal(4)) && tail.is_whole() && tail.last() == Some(seal(3)));
    }

    #[test]
    fn a_successor_has_the_records_that_its_predecessor_has_applied() {
        let mut tail = Tail::after(LogEnd { last: seal(1), position: 1, bytes: 50 }, BYTES_MAX);
        (2..=4).for_each(|ms| tail.push(seal(ms), b"commands"));
        let saved = minicbor::to_vec(tail.save(seal(3).id)).unwrap();
        let saved = minicbor::decode(&saved).unwrap();
        let end = |ms| LogEnd { last: seal(ms), position: ms, bytes: 0 };
        let restored = Tail::restore(&saved, end(3), BYTES_MAX).unwrap();
        assert_eq!((restored.last(), restored.base()), (Some(seal(3)), tail.base()));
        let values = |tail: &Tail| tail.after_id(seal(1).id).take(2).collect::<Vec<_>>();
        assert_eq!(values(&restored), values(&tail));
        assert!(Tail::restore(&saved, end(4), BYTES_MAX).is_none(), "it lacks the last one");
        let empty = Tail::after(end(4), BYTES_MAX).save(seal(4).id);
        assert_eq!(Tail::restore(&empty, end(4), BYTES_MAX).unwrap().last(), Some(seal(4)));
    }

    #[test]
    fn the_oldest_records_go_when_there_are_too_many_bytes() {
        let mut tail = Tail::after(LogEnd::default(), BYTES_MAX);
        let half = vec![0; BYTES_MAX / 2];
        tail.push(seal(1), &half);
        assert!(tail.is_whole());
        tail.push(seal(2), &half);
        let base = LogEnd { last: seal(1), position: 1, bytes: half.len() as u64 };
        assert!(!tail.is_whole() && tail.base() == base && tail.has_after(seal(1)));
        tail.push(seal(3), &vec![1; 2 * BYTES_MAX]);
        assert_eq!((tail.base().last, tail.base().position), (seal(2), 2));
        assert_eq!(tail.last(), Some(seal(3)));
        let (_, value) = tail.after_id(StreamId::default()).next().unwrap();
        assert_eq!(value.len(), entry::HEAD_BYTES + 2 * BYTES_MAX);
    }

    #[test]
    fn the_buffer_does_not_grow_beyond_the_limit() {
        for length in [100, 60_000, 1_000_000] {
            let mut tail = Tail::after(LogEnd::default(), BYTES_MAX);
            let commands = vec![0; length];
            for ms in 0..2 * (BYTES_MAX / length) as u64 {
                tail.push(seal(ms), &commands);
                assert!(tail.memory() <= BYTES_MAX && tail.bytes.capacity() <= BYTES_MAX);
            }
            assert!(!tail.is_whole() && tail.memory() + 2 * length >= BYTES_MAX, "{length}");
        }
    }

    #[test]
    fn a_log_that_begins_at_a_snapshot_ends_there_before_its_first_record() {
        let base = LogEnd { last: seal(5), position: 5, bytes: 50 };
        let mut tail = Tail::after(base, BYTES_MAX);
        assert!(tail.is_empty() && !tail.is_whole() && tail.last() == Some(seal(5)));
        tail.push(seal(6), b"");
        assert!(tail.has_after(seal(5)) && tail.base() == base && tail.last() == Some(seal(6)));
        assert_eq!(Tail::after(LogEnd::default(), BYTES_MAX).last(), None);
    }
}

//! The last records of the log, for a Redis that lacks them.

use std::collections::VecDeque;

use super::entry;
use super::state::LastRecord;
use super::stream_id::StreamId;

/// Bytes of records that are kept. The last record is kept whatever its size.
const BYTES_MAX: usize = 8 << 20;

/// Memory that is counted for a record besides its bytes.
const RECORD_BYTES: usize = size_of::<Seal>() + size_of::<usize>();

/// What tells one record from all others: where it is in the stream, and who appended it. The id
/// alone does not: two servers may draw the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) id: StreamId,
    pub(super) node: u64,
    pub(super) sequence: u64,
}

/// The last records that were read, as they were in the stream. It holds secrets, so it has no
/// `Debug`.
pub(super) struct Tail {
    records: VecDeque<(Seal, usize)>,
    /// Values of the records, one after the other.
    bytes: VecDeque<u8>,
    /// Position of the next record that is added.
    next_position: u64,
}

impl Tail {
    /// Makes the tail of a log whose records up to this position are not kept.
    pub(super) fn after(position: u64) -> Self {
        let next_position = position + 1;
        Self { records: VecDeque::new(), bytes: VecDeque::new(), next_position }
    }

    /// Adds the next record. `commands` is what its value has after its head.
    pub(super) fn push(&mut self, seal: Seal, commands: &[u8]) {
        self.next_position += 1;
        self.bytes.extend(entry::head(seal.node, seal.sequence));
        self.bytes.extend(commands);
        self.records.push_back((seal, entry::HEAD_BYTES + commands.len()));
        while self.memory() > BYTES_MAX && self.records.len() > 1 {
            let (_, length) = self.records.pop_front().expect("there are two");
            self.bytes.drain(..length);
        }
    }

    /// The last record that was read.
    pub(super) fn last(&self) -> Option<Seal> {
        self.records.back().map(|(seal, _)| *seal)
    }

    /// The last record that was read, with its commands.
    pub(super) fn last_record(&self) -> Option<LastRecord> {
        let (Seal { node, sequence, .. }, length) = *self.records.back()?;
        let start = self.bytes.len() - length + entry::HEAD_BYTES;
        let commands = self.bytes.range(start..).copied().collect();
        Some(LastRecord { node, sequence, commands })
    }

    /// The first record that is kept.
    pub(super) fn first(&self) -> Option<Seal> {
        self.records.front().map(|(seal, _)| *seal)
    }

    /// Returns whether the first record that is kept is the first one of the log.
    pub(super) fn is_whole(&self) -> bool {
        self.next_position == self.records.len() as u64 + 1
    }

    /// Returns whether this record is among those that are kept.
    pub(super) fn has(&self, seal: Seal) -> bool {
        let found = self.records.binary_search_by_key(&seal.id, |(its, _)| its.id);
        found.is_ok_and(|index| self.records[index].0 == seal)
    }

    /// Iterates over the records from this id on, with their values.
    pub(super) fn since(&self, id: StreamId) -> impl Iterator<Item = (StreamId, Vec<u8>)> + '_ {
        let mut end = 0;
        let records = self.records.iter().map(move |(seal, length)| {
            let start = end;
            end += length;
            (seal.id, start..end)
        });
        let records = records.filter(move |(its, _)| *its >= id);
        records.map(|(id, range)| (id, self.bytes.range(range).copied().collect()))
    }

    /// Memory in bytes.
    pub(super) fn memory(&self) -> usize {
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
        let mut tail = Tail::after(0);
        for ms in 1..=3 {
            tail.push(seal(ms), format!("commands {ms}").as_bytes());
        }
        let records: Vec<_> = tail.since(seal(2).id).collect();
        let expected = [2, 3]
            .map(|ms| (seal(ms).id, entry::encode(7, ms, format!("commands {ms}").as_bytes())));
        assert_eq!(records, expected);
        assert_eq!(tail.since(StreamId::default()).count(), 3);
        let last = tail.last_record().unwrap();
        assert_eq!((last.node, last.sequence, &*last.commands), (7, 3, &b"commands 3"[..]));
        assert!(tail.has(seal(2)) && !tail.has(Seal { sequence: 9, ..seal(2) }));
        assert!(!tail.has(seal(4)) && tail.is_whole() && tail.last() == Some(seal(3)));
    }

    #[test]
    fn the_oldest_records_go_when_there_are_too_many_bytes() {
        let mut tail = Tail::after(0);
        let half = vec![0; BYTES_MAX / 2];
        tail.push(seal(1), &half);
        assert!(tail.is_whole());
        tail.push(seal(2), &half);
        assert!(!tail.is_whole() && tail.first() == Some(seal(2)));
        tail.push(seal(3), &vec![1; 2 * BYTES_MAX]);
        assert_eq!((tail.first(), tail.last()), (Some(seal(3)), Some(seal(3))));
        let (_, value) = tail.since(StreamId::default()).next().unwrap();
        assert_eq!(value.len(), entry::HEAD_BYTES + 2 * BYTES_MAX);
    }
}

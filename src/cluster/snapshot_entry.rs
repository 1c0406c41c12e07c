//! The entry that describes the newest snapshot.
//!
//! It is the only entry of a stream of its own, which nodes follow together with the stream of
//! records. One transaction adds it and trims the records. So a node that reads both at once learns
//! whether records were removed that it has not read.

use minicbor::{Decode, Encode};

use super::entry::FIELD;
use super::log_end::{LogEnd, POSITION_MAX};
use super::stream_id::StreamId;
use super::value::Value;

/// Format of the pieces.
const FORMAT: u32 = 1;

/// A snapshot in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct SnapshotEntry {
    #[n(0)]
    format: u32,
    /// Random name: that of its key, and the value of the lock of its writer.
    #[n(1)]
    pub(super) name: u64,
    /// Number of pieces. 0 for a snapshot that is missing: the log lacks the records up to `end`.
    #[n(2)]
    pub(super) pieces: u64,
    /// End of the log when the snapshot began. The records after it go on from the snapshot.
    #[n(3)]
    pub(super) end: LogEnd,
    /// Size of all pieces.
    #[n(4)]
    pub(super) bytes: u64,
}

impl SnapshotEntry {
    /// Describes a snapshot without pieces.
    pub(super) fn new(name: u64, end: LogEnd) -> Self {
        Self { format: FORMAT, name, pieces: 0, end, bytes: 0 }
    }

    /// Returns whether the log lacks records, and there is no snapshot of them yet.
    pub(super) fn is_missing(&self) -> bool {
        self.pieces == 0
    }

    /// Encodes the entry as the value of its field.
    pub(super) fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("a Vec takes all bytes")
    }

    /// Returns the entries of a reply with their ids, `[entry, …]`. `None` for an entry of another
    /// program, or of another version of this one.
    pub(super) fn parse_all(entries: &Value) -> impl Iterator<Item = (StreamId, Option<Self>)> {
        entries.as_array().unwrap_or_default().iter().filter_map(|value| {
            let [id, fields] = value.as_array()? else { return None };
            let id = StreamId::parse(id.as_text()?)?;
            let entry = match fields.as_array() {
                Some([name, entry]) if name.as_text() == Some(FIELD) => entry.as_text(),
                _ => None,
            };
            let entry: Option<Self> = entry.and_then(|entry| minicbor::decode(entry).ok());
            let is_possible = |it: &Self| it.format == FORMAT && it.end.position <= POSITION_MAX;
            Some((id, entry.filter(is_possible)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::log_end::Seal;
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let id = StreamId { unix_ms: 1 << 41, number: 3 };
        let end = LogEnd { last: Seal { id, node: 5, sequence: 6 }, position: 70, bytes: 9000 };
        let entry = SnapshotEntry { pieces: 4, bytes: 70_000, ..SnapshotEntry::new(u64::MAX, end) };
        let text = |bytes: &[u8]| Value::Text(bytes.into());
        let reply = |bytes: &[u8]| {
            let fields = Value::Array(vec![text(FIELD), text(bytes)]);
            Value::Array(vec![Value::Array(vec![text(b"5-1"), fields])])
        };
        let parse = |value: &Value| SnapshotEntry::parse_all(value).collect::<Vec<_>>();
        let at = StreamId { unix_ms: 5, number: 1 };
        assert_eq!(parse(&reply(&entry.encode())), [(at, Some(entry))]);
        let later = SnapshotEntry { format: 2, ..entry };
        assert_eq!(parse(&reply(&later.encode())), [(at, None)]);
        assert_eq!(parse(&reply(b"x")), [(at, None)]);
        let far = LogEnd { position: u64::MAX, ..end };
        let impossible = SnapshotEntry { end: far, ..entry };
        assert_eq!(parse(&reply(&impossible.encode())), [(at, None)]);
        assert_eq!(parse(&Value::Array(Vec::new())), []);
        assert_eq!(parse(&Value::Nil), []);
    }
}

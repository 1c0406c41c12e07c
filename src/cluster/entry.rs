//! Entries of the stream: records of the nodes.

use super::log_end::POSITION_MAX;
use super::stream_id::StreamId;
use super::value::Value;

/// Name of the only field of an entry.
pub(super) const FIELD: &[u8] = b"r";

/// Node of a record that begins a numbering of ids, or has no commands. Its sequence number is its
/// position, if the node that appended it knew that.
pub(super) const NO_NODE: u64 = 0;

/// Bytes before the commands: node and sequence number.
pub(super) const HEAD_BYTES: usize = 16;

/// A record in the stream. It holds secrets, so it has no `Debug`.
pub(super) struct Entry {
    pub(super) id: StreamId,
    /// Node that appended it.
    pub(super) node: u64,
    /// Number of the record among those of the node.
    pub(super) sequence: u64,
    pub(super) commands: Vec<u8>,
}

/// Encodes a record as the value of the field.
pub(super) fn encode(node: u64, sequence: u64, commands: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + commands.len());
    bytes.extend_from_slice(&head(node, sequence));
    bytes.extend_from_slice(commands);
    bytes
}

/// Encodes what the value has before the commands.
pub(super) fn head(node: u64, sequence: u64) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..8].copy_from_slice(&node.to_le_bytes());
    bytes[8..].copy_from_slice(&sequence.to_le_bytes());
    bytes
}

impl Entry {
    /// Returns the id of an entry in a reply, and its record; `None` for an entry that no node has
    /// added.
    pub(super) fn parse(value: &Value) -> Option<(StreamId, Option<Self>)> {
        let [id, fields] = value.as_array()? else { return None };
        let id = StreamId::parse(id.as_text()?)?;
        let record = match fields.as_array() {
            Some([name, record]) if name.as_text() == Some(FIELD) => record.as_text(),
            _ => None,
        };
        Some((id, record.and_then(|record| Self::decode(id, record))))
    }

    fn decode(id: StreamId, record: &[u8]) -> Option<Self> {
        let (node, rest) = record.split_first_chunk()?;
        let (sequence, commands) = rest.split_first_chunk()?;
        let (node, sequence) = (u64::from_le_bytes(*node), u64::from_le_bytes(*sequence));
        let is_possible = node != NO_NODE || sequence <= POSITION_MAX;
        is_possible.then(|| Self { id, node, sequence, commands: commands.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Value {
        Value::Text(bytes.into())
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = encode(3, 1 << 40, b"commands");
        let fields = Value::Array(vec![text(FIELD), text(&record)]);
        let (id, entry) = Entry::parse(&Value::Array(vec![text(b"5-1"), fields])).unwrap();
        let entry = entry.unwrap();
        assert_eq!(id, StreamId { unix_ms: 5, number: 1 });
        assert_eq!((entry.node, entry.sequence), (3, 1 << 40));
        assert_eq!(entry.commands, b"commands");
    }

    #[test]
    fn an_entry_of_another_program_is_no_record() {
        for fields in [
            vec![text(b"x"), text(&[0; 20])],
            vec![text(FIELD), text(&[0; 15])],
            vec![text(FIELD), text(&[0; 20]), text(b"x"), text(b"y")],
            vec![],
        ] {
            let value = Value::Array(vec![text(b"5-1"), Value::Array(fields)]);
            let (id, entry) = Entry::parse(&value).unwrap();
            assert!(id.unix_ms == 5 && entry.is_none());
        }
        let record = encode(NO_NODE, u64::MAX, b"");
        let value =
            Value::Array(vec![text(b"5-1"), Value::Array(vec![text(FIELD), text(&record)])]);
        assert!(Entry::parse(&value).is_some_and(|(_, entry)| entry.is_none()));
        assert!(Entry::parse(&Value::Array(vec![text(b"x"), Value::Nil])).is_none());
        assert!(Entry::parse(&Value::Nil).is_none());
    }
}
